"""One run as values: callers' operations, faults, and the fate of each message. `draw` makes one from a seed.

Everything that disturbs a run is an entry of its own (an item, or the fate of one message), so that entries can be
removed one by one and the others still mean the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.engine.model import LegKind
from gateway.engine.transitions import Timing
from gateway.links.windows import FRAME_LEGS_MAX, WINDOW

SECOND: Final = 1_000_000
HOUR: Final = 3600 * SECOND
DAY: Final = 24 * HOUR
ISSUERS: Final = ("issuer-a", "issuer-b")
ACQUIRERS: Final = ("acquirer-a", "acquirer-b", "acquirer-c")
PARTICIPANTS: Final = ISSUERS + ACQUIRERS
OTHER_PAYLOAD_MINOR: Final = 50_000
"""Added to the amount if a key is sent again with another payload."""


# -- what callers do -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pay:
    """A payment. Its amount is unique in the run, so that its effects can be recognised without the gateway."""

    at_us: int
    op: int
    amount_minor: int
    issuer: str
    merchant: str
    code: int | None
    """A one-time code, possibly shared with other payments."""
    counter: int | None
    """The limit that counts the amount, possibly shared too."""
    patience_us: int
    """Time until the caller's own deadline."""
    deadline_us: int
    """The payment's deadline after its creation; 0 for the default."""
    hold_us: int = 0
    """Lifetime of the hold, in microseconds; 0: no hold, the amount is taken at once."""
    order: int | None = None
    """Order that the merchant's dynamic code names; several payments name the same. None: the key is the merchant."""


@dataclass(frozen=True, slots=True)
class Refund:
    """A refund of the payment of another operation; 0 means all that is left."""

    at_us: int
    op: int
    of: int
    amount_minor: int
    patience_us: int


@dataclass(frozen=True, slots=True)
class Again:
    """Sends the same key again, with the same payload or another."""

    at_us: int
    op: int
    other: bool


@dataclass(frozen=True, slots=True)
class Capture:
    """Captures the payment of an operation; 0 means all."""

    at_us: int
    of: int
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancels the payment of an operation."""

    at_us: int
    of: int


@dataclass(frozen=True, slots=True)
class Read:
    """Status queries, all at once."""

    at_us: int
    of: int
    times: int = 1


@dataclass(frozen=True, slots=True)
class Watch:
    """A watcher that stays: of the payment of an operation, if it is known by then, or, with None, of all."""

    at_us: int
    of: int | None
    merchant: str = ""
    """Only payments to this merchant; empty: to any."""


@dataclass(frozen=True, slots=True)
class CloseWindow:
    """An operator closes a settlement window at one of the engines."""

    at_us: int
    node: int
    ahead: int
    """Which window: 1 is the next, less is one that is closed already, more one whose turn has not come."""


# -- what breaks ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Crash:
    """Ends the engine's process after so many further steps (statements, messages, answers)."""

    at_us: int
    node: int
    steps: int
    power: bool
    """Whether the machine loses power, and with it all that was not synced."""
    down_us: int
    clock_us: int
    """Change of the wall clock at the restart; may be negative."""
    armed_by: str = ""
    """What the steps are counted from: the next message of this kind that leaves (`reversal`, `credit`, `capture`,
    `inquiry`; `undoing`: a reversal of what a participant did although it had said that it would not), the next `lie`
    or `closing`, or, empty, `at_us` itself."""
    latest_us: int = SECOND
    """After this time an engine that takes fewer steps crashes anyway, mostly while an answer is on its way to it."""
    renamed: bool = False
    """Whether it starts again as another process with another folder: on a shared journal, under another number."""


@dataclass(frozen=True, slots=True)
class Pause:
    """An engine's process, or one of its threads, stands still inside a step, and then goes on."""

    at_us: int
    node: int
    steps: int
    """After so many further steps."""
    lasts_us: int
    whole: bool
    """Whether the whole process stands still, in a tick; otherwise one thread, and the other goes on."""


@dataclass(frozen=True, slots=True)
class TornCommit:
    """Power fails in the next commit, of which this share has reached the disk."""

    at_us: int
    part: float
    down_us: int


