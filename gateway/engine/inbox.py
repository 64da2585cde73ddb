"""What waits for the engine: filled from any thread, emptied by the engine's."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Inbox(Generic[Item]):
    """A queue that is drained in batches. Its bound is the admission control at its mouth, see `Engine`."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._wake = threading.Event()
        self._refuse: Callable[[Iterable[Item]], None] | None = None

    def __len__(self) -> int:
        return len(self._items)

    def put(self, items: Iterable[Item]) -> None:
        """Adds items, in order, and wakes the engine."""
        self._items.extend(items)
        self._wake.set()
        if self._refuse is not None:
            self._refuse(self._left())

    def end(self, refuse: Callable[[Iterable[Item]], None]) -> None:
        """The engine takes nothing any more: what waits, and what is put from now on, goes to `refuse`."""
        self._refuse = refuse
        refuse(self._left())

    def wake(self) -> None:
        """Wakes the engine without giving it anything."""
        self._wake.set()

    def take(self, at_most: int) -> list[Item]:
        """Removes up to `at_most` items."""
        items = self._items
        return [items.popleft() for _ in range(min(at_most, len(items)))]

    def _left(self) -> list[Item]:
        """Removes everything, beside other threads that do the same."""
        left: list[Item] = []
        while True:
            try:
                left.append(self._items.popleft())
            except IndexError:
                return left

    def wait(self, seconds: float) -> None:
        """Sleeps until something is put, or the time is over."""
        self._wake.wait(seconds)
        self._wake.clear()
