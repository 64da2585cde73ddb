"""The values that the engine holds in memory and passes to the journal. No behaviour."""

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
"""Inquiries change nothing, are not stored in the journal, and are numbered from here; stored legs stay below."""
LEGS_MAX: Final = 100
"""Legs that one payment may have; a route has at most ACQUIRERS_MAX candidates, each a credit and a reversal."""
NOT_SENT: Final = -1
"""In place of a Result: the link knows that the message was never sent, so it had no effect."""
ACQUIRERS_MAX: Final = 8
SUSPENSE: Final = "suspense"
"""The gateway's own account: money that was taken and not yet given."""
RISK_HOLD: Final = "risk_hold"
"""The reason of a payment that risk rules hold: it rests until the operator releases or rejects it."""


class Kind(Number):
    """The kind of a payment; the numbers are those of hutong.gateway.v1.PaymentKind."""

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
    """The state of a leg, as far as it is known."""

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
        """Sends the serialized response."""

    def fail(self, error: HutongError) -> None:
        """Sends a typed error."""


@dataclass(slots=True)
class Leg:
    """One message to a participant that moves or undoes money."""

    number: int
    kind: LegKind
    participant: str
    original: int = 0
    """Of a reversal: the number of the leg that it reverses; of a capture: of the authorisation."""
    state: LegState = LegState.SENT
    was_approved: bool = False
    """Whether its approval is known (also after the leg was reversed), so its posting, if any, is written."""
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
    """The participant that is debited."""
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
    """JSON: the acquirers considered, with scores and reasons. The journal stores each text once."""
    route_id: int = 0
    """64-bit id of that text; 0 if there is none."""
    original_id: bytes | None = None
    """Of a refund: the payment that it refunds."""
    debit_original: bytes = b""
    """Of a refund: the leg id of the original credit, which the acquirer gives back."""
    credit_original: bytes = b""
    """Of a refund: the leg id of the original debit, which the issuer gets back."""
    spends: tuple[bytes, ...] = ()
    """16-byte values that may be spent only once."""
    order: bytes = b""
    """16 bytes that stand for the merchant's order that a dynamic code asks for; empty: none. Spent like `spends`, but
    free again once the payment that has it has ended without success, or was refunded in full."""
    spend_reason: int = 0
    """The hutong.status.v1.ErrorReason to answer with if one of them was spent before."""
    counters: tuple[Condition, ...] = ()
    """Conditions of the commit: those of the payer's key, then those of risk rules."""
    risk: str = ""
    """JSON: the result of the risk rules. The journal stores each text once."""
    risk_id: int = 0
    """64-bit id of that text, negative if no rule fired; 0 if the payment was not judged."""
    authorised_minor: int = 0
    """Amount to hold until it is captured or cancelled; 0: no hold. After the capture `amount_minor` is the captured
    amount."""
    hold_until_us: int = 0
    """When the hold expires, in microseconds."""

    state: State = State.DEBITING
    goal: State = State.FAILED
    reason: str = ""
    attempt: int = 0
    """Index of the current creditor."""
    failover: bool = True
    """Whether another acquirer may be tried."""
    legs: list[Leg] = field(default_factory=list)
    ended_us: int = 0
    asked_us: int = 0
    """When the last message to a participant was sent; 0 after a restart, which makes everything overdue."""
    due_us: int = 0
    """When the engine must look at this payment again."""
    retries: int = 0
    """Number of inquiries or repeated reversals sent in this state."""
    inquiries: int = 0
    deadline_seen: bool = False
    waiters: list[tuple[Waiter, int]] = field(default_factory=list)
    """Callers who wait for the first final answer, and until when (microseconds)."""
    cancellers: list[Waiter] = field(default_factory=list)
    refunded_minor: int = 0
    """Sum of refunds that succeeded or are in flight, at the time of loading."""
    row_id: bytearray = field(init=False, repr=False)
    """`payment_id` for rows: sqlite3 binds a bytearray faster than bytes, for which it looks for an adapter each
    time."""

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
    """The first leg of a payment: the debit, or the authorisation of a hold."""
    kind = _DEBIT if payment.kind is _PAYMENT else LegKind.REFUND
    if payment.authorised_minor:
        kind = LegKind.AUTHORISATION
    return Leg(1, kind, payment.debtor, sent_us=sent_us)


