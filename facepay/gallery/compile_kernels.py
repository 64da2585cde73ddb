"""Compiles the search kernels into their cache: what kernel_cache starts as a process of its own."""

from __future__ import annotations

import os
from typing import Final

from facepay.gallery import kernel_cache
from facepay.gallery.gallery import warm_up
from facepay.gallery.sketch import Projection
from hutong_contract.secret import Secret

NICENESS: Final = 10
DIMENSION: Final = 512
"""Of the embeddings of every face model here."""


def compile_all() -> None:
    """Compiles every kernel into the cache, unless somebody else does or did: one process of a machine at a time.

    Raises:
        OSError: the cache's folder cannot be written.
    """
    place = kernel_cache.folder()
    if place is None:
        raise OSError(f"{kernel_cache.root()} cannot be written")
    import fcntl

    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if kernel_cache.is_warm():
            return
        warm_up(Projection(Secret(b"only its shapes matter"), DIMENSION))
        kernel_cache.mark_warm()


if __name__ == "__main__":
    os.nice(NICENESS)
    compile_all()
