"""Proves: thresholds follow N and keep their budget on people they were not fitted on; ambiguity is an answer."""

from __future__ import annotations

import math

import numpy as np
import pytest

from facepay.decision import Outcome, Policy, Thresholds, decide, passcode_needed, thresholds
from facepay.gallery.certificate import Exact, Top2, compare
from facepay.gallery.engine import Candidate
from facepay.score_model import DEFAULT, ScoreModel, false_match_rate, fit, gaussian
from sandbox.faces.people import LOOKALIKE, SIBLING, STRANGER, TWIN, People

LIMITS = Thresholds(alone=0.5, last_four=0.3, enrolled=1000)
POLICY = Policy(margin=0.1)


def found(*scores: float) -> tuple[Candidate, ...]:
    return tuple(Candidate(number, score, number) for number, score in enumerate(scores))


@pytest.mark.parametrize(
    ("scores", "known", "outcome"),
    [
        ((), False, Outcome.NO_MATCH),
        ((0.29,), False, Outcome.NO_MATCH),
        ((0.31,), False, Outcome.NEEDS_LAST_FOUR),
        ((0.31,), True, Outcome.MATCHED),
        ((0.5,), False, Outcome.MATCHED),
        ((0.7, 0.65), False, Outcome.AMBIGUOUS),
        ((0.7, 0.65), True, Outcome.AMBIGUOUS),
        ((0.7, 0.59), False, Outcome.MATCHED),
        ((0.41, 0.29), True, Outcome.MATCHED),
        ((0.34, 0.33), False, Outcome.NEEDS_LAST_FOUR),
    ],
)
def test_outcomes(scores: tuple[float, ...], known: bool, outcome: Outcome) -> None:
    decision = decide(found(*scores), LIMITS, POLICY, last_four_known=known)
    assert decision.outcome is outcome
    assert decision.person == (0 if outcome is Outcome.MATCHED else -1)


def test_small_amounts_by_currency() -> None:
    policy = Policy(small_amount_minor={"CNY": 5_000})
    assert not passcode_needed(5_000, "CNY", policy)
    assert passcode_needed(5_001, "CNY", policy)
    assert passcode_needed(1, "USD", policy)


def test_false_match_rates_of_the_published_table() -> None:
    assert false_match_rate(325_500, 1e-4) == pytest.approx(3.07e-10, rel=0.01)
    assert false_match_rate(1_000_000, 1e-4) == pytest.approx(1e-10, rel=0.01)
    assert false_match_rate(100_000_000, 1e-4) == pytest.approx(1e-12, rel=0.01)


def test_gaussian_model_gives_the_normal_quantile() -> None:
    model = gaussian(0.05, 0.06)
    for z in (3.5, 5.0, 6.0):
        tail = 0.5 * math.erfc(z / math.sqrt(2))
        assert model.threshold(1, tail) == pytest.approx(0.05 + 0.06 * z, abs=0.003)


def test_thresholds_rise_with_the_number_enrolled_and_fall_with_four_digits() -> None:
    rising = [thresholds(DEFAULT, n, Policy()) for n in (100, 10_000, 325_500, 10_000_000)]
    assert [one.alone for one in rising] == sorted(one.alone for one in rising)
    assert all(one.last_four < one.alone for one in rising)


def test_fitted_threshold_keeps_its_budget_on_held_out_people() -> None:
    """Fitted on 6,000 people; searched by 6,000 others, among 4,000 enrolled; a budget large enough to be counted."""
    people = People(21, 256)
    trained = people.enrolled(0, 6000)
    model = fit(trained, np.arange(6000, dtype=np.int64), 1500, np.random.default_rng(1))
    assert model.pairs > 1_000_000
    enrolled = people.enrolled(20_000, 4000)
    strangers = people.probes(np.arange(40_000, 46_000), None, 3)
    best = (strangers @ enrolled.T).max(axis=1)
    for budget in (0.05, 0.01):
        rate = float((best >= model.threshold(4000, budget)).mean())
        # Three standard errors of the count, and not so careful as to be useless.
        assert rate <= budget + 3 * math.sqrt(budget / 6000)
        assert rate >= budget / 20


def test_too_few_people_leave_the_default() -> None:
    people = People(3, 64)
    assert fit(people.enrolled(0, 50), np.arange(50, dtype=np.int64), 50, np.random.default_rng(1)) is DEFAULT


@pytest.mark.slow
def test_interval_narrows_with_more_probes() -> None:
    people = People(22, 128)
    vectors, ids = people.enrolled(0, 4000), np.arange(4000, dtype=np.int64)
    few = fit(vectors, ids, 300, np.random.default_rng(1))
    many = fit(vectors, ids, 3000, np.random.default_rng(1))
    assert 0 < many.spread < few.spread


def test_flat_tail_still_gives_a_threshold() -> None:
    assert ScoreModel(-2.0, -30.0, 0.0, 1).threshold(1000, 1e-4) < 0.98


def test_population_is_seeded_and_calibrated() -> None:
    people, again, other = People(5), People(5), People(6)
    vectors = people.enrolled(3_990, 1_020)
    assert np.array_equal(vectors[15:25], again.enrolled(4_005, 10))
    assert not np.array_equal(vectors[:10], other.enrolled(3_990, 10))
    first = people.enrolled(0, 4000)
    scores = first[:1000] @ first.T
    strangers = scores[np.abs(np.arange(1000)[:, None] - np.arange(4000)[None, :]) > 1]
    assert 0.058 < strangers.std() < 0.068
    genuine = np.einsum("ij,ij->i", first, people.probes(np.arange(4000), None, 1))
    assert 0.75 < genuine.mean() < 0.83
    assert 0.06 < genuine.std() < 0.13
    good = np.einsum("ij,ij->i", first, people.probes(np.arange(4000), 0.95, 1)).mean()
    bad = np.einsum("ij,ij->i", first, people.probes(np.arange(4000), 0.2, 1)).mean()
    assert good - bad > 0.15
    related = {kind: [n for n in range(1, 4000) if people.relation(n) == kind] for kind in (TWIN, LOOKALIKE, SIBLING)}
    means = {kind: np.einsum("ij,ij->i", first[n], first[np.array(n) - 1]).mean() for kind, n in related.items()}
    assert means[TWIN] > 0.75 > means[LOOKALIKE] > means[SIBLING] > 0.3
    assert people.relation(10) == STRANGER


def test_certificate_counts_misses_and_forgives_ties() -> None:
    queries = np.eye(3, 8, dtype=np.float32)
    top = Top2(3)
    top.offer(queries, np.eye(8, dtype=np.float32)[:2], 0)
    top.offer(queries, np.eye(8, dtype=np.float32)[2:], 2)
    exact = top.result()
    assert exact.persons[:, 0].tolist() == [0, 1, 2]
    tied = Exact(exact.persons, np.array([[0.9, 0.1], [0.9, 0.8995], [0.2, 0.1]], np.float32))
    answers = [(Candidate(0, 0.9, 0),), (Candidate(int(exact.persons[1, 1]), 0.9, 0),), ()]
    certificate = compare("clustered", tied, answers, 0.5)
    assert (certificate.queries, certificate.agreed) == (2, 2)
    missed = compare("clustered", tied, [(Candidate(5, 0.9, 0),), (), ()], 0.5)
    assert (missed.agreed, missed.agreement) == (0, 0.0)
