"""Ports: what the engine needs from its surroundings. Journals, links, fronts and the intake implement them; the engine
imports none of those."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.engine.model import Answered, EngineEvent, LegOut, Payment, Refused, Waiter, Writes
from hutong_contract.errors import HutongError

# -- the journal -----------------------------------------------------------------------------------------


class JournalUnavailableError(Exception):
    """The journal could not take a tick: disk full, I/O error, no connection. Nothing of the tick was stored."""


class JournalFencedError(Exception):
    """Another gateway has taken over this engine's payments in flight. Nothing can be committed any more, so nothing
    may be acknowledged: the engine ends, and starts again."""


class Journal(Protocol):
    """Durable state, written by the engine's thread alone."""

    def commit(self, writes: Writes) -> list[Refused | None]:
        """Stores a tick in one durable transaction. Returns for each admission why it was refused, or None. Raises
        JournalUnavailableError if nothing was stored, or if even that could not be looked up."""
        ...

    def last_was_taken(self) -> bool:
        """Whether the tick whose commit raised is in the journal after all (a failed fsync leaves that open). Ask
        before anything is committed again; raises JournalUnavailableError while it cannot be looked up."""
        ...

    def load_open(self) -> list[Payment]:
        """Payments of this engine that have not ended, or have reversals under way."""
        ...

    def load(self, payment_ids: Sequence[bytes]) -> list[Payment]:
        """Payments by id; those that do not exist are left out."""
        ...

    def claim(self, payment_ids: Sequence[bytes]) -> list[Payment]:
        """Those of these payments that this engine may act on: its own, and ended ones of dead engines, which become
        its own. On a shared journal also held ones: one engine wins them in a durable transaction, and has them until
        they rest again. On a journal with one engine, all."""
        ...

    def ended_holds(self, now_us: int, limit: int) -> list[bytes]:
        """Held payments whose hold has ended, oldest first. Whoever claims them, reverses them."""
        ...

    def repeats(self, idempotency: Sequence[bytes]) -> dict[bytes, Payment]:
        """Payments that were admitted under these idempotency hashes."""
        ...

    def give_up(self) -> None:
        """From any thread, when the process stops and the journal does not answer: everybody who waits for it, here or
        in a reader that was opened beside it, gets JournalUnavailableError at once, now and later."""
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
        """Sends legs, all of them durable. Returns as NOT_SENT those that cannot be sent, and earlier legs that still
        wait for their connection when these ask about them or reverse them. NOT_SENT is certain: a leg that may have
        been sent is not reported."""
        ...

    def poll(self, now_us: int) -> list[Answered]:
        """Answers that have arrived, and NOT_SENT for legs that waited for their connection until they were given
        up."""
        ...

    def next_due_us(self) -> int | None:
        """When `poll` will have something although nothing is sent; None if that is not known."""
        ...

    def close(self) -> None:
        """Ends the connections."""
        ...


# -- callers ---------------------------------------------------------------------------------------------


class Call(Waiter, Protocol):
    """A request that a front received, and how to answer it."""

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
        """Calls that wait; does not block."""
        ...

    def idle(self) -> None:
        """The engine is idle: the next call must wake it through its inbox."""
        ...

    def end(self, error: HutongError) -> None:
        """The engine has ended: refuses further calls with this error."""
        ...


class Intake(Protocol):
    """Turns calls into events: validates, resolves keys, routes. Answers refusals itself. Used by the engine's thread
    alone."""

    @property
    def waiting(self) -> bool:
        """Whether payments that were given to a worker, such as those paid by face, wait for the next `prepare`."""
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
        """Answers payments that came back from workers with an error, without looking at them."""
        ...

    def end(self, error: HutongError) -> None:
        """The engine has ended: as `refuse`, also for payments that come back later."""
        ...


# -- other engines ---------------------------------------------------------------------------------------


class Neighbours(Protocol):
    """Other engines that share the journal. Used on the engine's thread, unless said otherwise."""

    def start(self) -> None:
        """Begins to keep this engine's lease, and to take over the payments of dead engines."""
        ...

    def poll(self, at_most: int) -> Sequence[EngineEvent]:
        """Takes adopted payments into the book, answers callers whose payments ended elsewhere, and returns what other
        engines passed on. Raises JournalFencedError, once, if another has taken this engine's lease."""
        ...

    def divert(self, events: Sequence[EngineEvent]) -> list[EngineEvent]:
        """Passes on events whose payments another engine has; returns the others. Raises JournalUnavailableError; then
        nothing was passed on."""
        ...

    def follow(self, payment_id: bytes, waiter: Waiter, reply_by_us: int) -> None:
        """Answers the caller when a payment of another engine ends, or with the payment as it is when the caller's time
        is over."""
        ...

    @property
    def answering(self) -> bool:
        """Whether the journal has answered lately. From any thread."""
        ...

    def shift(self, by_us: int) -> None:
        """Adjusts to a step of the clock: callers who follow a payment keep the time that they had left."""
        ...

    def retire(self) -> None:
        """The engine drains: nothing more is taken over. From any thread."""
        ...

    def close(self) -> None:
        """Ends everything and refuses waiting callers. After the engine has ended, from any thread."""
        ...
