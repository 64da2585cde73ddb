"""The conservation check on a data folder: its journal against itself and against the participants' books."""

from __future__ import annotations

from pathlib import Path

from gateway.journal.conservation import disagreements, hold_disagreements
from gateway.journal.report import Report
from sandbox.journals import examine_journal
from sandbox.participants.books import FILE_NAME, holds, totals


def check_folder(folder: Path, journal: str = "") -> Report:
    """Runs the conservation check on a data folder, in use or not, whose journal is in it or at a URL.

    If journal and books differ, both are read again, and only a difference that remains is a finding: a payment that
    began between the two readings is in the second journal.
    """
    report, differing = _read(folder, journal)
    if differing:
        before = differing
        report, differing = _read(folder, journal)
        differing = {key: sentence for key, sentence in differing.items() if key in before}
    for sentence in differing.values():
        report.find(sentence)
    return report


def _read(folder: Path, journal: str) -> tuple[Report, dict[tuple[str, bytes, str], str]]:
    report = examine_journal(folder, journal)
    books: dict[tuple[str, bytes, str], int] = {}
    held: dict[tuple[str, bytes, str], int] = {}
    for path in sorted((folder / "participants").rglob(FILE_NAME)):
        books.update(totals(path))
        held.update(holds(path))
    return report, disagreements(report, books) | hold_disagreements(report, held)
