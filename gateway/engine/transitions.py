"""Carries out the table's rules: what each action does to a payment, to the tick's writes and to its messages.

Pure, as the core is: no clock, socket, disk or random source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from gateway.engine.answer import id_text, response
from gateway.engine.model import (
    INQUIRY_NUMBER_MIN,
    LEGS_MAX,
    Create,
    Decline,
    Kind,
    Leg,
    LegKind,
    LegOut,
    LegState,
    Movement,
    Payment,
    Waiter,
    Writes,
)
from gateway.engine.states import FINAL, TABLE, Action, Event, State
from gateway.engine.timers import Timers
from hutong_contract.errors import HutongError, Reason

BACKOFF_DOUBLINGS_MAX: Final = 16
"""Exponent bound of the reversal backoff; the interval itself is capped by Timing.reversal_max_us."""

# Aliases: Python 3.11 looks up enum attributes slowly, and these stand in hot paths.
_CREDITING, _SUCCEEDED = State.CREDITING, State.SUCCEEDED
_ASKED: Final = frozenset({State.DEBITING, State.CREDITING, State.CAPTURING})
_UNKNOWN: Final = frozenset({State.DEBIT_UNKNOWN, State.CREDIT_UNKNOWN, State.CAPTURE_UNKNOWN})
_PAYMENT = Kind.PAYMENT
_DEBIT, _CREDIT, _REVERSAL = LegKind.DEBIT, LegKind.CREDIT, LegKind.REVERSAL
_REFUND, _AUTHORISATION, _CAPTURE = LegKind.REFUND, LegKind.AUTHORISATION, LegKind.CAPTURE
_SENT = LegState.SENT


@dataclass(frozen=True, slots=True)
class Timing:
    """Timeouts and intervals of the engine, in microseconds."""

    leg_timeout_us: int = 5_000_000
    """Time for the answer to a debit or credit; after it the leg is UNKNOWN."""
    inquiry_us: int = 3_000_000
    """Time between inquiries."""
    inquiries_max: int = 10
    """Most inquiries about one leg before it is reversed."""
    capture_us: int = 30_000_000
    """Time for a payment to end after its capture; after it nothing new is begun."""
    reversal_us: int = 1_000_000
    """Time before an unanswered reversal is first repeated; doubles each time."""
    reversal_max_us: int = 60_000_000
    """Longest time between two repetitions."""


@dataclass(slots=True)
class Outcome:
    """The result of the first half of a tick."""

    now_us: int
    writes: Writes = field(default_factory=Writes)
    creates: list[Create] = field(default_factory=list)
    declines: list[Decline] = field(default_factory=list)
    closers: list[Waiter] = field(default_factory=list)
    """Callers who wait for settlement windows to be closed."""
    legs: list[LegOut] = field(default_factory=list)
    answers: list[tuple[Waiter, bytes]] = field(default_factory=list)
    errors: list[tuple[Waiter, HutongError]] = field(default_factory=list)
    observations: list[tuple[str, bool, int]] = field(default_factory=list)
    """(participant, answered in time, latency in microseconds) for the router's health."""
    anomalies: dict[str, int] = field(default_factory=dict)
    """Counts of what a correct participant never does, by kind."""
    transitions: list[tuple[State, Event]] = field(default_factory=list)

    def asking(self) -> list[Waiter]:
        """Callers who wait for what this tick begins: payments to admit or refuse, windows to close."""
        asking = [create.waiter for create in self.creates]
        return asking + [decline.waiter for decline in self.declines] + self.closers


