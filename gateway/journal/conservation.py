"""The conservation check: nothing was lost, nothing was made, nobody was told what is not so.

Reads a journal, in use or not, and compares it with itself; `compare` then holds it against the books of the
participants, payment by payment. Every finding is a sentence; none means that the books are right.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from gateway.engine.answer import id_text
from gateway.engine.model import SUSPENSE, Kind, LegKind, LegState
from gateway.engine.states import FINAL, State
from gateway.journal import repeats
from gateway.journal.sqlite_connection import check_version
from gateway.journal.windows_check import check_windows

FINDINGS_MAX: Final = 100
"""Findings kept; a broken journal would otherwise fill the screen."""

Nets = dict[tuple[str, bytes, str], int]
"""(account, payment id, currency) -> net of its postings in minor units, without zeros."""

_FINAL: Final = ", ".join(str(int(state)) for state in sorted(FINAL))
_PROBLEMS: Final = (
    (
        "payments have not ended and no engine looks after them",
        f"SELECT payment_id FROM payments WHERE state NOT IN ({_FINAL}) AND open = 0",
    ),
    (
        "payments are put down although their funds are not held, or for ever",
        f"SELECT payment_id FROM payments WHERE open = 2 AND (state != {int(State.HELD)} "
        "OR hold_until_us <= created_us OR authorised_minor <= 0)",
    ),
    (
        "payments were captured beyond what was held",
        "SELECT payment_id FROM payments WHERE authorised_minor > 0 AND amount_minor > authorised_minor",
    ),
    (
        "holds began without an authorisation, or have more than one capture",
        "SELECT payment_id FROM payments WHERE authorised_minor > 0 AND (EXISTS (SELECT 1 FROM legs WHERE "
        f"legs.payment_id = payments.payment_id AND legs.number = 1 AND legs.kind != {int(LegKind.AUTHORISATION)}) "
        "OR (SELECT count(*) FROM legs WHERE legs.payment_id = payments.payment_id "
        f"AND legs.kind = {int(LegKind.CAPTURE)}) > 1)",
    ),
    (
        "payments are marked open although they have ended and no reversal is under way",
        f"SELECT payment_id FROM payments WHERE state IN ({_FINAL}) AND open = 1 AND NOT EXISTS (SELECT 1 FROM legs "
        f"WHERE legs.payment_id = payments.payment_id AND legs.kind = {int(LegKind.REVERSAL)} "
        f"AND legs.state = {int(LegState.SENT)})",
    ),
    (
        "payments have a reversal under way and no engine looks after them",
        "SELECT payment_id FROM payments WHERE open != 1 AND EXISTS (SELECT 1 FROM legs "
        f"WHERE legs.payment_id = payments.payment_id AND legs.kind = {int(LegKind.REVERSAL)} "
        f"AND legs.state = {int(LegState.SENT)})",
    ),
    (
        "payments ended without a time",
        f"SELECT payment_id FROM payments WHERE state IN ({_FINAL}) AND ended_us = 0",
    ),
    (
        "payments went on without an answer of their first leg",
        f"SELECT payment_id FROM payments WHERE (state IN ({_FINAL}) OR EXISTS (SELECT 1 FROM legs "
        f"WHERE legs.payment_id = payments.payment_id AND legs.number > 1 AND legs.kind != {int(LegKind.REVERSAL)})) "
        "AND NOT EXISTS (SELECT 1 FROM legs WHERE legs.payment_id = payments.payment_id AND legs.number = 1 "
        f"AND legs.state != {int(LegState.SENT)})",
    ),
    (
        "legs belong to no payment",
        "SELECT DISTINCT payment_id FROM legs WHERE payment_id NOT IN (SELECT payment_id FROM payments)",
    ),
    (
        "postings belong to no payment",
        "SELECT DISTINCT payment_id FROM postings WHERE payment_id NOT IN (SELECT payment_id FROM payments)",
    ),
    (
        "events belong to no payment",
        "SELECT DISTINCT payment_id FROM events WHERE payment_id NOT IN (SELECT payment_id FROM payments)",
    ),
    (
        "decisions name a judgement that is not kept",
        "SELECT payment_id FROM payments WHERE risk_id != 0 AND risk_id NOT IN (SELECT risk_id FROM judgements) "
        "UNION ALL SELECT payment_id FROM refusals WHERE risk_id != 0 "
        "AND risk_id NOT IN (SELECT risk_id FROM judgements)",
    ),
    (
        "payments were admitted and refused",
        "SELECT payment_id FROM refusals WHERE payment_id IN (SELECT payment_id FROM payments)",
    ),
    (
        "codes are spent by no payment",
        "SELECT spend FROM spends WHERE payment_id NOT IN (SELECT payment_id FROM payments)",
    ),
    (
        "payments count more refunds than there are, or fewer",
        "SELECT p.payment_id FROM payments p LEFT JOIN (SELECT original_id, sum(amount_minor) AS total FROM payments "
        f"WHERE original_id IS NOT NULL AND (state = {int(State.SUCCEEDED)} OR state NOT IN ({_FINAL})) "
        f"GROUP BY original_id) r ON r.original_id = p.payment_id WHERE p.kind = {int(Kind.PAYMENT)} "
        "AND p.refunded_minor != COALESCE(r.total, 0)",
    ),
    (
        "payments were refunded beyond their amount",
        "SELECT payment_id FROM payments WHERE refunded_minor > amount_minor",
    ),
)


@dataclass(slots=True)
class Report:
    """What was found."""

    payments: int = 0
    in_flight: int = 0
    by_state: dict[str, int] = field(default_factory=dict)
    postings: int = 0
    findings: list[str] = field(default_factory=list)
    nets: Nets = field(default_factory=dict, repr=False)
    held: dict[tuple[str, bytes, str], int] = field(default_factory=dict, repr=False)
    """(issuer, payment id, currency) -> minor units that payments at rest hold."""
    open_payments: frozenset[bytes] = field(default_factory=frozenset, repr=False)

    @property
    def conserved(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def find(self, sentence: str) -> None:
        """Adds a finding, up to the bound."""
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(sentence)


class Database(Protocol):
    """A connection to a journal, of whatever database, in a transaction that sees one snapshot."""

    def execute(self, query: str, /) -> Any:
        """The rows of a query, as an iterable cursor."""
        ...


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
    """Compares what payments hold with what the issuers' books have set aside; payments in flight may still differ."""
    for sentence in hold_disagreements(report, books).values():
        report.find(sentence)


