"""The payment state machine, as one table: state x event -> next state and actions.

"Debit" is the end that money is taken from, "credit" the end that it is given to. A payment debits the
payer's issuer and credits the merchant's acquirer; a refund debits the acquirer and credits the issuer.
Both run through this one table. A payment that asks for a hold (pre-authorisation) has its debit in two: the funds are
set aside, which leads to HELD, and a capture takes them or a part of them. Undoing the first undoes both.

Three rules make the table safe, whatever the network does:
- Only a definite answer ends a leg. Silence leads to an UNKNOWN state, and UNKNOWN is asked about (inquiry).
- A leg of unknown fate is never abandoned: its reversal is repeated until answered, which also bars the
  original from taking effect later, and only then is another acquirer tried or the debit undone.
- Final states never change. An approval that comes after all for a leg that is no longer wanted is undone by
  a reversal of its own (UNDO).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


class Number(enum.IntEnum):
    """An enumeration whose members hash as fast as their numbers: enum's own hash is a Python call."""

    __hash__ = int.__hash__


class State(Number):
    """The state of a payment; the numbers are those of hutong.gateway.v1.PaymentState."""

    DEBITING = 1
    DEBIT_UNKNOWN = 2
    CREDITING = 3
    CREDIT_UNKNOWN = 4
    CREDIT_REVERSING = 5
    REVERSING = 6
    SUCCEEDED = 7
    DECLINED = 8
    FAILED = 9
    CANCELLED = 10
    EXPIRED = 11
    HELD = 12
    CAPTURING = 13
    CAPTURE_UNKNOWN = 14


FINAL: Final = frozenset({State.SUCCEEDED, State.DECLINED, State.FAILED, State.CANCELLED, State.EXPIRED})
RESTING: Final = FINAL | {State.HELD}
"""States in which nothing happens until a request arrives or a hold ends: callers are answered, and the payment is not
kept in memory."""


class Event(Number):
    """The events of a payment."""

    DEBIT_APPROVED = 0
    """The debit, or the capture, was done: its own answer, or an inquiry's."""
    DEBIT_REFUSED = 1
    """The debit, the hold or the capture was not done and never will be: declined, barred, or it could not be sent."""
    DEBIT_NOT_FOUND = 2
    """An inquiry found no debit, hold or capture. It may still be on its way."""
    DEBIT_REVERSED = 3
    """The reversal of the debit, or of the hold, was answered: undone, or barred."""
    CREDIT_APPROVED = 4
    """The current credit was done."""
    CREDIT_REFUSED = 5
    """The current credit was not done and never will be, and another acquirer may be tried."""
    CREDIT_REFUSED_LAST = 6
    """The same, but no other acquirer is left, or the payment was cancelled or is past its deadline."""
    CREDIT_NOT_FOUND = 7
    """An inquiry found no credit. It may still be on its way."""
    CREDIT_REVERSED = 8
    """The reversal of the current credit was answered, and another acquirer may be tried."""
    CREDIT_REVERSED_LAST = 9
    """The same, but no other acquirer may be tried."""
    OVERDUE = 10
    """The message under way was not answered in time."""
    EXHAUSTED = 11
    """As many inquiries as allowed were not answered."""
    CANCEL = 12
    """The caller wants the payment undone."""
    DEADLINE = 13
    """The payment's deadline passed."""
    LATE_APPROVAL = 14
    """An approval came for a leg that was given up: refused or reversed before, or never sent by this state."""
    HOLD_APPROVED = 15
    """The funds were set aside."""
    CAPTURE = 16
    """The caller wants what is held, or a part of it."""
    HOLD_EXPIRED = 17
    """The time of the hold is over."""


class Action(Number):
    """The actions of a transition, which the engine carries out in the order listed."""

    SEND_CREDIT = 0
    """Send the credit to the current acquirer."""
    NEXT_ACQUIRER = 1
    """Move on to the next acquirer of the route."""
    INQUIRE_DEBIT = 2
    """Ask what became of the debit, the hold or the capture."""
    INQUIRE_CREDIT = 3
    """Ask what became of the current credit."""
    REVERSE_DEBIT = 4
    """Send the reversal of the debit, or of the hold, which undoes its capture too."""
    REVERSE_CREDIT = 5
    """Send the reversal of the current credit."""
    RESEND = 6
    """Send every unanswered reversal again."""
    UNDO = 7
    """Send a reversal of the leg whose approval came late."""
    END = 8
    """Record the end, answer the waiting callers, give back limits unless the payment succeeded."""
    REFUSE_CANCEL = 9
    """Tell the caller that it is too late to cancel."""
    NO_FAILOVER = 10
    """Try no further acquirer: if the current credit is not done, undo the debit."""
    REST = 11
    """Answer the waiting callers: the funds are held."""
    SEND_CAPTURE = 12
    """Send the capture of what was asked for."""
    FREE_THE_REST = 13
    """Give back what limits still count beyond what was captured."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One cell of the table."""

    to: State | None
    """The next state; None: the goal that was set when the reversal of the payment began."""
    actions: tuple[Action, ...] = ()
    goal: State | None = None
    """The final state to reach once the debit is reversed."""
    why: str = ""
    """Why nothing happens, if nothing does."""


