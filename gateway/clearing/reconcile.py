"""Reconciliation (对账): compares a participant's own statement with what the gateway settled, payment by payment.

Both sides are put into a temporary database on disk first, so that memory is bounded whatever their size, and are then
read in the order of payment ids. The same statements give the same differences in the same order.
"""

from __future__ import annotations

import enum
import itertools
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

from gateway.clearing.theirs import REVERSAL, Line

BATCH: Final = 5_000
"""Rows written at once."""
DIFFERENCES_MAX: Final = 10_000
"""Most differences that are kept; all are counted."""
_TABLES: Final = """
CREATE TABLE ours (payment_id BLOB PRIMARY KEY, window INTEGER, currency TEXT, amount INTEGER) WITHOUT ROWID;
CREATE TABLE theirs (place INTEGER PRIMARY KEY, leg_id BLOB, kind TEXT, currency TEXT, amount INTEGER, booked TEXT,
    window INTEGER);
"""


class DifferenceKind(enum.StrEnum):
    """How the two sides differ about a payment."""

    MISSING_THERE = "missing_there"
    """The gateway settled it, but the participant's statement does not have it."""
    MISSING_HERE = "missing_here"
    """The participant moved money for it, but the gateway has not settled it."""
    AMOUNT = "amount"
    CURRENCY = "currency"
    DUPLICATE = "duplicate"
    """The participant booked it more than once."""
    SIGN = "sign"
    """The participant booked it the wrong way round."""
    REVERSED_THERE = "reversed_there"
    """The participant reversed it, but the gateway did not."""
    TIMING = "timing"
    """Both have it, and count it in different windows."""


class Ours(NamedTuple):
    """What the gateway settled."""

    payment_id: bytes
    window: int
    currency: str
    amount_minor: int
    """Signed: negative where the participant pays."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One payment about which the two sides differ."""

    kind: DifferenceKind
    payment_id: bytes
    window: int | None
    """The gateway's; None where no closed window has it."""
    ours_minor: int
    ours_currency: str
    theirs_minor: int
    """Net of the participant's lines, in `theirs_currency`."""
    theirs_currency: str
    theirs_window: int | None
    leg_ids: tuple[bytes, ...]
    """The participant's lines."""


@dataclass(slots=True)
class Result:
    """The result of a reconciliation."""

    ours: int = 0
    """Number of settled payments that were compared."""
    theirs: int = 0
    """Number of the participant's lines that were compared."""
    agreed: int = 0
    pending: int = 0
    """Payments that the participant has and no closed window holds yet."""
    counts: Counter[DifferenceKind] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)

    def add(self, difference: Difference) -> None:
        """Counts a difference, and keeps it up to the bound."""
        self.counts[difference.kind] += 1
        if len(self.differences) < DIFFERENCES_MAX:
            self.differences.append(difference)

    @property
    def agrees(self) -> bool:
        """Whether there is no difference."""
        return not self.counts


IsPending = Callable[[bytes], bool]
"""Whether a payment that no closed window holds may still be settled with this participant, or be reversed there."""


def judge(ours: Ours, lines: list[Line]) -> DifferenceKind | None:
    """The difference between a participant's lines and a settled payment; None if they agree."""
    nets = _nets(lines)
    once = len({line.leg_id for line in lines}) == len(lines)
    if nets == {ours.currency: ours.amount_minor} and once:
        claimed = _claimed(lines)
        return DifferenceKind.TIMING if claimed not in (None, ours.window) else None
    if not nets:
        undone = any(line.kind == REVERSAL for line in lines)
        return DifferenceKind.REVERSED_THERE if undone else DifferenceKind.MISSING_THERE
    if not once or (len(lines) > 1 and _is_multiple(nets, ours)):
        return DifferenceKind.DUPLICATE
    if set(nets) != {ours.currency}:
        return DifferenceKind.CURRENCY
    if nets[ours.currency] == -ours.amount_minor:
        return DifferenceKind.SIGN
    return DifferenceKind.AMOUNT


def _is_multiple(nets: dict[str, int], ours: Ours) -> bool:
    times, rest = divmod(nets.get(ours.currency, 0), ours.amount_minor)
    return times > 1 and not rest and len(nets) == 1


