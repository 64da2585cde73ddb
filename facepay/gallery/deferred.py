"""A gallery that is opened in the background, so that neither a caller's deadline nor the start of a network waits for
it.

Opening loads the search kernels (some 2 seconds of CPU) and compiles them at the first start on a machine. If nobody is
enrolled, it starts with the first enrolment, so that a network without faces never pays for it. If somebody is, it
starts at once. Until the gallery is open every call raises GalleryNotReady, so that an erased face is never found.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from facepay.gallery import kernel_cache
from facepay.gallery.engine import (
    Batch,
    Candidate,
    Enrolled,
    Gallery,
    GalleryNotReady,
    GalleryUnavailable,
    Ids,
    Opened,
    Source,
    State,
    Vectors,
)

log = logging.getLogger(__name__)
LOAD_S: Final = 3.0
"""What loading compiled kernels usually takes, in seconds, for callers who are told when to come back."""


class DeferredGallery:
    """A Gallery that is opened when `open_now`, `wait` or the first `add` asks for it. Where the kernels were not
    compiled on this machine before, compiling starts as soon as this is made."""

    def __init__(self, epoch: int, open_it: Callable[[], Gallery], *, empty: bool) -> None:
        """`open_it` opens the gallery and makes it equal to the store. `empty`: nobody is enrolled and nothing is on
        disk, so that searches find nobody until it is opened."""
        self._epoch = epoch
        self._open_it = open_it
        self._empty = empty
        self._lock = threading.Lock()
        self._opened: Gallery | None = None
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._closed = False
        self._load_began = 0.0
        cold = not kernel_cache.is_warm() and kernel_cache.folder() is not None
        self._compilation = kernel_cache.Compilation() if cold else None

    # --- opening ----------------------------------------------------------------------------------------------

    def open_now(self) -> None:
        """Begins to open, unless that has begun already or failed just now."""
        with self._lock:
            if self._opened is None and self._thread is None and not self._closed:
                self._failure = None
                self._ended.clear()
                self._thread = threading.Thread(target=self._run, name="face-opening", daemon=True)
                self._thread.start()

    def wait(self, timeout_s: float | None) -> Gallery:
        """The gallery, opened within this many seconds. Raises GalleryNotReady, and GalleryUnavailable where it cannot
        be opened; the next call tries again."""
        failure = self._failure
        if self._opened is None:
            self.open_now()
            if failure is None:
                self._ended.wait(timeout_s)
        opened, failure = self._opened, failure or self._failure
        if opened is not None:
            return opened
        if failure is not None:
            raise GalleryUnavailable(f"the face gallery cannot be opened: {failure}") from failure
        raise GalleryNotReady(max(1.0, self._left_s()))

    def _run(self) -> None:
        if self._compilation is not None:
            self._compilation.wait()
        self._load_began = time.monotonic()
        opened: Gallery | None = None
        failure: Exception | None = None
        try:
            opened = None if self._closed else self._open_it()
        except Exception as error:
            log.exception("the face gallery cannot be opened")
            failure = error
        with self._lock:
            self._thread = None
            self._failure = failure
            if not self._closed:
                self._opened, opened = opened, None
            self._ended.set()
        if opened is not None:  # Closed meanwhile.
            opened.close()

    def _left_s(self) -> float:
        compiling = self._compilation.left_s() if self._compilation is not None else 0.0
        if self._thread is None and not compiling:
            return 0.0
        began = self._load_began
        return compiling + (max(1.0, LOAD_S - (time.monotonic() - began)) if began else LOAD_S)

    def _now(self) -> Gallery | None:
        """The gallery; None where nobody is enrolled and it need not be open. Raises GalleryNotReady."""
        return self._opened if self._opened is not None or self._empty else self.wait(0)

    # --- the interface ----------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._opened) if self._opened is not None else 0

    def add(self, enrolled: Enrolled) -> None:
        self.wait(0).add(enrolled)

    def remove(self, templates: Sequence[int]) -> int:
        gallery = self._now()
        return gallery.remove(templates) if gallery is not None else 0

    def search(self, batch: Batch) -> list[tuple[Candidate, ...]]:
        gallery = self._now()
        return gallery.search(batch) if gallery is not None else [()] * len(batch.vectors)

    def search_among(self, batch: Batch, templates: Sequence[int]) -> list[tuple[Candidate, ...]]:
        gallery = self._now()
        return gallery.search_among(batch, templates) if gallery is not None else [()] * len(batch.vectors)

    def sample(self, count: int, random: np.random.Generator) -> tuple[Vectors, Ids]:
        return self.wait(0).sample(count, random)

    def recover(self, source: Source) -> Opened:
        if self._opened is None and self._empty and not len(source.templates()):
            return Opened()
        return self.wait(0).recover(source)

    def maintain(self) -> int:
        return self._opened.maintain() if self._opened is not None else 0

    def state(self) -> State:
        return self._opened.state() if self._opened is not None else State(self._epoch, ready_in_s=self._left_s())

    def close(self) -> None:
        with self._lock:
            self._closed = True
            thread, opened = self._thread, self._opened
        if self._compilation is not None:
            self._compilation.stop()
        if thread is not None:
            thread.join()
        if opened is not None:
            opened.close()

    def destroy(self) -> None:
        opened = self._opened
        self.close()
        if opened is not None:
            opened.destroy()
