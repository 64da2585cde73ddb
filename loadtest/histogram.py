"""Latencies as counts: the buckets of HdrHistogram with three significant digits, filled a block at a time.

Recording a value costs an append; a block of them is counted by numpy, 0.03 µs each. Histograms of several generators,
seconds or workers are added up, and leave as an `hdrh` histogram, whose text and log forms other tools read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from hutong_contract.extras import needs

if TYPE_CHECKING:
    from hdrh.histogram import HdrHistogram

DIGITS: Final = 3
"""Significant decimal digits that are kept of a value."""
VALUE_MAX_US: Final = 3_600_000_000
"""One hour; what took longer is counted as that."""
NAMES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "p99.99": 99.99}
"""The percentiles that reports give, by their names."""

_SUB_BITS: Final = 11
"""Values below 2^11 have a bucket each; above, each doubling has half as many (1,024: three digits)."""
_HALF: Final = 1 << (_SUB_BITS - 1)


def _index(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bucket of each value, as HdrHistogram numbers them."""
    shift = np.maximum(np.frexp(values.astype(np.float64))[1] - _SUB_BITS, 0).astype(np.int64)
    index: NDArray[np.int64] = ((shift + 1) << (_SUB_BITS - 1)) + (values >> shift) - _HALF
    return index


_SIZE: Final = int(_index(np.array([VALUE_MAX_US], np.int64))[0]) + 1


def _highest(index: NDArray[np.int64]) -> NDArray[np.int64]:
    """The largest value that belongs to each bucket."""
    shift = np.maximum((index >> (_SUB_BITS - 1)) - 1, 0)
    sub = (index & (_HALF - 1)) + np.where(index >= _HALF, _HALF, 0)
    low = np.where(index < 2 * _HALF, index, sub << shift)
    highest: NDArray[np.int64] = low + (np.int64(1) << shift) - 1
    return highest


class Histogram:
    """Counts of latencies in whole microseconds. Not for several threads."""

    __slots__ = ("_counts", "_max", "_new", "_sum")

    def __init__(self) -> None:
        self._counts = np.zeros(_SIZE, np.int64)
        self._new: list[float] = []
        self._max = 0
        self._sum = 0

    def record(self, seconds: float) -> None:
        """Adds one latency."""
        self._new.append(seconds)
        if len(self._new) >= 8192:
            self._fold()

    def record_all(self, seconds: Iterable[float]) -> None:
        """Adds several latencies."""
        self._new.extend(seconds)
        self._fold()

    def add(self, other: Histogram) -> None:
        """Adds all that another histogram counted."""
        other._fold()
        self._fold()
        self._counts += other._counts
        self._max = max(self._max, other._max)
        self._sum += other._sum

    def _fold(self) -> None:
        if not self._new:
            return
        values = np.clip(np.rint(np.array(self._new) * 1e6), 0, VALUE_MAX_US).astype(np.int64)
        self._new.clear()
        self._counts += np.bincount(_index(values), minlength=_SIZE)
        self._max = max(self._max, int(values.max()))
        self._sum += int(values.sum())

    @property
    def count(self) -> int:
        """How many latencies were added."""
        self._fold()
        return int(self._counts.sum())

    @property
    def mean_ms(self) -> float:
        """Their mean in milliseconds; 0 where there is none."""
        count = self.count
        return self._sum / count / 1e3 if count else 0.0

    @property
    def max_ms(self) -> float:
        """The largest in milliseconds; 0 where there is none."""
        self._fold()
        return self._max / 1e3

    def percentile_ms(self, percent: float) -> float:
        """The smallest value in milliseconds, to three digits, that `percent` of all latencies do not exceed."""
        self._fold()
        total = int(self._counts.sum())
        if not total:
            return 0.0
        at = np.searchsorted(np.cumsum(self._counts), max(1, int(np.ceil(total * percent / 100.0 - 1e-9))))
        return min(int(_highest(np.array([at], np.int64))[0]), self._max) / 1e3

    def percentiles_ms(self, names: Mapping[str, float] = NAMES) -> dict[str, float]:
        """Percentiles by name, in milliseconds; empty where nothing was counted."""
        if not self.count:
            return {}
        return {name: round(self.percentile_ms(percent), 3) for name, percent in names.items()}

    def buckets(self) -> dict[int, int]:
        """Count by the largest value of its bucket, in microseconds; buckets without a value are left out."""
        self._fold()
        there = np.flatnonzero(self._counts)
        return dict(zip(_highest(there).tolist(), self._counts[there].tolist(), strict=True))

    def to_hdrh(self) -> HdrHistogram:
        """The same counts as a histogram of the package `hdrh`, in microseconds."""
        with needs("bench"):
            from hdrh.histogram import HdrHistogram

        made = HdrHistogram(1, VALUE_MAX_US, DIGITS)
        for value, count in self.buckets().items():
            made.record_value(max(1, value), count)
        return made

    def __getstate__(self) -> tuple[dict[int, int], int, int]:
        self._fold()
        there = np.flatnonzero(self._counts)
        return dict(zip(there.tolist(), self._counts[there].tolist(), strict=True)), self._max, self._sum

    def __setstate__(self, state: tuple[dict[int, int], int, int]) -> None:
        counts, self._max, self._sum = state
        self._new = []
        self._counts = np.zeros(_SIZE, np.int64)
        for at, count in counts.items():
            self._counts[at] = count
