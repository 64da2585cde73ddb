"""A gallery without anybody in it, opened when somebody is first enrolled: until then nobody pays for its kernels.

Loading and compiling them takes seconds, which a network without faces, a restart after a crash above all, need not
wait for. Used only where neither the store nor the disk has a template: what there is, is opened at the start, so that
no face that was erased outlives it and no first search waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from facepay.gallery.engine import Batch, Candidate, Enrolled, Gallery, Ids, Opened, Source, State, Vectors


class DeferredGallery:
    """See facepay.gallery.engine.Gallery."""

    def __init__(self, epoch: int, open_it: Callable[[], Gallery]) -> None:
        self._epoch = epoch
        self._open_it = open_it
        self._opening = threading.Lock()
        self._opened: Gallery | None = None

    def _open(self) -> Gallery:
        with self._opening:
            if self._opened is None:
                self._opened = self._open_it()
            return self._opened

    def __len__(self) -> int:
        return len(self._opened) if self._opened is not None else 0

    def add(self, enrolled: Enrolled) -> None:
        """See the interface."""
        self._open().add(enrolled)

    def remove(self, templates: Sequence[int]) -> int:
        """See the interface."""
        return self._opened.remove(templates) if self._opened is not None else 0

    def search(self, batch: Batch) -> list[tuple[Candidate, ...]]:
        """See the interface."""
        return self._opened.search(batch) if self._opened is not None else [()] * len(batch.vectors)

    def search_among(self, batch: Batch, templates: Sequence[int]) -> list[tuple[Candidate, ...]]:
        """See the interface."""
        return self._opened.search_among(batch, templates) if self._opened is not None else [()] * len(batch.vectors)

    def sample(self, count: int, random: np.random.Generator) -> tuple[Vectors, Ids]:
        """See the interface."""
        return self._open().sample(count, random)

    def recover(self, source: Source) -> Opened:
        """See the interface."""
        if self._opened is None and not len(source.templates()):
            return Opened()
        return self._open().recover(source)

    def maintain(self) -> int:
        """See the interface."""
        return self._opened.maintain() if self._opened is not None else 0

    def state(self) -> State:
        """See the interface."""
        return self._opened.state() if self._opened is not None else State(self._epoch)

    def close(self) -> None:
        """See the interface."""
        if self._opened is not None:
            self._opened.close()

    def destroy(self) -> None:
        """See the interface."""
        if self._opened is not None:
            self._opened.destroy()
