"""What the engine knows of other engines on the same journal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.engine.model import EngineEvent, Waiter


class Neighbours(Protocol):
    """Other engines that share the journal. Called on the engine's thread, unless said otherwise."""

    def start(self) -> None:
        """Begins to keep this engine's lease, and to look after the payments of engines that died."""
        ...

    def poll(self, at_most: int) -> Sequence[EngineEvent]:
        """Takes what was adopted into the book, answers callers whose payments ended elsewhere, and gives what other
        engines passed on. Raises JournalFencedError, once, when another has taken this engine's lease."""
        ...

    def divert(self, events: Sequence[EngineEvent]) -> list[EngineEvent]:
        """Passes events on whose payments are not in the book because another engine carries them out; returns the
        rest. Raises JournalUnavailableError; then nothing was passed on."""
        ...

    def follow(self, payment_id: bytes, waiter: Waiter, reply_by_us: int) -> None:
        """Answers the caller when a payment of another engine ends, or as it stands when the caller's time is over."""
        ...

    @property
    def answering(self) -> bool:
        """Whether the journal has answered lately. From any thread."""
        ...

    def shift(self, by_us: int) -> None:
        """The clock stepped by so many microseconds: callers who follow a payment keep the time that they had left."""
        ...

    def retire(self) -> None:
        """The engine drains: nothing more is adopted. From any thread."""
        ...

    def close(self) -> None:
        """Ends everything; callers who still wait are refused. Once the engine has ended, from any thread."""
        ...