S, E, A = State, Event, Action

_CREDITS: Final = (
    E.CREDIT_APPROVED,
    E.CREDIT_REFUSED,
    E.CREDIT_REFUSED_LAST,
    E.CREDIT_NOT_FOUND,
    E.CREDIT_REVERSED,
    E.CREDIT_REVERSED_LAST,
)
_CREDIT_ANSWERS_TO_REVERSAL: Final = (E.CREDIT_REVERSED, E.CREDIT_REVERSED_LAST)
_DEBITS: Final = (E.DEBIT_APPROVED, E.DEBIT_REFUSED, E.DEBIT_NOT_FOUND, E.DEBIT_REVERSED)


def _ignore(state: State, why: str, *events: Event) -> dict[Event, Rule]:
    return {event: Rule(state, why=why) for event in events}


_HOLDS: Final = (E.HOLD_APPROVED, E.CAPTURE, E.HOLD_EXPIRED)


def _debit_open(state: State, waiting: dict[Event, Rule]) -> dict[Event, Rule]:
    """DEBITING and DEBIT_UNKNOWN: the debit, or the hold, is under way."""
    return {
        E.DEBIT_APPROVED: Rule(S.CREDITING, (A.SEND_CREDIT,)),
        E.HOLD_APPROVED: Rule(S.HELD, (A.REST,)),
        E.DEBIT_REFUSED: Rule(S.DECLINED, (A.END,)),
        **_undoable(state),
        **_ignore(state, "nothing is held yet", E.CAPTURE, E.HOLD_EXPIRED),
        **waiting,
    }


def _capture_open(state: State, waiting: dict[Event, Rule]) -> dict[Event, Rule]:
    """CAPTURING and CAPTURE_UNKNOWN: the funds are held, the capture is under way."""
    return {
        E.DEBIT_APPROVED: Rule(S.CREDITING, (A.FREE_THE_REST, A.SEND_CREDIT)),
        E.DEBIT_REFUSED: Rule(S.REVERSING, (A.REVERSE_DEBIT,), goal=S.FAILED),
        **_undoable(state),
        **_ignore(state, "a capture is done once, and before the hold ends", *_HOLDS),
        **waiting,
    }


def _undoable(state: State) -> dict[Event, Rule]:
    """While nothing was credited yet: a payment that is cancelled, or whose deadline has passed, is reversed."""
    return {
        E.CANCEL: Rule(S.REVERSING, (A.REVERSE_DEBIT,), goal=S.CANCELLED),
        E.DEADLINE: Rule(S.REVERSING, (A.REVERSE_DEBIT,), goal=S.EXPIRED),
        E.LATE_APPROVAL: Rule(state, (A.UNDO,)),
        **_ignore(state, "no reversal of the debit was sent", E.DEBIT_REVERSED),
        **_ignore(state, "no credit was sent", *_CREDITS),
    }


def _asked(state: State, unknown: State) -> dict[Event, Rule]:
    """The debit, hold or capture was sent: silence leads to UNKNOWN."""
    return {
        E.OVERDUE: Rule(unknown, (A.INQUIRE_DEBIT,)),
        E.EXHAUSTED: Rule(unknown, (A.INQUIRE_DEBIT,)),
        **_ignore(state, "nobody asked yet", E.DEBIT_NOT_FOUND),
    }


def _unknown(state: State) -> dict[Event, Rule]:
    """The debit, hold or capture is inquired about: if it is not found, or there is no answer, it is reversed."""
    return {
        E.OVERDUE: Rule(state, (A.INQUIRE_DEBIT,)),
        E.EXHAUSTED: Rule(S.REVERSING, (A.REVERSE_DEBIT,), goal=S.FAILED),
        E.DEBIT_NOT_FOUND: Rule(S.REVERSING, (A.REVERSE_DEBIT,), goal=S.FAILED),
    }


def _credit_open(state: State, waiting: dict[Event, Rule]) -> dict[Event, Rule]:
    """CREDITING and CREDIT_UNKNOWN: the payer was debited, the credit is under way."""
    return {
        E.CREDIT_APPROVED: Rule(S.SUCCEEDED, (A.END,)),
        E.CREDIT_REFUSED: Rule(S.CREDITING, (A.NEXT_ACQUIRER, A.SEND_CREDIT)),
        E.CREDIT_REFUSED_LAST: Rule(S.REVERSING, (A.REVERSE_DEBIT,), goal=S.FAILED),
        E.CANCEL: Rule(state, (A.NO_FAILOVER,)),
        E.DEADLINE: Rule(state, (A.NO_FAILOVER,)),
        E.LATE_APPROVAL: Rule(state, (A.UNDO,)),
        **_ignore(state, "no reversal of this credit was sent", *_CREDIT_ANSWERS_TO_REVERSAL),
        **_ignore(state, "the debit was settled before", *_DEBITS, *_HOLDS),
        **waiting,
    }


