"""`hutong face bench`: one search engine, N simulated people, beside an exact float scan in the same run."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

import numpy as np

from facepay.decision import Policy, thresholds
from facepay.gallery.certificate import Certificate, Exact, compare
from facepay.gallery.engine import BATCH_MAX, Batch, Candidate, Engine, Enrolled, Vectors
from facepay.gallery.floats import FloatScan
from facepay.gallery.gallery import Gallery
from facepay.gallery.sketch import Projection
from facepay.score_model import ScoreModel, fit
from hutong_contract.secret import Secret
from loadtest import faces_population as population
from loadtest.errors import BenchError
from loadtest.faces_population import MATRIX_ROWS_MAX, Asked, FloatBaseline
from loadtest.progress import Advance, Begin
from sandbox.faces.people import People

ENGINES: Final = ("sketch", "int8", "float", "milvus", "gpu")
SINGLE_QUERIES: Final = 300
BATCH_SECONDS: Final = 3.0
PAIRS_MAX: Final = 3_300_000_000
"""Query-row pairs of the exact scan, which bounds the number of queries: half a minute on two cores."""
QUERIES_MAX: Final = 10_400
QUERIES_MIN: Final = 256
MODEL_PROBES: Final = 2_048
MODEL_SAMPLE: Final = 16_384
SAMPLE_CHUNK: Final = 1_024
ISOTROPIC_N_MAX: Final = 1_000_000
"""Beyond, only the clustered data is measured."""
GRPC_N_MAX: Final = 400_000
"""Beyond, gRPC is measured only when asked for: filling a store takes minutes."""


@dataclass(slots=True)
class Report:
    """What was measured; `as_json` has the published keys first."""

    n: int
    engine: str
    single_ms: dict[str, float] = field(default_factory=dict)
    stranger_ms: dict[str, float] = field(default_factory=dict)
    batch_qps: float = 0.0
    batch_mixed_qps: float = 0.0
    grpc_qps: float | None = None
    agreement_with_exact: float = 0.0
    baseline_float_ms: float = 0.0
    speedup_single: float = 0.0
    rss_mb: float = 0.0
    threshold: float = 0.0
    load_s: float = 0.0
    certificates: list[dict[str, object]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """For machines."""
        names = self.__slots__ if isinstance(self.__slots__, tuple) else ()
        return {name: getattr(self, name) for name in names}


def query_count(n: int) -> int:
    """How many queries the certificate takes unless told."""
    return max(QUERIES_MIN, min(QUERIES_MAX, PAIRS_MAX // n))


def open_engine(name: str, folder: Path, threads: int = 2) -> Engine:
    """An empty engine. Raises MilvusUnavailable or GpuUnavailable."""
    projection = Projection(Secret(b"hutong face bench, not a secret!"), population.DIMENSION)
    if name == "float":
        return FloatScan(population.DIMENSION)
    if name == "gpu":
        from facepay.gallery.gpu import GpuScan

        return GpuScan(population.DIMENSION)
    if name == "milvus":
        from facepay.gallery.milvus import MilvusGallery

        return MilvusGallery(str(folder / "milvus.db"), projection)
    gallery = Gallery(folder / "gallery", projection, threads=threads)
    gallery.use_products(name == "int8")
    return gallery


def fill(engine: Engine, people: People, n: int, step: Advance, baseline: FloatBaseline | None = None) -> None:
    """Enrols people 0 .. n - 1; where a baseline is given, it scans each block too."""

    def counted() -> Iterator[Enrolled]:
        for chunk in population.chunks(people, n):
            if baseline is not None:
                baseline.add(int(chunk.persons[0]) - 1, chunk.vectors)
            yield chunk
            step(len(chunk.templates))

    if isinstance(engine, Gallery):
        engine.load(counted(), n)
    else:
        for chunk in counted():
            engine.add(chunk)


def run_baseline(asked: Asked, data: str, folder: Path, step: Advance) -> tuple[Exact, float]:
    """The exact scan in its own process."""
    file = folder / f"{data}.npz"
    numbers = (str(asked.enrolled), str(asked.seed), str(asked.count))
    command = [sys.executable, "-m", "loadtest.faces_population", *numbers, data, str(file)]
    with (folder / f"{data}.log").open("w+") as log:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process:  # noqa: S603 - our own module
            assert process.stdout is not None
            for line in process.stdout:
                step(int(line))
        if process.returncode:
            log.seek(0)
            raise BenchError(f"the float baseline failed: {log.read().strip()[-500:]}")
    with np.load(file) as found:
        return Exact(found["persons"], found["scores"]), float(found["single_ms"])


def model_of(people: People, n: int) -> ScoreModel:
    """The score model as the service fits it: from a sample of those enrolled."""
    random = np.random.default_rng(1)
    starts = np.linspace(0, max(0, n - SAMPLE_CHUNK), MODEL_SAMPLE // SAMPLE_CHUNK, dtype=int)
    chosen = np.concatenate([people.enrolled(int(start), min(n, SAMPLE_CHUNK)) for start in np.unique(starts)])
    return fit(chosen, np.arange(len(chosen), dtype=np.int64), MODEL_PROBES, random)


def batches(probes: Vectors, floor: float, size: int) -> list[Batch]:
    """Probes in batches."""
    floors = np.full(size, floor, np.float32)
    return [Batch(probes[at : at + size], floors[: len(probes[at : at + size])]) for at in range(0, len(probes), size)]


def single(engine: Engine, probes: Vectors, floor: float) -> dict[str, float]:
    """Milliseconds of one query at a time."""
    taken = []
    for batch in batches(probes[:SINGLE_QUERIES], floor, 1):
        start = time.perf_counter()
        engine.search(batch)
        taken.append((time.perf_counter() - start) * 1000)
    return {"p50": round(float(np.median(taken)), 3), "p99": round(float(np.quantile(taken, 0.99)), 3)}


def rate(engine: Engine, probes: Vectors, floor: float) -> float:
    """Queries a second in full batches."""
    full = [batch for batch in batches(probes, floor, BATCH_MAX) if len(batch.vectors) == BATCH_MAX]
    engine.search(full[0])
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < BATCH_SECONDS:
        engine.search(full[done % len(full)])
        done += 1
    return round(done * BATCH_MAX / (time.perf_counter() - start), 1)


def resident_mb() -> float:
    """Memory of this process, mapped files included, in megabytes (10^6 bytes). What the allocator still holds of the
    simulated people that the bench has made and dropped is given back to the system first."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    return 0.0


