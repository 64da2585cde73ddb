"""The service over real gRPC: every method, every kind of refusal with its details, authentication, watching."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.timestamp_pb2 import Timestamp

from hutong.tokenization.v1 import token_pb2 as pb
from hutong.tokenization.v1 import token_pb2_grpc
from hutong_contract import transit
from hutong_contract.errors import Reason, from_rpc_error
from hutong_contract.names import GATEWAY_TRID, OPERATOR_TRID, REQUESTOR_SECRET_METADATA, WALLET_TRID
from hutong_contract.payment_code import offline_code
from hutong_contract.secret import Secret
from tests.deadlines import CALL_S
from tests.tokenization.world import World
from tokenization.requestors import Requestor, Role
from tokenization.server import registration


class Served:
    """A token service behind a port, on an event loop of its own."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(CALL_S)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.stub: Any = token_pb2_grpc.TokenServiceStub(self.channel)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._stop = asyncio.Event()
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = grpc.aio.server()
        assert registration(self.world.service)(server) == ["hutong.tokenization.v1.TokenService"]
        self.port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        self._ready.set()
        await self._stop.wait()
        await server.stop(0)

    def close(self) -> None:
        self.channel.close()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self.world.service.close()

    def refused(self, method: str, request: Any, **options: Any) -> str:
        with pytest.raises(grpc.RpcError) as error:
            getattr(self.stub, method)(request, timeout=CALL_S, **options)
        refusal = from_rpc_error(error.value)
        assert refusal is not None, str(error.value)
        assert error.value.code() is refusal.status_code
        return refusal.name


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path / "vault")
    yield made
    made.close()


def ask(account: str = "6225880112345674", **fields: Any) -> pb.RequestTokenRequest:
    return pb.RequestTokenRequest(requestor_id=WALLET_TRID, issuer_id="issuer-a", account_number=account, **fields)


def test_a_tokens_life(served: Served) -> None:
    stub = served.stub
    made = stub.RequestToken(ask(assurance_method="14", domain=pb.TokenDomain(amount_max_minor=9_000)))
    assert made.created
    assert not stub.RequestToken(ask()).created
    assert made.view.domain.amount_max_minor == 9_000
    assert made.view.requestor_ids == [WALLET_TRID]
    name = pb.TokenName(token_ref=made.view.token_ref)
    for change, state in (
        (pb.STATE_CHANGE_SUSPEND, pb.TOKEN_STATE_SUSPENDED),
        (pb.STATE_CHANGE_RESUME, pb.TOKEN_STATE_ACTIVE),
    ):
        asked = pb.ChangeStateRequest(requestor_id=WALLET_TRID, name=name, change=change, reason="test")
        assert stub.ChangeState(asked).view.state == state
    key = stub.CreateKey(
        pb.CreateKeyRequest(requestor_id=WALLET_TRID, name=name, kind=pb.TOKEN_KEY_KIND_DEVICE, device_id="phone")
    )
    assert len(key.device_key) == 32
    changed = stub.UpdateDomain(
        pb.UpdateDomainRequest(
            requestor_id=WALLET_TRID, name=name, budget=pb.TokenBudget(amount_minor=5, currency="CNY")
        )
    )
    assert changed.view.budget.amount_minor == 5
    replaced = stub.ReplaceToken(pb.ReplaceTokenRequest(requestor_id=WALLET_TRID, name=name))
    assert replaced.token != made.token
    shown = stub.GetToken(pb.GetTokenRequest(requestor_id=WALLET_TRID, name=pb.TokenName(token=made.token)))
    assert shown.view.state == pb.TOKEN_STATE_REPLACED
    assert [one.state for one in shown.keys] == [pb.TOKEN_STATE_DELETED]
    events = stub.ListHistory(pb.ListHistoryRequest(requestor_id=WALLET_TRID, name=name)).events
    assert [event.kind for event in events] == [
        "suspended",
        "resumed",
        "key_added",
        "domain_updated",
        "deleted",
        "replaced",
    ]
    assert events[0].reason == "test"


