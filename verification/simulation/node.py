"""One engine's process in the simulated world: it starts, ticks, crashes between any two steps, and starts again."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from gateway.admission import Gate
from gateway.calls import payments_in
from gateway.engine.clock import Clock, PaymentIds
from gateway.engine.clock_watch import ClockWatch
from gateway.engine.core import Core
from gateway.engine.loop import Engine
from gateway.engine.model import Answered, Close, Create, EngineEvent, Payment, Waiter
from gateway.engine.ports import JournalFencedError, JournalUnavailableError
from gateway.engine.states import State
from gateway.engine.transitions import Outcome
from gateway.intake import PaymentIntake
from gateway.journal.interface import ClockDiffersError, JournalMismatchError, JournalWentBackError
from gateway.queries import Queries
from gateway.risk.judge import Judge
from gateway.risk.rule_file import default_rules
from gateway.routing import Router
from gateway.watch import WatchHub
from verification.simulation.callers import SimulatedCall, directory
from verification.simulation.closings import SimulatedClosing
from verification.simulation.plan import SECOND, Crash, Pause
from verification.simulation.readers import Query, Stream, Watcher
from verification.simulation.scene import Scene
from verification.simulation.storage import CrashError, GoneError, LostError, Neighbour, TornError
from verification.simulation.streams import SimulatedLink

START_US: Final = 1_790_000_000 * SECOND
"""When runs begin, microseconds since the Unix epoch."""
TICK_US: Final = 200
"""Virtual time that a tick takes."""
RETRY_US: Final = 100_000
"""Between attempts while the journal cannot be used, as in the engine's own loop."""
IDLE_US: Final = 5_000
START_RETRY_US: Final = 1 * SECOND
RESTART_US: Final = 2 * SECOND
"""Time until a process that ended is started again by its supervisor, in microseconds."""
ENGINE, NEIGHBOURS, READERS, STREAMS = "engine", "neighbours", "readers", "streams"
"""The threads of a process that the world plays."""
READ_US: Final = 300
"""Time until woken queries and watchers are served, in microseconds."""
POLL_US: Final = 200_000
"""Time between looks at full watchers, and at journals that others write; see gateway.watch."""
_DIRECTORY: Final = directory()


class VirtualClock(Clock):
    """A process's clock on a machine whose wall clock can be set: true time plus an offset."""

    def __init__(self, true_us: Callable[[], int], ahead_us: int = 0) -> None:
        self.ahead_us = ahead_us
        super().__init__(lambda: (START_US + true_us() + self.ahead_us) * 1000, lambda: true_us() * 1000)


class WatchedCore(Core):
    """The core; its creates and transitions are recorded."""

    def __init__(self, world: Scene) -> None:
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

    def _end_hold(self, payment: Payment, out: Outcome) -> None:
        held = payment.state is State.HELD
        super()._end_hold(payment, out)
        if held and payment.state is not State.HELD:
            self._world.look_at_ended_hold(payment)


