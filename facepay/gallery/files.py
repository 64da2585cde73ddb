"""A gallery's folder: which segments there are, new ones, damaged ones. Without a folder everything stays in memory.

A segment is visible once the manifest names it: what a crash leaves under other names is swept away at the next start.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from facepay.gallery import manifest, segment
from facepay.gallery.engine import Ids
from facepay.gallery.instructions import BLOCK_ROWS
from facepay.gallery.segment import Rows, SegmentDamaged

TAIL_ROWS: Final = 8_192
"""Rows before the tail is sealed: 5 MB, written and flushed in some 20 ms."""
SEGMENT_ROWS_MAX: Final = 262_144
"""Rows of the largest segment: 150 MB, so that a merge is a matter of a second."""
SMALL_SEGMENTS_MAX: Final = 8
"""So many segments of one size are merged into one; a search passes over few pieces."""


class Files:
    """Segments of one gallery epoch; safe from several threads."""

    def __init__(self, folder: Path | None, dimension: int, words: int, epoch: int) -> None:
        self._folder = folder
        self._dimension, self._words = dimension, words
        self._lock = threading.Lock()
        self._manifest = manifest.Manifest(dimension, epoch)

    @property
    def epoch(self) -> int:
        """Which secret the rows were rotated with."""
        return self._manifest.epoch

    def tail(self) -> Rows:
        """An empty tail."""
        return segment.in_memory(TAIL_ROWS, self._dimension, self._words)

    def new(self, count: int) -> Rows:
        """An empty segment of `count` rows, to be filled and then finished."""
        if self._folder is None:
            return segment.in_memory(count, self._dimension, self._words)
        with self._lock:
            name, self._manifest = self._manifest.numbered()
        self._folder.mkdir(parents=True, exist_ok=True)
        return segment.create(self._folder / name, count, self._dimension, self._words)

    def finish(self, rows: Rows) -> Rows:
        """Makes a filled segment durable; it counts from now on, and is visible once it is published."""
        rows.count = len(rows.persons)
        if rows.path is not None:
            segment.publish(rows, rows.path, self._dimension, self._words)
        return rows

    def build(self, sources: Sequence[tuple[Rows, Ids]]) -> Rows:
        """A finished segment of chosen rows of others, in the order of their templates."""
        templates = np.concatenate([part.templates[rows] for part, rows in sources])
        order = np.argsort(templates, kind="stable")
        out = self.new(len(templates))
        out.templates[:] = templates[order]
        out.fine[:] = np.concatenate([part.fine[rows] for part, rows in sources])[order]
        out.rows[:] = np.concatenate([part.rows[rows] for part, rows in sources])[order]
        out.scales[:] = np.concatenate([part.scales[rows] for part, rows in sources])[order]
        out.persons[:] = np.concatenate([part.persons[rows] for part, rows in sources])[order]
        out.regions[:] = np.concatenate([part.regions[rows] for part, rows in sources])[order]
        words = np.concatenate([part.words(rows) for part, rows in sources])[order]
        places = np.arange(len(templates))
        out.blocks[places // BLOCK_ROWS, :, places % BLOCK_ROWS] = words
        return self.finish(out)

    def publish(self, parts: Sequence[Rows]) -> None:
        """Makes these the segments, durably."""
        with self._lock:
            names = tuple(part.path.name for part in parts if part.path)
            self._manifest = replace(self._manifest, segments=names)
            if self._folder is not None:
                manifest.save(self._folder, self._manifest)

    def open(self) -> tuple[tuple[Rows, ...], tuple[str, ...]]:
        """What is on disk: whole segments, and the names of damaged ones, which are moved to `quarantine/`."""
        if self._folder is None:
            return (), ()
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
                self._quarantine(self._folder, name)
        for file in self._folder.glob("segment-*"):
            if file.name not in self._manifest.segments:
                file.unlink()  # Left by a crash before the manifest named it, or after it no longer did.
        self.publish(parts)
        return tuple(parts), tuple(damaged)

    def _quarantine(self, folder: Path, name: str) -> None:
        place = folder / "quarantine"
        place.mkdir(exist_ok=True)
        if (folder / name).exists():
            (folder / name).replace(place / name)


def to_merge(parts: Sequence[Rows]) -> list[Rows]:
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
