"""Checks the journal's claims: postings that follow answers, and events in an order that watchers may rely on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Set
from typing import Final

from gateway.engine.model import LegKind, LegOut, LegState, Result
from gateway.engine.states import RESTING, State
from verification.simulation.storage import Rows

SUSPENSE: Final = "suspense"
_MAY_FOLLOW: Final = {
    State.HELD: {1, 2},
    State.CAPTURING: {12},
    State.CAPTURE_UNKNOWN: {13},
    State.CREDITING: {1, 2, 3, 4, 5, 13, 14},
    State.CREDIT_UNKNOWN: {3},
    State.CREDIT_REVERSING: {4},
    State.SUCCEEDED: {3, 4},
    State.DEBIT_UNKNOWN: {1},
    State.DECLINED: {1, 2},
    State.REVERSING: {1, 2, 3, 4, 5, 12, 13, 14},
    State.FAILED: {6},
    State.CANCELLED: {6},
    State.EXPIRED: {6},
}
"""Each published state and the states that may precede it."""


class Claims:
    """The postings and events of one run."""

    def __init__(
        self, complain: Callable[[str, str], None], carried: Mapping[bytes, LegOut], told: Set[tuple[bytes, int]]
    ) -> None:
        """`carried` has the legs that were sent, `told` the answers that arrived: (leg id, Result)."""
        self.states: set[State] = set()
        self.posted: dict[tuple[bytes, int], int] = {}
        """(payment id, leg number) -> net of its postings in minor units."""
        self.published: list[tuple[int, bytes, int]] = []
        """(sequence, payment id, state) of events."""
        self._complain = complain
        self._carried = carried
        self._told = told
        self._last_state: dict[bytes, int] = {}
        self._last_posting = 0

    def look(self, reader: Rows) -> None:
        """Checks what was added since the last look."""
        self._look_at_postings(reader)
        self._look_at_events(reader)

    def _look_at_postings(self, reader: Rows) -> None:
        totals: Counter[str] = Counter()
        for posting, payment_id, number, account, currency, amount in reader.execute(
            "SELECT posting, payment_id, number, account, currency, amount_minor FROM postings WHERE posting > ? "
            "ORDER BY posting",
            (self._last_posting,),
        ):
            self._last_posting = posting
            totals[currency] += amount
            if account != SUSPENSE:
                self._check_posting(payment_id, number, account, amount)
        if any(totals.values()):
            self._complain("postings sum to zero", f"{dict(totals)} in one tick")

    def _check_posting(self, payment_id: bytes, number: int, account: str, amount: int) -> None:
        leg_id = payment_id + bytes([number])
        leg = self._carried.get(leg_id)
        sum_now = self.posted[payment_id, number] = self.posted.get((payment_id, number), 0) + amount
        if leg is None or leg.participant != account:
            self._complain("postings follow answers", f"{amount} for {account} on leg {leg_id.hex()}, never sent there")
        elif sum_now and ((leg_id, Result.APPROVED) not in self._told or abs(sum_now) != leg.amount_minor):
            self._complain("postings follow answers", f"leg {leg_id.hex()} stands at {sum_now} of {leg.amount_minor}")
        elif sum_now and (sum_now < 0) != (number == 1 or leg.kind is LegKind.CAPTURE):
            self._complain("postings follow answers", f"leg {leg_id.hex()} is posted the wrong way round")

    def _look_at_events(self, reader: Rows) -> None:
        after = self.published[-1][0] if self.published else 0
        for row in reader.execute(
            "SELECT sequence, payment_id, state FROM events WHERE sequence > ? ORDER BY sequence", (after,)
        ):
            self.published.append(row)
            _, payment_id, number = row
            state, last = State(number), self._last_state.get(payment_id)
            self.states.add(state)
            if (last is None) != (state is State.DEBITING) or (last is not None and last not in _MAY_FOLLOW[state]):
                before = "nothing" if last is None else State(last).name
                self._complain("events in order", f"{payment_id.hex()} is published {state.name} after {before}")
            self._last_state[payment_id] = number

    def look_again(self, reader: Rows) -> None:
        """Checks that what watchers saw before a crash is still there."""
        if not self.published:
            return
        rows = reader.execute(
            "SELECT sequence, payment_id, state FROM events WHERE sequence <= ? ORDER BY sequence",
            (self.published[-1][0],),
        ).fetchall()
        if rows != self.published:
            self._complain("nothing is told before it is durable", "events that watchers saw are gone after a restart")

    def look_at_unfinished(self, reader: Rows, engine: int, book: Collection[bytes]) -> None:
        """Checks that a starting engine takes up all that it left: payments in flight, and reversals of ended ones."""
        reversals = reader.execute(
            "SELECT payment_id FROM legs WHERE kind = ? AND state = ?", (int(LegKind.REVERSAL), int(LegState.SENT))
        )
        undoing = {payment_id for (payment_id,) in reversals}
        for payment_id, state in reader.execute("SELECT payment_id, state FROM payments WHERE engine = ?", (engine,)):
            if (state not in RESTING or payment_id in undoing) and payment_id not in book:
                self._complain("what is under way is taken up again", f"{payment_id.hex()} is not after a restart")
