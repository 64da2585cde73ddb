"""The conservation check: no money was lost or created, and every payment's records agree.

Reads a journal, in use or not, and checks it against itself; `compare` then compares it with the books of the
participants, payment by payment. Each finding is one sentence. No findings mean that the books are right.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from gateway.engine.answer import id_text
from gateway.engine.model import SUSPENSE, Kind, LegKind, LegState
from gateway.engine.states import FINAL, State
from gateway.journal import repeats
from gateway.journal.report import Database, Nets, Report
from gateway.journal.sqlite_connection import check_version
from gateway.journal.windows_check import check_windows

_FINAL: Final = ", ".join(str(int(state)) for state in sorted(FINAL))
_PROBLEMS: Final = (
    (
        "payments are in flight, but not marked open, so no engine drives them",
        f"SELECT payment_id FROM payments WHERE state NOT IN ({_FINAL}) AND open = 0",
    ),
    (
        "payments are marked held without a hold, or with one that never expires",
        f"SELECT payment_id FROM payments WHERE open = 2 AND (state != {int(State.HELD)} "
        "OR hold_until_us <= created_us OR authorised_minor <= 0)",
    ),
    (
        "payments were captured for more than was held",
        "SELECT payment_id FROM payments WHERE authorised_minor > 0 AND amount_minor > authorised_minor",
    ),
    (
        "pre-authorised payments have no authorisation as their first leg, or more than one capture",
        "SELECT payment_id FROM payments WHERE authorised_minor > 0 AND (EXISTS (SELECT 1 FROM legs WHERE "
        f"legs.payment_id = payments.payment_id AND legs.number = 1 AND legs.kind != {int(LegKind.AUTHORISATION)}) "
        "OR (SELECT count(*) FROM legs WHERE legs.payment_id = payments.payment_id "
        f"AND legs.kind = {int(LegKind.CAPTURE)}) > 1)",
    ),
    (
        "payments are marked open, but have ended and have no reversal under way",
        f"SELECT payment_id FROM payments WHERE state IN ({_FINAL}) AND open = 1 AND NOT EXISTS (SELECT 1 FROM legs "
        f"WHERE legs.payment_id = payments.payment_id AND legs.kind = {int(LegKind.REVERSAL)} "
        f"AND legs.state = {int(LegState.SENT)})",
    ),
    (
        "payments have a reversal under way, but are not marked open, so no engine drives them",
        "SELECT payment_id FROM payments WHERE open != 1 AND EXISTS (SELECT 1 FROM legs "
        f"WHERE legs.payment_id = payments.payment_id AND legs.kind = {int(LegKind.REVERSAL)} "
        f"AND legs.state = {int(LegState.SENT)})",
    ),
    (
        "payments have ended, but have no time of ending",
        f"SELECT payment_id FROM payments WHERE state IN ({_FINAL}) AND ended_us = 0",
    ),
    (
        "payments have ended or sent a second leg although their first leg has no answer",
        f"SELECT payment_id FROM payments WHERE (state IN ({_FINAL}) OR EXISTS (SELECT 1 FROM legs "
        f"WHERE legs.payment_id = payments.payment_id AND legs.number > 1 AND legs.kind != {int(LegKind.REVERSAL)})) "
        "AND NOT EXISTS (SELECT 1 FROM legs WHERE legs.payment_id = payments.payment_id AND legs.number = 1 "
        f"AND legs.state != {int(LegState.SENT)})",
    ),
    (
        "legs name a payment that does not exist",
        "SELECT DISTINCT payment_id FROM legs WHERE payment_id NOT IN (SELECT payment_id FROM payments)",
    ),
    (
        "postings name a payment that does not exist",
        "SELECT DISTINCT payment_id FROM postings WHERE payment_id NOT IN (SELECT payment_id FROM payments)",
    ),
    (
        "events name a payment that does not exist",
        "SELECT DISTINCT payment_id FROM events WHERE payment_id NOT IN (SELECT payment_id FROM payments)",
    ),
    (
        "payments or refusals name a risk judgement that does not exist",
        "SELECT payment_id FROM payments WHERE risk_id != 0 AND risk_id NOT IN (SELECT risk_id FROM judgements) "
        "UNION ALL SELECT payment_id FROM refusals WHERE risk_id != 0 "
        "AND risk_id NOT IN (SELECT risk_id FROM judgements)",
    ),
    (
        "payments are recorded both as admitted and as refused",
        "SELECT payment_id FROM refusals WHERE payment_id IN (SELECT payment_id FROM payments)",
    ),
    (
        "one-time codes are marked spent by a payment that does not exist",
        "SELECT spend FROM spends WHERE payment_id NOT IN (SELECT payment_id FROM payments)",
    ),
    (
        "payments have a refunded amount that differs from the sum of their refunds",
        "SELECT p.payment_id FROM payments p LEFT JOIN (SELECT original_id, sum(amount_minor) AS total FROM payments "
        f"WHERE original_id IS NOT NULL AND (state = {int(State.SUCCEEDED)} OR state NOT IN ({_FINAL})) "
        f"GROUP BY original_id) r ON r.original_id = p.payment_id WHERE p.kind = {int(Kind.PAYMENT)} "
        "AND p.refunded_minor != COALESCE(r.total, 0)",
    ),
    (
        "payments were refunded for more than their amount",
        "SELECT payment_id FROM payments WHERE refunded_minor > amount_minor",
    ),
)


def examine(path: Path) -> Report:
    """Checks a journal in a file against itself. Raises JournalMismatchError."""
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        database.execute("BEGIN")
        check_version(database, path)
        report = examine_database(database)
        for what, query in repeats.PROBLEMS:
            _name(report, what, (row[0] for row in database.execute(query)))
        return report
    finally:
        database.close()


def examine_database(database: Database) -> Report:
    """Checks a journal against itself."""
    report = Report()
    _count(database, report)
    for currency, total in database.execute("SELECT currency, sum(amount_minor) FROM postings GROUP BY currency"):
        if total:
            report.find(f"postings in {currency} sum to {total} minor units instead of zero")
    for what, query in _PROBLEMS:
        _name(report, what, (row[0] for row in database.execute(query)))
    _check_nets(database, report)
    _check_counters(database, report)
    check_windows(database, report)
    return report


def compare_holds(report: Report, books: Mapping[tuple[str, bytes, str], int]) -> None:
    """Adds a finding wherever a hold in the journal differs from the issuer's books. Payments in flight may differ."""
    for sentence in hold_disagreements(report, books).values():
        report.find(sentence)


