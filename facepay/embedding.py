"""Checks embeddings from outside, and normalises them to length one."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

LENGTH_MIN: Final = 1e-3
LENGTH_MAX: Final = 1e3
"""Longest vector that is accepted: networks give lengths from 1 (normalised) to some tens."""


class Unusable(ValueError):  # noqa: N818 - it is what happened
    """An image or embedding that cannot be used; `reason` is a stable word, the text says what to do."""

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        super().__init__(text)


def checked(vector: NDArray[np.floating], dimension: int) -> Vectors:
    """One embedding [dimension] of length one. Raises Unusable for another shape, NaN, infinity or zero."""
    if vector.shape != (dimension,):
        shape = "x".join(str(size) for size in vector.shape)
        raise Unusable("wrong_dimension", f"the embedding has {shape} numbers, this gallery takes {dimension}")
    if not np.isfinite(vector).all():
        raise Unusable("not_finite", "the embedding has NaN or infinite numbers")
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not LENGTH_MIN <= length <= LENGTH_MAX:
        raise Unusable("bad_length", f"the embedding's length is not between {LENGTH_MIN} and {LENGTH_MAX}")
    return np.ascontiguousarray(vector / length, dtype=np.float32)
