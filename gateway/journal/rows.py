"""Conversion between payments with their legs and rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from gateway.engine.model import Kind, Leg, LegKind, LegState, Payment, first_leg
from gateway.engine.states import RESTING, State
from gateway.engine.transitions import open_reversals
from gateway.journal.schema import CLOSED, HELD, OPEN
from tokenization.interface import Condition

NO_BYTES: Final = bytearray()
_HELD: Final = State.HELD
_KINDS: Final = {one.value: one for one in Kind}
_STATES: Final = {one.value: one for one in State}
Row = Sequence[Any]


def payment_row(payment: Payment, engine: int, nobody: object = None) -> tuple[object, ...]:
    """The new row of a payment, in the order of PAYMENT_COLUMNS. `nobody` stands for a missing original."""
    return (
        payment.row_id,
        engine,
        1,
        payment.kind.real,
        payment.state.real,
        payment.goal.real,
        payment.reason,
        payment.caller,
        bytearray(payment.idempotency),
        bytearray(payment.fingerprint),
        payment.amount_minor,
        payment.currency,
        payment.debtor,
        " ".join(payment.creditors),
        payment.attempt,
        bytearray(payment.account_ref),
        bytearray(payment.key_ref),
        payment.last_four,
        payment.payer_key,
        payment.payee_key,
        payment.merchant_id,
        payment.terminal_id,
        payment.reference,
        payment.route_id,
        payment.risk_id,
        payment.original_id or nobody,
        bytearray(payment.debit_original) if payment.debit_original else NO_BYTES,
        bytearray(payment.credit_original) if payment.credit_original else NO_BYTES,
        _counters_text(payment.counters) if payment.counters else "",
        payment.created_us,
        payment.deadline_us,
        0,
        0,
        payment.authorised_minor,
        payment.hold_until_us,
    )


def payment_change(payment: Payment) -> tuple[object, ...]:
    """The changed columns of a payment: open, state, goal, reason, attempt, ended_us; and its id."""
    if payment.state not in RESTING or open_reversals(payment):
        open_now = OPEN
    else:
        open_now = HELD if payment.state is _HELD else CLOSED
    return (
        open_now,
        payment.state.real,
        payment.goal.real,
        payment.reason,
        payment.attempt,
        payment.ended_us,
        payment.row_id,
    )


def capture_change(payment: Payment) -> tuple[object, ...]:
    """The columns that a capture changed: amount, deadline, counters; and the payment's id."""
    return (payment.amount_minor, payment.deadline_us, _counters_text(payment.counters), payment.row_id)


def leg_row(payment_id: bytes, leg: Leg) -> tuple[object, ...]:
    """The row of a leg, in the order of LEG_COLUMNS."""
    return (
        bytearray(payment_id),
        leg.number,
        leg.kind.real,
        leg.participant,
        leg.original,
        leg.state.real,
        leg.was_approved.real,
        leg.code,
        leg.sent_us,
    )


def payments_from_rows(payments: Iterable[Row], legs: Iterable[Row]) -> list[Payment]:
    """Payments with their legs, from rows in the order of the columns above, legs by number."""
    built: dict[bytes, Payment] = {}
    for row in payments:
        payment = _payment(row)
        built[payment.payment_id] = payment
    for payment_id, number, kind, participant, original, state, was_approved, code, sent_us in legs:
        built[bytes(payment_id)].legs.append(
            Leg(
                number,
                LegKind(kind),
                participant,
                original,
                LegState(state),
                was_approved=bool(was_approved),
                code=code,
                sent_us=sent_us,
            )
        )
    for payment in built.values():
        if not payment.legs or payment.legs[0].number != 1:
            # Its row is written with its answer; until then the payment's own row says that it was sent.
            payment.legs.insert(0, first_leg(payment, payment.created_us))
        if payment.state in (State.DEBITING, State.DEBIT_UNKNOWN) and _credit_sent(payment):
            payment.state = State.CREDITING
    return list(built.values())


def _credit_sent(payment: Payment) -> bool:
    """Sets CREDITING, which is not stored in `payments`: it follows from the credit leg's row, which was committed
    instead."""
    return any(leg.number > 1 and leg.kind != LegKind.REVERSAL for leg in payment.legs)


def _payment(row: Row) -> Payment:
    (
        payment_id,
        _engine,
        _open,
        kind,
        state,
        goal,
        reason,
        caller,
        idempotency,
        fingerprint,
        amount_minor,
        currency,
        debtor,
        creditors,
        attempt,
        account_ref,
        key_ref,
        last_four,
        payer_key,
        payee_key,
        merchant_id,
        terminal_id,
        reference,
        route_id,
        risk_id,
        original_id,
        debit_original,
        credit_original,
        counters,
        created_us,
        deadline_us,
        ended_us,
        refunded_minor,
        authorised_minor,
        hold_until_us,
    ) = row
    return Payment(
        payment_id=bytes(payment_id),
        kind=_KINDS[kind],
        amount_minor=amount_minor,
        currency=currency,
        debtor=debtor,
        creditors=tuple(creditors.split(" ")),
        created_us=created_us,
        deadline_us=deadline_us,
        caller=caller,
        idempotency=bytes(idempotency),
        fingerprint=bytes(fingerprint),
        account_ref=bytes(account_ref),
        key_ref=bytes(key_ref),
        last_four=last_four,
        payer_key=payer_key,
        payee_key=payee_key,
        merchant_id=merchant_id,
        terminal_id=terminal_id,
        reference=reference,
        route_id=route_id,
        risk_id=risk_id,
        original_id=None if original_id is None else bytes(original_id),
        debit_original=bytes(debit_original),
        credit_original=bytes(credit_original),
        counters=_counters_from_text(counters) if counters else (),
        state=_STATES[state],
        goal=_STATES[goal],
        reason=reason,
        attempt=attempt,
        ended_us=ended_us,
        refunded_minor=refunded_minor,
        authorised_minor=authorised_minor,
        hold_until_us=hold_until_us,
    )


def _counters_text(conditions: tuple[Condition, ...]) -> str:
    """What was added to each counter, to be given back if needed after a restart. Caps and reasons are not stored: they
    were settled in the commit."""
    return " ".join(f"{condition.counter.hex()}:{condition.add}" for condition in conditions)


def _counters_from_text(text: str) -> tuple[Condition, ...]:
    pairs = (part.split(":") for part in text.split())
    return tuple(Condition(bytes.fromhex(counter), int(add), cap=0, reason=0) for counter, add in pairs)
