"""The engine's inbox: filled from any thread, emptied by the engine's."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Inbox(Generic[Item]):
    """A queue that is drained in batches. It is bounded by the admission control in front of it (see `Engine`)."""

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
        """Ends the inbox: queued items, and those that are put later, are passed to `refuse`."""
        self._refuse = refuse
        refuse(self._left())

    def wake(self) -> None:
        """Wakes the engine without an item."""
        self._wake.set()

    def take(self, at_most: int) -> list[Item]:
        """Removes up to `at_most` items."""
        items = self._items
        return [items.popleft() for _ in range(min(at_most, len(items)))]

    def _left(self) -> list[Item]:
        """Removes everything, safe beside other threads that do the same."""
        left: list[Item] = []
        while True:
            try:
                left.append(self._items.popleft())
            except IndexError:
                return left

    def wait(self, seconds: float) -> None:
        """Sleeps until an item is put, or the time is over."""
        self._wake.wait(seconds)
        self._wake.clear()
