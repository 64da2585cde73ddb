"""One engine's process in the simulated world: it starts, ticks, crashes between any two steps, and starts again."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from gateway.engine.clock import Clock, PaymentIds
from gateway.engine.core import Core
from gateway.engine.loop import Engine
from gateway.engine.model import Answered, Create, EngineEvent
from gateway.engine.transitions import Outcome
from gateway.intake import PaymentIntake
from gateway.journal.interface import JournalMismatchError, JournalUnavailableError
from gateway.journal.sqlite import SqliteJournal
from gateway.routing import Router
from gateway.simulation.callers import SimulatedCall, directory
from gateway.simulation.disk import CrashError, TornError
from gateway.simulation.links import SimulatedLink
from gateway.simulation.plan import SECOND, Crash

if TYPE_CHECKING:
    from gateway.simulation.world import World

START_US: Final = 1_790_000_000 * SECOND
"""When runs begin, microseconds since the Unix epoch."""
TICK_US: Final = 200
"""Virtual time that a tick takes."""
RETRY_US: Final = 100_000
"""Between attempts while the journal cannot be used, as in the engine's own loop."""
IDLE_US: Final = 5_000
NEWEST_KEYS_MAX: Final = 4
"""So few that most keys are in the journal's table, and some are written there in nearly every tick."""
START_RETRY_US: Final = 1 * SECOND
CRASH_AT_LATEST_US: Final = 1 * SECOND
"""An engine that has nothing to do crashes after this all the same."""
_DIRECTORY: Final = directory()


class VirtualClock(Clock):
    """The engine's clock: true time, and by how much this machine differs from it."""

    def __init__(self, true_us: Callable[[], int]) -> None:
        self._true_us = true_us
        self.ahead_us = 0

    def now_us(self) -> int:
        """Microseconds since the Unix epoch."""
        return START_US + self._true_us() + self.ahead_us


class WatchedCore(Core):
    """The core, whose creates and transitions are noted."""

    def __init__(self, world: World) -> None:
        super().__init__(world.plan.timing, trace=True)
        self._world = world

    def step(self, events: Sequence[EngineEvent], now_us: int, *, look_for_due: bool = True) -> Outcome:
        """As the core's."""
        for event in events:
            if isinstance(event, Create):
                self._world.witness.labels[event.payment.payment_id] = event.payment.reference
        out = super().step(events, now_us, look_for_due=look_for_due)
        self._world.result.transitions.update(out.transitions)
        return out


