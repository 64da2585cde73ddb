"""Parts of the application `hutong` that are installed on request only, and the error where one is missing.

    with needs("faces"):
        import numba

The extras are those of pyproject.toml; `make` installs all of them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

EXTRAS: Final = {
    "bench": ("hpack", "hdrh", "matplotlib", "psutil", "scipy"),
    "faces": ("cv2", "llvmlite", "numba", "onnxruntime"),
    "hsm": ("pkcs11",),
    "insightface": ("insightface",),
    "milvus": ("pymilvus",),
    "pictures": ("cv2",),
    "postgres": ("psycopg",),
}
"""Extra to the modules that it installs."""


class MissingExtraError(ImportError):
    """A part that was not installed is needed; the text says how to install it."""

    def __init__(self, extra: str, module: str) -> None:
        self.extra = extra
        super().__init__(f"{module} is not installed: pip install 'hutong[{extra}]'", name=module)


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Around imports of modules of an extra. Raises MissingExtraError where one of them is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS[extra]:
            raise
        raise MissingExtraError(extra, module) from error


def check_installed(extra: str) -> None:
    """Raises MissingExtraError unless all modules of an extra are installed; imports none of them."""
    for module in EXTRAS[extra]:
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(extra, module)
