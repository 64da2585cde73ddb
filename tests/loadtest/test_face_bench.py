"""Proves: the bench compares with an exact scan that is one, in its own process or block by block, and reports the
published keys. No time is judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from facepay.gallery.certificate import compare
from facepay.gallery.engine import Candidate
from loadtest import faces as face_bench
from loadtest import faces_population as face_population
from loadtest.faces_population import Asked, FloatBaseline

KEYS = {
    "n",
    "single_ms",
    "batch_qps",
    "grpc_qps",
    "agreement_with_exact",
    "baseline_float_ms",
    "speedup_single",
    "rss_mb",
}


def silent(_: str, __: int) -> Callable[[int], None]:
    return lambda _: None


@pytest.mark.slow
def test_both_ways_of_the_exact_scan_certify_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_bench, "BATCH_SECONDS", 0.05)
    apart = face_bench.bench(1_000, "sketch", 3, tmp_path, silent, queries=300).as_json()
    assert set(apart) >= KEYS
    assert apart["agreement_with_exact"] == 1.0
    assert apart["notes"] == []
    assert isinstance(apart["single_ms"], dict)
    assert isinstance(apart["certificates"], list)
    assert apart["single_ms"]["p50"] <= apart["single_ms"]["p99"]
    for module in (face_bench, face_population):
        monkeypatch.setattr(module, "MATRIX_ROWS_MAX", 0)
    monkeypatch.setattr(face_bench, "ISOTROPIC_N_MAX", 0)
    together = face_bench.bench(1_000, "sketch", 3, tmp_path, silent, queries=300).as_json()
    assert together["certificates"] == apart["certificates"][:1]
    assert together["notes"]
    assert not list(tmp_path.iterdir()), "everything written is removed"


def test_the_exact_scan_is_exact_and_a_wrong_answer_is_counted() -> None:
    people = face_population.people("clustered", 3)
    asked = Asked(people, 500, 90, 1)
    baseline = FloatBaseline(asked)
    for start, block in face_population.blocks(people, 500):
        baseline.add(start, block)
    exact, _ = baseline.result()
    probes, persons = asked.all()
    scores = probes @ people.enrolled(0, 500).T
    assert exact.persons[:, 0].tolist() == scores.argmax(axis=1).tolist()
    known = persons >= 0
    assert (exact.persons[known, 0] == persons[known]).mean() > 0.95
    best = zip(scores.argmax(axis=1).tolist(), scores.max(axis=1).tolist(), strict=True)
    found: list[tuple[Candidate, ...]] = [(Candidate(person, score, 0),) for person, score in best]
    assert compare("x", exact, found, 0.3).agreement == 1.0
    wrong = int(np.flatnonzero(exact.scores[:, 0] > 0.5)[0])
    found[wrong] = (Candidate((found[wrong][0].person + 250) % 500, 0.5, 0),)
    counted = compare("x", exact, found, 0.3)
    assert counted.queries - counted.agreed == 1
    found[wrong] = ()
    assert compare("x", exact, found, 0.3).agreed == counted.agreed