def hold_disagreements(
    report: Report, books: Mapping[tuple[str, bytes, str], int]
) -> dict[tuple[str, bytes, str], str]:
    """Where they differ, as `disagreements` has it, under a name that is no account's."""
    found: dict[tuple[str, bytes, str], str] = {}
    for key in dict.fromkeys((*report.held, *books)):
        account, payment_id, currency = key
        ours, theirs = report.held.get(key, 0), books.get(key, 0)
        if ours != theirs and payment_id not in report.open_payments:
            found[f"held at {account}", payment_id, currency] = (
                f"payment {id_text(payment_id)}: it holds {ours} {currency} minor units at {account}, "
                f"whose books have set aside {theirs}"
            )
    return found


def compare(report: Report, books: Mapping[tuple[str, bytes, str], int]) -> None:
    """Holds the gateway's postings against the participants' books; payments in flight may still differ."""
    for sentence in disagreements(report, books).values():
        report.find(sentence)


def disagreements(report: Report, books: Mapping[tuple[str, bytes, str], int]) -> dict[tuple[str, bytes, str], str]:
    """Where gateway and books differ, as (account, payment id, currency) to a sentence.

    Of a network in use the books are read after the journal, and know payments that began between: those differ once,
    and not when both are read again.
    """
    found: dict[tuple[str, bytes, str], str] = {}
    for key, net in report.nets.items():
        account, payment_id, currency = key
        theirs = books.get(key, 0)
        if theirs != net and payment_id not in report.open_payments:
            found[key] = (
                f"payment {id_text(payment_id)}: the gateway has {net} {currency} minor units for {account}, "
                f"its books have {theirs}"
            )
    for key, theirs in books.items():
        account, payment_id, currency = key
        if key not in report.nets and payment_id not in report.open_payments:
            found[key] = (
                f"payment {id_text(payment_id)}: {account} moved {theirs} {currency} minor units that the gateway "
                "does not know of"
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
    """What each payment moved must be what its state says, account by account."""
    for account, payment_id, currency, net in database.execute(
        "SELECT account, payment_id, currency, sum(amount_minor) FROM postings "
        "GROUP BY account, payment_id, currency HAVING sum(amount_minor) != 0"
    ):
        if account != SUSPENSE:
            report.nets[account, payment_id, currency] = int(net)
        elif payment_id not in report.open_payments:
            report.find(f"payment {id_text(payment_id)} ended and left {net} {currency} minor units in suspense")
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
                f"payment {id_text(payment_id)}: postings of {account} come to {net} {currency} minor units, "
                f"its state says {should}"
            )


def _either(
    first: Iterable[tuple[str, bytes, str]], second: Mapping[tuple[str, bytes, str], int]
) -> Iterator[tuple[str, bytes, str]]:
    seen = set(first)
    yield from seen
    yield from (key for key in second if key not in seen)


def _check_counters(database: Database, report: Report) -> None:
    """Each counter stands at what the payments that hold it add up to."""
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
            report.find(f"counter {counter.hex()} stands at {used}, the payments that hold it add up to {should}")
    for counter, should in held.items():
        if should:
            report.find(f"counter {counter.hex()} is not there, the payments that hold it add up to {should}")
