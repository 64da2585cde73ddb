"""The people that the face benches enrol and photograph, and what an exact scan says of them.

Run as a module this is the baseline in a process of its own, so that its float matrix is not counted as the gallery's
memory: `python -m loadtest.faces_population N SEED QUERIES DATA FILE`. Beyond a million people, where that matrix
does not fit, the bench scans each block while it enrols it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from facepay.gallery.certificate import Exact, Top2
from facepay.gallery.engine import Enrolled, Ids, Vectors
from sandbox.faces.people import Calibration, People

DIMENSION: Final = 512
CHUNK: Final = 16_000
"""People made and enrolled at a time; a multiple of the population's own chunk."""
MATRIX_ROWS_MAX: Final = 1_200_000
"""Up to so many rows the float scan is timed over one matrix (2.4 GB); beyond, block by block."""
QUERY_CHUNK: Final = 8_192
"""Probes made at a time."""
TIMED: Final = 15
"""Queries whose float scan is timed."""
ISOTROPIC: Final = Calibration(cluster_share=1e-6, spectrum_decay=1e-3)
"""No clusters, and every dimension alike."""


def people(data: str, seed: int) -> People:
    """The population of one kind of data: "clustered" (calibrated) or "isotropic"."""
    return People(seed, DIMENSION, ISOTROPIC if data == "isotropic" else None)


def chunks(population: People, count: int) -> Iterator[Enrolled]:
    """Persons 0 .. count - 1 as templates 1 .. count of persons 1 .. count."""
    for start, vectors in blocks(population, count):
        ids: Ids = np.arange(start + 1, start + 1 + len(vectors), dtype=np.int64)
        yield Enrolled(ids, ids, np.zeros(len(ids), np.uint32), vectors)


def blocks(population: People, count: int) -> Iterator[tuple[int, Vectors]]:
    """First person and templates of each chunk; the next one is made on another thread meanwhile."""
    starts = list(range(0, count, CHUNK))
    with ThreadPoolExecutor(1) as pool:

        def make(start: int) -> Future[Vectors]:
            return pool.submit(population.enrolled, start, min(CHUNK, count - start))

        coming = make(starts[0])
        for start, after in zip(starts, [*starts[1:], None], strict=True):
            vectors = coming.result()
            if after is not None:
                coming = make(after)
            yield start, vectors


@dataclass(frozen=True, slots=True)
class Asked:
    """Who is searched for: made again where needed, so that a million queries take no memory."""

    population: People
    enrolled: int
    count: int
    seed: int
    strangers: float = 0.2
    """Share of probes whose person is not enrolled."""

    def blocks(self) -> Iterator[tuple[Vectors, Ids]]:
        """Probes of enrolled people, and among them strangers (person -1)."""
        for number, start in enumerate(range(0, self.count, QUERY_CHUNK)):
            count = min(QUERY_CHUNK, self.count - start)
            random = np.random.default_rng([self.seed, 77, number])
            persons = random.integers(0, self.enrolled, count)
            unknown = random.random(count) < self.strangers
            persons[unknown] = self.enrolled + 8_000 + start + np.flatnonzero(unknown)
            probes = self.population.probes(persons, None, self.seed * 1_000_003 + number)
            yield probes, np.where(unknown, -1, persons)

    def all(self) -> tuple[Vectors, Ids]:
        """All of them at once."""
        parts = list(self.blocks())
        return np.concatenate([probes for probes, _ in parts]), np.concatenate([persons for _, persons in parts])


class FloatBaseline:
    """What an exact float32 scan answers, and how long one query takes it: numpy's BLAS on every processor."""

    def __init__(self, asked: Asked) -> None:
        self._probes, _ = asked.all()
        self._top = Top2(len(self._probes))
        self.whole = asked.enrolled <= MATRIX_ROWS_MAX
        self._matrix = np.empty((asked.enrolled if self.whole else 0, DIMENSION), np.float32)
        self._timed = np.zeros(TIMED)

    def add(self, first: int, block: Vectors) -> None:
        """The templates of persons `first` and on."""
        self._top.offer(self._probes, block, first)
        if self.whole:
            self._matrix[first : first + len(block)] = block
        else:
            self._timed += [_scan(block, probe) for probe in self._probes[:TIMED]]

    def result(self) -> tuple[Exact, float]:
        """The answers, and the median milliseconds of one query."""
        if self.whole:
            self._timed = np.array([_scan(self._matrix, probe) for probe in self._probes[:TIMED]])
        return self._top.result(), float(np.median(self._timed))


def _scan(matrix: Vectors, probe: Vectors) -> float:
    start = time.perf_counter()
    (matrix @ probe).argmax()
    return (time.perf_counter() - start) * 1000


def main() -> None:
    """The baseline as a process: says on standard output how many people it has scanned, and writes an .npz."""
    count, seed, asked, data, file = sys.argv[1:]
    population = people(data, int(seed))
    baseline = FloatBaseline(Asked(population, int(count), int(asked), int(seed)))
    for start, block in blocks(population, int(count)):
        baseline.add(start, block)
        os.write(1, b"%d\n" % len(block))
    exact, single_ms = baseline.result()
    with Path(file).open("wb") as out:
        np.savez(out, persons=exact.persons, scores=exact.scores, single_ms=single_ms)


if __name__ == "__main__":
    main()