def hold_disagreements(
    report: Report, books: Mapping[tuple[str, bytes, str], int]
) -> dict[tuple[str, bytes, str], str]:
    """The differences between holds in the journal and in the issuers' books, as (a name, payment id, currency) ->
    sentence. The name is `held at ISSUER`, so that it never equals one of `disagreements`."""
    found: dict[tuple[str, bytes, str], str] = {}
    for key in dict.fromkeys((*report.held, *books)):
        account, payment_id, currency = key
        ours, theirs = report.held.get(key, 0), books.get(key, 0)
        if ours != theirs and payment_id not in report.open_payments:
            found[f"held at {account}", payment_id, currency] = (
                f"payment {id_text(payment_id)}: the gateway holds {ours} {currency} minor units at {account}, "
                f"but the books of {account} have set aside {theirs}"
            )
    return found


def compare(report: Report, books: Mapping[tuple[str, bytes, str], int]) -> None:
    """Adds a finding wherever the postings differ from the participants' books. Payments in flight may differ."""
    for sentence in disagreements(report, books).values():
        report.find(sentence)


def disagreements(report: Report, books: Mapping[tuple[str, bytes, str], int]) -> dict[tuple[str, bytes, str], str]:
    """The differences between postings and books, as (account, payment id, currency) -> sentence.

    In a network that is in use, the books are read after the journal and may hold payments that began in between.
    Such a difference is gone when both are read again.
    """
    found: dict[tuple[str, bytes, str], str] = {}
    for key, net in report.nets.items():
        account, payment_id, currency = key
        theirs = books.get(key, 0)
        if theirs != net and payment_id not in report.open_payments:
            found[key] = (
                f"payment {id_text(payment_id)}: the gateway posted {net} {currency} minor units to {account}, "
                f"but the books of {account} have {theirs}"
            )
    for key, theirs in books.items():
        account, payment_id, currency = key
        if key not in report.nets and payment_id not in report.open_payments:
            found[key] = (
                f"payment {id_text(payment_id)}: the books of {account} have {theirs} {currency} minor units, but the "
                "gateway has no posting for them"
            )
    return found


