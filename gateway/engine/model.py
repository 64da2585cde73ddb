"""What the engine holds in memory and what it asks of the journal: values, no behaviour."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from gateway.engine.states import Number, State
from hutong_contract.errors import HutongError, Reason
from hutong_contract.secret import Secret
from tokenization.interface import Condition

LEG_ID_BYTES: Final = 17
"""16 bytes of the payment's id and the leg's number."""
INQUIRY_NUMBER_MIN: Final = 128
"""Inquiries change nothing, are not journaled, and count from here; journaled legs stay below."""
LEGS_MAX: Final = 100
"""Legs that one payment may have; a route has at most ACQUIRERS_MAX candidates, each a credit and a reversal."""
NOT_SENT: Final = -1
"""In place of a Result: the link knows that the message never left, so it had no effect."""
ACQUIRERS_MAX: Final = 8
SUSPENSE: Final = "suspense"
"""The gateway's own account: money taken and not yet given."""
RISK_HOLD: Final = "risk_hold"
"""The reason of a payment that risk rules hold: its funds rest until the operator releases or rejects it."""


class Kind(Number):
    """What a payment is; the numbers are those of hutong.gateway.v1.PaymentKind."""

    PAYMENT = 1
    REFUND = 2


class LegKind(Number):
    """The numbers are those of hutong.participant.v1.LegKind."""

    DEBIT = 1
    CREDIT = 2
    REVERSAL = 3
    REFUND = 4
    INQUIRY = 5
    AUTHORISATION = 6
    CAPTURE = 7


class LegState(Number):
    """What is known of a leg."""

    SENT = 1
    APPROVED = 2
    DECLINED = 3
    NOT_SENT = 4
    REVERSED = 5


class Result(Number):
    """A participant's answer; the numbers are those of hutong.participant.v1.AnswerResult."""

    APPROVED = 1
    DECLINED = 2
    NOT_FOUND = 3
    REVERSED = 4


class Waiter(Protocol):
    """A caller who waits for an answer."""

    def answer(self, payload: bytes) -> None:
        """Gives the serialized response."""

    def fail(self, error: HutongError) -> None:
        """Gives a typed error."""


@dataclass(slots=True)
class Leg:
    """One message to a participant that moves or undoes money."""

    number: int
    kind: LegKind
    participant: str
    original: int = 0
    """Of a reversal: the number of the leg that it undoes; of a capture: of the authorisation."""
    state: LegState = LegState.SENT
    was_approved: bool = False
    """Whether its approval is known (it stays true when the leg is reversed), so its posting, if any, is written."""
    code: str = ""
    """The participant's response code."""
    sent_us: int = 0


