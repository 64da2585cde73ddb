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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from contract.secret import Secret
from facepay.gallery.engine import Enrolled, Ids, Vectors
from facepay.keys import Keyring, open_row, seal_row

TEMPLATES_MAX: Final = 8
"""Templates of one person: more add errors, not recognition."""
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


@dataclass(frozen=True, slots=True)
class Consent:
    """Why and until when somebody allowed that their face be kept."""

    purpose: str
    text_version: str
    given_at_us: int
    expires_at_us: int = 0
    """0 where it has no end."""


@dataclass(frozen=True, slots=True)
class NewSubject:
    """Somebody to enrol."""

    name: str
    vectors: Vectors
    """[M, D] unit length."""
    reference: Secret[str]
    consent: Consent
    passcode_hash: str | None = None
    last_four: str = field(default="", repr=False)
    region: int = 0
    merchants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """Somebody enrolled."""

    person: int
    name: str
    reference: Secret[str]
    passcode_hash: str | None = field(repr=False)
    has_last_four: bool
    failures: int
    locked_until_us: int
    consent: Consent


@dataclass(frozen=True, slots=True)
class Terminal:
    """A registered terminal."""

    merchant_id: str
    algorithm: int
    public_key: bytes


class Store:
    """See the module; safe from several threads."""

    def __init__(self, folder: Path, keys: Keyring, dimension: int) -> None:
        self._keys = keys
        self._dimension = dimension
        self._lock = threading.RLock()
        self._db = sqlite3.connect(folder / "faces.db", check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("PRAGMA secure_delete=ON")
        self._db.executescript(_SCHEMA)

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
            out, rows, templates, merchants = [], [], [], []
            for number, subject, key in zip(persons, subjects, keys, strict=True):
                ids = np.arange(template, template + len(subject.vectors), dtype=np.int64)
                template += len(ids)
                rows.append(self._row(number, subject, key, now_us))
                templates += [
                    (int(one), number, seal_row(key, _packed(vector), b"template%d" % one))
                    for one, vector in zip(ids, subject.vectors, strict=True)
                ]
                merchants += [(merchant, number) for merchant in subject.merchants]
                out.append(_enrolled(ids, number, subject.region, subject.vectors))
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
            old = self.templates_of(person)
            first = self._next("template")
            ids = np.arange(first, first + len(vectors), dtype=np.int64)
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM template WHERE person = ?", (person,))
            self._db.executemany(
                "INSERT INTO template VALUES (?, ?, ?)",
                [
                    (int(one), person, seal_row(key, _packed(vector), b"template%d" % one))
                    for one, vector in zip(ids, vectors, strict=True)
                ],
            )
            self._db.execute("COMMIT")
            return old, _enrolled(ids, person, region, vectors)

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
            templates = self.templates_of(person)
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

    def templates_of(self, person: int) -> list[int]:
        """Template ids of a person."""
        with self._lock:
            rows = self._db.execute("SELECT template FROM template WHERE person = ? ORDER BY template", (person,))
            return [row[0] for row in rows]

    def templates_with(self, last_four: str, merchant_id: str) -> list[int]:
        """Template ids of those with these last four digits, or in this merchant's sub-gallery, or both; an empty
        string asks for nothing."""
        joins = "JOIN merchant USING (person)" if merchant_id else ""
        tests: list[str] = []
        values: list[object] = []
        if last_four:
            tests.append("last_four = ?")
            values.append(self._keys.last_four_tag(last_four))
        if merchant_id:
            tests.append("merchant = ?")
            values.append(merchant_id)
        where = " AND ".join(tests)
        sql = f"SELECT template FROM subject {joins} JOIN template USING (person) WHERE {where}"  # noqa: S608
        with self._lock:
            return [row[0] for row in self._db.execute(sql, values)]

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

    # --- the gallery's source ---------------------------------------------------------------------------------

    def templates(self) -> Ids:
        """Ids of all templates, ascending."""
        with self._lock:
            rows = self._db.execute("SELECT template FROM template ORDER BY template")
            return np.fromiter((row[0] for row in rows), np.int64)

    def load(self, templates: Ids) -> Enrolled:
        """Templates, decrypted; those that do not decrypt are left out (and so never found)."""
        ids, persons, regions, vectors = [], [], [], []
        with self._lock:
            for start in range(0, len(templates), 500):
                some = templates[start : start + 500].tolist()
                marks = ",".join("?" * len(some))
                sql = (
                    "SELECT template, person, region, sealed FROM template JOIN subject USING (person)"  # noqa: S608
                    f" WHERE template IN ({marks}) ORDER BY template"
                )
                for template, person, region, sealed in self._db.execute(sql, some):
                    vector = self._opened(person, template, sealed)
                    if vector is not None:
                        ids.append(template)
                        persons.append(person)
                        regions.append(region)
                        vectors.append(vector)
        matrix = np.stack(vectors) if vectors else np.empty((0, self._dimension), np.float32)
        return Enrolled(np.array(ids, np.int64), np.array(persons, np.int64), np.array(regions, np.uint32), matrix)

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def _opened(self, person: int, template: int, sealed: bytes) -> Vectors | None:
        key = self._keys.get(person)
        if key is None:
            return None
        try:
            vector = np.frombuffer(open_row(key, sealed, b"template%d" % template), "<f2").astype(np.float32)
        except InvalidTag:
            return None
        return np.asarray(vector / np.linalg.norm(vector), np.float32)

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


def _packed(vector: NDArray[np.float32]) -> bytes:
    """A template as it is kept: float16, whose error is a tenth of the gallery's int8."""
    return vector.astype("<f2").tobytes()


def _enrolled(ids: Ids, person: int, region: int, vectors: Vectors) -> Enrolled:
    persons = np.full(len(ids), person, np.int64)
    return Enrolled(ids, persons, np.full(len(ids), region, np.uint32), vectors)
