"""The store of record: who is enrolled, with which consent, templates sealed with each subject's own key.

SQLite in WAL mode, synchronous=FULL: what a call did is on disk when it returns. Knows no account number and no token.
Person and template numbers are given once and never again, so that a number in the gallery can never come to
mean somebody else.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from contract import stored_schema
from contract.secret import Secret
from facepay.gallery.engine import Enrolled, Vectors
from facepay.keys import Keyring, open_row, seal_row
from facepay.records import Consent, NewSubject, Subject, Terminal
from facepay.templates import Templates, for_gallery, sealed_rows

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
"""Of the text of the tables, by version. A new text is a new version: an entry is added, and none is ever changed."""


class Store:
    """See the module; safe from several threads."""

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
            person = self._next("subject")
            template = self._next("template")
            persons = list(range(person, person + len(subjects)))
            keys = self._keys.create(persons)
            out, rows, merchants = [], [], []
            templates: list[tuple[int, int, bytes]] = []
            for number, subject, key in zip(persons, subjects, keys, strict=True):
                ids = np.arange(template, template + len(subject.vectors), dtype=np.int64)
                template += len(ids)
                rows.append(self._row(number, subject, key, now_us))
                templates += sealed_rows(ids, number, subject.vectors, key)
                merchants += [(merchant, number) for merchant in subject.merchants]
                out.append(for_gallery(ids, number, subject.region, subject.vectors))
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(
                    "INSERT INTO subject (person, name, reference, region, passcode, last_four, enrolled_us, purpose,"
                    " text_version, consent_given_us, consent_expires_us) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                    rows,
                )
                self._db.executemany("INSERT INTO template VALUES (?, ?, ?)", templates)
                self._db.executemany("INSERT OR IGNORE INTO merchant VALUES (?, ?)", merchants)
                self._db.execute("COMMIT")
            except sqlite3.Error:
                self._db.execute("ROLLBACK")
                raise
            return out

    def replace_templates(self, person: int, vectors: Vectors, region: int) -> tuple[list[int], Enrolled]:
        """Puts new templates in the place of a person's old ones; returns the old ids and the new templates."""
        with self._lock:
            key = self._keys.get(person)
            assert key is not None, "an enrolled person has a key"
            old = self.templates.of(person)
            first = self._next("template")
            ids = np.arange(first, first + len(vectors), dtype=np.int64)
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM template WHERE person = ?", (person,))
            self._db.executemany("INSERT INTO template VALUES (?, ?, ?)", sealed_rows(ids, person, vectors, key))
            self._db.execute("COMMIT")
            return old, for_gallery(ids, person, region, vectors)

    def set_factors(self, person: int, passcode_hash: str, last_four: str) -> None:
        """New passcode and last four digits, and no failures."""
        with self._lock:
            tag = self._keys.last_four_tag(last_four) if last_four else None
            self._db.execute(
                "UPDATE subject SET passcode=?, last_four=?, failures=0, locked_until_us=0 WHERE person=?",
                (passcode_hash, tag, person),
            )

    def delete(self, person: int, now_us: int) -> tuple[list[int], bytes]:
        """Erases somebody: first the key, then every row. Returns the template ids and the receipt that is kept."""
        with self._lock:
            templates = self.templates.of(person)
            self._keys.erase(person)
            digest = hashlib.sha256(b"erasure %d %d" % (person, now_us))
            for (sealed,) in self._db.execute("SELECT sealed FROM template WHERE person = ?", (person,)):
                digest.update(hashlib.sha256(sealed).digest())
            self._db.execute("BEGIN IMMEDIATE")
            for table in ("template", "merchant", "subject"):
                self._db.execute(f"DELETE FROM {table} WHERE person = ?", (person,))  # noqa: S608 - names above
            row = (person, now_us, len(templates), digest.digest())
            self._db.execute("INSERT OR REPLACE INTO erasure VALUES (?, ?, ?, ?)", row)
            self._db.execute("COMMIT")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return templates, digest.digest()

    def person_named(self, name: str) -> int | None:
        """The number behind an operator's name."""
        with self._lock:
            row = self._db.execute("SELECT person FROM subject WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else None

    def subject(self, person: int) -> Subject | None:
        """Somebody enrolled; None where they are gone."""
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
        """The passcode was right."""
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