@dataclass(slots=True)
class Payment:
    """A payment in flight, and the new row of one that is being admitted."""

    payment_id: bytes
    kind: Kind
    amount_minor: int
    currency: str
    debtor: str
    """The participant that money is taken from."""
    creditors: tuple[str, ...]
    """The participants that can be credited, in the order in which they are tried."""
    created_us: int
    deadline_us: int
    caller: str = ""
    idempotency: bytes = b""
    """16-byte hash of caller and idempotency key."""
    fingerprint: bytes = b""
    """16-byte keyed hash of what was asked for."""
    account: Secret[str] | None = None
    """The account-unified token to debit; only in memory, and only until the debit is sent."""
    account_ref: bytes = b""
    key_ref: bytes = b""
    last_four: str = ""
    payer_key: int = 0
    payee_key: int = 0
    merchant_id: str = ""
    terminal_id: str = ""
    reference: str = ""
    route: str = ""
    """JSON: the candidates considered, with scores and reasons. The journal keeps each text once."""
    route_id: int = 0
    """64-bit name of that text; 0 where there is none."""
    original_id: bytes | None = None
    """Of a refund: the payment that it refunds."""
    debit_original: bytes = b""
    """Of a refund: the leg id of the original credit, which the acquirer takes back."""
    credit_original: bytes = b""
    """Of a refund: the leg id of the original debit, which the issuer gives back."""
    spends: tuple[bytes, ...] = ()
    """16-byte values that may be spent once for ever."""
    order: bytes = b""
    """16 bytes that stand for the merchant's order that a dynamic code asks for; empty: none. Spent like `spends`, but
    free again once the payment that has it has ended without success, or was refunded in full."""
    spend_reason: int = 0
    """The hutong.status.v1.ErrorReason to answer with when one was spent before."""
    counters: tuple[Condition, ...] = ()
    """What must hold in its commit: the payer's key's own conditions, then those of risk rules."""
    risk: str = ""
    """JSON: what the risk rules found. The journal keeps each text once."""
    risk_id: int = 0
    """64-bit name of that text, negative where no rule fired; 0 where nobody judged."""
    authorised_minor: int = 0
    """What is to be held until somebody captures or cancels; 0: the amount is taken at once. Once captured,
    `amount_minor` is what was captured."""
    hold_until_us: int = 0
    """When a hold ends by itself."""

    state: State = State.DEBITING
    goal: State = State.FAILED
    reason: str = ""
    attempt: int = 0
    """Index of the current creditor."""
    failover: bool = True
    """Whether a further acquirer may be tried."""
    legs: list[Leg] = field(default_factory=list)
    ended_us: int = 0
    asked_us: int = 0
    """When the last message to a participant was sent; 0 after a restart, which makes everything overdue."""
    due_us: int = 0
    """When the engine must look at this payment again."""
    retries: int = 0
    """Inquiries or repeated reversals sent in this state."""
    inquiries: int = 0
    deadline_seen: bool = False
    waiters: list[tuple[Waiter, int]] = field(default_factory=list)
    """Who waits for the first final answer, and until when (microseconds)."""
    cancellers: list[Waiter] = field(default_factory=list)
    refunded_minor: int = 0
    """Sum of refunds that succeeded or are under way, as of loading."""
    row_id: bytearray = field(init=False, repr=False)
    """`payment_id` in rows: sqlite3 binds a bytearray at once, but looks for an adapter for bytes each time."""

    def __post_init__(self) -> None:
        self.row_id = bytearray(self.payment_id)

    @property
    def single_use(self) -> tuple[bytes, ...]:
        """All values that this payment spends."""
        return (*self.spends, self.order) if self.order else self.spends

    @property
    def creditor(self) -> str:
        """The participant being credited."""
        return self.creditors[self.attempt]


_PAYMENT: Final = Kind.PAYMENT
_DEBIT: Final = LegKind.DEBIT


def first_leg(payment: Payment, sent_us: int) -> Leg:
    """What begins every payment: the leg that takes the money, or sets it aside."""
    kind = _DEBIT if payment.kind is _PAYMENT else LegKind.REFUND
    if payment.authorised_minor:
        kind = LegKind.AUTHORISATION
    return Leg(1, kind, payment.debtor, sent_us=sent_us)


class Refusal(NamedTuple):
    """A payment that risk rules did not let in, to be kept."""

    payment: Payment
    reason: int
    """The hutong.status.v1.ErrorReason that its caller gets."""
    limit: str = ""
    """The limit that had no room, where it was one."""


class Movement(NamedTuple):
    """Money moved: two postings that sum to zero, this one and its counterpart on the suspense account."""

    payment_id: bytes | bytearray
    number: int
    """Of the leg that moved it."""
    account: str
    """The participant whose account with the gateway it is."""
    currency: str
    amount_minor: int
    """Signed: below zero is owed to the gateway."""
    posted_us: int

    def postings(self) -> tuple[Movement, Movement]:
        """Both sides."""
        return self, self._replace(account=SUSPENSE, amount_minor=-self.amount_minor)