class Node:
    """One engine's process, through all its starts."""

    def __init__(self, world: Scene, number: int) -> None:
        self.number = number
        self.engine: Engine | None = None
        self.core = WatchedCore(world)
        self.clock = VirtualClock(lambda: world.now_us)
        self._clock_watch = ClockWatch(self.clock)
        self.calls: list[SimulatedCall] = []
        """Calls in the running engine."""
        self.closings: list[SimulatedClosing] = []
        """Requests to close settlement windows in the running engine."""
        self.tick_at_us: int | None = None
        self.turn_at_us: int | None = None
        """When the thread that watches other engines takes its next turn."""
        self.neighbours: Neighbour | None = None
        self.holder = ""
        self.recovered = 0
        """Payments in flight that the last start recovered."""
        self._world = world
        self._link: SimulatedLink | None = None
        self._gate: Gate | None = None
        self._process = world.storage.process(number, self)
        self._crash: Crash | None = None
        self._steps_left = 0
        self._pause: Pause | None = None
        self._pause_steps_left = 0
        self._still: set[str] = set()
        """Threads that are inside a step, or stand still."""
        self._names = 0
        self._lives = 0
        self._failures = 0
        self._waiting = False
        self._refused = False
        """Whether its last start failed."""
        self._queries: Queries | None = None
        self._hub: WatchHub | None = None
        self._reads: list[Query] = []
        self.streams: list[Stream] = []

    # -- life and death --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the engine on what the disk has; tries again if the disk prevents it."""
        if self.engine is not None:
            return
        world = self._world
        self._lives += 1
        self.holder = f"process {self.number}/{self._names}"
        failed = world.storage.failed
        try:
            engine = self._build()
        except CrashError as crash:
            self.die(crash)
        except JournalWentBackError:
            self._process.close_all()
            world.say(f"engine {self.number} does not start on a journal that went back")
            world.after(START_RETRY_US, self.start)
        except (sqlite3.Error, JournalMismatchError, JournalUnavailableError) as error:
            self._process.close_all()
            self._refused = True
            if isinstance(error, ClockDiffersError) and world.witness.clocks_differ:
                world.say(f"engine {self.number} does not start while its machine's clock is wrong")
                world.after(START_RETRY_US, self.start)
            elif world.storage.failed > failed:
                world.witness.disk_failed = True
                world.after(START_RETRY_US, self.start)
            else:
                world.witness.complain("a gateway starts on a sound disk", repr(error))
        else:
            self.engine, self._failures, self._refused = engine, 0, False
            if world.lost:
                self._begin()
                return
            world.witness.open(world.storage.rows)
            world.witness.after_restart()
            world.witness.claims.look_at_unfinished(
                world.witness.reader,
                self.number + 1 if self.neighbours is None else self.neighbours.engine,
                self.core.book,
            )
            world.say(f"engine {self.number} starts with {self.recovered} payments in flight")
            self._begin()

    def _begin(self) -> None:
        """Starts its threads."""
        self._listen()
        self.tick_at_us = self._world.now_us
        if self.neighbours is not None:
            self.turn_at_us = self._world.now_us + self.neighbours.waits_us

    def _build(self) -> Engine:
        world = self._world
        self.clock = VirtualClock(lambda: world.now_us, self.clock.ahead_us)  # a new process looks at the machine's
        self._clock_watch = ClockWatch(self.clock)
        if not world.storage.has_clock:
            world.believed_us[self.number] = self.clock.ahead_us  # there is nothing to compare with
        journal = self._process.open_journal()
        link = self._link = SimulatedLink(world, self, self.write)
        router = Router(_DIRECTORY, link.reachable)
        ids = PaymentIds(random.Random(f"{world.plan.seed}/{self.number}/{self._lives}").randbytes)
        judge = Judge(default_rules())
        intake = PaymentIntake(router, world.tokens, journal, bytes(32), ids=ids, judge=judge)
        self.core = WatchedCore(world)
        engine = Engine(
            self.core,
            journal,
            link,
            intake,
            clock=self.clock,
            in_flight_max=world.plan.in_flight_max,
            on_commit=self._committed,
            observe=router.observe,
            on_refusal=judge.not_taken,
        )
        self._gate = gate = Gate(engine.inbox, clock=self.monotonic_s)
        engine.add_source(gate)
        self.neighbours = self._process.join(engine, self.core)
        self._queries = Queries(self._process.open_reader, _DIRECTORY.merchants, threaded=False)
        self._hub = WatchHub(self._process.open_reader, threaded=False)
        self.recovered = engine.recover()
        return engine

    def look_at_clock(self) -> None:
        """A gateway that is alone on its journal compares the machine's clock with its own record."""
        if self.engine is not None and self.neighbours is None:
            self._clock_watch.look()
            self.wake()

    def step(self, *, pause: bool = True) -> None:
        """Called between any two steps that the world could observe: the process may end here, or stand still."""
        if self._crash is not None:
            self._steps_left -= 1
            if self._steps_left < 0:
                raise CrashError
        # Most of what the other thread does matters to nobody: a process stands still in a tick.
        if self._pause is not None and (ENGINE in self._still or not self._pause.whole):
            self._pause_steps_left -= 1
            if pause and self._pause_steps_left < 0:
                self._stand_still(self._pause)

    def _stand_still(self, pause: Pause) -> None:
        """Lets the others go on while this process is inside a step."""
        self._pause = None
        life, still = self._lives, self._still
        added = {ENGINE, NEIGHBOURS, READERS, STREAMS} - still if pause.whole else set()
        still |= added
        self._world.stand_still(self.number, pause.lasts_us)
        still -= added
        if self._lives != life or self.engine is None:
            raise GoneError

    def wait(self, lasts_us: int) -> bool:
        if self.engine is None:
            return False
        life, waiting = self._lives, self._waiting
        self._waiting = True
        self._world.stand_still(self.number, lasts_us)
        self._waiting = waiting
        if self._lives != life or self.engine is None:
            raise GoneError
        return True

    def pause_soon(self, pause: Pause) -> None:
        """Makes the process stand still after some further steps."""
        if self.engine is not None:
            self._pause, self._pause_steps_left = pause, pause.steps

    def monotonic_s(self) -> float:
        """The process's monotonic clock."""
        return self._world.now_us / SECOND

    @property
    def tries(self) -> bool:
        """Whether the process does what it can, which may be to wait for another, or to start."""
        return self.awake or self._waiting or self._refused

    @property
    def awake(self) -> bool:
        """Whether the process is alive and does not stand still."""
        return self.engine is not None and NEIGHBOURS not in self._still

    @contextmanager
    def _acting(self, thread: str) -> Iterator[None]:
        """Marks a thread as being inside a step, during which the others may go on."""
        still = self._still
        still.add(thread)
        try:
            yield
        finally:
            still.discard(thread)

    def crash_soon(self, crash: Crash) -> None:
        """Ends the process after some further steps, or soon if nothing happens."""
        if self.engine is not None and self._crash is None:
            self._crash, self._steps_left = crash, crash.steps
            self._world.after(crash.latest_us, lambda: self._crash_now(crash))

    def _crash_now(self, crash: Crash) -> None:
        if self._crash is crash:
            self.die(CrashError())

    def spare(self) -> None:
        """Cancels the crash that was to come."""
        self._crash = self._pause = None

    def die(self, crash: CrashError) -> None:
        """Ends the process; if the power failed with it, all others end too."""
        world, planned = self._world, self._crash
        torn = isinstance(crash, TornError)
        power = torn or (planned is not None and planned.power)
        world.result.faults["torn_commit" if torn else "power_cut" if power else "crash"] += 1
        down_us = planned.down_us if planned is not None else SECOND
        if planned is not None and planned.renamed:
            self._names += 1
        if isinstance(crash, LostError):
            down_us = crash.down_us
            self._names += crash.renamed
            world.result.faults["machine_lost"] += 1
        if planned is not None and planned.clock_us:
            world.set_clock(self.number, planned.clock_us)
            world.witness.clocks_differ = True
            world.result.faults["clock_set"] += 1
        if power:
            world.cut_power(down_us)
        else:
            world.say(f"engine {self.number} ends")
            self.vanish()
            world.after(down_us, self.start)

    def vanish(self) -> None:
        """Drops everything that the process held."""
        self._crash = self._pause = None
        self._still = set()
        self._process.close_all()
        for call in self.calls:
            call.lost = True
        for closing in self.closings:
            closing.lost = True
        self.closings.clear()
        for query in self._reads:
            query.lost = True
        self.calls.clear()
        self._reads.clear()
        streams, self.streams = self.streams, []
        for stream in streams:
            stream.closed = True
            self._world.after(RESTART_US, partial(self._world.watch, stream.watcher))
        self._queries = self._hub = None
        self.engine = self._link = self._gate = self.tick_at_us = self.neighbours = self.turn_at_us = None

    def _end(self, engine: Engine, error: JournalFencedError) -> None:
        """Ends the engine because its lease was taken, as its own thread does; it is started again."""
        world = self._world
        world.say(f"engine {self.number} is fenced and ends")
        world.result.faults["fenced"] += 1
        world.witness.disk_failed = True
        engine.failure = error
        waiting = list(self.calls)  # who comes while it ends finds the connection closed
        engine.end()
        for call in waiting:
            if call in self.calls:
                text = f"operation {call.op} has none from a fenced engine"
                world.witness.complain("each request has one answer", text)
        self.vanish()
        world.after(RESTART_US, self.start)

    # -- ticks -----------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One tick of the engine, and when the next is due."""
        engine, world = self.engine, self._world
        assert engine is not None, "ticks are planned for living engines only"
        try:
            commits = engine.counts.commits
            with self._acting(ENGINE):
                busy = self._tick(engine)
            world.witness.disk_failed |= bool(world.storage.failed)
            if engine.counts.commits != commits and not world.storage.hidden and not world.lost:
                world.witness.after_tick()
        except GoneError:
            return
        except CrashError as crash:
            self.die(crash)
        except Exception as error:  # noqa: BLE001 - whatever the engine raises is a finding
            world.witness.complain("the engine does not break", f"{type(error).__name__}: {error}")
        else:
            if self.engine is engine:
                self._plan_tick(engine, busy)

    def _tick(self, engine: Engine) -> bool:
        try:
            return engine.tick()
        except JournalFencedError as error:
            self._end(engine, error)
            return False

    def turn(self) -> None:
        """One turn of the thread that watches other engines."""
        neighbours = self.neighbours
        assert neighbours is not None, "turns are planned for living engines only"
        try:
            with self._acting(NEIGHBOURS):
                neighbours.turn()
        except GoneError:
            return
        except CrashError as crash:
            self.die(crash)
            return
        if self.neighbours is neighbours:
            self._world.witness.disk_failed |= bool(self._world.storage.failed)
            self.turn_at_us = self._world.now_us + neighbours.waits_us
            self.wake()

    def turn_soon(self) -> None:
        """Wakes that thread: somebody waits for what other engines do."""
        if self.turn_at_us is not None:
            self.turn_at_us = min(self.turn_at_us, self._world.now_us + TICK_US)

    def next_at_us(self, thread: str) -> int | None:
        """When a thread does something next; None if it has nothing to do, or stands still."""
        if thread in self._still:
            return None
        return self.tick_at_us if thread == ENGINE else self.turn_at_us

    def _plan_tick(self, engine: Engine, busy: bool) -> None:
        now_us = self._world.now_us
        failures, self._failures = self._failures, engine.counts.commit_failures
        if busy or len(engine.inbox) or (self._gate is not None and self._gate.waiting):
            self.tick_at_us = now_us + TICK_US
        elif not engine.writable or failures != self._failures:
            self.tick_at_us = now_us + RETRY_US
        elif (due_us := self._next_due_us(engine)) is None:
            self.tick_at_us = None
        else:
            self.tick_at_us = max(due_us - self.clock.now_us() + now_us, now_us + IDLE_US)

    def _next_due_us(self, engine: Engine) -> int | None:
        """When a payment in flight, or the end of a hold, is due, by the engine's clock."""
        due_us = self.core.next_due_us()
        (until_us,) = self._world.witness.reader.execute(
            "SELECT min(hold_until_us) FROM payments WHERE open = 2", ()
        ).fetchone()
        if until_us is None:
            return due_us
        hold_us = max(int(until_us), engine.next_hold_look_us)
        return hold_us if due_us is None else min(due_us, hold_us)

    def wake(self) -> None:
        """Wakes the engine."""
        if self.engine is not None and self.engine.writable:
            soon_us = self._world.now_us + TICK_US
            self.tick_at_us = soon_us if self.tick_at_us is None else min(self.tick_at_us, soon_us)

    # -- readers ---------------------------------------------------------------------------------------------

    def ask(self, queries: Sequence[Query]) -> None:
        """Status queries arrive; they are lost if the process is down."""
        if self._queries is None:
            return
        self._reads.extend(queries)
        for query in queries:
            self._queries.submit(query)
        self.read_soon(READ_US)

    def answered(self, query: Query) -> None:
        """A status query was answered."""
        self.step()
        self._reads.remove(query)

    def watch(self, watcher: Watcher) -> bool:
        """A watcher connects; False if the process is down."""
        if self._hub is None or self.engine is None:
            return False
        payload, stream = watcher.request()
        self.streams.append(stream)
        self._hub.subscribe(payload, stream)
        self.read_soon(READ_US)
        return True

    def _committed(self) -> None:
        self.step()
        for node in self._world.nodes:
            if node.streams:
                node.read_soon(READ_US if node is self else POLL_US)

    def read_soon(self, delay_us: int) -> None:
        """Wakes the threads that read."""
        life = self._lives
        self._world.after(delay_us, lambda: self._read(life))

    def _read(self, life: int) -> None:
        if self._lives != life or self._queries is None or self._hub is None:
            return
        # The files here show what SQLite keeps from all that read: a commit whose sync failed.
        if READERS in self._still or self._world.storage.hidden:
            self.read_soon(POLL_US)
            return
        try:
            with self._acting(READERS):
                while self._queries.turn():
                    pass
                while self.streams and self._hub.turn():
                    pass
        except GoneError:
            return
        except CrashError as crash:
            self.die(crash)
            return
        if self._world.storage.faulty or any(stream.full for stream in self.streams):
            for stream in self.streams:
                stream.full = False
            if self.streams:
                self.read_soon(POLL_US)

    def closing_answered(self, closing: Waiter) -> bool:
        """Takes the answer to a request to close a settlement window. False if there is no such request."""
        waits = closing in self.closings
        self.closings = [one for one in self.closings if one is not closing]
        return waits

    # -- participants' streams -------------------------------------------------------------------------------

    @property
    def link(self) -> SimulatedLink | None:
        """The link on which participants' streams end; None if the process is down."""
        return None if self.engine is None else self._link

    def _listen(self) -> None:
        """Participants connect to the engine that has started."""
        link = self._link
        assert link is not None, "it has just started"
        if self._world.plan.connect_us:
            self._world.after(self._world.plan.connect_us, link.open_all)
        else:
            link.open_all()

    def write(self, link: SimulatedLink, participant: str) -> None:
        """A turn of the thread that writes to participants."""
        if link is not self.link:
            return
        if STREAMS in self._still:
            link.postpone(participant, POLL_US)
            return
        try:
            with self._acting(STREAMS):
                link.write(participant)
        except GoneError:
            return
        except CrashError as crash:
            self.die(crash)

    # -- what arrives ----------------------------------------------------------------------------------------

    def submit(self, call: SimulatedCall) -> bool:
        """A request arrives; False if the process is down."""
        if self.engine is None or self._gate is None:
            call.lost = True
            return False
        call.node = self.number
        call.after_end = self._world.witness.payment_of.get(call.op, b"") in self._world.witness.final
        call.ask = (self.clock.now_us(), *self._world.troubles)
        self.calls.append(call)
        self._gate.offer([call], payments_in(call))
        self.wake()
        return True

    def close_window(self, number: int) -> None:
        """An operator's request arrives, if the process is up."""
        if self.engine is not None:
            closing = SimulatedClosing(self._world, self, number)
            self.closings.append(closing)
            self.engine.inbox.put([Close(number, closing)])
            self.wake()

    def deliver(self, answered: Answered, epoch: int) -> bool:
        """A participant's answer arrives on this stream; False if it is no longer read or the process is down."""
        if self._link is None or not self._link.deliver(answered, epoch):
            return False
        self.wake()
        return True
