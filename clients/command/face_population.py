"""The people that the face benches enrol and photograph, and what an exact scan says of them.

Run as a module this is the baseline in a process of its own, so that its float matrix is not counted as the gallery's
memory: `python -m clients.command.face_population N SEED QUERIES DATA FILE`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np

from clients.faces.people import Calibration, People
from facepay.gallery.certificate import Exact, Top2
from facepay.gallery.engine import Enrolled, Ids, Vectors

DIMENSION: Final = 512
CHUNK: Final = 16_000
"""People made and enrolled at a time; a multiple of the population's own chunk."""
MATRIX_ROWS_MAX: Final = 1_200_000
"""Up to so many rows the float scan is timed over one matrix (2.4 GB); beyond, block by block."""
TIMED: Final = 15
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


def queries(population: People, enrolled: int, count: int, seed: int, strangers: float = 0.2) -> tuple[Vectors, Ids]:
    """Probes of enrolled people, and among them a share of strangers (person -1)."""
    random = np.random.default_rng([seed, 77])
    persons = random.integers(0, enrolled, count)
    unknown = random.random(count) < strangers
    persons[unknown] = enrolled + 8_000 + np.flatnonzero(unknown)
    probes = population.probes(persons, None, seed)
    return probes, np.where(unknown, -1, persons)


def baseline(count: int, seed: int, asked: int, data: str) -> tuple[Exact, float, bool]:
    """What an exact float32 scan answers, the median milliseconds of one query, and whether it was one matrix."""
    population = people(data, seed)
    probes, _ = queries(population, count, asked, seed)
    top = Top2(len(probes))
    whole = count <= MATRIX_ROWS_MAX
    matrix = np.empty((count if whole else CHUNK, DIMENSION), np.float32)
    timed = np.zeros(TIMED)
    for start, block in blocks(population, count):
        top.offer(probes, block, start)
        if whole:
            matrix[start : start + len(block)] = block
        else:
            timed += [_scan(block, probe) for probe in probes[:TIMED]]
    if whole:
        timed = np.array([_scan(matrix, probe) for probe in probes[:TIMED]])
    return top.result(), float(np.median(timed)), whole


def _scan(matrix: Vectors, probe: Vectors) -> float:
    start = time.perf_counter()
    (matrix @ probe).argmax()
    return (time.perf_counter() - start) * 1000


def main() -> None:
    """The baseline as a process; writes an .npz."""
    count, seed, asked, data, file = sys.argv[1:]
    exact, single_ms, whole = baseline(int(count), int(seed), int(asked), data)
    with Path(file).open("wb") as out:
        np.savez(out, persons=exact.persons, scores=exact.scores, single_ms=single_ms, whole=whole)


if __name__ == "__main__":
    main()