def test_codes_resolve_for_a_gateway_only(served: Served) -> None:
    stub, clock = served.stub, served.world.clock
    made = stub.RequestToken(ask())
    name = pb.TokenName(token=made.token)
    online = stub.ReserveCode(pb.ReserveCodeRequest(requestor_id=WALLET_TRID, name=name))
    assert online.expire_time.ToMicroseconds() == clock.now_us + 60_000_000
    day = stub.ProvisionCodes(pb.ProvisionCodesRequest(requestor_id=WALLET_TRID, name=name, device_id="phone"))
    rider = ec.generate_private_key(ec.SECP256R1())
    issued = stub.IssueTransit(
        pb.IssueTransitRequest(
            requestor_id=WALLET_TRID, name=name, public_key=transit.compress(rider.public_key()), fare_max_minor=500,
            currency="CNY",
        )
    )  # fmt: skip
    facts: dict[str, Any] = {"amount_minor": 100, "currency": "CNY", "merchant_id": "m"}
    shown: dict[str, Any] = {"channel": "qr_consumer_presented", "kind": pb.PRESENTED_KIND_PAYMENT_CODE}
    keys = [
        pb.PresentedKey(value=online.code, **shown, **facts),
        pb.PresentedKey(value=offline_code(day.alias, day.day_key, clock.now_us, day.suite), **shown, **facts),
        pb.PresentedKey(
            kind=pb.PRESENTED_KIND_TRANSIT, channel="transit",
            value=transit.build_code(issued.certificate, rider, clock.now_us), **facts,
        ),
        pb.PresentedKey(kind=pb.PRESENTED_KIND_TOKEN, value="1", **facts),
    ]  # fmt: skip
    results = stub.Resolve(pb.ResolveRequest(requestor_id=GATEWAY_TRID, keys=keys)).results
    assert [one.key.token for one in results] == [made.token] * 3 + [""]
    assert all(len(one.key.spends) == 1 for one in results[:3])
    assert results[3].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert served.refused("Resolve", pb.ResolveRequest(requestor_id=WALLET_TRID, keys=keys)) == "REQUESTOR_NOT_ALLOWED"
    assert served.refused("Resolve", pb.ResolveRequest(requestor_id=GATEWAY_TRID, keys=keys * 200)) == "BATCH_TOO_LARGE"
    unknown = pb.PresentedKey(value="1", **facts)
    assert served.refused("Resolve", pb.ResolveRequest(requestor_id=GATEWAY_TRID, keys=[unknown])) == "FIELD_INVALID"


REFUSALS: list[tuple[str, Any, str]] = [
    ("RequestToken", ask("12"), "FIELD_INVALID"),
    ("RequestToken", pb.RequestTokenRequest(account_number="6225880112345674"), "FIELD_MISSING"),
    ("RequestToken", pb.RequestTokenRequest(requestor_id="5"), "REQUESTOR_NOT_ALLOWED"),
    ("RequestToken", pb.RequestTokenRequest(requestor_id=OPERATOR_TRID, issuer_id="i"), "REQUESTOR_NOT_ALLOWED"),
    ("RequestToken", ask(domain=pb.TokenDomain(amount_max_minor=-1)), "FIELD_INVALID"),
    ("GetToken", pb.GetTokenRequest(requestor_id=WALLET_TRID), "FIELD_MISSING"),
    ("GetToken", pb.GetTokenRequest(requestor_id=WALLET_TRID, name=pb.TokenName(token="12")), "TOKEN_MALFORMED"),
    ("GetToken", pb.GetTokenRequest(requestor_id=WALLET_TRID, name=pb.TokenName(token_ref=b"1")), "TOKEN_UNKNOWN"),
    ("GetToken", pb.GetTokenRequest(requestor_id=WALLET_TRID, name=pb.TokenName(token_ref=bytes(16))), "TOKEN_UNKNOWN"),
    ("ChangeState", pb.ChangeStateRequest(requestor_id=WALLET_TRID), "FIELD_INVALID"),
    ("CreateKey", pb.CreateKeyRequest(requestor_id=WALLET_TRID), "FIELD_INVALID"),
    ("Detokenize", pb.DetokenizeRequest(requestor_id=WALLET_TRID), "FIELD_MISSING"),
    ("RotateKeys", pb.RotateKeysRequest(requestor_id=WALLET_TRID), "REQUESTOR_NOT_ALLOWED"),
    ("GetKeyStatus", pb.GetKeyStatusRequest(requestor_id=GATEWAY_TRID), "REQUESTOR_NOT_ALLOWED"),
]