def _nets(lines: Iterable[Line]) -> dict[str, int]:
    """Currency to the sum of the lines, without zeros."""
    sums: Counter[str] = Counter()
    for line in lines:
        sums[line.currency] += line.amount_minor
    return {currency: amount for currency, amount in sums.items() if amount}


def _claimed(lines: list[Line]) -> int | None:
    """The window in which the participant counts a payment: that of its last line."""
    return lines[-1].window if lines else None


class Reconciliation:
    """Takes both sides, then compares them. A context manager, which removes its temporary file."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hutong-reconcile-")
        self._database = sqlite3.connect(Path(self._folder.name) / "sides.db", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")  # nothing of it outlives this process
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.executescript(_TABLES)

    def __enter__(self) -> Reconciliation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
        self._folder.cleanup()

    def take_ours(self, settled: Iterable[Ours]) -> None:
        """Takes what the gateway settled with the participant, in all closed windows."""
        self._fill("INSERT INTO ours VALUES (?, ?, ?, ?)", settled)

    def take_theirs(self, lines: Iterable[Line]) -> None:
        """Takes the lines of the participant's statement."""
        self._fill("INSERT INTO theirs (leg_id, kind, currency, amount, booked, window) VALUES (?,?,?,?,?,?)", lines)

    def _fill(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        source = iter(rows)
        self._database.execute("BEGIN")
        while some := list(itertools.islice(source, BATCH)):
            self._database.executemany(statement, some)
        self._database.execute("COMMIT")

    def compare(self, is_pending: IsPending, window: int | None = None) -> Result:
        """Every difference, in the order of payment ids. `window`: only payments that belong to it on either side, and
        those that the gateway does not know."""
        result = Result()
        for ours, lines in self._pairs():
            kind = self._kind(ours, lines, is_pending, result)
            claimed = _claimed(lines)
            if ours is not None and window in (None, ours.window):
                result.ours += 1
                result.agreed += kind is None
            result.theirs += len(lines)
            if kind is None or (window is not None and ours is not None and window not in (ours.window, claimed)):
                continue
            result.add(_difference(kind, ours, lines, claimed))
        return result

    @staticmethod
    def _kind(ours: Ours | None, lines: list[Line], is_pending: IsPending, result: Result) -> DifferenceKind | None:
        if ours is not None:
            return judge(ours, lines)
        if not _nets(lines):
            return None  # done and undone there, and nothing here
        if not is_pending(lines[0].payment_id):
            return DifferenceKind.MISSING_HERE
        if _claimed(lines) is not None:
            return DifferenceKind.TIMING
        result.pending += 1
        return None

    def _pairs(self) -> Iterator[tuple[Ours | None, list[Line]]]:
        """Both sides, payment by payment."""
        ours = (Ours(*row) for row in self._database.execute("SELECT * FROM ours ORDER BY payment_id"))
        lines = self._database.execute(
            "SELECT leg_id, kind, currency, amount, booked, window FROM theirs ORDER BY substr(leg_id, 1, 16), place"
        )
        groups = itertools.groupby((Line(*row) for row in lines), lambda line: line.payment_id)
        mine = next(ours, None)
        for payment_id, group in groups:
            while mine is not None and mine.payment_id < payment_id:
                yield mine, []
                mine = next(ours, None)
            if mine is not None and mine.payment_id == payment_id:
                yield mine, list(group)
                mine = next(ours, None)
            else:
                yield None, list(group)
        while mine is not None:
            yield mine, []
            mine = next(ours, None)


def _difference(kind: DifferenceKind, ours: Ours | None, lines: list[Line], claimed: int | None) -> Difference:
    nets = _nets(lines)
    currency = min(nets, key=lambda name: (name == (ours.currency if ours else ""), name)) if nets else ""
    return Difference(
        kind,
        ours.payment_id if ours is not None else lines[0].payment_id,
        ours.window if ours is not None else None,
        ours.amount_minor if ours is not None else 0,
        ours.currency if ours is not None else "",
        nets.get(currency, 0),
        currency,
        claimed,
        tuple(line.leg_id for line in lines),
    )
