"""A dictionary with a bounded number of entries: the least recently used one is dropped first."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Bounded(Generic[Key, Value]):
    """At most `most` entries, in the order of their use. Threads may share one: each operation is one call into C, and
    an entry that another thread dropped meanwhile is no error. Two operations, such as `get` and then `put`, may
    interleave with another thread's."""

    __slots__ = ("_entries", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self._entries: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """Returns an entry and counts that as a use; None if there is none."""
        found = self._entries.get(key)
        if found is not None:
            with suppress(KeyError):  # dropped since, by another thread
                self._entries.move_to_end(key)
        return found

    def peek(self, key: Key) -> Value | None:
        """Returns an entry without counting that as a use."""
        return self._entries.get(key)

    def put(self, key: Key, value: Value) -> None:
        """Adds or replaces an entry and counts that as a use."""
        entries = self._entries
        entries[key] = value
        with suppress(KeyError):
            entries.move_to_end(key)
            while len(entries) > self.most:
                entries.popitem(last=False)

    def pop(self, key: Key) -> Value | None:
        """Removes and returns an entry; None if there is none."""
        return self._entries.pop(key, None)

    def clear(self) -> None:
        """Removes everything."""
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Key) -> bool:
        return key in self._entries