def certify(engine: Engine, data: str, exact: Exact, asked: Asked, threshold: float, step: Advance) -> Certificate:
    """Compares all queries with the exact scan."""
    found: list[tuple[Candidate, ...]] = []
    for probes, _ in asked.blocks():
        for batch in batches(probes, threshold, BATCH_MAX):
            found += [candidates[:1] for candidates in engine.search(batch)]
        step(len(probes))
    return compare(data, exact, found, threshold, person_offset=1)


def bench(n: int, engine_name: str, seed: int, folder: Path | None, say: Begin, queries: int | None = None) -> Report:
    """Measures one engine. `say(what, total)` starts a progress line and returns what advances it; `queries` is how
    many the certificate takes, on each kind of data."""
    report = Report(n, engine_name)
    with tempfile.TemporaryDirectory(dir=folder, prefix="hutong-face-") as name:
        for data in ("clustered", "isotropic") if n <= ISOTROPIC_N_MAX else ("clustered",):
            asked = Asked(population.people(data, seed), n, queries or query_count(n), seed)
            _bench_on(data, asked, report, Path(name), say)
    report.agreement_with_exact = round(min(cast("float", one["agreement"]) for one in report.certificates), 6)
    return report


def _bench_on(data: str, asked: Asked, report: Report, place: Path, say: Begin) -> None:
    """One kind of data: enrol, certify, and on the clustered kind measure."""
    n, people = asked.enrolled, asked.population
    threshold = thresholds(model_of(people, n), n, Policy()).alone
    engine = open_engine(report.engine, place / data)
    start = time.perf_counter()
    if n <= MATRIX_ROWS_MAX:
        exact, float_ms = run_baseline(asked, data, place, say(f"exact float scan, {data}", n))
        start = time.perf_counter()
        fill(engine, people, n, say(f"enrolling, {data}", n))
    else:
        baseline = FloatBaseline(asked)
        fill(engine, people, n, say(f"enrolling and exact float scan, {data}", n), baseline)
        exact, float_ms = baseline.result()
        report.notes.append("the float scan was timed block by block: its matrix does not fit")
    report.load_s = round(time.perf_counter() - start, 1)
    certificate = certify(engine, data, exact, asked, threshold, say(f"searching, {data}", asked.count))
    report.certificates.append(certificate.as_json() | {"threshold": round(threshold, 4)})
    if data == "clustered":
        report.threshold, report.baseline_float_ms = round(threshold, 4), round(float_ms, 3)
        _measure(report, engine, asked, threshold)
    engine.close()
    del engine
    _empty(place / data)


def _measure(report: Report, engine: Engine, asked: Asked, threshold: float) -> None:
    probes, persons = next(asked.blocks())
    enrolled, strangers = probes[persons >= 0], probes[persons < 0]
    single(engine, enrolled, threshold)
    report.single_ms = single(engine, enrolled, threshold)
    report.stranger_ms = single(engine, strangers, threshold)
    report.batch_qps = rate(engine, enrolled, threshold)
    report.rss_mb = resident_mb()
    report.batch_mixed_qps = rate(engine, probes, threshold)
    report.rss_mb = max(report.rss_mb, resident_mb())
    report.speedup_single = round(report.baseline_float_ms / report.single_ms["p50"], 1)


def _empty(folder: Path) -> None:
    """Gives disk back before the next gallery is written."""
    for file in sorted(folder.rglob("*"), reverse=True) if folder.exists() else ():
        file.rmdir() if file.is_dir() else file.unlink()
