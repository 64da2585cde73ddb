"""The engine's decisions: events in, writes and effects out. No clock, socket, disk or random source.

A tick has two halves around the journal's commit:

    outcome = core.step(events, now)            # folds events through the table
    verdicts = journal.commit(outcome.writes)   # one durable transaction, which settles the conditions
    effects = core.settle(outcome, verdicts)    # what may now be told to the world
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.engine.answer import id_text, response
from gateway.engine.model import (
    INQUIRY_NUMBER_MIN,
    LEG_ID_BYTES,
    NOT_SENT,
    RISK_HOLD,
    Answered,
    Cancel,
    Capture,
    Close,
    Create,
    Decline,
    ElsewhereError,
    EngineEvent,
    Expire,
    Join,
    Leg,
    LegKind,
    LegOut,
    LegState,
    Payment,
    Refusal,
    Refused,
    Result,
    Waiter,
    first_leg,
)
from gateway.engine.states import FINAL, RESTING, Event, State
from gateway.engine.timers import Timers
from gateway.engine.transitions import (
    Outcome,
    Timing,
    Transitions,
    anomaly,
    another_acquirer,
    capture_of,
    current_credit,
    current_debit,
    leg_out,
    open_reversals,
)
from hutong_contract.errors import HutongError, Reason

DUE_PER_TICK_MAX: Final = 512
"""Most overdue payments handled in one tick; the rest follow in the next. Larger ticks exceed the processor's cache,
and new payments, which share them, would wait longer."""

_WITHOUT_PAYMENT: Final = (Create, Decline, Close)
"""Events that do not name an existing payment."""

# Aliases: Python 3.11 looks up enum attributes slowly, and these stand in hot paths.
_SENT, _APPROVED, _REVERSED = LegState.SENT, LegState.APPROVED, LegState.REVERSED
_YES, _NO = Result.APPROVED, Result.DECLINED
_REVERSAL, _CAPTURE, _AUTHORISATION = LegKind.REVERSAL, LegKind.CAPTURE, LegKind.AUTHORISATION
_DEBIT_APPROVED, _CREDIT_APPROVED = Event.DEBIT_APPROVED, Event.CREDIT_APPROVED
_HELD = State.HELD


@dataclass(slots=True)
class Effects:
    """What may be sent and told after the commit is durable."""

    legs: list[LegOut]
    answers: list[tuple[Waiter, bytes]]
    errors: list[tuple[Waiter, HutongError]]


class Core:
    """The payments in flight, and the decisions about them."""

    def __init__(self, timing: Timing | None = None, *, trace: bool = False) -> None:
        self.timing = timing or Timing()
        self.book: dict[bytes, Payment] = {}
        self.timers = Timers()
        self.holds_end = True
        """Whether holds may be ended because their time is over: not while clocks disagree."""
        self._transitions = Transitions(self.timing, self.timers, trace=trace)

    def load(self, payments: Iterable[Payment]) -> None:
        """Takes payments from the journal into memory: at start those in flight, later those that an event names."""
        for payment in payments:
            if self.book.setdefault(payment.payment_id, payment) is payment:
                self.timers.note(payment)

    def shift(self, by_us: int) -> None:
        """Adjusts to a step of the clock by so many microseconds: everything timed keeps the time that it had left."""
        self.timers.shift(by_us)
        for payment in self.book.values():
            payment.due_us += by_us
            payment.deadline_us += by_us
            if payment.asked_us:
                payment.asked_us += by_us
            payment.waiters = [(waiter, until_us + by_us) for waiter, until_us in payment.waiters]
            for leg in payment.legs:
                if leg.state == _SENT:
                    leg.sent_us += by_us

    def missing(self, events: Sequence[EngineEvent]) -> list[bytes]:
        """Payments that these events name and that are not in memory; the loop loads them before `step`."""
        book, absent = self.book, dict[bytes, None]()
        for event in events:
            if isinstance(event, Answered):
                payment_id = event.leg_id[:16]
            elif isinstance(event, _WITHOUT_PAYMENT):
                continue
            else:
                payment_id = event.payment_id
            if payment_id not in book:
                absent[payment_id] = None
        return list(absent)

    # -- first half ---------------------------------------------------------------------------------

    def step(self, events: Sequence[EngineEvent], now_us: int, *, look_for_due: bool = True) -> Outcome:
        """Turns events, and then deadlines and overdue messages, into writes and effects."""
        out = Outcome(now_us)
        touched: set[bytes] = set()
        for event in events:
            if isinstance(event, Create):
                self._admit(event, out)
            elif isinstance(event, Answered):
                touched.add(event.leg_id[:16])
                self._answered(event, out)
            elif isinstance(event, Cancel):
                touched.add(event.payment_id)
                self._cancel(event, out)
            elif isinstance(event, Close):
                out.writes.closings.append((event.number, now_us))
                out.closers.append(event.waiter)
            elif isinstance(event, Decline):
                out.declines.append(event)
                out.writes.refusals.append(Refusal(event.payment, event.error.reason))
            else:
                touched.add(event.payment_id)
                self._other(event, out)
        if look_for_due:
            touched.update(self._look_for_due(out))
        # Payments that have nothing left to do leave memory, also those that were loaded for a late answer only.
        for payment_id in touched:
            payment = self.book.get(payment_id)
            if payment is not None and payment.state in RESTING and not open_reversals(payment):
                if payment.state is _HELD:
                    out.writes.changed[payment_id] = payment  # from now on any engine may take it up
                del self.book[payment_id]
        return out

    def _other(self, event: Join | Capture | Expire, out: Outcome) -> None:
        if isinstance(event, Join):
            self._join(event, out)
        elif isinstance(event, Capture):
            self._capture(event, out)
        else:
            self._expire(event, out)

    def next_due_us(self) -> int | None:
        """When the engine must tick next without an event; None with nothing in flight."""
        return self.timers.next_us() if self.book else None

    @property
    def lingering(self) -> int:
        """Payments that have been in flight for some seconds, as of the last second."""
        return self.timers.lingering if self.book else 0

    def _admit(self, event: Create, out: Outcome) -> None:
        payment = event.payment
        payment.legs.append(first_leg(payment, out.now_us))
        payment.asked_us = out.now_us
        payment.due_us = min(out.now_us + self.timing.leg_timeout_us, payment.deadline_us, event.reply_by_us)
        payment.waiters.append((event.waiter, event.reply_by_us))
        out.creates.append(event)
        out.writes.admissions.append(payment)

    def _answered(self, event: Answered, out: Outcome) -> None:
        payment = self.book.get(event.leg_id[:16])
        number = event.leg_id[16] if len(event.leg_id) == LEG_ID_BYTES else 0
        inquiry = number >= INQUIRY_NUMBER_MIN
        leg_number = number - INQUIRY_NUMBER_MIN if inquiry else number
        if payment is None or not 0 < leg_number <= len(payment.legs):
            anomaly(out, "answer for an unknown leg")
            return
        leg = payment.legs[leg_number - 1]
        if leg.participant != event.participant:
            anomaly(out, "answer from another participant")
        elif leg.kind == _REVERSAL:
            self._reversal_answered(payment, leg, event, out)
        elif inquiry:
            self._inquiry_answered(payment, leg, event, out)
        else:
            self._leg_answered(payment, leg, event.result, event.code, out)

    def _inquiry_answered(self, payment: Payment, leg: Leg, event: Answered, out: Outcome) -> None:
        if event.result == Result.NOT_FOUND:
            if leg.state == _SENT:
                is_debit = leg is current_debit(payment)
                if is_debit or leg is current_credit(payment):
                    self._transitions.apply(
                        payment, leg, Event.DEBIT_NOT_FOUND if is_debit else Event.CREDIT_NOT_FOUND, out
                    )
        elif event.result in (_YES, _NO):
            self._leg_answered(payment, leg, event.result, event.code, out)
        elif event.result == Result.REVERSED:
            # Barred there although this gateway did not ask for it: it will not be done.
            if leg.state == _SENT:
                self._leg_answered(payment, leg, _NO, event.code, out)
        elif event.result != NOT_SENT:
            anomaly(out, "answer without a known result")
        # An inquiry that could not be sent is repeated by its timer.

    def _leg_answered(self, payment: Payment, leg: Leg, result: int, code: str, out: Outcome) -> None:
        if result == _YES:
            self._leg_approved(payment, leg, code, out)
        elif result in (_NO, NOT_SENT):
            if leg.state != _SENT:
                if leg.state == _APPROVED:
                    anomaly(out, "declined after approval")
                return  # a duplicate
            declined = result == _NO
            leg.state = LegState.DECLINED if declined else LegState.NOT_SENT
            leg.code = code
            out.writes.legs[payment.payment_id, leg.number] = leg
            out.observations.append((leg.participant, declined, out.now_us - leg.sent_us))
            if leg.number == 1 or leg.kind is _CAPTURE:
                payment.reason = code if declined else "unavailable"
                self._transitions.apply(payment, leg, Event.DEBIT_REFUSED, out)
            elif leg is current_credit(payment):
                payment.reason = code if declined else "unavailable"
                more = another_acquirer(payment)
                self._transitions.apply(payment, leg, Event.CREDIT_REFUSED if more else Event.CREDIT_REFUSED_LAST, out)
        else:
            anomaly(out, "answer without a known result")

    def _leg_approved(self, payment: Payment, leg: Leg, code: str, out: Outcome) -> None:
        before = leg.state
        if before == _APPROVED or (before == _REVERSED and leg.was_approved):
            return  # a duplicate
        leg.state = _APPROVED
        leg.was_approved = True
        leg.code = code
        out.writes.legs[payment.payment_id, leg.number] = leg
        self._transitions.post(payment, leg, 1, out)
        if before == _SENT:
            out.observations.append((leg.participant, True, out.now_us - leg.sent_us))
            if leg.number == 1 or leg.kind is _CAPTURE:
                event = Event.HOLD_APPROVED if leg.kind is _AUTHORISATION else _DEBIT_APPROVED
                if payment.state in FINAL:
                    event = Event.LATE_APPROVAL
            elif leg is current_credit(payment) and payment.state not in FINAL:
                event = _CREDIT_APPROVED
            else:
                event = Event.LATE_APPROVAL
        else:
            event = Event.LATE_APPROVAL
            anomaly(out, "approval after refusal or reversal")
        self._transitions.apply(payment, leg, event, out)

    def _reversal_answered(self, payment: Payment, reversal: Leg, event: Answered, out: Outcome) -> None:
        if reversal.state != _SENT or event.result == NOT_SENT:
            return  # a duplicate, or it could not be sent: its timer repeats it
        if event.result != _YES:
            anomaly(out, "reversal refused")
            return
        reversal.state = _APPROVED
        reversal.code = event.code
        out.writes.legs[payment.payment_id, reversal.number] = reversal
        leg = payment.legs[reversal.original - 1]
        self._undone(payment, leg, out)
        if leg.kind is _AUTHORISATION and (capture := capture_of(payment)) is not None:
            self._undone(payment, capture, out)
        if payment.state in FINAL:
            out.writes.changed[payment.payment_id] = payment  # it may leave memory now
        elif leg.number == 1:
            if payment.state == State.REVERSING:
                self._transitions.apply(payment, leg, Event.DEBIT_REVERSED, out)
        elif payment.state == State.CREDIT_REVERSING and leg is current_credit(payment):
            more = another_acquirer(payment)
            self._transitions.apply(payment, leg, Event.CREDIT_REVERSED if more else Event.CREDIT_REVERSED_LAST, out)

    def _undone(self, payment: Payment, leg: Leg, out: Outcome) -> None:
        if leg.was_approved and leg.state == _APPROVED:
            self._transitions.post(payment, leg, -1, out)
        if leg.state in (_SENT, _APPROVED):
            leg.state = _REVERSED
            out.writes.legs[payment.payment_id, leg.number] = leg

    def _capture(self, event: Capture, out: Outcome) -> None:
        payment = self.book.get(event.payment_id)
        if payment is None:
            out.errors.append((event.waiter, HutongError(Reason.ERROR_REASON_PAYMENT_NOT_FOUND)))
            return
        self._end_hold(payment, out)  # also where the journal was not asked yet
        amount = event.amount_minor or payment.authorised_minor
        refusal = capture_refusal(payment, amount, operator=event.operator)
        if refusal is not None:
            out.errors.append((event.waiter, refusal))
            return
        if payment.state is _HELD:
            payment.amount_minor = amount
            payment.deadline_us, payment.deadline_seen = out.now_us + self.timing.capture_us, False
            self._transitions.apply(payment, payment.legs[0], Event.CAPTURE, out)
        if payment.state in FINAL:
            out.answers.append((event.waiter, response(payment)))
        else:
            self._wait(payment, event.waiter, event.reply_by_us)

    def _expire(self, event: Expire, out: Outcome) -> None:
        payment = self.book.get(event.payment_id)
        if payment is not None:
            self._end_hold(payment, out)

    def _end_hold(self, payment: Payment, out: Outcome) -> None:
        if self.holds_end and payment.state is _HELD and payment.hold_until_us <= out.now_us:
            self._transitions.apply(payment, payment.legs[0], Event.HOLD_EXPIRED, out)

    def _cancel(self, event: Cancel, out: Outcome) -> None:
        payment = self.book.get(event.payment_id)
        if payment is None:
            out.errors.append((event.waiter, HutongError(Reason.ERROR_REASON_PAYMENT_NOT_FOUND)))
            return
        if payment.state not in FINAL:
            payment.cancellers.append(event.waiter)
            self._transitions.apply(payment, payment.legs[0], Event.CANCEL, out)
        elif payment.state == State.CANCELLED:
            out.answers.append((event.waiter, response(payment)))
        else:
            payment.cancellers.append(event.waiter)
            self._transitions.apply(payment, payment.legs[0], Event.CANCEL, out)

    def _join(self, event: Join, out: Outcome) -> None:
        payment = self.book.get(event.payment_id)
        if payment is None:
            out.errors.append((event.waiter, ElsewhereError(event.payment_id, event.reply_by_us)))
        elif payment.state in RESTING:
            out.answers.append((event.waiter, response(payment)))
        else:
            self._wait(payment, event.waiter, event.reply_by_us)

    def _wait(self, payment: Payment, waiter: Waiter, reply_by_us: int) -> None:
        """Adds a caller who waits for the end of a payment in flight."""
        payment.waiters.append((waiter, reply_by_us))
        if reply_by_us < payment.due_us:
            payment.due_us = reply_by_us
            if reply_by_us < self.timers.horizon_us:
                self.timers.note(payment)

    def _look_for_due(self, out: Outcome) -> list[bytes]:
        """Handles what is due. Returns payments that were found in a resting state, as a crash left them."""
        now = out.now_us
        at_rest: list[bytes] = []
        for payment in self.timers.take(self.book, now, DUE_PER_TICK_MAX):
            if payment.state is _HELD and not open_reversals(payment):
                at_rest.append(payment.payment_id)
                continue
            self._answer_impatient(payment, out)
            leg = payment.legs[0]
            if not payment.deadline_seen and payment.deadline_us <= now and payment.state not in FINAL:
                payment.deadline_seen = True
                self._transitions.apply(payment, leg, Event.DEADLINE, out)
            if payment.due_us <= now and self._transitions.retry_due_us(payment) <= now:
                exhausted = payment.inquiries >= self.timing.inquiries_max
                # After a restart nobody was asked by this engine: that is no participant's failure.
                if payment.asked_us and payment.state in (State.DEBITING, State.CREDITING, State.CAPTURING):
                    waiting_for = payment.creditor if payment.state == State.CREDITING else payment.debtor
                    out.observations.append((waiting_for, False, self.timing.leg_timeout_us))
                self._transitions.apply(payment, leg, Event.EXHAUSTED if exhausted else Event.OVERDUE, out)
            self._transitions.plan(payment)
        return at_rest

    def _answer_impatient(self, payment: Payment, out: Outcome) -> None:
        """Answers callers whose own deadline has passed with the payment as it is."""
        if payment.waiters and any(by_us <= out.now_us for _, by_us in payment.waiters):
            body = response(payment)
            for waiter, by_us in payment.waiters:
                if by_us <= out.now_us:
                    out.answers.append((waiter, body))
            payment.waiters = [entry for entry in payment.waiters if entry[1] > out.now_us]

    # -- second half --------------------------------------------------------------------------------

    def settle(self, out: Outcome, verdicts: Sequence[Refused | None]) -> Effects:
        """After the commit: admitted payments enter the book and may be sent; the others are answered."""
        legs, answers, errors = out.legs, out.answers, out.errors
        answers.extend((waiter, b"") for waiter in out.closers)
        refused: list[tuple[Create, Refused]] = []
        horizon_us = self.timers.horizon_us
        for create, verdict in zip(out.creates, verdicts, strict=True):
            payment = create.payment
            if verdict is None:
                self.book[payment.payment_id] = payment
                if payment.due_us < horizon_us:
                    self.timers.note(payment)
                legs.append(leg_out(payment, payment.legs[0]))
            else:
                refused.append((create, verdict))
        fallen = {create.payment.payment_id: (create, verdict) for create, verdict in refused}
        for create, verdict in refused:
            if verdict.standing is not None and verdict.standing.payment_id in fallen:
                verdict = _repeat_of_refused(create, *fallen[verdict.standing.payment_id])
            self._refuse(create, verdict, out)
        if out.declines:
            errors.extend((decline.waiter, decline.error) for decline in out.declines)
        return Effects(legs, answers, errors)

    def _refuse(self, create: Create, verdict: Refused, out: Outcome) -> None:
        standing, answers, errors = verdict.standing, out.answers, out.errors
        if standing is None:
            errors.append((create.waiter, HutongError(verdict.reason, **verdict.fields)))
            return
        named = {"payment_id": id_text(standing.payment_id)}
        if standing.fingerprint != create.payment.fingerprint:
            errors.append((create.waiter, HutongError(Reason.ERROR_REASON_IDEMPOTENCY_KEY_REUSED, **named)))
            return
        # The journal looked at the repeat before it wrote what this tick changed. A final payment does not change, so
        # this is the first answer again, byte for byte; a payment whose funds are held is shown as it is.
        payment = out.writes.changed.get(standing.payment_id) or self.book.get(standing.payment_id) or standing
        if payment.state in RESTING:
            answers.append((create.waiter, response(payment)))
        elif payment.payment_id in self.book:
            self._wait(payment, create.waiter, create.reply_by_us)
        else:
            errors.append((create.waiter, ElsewhereError(standing.payment_id, create.reply_by_us)))


def capture_refusal(payment: Payment, amount_minor: int, *, operator: bool = False) -> HutongError | None:
    """Why a payment cannot be captured with this amount; None if it can, or was captured with the same amount."""
    named = {"payment_id": id_text(payment.payment_id)}
    if capture_of(payment) is not None:
        if amount_minor == payment.amount_minor:
            return None
        captured = str(payment.amount_minor)
        return HutongError(Reason.ERROR_REASON_CAPTURE_DIFFERS, captured_minor=captured, **named)
    if payment.state is not _HELD:
        return HutongError(Reason.ERROR_REASON_PAYMENT_NOT_HELD, state=payment.state.name, **named)
    if amount_minor > payment.authorised_minor:
        held = str(payment.authorised_minor)
        return HutongError(Reason.ERROR_REASON_CAPTURE_EXCEEDS_HOLD, held_minor=held, **named)
    if payment.reason == RISK_HOLD and not operator:
        return HutongError(Reason.ERROR_REASON_RISK_HELD, **named)
    return None


def _repeat_of_refused(create: Create, first: Create, verdict: Refused) -> Refused:
    """The answer to a repeat in the same tick as its first request, which was refused after all: the same refusal; or,
    for another payload (which is then no longer refused because of the key), another try."""
    if create.payment.fingerprint == first.payment.fingerprint:
        return verdict
    return Refused(Reason.ERROR_REASON_PAYMENT_IN_PROGRESS)
