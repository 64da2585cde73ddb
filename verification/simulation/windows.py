"""Rule 20 in the simulated world: operators close settlement windows at any moment, and what becomes of them.

The witness's part asks the journal only which windows it claims, and which successes lie in them; who got how much it
takes from the participants' own lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.clearing.model import Window
from gateway.clearing.reader import ClearingReader
from gateway.engine.states import State
from verification.simulation.storage import Rows

Row = tuple[Any, ...]


class Windows:
    """The witness's account of settlement windows."""

    def __init__(self, complain: Callable[[str, str], None], reader: Callable[[], Rows]) -> None:
        self._complain = complain
        self._reader = reader
        self._seen: list[Row] = []
        self._members: dict[int, list[bytes]] = {}
        """Window to the payments whose success lay in it when it was first seen."""

    @property
    def last(self) -> int:
        """The number of the last window that was seen."""
        return len(self._seen)

    def look(self) -> None:
        """Looks at what was closed since the last time."""
        rows = self._rows()
        if rows[: len(self._seen)] != self._seen:
            self._complain("a closed window never changes", f"{self._seen} became {rows}")
        for number, after, last, _ in rows[len(self._seen) :]:
            end = self._seen[-1][2] if self._seen else 0
            if (number, after) != (len(self._seen) + 1, end) or last < after:
                self._complain("each success lies in one window", f"window {number} covers {after} to {last}")
            self._members[number] = self._successes(after, last)
            self._seen = rows[:number]

    def told(self, number: int, *, due: bool) -> None:
        """An operator heard that it is decided whether this window is closed; `due`: it was its turn when he asked."""
        if due and len(self._rows()) < number:
            self._complain("nothing is told before it is durable", f"window {number} is said to be closed and is not")
        self.look()

    def look_again(self) -> None:
        """What was seen closed is closed after a restart too."""
        if self._rows()[: len(self._seen)] != self._seen:
            self._complain("nothing is told before it is durable", "windows that were closed are gone after a restart")

    def compare(self, succeeded: set[bytes], moved: Mapping[tuple[str, bytes, str], int]) -> None:
        """At the end, after a last closing: `succeeded` are the payments that callers know to have succeeded, `moved`
        what each participant did for each payment."""
        homes: Counter[bytes] = Counter()
        for number, after, last, _ in self._rows():
            members = self._successes(after, last)
            if members != self._members[number]:
                self._complain("a closed window never changes", f"window {number} does not hold what it held")
            homes.update(members)
            self._compare_positions(number, set(members), moved)
        twice = [payment_id.hex() for payment_id, count in homes.items() if count > 1]
        if twice or homes.keys() != succeeded:
            others = [payment_id.hex() for payment_id in homes.keys() ^ succeeded]
            self._complain("each success lies in one window", f"twice: {twice}, in none or without success: {others}")

    def _compare_positions(self, number: int, members: set[bytes], moved: Mapping[tuple[str, bytes, str], int]) -> None:
        theirs: Counter[tuple[str, str]] = Counter()
        for (participant, payment_id, currency), amount in moved.items():
            if payment_id in members:
                theirs[participant, currency] += amount
        reader = ClearingReader(_Committed(self._reader()))
        window: Window = reader.window(number)
        ours: dict[tuple[str, str], int] = {
            (one.participant, one.currency): one.net_minor for one in reader.positions(window)
        }
        settled = {one.payment_id for one in reader.settled(window)}
        if {key: net for key, net in ours.items() if net} != {key: net for key, net in theirs.items() if net}:
            self._complain("positions are what participants did", f"window {number}: {ours}, they have {dict(theirs)}")
        if settled != members or sum(ours.values()) != 0:
            self._complain("positions are what participants did", f"window {number} does not add up: {ours}")

    def _rows(self) -> list[Row]:
        query = "SELECT number, after_sequence, last_sequence, closed_us FROM windows ORDER BY number"
        return [tuple(row) for row in self._reader().execute(query, ()).fetchall()]

    def _successes(self, after: int, last: int) -> list[bytes]:
        rows = self._reader().execute(
            "SELECT payment_id FROM events WHERE state = ? AND sequence > ? AND sequence <= ? ORDER BY sequence",
            (int(State.SUCCEEDED), after, last),
        )
        return [bytes(row[0]) for row in rows.fetchall()]


class _Committed:
    """Committed rows, read without any of the simulated faults."""

    def __init__(self, reader: Rows) -> None:
        self._reader = reader

    def rows(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._reader.execute(query, tuple(values)).fetchall()]

    def close(self) -> None:
        """Does nothing: the reader belongs to the witness."""
