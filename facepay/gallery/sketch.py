"""The arithmetic behind the search: a secret rotation, 1-bit sketches, and how far a sketch may err.

A gallery epoch has a secret orthogonal matrix. Rotating keeps every cosine, makes templates of one epoch useless
in the next, and makes each sign a random hyperplane, so that the distance between sketches of `bits` bits at cosine
c is binomial(bits, acos(c) / pi) whatever the data: isotropic, clustered or twins. That is what `limits` uses.
It is renewability, not irreversibility: whoever has the secret, or as many known pairs as dimensions, undoes it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from facepay.gallery import kernels
from hutong_contract.secret import Secret

Vectors = NDArray[np.float32]
Bits = NDArray[np.uint64]

BITS_STEP: Final = 512
"""Sketches have a multiple of this many bits: one kernel group of eight words."""
SIGMAS: Final = 3.5
"""Standard deviations of the sketch's error that a search allows for: a row exactly at the floor is missed once in
4,000 searches, one that is 0.05 above it once in ten million."""
SIGMAS_FIRST: Final = 4.0
"""The same for the first half of the coarse sketch, where being careful costs nothing."""
DIMENSION_MAX: Final = 4096
"""Largest embedding; networks in use give 128 to 1024."""


class Projection:
    """The secret rotation of one gallery epoch and the hyperplanes of its sketches."""

    def __init__(self, secret: Secret[bytes], dimension: int) -> None:
        if not 8 <= dimension <= DIMENSION_MAX:
            raise ValueError(f"dimension {dimension} is not between 8 and {DIMENSION_MAX}")
        self.dimension = dimension
        # Bits of each of the two sketches of a row.
        self.bits = -(-dimension // BITS_STEP) * BITS_STEP
        self.words = self.bits // 64
        random = np.random.Generator(np.random.Philox(key=_key(secret)))
        self._rotation = _orthogonal(random, dimension)
        frames = [_orthogonal(random, dimension) for _ in range(-(-2 * self.bits // dimension) - 1)]
        planes = np.concatenate([np.eye(dimension, dtype=np.float32), *frames])
        self._coarse = None if self.bits == dimension else np.ascontiguousarray(planes[: self.bits].T)
        self._fine: Vectors = np.ascontiguousarray(planes[self.bits : 2 * self.bits].T)
        # Rotation and the planes of the coarse sketch as one matrix: a query is one product.
        own = [self._rotation] if self._coarse is None else [self._rotation, self._rotation @ self._coarse]
        self._near = np.ascontiguousarray(np.concatenate(own, axis=1))

    def rotate(self, vectors: Vectors) -> Vectors:
        """Unit vectors [M, D] into the epoch's space."""
        rotated: Vectors = np.ascontiguousarray(vectors @ self._rotation, dtype=np.float32)
        return rotated

    def unrotate(self, vectors: Vectors) -> Vectors:
        """Back into the network's own space; for renewal."""
        return np.ascontiguousarray(vectors @ self._rotation.T, dtype=np.float32)

    def signs(self, rotated: Vectors) -> Vectors:
        """Values [M, bits] whose signs are the coarse sketches."""
        if self._coarse is None:
            return rotated
        return np.ascontiguousarray(rotated @ self._coarse, dtype=np.float32)

    def fine(self, rotated: Vectors) -> Bits:
        """Fine sketches [M, words]: other hyperplanes, read only for rows that the coarse sketch lets through."""
        return _packed(rotated @ self._fine)

    def query(self, vectors: Vectors) -> tuple[Vectors, Bits]:
        """Unit vectors [Q, D] as rotated vectors and coarse sketches."""
        values = _product(vectors, self._near)
        rotated = np.ascontiguousarray(values[:, : self.dimension])
        return rotated, _packed(values[:, -self.bits :])

    def fine_query(self, rotated: Vectors) -> Bits:
        """Fine sketches of a few rotated queries [Q, D]."""
        return _packed(_product(rotated, self._fine))


def _product(vectors: Vectors, matrix: Vectors) -> Vectors:
    out = np.empty((len(vectors), matrix.shape[1]), np.float32)
    kernels.project(np.ascontiguousarray(vectors, np.float32), matrix, out)
    return out


def _packed(values: Vectors) -> Bits:
    return np.packbits(values > 0, axis=1, bitorder="little").view(np.uint64)


def limits(scores: Vectors, bits: int, sigmas: float = SIGMAS) -> NDArray[np.int64]:
    """The Hamming distance within which a row of at least these cosines lies, but for the chance of `sigmas`."""
    share = np.arccos(np.clip(scores, -1.0, 1.0)) / np.pi
    spread = np.sqrt(bits * share * (1 - share))
    return np.minimum(np.ceil(bits * share + sigmas * spread), bits).astype(np.int64)


def _key(secret: Secret[bytes]) -> NDArray[np.uint64]:
    derived = HKDF(hashes.SHA256(), 16, None, b"hutong gallery rotation v1").derive(secret.reveal())
    return np.frombuffer(derived, "<u8")


def _orthogonal(random: np.random.Generator, dimension: int) -> Vectors:
    """A matrix drawn uniformly from the orthogonal group (QR of a Gaussian matrix, signs fixed)."""
    q, r = np.linalg.qr(random.standard_normal((dimension, dimension)))
    return np.ascontiguousarray(q * np.sign(np.diag(r)), dtype=np.float32)
