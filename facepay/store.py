"""The store of record: who is enrolled, with which consent, and templates sealed with each subject's own key.

SQLite in WAL mode, synchronous=FULL: what a call did is on disk when it returns. It has no account numbers and no
tokens. Numbers of persons and templates are never reused, so that a number in the gallery cannot come to mean another
person.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from facepay.gallery.engine import Enrolled
from facepay.keys import Keyring, open_row, seal_row
from facepay.records import Consent, NewSubject, Subject, Terminal
from facepay.templates import Templates, for_gallery, packed, sealed_rows
from hutong_contract import stored_schema
from hutong_contract.secret import Secret

ERASED_AGAIN: Final = 16
"""How many of the last erased persons' keys are erased again at the start, because a crash may have come between rows
and key."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS subject (
  person INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, reference BLOB NOT NULL,
  region INTEGER NOT NULL, passcode TEXT, last_four BLOB, failures INTEGER NOT NULL DEFAULT 0,
  locked_until_us INTEGER NOT NULL DEFAULT 0, enrolled_us INTEGER NOT NULL, purpose TEXT NOT NULL,
  text_version TEXT NOT NULL, consent_given_us INTEGER NOT NULL, consent_expires_us INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS subject_last_four ON subject (last_four) WHERE last_four IS NOT NULL;
