"""A dictionary that never holds more than so many entries: what was used longest ago is forgotten first."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Bounded(Generic[Key, Value]):
    """At most `most` entries, in the order of their use.

    Threads may share one: each step on it is one call into C, and an entry that another thread dropped meanwhile is no
    error. Two steps together, such as `get` and then `put`, may interleave with another thread's.
    """

    __slots__ = ("_entries", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self._entries: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """An entry, which is used by that; None where there is none."""
        found = self._entries.get(key)
        if found is not None:
            with suppress(KeyError):  # dropped since, by another thread
                self._entries.move_to_end(key)
        return found

    def peek(self, key: Key) -> Value | None:
        """An entry as `get`, which is not used by that."""
        return self._entries.get(key)

    def put(self, key: Key, value: Value) -> None:
        """Adds or replaces an entry, which is used by that."""
        entries = self._entries
        entries[key] = value
        with suppress(KeyError):
            entries.move_to_end(key)
            while len(entries) > self.most:
                entries.popitem(last=False)

    def pop(self, key: Key) -> Value | None:
        """Takes an entry out; None where there is none."""
        return self._entries.pop(key, None)

    def clear(self) -> None:
        """Forgets everything."""
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Key) -> bool:
        return key in self._entries