@dataclass(frozen=True, slots=True)
class DiskFault:
    """The journal's disk refuses writes for a while."""

    at_us: int
    lasts_us: int
    mode: str
    """One of DISK_MODES."""
    statement: int
    """Which statement of a transaction fails, if the mode leaves it open."""


@dataclass(frozen=True, slots=True)
class Down:
    """A participant's process ends, loses what it had not synced, and comes back."""

    at_us: int
    participant: str
    lasts_us: int
    noticed_us: int
    """Time after which the link knows, and says NOT_SENT."""


@dataclass(frozen=True, slots=True)
class Slow:
    """A participant syncs, and so answers, only this long after the work."""

    at_us: int
    participant: str
    lasts_us: int
    sync_us: int


@dataclass(frozen=True, slots=True)
class StreamBreak:
    """A participant's stream to one engine ends, and is opened again; messages on their way go on."""

    at_us: int
    node: int
    participant: str
    lasts_us: int


@dataclass(frozen=True, slots=True)
class StreamStall:
    """Nothing is sent on a participant's stream for a while."""

    at_us: int
    node: int
    participant: str
    lasts_us: int


@dataclass(frozen=True, slots=True)
class SecondStream:
    """A participant opens another stream to an engine while the first one is open."""

    at_us: int
    node: int
    participant: str
    armed: bool = False
    """Whether it opens as soon as the first stream has carried a question or a reversal."""


@dataclass(frozen=True, slots=True)
class ClockJump:
    """Sets the clocks of the engines' machines forward or back while they run."""

    at_us: int
    by_us: int


@dataclass(frozen=True, slots=True)
class ServerClockJump:
    """Sets the clock of the journal's server, by which leases run out."""

    at_us: int
    by_us: int


@dataclass(frozen=True, slots=True)
class WentBack:
    """The journal's server is set back, after a while, to what it has committed now: a restored backup, or a lagging
    standby that became the primary."""

    at_us: int
    lasts_us: int


Item = (
    CloseWindow
    | Pay
    | Refund
    | Again
    | Capture
    | Watch
    | Cancel
    | Read
    | Crash
    | Pause
    | TornCommit
    | DiskFault
    | Down
    | Slow
    | StreamBreak
    | StreamStall
    | SecondStream
    | ClockJump
    | ServerClockJump
    | WentBack
)

DISK_MODES: Final = (
    "full",
    "eio",
    "unreadable",
    "commit_lost",
    "commit_taken",
    "commit_lost_blind",
    "commit_taken_blind",
)
"""Disk full; I/O error at a statement; reads fail too; the commit fails and is not in the file, or is; and both with a
file that cannot be opened until the fault ends."""
SERVER_MODES: Final = (*DISK_MODES, "conflict", "conflict", "killed", "killed")
"""The same on a database server, as errors that it raises or as connections that break in a commit; and: transactions
fail some times as in a conflict with another; the server ends a connection."""
LINE_MODES: Final = ("cut", "cut_dead", "frozen")
"""The same of connections to it: one is cut during a transaction; one is cut with the machine at its end; the server
stands still. See verification.simulation.lines."""


# -- what becomes of messages --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fate:
    """The fate of one message to a participant, and of its answer."""

    kind: str
    requests: tuple[int, ...]
    """Delays of the copies that arrive, in microseconds; none: lost."""
    answers: tuple[int, ...]
    """Delays of the copies of the answer."""
    late_us: int = 0
    """For lies: when the participant does what it said it would not do."""