@pytest.mark.parametrize(("method", "request_", "reason"), REFUSALS)
def test_refusals(served: Served, method: str, request_: Any, reason: str) -> None:
    assert served.refused(method, request_) == reason


def test_values_at_and_beyond_their_limits(served: Served) -> None:
    """Nothing that a message can hold is answered with a defect."""
    name = pb.TokenName(token=served.stub.RequestToken(ask()).token)
    point = transit.compress(ec.generate_private_key(ec.SECP256R1()).public_key())
    by: dict[str, Any] = {"requestor_id": WALLET_TRID, "name": name}
    far, past = Timestamp(seconds=253_402_300_799), Timestamp(seconds=-1)
    device = pb.TOKEN_KEY_KIND_DEVICE
    many = [str(number) for number in range(300)]
    wrong: list[tuple[str, Any]] = [
        ("CreateKey", pb.CreateKeyRequest(**by, kind=device, device_id="设" * 22)),
        ("CreateKey", pb.CreateKeyRequest(**by, kind=device, device_id="p", expire_time=past)),
        ("CreateKey", pb.CreateKeyRequest(**by, kind=pb.TOKEN_KEY_KIND_FACE, face_reference="x" * 257)),
        ("CreateKey", pb.CreateKeyRequest(**by, kind=pb.TOKEN_KEY_KIND_TRANSIT)),
        (
            "IssueTransit",
            pb.IssueTransitRequest(**by, public_key=point, fare_max_minor=5, currency="CNY", expire_time=far),
        ),
        ("IssueTransit", pb.IssueTransitRequest(**by, public_key=point, fare_max_minor=2**40, currency="CNY")),
        ("IssueTransit", pb.IssueTransitRequest(**by, public_key=point, fare_max_minor=5, currency="人民币")),
        ("ProvisionCodes", pb.ProvisionCodesRequest(**by, device_id="p", day=2**32 - 1)),
        ("ProvisionCodes", pb.ProvisionCodesRequest(**by, device_id="")),
        ("ProvisionCodes", pb.ProvisionCodesRequest(**by, device_id="设" * 22)),
        ("UpdateDomain", pb.UpdateDomainRequest(**by, expire_time=past)),
        ("UpdateDomain", pb.UpdateDomainRequest(**by, domain=pb.TokenDomain(merchant_ids=many))),
        ("ChangeState", pb.ChangeStateRequest(**by, change=pb.STATE_CHANGE_SUSPEND, reason="x" * 65)),
        ("RequestToken", ask(assurance_method="99")),
        ("RequestToken", ask(budget=pb.TokenBudget(amount_minor=2**62, currency="CNY"))),
    ]
    assert [served.refused(method, request) for method, request in wrong] == ["FIELD_INVALID"] * len(wrong)
    served.stub.UpdateDomain(pb.UpdateDomainRequest(**by, expire_time=far))
    served.stub.ListHistory(pb.ListHistoryRequest(**by, page_size=2**32 - 1, after_sequence=-(2**63)))
    served.stub.CreateKey(pb.CreateKeyRequest(**by, kind=device, device_id="设" * 21))