def _final(state: State) -> dict[Event, Rule]:
    return {
        E.CANCEL: Rule(state, (A.REFUSE_CANCEL,)),
        E.LATE_APPROVAL: Rule(state, (A.UNDO,)),
        E.OVERDUE: Rule(state, (A.RESEND,)),
        E.EXHAUSTED: Rule(state, (A.RESEND,)),
        **_ignore(state, "the payment has ended", E.DEADLINE, *_DEBITS, *_CREDITS, *_HOLDS),
    }


TABLE: Final[dict[State, dict[Event, Rule]]] = {
    S.DEBITING: _debit_open(S.DEBITING, _asked(S.DEBITING, S.DEBIT_UNKNOWN)),
    S.DEBIT_UNKNOWN: _debit_open(S.DEBIT_UNKNOWN, _unknown(S.DEBIT_UNKNOWN)),
    S.HELD: {
        E.CAPTURE: Rule(S.CAPTURING, (A.SEND_CAPTURE,)),
        E.CANCEL: Rule(S.REVERSING, (A.REVERSE_DEBIT,), goal=S.CANCELLED),
        E.HOLD_EXPIRED: Rule(S.REVERSING, (A.REVERSE_DEBIT,), goal=S.EXPIRED),
        **_ignore(S.HELD, "nothing is under way", E.OVERDUE, E.EXHAUSTED, E.LATE_APPROVAL),
        **_ignore(S.HELD, "the funds were held in time", E.DEADLINE),
        **_ignore(S.HELD, "the hold was settled before", E.HOLD_APPROVED, *_DEBITS),
        **_ignore(S.HELD, "no credit was sent", *_CREDITS),
    },
    S.CAPTURING: _capture_open(S.CAPTURING, _asked(S.CAPTURING, S.CAPTURE_UNKNOWN)),
    S.CAPTURE_UNKNOWN: _capture_open(S.CAPTURE_UNKNOWN, _unknown(S.CAPTURE_UNKNOWN)),
    S.CREDITING: _credit_open(
        S.CREDITING,
        {
            E.OVERDUE: Rule(S.CREDIT_UNKNOWN, (A.INQUIRE_CREDIT,)),
            E.EXHAUSTED: Rule(S.CREDIT_UNKNOWN, (A.INQUIRE_CREDIT,)),
            **_ignore(S.CREDITING, "nobody asked yet", E.CREDIT_NOT_FOUND),
        },
    ),
    S.CREDIT_UNKNOWN: _credit_open(
        S.CREDIT_UNKNOWN,
        {
            E.OVERDUE: Rule(S.CREDIT_UNKNOWN, (A.INQUIRE_CREDIT,)),
            E.EXHAUSTED: Rule(S.CREDIT_REVERSING, (A.REVERSE_CREDIT,)),
            E.CREDIT_NOT_FOUND: Rule(S.CREDIT_REVERSING, (A.REVERSE_CREDIT,)),
        },
    ),
    S.CREDIT_REVERSING: {
        E.CREDIT_REVERSED: Rule(S.CREDITING, (A.NEXT_ACQUIRER, A.SEND_CREDIT)),
        E.CREDIT_REVERSED_LAST: Rule(S.REVERSING, (A.REVERSE_DEBIT,), goal=S.FAILED),
        E.OVERDUE: Rule(S.CREDIT_REVERSING, (A.RESEND,)),
        E.EXHAUSTED: Rule(S.CREDIT_REVERSING, (A.RESEND,)),
        E.CANCEL: Rule(S.CREDIT_REVERSING, (A.NO_FAILOVER,)),
        E.DEADLINE: Rule(S.CREDIT_REVERSING, (A.NO_FAILOVER,)),
        E.LATE_APPROVAL: Rule(S.CREDIT_REVERSING, (A.UNDO,)),
        **_ignore(
            S.CREDIT_REVERSING,
            "the reversal under way settles it",
            E.CREDIT_APPROVED,
            E.CREDIT_REFUSED,
            E.CREDIT_REFUSED_LAST,
            E.CREDIT_NOT_FOUND,
        ),
        **_ignore(S.CREDIT_REVERSING, "the debit was settled before", *_DEBITS, *_HOLDS),
    },
    S.REVERSING: {
        E.DEBIT_REVERSED: Rule(None, (A.END,)),
        E.OVERDUE: Rule(S.REVERSING, (A.RESEND,)),
        E.EXHAUSTED: Rule(S.REVERSING, (A.RESEND,)),
        E.LATE_APPROVAL: Rule(S.REVERSING, (A.UNDO,)),
        **_ignore(
            S.REVERSING,
            "the reversal under way settles it",
            E.DEBIT_APPROVED,
            E.DEBIT_REFUSED,
            E.DEBIT_NOT_FOUND,
            E.CANCEL,
            E.DEADLINE,
            *_HOLDS,
        ),
        **_ignore(S.REVERSING, "no credit is open", *_CREDITS),
    },
    **{state: _final(state) for state in sorted(FINAL)},
}
"""The reaction of every state to every event; a test checks that none is missing."""