CREATE INDEX IF NOT EXISTS subject_consent ON subject (consent_expires_us) WHERE consent_expires_us > 0;
CREATE TABLE IF NOT EXISTS template (
  template INTEGER PRIMARY KEY AUTOINCREMENT, person INTEGER NOT NULL REFERENCES subject, sealed BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS template_person ON template (person);
CREATE TABLE IF NOT EXISTS merchant (
  merchant TEXT NOT NULL, person INTEGER NOT NULL REFERENCES subject, PRIMARY KEY (merchant, person)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS merchant_person ON merchant (person);
CREATE TABLE IF NOT EXISTS terminal (
  terminal TEXT PRIMARY KEY, merchant TEXT NOT NULL, algorithm INTEGER NOT NULL, public_key BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS erasure (
  person INTEGER PRIMARY KEY, erased_us INTEGER NOT NULL, templates INTEGER NOT NULL, receipt BLOB NOT NULL);
"""
STATEMENTS: Final = tuple(stored_schema.split(_SCHEMA))
VERSION: Final = 1
"""Of these tables, kept as the file's `user_version`; a file of another version is refused."""
DIGESTS: Final = {1: "a9b216a772c71689"}
"""Digests of the text of the tables, by version. A new text is a new version: add an entry, never change one."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of new subjects, for each table, and their templates for the gallery."""

    subjects: list[tuple[object, ...]]
    templates: list[tuple[int, int, bytes]]
    merchants: list[tuple[str, int]]
    enrolled: list[Enrolled]


class Store:
    """The store of record in one SQLite file. Safe from several threads."""

    def __init__(self, folder: Path, keys: Keyring, dimension: int) -> None:
        self._keys = keys
        self._lock = threading.RLock()
        self._db = sqlite3.connect(folder / "faces.db", check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("PRAGMA secure_delete=ON")
        try:
            stored_schema.prepare_sqlite(self._db, folder / "faces.db", VERSION, STATEMENTS)
        except stored_schema.SchemaError:
            self._db.close()
            raise
        self.templates = Templates(self._db, self._lock, keys, dimension)
        erased = self._db.execute("SELECT person FROM erasure ORDER BY erased_us DESC LIMIT ?", (ERASED_AGAIN,))
        for (person,) in erased.fetchall():
            keys.erase(person)

    def counts(self) -> tuple[int, int]:
        """Persons and templates."""
        with self._lock:
            persons = self._db.execute("SELECT count(*) FROM subject").fetchone()[0]
            return int(persons), int(self._db.execute("SELECT count(*) FROM template").fetchone()[0])

    def add(self, subjects: Sequence[NewSubject], now_us: int) -> list[Enrolled]:
        """Enrols new subjects in one durable step; returns their templates for the gallery.

        Keys are written first: a crash in between leaves a key without a subject, never the reverse.
        """
        with self._lock:
            rows = self._rows(subjects, now_us)
            with self._transaction():
                self._insert(rows)
            return rows.enrolled

    def replace(self, person: int, subject: NewSubject, now_us: int) -> tuple[list[int], Enrolled]:
        """Erases somebody and enrols another under the same name, in one durable step: a new person with a new key, so
        that the old number never comes to mean somebody else. Returns the erased template ids and the new templates.

        The old key is destroyed after that step; a crash in between is made up for at the next start.
        """
        with self._lock:
            rows = self._rows([subject], now_us)
            with self._transaction():
                templates, _ = self._erase_rows(person, now_us)
                self._insert(rows)
            self._keys.erase(person)
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return templates, rows.enrolled[0]

    def delete(self, person: int, now_us: int) -> tuple[list[int], bytes]:
        """Erases somebody: first the key, then every row. Returns the template ids and the receipt that is kept."""
        with self._lock:
            self._keys.erase(person)
            with self._transaction():
                templates, receipt = self._erase_rows(person, now_us)
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return templates, receipt

    def holds(self, person: int, subject: NewSubject) -> bool:
        """Whether a person is enrolled with exactly these templates, digits, region, merchants and this consent, apart
        from the time of the consent. Passcodes are not compared."""
        with self._lock:
            row = self._db.execute(
                "SELECT last_four, region, purpose, text_version, consent_expires_us FROM subject WHERE person = ?",
                (person,),
            ).fetchone()
            merchants = self._db.execute("SELECT merchant FROM merchant WHERE person = ?", (person,)).fetchall()
            consent = subject.consent
            asked = (subject.region, consent.purpose, consent.text_version, consent.expires_at_us)
            return (
                row is not None
                and row[0] == (self._keys.last_four_tag(subject.last_four) if subject.last_four else None)
                and tuple(row[1:]) == asked
                and {one for (one,) in merchants} == set(subject.merchants)
                and self.templates.packed_of(person) == [packed(vector) for vector in subject.vectors]
            )

    def person_named(self, name: str) -> int | None:
        """The number behind an operator's name."""
        with self._lock:
            row = self._db.execute("SELECT person FROM subject WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else None

    def subject(self, person: int) -> Subject | None:
        """A subject, or None if it is not enrolled."""
        with self._lock:
            row = self._db.execute(
                "SELECT name, reference, passcode, last_four IS NOT NULL, failures, locked_until_us, purpose,"
                " text_version, consent_given_us, consent_expires_us FROM subject WHERE person = ?",
                (person,),
            ).fetchone()
        key = self._keys.get(person) if row else None
        if row is None or key is None:
            return None
        reference = Secret(open_row(key, row[1], b"reference%d" % person).decode())
        return Subject(person, row[0], reference, row[2], bool(row[3]), row[4], row[5], Consent(*row[6:]))

    def count_attempt(self, person: int, now_us: int, lock_until: Callable[[int, int], int]) -> int | None:
        """Counts a passcode before it is checked, so that many at once cannot outrun the limit.

        `lock_until(failures, now_us)` says until when so many failures lock. Returns that (0: not locked), or None
        where the person is locked already.
        """
        with self._lock:
            sql = (
                "UPDATE subject SET failures = failures + 1 WHERE person = ? AND locked_until_us <= ?"
                " RETURNING failures"
            )
            row = self._db.execute(sql, (person, now_us)).fetchone()
            if row is None:
                return None
            until = lock_until(int(row[0]), now_us)
            if until:
                self._db.execute("UPDATE subject SET locked_until_us = ? WHERE person = ?", (until, person))
            return until

    def clear_failures(self, person: int) -> None:
        """Resets the failures of a person after a right passcode."""
        with self._lock:
            self._db.execute("UPDATE subject SET failures = 0, locked_until_us = 0 WHERE person = ?", (person,))

    def expired(self, now_us: int, limit: int) -> list[int]:
        """Persons whose consent has ended."""
        sql = "SELECT person FROM subject WHERE consent_expires_us > 0 AND consent_expires_us <= ? LIMIT ?"
        with self._lock:
            return [row[0] for row in self._db.execute(sql, (now_us, limit))]

    def set_terminal(self, terminal_id: str, terminal: Terminal) -> None:
        """Registers a terminal."""
        row = (terminal_id, terminal.merchant_id, terminal.algorithm, terminal.public_key)
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO terminal VALUES (?, ?, ?, ?)", row)

    def terminals(self) -> dict[str, Terminal]:
        """All registered terminals."""
        with self._lock:
            rows = self._db.execute("SELECT terminal, merchant, algorithm, public_key FROM terminal").fetchall()
        return {row[0]: Terminal(*row[1:]) for row in rows}

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def _next(self, table: str) -> int:
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
        return int(row[0]) + 1 if row else 1

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Durable when it ends; nothing of it is done where an error ends it."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def _rows(self, subjects: Sequence[NewSubject], now_us: int) -> _Rows:
        """Numbers, keys (durable when it returns) and rows of new subjects."""
        out = _Rows([], [], [], [])
        template, first = self._next("template"), self._next("subject")
        persons = list(range(first, first + len(subjects)))
        for person, subject, key in zip(persons, subjects, self._keys.create(persons), strict=True):
            ids = np.arange(template, template + len(subject.vectors), dtype=np.int64)
            template += len(ids)
            out.subjects.append(self._row(person, subject, key, now_us))
            out.templates.extend(sealed_rows(ids, person, subject.vectors, key))
            out.merchants.extend((merchant, person) for merchant in subject.merchants)
            out.enrolled.append(for_gallery(ids, person, subject.region, subject.vectors))
        return out

    def _insert(self, rows: _Rows) -> None:
        self._db.executemany(
            "INSERT INTO subject (person, name, reference, region, passcode, last_four, enrolled_us, purpose,"
            " text_version, consent_given_us, consent_expires_us) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            rows.subjects,
        )
        self._db.executemany("INSERT INTO template VALUES (?, ?, ?)", rows.templates)
        self._db.executemany("INSERT OR IGNORE INTO merchant VALUES (?, ?)", rows.merchants)

    def _erase_rows(self, person: int, now_us: int) -> tuple[list[int], bytes]:
        """Deletes somebody's rows and keeps a receipt, in the transaction that is open."""
        templates = self.templates.of(person)
        digest = hashlib.sha256(b"erasure %d %d" % (person, now_us))
        for (sealed,) in self._db.execute("SELECT sealed FROM template WHERE person = ?", (person,)):
            digest.update(hashlib.sha256(sealed).digest())
        for table in ("template", "merchant", "subject"):
            self._db.execute(f"DELETE FROM {table} WHERE person = ?", (person,))  # noqa: S608 - names above
        row = (person, now_us, len(templates), digest.digest())
        self._db.execute("INSERT OR REPLACE INTO erasure VALUES (?, ?, ?, ?)", row)
        return templates, digest.digest()

    def _row(self, person: int, subject: NewSubject, key: AESGCM, now_us: int) -> tuple[object, ...]:
        consent = subject.consent
        return (
            person,
            subject.name,
            seal_row(key, subject.reference.reveal().encode(), b"reference%d" % person),
            subject.region,
            subject.passcode_hash,
            self._keys.last_four_tag(subject.last_four) if subject.last_four else None,
            now_us,
            consent.purpose,
            consent.text_version,
            consent.given_at_us,
            consent.expires_at_us,
        )
