"""A run drawn from a seed: what callers ask, what breaks when, and what becomes of each message. Values only.

Everything that makes a run bad is an entry of its own (an item, or the fate of one message), so that entries can be
taken away one by one and the rest still means the same.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.engine.model import LegKind
from gateway.engine.transitions import Timing

SECOND: Final = 1_000_000
HOUR: Final = 3600 * SECOND
ISSUERS: Final = ("issuer-a", "issuer-b")
ACQUIRERS: Final = ("acquirer-a", "acquirer-b", "acquirer-c")
PARTICIPANTS: Final = ISSUERS + ACQUIRERS
OTHER_PAYLOAD_MINOR: Final = 1_000_000
"""Added to the amount where a key is sent again with another payload."""


# -- what callers do -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pay:
    """A payment. Its amount is its own among all of the run, so that effects are told apart without the gateway."""

    at_us: int
    op: int
    amount_minor: int
    issuer: str
    merchant: str
    code: int | None
    """One-time code, shared with other payments."""
    counter: int | None
    """Limit that the amount counts against, shared too."""
    patience_us: int
    """Time until the caller's own deadline."""
    deadline_us: int
    """The payment's deadline after its creation; 0 for the default."""


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
    """The same key again, with the same payload or another."""

    at_us: int
    op: int
    other: bool


@dataclass(frozen=True, slots=True)
class Cancel:
    """A caller wants the payment of an operation undone."""

    at_us: int
    of: int


@dataclass(frozen=True, slots=True)
class Read:
    """A status query."""

    at_us: int
    of: int


# -- what breaks ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Crash:
    """The engine's process ends after so many further steps (statements, messages, answers)."""

    at_us: int
    node: int
    steps: int
    power: bool
    """Whether the machine loses power, and with it everything that was not synced."""
    down_us: int
    clock_us: int
    """By how much the wall clock differs after the restart; may be negative."""
    armed_by: str = ""
    """What the steps are counted from: the next message of this kind that leaves (`reversal`, `credit`, `inquiry`), the
    next `lie`, or, empty, `at_us` itself."""


@dataclass(frozen=True, slots=True)
class TornCommit:
    """Power fails in the middle of the next commit: this part of what it wrote reached the disk."""

    at_us: int
    part: float
    down_us: int


@dataclass(frozen=True, slots=True)
class DiskFault:
    """The journal's disk does not take writes for a while."""

    at_us: int
    lasts_us: int
    mode: str
    """One of DISK_MODES."""
    statement: int
    """Which statement of a transaction fails, where the mode does not say it."""


@dataclass(frozen=True, slots=True)
class Down:
    """A participant's process ends, forgets what it had not synced, and comes back."""

    at_us: int
    participant: str
    lasts_us: int
    noticed_us: int
    """After this the link knows, and says NOT_SENT."""


@dataclass(frozen=True, slots=True)
class Slow:
    """A participant syncs, and so answers, only this long after it did the work."""

    at_us: int
    participant: str
    lasts_us: int
    sync_us: int


@dataclass(frozen=True, slots=True)
class ClockJump:
    """The engine's clock leaps forward, as after a suspended machine."""

    at_us: int
    by_us: int


Item = Pay | Refund | Again | Cancel | Read | Crash | TornCommit | DiskFault | Down | Slow | ClockJump

DISK_MODES: Final = (
    "full",
    "eio",
    "unreadable",
    "commit_lost",
    "commit_taken",
    "commit_lost_blind",
    "commit_taken_blind",
)
"""Disk full; I/O error at a statement; reads fail too; the commit fails and is not in the file, or is; and both with
the file not to be opened until the fault ends."""


# -- what becomes of messages --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one message to a participant, and of its answer."""

    kind: str
    requests: tuple[int, ...]
    """Delays of the copies that arrive there, microseconds; none: lost."""
    answers: tuple[int, ...]
    """Delays of the copies of the answer."""
    late_us: int = 0
    """For lies: when the participant does what it said it would not."""


