"""The simulated callers: their requests, the tokens of their accounts, and a directory of merchants."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from gateway import barcode
from gateway.calls import CANCEL, CAPTURE, CREATE, REFUND
from gateway.directory import Directory, parse
from gateway.engine.answer import id_text, timestamp
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError, Reason
from hutong_contract.secret import Secret
from tokenization.interface import Condition, KeyUse, Resolution
from verification.simulation.plan import ACQUIRERS, ISSUERS, OTHER_PAYLOAD_MINOR, Pay, Refund

CURRENCY: Final = "CNY"
Told = Callable[["SimulatedCall", bytes | HutongError], None]


class SimulatedCall:
    """A request, and what was answered. See gateway.engine.ports.Call."""

    __slots__ = (
        "after_end",
        "answers",
        "ask",
        "caller",
        "held_up",
        "lost",
        "method",
        "node",
        "op",
        "other",
        "payload",
        "published",
        "time_left_us",
        "told",
    )

    def __init__(self, method: int, payload: bytes, patience_us: int, op: int, other: bool, told: Told) -> None:
        self.method = method
        self.payload = payload
        self.caller = "caller"
        self.time_left_us: int | None = patience_us
        self.op = op
        """The operation that the request is part of; for a capture or cancel, the operation that it is about."""
        self.other = other
        self.told = told
        self.node = 0
        self.ask: tuple[int, int, int, int] = (0, 0, 0, 0)
        """When it was sent, by the engine's clock, and what had happened by then that delays answers."""
        self.published = 0
        """Number of events that were published when it was sent."""
        self.after_end = False
        """Whether a caller had been told of the payment's end when this was sent."""
        self.held_up = False
        """Whether an engine stood still since, so that its answer may be outdated."""
        self.answers = 0
        self.lost = False
        """Whether the connection ended, so that no answer arrives any more."""

    def answer(self, payload: bytes) -> None:
        self.told(self, payload)

    def fail(self, error: HutongError) -> None:
        self.told(self, error)


def key_of(op: int) -> str:
    """The idempotency key of an operation."""
    return f"key-{op}"


def label_of(op: int, other: bool) -> str:
    """The reference that marks the payments of an operation, whatever their ids."""
    return f"{op}x" if other else str(op)


def create_call(pay: Pay, other: bool, now_us: int, told: Told) -> SimulatedCall:
    """A CreatePayment."""
    amount_minor = pay.amount_minor + (OTHER_PAYLOAD_MINOR if other else 0)
    request = pb.CreatePaymentRequest(
        idempotency_key=key_of(pay.op),
        payer=pb.RoutingKey(token={"token": f"token-{pay.op}"}),  # type: ignore[arg-type]
        payee=_payee(pay, amount_minor),
        amount_minor=amount_minor,
        currency=CURRENCY,
        reference=label_of(pay.op, other),
    )
    if pay.hold_us:
        request.hold.lifetime.FromMicroseconds(pay.hold_us)
    if pay.deadline_us:
        request.deadline.CopyFrom(timestamp(now_us + pay.deadline_us))
    return SimulatedCall(CREATE, request.SerializeToString(), pay.patience_us, pay.op, other, told)


def _payee(pay: Pay, amount_minor: int) -> pb.RoutingKey:
    if pay.order is None:
        return pb.RoutingKey(merchant=pb.MerchantKey(merchant_id=pay.merchant))
    code = barcode.MerchantCode(
        pay.merchant, pay.merchant, "Town", amount_minor=amount_minor, reference=reference_of(pay.order)
    )
    return pb.RoutingKey(barcode=barcode.build_merchant_code(code))


def reference_of(order: int) -> str:
    """What a dynamic code calls an order."""
    return f"order-{order}"


def refund_call(refund: Refund, payment_id: bytes, other: bool, told: Told) -> SimulatedCall:
    """A RefundPayment."""
    request = pb.RefundPaymentRequest(
        idempotency_key=key_of(refund.op),
        payment_id=id_text(payment_id),
        amount_minor=refund.amount_minor + (1 if other else 0),
        reference=label_of(refund.op, other),
    )
    return SimulatedCall(REFUND, request.SerializeToString(), refund.patience_us, refund.op, other, told)


def capture_call(op: int, payment_id: bytes, amount_minor: int, told: Told) -> SimulatedCall:
    """A CapturePayment."""
    request = pb.CapturePaymentRequest(payment_id=id_text(payment_id), amount_minor=amount_minor)
    return SimulatedCall(CAPTURE, request.SerializeToString(), 30_000_000, op, False, told)


def cancel_call(op: int, payment_id: bytes, told: Told) -> SimulatedCall:
    """A CancelPayment."""
    request = pb.CancelPaymentRequest(payment_id=id_text(payment_id))
    return SimulatedCall(CANCEL, request.SerializeToString(), 30_000_000, op, False, told)


class SimulatedTokens:
    """A token resolver: resolves an operation's token to its account, with its conditions."""

    def __init__(self, caps: Sequence[int], pays: Mapping[int, Pay]) -> None:
        self._caps = caps
        self._pays = pays

    def resolve(self, uses: Sequence[KeyUse], now_us: int) -> list[Resolution | HutongError]:
        return [self._resolve(use) for use in uses]

    def _resolve(self, use: KeyUse) -> Resolution:
        pay = self._pays[int(use.value.reveal().removeprefix("token-"))]
        counters: tuple[Condition, ...] = ()
        if pay.counter is not None:
            reason = int(Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT)
            name = name_of("counter", pay.counter)
            counters = (Condition(name, use.amount_minor, self._caps[pay.counter], reason),)
        return Resolution(
            issuer_id=pay.issuer,
            token=Secret(f"account-{pay.op}"),
            token_ref=name_of("token", pay.op),
            key_ref=name_of("key", pay.op),
            last_four="0000",
            spends=() if pay.code is None else (name_of("code", pay.code),),
            counters=counters,
        )


def name_of(kind: str, number: int) -> bytes:
    """16 bytes."""
    return hashlib.blake2b(f"{kind} {number}".encode(), digest_size=16).digest()


def directory() -> Directory:
    """Three merchants: with all acquirers, with two, and with one."""
    participants = [{"id": name, "role": "issuer"} for name in ISSUERS]
    participants += [{"id": name, "role": "acquirer"} for name in ACQUIRERS]
    merchants = [
        {
            "id": f"merchant-{number}",
            "name": f"merchant-{number}",
            "accounts": [{"scheme": "hutong", "account": f"merchant-{number}"}],
            "acquirers": [{"id": name, "cost_bp": 10 * place} for place, name in enumerate(ACQUIRERS[number:])],
        }
        for number in range(len(ACQUIRERS))
    ]
    return parse({"participants": participants, "merchants": merchants})
