"""The simulated world as its engines, and what runs in them, know it: protocols, so that these do not import what is
made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.engine.model import Payment, Waiter
from verification.simulation.callers import SimulatedTokens
from verification.simulation.links import Network
from verification.simulation.plan import Plan
from verification.simulation.readers import Stream, Watcher
from verification.simulation.result import Result
from verification.simulation.storage import Storage
from verification.simulation.witness import Witness


class Process(Protocol):
    """A gateway's process, as its streams and its callers see it."""

    number: int

    def closing_answered(self, closing: Waiter) -> bool:
        """Takes the answer to a request to close a settlement window. False if there is no such request."""
        ...

    def step(self, *, pause: bool = True) -> None:
        """Called between any two steps that the world could observe: the process may end here, or stand still."""
        ...

    def wake(self) -> None:
        """Wakes the engine."""
        ...


class Watched(Protocol):
    """A gateway's process, as the other processes on its journal see it."""

    @property
    def streams(self) -> Sequence[Stream]:
        """Watchers that it serves."""
        ...

    def read_soon(self, delay_us: int) -> None:
        """Wakes the threads that read."""
        ...


class Scene(Protocol):
    """The world around one gateway's process."""

    plan: Plan
    result: Result
    now_us: int
    """True time in microseconds since the start of the run."""
    witness: Witness
    network: Network
    storage: Storage
    tokens: SimulatedTokens
    lost: set[int]
    """Engines whose commits the journal lost."""
    believed_us: dict[int, int]
    """Engine -> how far ahead of true time the clock is that it has to follow."""

    @property
    def nodes(self) -> Sequence[Watched]:
        """All processes on the journal."""
        ...

    @property
    def troubles(self) -> tuple[int, int, int]:
        """What may delay an answer: how often the disk failed, the clocks were set, and engines stood still."""
        ...

    def after(self, delay_us: int, do: Callable[[], None]) -> None:
        """Runs something later."""
        ...

    def say(self, text: str) -> None:
        """Adds a line to the trace."""
        ...

    def stand_still(self, number: int, lasts_us: int) -> None:
        """Lets a process stand still, while everything else goes on."""
        ...

    def cut_power(self, down_us: int) -> None:
        """Cuts the power of the machine of all processes for a while."""
        ...

    def set_clock(self, number: int, by_us: int) -> None:
        """Sets the clock of a process's machine."""
        ...

    def look_at_ended_hold(self, payment: Payment) -> None:
        """A process has ended a hold because its time is over."""
        ...

    def watch(self, watcher: Watcher) -> None:
        """A watcher connects to a process that is up."""
        ...
