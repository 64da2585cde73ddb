"""Participants over TLS: nine processes connect, with and without certificates; each of these opens one participant."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from gateway import listen
from hutong.gateway.v1 import payment_pb2 as payments
from hutong.gateway.v1 import settlement_pb2 as settlement
from hutong.gateway.v1 import settlement_pb2_grpc
from hutong.participant.v1 import participant_pb2 as pb
from hutong.participant.v1 import participant_pb2_grpc as rpc
from hutong_client import keys
from hutong_client.client import HutongClient
from hutong_client.options import ClientOptions, TlsOptions
from hutong_client.wire import open_channel
from hutong_contract.errors import from_rpc_error
from sandbox.network import Network, NetworkError
from sandbox.options import NetworkOptions, Where
from sandbox.population import populate
from tests.certificates import Pair, issue
from tests.deadlines import CALL_S

pytestmark = pytest.mark.process
NAME = "gateway.hutong.example"
IDS = [one.id for one in populate(1).institutions]


def shown(authority: Pair, own: Pair | None = None) -> ClientOptions:
    certificate, key = (own.certificate.read_bytes(), own.key.read_bytes()) if own else (None, None)
    return ClientOptions(tls=TlsOptions(authority.certificate.read_bytes(), key, certificate, NAME))


def pay(network: Network, options: ClientOptions) -> payments.Payment:
    with HutongClient(network.target, options) as client:
        return client.create_payment(
            payer=keys.token(network.wallet_tokens["wallet-01"].reveal()),
            payee=keys.merchant("m1001"),
            amount_minor=100,
            currency="CNY",
        )


@pytest.mark.slow
@pytest.mark.parametrize("mutual", [False, True])
def test_all_participants_connect_over_tls_and_a_payment_is_made(tmp_path: Path, mutual: bool) -> None:
    authority = issue(tmp_path, "authority")
    gateway, shop = issue(tmp_path, NAME, authority), issue(tmp_path, "shop", authority)
    own = tmp_path / "participants"
    own.mkdir()
    for one in IDS:
        issue(own, one, authority)
    options = NetworkOptions(
        data=tmp_path / "data",
        listen="127.0.0.1:0",
        front="aio",
        tls=listen.Tls(gateway.certificate, gateway.key, authority.certificate if mutual else None),
        participants=Where.PROCESSES,
        participant_certificates=own if mutual else None,
    )
    with Network.start(options) as network:
        assert [one for one in IDS if not network.gateway.reachable(one)] == []
        paid = pay(network, shown(authority, shop if mutual else None))
    assert paid.state == payments.PAYMENT_STATE_SUCCEEDED


def test_participants_without_certificates_are_not_started_where_some_are_asked_for(tmp_path: Path) -> None:
    authority = issue(tmp_path, "authority")
    gateway = issue(tmp_path, NAME, authority)
    own = tmp_path / "participants"
    own.mkdir()
    issue(own, IDS[0], authority)
    for certificates, text in ((None, "--participant-certs"), (own, f"lack {2 * len(IDS) - 2} files")):
        options = NetworkOptions(
            data=tmp_path / "data",
            listen="127.0.0.1:0",
            front="aio",
            tls=listen.Tls(gateway.certificate, gateway.key, authority.certificate),
            participants=Where.PROCESSES,
            participant_certificates=certificates,
        )
        with pytest.raises(NetworkError, match=text):
            Network.start(options)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Network, Pair, Path]]:
    folder = tmp_path_factory.mktemp("tls")
    authority = issue(folder, "authority")
    gateway = issue(folder, NAME, authority)
    options = NetworkOptions(
        data=folder / "data",
        listen="127.0.0.1:0",
        front="aio",
        tls=listen.Tls(gateway.certificate, gateway.key, authority.certificate),
    )
    with Network.start(options) as network:
        yield network, authority, folder


def named(failure: grpc.RpcError) -> str:
    error = from_rpc_error(failure)
    return error.name if error else str(failure)


def connects(network: Network, options: ClientOptions, participant: str) -> str:
    """What a Hello of this participant is answered with."""
    with open_channel(network.target, options) as channel:
        frames = iter([pb.ConnectRequest(hello=pb.Hello(participant_id=participant))])
        stream = rpc.ParticipantServiceStub(channel).Connect(frames, timeout=CALL_S)
        try:
            return "welcome" if next(stream).HasField("welcome") else "something else"
        except grpc.RpcError as failure:
            return named(failure)
        finally:
            stream.cancel()


def positions(network: Network, options: ClientOptions, participant: str) -> str:
    with open_channel(network.target, options) as channel:
        asked = settlement.ListWindowsRequest(caller=settlement.SettlementCaller(participant_id=participant))
        try:
            settlement_pb2_grpc.SettlementServiceStub(channel).ListWindows(asked, timeout=CALL_S)
        except grpc.RpcError as failure:
            return named(failure)
        return "allowed"


@pytest.mark.parametrize(
    ("common_name", "names", "opens"),
    [
        ("issuer-b", ["issuer-b"], ["issuer-b"]),
        ("shop", ["issuer-b", "shop.example"], ["issuer-b"]),
        ("both", ["issuer-b", "acquirer-c"], []),
        ("issuer-a", [], []),
        ("issuer-a", ["issuer-b"], ["issuer-b"]),
        ("nobody", ["issuer"], []),
    ],
)
def test_a_certificate_opens_one_participant_and_a_cn_none(
    secured: tuple[Network, Pair, Path], common_name: str, names: list[str], opens: list[str], tmp_path: Path
) -> None:
    network, authority, _ = secured
    options = shown(authority, issue(tmp_path, common_name, authority, names))
    for ask, allowed in ((connects, "welcome"), (positions, "allowed")):
        said = {one: ask(network, options, one) for one in ("issuer-a", "issuer-b", "acquirer-c")}
        assert said == {one: allowed if one in opens else "PARTICIPANT_REFUSED" for one in said}