class Refusal(NamedTuple):
    """A payment that risk rules declined, to be stored."""

    payment: Payment
    reason: int
    """The hutong.status.v1.ErrorReason of the answer."""
    limit: str = ""
    """The limit that the payment exceeded, if that was the reason."""


class Movement(NamedTuple):
    """A movement of money: two postings that sum to zero, this one and its counterpart on the suspense account."""

    payment_id: bytes | bytearray
    number: int
    """Number of the leg that moved it."""
    account: str
    """The participant whose account with the gateway is posted to."""
    currency: str
    amount_minor: int
    """Signed: negative is owed to the gateway."""
    posted_us: int

    def postings(self) -> tuple[Movement, Movement]:
        """Both postings."""
        return self, self._replace(account=SUSPENSE, amount_minor=-self.amount_minor)


@dataclass(slots=True)
class Writes:
    """One tick's writes, one durable transaction."""

    admissions: list[Payment] = field(default_factory=list)
    legs: dict[tuple[bytes, int], Leg] = field(default_factory=dict)
    """(payment id, number) -> a new or changed leg. The first leg of an admission is not among them: the payment's own
    row says that it was sent, until its answer is written."""
    changed: dict[bytes, Payment] = field(default_factory=dict)
    """Payments whose state changed."""
    captured: dict[bytes, Payment] = field(default_factory=dict)
    """Payments whose amount, deadline or counters a capture changed."""
    movements: list[Movement] = field(default_factory=list)
    events: list[tuple[bytes | bytearray, int, int]] = field(default_factory=list)
    """(payment id, state, microseconds)."""
    releases: list[tuple[int, bytes]] = field(default_factory=list)
    """(amount, counter) to give back to counters."""
    refund_releases: list[tuple[int, bytes]] = field(default_factory=list)
    """(amount in minor units, original payment id) of refunds that did not succeed."""
    closings: list[tuple[int, int]] = field(default_factory=list)
    """(settlement window to close, microseconds); a window that is not the next one is ignored."""
    refusals: list[Refusal] = field(default_factory=list)
    """Payments that risk rules declined before the commit; the journal adds those that its own verdicts refuse."""

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
    """The journal's verdict on a payment that it did not admit."""

    reason: int
    """The hutong.status.v1.ErrorReason; 0 for a repeated idempotency key."""
    standing: Payment | None = None
    """Of a repeated key: the existing payment, as the journal has it."""
    fields: dict[str, str] = field(default_factory=dict)
    limit: str = ""
    """The limit of risk rules that the payment exceeded, if that was the reason."""


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
    """Another engine on this journal has the payment; the caller may wait for it until `reply_by_us`."""

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
    """Event: risk rules declined this payment; its caller is answered once that is on disk."""

    payment: Payment
    waiter: Waiter
    error: HutongError


class Cancel(NamedTuple):
    """Event: a caller cancels a payment."""

    payment_id: bytes
    waiter: Waiter


class Join(NamedTuple):
    """Event: a repeat of a request whose payment is still in flight; this caller waits for it too."""

    payment_id: bytes
    waiter: Waiter
    reply_by_us: int


class Answered(NamedTuple):
    """Event: a participant answered a leg or an inquiry. `result` is a Result or NOT_SENT; any other value is a
    participant's mistake."""

    participant: str
    leg_id: bytes
    result: int
    code: str


class Close(NamedTuple):
    """Event: close a settlement window. Its waiter is answered, with an empty answer, once the journal has decided; the
    outcome is read from the journal."""

    number: int
    waiter: Waiter


class Capture(NamedTuple):
    """Event: a caller captures what a payment holds; 0 means all of it."""

    payment_id: bytes
    amount_minor: int
    waiter: Waiter
    reply_by_us: int
    operator: bool = False
    """Whether the caller is the operator, who alone releases what risk rules hold."""


class Expire(NamedTuple):
    """Event: the hold of a payment has ended, according to the journal, or may have been left to this engine."""

    payment_id: bytes


EngineEvent = Create | Decline | Cancel | Join | Answered | Close | Capture | Expire
