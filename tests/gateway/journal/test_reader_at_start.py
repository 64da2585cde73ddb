"""A journal does not begin while somebody reads what it must write anew, and says so."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.journal.interface import JournalMismatchError
from gateway.journal.sqlite import SqliteJournal


def test_a_reader_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.journal.sqlite_connection.BUSY_TIMEOUT_S", 0.05)
    path = tmp_path / "gateway.db"
    killed = SqliteJournal(path)  # open to the end: a clean end folds the log in, a kill does not
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM payments").fetchone()
        with pytest.raises(JournalMismatchError, match="end what reads this file"):
            SqliteJournal(path)
    SqliteJournal(path).close()
    killed.close()