_MONEY: Final = frozenset({LegKind.DEBIT, LegKind.CREDIT, LegKind.REFUND, LegKind.AUTHORISATION, LegKind.CAPTURE})
_NETWORK: Final = (
    ("request_dropped", 18),
    ("answer_dropped", 18),
    ("request_late", 10),
    ("answer_late", 10),
    ("request_hours_late", 4),
    ("answer_hours_late", 5),
    ("request_twice", 8),
    ("answer_twice", 8),
)
_AT_PARTICIPANT: Final = (
    ("declined", 14),
    ("lie_garbage", 3),
    ("lie_stranger", 3),
    ("lie_change_of_mind", 6),
    ("lie_no_tombstone", 5),
    ("lie_unasked", 3),
)
_OF_CAPTURES: Final = (("declined_late", 8),)
_OF_REVERSALS: Final = (("lie_refused_reversal", 6),)
FATES: Final = {
    kind: _NETWORK
    + (_AT_PARTICIPANT if kind in _MONEY else _OF_REVERSALS if kind is LegKind.REVERSAL else ())
    + (_OF_CAPTURES if kind is LegKind.CAPTURE else ())
    for kind in LegKind
}
"""The possible fates of a message of each kind, with weights."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    seed: int
    nodes: int
    """Engines on the one journal."""
    timing: Timing
    in_flight_max: int
    caps: tuple[int, ...]
    """Caps of the counters, minor units."""
    weather: Mapping[str, float]
    """Participant -> share of its messages that something happens to."""
    heal_us: int
    """From this time on there are no faults."""
    items: tuple[Item, ...]
    window: int = WINDOW
    """Places in the window of each participant."""
    frame_legs_max: int = FRAME_LEGS_MAX
    """Legs in one frame."""
    connect_us: int = 0
    """Time until participants have connected to an engine that starts."""
    strays: float = 0.0
    """Share of participants' answers that arrive at another engine than the one that asked."""
    fates: Mapping[str, Fate] | None = field(default=None)
    """Fates of certain messages, and the others have none; None: drawn from the seed."""

    def strays_to(self, message: str, engines: int) -> int:
        """How far from the engine that asked an answer arrives; 0: at that engine."""
        dice = _Dice(self.seed, f"stray {message}")
        return dice.between(1, engines - 1) if engines > 1 and dice.unit() < self.strays else 0

    def fate(self, message: str, kind: LegKind, participant: str, now_us: int) -> Fate:
        """The fate of a message, which is named by its operation, its leg and the number of times it was sent."""
        dice = _Dice(self.seed, message)
        usual = Fate("", (dice.between(1_000, 40_000),), (dice.between(1_000, 40_000),))
        if self.fates is not None:
            return self.fates.get(message, usual)
        if now_us >= self.heal_us or dice.unit() >= self.weather[participant]:
            return usual
        return _unusual(usual, dice, FATES[kind])


class _Dice:
    """Random numbers that depend on a name alone."""

    __slots__ = ("_value",)

    def __init__(self, seed: int, name: str) -> None:
        text = f"{seed} {name}".encode()
        self._value = int.from_bytes(hashlib.blake2b(text, digest_size=32).digest(), "big")

    def between(self, low: int, high: int) -> int:
        self._value, rest = divmod(self._value, high - low + 1)
        return low + rest

    def unit(self) -> float:
        return self.between(0, 999_999) / 1_000_000


def _unusual(usual: Fate, dice: _Dice, table: tuple[tuple[str, int], ...]) -> Fate:
    at = dice.between(0, sum(weight for _, weight in table) - 1)
    kind = ""
    for kind, weight in table:  # noqa: B007 - the name that the draw stops at
        if at < weight:
            break
        at -= weight
    (request,), (answer,) = usual.requests, usual.answers
    seconds, hours = dice.between(1, 20) * SECOND, dice.between(1, 12) * HOUR
    return {
        "request_dropped": Fate(kind, (), ()),
        "answer_dropped": Fate(kind, (request,), ()),
        "request_late": Fate(kind, (request + seconds,), (answer,)),
        "answer_late": Fate(kind, (request,), (answer + seconds,)),
        "declined_late": Fate(kind, (request,), (answer + seconds,)),
        "request_hours_late": Fate(kind, (request + hours,), (answer,)),
        "answer_hours_late": Fate(kind, (request,), (answer + hours,)),
        "request_twice": Fate(kind, (request, request + seconds // 4), (answer,)),
        "answer_twice": Fate(kind, (request,), (answer, answer + seconds // 4)),
        "lie_no_tombstone": Fate(kind, (request + seconds * 10,), (answer,)),
    }.get(kind) or Fate(kind, (request,), (answer,), late_us=dice.between(100, 20_000) * 1000)
