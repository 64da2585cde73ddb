"""Open-set errors on the calibrated population: does the threshold keep its budget on people it has not seen?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Final

import numpy as np

from facepay import score_model
from facepay.decision import Outcome, Policy, decide, thresholds
from facepay.gallery.engine import BATCH_MAX, Enrolled, Ids, Vectors
from facepay.gallery.gallery import Gallery
from facepay.gallery.sketch import Projection
from hutong_contract.secret import Secret
from loadtest import faces_population as population
from loadtest.faces import MODEL_PROBES, MODEL_SAMPLE, batches
from loadtest.progress import Begin
from sandbox.faces import people as who

RELATIVES: Final = 400
"""Probes of each kind of relative, reported apart: no threshold tells twins apart."""


def upper_95(errors: int, trials: int) -> float:
    """Upper end of the 95 % interval of a rate: exact for no error, Wilson's otherwise."""
    if trials == 0:
        return 1.0
    if errors == 0:
        return float(1 - 0.05 ** (1 / trials))
    z, p = 1.96, errors / trials
    middle, spread = p + z * z / (2 * trials), z * math.sqrt((p * (1 - p) + z * z / (4 * trials)) / trials)
    return (middle + spread) / (1 + z * z / trials)


def measure(n: int, strangers: int, mated: int, seed: int, say: Begin) -> dict[str, object]:
    """Enrols n people, then searches for enrolled ones and for strangers, and decides as the service does."""
    people = population.people("clustered", seed)
    gallery = Gallery(None, Projection(Secret(b"hutong open set, not a secret!!!"), population.DIMENSION))
    step = say(f"enrolling {n:,}", n)

    def counted() -> Iterator[Enrolled]:
        for chunk in population.chunks(people, n):
            yield chunk
            step(len(chunk.templates))

    gallery.load(counted(), n)
    random = np.random.default_rng([seed, 5])
    vectors, persons = gallery.sample(MODEL_SAMPLE, random)
    model = score_model.fit(vectors, persons, MODEL_PROBES, random, n)
    policy = Policy()
    limits = thresholds(model, n, policy)
    known = np.sort(random.integers(0, n, mated))
    unknown = np.arange(n + 8_000, n + 8_000 + strangers)
    step = say("searching", mated + strangers)

    def outcomes(numbers: Ids, salt: int) -> list[tuple[Outcome, int]]:
        probes: Vectors = people.probes(numbers, None, salt)
        out = []
        for batch in batches(probes, limits.alone, BATCH_MAX):
            for found in gallery.search(batch):
                decision = decide(found, limits, policy)
                out.append((decision.outcome, decision.person - 1))
            step(len(batch.vectors))
        return out

    right = outcomes(known, 1)
    wrong = outcomes(unknown, 2)
    answers = [
        (outcome is Outcome.MATCHED, person == asked)
        for (outcome, person), asked in zip(right, known.tolist(), strict=True)
    ]
    missed = sum(not (matched and own) for matched, own in answers)
    named_other = sum(matched and not own for matched, own in answers)
    false = sum(one in (Outcome.MATCHED, Outcome.AMBIGUOUS) for one, _ in wrong)
    relatives = {}
    for relation in (who.SIBLING, who.LOOKALIKE, who.TWIN):
        # The relative is enrolled, the one at the camera is not: their numbers are beyond those searched for above.
        pairs = [one for one in range(1, n) if people.relation(one) == relation][:RELATIVES]
        gallery.remove([one + 1 for one in pairs])
        seen = outcomes(np.array(pairs), 3)
        relatives[relation] = round(sum(one is Outcome.MATCHED for one, _ in seen) / max(1, len(seen)), 4)
    gallery.close()
    return {
        "n": n,
        "threshold": round(limits.alone, 4),
        "threshold_last_four": round(limits.last_four, 4),
        "model_pairs": model.pairs,
        "fpir_budget": policy.fpir,
        "strangers": strangers,
        "fpir": false / strangers,
        "fpir_upper_95": upper_95(false, strangers),
        "searches_of_enrolled": mated,
        "fnir": missed / mated,
        "fnir_upper_95": upper_95(missed, mated),
        "taken_for_another": named_other,
        "outcomes_of_enrolled": dict(Counter(one.value for one, _ in right)),
        "outcomes_of_strangers": dict(Counter(one.value for one, _ in wrong)),
        "matched_as_their_relative": relatives,
    }
