"""The decorator of every kernel: numba, without the interpreter's lock, cached in the folder of `kernel_cache`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from facepay.gallery import kernel_cache
from hutong_contract.extras import needs

with needs("faces"):
    from numba import njit
    from numba.core import config
    from numba.core.caching import UserWideCacheLocator


_FOLDER: Final = kernel_cache.folder()


class Locator(UserWideCacheLocator):
    """Tells numba to keep kernels in `kernel_cache.folder()`, wherever their source lies."""

    def __init__(self, function: Any, file: str) -> None:
        super().__init__(function, file)
        self._cache_path = str(_FOLDER)


def kernel(**options: Any) -> Callable[[Any], Any]:
    """Compiles a function when it is first called with each set of types; `options` are those of numba.njit. Where the
    cache cannot be written, it is compiled at each start."""

    def compiled(function: Any) -> Any:
        before = config.CACHE_LOCATOR_CLASSES
        # Read once, while the function is decorated.
        config.CACHE_LOCATOR_CLASSES = f"{Locator.__module__}.{Locator.__qualname__}"
        try:
            return njit(nogil=True, cache=_FOLDER is not None, **options)(function)
        finally:
            config.CACHE_LOCATOR_CLASSES = before

    return compiled
