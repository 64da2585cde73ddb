"""The gallery in this process: sealed, memory-mapped segments, a small mutable tail, tombstones.

Readers take a snapshot (a tuple) and never wait. Writers take a lock, publish a new tuple, and are visible to the next
search. The gallery is derived from a `Source` (the encrypted store). Opening compares the two, drops rows that the
source no longer has, and adds those that are missing. That also repairs an interrupted enrolment, erasure or merge, and
a damaged file.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from facepay.gallery import kernels, scan
from facepay.gallery.engine import BATCH_MAX, Batch, Candidate, Enrolled, Ids, Opened, Source, State, Vectors
from facepay.gallery.files import SEGMENT_ROWS_MAX, Files, to_merge
from facepay.gallery.int8 import QUERIES_MIN, Products
from facepay.gallery.segment import Rows
from facepay.gallery.sketch import Bits, Projection

LOAD_ROWS: Final = 16_384
"""Rows that are rotated and quantised at a time."""
NO_TEMPLATE: Final = np.iinfo(np.int64).max
"""Number of a row that was never filled, because its template could not be read: after all others, as ids ascend."""

_warmed: Final = threading.Event()


class Gallery:
    """The gallery in this process, in files under `folder`; None keeps everything in memory."""

    def __init__(self, folder: Path | None, projection: Projection, epoch: int = 1, *, threads: int = 2) -> None:
        self._folder = folder
        self._projection = projection
        self._lock = threading.RLock()
        self._merging = threading.Lock()
        self._files = Files(folder, projection.dimension, projection.words, epoch)
        self._tail = self._files.tail()
        self._parts: tuple[Rows, ...] = ()
        self._pool = ThreadPoolExecutor(threads - 1, "gallery") if threads > 1 else None
        self._products = Products(self._pool)
        self.opened = Opened()

    def __len__(self) -> int:
        with self._lock:
            return sum(part.count - part.dead for part in (*self._parts, self._tail))

    # --- search -----------------------------------------------------------------------------------------------

    def search(self, batch: Batch) -> list[tuple[Candidate, ...]]:
        """For each query the best persons, best first; all at or above its floor, but for the sketch's chance."""
        if len(batch.vectors) > BATCH_MAX:
            raise ValueError(f"{len(batch.vectors)} queries in one batch; split them into {BATCH_MAX}")
        parts = self._snapshot()
        prepared = scan.prepare(batch, self._projection)
        found = scan.search(parts, prepared, self._projection, self._pool, self._products.wide(parts))
        return self._still_there(parts, found)

    def search_among(self, batch: Batch, templates: Sequence[int]) -> list[tuple[Candidate, ...]]:
        """The same among these templates only (a merchant's, or those with the same last four digits)."""
        parts = self._snapshot()
        prepared = scan.prepare(batch, self._projection)
        rows = _places(parts, np.unique(np.asarray(templates, np.int64)))
        return self._still_there(parts, scan.search_rows(parts, prepared, rows))

    def use_products(self, wanted: bool) -> None:
        """Whether int8 matrix products may be used for batches of vague queries (they double the memory)."""
        self._products.enabled = wanted

    def _snapshot(self) -> tuple[Rows, ...]:
        with self._lock:
            # The tail as it is now: the same arrays, but a count that stays.
            return (*self._parts, replace(self._tail))

    def _still_there(self, parts: tuple[Rows, ...], found: list[tuple[Candidate, ...]]) -> list[tuple[Candidate, ...]]:
        """Removes rows from an answer that were erased during the search. Sealing and merging copy rows, so an erasure
        may have happened in the copy."""
        with self._lock:
            now = (*self._parts, self._tail)
            same = parts[:-1] == self._parts
            if same and parts[-1].rows is self._tail.rows:
                return found
            return [
                tuple(candidate for candidate in candidates if _living(now, candidate.template)) for candidates in found
            ]

    def sample(self, count: int, random: np.random.Generator) -> tuple[Vectors, Ids]:
        """Living rows drawn at random (rotated, unit length) and their persons, for fitting the score model."""
        parts = self._snapshot()
        living = [part.living() for part in parts]
        total = sum(len(rows) for rows in living)
        wanted = np.sort(random.choice(total, min(count, total), replace=False))
        vectors, persons, start = [], [], 0
        for part, rows in zip(parts, living, strict=True):
            here = rows[wanted[(wanted >= start) & (wanted < start + len(rows))] - start]
            values = part.rows[here].astype(np.float32)
            vectors.append(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9))
            persons.append(part.persons[here])
            start += len(rows)
        return np.concatenate(vectors), np.concatenate(persons)

    # --- change -----------------------------------------------------------------------------------------------

    def add(self, enrolled: Enrolled) -> None:
        """Makes templates findable. Seals the tail when it is full."""
        for start in range(0, len(enrolled.templates), LOAD_ROWS):
            rotated = self._projection.rotate(enrolled.vectors[start : start + LOAD_ROWS])
            signs, fine = self._projection.signs(rotated), self._projection.fine(rotated)
            done = 0
            while done < len(rotated):
                with self._lock:
                    take = min(len(self._tail.persons) - self._tail.count, len(rotated) - done)
                    chosen = slice(start + done, start + done + take)
                    _fill(self._tail, self._tail.count, enrolled, chosen, (rotated, signs, fine), done)
                    self._tail.count += take
                    if self._tail.count == len(self._tail.persons):
                        self.seal()
                done += take

    def remove(self, templates: Sequence[int]) -> int:
        """Erases rows; nobody finds them in a search that ends after this returned."""
        removed = 0
        with self._lock:
            for part in (*self._parts, self._tail):
                for template in templates:
                    row = part.find(template)
                    if row >= 0 and part.persons[row] != kernels.DEAD:
                        part.erase(row)
                        removed += 1
        return removed

    def seal(self) -> None:
        """Makes a segment of the tail."""
        with self._lock:
            living = self._tail.living()
            if len(living):
                self._publish((*self._parts, self._files.build([(self._tail, living)])))
            self._tail = self._files.tail()

    def maintain(self) -> int:
        """Merges small segments, and those half dead, and returns how many were merged. For a background thread."""
        with self._merging:
            chosen = to_merge(self._parts)
            if not chosen:
                return 0
            sources = [(part, part.living()) for part in chosen]
            merged = self._files.build(sources) if any(len(rows) for _, rows in sources) else None
            with self._lock:
                # Rows erased while the merge ran are erased in its result before anybody can see it.
                for part, rows in sources if merged else ():
                    for template in part.templates[rows[part.persons[rows] == kernels.DEAD]].tolist():
                        assert merged is not None
                        merged.erase(merged.find(template))
                at = self._parts.index(chosen[0])
                rest = [part for part in self._parts if part not in chosen]
                self._publish((*rest[:at], *((merged,) if merged else ()), *rest[at:]))
            for part in chosen:
                if part.path:
                    part.path.unlink(missing_ok=True)
            return len(chosen)

    def load(self, chunks: Iterator[Enrolled], total: int) -> None:
        """Fills an empty gallery with up to `total` templates, straight into segments: rows come in order of their
        ids."""
        chunk, used = next(chunks, None), 0
        for start in range(0, total, SEGMENT_ROWS_MAX):
            count = min(SEGMENT_ROWS_MAX, total - start)
            rows = self._files.new(count)
            done = 0
            while done < count and chunk is not None:
                if used == len(chunk.templates):
                    chunk, used = next(chunks, None), 0
                    continue
                take = min(count - done, len(chunk.templates) - used, LOAD_ROWS)
                rotated = self._projection.rotate(chunk.vectors[used : used + take])
                signs, fine = self._projection.signs(rotated), self._projection.fine(rotated)
                _fill(rows, done, chunk, slice(used, used + take), (rotated, signs, fine), 0)
                done, used = done + take, used + take
            rows.templates[done:], rows.dead = NO_TEMPLATE, count - done
            self._files.finish(rows)
            with self._lock:
                self._publish((*self._parts, rows))

    def state(self) -> State:
        return State(self._files.epoch, len(self._parts), self._tail.count, len(self.opened.quarantined))

    def close(self) -> None:
        """Ends the threads; files stay."""
        if self._pool:
            self._pool.shutdown()
        self._products.close()

    def destroy(self) -> None:
        self.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    # --- files ------------------------------------------------------------------------------------------------

    def recover(self, source: Source) -> Opened:
        """Opens what is on disk and makes it equal to the source; see the module."""
        self._parts, quarantined = self._files.open()
        truth = source.templates()
        known: list[Ids] = []
        dropped = 0
        for part in self._parts:
            rows = part.living()
            stray = rows[~np.isin(part.templates[rows], truth, assume_unique=True)]
            for row in stray.tolist():
                part.erase(row)
            dropped += len(stray)
            known.append(part.templates[part.living()])
        have = np.concatenate(known) if known else np.empty(0, np.int64)
        missing = np.setdiff1d(truth, have, assume_unique=True)
        if not len(have) and len(missing) > LOAD_ROWS:
            pieces = (missing[at : at + LOAD_ROWS] for at in range(0, len(missing), LOAD_ROWS))
            self.load((source.load(piece) for piece in pieces), len(missing))
        else:
            for at in range(0, len(missing), LOAD_ROWS):
                self.add(source.load(missing[at : at + LOAD_ROWS]))
        self.opened = Opened(quarantined, dropped, len(missing))
        return self.opened

    def _publish(self, parts: tuple[Rows, ...]) -> None:
        """Makes these the segments, on disk first."""
        self._files.publish(parts)
        self._parts = parts


