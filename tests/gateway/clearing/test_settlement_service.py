"""SettlementService on a whole network: who may do what, and what is answered to what is wrong."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator

import grpc
import pytest

from hutong.gateway.v1 import settlement_pb2 as pb
from hutong.gateway.v1 import settlement_pb2_grpc as rpc
from hutong_client.client import HutongClient
from hutong_contract.errors import from_rpc_error
from sandbox.network import Network
from tests.deadlines import CALL_S
from tests.gateway.clearing.settled_network import OPERATOR, start, trade


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """One closed window with something of everything in it, and payments behind it."""
    with start(tmp_path_factory.mktemp("settled")) as network, HutongClient(network.target) as client:
        trade(network, client)
        stub = rpc.SettlementServiceStub(client.channel)
        assert stub.CloseWindow(pb.CloseWindowRequest(caller=OPERATOR, number=1), timeout=CALL_S).window.number == 1
        trade(network, client)
        yield network


@pytest.fixture
def stub(network: Network) -> Iterator[rpc.SettlementServiceStub]:
    with grpc.insecure_channel(network.target) as channel:
        yield rpc.SettlementServiceStub(channel)


def refused(call: object) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        call()  # type: ignore[operator]
    typed = from_rpc_error(caught.value)
    assert typed is not None, caught.value
    return typed.name


def participant(network: Network, name: str) -> tuple[pb.SettlementCaller, tuple[tuple[str, str], ...]]:
    (one,) = [one for one in network.population.institutions if one.id == name]
    return pb.SettlementCaller(participant_id=name), (("hutong-participant-secret", one.secret.reveal()),)


def read(stub: rpc.SettlementServiceStub, whose: str, **fields: object) -> bytes:
    request = pb.ReadStatementRequest(
        **{"caller": OPERATOR, "number": 1, "participant_id": whose, "format": pb.STATEMENT_FORMAT_CSV, **fields}  # type: ignore[arg-type]
    )
    *chunks, last = stub.ReadStatement(request, timeout=CALL_S)
    content = b"".join(chunk.content for chunk in chunks)
    assert (last.sha256, last.size_bytes) == (hashlib.sha256(content).digest(), len(content))
    return content


def test_closing_again_answers_the_same(stub: rpc.SettlementServiceStub) -> None:
    first = stub.GetWindow(pb.GetWindowRequest(caller=OPERATOR, number=1), timeout=CALL_S).window
    again = stub.CloseWindow(pb.CloseWindowRequest(caller=OPERATOR, number=1), timeout=CALL_S).window
    assert again == first
    assert refused(lambda: stub.CloseWindow(pb.CloseWindowRequest(caller=OPERATOR, number=3))) == "WINDOW_NOT_NEXT"


def test_positions_sum_to_zero_and_are_what_the_statements_add_up_to(stub: rpc.SettlementServiceStub) -> None:
    positions = stub.ListPositions(pb.ListPositionsRequest(caller=OPERATOR, number=1), timeout=CALL_S).positions
    assert {one.participant_id for one in positions} == {"issuer-a", "issuer-b", "acquirer-a", "acquirer-b"}
    assert sum(one.net_minor for one in positions) == 0
    for one in positions:
        lines = list(csv.DictReader(io.StringIO(read(stub, one.participant_id).decode(), newline="")))
        sums = {"debit": 0, "credit": 0}
        for line in lines:
            sums[line["direction"]] += int(line["amount_minor"])
        assert sums["credit"] - sums["debit"] == one.net_minor
        assert sums["credit"] + sums["debit"] == one.gross_minor
        assert len(lines) == (one.debit_count + one.credit_count + one.refund_paid_count + one.refund_received_count)
    refunds = [one for one in positions if one.refund_paid_count]
    assert sum(one.refund_paid_count for one in refunds) == 2
    assert sum(one.refund_paid_minor for one in refunds) == 30 + 25_50


def test_a_participant_sees_its_own(network: Network, stub: rpc.SettlementServiceStub) -> None:
    caller, secret = participant(network, "issuer-a")
    own = stub.ListPositions(pb.ListPositionsRequest(caller=caller, number=1), metadata=secret, timeout=CALL_S)
    assert {one.participant_id for one in own.positions} == {"issuer-a"}
    assert stub.GetWindow(pb.GetWindowRequest(caller=caller, number=1), metadata=secret).window.number == 1

    def statement(whose: str, metadata: tuple[tuple[str, str], ...]) -> list[pb.ReadStatementResponse]:
        request = pb.ReadStatementRequest(caller=caller, number=1, participant_id=whose, format=pb.STATEMENT_FORMAT_CSV)
        return list(stub.ReadStatement(request, metadata=metadata, timeout=CALL_S))

    assert b"".join(one.content for one in statement("issuer-a", secret)) == read(stub, "issuer-a")
    assert refused(lambda: statement("issuer-b", secret)) == "PARTICIPANT_REFUSED"
    assert refused(lambda: statement("issuer-a", ())) == "PARTICIPANT_REFUSED"
    assert refused(lambda: statement("issuer-a", (("hutong-participant-secret", "guess"),))) == "PARTICIPANT_REFUSED"
    close = pb.CloseWindowRequest(caller=caller, number=2)
    assert refused(lambda: stub.CloseWindow(close, metadata=secret)) == "PARTICIPANT_REFUSED"


WRONG = [
    ("GetWindow", pb.GetWindowRequest(number=1), "FIELD_MISSING"),
    ("GetWindow", pb.GetWindowRequest(caller=OPERATOR), "WINDOW_NOT_FOUND"),
    ("GetWindow", pb.GetWindowRequest(caller=OPERATOR, number=-1), "WINDOW_NOT_FOUND"),
    ("GetWindow", pb.GetWindowRequest(caller=OPERATOR, number=2**63 - 1), "WINDOW_NOT_FOUND"),
    ("GetWindow", pb.GetWindowRequest(caller={"requestor_id": "10000000002"}, number=1), "REQUESTOR_NOT_ALLOWED"),  # type: ignore[arg-type]
    ("GetWindow", pb.GetWindowRequest(caller={"requestor_id": "nobody"}, number=1), "REQUESTOR_NOT_ALLOWED"),  # type: ignore[arg-type]
    ("GetWindow", pb.GetWindowRequest(caller={"participant_id": "nobody"}, number=1), "PARTICIPANT_UNKNOWN"),  # type: ignore[arg-type]
    (
        "GetWindow",
        pb.GetWindowRequest(caller={"participant_id": "issuer-a", "requestor_id": "10000000001"}),  # type: ignore[arg-type]
        "FIELD_INVALID",
    ),
    ("CloseWindow", pb.CloseWindowRequest(caller=OPERATOR), "FIELD_INVALID"),
    ("CloseWindow", pb.CloseWindowRequest(caller=OPERATOR, number=2**63 - 1), "WINDOW_NOT_NEXT"),
    ("ListWindows", pb.ListWindowsRequest(caller=OPERATOR, page_size=-1), "FIELD_INVALID"),
    ("ListWindows", pb.ListWindowsRequest(caller=OPERATOR, page_token="x"), "FIELD_INVALID"),
    ("ListPositions", pb.ListPositionsRequest(caller=OPERATOR, number=9), "WINDOW_NOT_FOUND"),
    ("ListPositions", pb.ListPositionsRequest(caller=OPERATOR, number=1, page_token="٣"), "FIELD_INVALID"),
    ("ReadStatement", pb.ReadStatementRequest(caller=OPERATOR, number=1), "FIELD_MISSING"),
    ("ReadStatement", pb.ReadStatementRequest(caller=OPERATOR, participant_id="x"), "PARTICIPANT_UNKNOWN"),
    ("ReadStatement", pb.ReadStatementRequest(caller=OPERATOR, participant_id="issuer-a"), "FIELD_INVALID"),
    (
        "ReadStatement",
        pb.ReadStatementRequest(caller=OPERATOR, participant_id="issuer-a", format=7),  # type: ignore[arg-type]
        "FIELD_INVALID",
    ),
    (
        "ReadStatement",
        pb.ReadStatementRequest(caller=OPERATOR, participant_id="issuer-a", format=pb.STATEMENT_FORMAT_CAMT053),
        "CURRENCY_UNKNOWN",
    ),
    (
        "ReadStatement",
        pb.ReadStatementRequest(caller=OPERATOR, participant_id="issuer-a", format=1, currency="CNY"),  # type: ignore[arg-type]
        "FIELD_INVALID",
    ),
    (
        "ReadStatement",
        pb.ReadStatementRequest(caller=OPERATOR, participant_id="issuer-a", format=1, number=9),  # type: ignore[arg-type]
        "WINDOW_NOT_FOUND",
    ),
]


@pytest.mark.parametrize(("method", "request_", "reason"), WRONG)
def test_what_is_wrong_is_refused_for_its_reason(
    stub: rpc.SettlementServiceStub, method: str, request_: object, reason: str
) -> None:
    def call() -> None:
        answer = getattr(stub, method)(request_, timeout=CALL_S)
        if method == "ReadStatement":
            list(answer)

    assert refused(call) == reason


def test_windows_and_positions_come_in_pages(stub: rpc.SettlementServiceStub) -> None:
    for number in range(2, 6):
        stub.CloseWindow(pb.CloseWindowRequest(caller=OPERATOR, number=number), timeout=CALL_S)
    numbers: list[int] = []
    token = ""
    while token or not numbers:
        page = stub.ListWindows(pb.ListWindowsRequest(caller=OPERATOR, page_size=2, page_token=token))
        numbers += [window.number for window in page.windows]
        token = page.next_page_token
    assert numbers == [5, 4, 3, 2, 1]
    every = stub.ListPositions(pb.ListPositionsRequest(caller=OPERATOR, number=1)).positions
    found: list[pb.SettlementPosition] = []
    while token or not found:
        part = stub.ListPositions(pb.ListPositionsRequest(caller=OPERATOR, number=1, page_size=3, page_token=token))
        found += part.positions
        token = part.next_page_token
    assert found == list(every)
