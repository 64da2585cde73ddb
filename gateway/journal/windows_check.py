"""Settlement windows in the conservation check: each successful payment belongs to exactly one closed window or to the
open one, and the postings of all windows, the open one included, are all the postings there are."""

from __future__ import annotations

from collections import Counter
from typing import Final

from gateway.engine.answer import id_text
from gateway.engine.model import SUSPENSE
from gateway.engine.states import RESTING, State
from gateway.journal.report import Database, Report

_WINDOWS: Final = "SELECT number, after_sequence, last_sequence, closed_us FROM windows ORDER BY number"
_CARRIED: Final = "SELECT number, sum(payments) FROM carried GROUP BY number"
_SETTLED: Final = (
    "SELECT e.sequence, e.payment_id, p.state, p.amount_minor, p.currency, p.debtor, p.creditors, p.attempt "
    f"FROM events e JOIN payments p ON p.payment_id = e.payment_id WHERE e.state = {int(State.SUCCEEDED)} "
    "ORDER BY e.sequence"
)
_POSTED: Final = (
    "SELECT account, currency, sum(amount_minor) FROM postings "
    f"WHERE account != '{SUSPENSE}' GROUP BY account, currency"
)
Window = tuple[int, int, int, int]
Sums = Counter[tuple[int, str, str]]
"""(window, account, currency) -> minor units; 0 stands for the window that is still open."""


def check_windows(database: Database, report: Report) -> None:
    """Adds a finding for each fault of the windows. Needs `report.nets`, the sums of each payment's postings."""
    windows: list[Window] = [tuple(row) for row in database.execute(_WINDOWS)]
    _check_chain(windows, report)
    if not windows:
        return
    ((last_event,),) = database.execute("SELECT COALESCE(max(sequence), 0) FROM events")
    if windows[-1][2] > last_event:
        report.find(f"settlement window {windows[-1][0]} ends after the last event of the journal")
    _check_carried(database, windows, report)
    settled: Sums = Counter()
    moved: Sums = Counter()
    home = _find_homes(database, windows, settled, report)
    for (account, payment_id, currency), net in report.nets.items():
        # While a second credit of a settled payment (approved late) is being reversed, its postings count as open.
        number = 0 if payment_id in report.open_payments else home.get(payment_id, 0)
        moved[number, account, currency] += net
    for number, account, currency in settled.keys() | moved.keys():
        position, posted = settled[number, account, currency], moved[number, account, currency]
        if number and position != posted:
            report.find(
                f"settlement window {number}: the postings to {account} sum to {posted} {currency} minor units, but "
                f"the payments of the window sum to {position}"
            )
    for account, currency, total in database.execute(_POSTED):
        known = sum(settled[number, account, currency] for number in range(1, len(windows) + 1))
        known += moved[0, account, currency]
        if total != known:
            report.find(
                f"all postings to {account} sum to {total} {currency} minor units, but those of all settlement windows "
                f"and of the open one sum to {known}"
            )


def _check_chain(windows: list[Window], report: Report) -> None:
    """Adds a finding for each window that does not begin where the one before it ended."""
    end = closed_us = 0
    for place, (number, after, last, closed) in enumerate(windows, start=1):
        if number != place or after != end or last < after or closed < closed_us:
            report.find(f"settlement window {number} does not begin where the previous one ends")
        end, closed_us = last, closed


def _find_homes(database: Database, windows: list[Window], settled: Sums, report: Report) -> dict[bytes, int]:
    """Payment id -> number of its window, 0 for the open one. Adds what each payment moved, by its state, to
    `settled`."""
    home: dict[bytes, int] = {}
    place = 0
    for sequence, key, state, amount, currency, debtor, creditors, attempt in database.execute(_SETTLED):
        payment_id = bytes(key)
        while place < len(windows) and sequence > windows[place][2]:
            place += 1
        number = place + 1 if place < len(windows) else 0
        if payment_id in home:
            report.find(f"payment {id_text(payment_id)} succeeded twice")
        elif state != State.SUCCEEDED:
            report.find(f"payment {id_text(payment_id)} has an event of success, but is {State(state).name}")
        elif number and payment_id not in report.open_payments:
            settled[number, debtor, currency] -= amount
            settled[number, creditors.split(" ")[attempt], currency] += amount
        home[payment_id] = number
    return home


def _check_carried(database: Database, windows: list[Window], report: Report) -> None:
    """Adds a finding for each window whose number of payments in flight at its close differs from its events'."""
    carried = {number: int(payments) for number, payments in database.execute(_CARRIED)}
    in_flight: set[bytes] = set()
    place = 0

    def close(number: int) -> None:
        if carried.get(number, 0) != len(in_flight):
            report.find(
                f"settlement window {number} carried over {carried.get(number, 0)} payments, but {len(in_flight)} "
                "were in flight when it closed"
            )

    for sequence, payment_id, state in database.execute(
        f"SELECT sequence, payment_id, state FROM events WHERE sequence <= {windows[-1][2]} ORDER BY sequence"
    ):
        while sequence > windows[place][2]:
            place += 1
            close(windows[place - 1][0])
        if state in RESTING:
            in_flight.discard(bytes(payment_id))
        else:
            in_flight.add(bytes(payment_id))
    for window in windows[place:]:
        close(window[0])
