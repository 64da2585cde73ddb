"""At the edge of every service, on both fronts: a defect is INTERNAL with the number of a log entry and nothing of the
exception; a message above the limit is told the limit; one that is none is told so."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from facepay.service import FaceService
from gateway import requests, watch
from gateway.barcode import server as barcode_server
from gateway.budgets import QueryLimits
from gateway.clearing.server import SettlementServicer
from gateway.engine.ports import JournalUnavailableError
from gateway.journal.sqlite_reader import SqliteReader
from gateway.links.remote import RemoteLink
from gateway.risk.server import RiskServicer
from hutong.gateway.v1 import payment_pb2 as pb
from hutong.participant.v1 import participant_pb2
from hutong.tokenization.v1 import token_pb2
from hutong_contract.errors import HutongError, from_rpc_error
from hutong_contract.incidents import LOGGED_PER_S_MAX, incident
from hutong_contract.limits import MESSAGE_BYTES_MAX
from sandbox.network import Network
from sandbox.options import NetworkOptions
from tokenization.service import TokenService

WAIT_S = 60.0
SECRET = "no such table: /var/lib/hutong/secret.db"
PAYMENT_ID = "0190163d-8694-739b-aea5-966c26f8ad91"

UNARY: dict[str, tuple[str, bytes, Any, str]] = {
    "barcodes": ("gateway.v1.BarcodeService/Decode", b"", barcode_server, "decode"),
    "faces": ("facepay.v1.FaceService/GetStatus", b"", FaceService, "status"),
    "tokens": (
        "tokenization.v1.TokenService/GetToken",
        token_pb2.GetTokenRequest(requestor_id="operator").SerializeToString(),
        TokenService,
        "authenticate",
    ),
    "risk": ("gateway.v1.RiskService/GetRiskStatus", b"", RiskServicer, "admit"),
    "settlement": ("gateway.v1.SettlementService/GetWindow", b"", SettlementServicer, "admit"),
    "payments": (
        "gateway.v1.PaymentService/CancelPayment",
        pb.CancelPaymentRequest(payment_id=PAYMENT_ID).SerializeToString(),
        requests,
        "payment_id_bytes",
    ),
    "payments that are validated": (
        "gateway.v1.PaymentService/CreatePayment",
        pb.CreatePaymentRequest(idempotency_key="k").SerializeToString(),
        requests,
        "check_key",
    ),
    "queries": (
        "gateway.v1.PaymentService/GetPayment",
        pb.GetPaymentRequest(payment_id=PAYMENT_ID).SerializeToString(),
        SqliteReader,
        "refunds",
    ),
}
"""Service to a method, a request, and the function inside it that is to fail."""
STREAMS: dict[str, tuple[str, bytes, Any, str]] = {
    "statements": ("gateway.v1.SettlementService/ReadStatement", b"", SettlementServicer, "admit"),
    "watching": (
        "gateway.v1.PaymentService/WatchPayments",
        pb.WatchPaymentsRequest(payment_id=PAYMENT_ID).SerializeToString(),
        watch,
        "payment_id_bytes",
    ),
}


@pytest.fixture(scope="module", params=["native", "aio"])
def channel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    folder = tmp_path_factory.mktemp(str(request.param))
    options = NetworkOptions(
        data=folder, seed=3, listen="127.0.0.1:0", front=str(request.param), queries=QueryLimits(1e6, 10**6)
    )
    with (
        Network.start(options) as network,
        grpc.insecure_channel(network.target, options=[("grpc.max_send_message_length", -1)]) as one,
    ):
        yield one


def failure(error: object) -> HutongError:
    assert isinstance(error, grpc.RpcError)
    assert "secret" not in str(error)
    assert "sqlite" not in str(error).lower()
    typed = from_rpc_error(error)
    assert typed is not None
    assert typed.status_code is error.code()  # type: ignore[attr-defined]
    return typed


def call(channel: grpc.Channel, path: str, payload: bytes) -> HutongError:
    return failure(channel.unary_unary("/hutong." + path).future(payload, timeout=WAIT_S).exception(WAIT_S))


def stream(channel: grpc.Channel, path: str, payload: bytes) -> HutongError:
    with pytest.raises(grpc.RpcError) as caught:
        list(channel.unary_stream("/hutong." + path)(payload, timeout=WAIT_S))
    return failure(caught.value)


def defect(*_: object, **__: object) -> Any:
    raise sqlite3.OperationalError(SECRET)


def check_log(error: HutongError, records: list[logging.LogRecord]) -> None:
    assert error.name == "INTERNAL"
    (entry,) = [record for record in records if error.fields["incident"] in record.getMessage()]
    assert entry.exc_info is not None
    assert SECRET in str(entry.exc_info[1])


@pytest.mark.parametrize("name", [*UNARY, *STREAMS])
def test_a_defect_tells_callers_its_number_alone(
    channel: grpc.Channel, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, payload, place, function = {**UNARY, **STREAMS}[name]
    monkeypatch.setattr(place, function, defect)
    error = (stream if name in STREAMS else call)(channel, path, payload)
    check_log(error, caplog.records)


def test_a_defect_at_a_participants_stream(
    channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(RemoteLink, "_hello", defect)
    connect = channel.stream_stream("/hutong.participant.v1.ParticipantService/Connect")
    with pytest.raises(grpc.RpcError) as caught:
        list(connect(iter([participant_pb2.ConnectRequest().SerializeToString()]), timeout=WAIT_S))
    check_log(failure(caught.value), caplog.records)


def test_a_defect_in_the_reading_of_a_participants_answers(
    channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def hello(*_: object) -> participant_pb2.Hello:
        return participant_pb2.Hello(participant_id="somebody")

    async def read(*_: object) -> None:
        defect()

    monkeypatch.setattr(RemoteLink, "_hello", hello)
    monkeypatch.setattr(RemoteLink, "_read", read)
    connect = channel.stream_stream("/hutong.participant.v1.ParticipantService/Connect")
    with pytest.raises(grpc.RpcError) as caught:
        list(connect(iter([participant_pb2.ConnectRequest().SerializeToString()]), timeout=WAIT_S))
    check_log(failure(caught.value), caplog.records)


def test_a_journal_that_cannot_be_read_is_no_defect(channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_: object) -> None:
        raise JournalUnavailableError(SECRET)

    monkeypatch.setattr(SqliteReader, "payments", unreadable)
    path, payload, *_ = UNARY["queries"]
    assert call(channel, path, payload).name == "JOURNAL_UNAVAILABLE"


SERVICES = [*(path for path, *_ in UNARY.values()), "gateway.v1.BarcodeService/Scan", "facepay.v1.FaceService/Enroll"]


@pytest.mark.parametrize("path", SERVICES)
@pytest.mark.parametrize("extra", [1, 105_696, MESSAGE_BYTES_MAX])
def test_a_message_above_the_limit_is_told_the_limit(channel: grpc.Channel, path: str, extra: int) -> None:
    error = call(channel, path, bytes(MESSAGE_BYTES_MAX + extra))
    assert error.name == "MESSAGE_TOO_LARGE"
    assert error.fields == {"most_bytes": str(MESSAGE_BYTES_MAX)}


@pytest.mark.parametrize("path", [path for path, *_ in STREAMS.values()])
def test_so_is_one_that_begins_a_stream(channel: grpc.Channel, path: str) -> None:
    assert stream(channel, path, bytes(MESSAGE_BYTES_MAX + 1)).name == "MESSAGE_TOO_LARGE"


def test_so_is_one_in_a_stream_of_a_participant(channel: grpc.Channel) -> None:
    connect = channel.stream_stream("/hutong.participant.v1.ParticipantService/Connect")
    with pytest.raises(grpc.RpcError) as caught:
        list(connect(iter([bytes(MESSAGE_BYTES_MAX + 1)]), timeout=WAIT_S))
    assert failure(caught.value).name == "MESSAGE_TOO_LARGE"


@pytest.mark.parametrize("path", SERVICES)
def test_bytes_that_are_no_message(channel: grpc.Channel, path: str) -> None:
    assert call(channel, path, b"\x0a\xff\xff\xff\xff").name == "MESSAGE_MALFORMED"


def test_a_method_that_nobody_serves(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/hutong.gateway.v1.BarcodeService/Nothing")(b"", timeout=WAIT_S)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_many_defects_at_once_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("many")
    numbers = {incident(log, "here", ValueError(str(count))).fields["incident"] for count in range(1000)}
    assert len(numbers) == 1000
    written = [record for record in caplog.records if record.name == "many" and record.exc_info]
    # A second or two have passed, or more on a busy machine; each has its own bound.
    seconds = len({int(record.created) for record in written}) + 1
    assert len(written) <= LOGGED_PER_S_MAX * (seconds + 1)