@dataclass(slots=True)
class Writes:
    """One tick's writes, one durable transaction."""

    admissions: list[Payment] = field(default_factory=list)
    legs: dict[tuple[bytes, int], Leg] = field(default_factory=dict)
    """(payment id, number) to a leg that is new or changed. An admission's first leg is not among them: the payment's
    own row says that it is sent, until its answer is written."""
    changed: dict[bytes, Payment] = field(default_factory=dict)
    """Payments whose state changed."""
    captured: dict[bytes, Payment] = field(default_factory=dict)
    """Payments whose amount, deadline or counters a capture changed."""
    movements: list[Movement] = field(default_factory=list)
    events: list[tuple[bytes | bytearray, int, int]] = field(default_factory=list)
    """(payment id, state, microseconds)."""
    releases: list[tuple[int, bytes]] = field(default_factory=list)
    """(amount, counter) to give back."""
    refund_releases: list[tuple[int, bytes]] = field(default_factory=list)
    """(amount in minor units, original payment id) of refunds that did not succeed."""
    closings: list[tuple[int, int]] = field(default_factory=list)
    """(settlement window to close, microseconds); a window that is not the next one is left as it is."""
    refusals: list[Refusal] = field(default_factory=list)
    """Payments that risk rules refused before the commit; the journal adds those that its own verdicts refuse."""

    def __bool__(self) -> bool:
        return bool(
            self.admissions
            or self.legs
            or self.changed
            or self.movements
            or self.events
            or self.closings
            or self.refusals
        )


@dataclass(frozen=True, slots=True)
class Refused:
    """The journal's verdict on an admission that it did not take."""

    reason: int
    """The hutong.status.v1.ErrorReason; 0 for a repeated idempotency key."""
    standing: Payment | None = None
    """Of a repeated key: the payment that has it, as the journal has it."""
    fields: dict[str, str] = field(default_factory=dict)
    limit: str = ""
    """The risk rules' limit that had no room, where it was one."""


class LegOut(NamedTuple):
    """A message for a participant."""

    participant: str
    leg_id: bytes
    kind: LegKind
    original_leg_id: bytes
    amount_minor: int
    currency: str
    account: str
    terminal_id: str


class ElsewhereError(HutongError):
    """Another engine on this journal carries the payment out; the caller may wait for it until `reply_by_us`."""

    def __init__(self, payment_id: bytes, reply_by_us: int) -> None:
        self.payment_id = payment_id
        self.reply_by_us = reply_by_us
        super().__init__(Reason.ERROR_REASON_PAYMENT_IN_PROGRESS, payment_id=str(uuid.UUID(bytes=payment_id)))


class Create(NamedTuple):
    """Event: admit this payment."""

    payment: Payment
    waiter: Waiter
    reply_by_us: int


class Decline(NamedTuple):
    """Event: risk rules refuse this payment; its caller hears of it once that is on disk."""

    payment: Payment
    waiter: Waiter
    error: HutongError


class Cancel(NamedTuple):
    """Event: a caller wants a payment undone."""

    payment_id: bytes
    waiter: Waiter


class Join(NamedTuple):
    """Event: a repeat of a request whose payment is still in flight; this caller waits for it too."""

    payment_id: bytes
    waiter: Waiter
    reply_by_us: int


class Answered(NamedTuple):
    """Event: a participant answered a leg or an inquiry. `result` is a Result or NOT_SENT; anything else is
    a participant's mistake."""

    participant: str
    leg_id: bytes
    result: int
    code: str


class Close(NamedTuple):
    """Event: a settlement window is to be closed. Its waiter is answered, with nothing, once the journal has decided;
    what became of the window is read from the journal."""

    number: int
    waiter: Waiter


class Capture(NamedTuple):
    """Event: a caller wants what a payment holds; 0 means all of it."""

    payment_id: bytes
    amount_minor: int
    waiter: Waiter
    reply_by_us: int
    operator: bool = False
    """Whether the operator asks, who alone releases what risk rules hold."""


class Expire(NamedTuple):
    """Event: the journal says that the hold of a payment has ended, or may have been left in this engine's care."""

    payment_id: bytes


EngineEvent = Create | Decline | Cancel | Join | Answered | Close | Capture | Expire