def warm_up(projection: Projection) -> None:
    """Loads every kernel in every form that a search uses, from the cache or compiled now, so that no caller waits.
    Once for a process: what is loaded depends on no number."""
    if _warmed.is_set():
        return
    gallery = Gallery(None, projection, threads=1)
    one, vector = np.ones(1, np.int64), np.zeros((1, projection.dimension), np.float32)
    vector[0, 0] = 1
    gallery.add(Enrolled(one, one, np.zeros(1, np.uint32), vector))
    batch = Batch(vector, np.zeros(1, np.float32))
    gallery.search(batch)
    gallery.search_among(batch, [1])
    gallery.seal()
    gallery.use_products(wanted=True)
    # A floor above every cosine, so that products are looked at.
    gallery.search(Batch(np.repeat(vector, QUERIES_MIN, 0), np.full(QUERIES_MIN, 2, np.float32)))
    gallery.close()
    _warmed.set()


def _living(parts: tuple[Rows, ...], template: int) -> bool:
    return any((row := part.find(template)) >= 0 and part.persons[row] != kernels.DEAD for part in parts)


def _fill(
    rows: Rows, at: int, enrolled: Enrolled, chosen: slice, values: tuple[Vectors, Vectors, Bits], begin: int
) -> None:
    """Writes chosen templates as rows `at` and on; `values` are rotated vectors, signs and fine sketches, from
    `begin`."""
    rotated, signs, fine = values
    count = chosen.stop - chosen.start
    end = at + count
    kernels.quantise(rotated[begin : begin + count], rows.rows[at:end], rows.scales[at:end])
    kernels.pack(signs[begin : begin + count], rows.blocks, at)
    rows.fine[at:end] = fine[begin : begin + count]
    rows.templates[at:end] = enrolled.templates[chosen]
    rows.regions[at:end] = enrolled.regions[chosen]
    rows.persons[at:end] = enrolled.persons[chosen]


def _places(parts: tuple[Rows, ...], templates: Ids) -> list[Ids]:
    """For each part the rows of these templates."""
    out = []
    for part in parts:
        rows = np.searchsorted(part.templates[: part.count], templates)
        rows = rows[rows < part.count]
        out.append(np.unique(rows[np.isin(part.templates[rows], templates)]))
    return out
