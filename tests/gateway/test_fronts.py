"""Both fronts give the same answers and the same typed errors to the same calls, on a whole running network."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gateway import barcode
from gateway.calls import METHODS, WATCH
from hutong.facepay.v1 import face_pb2
from hutong.gateway.v1 import payment_pb2 as pb
from hutong.gateway.v1 import payment_pb2_grpc as rpc
from hutong.tokenization.v1 import token_pb2
from hutong.tokenization.v1 import token_pb2_grpc as token_rpc
from hutong_client.retries import is_passing
from hutong_contract.errors import from_rpc_error, from_status
from hutong_contract.names import CALLER_METADATA, WALLET_TRID
from sandbox.network import Network
from sandbox.options import NetworkOptions
from sandbox.participants.script import Behaviour, Plan
from tests.deadlines import CALL_S

_numbers = itertools.count()


@dataclass
class Side:
    """A network behind one front, and a channel to it."""

    network: Network
    channel: grpc.Channel

    @property
    def stub(self) -> rpc.PaymentServiceStub:
        return rpc.PaymentServiceStub(self.channel)

    def request(self, **changes: object) -> pb.CreatePaymentRequest:
        fields: dict[str, object] = {
            "idempotency_key": f"front-{next(_numbers)}",
            "payer": self.payer(),
            "payee": merchant("m1001", "m1001t1"),
            "amount_minor": 1250,
            "currency": "CNY",
        }
        fields.update(changes)
        return pb.CreatePaymentRequest(**fields)  # type: ignore[arg-type]

    def payer(self) -> pb.RoutingKey:
        return token(self.network.wallet_tokens["wallet-01"].reveal())

    def raw(self, method: str, payload: bytes) -> bytes:
        call = self.channel.unary_unary(next(path for path in METHODS if path.endswith("/" + method)))
        answer: bytes = call(payload, timeout=CALL_S)
        return answer


def token(number: str) -> pb.RoutingKey:
    return pb.RoutingKey(token=token_pb2.TokenKey(token=number))


def merchant(merchant_id: str, terminal_id: str = "") -> pb.RoutingKey:
    return pb.RoutingKey(merchant=pb.MerchantKey(merchant_id=merchant_id, terminal_id=terminal_id))


@pytest.fixture(scope="module", params=["native", "aio"])
def side(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    folder = tmp_path_factory.mktemp(str(request.param))
    options = NetworkOptions(data=folder, seed=3, listen="127.0.0.1:0", front=str(request.param))
    with Network.start(options) as network, grpc.insecure_channel(network.target) as channel:
        yield Side(network, channel)


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error = from_rpc_error(caught.value)
    code = caught.value.code()  # type: ignore[attr-defined]
    assert error is None or error.status_code is code
    assert error is None or error.text in caught.value.details()  # type: ignore[attr-defined]
    return code, error.name if error is not None else ""


ENDED = barcode.build_merchant_code(barcode.MerchantCode("m1001", "Shop", "City", expires_us=1_000_000_000_000_000))

BAD: dict[str, tuple[dict[str, object], str]] = {
    "no key": ({"idempotency_key": ""}, "FIELD_MISSING"),
    "a long key": ({"idempotency_key": "k" * 65}, "FIELD_INVALID"),
    "a key that cannot be printed": ({"idempotency_key": "a\nb"}, "FIELD_INVALID"),
    "a key that is not ASCII": ({"idempotency_key": "键"}, "FIELD_INVALID"),
    "no payer": ({"payer": None}, "FIELD_MISSING"),
    "an empty payer": ({"payer": pb.RoutingKey()}, "FIELD_MISSING"),
    "no payee": ({"payee": None}, "FIELD_MISSING"),
    "an empty payee": ({"payee": pb.RoutingKey()}, "FIELD_MISSING"),
    "zero": ({"amount_minor": 0}, "AMOUNT_NOT_POSITIVE"),
    "a negative amount": ({"amount_minor": -1}, "AMOUNT_NOT_POSITIVE"),
    "too much": ({"amount_minor": 10**12}, "AMOUNT_ABOVE_LIMIT"),
    "no currency": ({"currency": ""}, "FIELD_MISSING"),
    "an unknown currency": ({"currency": "XXZ"}, "CURRENCY_UNKNOWN"),
    "a currency that nobody settles": ({"currency": "USD"}, "CURRENCY_NOT_SERVED"),
    "an unknown merchant": ({"payee": merchant("nobody")}, "MERCHANT_UNKNOWN"),
    "an unknown terminal": ({"payee": merchant("m1001", "t9")}, "MERCHANT_UNKNOWN"),
    "a merchant as payer": ({"payer": merchant("m1001")}, "KEY_NOT_PAYER"),
    "a token as payee": ({"payee": token("6212345678901234")}, "KEY_NOT_PAYEE"),
    "a malformed token": ({"payer": token("12")}, "TOKEN_MALFORMED"),
    "a token with a wrong digit": ({"payer": token("6212345678901235")}, "TOKEN_MALFORMED"),
    "an unknown token": ({"payer": token("9999990000000006")}, "TOKEN_UNKNOWN"),
    "an unknown code": ({"payer": pb.RoutingKey(payment_code="6600000000000000000")}, "CODE_UNKNOWN"),
    "a foreign code": ({"payer": pb.RoutingKey(payment_code="134650004391765432")}, "CODE_FOREIGN"),
    "no code at all": ({"payer": pb.RoutingKey(payment_code="hello")}, "BARCODE_UNKNOWN"),
    "a barcode of nothing": ({"payee": pb.RoutingKey(barcode="hello")}, "BARCODE_UNKNOWN"),
    "a truncated barcode": ({"payee": pb.RoutingKey(barcode="00020101021126")}, "BARCODE_MALFORMED"),
    "a payment code as payee": ({"payee": pb.RoutingKey(barcode="6600000000000000000")}, "KEY_NOT_PAYEE"),
    "a mandate": ({"payee": pb.RoutingKey(barcode="upi://mandate?pa=shop@okbank&am=199.00")}, "CODE_NOT_PAYABLE"),
    "a code past its time": ({"payee": pb.RoutingKey(barcode=ENDED)}, "CODE_EXPIRED"),
    "a hold of no time": ({"hold": pb.Hold(lifetime=duration_pb2.Duration())}, "FIELD_INVALID"),
    "a hold of less than no time": ({"hold": pb.Hold(lifetime=duration_pb2.Duration(seconds=-1))}, "FIELD_INVALID"),
    "a hold of half a second": ({"hold": pb.Hold(lifetime=duration_pb2.Duration(nanos=1))}, "FIELD_INVALID"),
    "a hold of 31 days": ({"hold": pb.Hold(lifetime=duration_pb2.Duration(seconds=31 * 86_400))}, "FIELD_INVALID"),
    "a long reference": ({"reference": "r" * 65}, "FIELD_INVALID"),
    "a face that is none": ({"payer": pb.RoutingKey(face=face_pb2.FaceCapture(sealed=b"x"))}, "CAPTURE_INVALID"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_get_the_same_typed_error(side: Side, name: str) -> None:
    changes, reason = BAD[name]
    _, found = refusal(lambda: side.stub.CreatePayment(side.request(**changes), timeout=CALL_S))
    assert found == reason


@pytest.mark.parametrize("currency", ["USD", "JPY"])
def test_a_currency_that_nobody_settles_is_refused_for_good_and_names_those_that_are(side: Side, currency: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        side.stub.CreatePayment(side.request(currency=currency), timeout=CALL_S)
    error = from_rpc_error(caught.value)
    assert error is not None
    assert error.status_code is grpc.StatusCode.FAILED_PRECONDITION
    assert error.fields == {"currency": currency, "served": "CNY", "merchant_id": "m1001"}
    assert not is_passing(error), "clients do not send it again"


def test_what_no_time_heals_is_not_called_unavailable(side: Side) -> None:
    """An issuer that settles another currency, and a merchant whom no acquirer serves."""
    directory = side.network.gateway.router.directory
    issuer = side.stub.CreatePayment(side.request(), timeout=CALL_S).payment.issuer_id
    known, shop = directory.participants[issuer], directory.merchants["m1001"]
    participants, merchants = directory.participants, directory.merchants
    try:
        participants[issuer] = replace(known, currencies=frozenset({"HKD", "MOP"}))  # type: ignore[index]
        with pytest.raises(grpc.RpcError) as caught:
            side.stub.CreatePayment(side.request(), timeout=CALL_S)
        error = from_rpc_error(caught.value)
        assert error is not None
        assert (error.name, error.fields["served"]) == ("CURRENCY_NOT_SERVED", "HKD, MOP")
        participants[issuer] = known  # type: ignore[index]
        merchants["lonely"] = replace(shop, id="lonely", acquirers=())  # type: ignore[index]
        code, reason = refusal(lambda: side.stub.CreatePayment(side.request(payee=merchant("lonely")), timeout=CALL_S))
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_ROUTE")
    finally:
        participants[issuer] = known  # type: ignore[index]
        merchants.pop("lonely", None)  # type: ignore[attr-defined]


def test_a_gateway_without_a_face_service_refuses_faces_for_good(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side.network.gateway.engine._intake, "_faces", None)
    face = pb.RoutingKey(face=face_pb2.FaceCapture(sealed=b"x"))
    code, reason = refusal(lambda: side.stub.CreatePayment(side.request(payer=face), timeout=CALL_S))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_ROUTE")


def test_a_deadline_in_the_past_is_refused(side: Side) -> None:
    request = side.request()
    request.deadline.FromSeconds(1)
    code, reason = refusal(lambda: side.stub.CreatePayment(request, timeout=CALL_S))
    assert (code, reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_PAST")
    request.deadline.FromSeconds(4_000_000_000)
    assert refusal(lambda: side.stub.CreatePayment(request, timeout=CALL_S))[1] == "FIELD_INVALID"


@pytest.mark.parametrize("method", [path.split("/")[2] for number, path in enumerate(METHODS) if number != WATCH])
def test_bytes_that_are_no_message_are_refused(side: Side, method: str) -> None:
    code, reason = refusal(lambda: side.raw(method, b"\x0a\xff\xff\xff\xff"))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_MALFORMED")


def test_a_message_of_five_megabytes_is_refused_and_others_go_on(side: Side) -> None:
    code, _ = refusal(lambda: side.raw("CreatePayment", b"\x3a\x80\x80\xc0\x02" + b"x" * (5 << 20)))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert side.stub.CreatePayment(side.request(), timeout=CALL_S).payment.state == pb.PAYMENT_STATE_SUCCEEDED


def test_the_same_key_gives_the_same_bytes_and_another_payload_is_refused(side: Side) -> None:
    request = side.request()
    first = side.raw("CreatePayment", request.SerializeToString())
    assert side.raw("CreatePayment", request.SerializeToString()) == first
    request.amount_minor += 1
    code, reason = refusal(lambda: side.stub.CreatePayment(request, timeout=CALL_S))
    assert (code, reason) == (grpc.StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_KEY_REUSED")
    # Another caller's keys are another caller's.
    other = side.stub.CreatePayment(request, timeout=CALL_S, metadata=((CALLER_METADATA, "shop-2"),))
    assert other.payment.state == pb.PAYMENT_STATE_SUCCEEDED


def test_a_code_that_expired_since_still_gets_its_first_answer(side: Side) -> None:
    """A repeat is looked up before its key is refused."""
    request = side.request()
    first = side.raw("CreatePayment", request.SerializeToString())
    issuer = pb.CreatePaymentResponse.FromString(first).payment.issuer_id
    participants = side.network.gateway.router.directory.participants
    removed = participants.pop(issuer)  # type: ignore[attr-defined]
    try:
        other = side.request().SerializeToString()
        assert refusal(lambda: side.raw("CreatePayment", other))[1] == "NO_ROUTE"
        assert side.raw("CreatePayment", request.SerializeToString()) == first
    finally:
        participants[issuer] = removed  # type: ignore[index]


def test_a_batch_answers_each_request_in_its_place(side: Side) -> None:
    good, bad = side.request(), side.request(amount_minor=-5)
    twin, other = side.request(), side.request()
    twin.idempotency_key = other.idempotency_key = good.idempotency_key
    other.amount_minor = 77
    twin.CopyFrom(good)
    asked = pb.BatchCreatePaymentsRequest(requests=[good, bad, twin, other])
    results = side.stub.BatchCreatePayments(asked, timeout=CALL_S).results
    assert results[0].payment.state == pb.PAYMENT_STATE_SUCCEEDED
    errors = [from_status(result.error) for result in (results[1], results[3])]
    assert [error.name for error in errors if error] == ["AMOUNT_NOT_POSITIVE", "IDEMPOTENCY_KEY_REUSED"]
    assert results[2] == results[0]


def test_batches_are_bounded(side: Side) -> None:
    empty, large = pb.BatchCreatePaymentsRequest(), pb.BatchCreatePaymentsRequest()
    large.requests.extend(side.request() for _ in range(501))
    assert refusal(lambda: side.stub.BatchCreatePayments(empty, timeout=CALL_S))[1] == "FIELD_MISSING"
    assert refusal(lambda: side.stub.BatchCreatePayments(large, timeout=CALL_S))[1] == "BATCH_TOO_LARGE"
    del large.requests[500]
    results = side.stub.BatchCreatePayments(large, timeout=CALL_S).results
    assert {result.payment.state for result in results} == {pb.PAYMENT_STATE_SUCCEEDED}


def test_get_shows_legs_route_and_refunds(side: Side) -> None:
    payment = side.stub.CreatePayment(side.request(), timeout=CALL_S).payment
    ask = pb.RefundPaymentRequest(
        idempotency_key=f"refund-{next(_numbers)}", payment_id=payment.payment_id, amount_minor=250
    )
    refund = side.stub.RefundPayment(ask, timeout=CALL_S).refund
    shown = side.stub.GetPayment(pb.GetPaymentRequest(payment_id=payment.payment_id), timeout=CALL_S)
    assert [leg.kind for leg in shown.legs] == ["debit", "credit"]
    assert shown.candidates[0].acquirer_id == payment.acquirer_id
    assert shown.candidates[0].tried
    assert any(reason.startswith("cost ") for reason in shown.candidates[0].reasons)
    assert shown.payment.refunded_minor == 250
    assert [one.payment_id for one in shown.refunds] == [refund.payment_id]
    assert refund.kind == pb.PAYMENT_KIND_REFUND
    assert refund.original_payment_id == payment.payment_id


def test_refunds_and_cancels_that_cannot_be(side: Side) -> None:
    payment = side.stub.CreatePayment(side.request(), timeout=CALL_S).payment
    unknown = "00000000-0000-7000-8000-000000000000"

    def refund(payment_id: str, amount: int, key: str = "") -> Callable[[], object]:
        request = pb.RefundPaymentRequest(
            idempotency_key=key or f"refund-{next(_numbers)}", payment_id=payment_id, amount_minor=amount
        )
        return lambda: side.stub.RefundPayment(request, timeout=CALL_S)

    def cancel(payment_id: str) -> Callable[[], object]:
        return lambda: side.stub.CancelPayment(pb.CancelPaymentRequest(payment_id=payment_id), timeout=CALL_S)

    def get(payment_id: str) -> Callable[[], object]:
        return lambda: side.stub.GetPayment(pb.GetPaymentRequest(payment_id=payment_id), timeout=CALL_S)

    assert refusal(refund(payment.payment_id, 1251))[1] == "REFUND_EXCEEDS_PAYMENT"
    assert refusal(refund(payment.payment_id, -1))[1] == "AMOUNT_NOT_POSITIVE"
    assert refusal(refund(unknown, 1))[1] == "PAYMENT_NOT_FOUND"
    assert refusal(refund("x", 1))[1] == "FIELD_INVALID"
    assert refusal(cancel(payment.payment_id)) == (grpc.StatusCode.FAILED_PRECONDITION, "PAYMENT_FINAL")
    assert refusal(cancel(unknown))[1] == refusal(get(unknown))[1] == "PAYMENT_NOT_FOUND"
    assert refusal(cancel(""))[1] == refusal(get(""))[1] == "FIELD_MISSING"
    whole = refund(payment.payment_id, 0, key="all-of-it-" + payment.payment_id)()
    assert whole.refund.amount_minor == 1250  # type: ignore[attr-defined]
    assert refund(payment.payment_id, 0, key="all-of-it-" + payment.payment_id)() == whole
    assert refusal(refund(whole.refund.payment_id, 1))[1] == "REFUND_OF_REFUND"  # type: ignore[attr-defined]


def test_refunds_racing_never_exceed_the_payment(side: Side) -> None:
    payment = side.stub.CreatePayment(side.request(amount_minor=1000), timeout=CALL_S).payment
    answers: list[str] = []

    def refund() -> None:
        request = pb.RefundPaymentRequest(
            idempotency_key=f"race-{next(_numbers)}", payment_id=payment.payment_id, amount_minor=300
        )
        try:
            side.stub.RefundPayment(request, timeout=CALL_S)
            answers.append("done")
        except grpc.RpcError as error:
            typed = from_rpc_error(error)
            answers.append(typed.name if typed else "?")

    threads = [threading.Thread(target=refund) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == ["REFUND_EXCEEDS_PAYMENT"] * 5 + ["done"] * 3


def test_a_merchants_code_must_agree_with_the_request(side: Side) -> None:
    shop = next(one for one in side.network.population.merchants if one.id == "m1001")
    code = barcode.build_merchant_code(
        barcode.MerchantCode(shop.id, shop.name, shop.city, amount_minor=990, terminal_id=shop.terminals[0])
    )
    payee = pb.RoutingKey(barcode=code)
    paid = side.stub.CreatePayment(side.request(payee=payee, amount_minor=0, currency=""), timeout=CALL_S).payment
    assert (paid.amount_minor, paid.currency, paid.terminal_id) == (990, "CNY", shop.terminals[0])
    for changes in ({"amount_minor": 991}, {"currency": "USD", "amount_minor": 990}):
        request = side.request(**{"payee": payee, **changes})
        assert (
            refusal(lambda request=request: side.stub.CreatePayment(request, timeout=CALL_S))[1] == "CURRENCY_MISMATCH"
        )


@pytest.mark.parametrize(
    ("tip", "asked", "paid"),
    [
        ({"tip": "fixed", "tip_minor": 50}, 0, 1_040),
        ({"tip": "fixed", "tip_minor": 50}, 1_040, 1_040),
        ({"tip": "fixed", "tip_minor": 50}, 990, None),
        ({"tip": "percent", "tip_basis_points": 500}, 0, 1_040),
        ({"tip": "percent", "tip_basis_points": 500}, 990, None),
        ({"tip": "asked"}, 0, 990),
        ({"tip": "asked"}, 1_200, 1_200),
        ({"tip": "asked"}, 989, None),
    ],
)
def test_a_tip_or_fee_of_a_code_is_part_of_what_is_paid(
    side: Side, tip: dict[str, Any], asked: int, paid: int | None
) -> None:
    shop = next(one for one in side.network.population.merchants if one.id == "m1001")
    code = barcode.build_merchant_code(barcode.MerchantCode(shop.id, shop.name, shop.city, amount_minor=990, **tip))
    request = side.request(payee=pb.RoutingKey(barcode=code), amount_minor=asked)
    if paid is None:
        assert refusal(lambda: side.stub.CreatePayment(request, timeout=CALL_S))[1] == "CURRENCY_MISMATCH"
    else:
        assert side.stub.CreatePayment(request, timeout=CALL_S).payment.amount_minor == paid


def test_watching_is_in_order_resumable_and_complete(side: Side) -> None:
    stream = side.stub.WatchPayments(pb.WatchPaymentsRequest(), timeout=CALL_S)
    payment = side.stub.CreatePayment(side.request(), timeout=CALL_S).payment
    seen: list[pb.PaymentEvent] = []
    for response in stream:
        seen.extend(response.events)
        if any(e.payment_id == payment.payment_id and e.state == pb.PAYMENT_STATE_SUCCEEDED for e in seen):
            break
    stream.cancel()
    assert [event.sequence for event in seen] == sorted({event.sequence for event in seen})
    mine = [event.state for event in seen if event.payment_id == payment.payment_id]
    assert mine == [pb.PAYMENT_STATE_DEBITING, pb.PAYMENT_STATE_CREDITING, pb.PAYMENT_STATE_SUCCEEDED]
    after = seen[-2].sequence
    again = side.stub.WatchPayments(pb.WatchPaymentsRequest(after_sequence=after), timeout=CALL_S)
    assert next(iter(again)).events[0].sequence > after
    again.cancel()
    only = side.stub.WatchPayments(pb.WatchPaymentsRequest(payment_id=payment.payment_id), timeout=CALL_S)
    assert {event.payment_id for event in next(iter(only)).events} == {payment.payment_id}
    only.cancel()
    for bad in (pb.WatchPaymentsRequest(after_sequence=-1), pb.WatchPaymentsRequest(payment_id="x")):
        assert refusal(lambda bad=bad: next(iter(side.stub.WatchPayments(bad, timeout=CALL_S))))[1] == "FIELD_INVALID"


@pytest.mark.slow
def test_an_unfinished_payment_is_answered_before_the_calls_own_deadline(side: Side) -> None:
    side.network.participants["issuer-a"].plan_next(Plan(Behaviour.LATE, late_us=1_500_000))
    start = time.monotonic()
    payment = side.stub.CreatePayment(side.request(), timeout=0.6).payment
    assert time.monotonic() - start < 0.6
    assert payment.state == pb.PAYMENT_STATE_DEBITING
    watching = side.stub.WatchPayments(pb.WatchPaymentsRequest(payment_id=payment.payment_id), timeout=CALL_S)
    for response in watching:
        if response.events[-1].state == pb.PAYMENT_STATE_SUCCEEDED:
            break
    watching.cancel()


def test_health_and_reflection(side: Side) -> None:
    health = health_pb2_grpc.HealthStub(side.channel)
    for name in ("", "hutong.gateway.v1.PaymentService", "hutong.tokenization.v1.TokenService"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=CALL_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    stub = reflection_pb2_grpc.ServerReflectionStub(side.channel)
    (answer,) = stub.ServerReflectionInfo(iter([ask]), timeout=CALL_S)
    names = {service.name for service in answer.list_services_response.service}
    assert {
        "hutong.gateway.v1.PaymentService",
        "hutong.gateway.v1.BarcodeService",
        "hutong.participant.v1.ParticipantService",
        "hutong.tokenization.v1.TokenService",
        "hutong.facepay.v1.FaceService",
        "grpc.health.v1.Health",
    } <= names


def held(side: Side, **changes: object) -> pb.Payment:
    made = side.stub.CreatePayment(side.request(**({"hold": pb.Hold()} | changes)), timeout=CALL_S).payment
    assert made.state == pb.PAYMENT_STATE_HELD
    return made


CAPTURES: dict[str, tuple[dict[str, object], str]] = {
    "no payment": ({}, "FIELD_MISSING"),
    "a payment that is no id": ({"payment_id": "x"}, "FIELD_INVALID"),
    "a payment that nobody made": ({"payment_id": "00000000-0000-7000-8000-000000000000"}, "PAYMENT_NOT_FOUND"),
    "less than nothing": ({"payment_id": "held", "amount_minor": -1}, "AMOUNT_NOT_POSITIVE"),
    "more than is held": ({"payment_id": "held", "amount_minor": 1251}, "CAPTURE_EXCEEDS_HOLD"),
    "the most that there is": ({"payment_id": "held", "amount_minor": 2**63 - 1}, "CAPTURE_EXCEEDS_HOLD"),
    "a payment that asked for no hold": ({"payment_id": "paid"}, "PAYMENT_NOT_HELD"),
    "a hold that was voided": ({"payment_id": "void"}, "PAYMENT_NOT_HELD"),
    "another amount than before": ({"payment_id": "captured", "amount_minor": 1}, "CAPTURE_DIFFERS"),
    "all of what was captured in part": ({"payment_id": "captured"}, "CAPTURE_DIFFERS"),
}


@pytest.fixture(scope="module")
def payments(side: Side) -> dict[str, str]:
    """A payment in each state that a capture may meet."""
    made = {name: held(side).payment_id for name in ("held", "void", "captured")}
    side.stub.CancelPayment(pb.CancelPaymentRequest(payment_id=made["void"]), timeout=CALL_S)
    capture = pb.CapturePaymentRequest(payment_id=made["captured"], amount_minor=1000)
    side.stub.CapturePayment(capture, timeout=CALL_S)
    made["paid"] = side.stub.CreatePayment(side.request(), timeout=CALL_S).payment.payment_id
    return made


@pytest.mark.parametrize("name", CAPTURES)
def test_captures_that_cannot_be_get_the_same_typed_error(side: Side, payments: dict[str, str], name: str) -> None:
    fields, reason = CAPTURES[name]
    named = {**fields, "payment_id": payments.get(str(fields.get("payment_id", "")), fields.get("payment_id", ""))}
    request = pb.CapturePaymentRequest(**named)  # type: ignore[arg-type]
    _, found = refusal(lambda: side.stub.CapturePayment(request, timeout=CALL_S))
    assert found == reason


def test_a_hold_is_captured_once_and_refunded(side: Side) -> None:
    payment = held(side)
    assert (payment.authorised_minor, payment.HasField("end_time")) == (1250, False)
    seconds = payment.hold_expire_time.seconds - payment.create_time.seconds
    assert seconds == 7 * 86_400
    request = pb.CapturePaymentRequest(payment_id=payment.payment_id, amount_minor=1000)
    body = side.raw("CapturePayment", request.SerializeToString())
    assert side.raw("CapturePayment", request.SerializeToString()) == body
    captured = pb.CapturePaymentResponse.FromString(body).payment
    assert (captured.state, captured.amount_minor) == (pb.PAYMENT_STATE_SUCCEEDED, 1000)
    shown = side.stub.GetPayment(pb.GetPaymentRequest(payment_id=payment.payment_id), timeout=CALL_S)
    assert [leg.kind for leg in shown.legs] == ["authorisation", "capture", "credit"]
    back = pb.RefundPaymentRequest(idempotency_key=payment.payment_id, payment_id=payment.payment_id)
    refund = side.stub.RefundPayment(back, timeout=CALL_S).refund
    assert (refund.state, refund.amount_minor) == (pb.PAYMENT_STATE_SUCCEEDED, 1000)
    gone, reason = refusal(lambda: side.stub.CancelPayment(pb.CancelPaymentRequest(payment_id=payment.payment_id)))
    assert (gone, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PAYMENT_FINAL")


def test_a_repeat_of_a_hold_gets_it_as_it_stands(side: Side) -> None:
    request = side.request(hold=pb.Hold(lifetime=duration_pb2.Duration(seconds=60)))
    body = side.raw("CreatePayment", request.SerializeToString())
    assert side.raw("CreatePayment", request.SerializeToString()) == body
    other = side.request(idempotency_key=request.idempotency_key, hold=pb.Hold())
    _, reason = refusal(lambda: side.stub.CreatePayment(other, timeout=CALL_S))
    assert reason == "IDEMPOTENCY_KEY_REUSED"
    payment_id = pb.CreatePaymentResponse.FromString(body).payment.payment_id
    voided = side.raw("CancelPayment", pb.CancelPaymentRequest(payment_id=payment_id).SerializeToString())
    assert side.raw("CreatePayment", request.SerializeToString()) == voided


def test_captures_and_voids_racing_have_one_winner(side: Side) -> None:
    for _ in range(10):
        payment_id = held(side).payment_id
        outcomes: list[str] = []

        def capture(payment_id: str = payment_id, outcomes: list[str] = outcomes) -> None:
            request = pb.CapturePaymentRequest(payment_id=payment_id)
            try:
                state = side.stub.CapturePayment(request, timeout=CALL_S).payment.state
                outcomes.append(pb.PaymentState.Name(state))
            except grpc.RpcError as error:
                refused = from_rpc_error(error)
                outcomes.append(refused.name if refused else str(error))

        def void(payment_id: str = payment_id) -> None:
            with contextlib.suppress(grpc.RpcError):
                side.stub.CancelPayment(pb.CancelPaymentRequest(payment_id=payment_id), timeout=CALL_S)

        racers = [threading.Thread(target=one) for one in (capture, void, capture, void)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        shown = side.stub.GetPayment(pb.GetPaymentRequest(payment_id=payment_id), timeout=CALL_S).payment
        assert shown.state in (pb.PAYMENT_STATE_SUCCEEDED, pb.PAYMENT_STATE_CANCELLED)
        assert len(set(outcomes)) == 1, "both who capture are told the same"
        assert ("SUCCEEDED" in outcomes[0]) == (shown.state == pb.PAYMENT_STATE_SUCCEEDED)


@pytest.mark.slow
def test_receipts_are_for_what_has_ended_or_is_held(side: Side, payments: dict[str, str]) -> None:
    for payment_id, reason in (
        ("", "FIELD_MISSING"),
        ("x", "FIELD_INVALID"),
        ("00000000-0000-7000-8000-000000000000", "PAYMENT_NOT_FOUND"),
    ):
        request = pb.GetReceiptRequest(payment_id=payment_id)
        assert refusal(lambda request=request: side.stub.GetReceipt(request, timeout=CALL_S))[1] == reason  # type: ignore[misc]
    found = {
        name: side.stub.GetReceipt(pb.GetReceiptRequest(payment_id=made)).receipt for name, made in payments.items()
    }
    amounts = {name: (one.paid_minor, one.authorised_minor, one.held_minor) for name, one in found.items()}
    assert amounts == {"held": (0, 1250, 1250), "void": (0, 1250, 0), "captured": (1000, 1250, 0), "paid": (1250, 0, 0)}
    one = found["captured"]
    assert (one.exponent, one.currency, one.refundable_minor) == (2, "CNY", 1000)
    assert one.merchant_name
    assert one.masked_account.startswith("**** ")
    again = side.stub.GetReceipt(pb.GetReceiptRequest(payment_id=payments["captured"])).receipt
    assert again == one
    assert len({receipt.receipt_number for receipt in found.values()}) == len(found)


def test_no_receipt_while_under_way(side: Side) -> None:
    issuer = side.network.participants["issuer-a"]
    issuer.plan_next(Plan(Behaviour.LOSE_ANSWER))
    made = side.stub.CreatePayment(side.request(), timeout=1.0).payment
    assert made.state == pb.PAYMENT_STATE_DEBITING
    _, reason = refusal(lambda: side.stub.GetReceipt(pb.GetReceiptRequest(payment_id=made.payment_id), timeout=CALL_S))
    assert reason == "PAYMENT_NOT_SETTLED"
    side.stub.CancelPayment(pb.CancelPaymentRequest(payment_id=made.payment_id), timeout=CALL_S)


@pytest.mark.slow
def test_a_hold_ends_by_itself_and_is_seen_to(side: Side) -> None:
    """A second's hold on the engine's own clock: EXPIRED is watched for, and then nothing can be captured."""
    payment_id = held(side, hold=pb.Hold(lifetime=duration_pb2.Duration(seconds=1))).payment_id
    stream = side.stub.WatchPayments(pb.WatchPaymentsRequest(payment_id=payment_id), timeout=CALL_S)
    states: list[int] = []
    for response in stream:
        states.extend(int(event.state) for event in response.events)
        if pb.PAYMENT_STATE_EXPIRED in states:
            break
    stream.cancel()
    wanted = ("DEBITING", "HELD", "REVERSING", "EXPIRED")
    assert states == [pb.PaymentState.Value(f"PAYMENT_STATE_{name}") for name in wanted]
    request = pb.CapturePaymentRequest(payment_id=payment_id)
    assert refusal(lambda: side.stub.CapturePayment(request, timeout=CALL_S))[1] == "PAYMENT_NOT_HELD"
    receipt = side.stub.GetReceipt(pb.GetReceiptRequest(payment_id=payment_id), timeout=CALL_S).receipt
    assert (receipt.held_minor, receipt.paid_minor) == (0, 0)


def test_a_wallet_finds_what_was_paid_with_its_token(side: Side) -> None:
    """The token service's reference finds a payment with a one-time code, in lists and in events; a terminal's other
    payments are not among them."""
    number = side.network.wallet_tokens["wallet-02"].reveal()
    tokens = token_rpc.TokenServiceStub(side.channel)
    name = token_pb2.TokenName(token=number)
    reference = tokens.GetToken(token_pb2.GetTokenRequest(requestor_id=WALLET_TRID, name=name)).view.token_ref
    mine = pb.PaymentFilter(token_ref=reference)
    stream = side.stub.WatchPayments(pb.WatchPaymentsRequest(filter=mine, from_now=True), timeout=CALL_S)
    begun = next(stream)
    assert not begun.events
    code = tokens.ReserveCode(token_pb2.ReserveCodeRequest(requestor_id=WALLET_TRID, name=name)).code
    side.stub.CreatePayment(side.request(), timeout=CALL_S)
    paid = side.stub.CreatePayment(side.request(payer=pb.RoutingKey(payment_code=code)), timeout=CALL_S).payment
    seen: list[pb.PaymentEvent] = []
    while not seen or seen[-1].state != pb.PAYMENT_STATE_SUCCEEDED:
        seen += next(stream).events
    stream.cancel()
    assert {(event.payment_id, event.amount_minor, event.currency, event.merchant_id) for event in seen} == {
        (paid.payment_id, 1250, "CNY", "m1001")
    }
    assert seen[0].payer_key == pb.KEY_KIND_PAYMENT_CODE
    assert seen[0].sequence > begun.sequence
    listed = side.stub.ListPayments(pb.ListPaymentsRequest(filter=mine), timeout=CALL_S).payments
    assert listed[0].payment_id == paid.payment_id
    assert {payment.token_ref for payment in listed} == {reference}
    raw = side.raw("ListPayments", pb.ListPaymentsRequest(filter=mine).SerializeToString())
    assert number.encode() not in raw
    assert code.encode() not in raw
    shop = pb.PaymentFilter(merchant_id="m1001", states=[pb.PAYMENT_STATE_SUCCEEDED])
    page = side.stub.ListPayments(pb.ListPaymentsRequest(page_size=1, filter=shop), timeout=CALL_S)
    assert [one.payment_id for one in page.payments] == [paid.payment_id]
    following = pb.ListPaymentsRequest(page_size=1, page_token=page.next_page_token, filter=shop)
    assert side.stub.ListPayments(following, timeout=CALL_S).payments[0].payment_id < paid.payment_id
    wrong = pb.ListPaymentsRequest(page_token=page.next_page_token)
    assert refusal(lambda: side.stub.ListPayments(wrong, timeout=CALL_S))[1] == "PAGE_TOKEN_INVALID"


def test_a_dynamic_codes_order_is_paid_once(side: Side) -> None:
    """Also when many pay at once; a refund in full opens it, a static code is paid as often as anybody likes."""

    def shown(reference: str, amount_minor: int | None = 700) -> pb.RoutingKey:
        code = barcode.MerchantCode("m1001", "Shop", "City", amount_minor=amount_minor, reference=reference)
        return pb.RoutingKey(barcode=barcode.build_merchant_code(code))

    order = f"order {next(_numbers)}"
    requests = [side.request(payee=shown(order), amount_minor=0, currency="") for _ in range(8)]
    asked = [side.stub.CreatePayment.future(request, timeout=CALL_S) for request in requests]
    made: list[pb.Payment] = []
    refusals = []
    for call in asked:
        try:
            made.append(call.result().payment)
        except grpc.RpcError as failure:
            refusals.append(from_rpc_error(failure))
    (first,) = made
    assert (first.state, first.amount_minor, first.reference) == (pb.PAYMENT_STATE_SUCCEEDED, 700, order)
    assert {(error.name, error.fields["payment_id"]) for error in refusals if error} == {
        ("ORDER_ALREADY_PAID", first.payment_id)
    }
    assert len(refusals) == 7
    part = pb.RefundPaymentRequest(
        idempotency_key=f"back-{next(_numbers)}", payment_id=first.payment_id, amount_minor=1
    )
    side.stub.RefundPayment(part, timeout=CALL_S)
    late = side.request(payee=shown(order), amount_minor=0, currency="")
    assert refusal(lambda: side.stub.CreatePayment(late, timeout=CALL_S)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "ORDER_ALREADY_PAID",
    )
    rest = pb.RefundPaymentRequest(idempotency_key=f"back-{next(_numbers)}", payment_id=first.payment_id)
    assert side.stub.RefundPayment(rest, timeout=CALL_S).refund.state == pb.PAYMENT_STATE_SUCCEEDED
    second = side.stub.CreatePayment(late, timeout=CALL_S).payment
    assert second.state == pb.PAYMENT_STATE_SUCCEEDED
    for _ in range(2):
        static = side.request(payee=shown(order, None), amount_minor=700)
        assert side.stub.CreatePayment(static, timeout=CALL_S).payment.state == pb.PAYMENT_STATE_SUCCEEDED