class Transitions:
    """Applies events to payments by the table."""

    def __init__(self, timing: Timing, timers: Timers, *, trace: bool) -> None:
        """`trace` records every transition in the outcome, for tests and the simulator."""
        self.timing = timing
        self._timers = timers
        self._trace = trace
        self._actions: Final[dict[Action, Callable[[Payment, Leg, Outcome], None]]] = {
            Action.SEND_CREDIT: self._send_credit,
            Action.NEXT_ACQUIRER: self._next_acquirer,
            Action.INQUIRE_DEBIT: self._inquire_debit,
            Action.INQUIRE_CREDIT: self._inquire_credit,
            Action.REVERSE_DEBIT: self._reverse_debit,
            Action.REVERSE_CREDIT: self._reverse_credit,
            Action.RESEND: self._resend,
            Action.UNDO: self._undo,
            Action.END: self._end,
            Action.REFUSE_CANCEL: self._refuse_cancel,
            Action.NO_FAILOVER: self._no_failover,
            Action.REST: self._rest,
            Action.SEND_CAPTURE: self._send_capture,
            Action.FREE_THE_REST: self._free_the_rest,
        }

    def apply(self, payment: Payment, leg: Leg, event: Event, out: Outcome) -> None:
        """Looks up the event in the table and carries out its rule."""
        rule = TABLE[payment.state][event]
        if self._trace:
            out.transitions.append((payment.state, event))
        if not rule.actions:
            return
        if rule.goal is not None:
            payment.goal = rule.goal
        state = payment.goal if rule.to is None else rule.to
        if state is not payment.state:
            payment.state = state
            payment.retries = payment.inquiries = 0
            if state is not _CREDITING or payment.authorised_minor:
                # The row of the credit leg itself says CREDITING, see gateway.journal.rows; it need not be said twice.
                out.writes.changed[payment.payment_id] = payment
            out.writes.events.append((payment.row_id, int(state), out.now_us))
        for action in rule.actions:
            self._actions[action](payment, leg, out)
        if state not in FINAL:
            self.plan(payment)

    def plan(self, payment: Payment) -> None:
        """Sets when this payment is due next."""
        due = self.retry_due_us(payment)
        if payment.deadline_us < due and not payment.deadline_seen and payment.state not in FINAL:
            due = payment.deadline_us
        for _, by_us in payment.waiters:
            if by_us < due:
                due = by_us
        payment.due_us = due
        if due < self._timers.horizon_us:
            self._timers.note(payment)

    def retry_due_us(self, payment: Payment) -> int:
        """When the message under way is overdue."""
        timing = self.timing
        asked_us = payment.asked_us
        if payment.state in _ASKED:
            return asked_us + timing.leg_timeout_us
        if payment.state in _UNKNOWN:
            return asked_us + timing.inquiry_us
        doublings = min(max(payment.retries - 1, 0), BACKOFF_DOUBLINGS_MAX)
        return asked_us + min(timing.reversal_us << doublings, timing.reversal_max_us)

    def _new_leg(self, payment: Payment, kind: LegKind, participant: str, original: int, out: Outcome) -> Leg:
        assert len(payment.legs) < LEGS_MAX, "a route is bounded, and so are its legs"
        leg = Leg(len(payment.legs) + 1, kind, participant, original, sent_us=out.now_us)
        payment.legs.append(leg)
        payment.asked_us = out.now_us
        out.writes.legs[payment.payment_id, leg.number] = leg
        return leg

    def _emit(self, payment: Payment, leg: Leg, out: Outcome) -> None:
        out.legs.append(leg_out(payment, leg))

    def _send_credit(self, payment: Payment, leg: Leg, out: Outcome) -> None:
        kind = _CREDIT if payment.kind == _PAYMENT else _REFUND
        payment.account = None
        self._emit(payment, self._new_leg(payment, kind, payment.creditor, 0, out), out)

    def _next_acquirer(self, payment: Payment, leg: Leg, out: Outcome) -> None:
        payment.attempt += 1
        # The state may stay CREDITING, so the new acquirer is recorded here.
        out.writes.changed[payment.payment_id] = payment
        out.writes.events.append((payment.row_id, int(payment.state), out.now_us))

    def _inquire_debit(self, payment: Payment, leg: Leg, out: Outcome) -> None:
        self._inquire(payment, current_debit(payment), out)

    def _inquire_credit(self, payment: Payment, leg: Leg, out: Outcome) -> None:
        current = current_credit(payment)
        assert current is not None, "a credit is asked about only after it was sent"
        self._inquire(payment, current, out)

    def _inquire(self, payment: Payment, leg: Leg, out: Outcome) -> None:
        payment.inquiries += 1
        payment.asked_us = out.now_us
        leg_id = payment.payment_id + leg.number.to_bytes(1, "big")
        number = (INQUIRY_NUMBER_MIN + leg.number).to_bytes(1, "big")
        out.legs.append(
            LegOut(
                leg.participant,
                payment.payment_id + number,
                LegKind.INQUIRY,
                leg_id,
                amount_of(payment, leg),
                payment.currency,
                "",
                "",
            )
        )

    def _reverse_debit(self, payment: Payment, leg: Leg, out: Outcome) -> None:
        payment.account = None
        self._reverse(payment, payment.legs[0], out)

    def _reverse_credit(self, payment: Payment, leg: Leg, out: Outcome) -> None:
        current = current_credit(payment)
        assert current is not None, "a credit is reversed only after it was sent"
        self._reverse(payment, current, out)

    def _reverse(self, payment: Payment, leg: Leg, out: Outcome) -> None:
        payment.retries += 1
        self._emit(payment, self._new_leg(payment, _REVERSAL, leg.participant, leg.number, out), out)

    def _resend(self, payment: Payment, leg: Leg, out: Outcome) -> None:
        payment.retries += 1
        for reversal in open_reversals(payment):
            self._emit(payment, reversal, out)
        payment.asked_us = out.now_us
        self.plan(payment)

    def _undo(self, payment: Payment, leg: Leg, out: Outcome) -> None:
        if len(payment.legs) >= LEGS_MAX:
            anomaly(out, "too many late approvals")
            return
        self._reverse(payment, leg, out)
        if payment.state in FINAL:
            out.writes.changed[payment.payment_id] = payment
            self.plan(payment)

    def _rest(self, payment: Payment, leg: Leg, out: Outcome) -> None:
        payment.account = None
        self._answer_waiters(payment, out)

    def _send_capture(self, payment: Payment, leg: Leg, out: Outcome) -> None:
        out.writes.captured[payment.payment_id] = payment
        self._emit(payment, self._new_leg(payment, _CAPTURE, payment.debtor, 1, out), out)

    def _free_the_rest(self, payment: Payment, leg: Leg, out: Outcome) -> None:
        rest = payment.authorised_minor - payment.amount_minor
        if not rest:
            return
        counters = []
        for condition in payment.counters:
            counts_money = condition.add == payment.authorised_minor  # others count uses
            if counts_money:
                out.writes.releases.append((rest, condition.counter))
            counters.append(condition._replace(add=payment.amount_minor) if counts_money else condition)
        payment.counters = tuple(counters)
        out.writes.captured[payment.payment_id] = payment

    def _no_failover(self, payment: Payment, leg: Leg, out: Outcome) -> None:
        payment.failover = False

    def _refuse_cancel(self, payment: Payment, leg: Leg, out: Outcome) -> None:
        self._answer_cancellers(payment, out)

    def _answer_cancellers(self, payment: Payment, out: Outcome) -> None:
        for waiter in payment.cancellers:
            if payment.state == State.CANCELLED:
                out.answers.append((waiter, response(payment)))
            else:
                error = HutongError(
                    Reason.ERROR_REASON_PAYMENT_FINAL, payment_id=id_text(payment.payment_id), state=payment.state.name
                )
                out.errors.append((waiter, error))
        payment.cancellers.clear()

    def _end(self, payment: Payment, leg: Leg, out: Outcome) -> None:
        payment.ended_us = out.now_us
        if not payment.reason and payment.state is not _SUCCEEDED:
            payment.reason = "no answer" if payment.state is State.FAILED else ""
        if payment.state is _SUCCEEDED:
            payment.reason = ""
        else:
            writes = out.writes
            writes.releases.extend((condition.add, condition.counter) for condition in payment.counters)
            if payment.original_id is not None:
                writes.refund_releases.append((payment.amount_minor, payment.original_id))
        if payment.waiters:
            self._answer_waiters(payment, out)
        if payment.cancellers:
            self._answer_cancellers(payment, out)

    def _answer_waiters(self, payment: Payment, out: Outcome) -> None:
        body = response(payment)
        out.answers.extend((waiter, body) for waiter, _ in payment.waiters)
        payment.waiters.clear()

    def post(self, payment: Payment, leg: Leg, sign: int, out: Outcome) -> None:
        """Records the movement between the participant's account and the gateway's. A hold moves nothing."""
        if leg.kind is _AUTHORISATION:
            return
        amount = payment.amount_minor * sign
        if leg.number == 1 or leg.kind is _CAPTURE:
            amount = -amount  # what the debtor owes the gateway
        out.writes.movements.append(
            Movement(payment.row_id, leg.number, leg.participant, payment.currency, amount, out.now_us)
        )


