"""Photographs in files as embeddings, by models that are on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facepay.embedding import Unusable
from facepay.extraction import ModelsUnusable, open_pack
from facepay.extraction.quality import QualityPolicy, the_one
from facepay.frames import BYTES_MAX, decode_file


class PhotographError(Exception):
    """A photograph, or the models, cannot be used; the text says which and why."""


def read(path: Path) -> bytes:
    """A file's bytes, bounded. Raises Unusable."""
    if path.stat().st_size > BYTES_MAX:
        raise Unusable("too_large", f"{path.name} is larger than {BYTES_MAX} bytes")
    return path.read_bytes()


def embeddings(images: Sequence[Path], models: Path, dimension: int) -> list[NDArray[np.float32]]:
    """One embedding for each photograph, of as many numbers as the gallery takes. Raises PhotographError."""
    try:
        extractor = open_pack(models)
    except ModelsUnusable as error:
        raise PhotographError(str(error)) from None
    if extractor.dimension != dimension:
        raise PhotographError(
            f"these models give {extractor.dimension} numbers, the network's gallery takes {dimension}"
        )
    out = []
    for path in images:
        try:
            image = decode_file(read(path))
            seen, _ = the_one(image, extractor.faces(image), QualityPolicy())
        except Unusable as error:
            raise PhotographError(f"{path}: {error.reason}: {error}") from None
        if seen.embedding is None:
            raise PhotographError(f"{path}: the models refused to take an embedding")
        out.append(seen.embedding)
    return out
