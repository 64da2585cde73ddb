"""The gallery in this process: sealed, memory-mapped segments, a small mutable tail, tombstones.

Readers take a snapshot (a tuple) and never wait. Writers take a lock, publish a new tuple, and are visible to the
next search. The gallery is derived: a `Source` (the encrypted store) holds the truth. Opening compares the two,
drops rows that the source no longer knows, and adds those that are missing: that is how a crash in the middle of
an enrolment, an erasure or a merge, and a damaged file, all end.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from facepay.gallery import kernels, manifest, scan, segment
from facepay.gallery.engine import BATCH_MAX, Batch, Candidate, Enrolled, Ids, Vectors
from facepay.gallery.instructions import BLOCK_ROWS
from facepay.gallery.int8 import Products
from facepay.gallery.segment import Rows, SegmentDamaged
from facepay.gallery.sketch import Bits, Projection

TAIL_ROWS: Final = 8_192
"""Rows before the tail is sealed: 5 MB, written and flushed in some 20 ms."""
SEGMENT_ROWS_MAX: Final = 262_144
"""Rows of the largest segment: 150 MB, so that a merge is a matter of a second."""
SMALL_SEGMENTS_MAX: Final = 8
"""So many segments of one size are merged into one; a search passes over few pieces."""
LOAD_ROWS: Final = 16_384
"""Rows that are rotated and quantised at a time."""


class Source(Protocol):
    """Where the truth about templates is kept."""

    def templates(self) -> Ids:
        """Ids of all living templates, ascending."""
        ...

    def load(self, templates: Ids) -> Enrolled:
        """The templates of these ids."""
        ...


@dataclass(frozen=True, slots=True)
class Opened:
    """What opening found."""

    quarantined: tuple[str, ...] = ()
    """Files that were damaged; moved to `quarantine/` and rebuilt."""
    dropped: int = 0
    """Rows that the source no longer knew."""
    added: int = 0
    """Rows that were missing."""


class Gallery:
    """See the module. `folder` None keeps everything in memory."""

    def __init__(self, folder: Path | None, projection: Projection, epoch: int = 1, *, threads: int = 2) -> None:
        self._folder = folder
        self._projection = projection
        self._dimension, self._words = projection.dimension, projection.words
        self._lock = threading.RLock()
        self._merging = threading.Lock()
        self._manifest = manifest.Manifest(self._dimension, epoch)
        self._tail = segment.in_memory(TAIL_ROWS, self._dimension, self._words)
        self._parts: tuple[Rows, ...] = ()
        self._pool = ThreadPoolExecutor(threads - 1, "gallery") if threads > 1 else None
        self._products = Products(self._pool)
        self.opened = Opened()

    @property
    def epoch(self) -> int:
        """Which secret the rows were rotated with."""
        return self._manifest.epoch

    @property
    def segments(self) -> int:
        """Sealed segments."""
        return len(self._parts)

    @property
    def tail_rows(self) -> int:
        """Rows in the tail."""
        return self._tail.count

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
        """Sealing and merging copy rows: what was erased in the copy during a search is taken out of its answer."""
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
                    take = min(TAIL_ROWS - self._tail.count, len(rotated) - done)
                    chosen = slice(start + done, start + done + take)
                    _fill(self._tail, self._tail.count, enrolled, chosen, (rotated, signs, fine), done)
                    self._tail.count += take
                    if self._tail.count == TAIL_ROWS:
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
                part, self._manifest = self._write([(self._tail, living)], self._manifest)
                self._publish((*self._parts, part))
            self._tail = segment.in_memory(TAIL_ROWS, self._dimension, self._words)

    def maintain(self) -> int:
        """Merges small segments, and those half dead, and returns how many were merged. For a background thread."""
        with self._merging:
            chosen = _to_merge(self._parts)
            if not chosen:
                return 0
            sources = [(part, part.living()) for part in chosen]
            with self._lock:
                name, self._manifest = self._manifest.numbered()
            merged = self._build(sources, name) if any(len(rows) for _, rows in sources) else None
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
        """Fills an empty gallery with `total` templates, straight into segments: rows come in order of their ids."""
        chunk, used = next(chunks), 0
        for start in range(0, total, SEGMENT_ROWS_MAX):
            count = min(SEGMENT_ROWS_MAX, total - start)
            with self._lock:
                name, self._manifest = self._manifest.numbered()
            rows = self._new_rows(name, count)
            done = 0
            while done < count:
                if used == len(chunk.templates):
                    chunk, used = next(chunks), 0
                take = min(count - done, len(chunk.templates) - used, LOAD_ROWS)
                rotated = self._projection.rotate(chunk.vectors[used : used + take])
                signs, fine = self._projection.signs(rotated), self._projection.fine(rotated)
                _fill(rows, done, chunk, slice(used, used + take), (rotated, signs, fine), 0)
                done, used = done + take, used + take
            self._finish(rows, name)
            with self._lock:
                self._publish((*self._parts, rows))

    def close(self) -> None:
        """Ends the threads; files stay."""
        if self._pool:
            self._pool.shutdown()
        self._products.close()

    # --- files ------------------------------------------------------------------------------------------------

    def recover(self, source: Source) -> Opened:
        """Opens what is on disk and makes it equal to the source; see the module."""
        quarantined = self._open_files()
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
        if not len(have) and len(missing) > TAIL_ROWS:
            pieces = (missing[at : at + LOAD_ROWS] for at in range(0, len(missing), LOAD_ROWS))
            self.load((source.load(piece) for piece in pieces), len(missing))
        else:
            for at in range(0, len(missing), LOAD_ROWS):
                self.add(source.load(missing[at : at + LOAD_ROWS]))
        self.opened = Opened(tuple(quarantined), dropped, len(missing))
        return self.opened

    def _open_files(self) -> list[str]:
        if self._folder is None:
            return []
        self._folder.mkdir(parents=True, exist_ok=True)
        found = manifest.load(self._folder)
        if found and (found.dimension, found.epoch) == (self._dimension, self._manifest.epoch):
            self._manifest = found
        else:
            numbers = [int(file.stem.rpartition("-")[2]) for file in self._folder.glob("segment-*.hgs")]
            self._manifest = replace(self._manifest, segments=(), next_number=max(numbers, default=0) + 1)
        parts, damaged = [], []
        for name in self._manifest.segments:
            try:
                parts.append(segment.open_file(self._folder / name, self._dimension, self._words))
            except (SegmentDamaged, FileNotFoundError):
                damaged.append(name)
                self._quarantine(name)
        for file in self._folder.glob("segment-*"):
            if file.name not in self._manifest.segments:
                file.unlink()  # Left by a crash before the manifest named it, or after it no longer did.
        self._publish(tuple(parts))
        return damaged

    def _quarantine(self, name: str) -> None:
        assert self._folder is not None
        place = self._folder / "quarantine"
        place.mkdir(exist_ok=True)
        if (self._folder / name).exists():
            (self._folder / name).replace(place / name)

    def _write(self, sources: list[tuple[Rows, Ids]], before: manifest.Manifest) -> tuple[Rows, manifest.Manifest]:
        name, after = before.numbered()
        return self._build(sources, name), after

    def _build(self, sources: list[tuple[Rows, Ids]], name: str) -> Rows:
        """A new segment of chosen rows of others, in the order of their templates."""
        templates = np.concatenate([part.templates[rows] for part, rows in sources])
        order = np.argsort(templates, kind="stable")
        out = self._new_rows(name, len(templates))
        out.templates[:] = templates[order]
        out.fine[:] = np.concatenate([part.fine[rows] for part, rows in sources])[order]
        out.rows[:] = np.concatenate([part.rows[rows] for part, rows in sources])[order]
        out.scales[:] = np.concatenate([part.scales[rows] for part, rows in sources])[order]
        out.persons[:] = np.concatenate([part.persons[rows] for part, rows in sources])[order]
        out.regions[:] = np.concatenate([part.regions[rows] for part, rows in sources])[order]
        words = np.concatenate([part.words(rows) for part, rows in sources])[order]
        places = np.arange(len(templates))
        out.blocks[places // BLOCK_ROWS, :, places % BLOCK_ROWS] = words
        self._finish(out, name)
        return out

    def _new_rows(self, name: str, count: int) -> Rows:
        if self._folder is None:
            return segment.in_memory(count, self._dimension, self._words)
        self._folder.mkdir(parents=True, exist_ok=True)
        return segment.create(self._folder / name, count, self._dimension, self._words)

    def _finish(self, rows: Rows, name: str) -> None:
        rows.count = len(rows.persons)
        if self._folder is not None:
            segment.publish(rows, self._folder / name, self._dimension, self._words)

    def _publish(self, parts: tuple[Rows, ...]) -> None:
        """Makes these the segments, on disk first."""
        names = tuple(part.path.name for part in parts if part.path)
        self._manifest = replace(self._manifest, segments=names)
        if self._folder is not None:
            manifest.save(self._folder, self._manifest)
        self._parts = parts


def warm_up(projection: Projection) -> None:
    """Compiles the kernels (some seconds on a machine's first start, then from a cache), so that no caller waits."""
    gallery = Gallery(None, projection, threads=1)
    one, vector = np.ones(1, np.int64), np.zeros((1, projection.dimension), np.float32)
    vector[0, 0] = 1
    gallery.add(Enrolled(one, one, np.zeros(1, np.uint32), vector))
    batch = Batch(vector, np.zeros(1, np.float32))
    gallery.search(batch)
    gallery.search_among(batch, [1])
    gallery.close()


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


def _to_merge(parts: tuple[Rows, ...]) -> list[Rows]:
    """Segments to be joined: enough of one size, or one that is half dead."""
    sizes: dict[int, list[Rows]] = {}
    for part in parts:
        if part.dead * 2 > part.count:
            return [part]
        tier = max(0, (part.count // TAIL_ROWS).bit_length() // 3)
        sizes.setdefault(tier, []).append(part)
    for group in sizes.values():
        if len(group) >= SMALL_SEGMENTS_MAX:
            chosen, total = [], 0
            for part in group:
                if total + part.count - part.dead <= SEGMENT_ROWS_MAX:
                    chosen.append(part)
                    total += part.count - part.dead
            if len(chosen) > 1:
                return chosen
    return []