def test_a_defect_is_answered_as_one(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(served.world.service, "key_status", broken)
    assert served.refused("GetKeyStatus", pb.GetKeyStatusRequest(requestor_id=OPERATOR_TRID)) == "INTERNAL"


def test_a_requestors_secret_travels_in_metadata(served: Served) -> None:
    served.world.service.register_requestor(Requestor("20000000001", "second", Role.WALLET), Secret("swordfish"))
    asked = pb.RequestTokenRequest(requestor_id="20000000001", issuer_id="issuer-a", account_number="622588000001")
    assert served.refused("RequestToken", asked) == "REQUESTOR_NOT_ALLOWED"
    wrong = ((REQUESTOR_SECRET_METADATA, "guess"),)
    assert served.refused("RequestToken", asked, metadata=wrong) == "REQUESTOR_NOT_ALLOWED"
    assert served.stub.RequestToken(asked, metadata=((REQUESTOR_SECRET_METADATA, "swordfish"),)).created


def test_a_token_is_given_for_an_issuer_that_is_here_and_an_account_that_can_be_one(served: Served) -> None:
    service = served.world.service
    service.know_issuers(["issuer-a", "issuer-b"])
    elsewhere = pb.RequestTokenRequest(requestor_id=WALLET_TRID, issuer_id="issuer-z", account_number="622588000001")
    with pytest.raises(grpc.RpcError) as refused:
        served.stub.RequestToken(elsewhere)
    error = from_rpc_error(refused.value)
    assert error is not None
    assert (error.name, error.status_code) == ("PARTICIPANT_UNKNOWN", grpc.StatusCode.NOT_FOUND)
    assert error.fields == {"field": "issuer_id", "issuers": "issuer-a, issuer-b"}
    with pytest.raises(grpc.RpcError) as refused:
        served.stub.RequestToken(ask("6225880112345675"))
    error = from_rpc_error(refused.value)
    assert error is not None
    assert (error.name, error.status_code) == ("FIELD_INVALID", grpc.StatusCode.INVALID_ARGUMENT)
    assert error.fields["field"] == "account_number"
    assert "Luhn" in error.fields["allowed"]
    assert len(service) == 0
    assert served.stub.RequestToken(ask()).created


def test_keys_rotate_and_accounts_are_erased(served: Served) -> None:
    stub = served.stub
    made = stub.RequestToken(ask())
    assert stub.RotateKeys(pb.RotateKeysRequest(requestor_id=OPERATOR_TRID)).status.active_version == 2
    assert served.world.service.rotation.wait(CALL_S)
    status = stub.GetKeyStatus(pb.GetKeyStatusRequest(requestor_id=OPERATOR_TRID)).status
    assert [one.state for one in status.versions] == ["retired", "active"]
    assert (status.remaining, status.rotating, status.store) == (0, False, "file")
    name = pb.TokenName(token=made.token)
    asked = pb.EraseAccountRequest(requestor_id=OPERATOR_TRID, name=name)
    assert stub.EraseAccount(asked).view.erased
    assert served.refused("EraseAccount", asked) == "ACCOUNT_ERASED"
    assert served.refused("ReserveCode", pb.ReserveCodeRequest(requestor_id=WALLET_TRID, name=name)) == "ACCOUNT_ERASED"


def test_an_issuer_gets_its_account_number_back(served: Served) -> None:
    served.world.service.register_requestor(Requestor("30000000001", "bank a", Role.ISSUER, "issuer-a"))
    name = pb.TokenName(token=served.stub.RequestToken(ask()).token)
    answer = served.stub.Detokenize(pb.DetokenizeRequest(requestor_id="30000000001", name=name))
    assert answer.account_number == "6225880112345674"


def test_watching_sees_old_and_new_events_of_its_own_tokens(served: Served) -> None:
    stub = served.stub
    ref = stub.RequestToken(ask()).view.token_ref
    served.world.service.register_requestor(Requestor("20000000001", "second", Role.WALLET))
    other = served.world.service.register_accounts([], by="20000000001")
    assert other == []

    def change(change: Any) -> None:
        name = pb.TokenName(token_ref=ref)
        stub.ChangeState(pb.ChangeStateRequest(requestor_id=WALLET_TRID, name=name, change=change))

    change(pb.STATE_CHANGE_SUSPEND)
    watch = stub.WatchTokens(pb.WatchTokensRequest(requestor_id=WALLET_TRID), timeout=CALL_S)
    first = next(watch).events
    assert [event.kind for event in first] == ["suspended"]
    change(pb.STATE_CHANGE_RESUME)
    assert [event.kind for event in next(watch).events] == ["resumed"]
    watch.cancel()
    again = stub.WatchTokens(
        pb.WatchTokensRequest(requestor_id=WALLET_TRID, after_sequence=first[-1].sequence), timeout=CALL_S
    )
    assert [event.kind for event in next(again).events] == ["resumed"]
    again.cancel()
    refused = stub.WatchTokens(pb.WatchTokensRequest(requestor_id="5"), timeout=CALL_S)
    with pytest.raises(grpc.RpcError) as error:
        next(refused)
    refusal = from_rpc_error(error.value)
    assert refusal is not None
    assert refusal.reason == Reason.ERROR_REASON_REQUESTOR_NOT_ALLOWED


def test_two_requests_for_one_account_at_once(served: Served) -> None:
    answers: list[str] = []
    start = threading.Barrier(16)

    def request() -> None:
        start.wait()
        answers.append(served.stub.RequestToken(ask(), timeout=CALL_S).token)

    threads = [threading.Thread(target=request) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 16
    assert len(set(answers)) == 1
    assert len(served.world.service) == 1
