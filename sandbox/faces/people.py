"""A seeded population of faces as embeddings: who looks like whom, and how a camera blurs it.

Geometry. A person is a unit vector: a demographic cluster's centre, plus an individual part whose variance falls
over the dimensions, so that cosines between strangers spread like those of real networks (sigma 0.061 to 0.066 at
512 dimensions; isotropic vectors would give an easy 0.044). Fixed places in each thousand are twins, siblings and
lookalikes of the person before them. A photograph is the person's vector mixed with noise of the same spectrum;
the mix follows its quality. Measured against 400 portraits with a small network: genuine 0.79 +- 0.13.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

CHUNK: Final = 4_000
"""People made from one random stream: any of them can be made again without the others before them."""
CLUSTERS: Final = 24
"""Demographic groups."""
TWIN, SIBLING, LOOKALIKE, STRANGER = "twin", "sibling", "lookalike", "stranger"
_RELATED: Final = (
    {999: TWIN} | dict.fromkeys(range(50, 950, 50), SIBLING) | dict.fromkeys(range(125, 1000, 250), LOOKALIKE)
)
"""Place in each thousand -> relation to the person one place before: 1 twin, 18 siblings, 4 lookalikes."""
_LIKENESS: Final = {TWIN: 0.93, LOOKALIKE: 0.60, SIBLING: 0.45}
"""Cosine between the two persons' own vectors, before a camera blurs both."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The numbers that shape the population; the defaults are fitted for 512 dimensions."""

    cluster_share: float = 0.028
    """Mean squared length of the cluster centre in a person: strangers of one cluster have this cosine on average."""
    spectrum_decay: float = 3.8
    """The variance of individual dimensions falls from first to last by exp(-decay)."""
    enrolled_purity: float = 0.935
    """Share (as a cosine) of the person in a photograph taken for enrolment."""
    probe_purity_floor: float = 0.62
    """The same for a probe of quality 0."""
    probe_purity_gain: float = 0.31
    """What quality 1 adds to it."""
    probe_purity_sigma: float = 0.085
    """How far single probes of one quality differ."""


class People:
    """Everybody, by number from 0; the same seed gives the same people."""

    def __init__(self, seed: int, dimension: int = 512, calibration: Calibration | None = None) -> None:
        self.dimension = dimension
        self.calibration = calibration or Calibration()
        self._seed = seed
        random = np.random.default_rng([seed, 1])
        centres = random.standard_normal((CLUSTERS, dimension), dtype=np.float32)
        share = self.calibration.cluster_share * random.uniform(0.4, 1.6, (CLUSTERS, 1)).astype(np.float32)
        self._centres: Vectors = _unit(centres) * np.sqrt(share)
        variance = np.exp(-self.calibration.spectrum_decay * np.linspace(0, 1, dimension)).astype(np.float32)
        self._spread: Vectors = np.sqrt(variance / variance.sum()).astype(np.float32)

    def relation(self, person: int) -> str:
        """How a person relates to the one numbered one less."""
        return _RELATED.get(person % 1000, STRANGER)

    def identities(self, first: int, count: int) -> Vectors:
        """The persons' own vectors, [count, dimension], unit length."""
        out = np.empty((count, self.dimension), np.float32)
        done = 0
        while done < count:
            chunk, offset = divmod(first + done, CHUNK)
            take = min(CHUNK - offset, count - done)
            out[done : done + take] = self._chunk(chunk)[offset : offset + take]
            done += take
        return out

    def enrolled(self, first: int, count: int, sitting: int = 0) -> Vectors:
        """Templates as taken at enrolment; another sitting gives another photograph of the same people."""
        out = np.empty((count, self.dimension), np.float32)
        done = 0
        while done < count:
            chunk, offset = divmod(first + done, CHUNK)
            take = min(CHUNK - offset, count - done)
            random = np.random.default_rng([self._seed, 3, chunk, sitting])
            noise = self._noise(random, CHUNK)[offset : offset + take]
            people = self._chunk(chunk)[offset : offset + take]
            out[done : done + take] = _mix(people, noise, np.float32(self.calibration.enrolled_purity))
            done += take
        return out

    def probes(self, persons: NDArray[np.int64], quality: NDArray[np.float32] | float | None, seed: int) -> Vectors:
        """Photographs at a terminal. `quality` is 0 to 1, one for all or one each; None draws it as cameras do."""
        random = np.random.default_rng([self._seed, 4, seed])
        shape = self.calibration
        level = self.qualities(len(persons), seed) if quality is None else np.asarray(quality, np.float32)
        purity = shape.probe_purity_floor + shape.probe_purity_gain * level
        purity = purity + random.normal(0, shape.probe_purity_sigma, len(persons))
        purity = np.clip(purity, 0.05, 0.985).astype(np.float32)[:, None]
        return _mix(self._of(persons), self._noise(random, len(persons)), purity)

    def qualities(self, count: int, seed: int) -> NDArray[np.float32]:
        """Qualities as a shop's cameras give them: mostly good, with a tail."""
        return np.random.default_rng([self._seed, 5, seed]).beta(6, 2, count).astype(np.float32)

    def _of(self, persons: NDArray[np.int64]) -> Vectors:
        out = np.empty((len(persons), self.dimension), np.float32)
        for chunk in np.unique(persons // CHUNK):
            here = persons // CHUNK == chunk
            out[here] = self._chunk(int(chunk))[persons[here] % CHUNK]
        return out

    def _noise(self, random: np.random.Generator, count: int) -> Vectors:
        noise: Vectors = random.standard_normal((count, self.dimension), dtype=np.float32)
        return _unit(noise * self._spread)

    def _chunk(self, chunk: int) -> Vectors:
        random = np.random.default_rng([self._seed, 2, chunk])
        cluster = random.integers(0, CLUSTERS, CHUNK)
        individual = random.standard_normal((CHUNK, self.dimension), dtype=np.float32) * self._spread
        people = _unit(self._centres[cluster] + individual)
        for place, relation in _RELATED.items():
            likeness = np.float32(_LIKENESS[relation])
            people[place::1000] = _mix(people[place - 1 :: 1000], people[place::1000], likeness)
        return people


def _unit(vectors: Vectors) -> Vectors:
    """Scales rows to length one."""
    length = np.sqrt(np.einsum("ij,ij->i", vectors, vectors)).astype(np.float32)
    unit: Vectors = vectors / length[:, None]
    return unit


def _mix(first: Vectors, second: Vectors, share: Vectors | np.float32) -> Vectors:
    """Unit vectors whose cosine with `first` is about `share`."""
    rest = np.sqrt(1 - np.square(share, dtype=np.float32), dtype=np.float32)
    return _unit(share * first + rest * second)