class Node:
    """One engine, from start to start."""

    def __init__(self, world: World, number: int) -> None:
        self.number = number
        self.engine: Engine | None = None
        self.core = WatchedCore(world)
        self.clock = VirtualClock(lambda: world.now_us)
        self.calls: list[SimulatedCall] = []
        """On their way in the engine that lives now."""
        self.tick_at_us: int | None = None
        self.recovered = 0
        """Payments in flight that the last start found."""
        self._world = world
        self._link: SimulatedLink | None = None
        self._connections = world.disk.connections(self.step)
        self._crash: Crash | None = None
        self._steps_left = 0
        self._lives = 0
        self._failures = 0

    # -- life and death --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the engine on what the disk has; tries again where the disk does not let it."""
        if self.engine is not None:
            return
        world = self._world
        self._lives += 1
        failed = world.disk.failed
        try:
            engine = self._build()
        except CrashError as crash:
            self.die(crash)
        except (sqlite3.Error, JournalMismatchError, JournalUnavailableError) as error:
            self._connections.close_all()
            if world.disk.failed > failed:
                world.witness.disk_failed = True
                world.after(START_RETRY_US, self.start)
            else:
                world.witness.complain("a gateway starts on a sound disk", repr(error))
        else:
            self.engine, self._failures = engine, 0
            world.witness.open(world.disk.path)
            world.witness.after_restart()
            world.say(f"engine {self.number} starts with {self.recovered} payments in flight")
            self.tick_at_us = world.now_us

    def _build(self) -> Engine:
        world = self._world
        journal = SqliteJournal(
            world.disk.path, self.number + 1, factory=self._connections.factory, newest_keys_max=NEWEST_KEYS_MAX
        )
        link = self._link = SimulatedLink(world.network, self.number, self.step, world.witness)
        router = Router(_DIRECTORY, link.reachable)
        ids = PaymentIds(random.Random(f"{world.plan.seed}/{self.number}/{self._lives}").randbytes)
        intake = PaymentIntake(router, world.tokens, journal, bytes(32), ids=ids)
        self.core = WatchedCore(world)
        engine = Engine(
            self.core,
            journal,
            link,
            intake,  # type: ignore[arg-type]
            clock=self.clock,
            in_flight_max=world.plan.in_flight_max,
            on_commit=self.step,
            observe=router.observe,
        )
        self.recovered = engine.recover()
        return engine

    def step(self) -> None:
        """Called between any two steps that the world could see: the process may end here."""
        if self._crash is not None:
            self._steps_left -= 1
            if self._steps_left < 0:
                raise CrashError

    def crash_soon(self, crash: Crash) -> None:
        """The process ends after some further steps, or soon where nothing happens."""
        if self.engine is not None and self._crash is None:
            self._crash, self._steps_left = crash, crash.steps
            self._world.after(CRASH_AT_LATEST_US, lambda: self._crash_now(crash))

    def _crash_now(self, crash: Crash) -> None:
        if self._crash is crash:
            self.die(CrashError())

    def spare(self) -> None:
        """No crash is to come any more."""
        self._crash = None

    def die(self, crash: CrashError) -> None:
        """The process ended; where the power failed with it, so does every other."""
        world, planned = self._world, self._crash
        torn = isinstance(crash, TornError)
        power = torn or (planned is not None and planned.power)
        world.result.faults["torn_commit" if torn else "power_cut" if power else "crash"] += 1
        down_us = planned.down_us if planned is not None else SECOND
        if planned is not None and planned.clock_us:
            self.clock.ahead_us += planned.clock_us
            world.witness.clocks_differ = True
            world.result.faults["clock_set"] += 1
        if power:
            world.cut_power(down_us)
        else:
            world.say(f"engine {self.number} ends")
            self.vanish()
            world.after(down_us, self.start)

    def vanish(self) -> None:
        """What the process held is gone."""
        self._crash = None
        self._connections.close_all()
        for call in self.calls:
            call.lost = True
        self.calls.clear()
        self.engine = self._link = self.tick_at_us = None

    # -- ticks -----------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One tick of the engine, and when the next is due."""
        engine, world = self.engine, self._world
        assert engine is not None, "ticks are planned for living engines only"
        try:
            busy = engine.tick()
            world.witness.disk_failed |= bool(world.disk.failed)
            if not world.disk.hole:
                # SQLite shows a commit whose sync failed to nobody, until it is written anew.
                world.witness.after_tick()
        except CrashError as crash:
            self.die(crash)
        except Exception as error:  # noqa: BLE001 - whatever the engine raises is a finding
            world.witness.complain("the engine does not break", f"{type(error).__name__}: {error}")
        else:
            self._plan_tick(engine, busy)

    def _plan_tick(self, engine: Engine, busy: bool) -> None:
        now_us = self._world.now_us
        failures, self._failures = self._failures, engine.counts.commit_failures
        if busy or len(engine.inbox):
            self.tick_at_us = now_us + TICK_US
        elif not engine.writable or failures != self._failures:
            self.tick_at_us = now_us + RETRY_US
        elif (due_us := self._next_due_us(engine)) is None:
            self.tick_at_us = None
        else:
            self.tick_at_us = max(due_us - self.clock.now_us() + now_us, now_us + IDLE_US)

    def _next_due_us(self, engine: Engine) -> int | None:
        """When something in flight, or the end of a hold, is to be looked at, by the engine's clock."""
        due_us = self.core.next_due_us()
        (until_us,) = self._world.witness.reader.execute(
            "SELECT min(hold_until_us) FROM payments WHERE open = 2", ()
        ).fetchone()
        if until_us is None:
            return due_us
        hold_us = max(int(until_us), engine.next_hold_look_us)
        return hold_us if due_us is None else min(due_us, hold_us)

    def wake(self) -> None:
        """Something waits for the engine."""
        if self.engine is not None and self.engine.writable:
            soon_us = self._world.now_us + TICK_US
            self.tick_at_us = soon_us if self.tick_at_us is None else min(self.tick_at_us, soon_us)

    def submit(self, call: SimulatedCall) -> bool:
        """A request arrives; False where nobody listens."""
        if self.engine is None:
            call.lost = True
            return False
        call.node = self.number
        call.ask = (self.clock.now_us(), *self._world.troubles)
        self.calls.append(call)
        self.engine.inbox.put([call])
        self.wake()
        return True

    def deliver(self, answered: Answered) -> bool:
        """A participant's answer arrives; False where nobody listens."""
        if self._link is None:
            return False
        self._link.arrived.append(answered)
        self.wake()
        return True
