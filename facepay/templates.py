"""Templates in the store of record: sealed with each subject's own key, opened for the gallery alone.

`Templates` is the gallery's source of truth (facepay.gallery.engine.Source) on the store's own connection.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from facepay.gallery.engine import Enrolled, Ids, Vectors
from facepay.keys import Keyring, open_row, seal_row


class Templates:
    """The sealed templates on the store's connection; `lock` guards that connection."""

    def __init__(self, db: sqlite3.Connection, lock: threading.RLock, keys: Keyring, dimension: int) -> None:
        self._db, self._lock, self._keys, self._dimension = db, lock, keys, dimension

    def of(self, person: int) -> list[int]:
        """Template ids of a person."""
        with self._lock:
            rows = self._db.execute("SELECT template FROM template WHERE person = ? ORDER BY template", (person,))
            return [row[0] for row in rows]

    def packed_of(self, person: int) -> list[bytes]:
        """A person's templates as `packed` makes them, in the order of enrolment; none where they do not decrypt."""
        key = self._keys.get(person)
        if key is None:
            return []
        with self._lock:
            sql = "SELECT template, sealed FROM template WHERE person = ? ORDER BY template"
            rows = self._db.execute(sql, (person,)).fetchall()
        try:
            return [open_row(key, sealed, b"template%d" % template) for template, sealed in rows]
        except InvalidTag:
            return []

    def known_by(self, last_four: str, merchant_id: str) -> list[int]:
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

    def _opened(self, person: int, template: int, sealed: bytes) -> Vectors | None:
        key = self._keys.get(person)
        if key is None:
            return None
        try:
            vector = np.frombuffer(open_row(key, sealed, b"template%d" % template), "<f2").astype(np.float32)
        except InvalidTag:
            return None
        return np.asarray(vector / np.linalg.norm(vector), np.float32)


def sealed_rows(ids: Ids, person: int, vectors: Vectors, key: AESGCM) -> Sequence[tuple[int, int, bytes]]:
    """Rows of the table `template`."""
    return [
        (int(one), person, seal_row(key, packed(vector), b"template%d" % one))
        for one, vector in zip(ids, vectors, strict=True)
    ]


def packed(vector: NDArray[np.float32]) -> bytes:
    """A template as it is kept: float16, whose error is a tenth of the gallery's int8."""
    return vector.astype("<f2").tobytes()


def for_gallery(ids: Ids, person: int, region: int, vectors: Vectors) -> Enrolled:
    """A person's templates as a gallery takes them."""
    persons = np.full(len(ids), person, np.int64)
    return Enrolled(ids, persons, np.full(len(ids), region, np.uint32), vectors)
