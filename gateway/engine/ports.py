"""What the engine asks of what stands around it: ports. Journals, links, fronts and the intake implement them, and the
engine imports none of these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.engine.model import Answered, EngineEvent, LegOut, Payment, Refused, Waiter, Writes
from hutong_contract.errors import HutongError

# -- the journal -----------------------------------------------------------------------------------------


class JournalUnavailableError(Exception):
    """The journal could not take a tick: disk full, I/O error, no connection. Nothing of the tick is in it."""


class JournalFencedError(Exception):
    """Another gateway has taken over what this engine had in flight. Nothing can be committed any more, so nothing may
    be acknowledged: the engine ends, and begins anew."""


class Journal(Protocol):
    """Durable state, written by the engine's thread alone."""

    def commit(self, writes: Writes) -> list[Refused | None]:
        """Takes a tick in one durable transaction, and says for each admission why it was refused, or None.

        Raises JournalUnavailableError when nothing was taken, or when that could not even be looked up."""
        ...

    def last_was_taken(self) -> bool:
        """Whether the tick whose commit raised is in the journal after all (a failed fsync leaves that open). To be
        asked before anything is committed again; raises JournalUnavailableError while it still cannot be looked up."""
        ...

    def load_open(self) -> list[Payment]:
        """Payments of this engine that have not ended, or have reversals under way."""
        ...

    def load(self, payment_ids: Sequence[bytes]) -> list[Payment]:
        """Payments by id; those that do not exist are left out."""
        ...

    def claim(self, payment_ids: Sequence[bytes]) -> list[Payment]:
        """Those of these payments that this engine may act on: its own, and ended ones that no engine looks after any
        more, which become its own. On a shared journal also those whose funds are held: they become its own in a
        durable transaction, which one engine wins, until it puts them down again. On a journal with one engine, all."""
        ...

    def ended_holds(self, now_us: int, limit: int) -> list[bytes]:
        """Payments at rest whose hold has ended, the oldest first; whoever claims them, undoes them."""
        ...

    def repeats(self, idempotency: Sequence[bytes]) -> dict[bytes, Payment]:
        """Payments that were admitted under these idempotency hashes."""
        ...

    def give_up(self) -> None:
        """From any thread, when the process stops and the journal does not answer: whoever waits for it, here or in a
        reader that was opened beside it, gets JournalUnavailableError at once, now and ever after."""
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...


# -- participants ----------------------------------------------------------------------------------------


class Link(Protocol):
    """Carries legs to some participants. Used by the engine's thread alone, unless said otherwise."""

    def reachable(self, participant: str) -> bool:
        """Whether a leg for this participant could be sent now."""
        ...

    def send(self, legs: Sequence[LegOut], now_us: int) -> list[Answered]:
        """Sends legs, all of them durable. What cannot leave comes back as NOT_SENT, and so do earlier legs that still
        wait for their connection when these ask about them or undo them. That must be certain: a leg that may have left
        is not reported."""
        ...

    def poll(self, now_us: int) -> list[Answered]:
        """Answers that have arrived, and NOT_SENT for legs that waited for their connection until given up."""
        ...

    def next_due_us(self) -> int | None:
        """When `poll` will have something without anything being sent; None if that is not known."""
        ...

    def close(self) -> None:
        """Ends the connections."""
        ...


# -- callers ---------------------------------------------------------------------------------------------


class Call(Waiter, Protocol):
    """A request of a caller as a front received it, and the way back to the caller."""

    method: int
    """Its index in gateway.calls.METHODS."""
    payload: bytes
    """The serialized request message."""
    caller: str
    time_left_us: int | None
    """Microseconds until the call's own deadline; None without one."""


class Source(Protocol):
    """A front that the engine empties by itself (besides its inbox)."""

    def poll(self, at_most: int) -> Sequence[Call]:
        """Calls that wait, without blocking."""
        ...

    def idle(self) -> None:
        """The engine has nothing to do: whoever comes next must wake it through its inbox."""
        ...

    def end(self, error: HutongError) -> None:
        """The engine has ended: whoever comes next is refused at once, with this error."""
        ...


class Intake(Protocol):
    """Turns calls into events: validates, resolves keys, routes. Answers what it refuses by itself. Used by the
    engine's thread alone."""

    @property
    def waiting(self) -> bool:
        """Whether payments wait for the next `prepare` that an earlier one gave to a worker, as those paid by face."""
        ...

    def prepare(self, calls: Sequence[Call], now_us: int, room: int) -> list[EngineEvent]:
        """Events for calls, and for payments that came back from workers. Each is either answered or stands behind an
        event, also where the journal cannot be read.

        Args:
            calls: what fronts received.
            now_us: UTC in microseconds.
            room: how many payments may still be admitted; calls beyond it are refused as OVERLOADED.
        """
        ...

    def refuse(self, error: HutongError) -> None:
        """Answers payments that came back from workers, and are not to be looked at, with an error."""
        ...

    def end(self, error: HutongError) -> None:
        """The engine has ended: the same, also for payments that come back later."""
        ...


# -- other engines ---------------------------------------------------------------------------------------


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