def leg_out(payment: Payment, leg: Leg) -> LegOut:
    """The message to the participant for a leg."""
    account = terminal = ""
    original = b""
    if leg.kind == _DEBIT or leg.kind == _AUTHORISATION:
        account = payment.account.reveal() if payment.account is not None else ""
    elif leg.kind == _CREDIT:
        account, terminal = payment.merchant_id, payment.terminal_id
    elif leg.kind == _REVERSAL or leg.kind == _CAPTURE:
        original = payment.payment_id + leg.original.to_bytes(1, "big")
    else:
        original = payment.debit_original if leg.number == 1 else payment.credit_original
    return LegOut(
        leg.participant,
        payment.payment_id + leg.number.to_bytes(1, "big"),
        leg.kind,
        original,
        payment.amount_minor if not payment.authorised_minor else amount_of(payment, leg),
        payment.currency,
        account,
        terminal,
    )


def amount_of(payment: Payment, leg: Leg) -> int:
    """The amount that a leg moves, sets aside or reverses, in minor units."""
    about = payment.legs[leg.original - 1] if leg.kind is _REVERSAL else leg
    return payment.authorised_minor if about.kind is _AUTHORISATION else payment.amount_minor


def capture_of(payment: Payment) -> Leg | None:
    """The capture of a payment's hold, if one was sent; there is at most one."""
    if not payment.authorised_minor:
        return None
    return next((leg for leg in payment.legs if leg.kind is _CAPTURE), None)


def current_debit(payment: Payment) -> Leg:
    """The debit leg; of a hold, the authorisation and later its capture."""
    return capture_of(payment) or payment.legs[0]


def current_credit(payment: Payment) -> Leg | None:
    """The credit leg of the current attempt, if it was sent."""
    for leg in reversed(payment.legs):
        if leg.kind != _REVERSAL:
            return leg if leg.number > 1 and leg.kind != _CAPTURE else None
    return None


def another_acquirer(payment: Payment) -> bool:
    """Whether the payment may move on to another acquirer."""
    return payment.failover and payment.attempt + 1 < len(payment.creditors)


def open_reversals(payment: Payment) -> list[Leg]:
    """Reversals that are not answered yet."""
    return [leg for leg in payment.legs if leg.kind is _REVERSAL and leg.state is _SENT]


def anomaly(out: Outcome, what: str) -> None:
    """Counts an anomaly: something that a correct participant never does."""
    out.anomalies[what] = out.anomalies.get(what, 0) + 1
