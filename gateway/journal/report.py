"""The report of the conservation check, and the check's interface to a journal's database."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Protocol

FINDINGS_MAX: Final = 100
"""Findings kept; a broken journal would otherwise fill the screen."""

Nets = dict[tuple[str, bytes, str], int]
"""(account, payment id, currency) -> net of its postings in minor units, without zeros."""


@dataclass(slots=True)
class Report:
    """The result of the conservation check: totals of the journal, and what is wrong with it."""

    payments: int = 0
    in_flight: int = 0
    by_state: dict[str, int] = field(default_factory=dict)
    postings: int = 0
    findings: list[str] = field(default_factory=list)
    nets: Nets = field(default_factory=dict, repr=False)
    held: dict[tuple[str, bytes, str], int] = field(default_factory=dict, repr=False)
    """(issuer, payment id, currency) -> minor units held by pre-authorised payments."""
    open_payments: frozenset[bytes] = field(default_factory=frozenset, repr=False)

    @property
    def conserved(self) -> bool:
        """Whether the check has no findings."""
        return not self.findings

    def find(self, sentence: str) -> None:
        """Adds a finding; beyond FINDINGS_MAX it is dropped."""
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(sentence)


class Database(Protocol):
    """A connection to a journal on SQLite or PostgreSQL, inside a transaction that sees one snapshot."""

    def execute(self, query: str, /) -> Any:
        """Runs a query and returns its rows as an iterable cursor."""
        ...