_MONEY: Final = frozenset({LegKind.DEBIT, LegKind.CREDIT, LegKind.REFUND})
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
_OF_REVERSALS: Final = (("lie_refused_reversal", 6),)
FATES: Final = {
    kind: _NETWORK + (_AT_PARTICIPANT if kind in _MONEY else _OF_REVERSALS if kind is LegKind.REVERSAL else ())
    for kind in LegKind
}
"""What can happen to a message of each kind, with weights."""


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
    """Participant to the share of its messages that something happens to."""
    heal_us: int
    """From then on nothing breaks any more."""
    items: tuple[Item, ...]
    fates: Mapping[str, Fate] | None = field(default=None)
    """What happens to which message; None: drawn from the seed. Others arrive as usual."""

    def fate(self, message: str, kind: LegKind, participant: str, now_us: int) -> Fate:
        """The fate of a message, named by its operation, leg and how many times it was sent."""
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
        "request_hours_late": Fate(kind, (request + hours,), (answer,)),
        "answer_hours_late": Fate(kind, (request,), (answer + hours,)),
        "request_twice": Fate(kind, (request, request + seconds // 4), (answer,)),
        "answer_twice": Fate(kind, (request,), (answer, answer + seconds // 4)),
        "lie_no_tombstone": Fate(kind, (request + seconds * 10,), (answer,)),
    }.get(kind) or Fate(kind, (request,), (answer,), late_us=dice.between(100, 20_000) * 1000)


# -- drawing -------------------------------------------------------------------------------------------------


def draw(seed: int) -> Plan:
    """The run of a seed."""
    rng = random.Random(seed)
    span_us = rng.choice((1, 5, 20, 40)) * SECOND
    heal_us = span_us + rng.randint(5, 60) * SECOND
    caps = tuple(rng.randint(2_000, 9_000) for _ in range(2))
    storm = rng.choice((0.0, 0.05, 0.15, 0.4))
    pays = _payments(rng, span_us, len(caps))
    refunds = _refunds(rng, pays, heal_us)
    items: list[Item] = [*pays, *refunds, *_others(rng, pays, refunds, heal_us)]
    nodes = rng.choice((1, 1, 2))
    items.extend(_faults(rng, heal_us, nodes))
    return Plan(
        seed=seed,
        nodes=nodes,
        timing=Timing(
            leg_timeout_us=rng.choice((500_000, 1_000_000, 5_000_000)),
            inquiry_us=rng.choice((300_000, 1_000_000, 3_000_000)),
            inquiries_max=rng.choice((0, 1, 3)),
            reversal_us=rng.choice((300_000, 1_000_000)),
            reversal_max_us=rng.choice((5_000_000, 60_000_000)),
        ),
        in_flight_max=rng.choice((4, 1000, 1000, 1000)),
        caps=caps,
        weather={name: rng.choice((0.0, storm, storm, min(1.0, storm * 2))) for name in PARTICIPANTS},
        heal_us=heal_us,
        items=tuple(sorted(items, key=lambda item: item.at_us)),
    )


def _payments(rng: random.Random, span_us: int, counters: int) -> list[Pay]:
    at_once = rng.random() < 0.3
    moments = [rng.randint(0, span_us) for _ in range(4 if at_once else 60)]
    codes, limits = rng.random() < 0.4, rng.random() < 0.4
    return [
        Pay(
            at_us=rng.choice(moments),
            op=op,
            amount_minor=1000 + op,
            issuer=rng.choice(ISSUERS),
            merchant=f"merchant-{rng.randint(0, 2)}",
            code=rng.randint(0, 4) if codes and rng.random() < 0.5 else None,
            counter=rng.randrange(counters) if limits and rng.random() < 0.6 else None,
            patience_us=rng.choice((200_000, 2_000_000, 30_000_000)),
            deadline_us=rng.choice((0, 0, 300_000, 2_000_000, 10_000_000)),
        )
        for op in range(rng.randint(10, 40))
    ]


def _refunds(rng: random.Random, pays: list[Pay], heal_us: int) -> list[Refund]:
    refunds: list[Refund] = []
    for pay in rng.sample(pays, len(pays) // 3):
        moment = rng.randint(pay.at_us, heal_us)
        for _ in range(rng.randint(1, 4)):
            refunds.append(
                Refund(
                    at_us=moment if rng.random() < 0.6 else rng.randint(pay.at_us, heal_us),
                    op=len(pays) + len(refunds),
                    of=pay.op,
                    amount_minor=rng.choice((0, 1, pay.amount_minor // 3, pay.amount_minor // 2, pay.amount_minor)),
                    patience_us=rng.choice((200_000, 30_000_000)),
                )
            )
    return refunds


def _others(rng: random.Random, pays: list[Pay], refunds: list[Refund], heal_us: int) -> list[Item]:
    items: list[Item] = []
    for _ in range(rng.randint(0, len(pays))):
        pay = rng.choice(pays)
        same_time = rng.random() < 0.4
        at_us = pay.at_us if same_time else rng.randint(pay.at_us, heal_us)
        items.append(Again(at_us, pay.op, other=rng.random() < 0.25))
    for refund in refunds:
        if rng.random() < 0.4:
            soon_us = rng.choice((0, rng.randint(0, SECOND // 2), rng.randint(0, 60 * SECOND)))
            items.append(Again(refund.at_us + soon_us, refund.op, other=rng.random() < 0.2))
    for _ in range(rng.randint(0, len(pays) // 3)):
        pay = rng.choice(pays)
        items.append(Cancel(pay.at_us + int(rng.expovariate(1 / SECOND)), pay.op))
    for _ in range(rng.randint(0, len(pays) // 2)):
        pay = rng.choice(pays)
        items.append(Read(rng.randint(pay.at_us, heal_us), pay.op))
    return items


def _faults(rng: random.Random, heal_us: int, nodes: int) -> list[Item]:
    items: list[Item] = []

    def moment() -> int:
        return rng.randint(0, heal_us - 2 * SECOND)

    def window(at_us: int, most_us: int) -> int:
        return min(rng.randint(50_000, most_us), heal_us - at_us - SECOND)

    for _ in range(rng.choice((0, 0, 1, 2, 4))):
        power, clock_us = rng.random() < 0.5, rng.choice((0, 0, rng.randint(-2 * HOUR, 2 * HOUR)))
        down_us = rng.randint(1000, 3 * SECOND)
        items.append(Crash(moment(), rng.randrange(nodes), rng.randint(0, 60), power, down_us, clock_us))
    for _ in range(rng.choice((0, 0, 1, 3))):
        armed_by, power = rng.choice(("reversal", "reversal", "lie", "credit", "inquiry")), rng.random() < 0.5
        node, down_us = rng.randrange(nodes), rng.randint(1000, SECOND)
        items.append(Crash(moment(), node, rng.randint(0, 12), power, down_us, 0, armed_by))
    if rng.random() < 0.3:
        items.append(TornCommit(moment(), rng.choice((0.0, rng.random(), 1.0)), rng.randint(1000, 3 * SECOND)))
    for _ in range(rng.choice((0, 1, 1, 2))):
        at_us = moment()
        mode = rng.choice(DISK_MODES)
        items.append(DiskFault(at_us, window(at_us, 8 * SECOND), mode, rng.randint(1, 12)))
    for _ in range(rng.choice((0, 0, 1, 3))):
        at_us = moment()
        noticed_us = rng.choice((0, rng.randint(0, 2 * SECOND)))
        items.append(Down(at_us, rng.choice(PARTICIPANTS), window(at_us, 20 * SECOND), noticed_us))
    for _ in range(rng.choice((0, 0, 1, 2))):
        at_us = moment()
        lasts_us = window(at_us, 20 * SECOND)
        items.append(Slow(at_us, rng.choice(PARTICIPANTS), lasts_us, rng.randint(10_000, 6 * SECOND)))
    if rng.random() < 0.15:
        items.append(ClockJump(moment(), rng.choice((SECOND, 60 * SECOND, 5 * HOUR))))
    return items