def _count(database: Database, report: Report) -> None:
    for state, count in database.execute("SELECT state, count(*) FROM payments GROUP BY state"):
        report.by_state[State(state).name] = count
        report.payments += count
    (report.postings,) = database.execute("SELECT count(*) FROM postings").fetchone()
    report.open_payments = frozenset(
        row[0] for row in database.execute("SELECT payment_id FROM payments WHERE open = 1")
    )
    for debtor, payment_id, currency, authorised in database.execute(
        "SELECT debtor, payment_id, currency, authorised_minor FROM payments WHERE open = 2"
    ):
        report.held[debtor, bytes(payment_id), currency] = authorised
    report.in_flight = len(report.open_payments)


def _name(report: Report, what: str, ids: Iterator[bytes]) -> None:
    named = [identity.hex() for _, identity in zip(range(3), ids, strict=False)]
    more = sum(1 for _ in ids)
    if named:
        report.find(f"{len(named) + more} {what}: {', '.join(named)}{' ...' if more else ''}")


def _check_nets(database: Database, report: Report) -> None:
    """Adds a finding wherever the postings of a payment to an account differ from what its state requires."""
    for account, payment_id, currency, net in database.execute(
        "SELECT account, payment_id, currency, sum(amount_minor) FROM postings "
        "GROUP BY account, payment_id, currency HAVING sum(amount_minor) != 0"
    ):
        if account != SUSPENSE:
            report.nets[account, payment_id, currency] = int(net)
        elif payment_id not in report.open_payments:
            report.find(f"payment {id_text(payment_id)} has ended, but left {net} {currency} minor units in suspense")
    expected: Nets = {}
    for payment_id, state, amount, currency, debtor, creditors, attempt in database.execute(
        "SELECT payment_id, state, amount_minor, currency, debtor, creditors, attempt FROM payments WHERE open = 0"
    ):
        if state == State.SUCCEEDED:
            expected[debtor, payment_id, currency] = -amount
            expected[creditors.split(" ")[attempt], payment_id, currency] = amount
    _compare_expected(report, expected)


def _compare_expected(report: Report, expected: Mapping[tuple[str, bytes, str], int]) -> None:
    for key in _either(report.nets, expected):
        account, payment_id, currency = key
        if payment_id in report.open_payments:
            continue
        net, should = report.nets.get(key, 0), expected.get(key, 0)
        if net != should:
            report.find(
                f"payment {id_text(payment_id)}: its postings to {account} sum to {net} {currency} minor units, but "
                f"its state requires {should}"
            )


def _either(
    first: Iterable[tuple[str, bytes, str]], second: Mapping[tuple[str, bytes, str], int]
) -> Iterator[tuple[str, bytes, str]]:
    seen = set(first)
    yield from seen
    yield from (key for key in second if key not in seen)


def _check_counters(database: Database, report: Report) -> None:
    """Adds a finding for each counter that differs from the sum of the payments that it counts."""
    held: dict[bytes, int] = {}
    for (text,) in database.execute(
        f"SELECT counters FROM payments WHERE counters != '' "
        f"AND (state = {int(State.SUCCEEDED)} OR state NOT IN ({_FINAL}))"
    ):
        for part in text.split():
            counter, _, add = part.partition(":")
            key = bytes.fromhex(counter)
            held[key] = held.get(key, 0) + int(add)
    for counter, used in database.execute("SELECT counter, used FROM counters"):
        should = held.pop(bytes(counter), 0)
        if used != should:
            report.find(f"counter {counter.hex()} has the value {used}, but the payments it counts sum to {should}")
    for counter, should in held.items():
        if should:
            report.find(f"counter {counter.hex()} is missing, but the payments it counts sum to {should}")
