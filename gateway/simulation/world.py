"""Plays a plan: virtual time, an engine that crashes and restarts, and repairs after which everything must settle."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from contract.errors import HutongError
from gateway.calls import CANCEL
from gateway.engine.clock import Clock, PaymentIds
from gateway.engine.core import Core
from gateway.engine.loop import Engine
from gateway.engine.model import Answered, Create, EngineEvent
from gateway.engine.states import Event, State
from gateway.engine.transitions import Outcome
from gateway.intake import PaymentIntake
from gateway.journal.interface import JournalMismatchError, JournalUnavailableError
from gateway.journal.sqlite import SqliteJournal, SqliteReader
from gateway.queries import Queries
from gateway.routing import Router
from gateway.simulation import plan as plans
from gateway.simulation.callers import (
    SimulatedCall,
    SimulatedTokens,
    cancel_call,
    create_call,
    directory,
    refund_call,
)
from gateway.simulation.disk import CrashError, Disk, TornError
from gateway.simulation.links import Network, SimulatedLink
from gateway.simulation.plan import SECOND, Fate, Pay, Plan, Refund
from gateway.simulation.witness import Violation, Witness

START_US: Final = 1_790_000_000 * SECOND
STEPS_MAX: Final = 60_000
"""Moments of one run; one that needs more does not come to rest."""
TICK_US: Final = 200
"""Virtual time that a tick takes."""
RETRY_US: Final = 100_000
"""Between attempts while the journal cannot be written, as in the engine's own loop."""
IDLE_US: Final = 5_000
START_RETRY_US: Final = 1 * SECOND
_DIRECTORY: Final = directory()


@dataclass(slots=True)
class Result:
    """What a run showed."""

    seed: int
    payments: int = 0
    violations: list[Violation] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    states: set[State] = field(default_factory=set)
    transitions: set[tuple[State, Event]] = field(default_factory=set)
    fates: dict[str, Fate] = field(default_factory=dict)
    digest: str = ""
    """Two runs that are the same have the same."""
    trace: list[str] = field(default_factory=list)


class VirtualClock(Clock):
    """The engine's clock: true time, and by how much this machine differs from it."""

    def __init__(self, time: World) -> None:
        self._time = time
        self.ahead_us = 0

    def now_us(self) -> int:
        """Microseconds since the Unix epoch."""
        return START_US + self._time.now_us + self.ahead_us


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


class World:
    """One run of one plan on a folder of its own."""

    def __init__(self, plan: Plan, folder: Path, *, trace: bool = False) -> None:
        self.plan = plan
        self.result = Result(plan.seed)
        self.now_us = 0
        self._trace = trace
        self._digest = hashlib.blake2b(digest_size=8)
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.witness = Witness(plan, lambda: self.now_us, self.say)
        self.network = Network(plan, self.witness, self, self._deliver, self.say, self._notice)
        self.disk = Disk(folder, self._step)
        self.clock = VirtualClock(self)
        self.calls: list[SimulatedCall] = []
        """On their way in the engine that lives now."""
        self.engine: Engine | None = None
        self.link: SimulatedLink | None = None
        self.journal: SqliteJournal | None = None
        self.crash: plans.Crash | None = None
        """The crash that is to happen after `_steps_left` further steps."""
        self._armed: list[plans.Crash] = []
        self._steps_left = 0
        self._tick_at_us: int | None = None
        self._lives = 0
        self.recovered = 0
        """Payments in flight that the last start found."""
        self._failures = 0
        self._pays = {item.op: item for item in plan.items if isinstance(item, Pay)}
        self._tokens = SimulatedTokens(plan.caps, self._pays)
        self._play: dict[type, Callable[[Any], None]] = {
            Pay: self._play_request,
            Refund: self._play_request,
            plans.Again: self._play_again,
            plans.Cancel: self._play_cancel,
            plans.Read: self._play_read,
            plans.Crash: self._play_crash,
            plans.TornCommit: self._play_torn,
            plans.DiskFault: self._play_disk,
            plans.Down: self._play_down,
            plans.Slow: self._play_slow,
            plans.ClockJump: self._play_jump,
        }

    def add_pay(self, pay: Pay) -> None:
        """A payment that the plan does not know of, so that its token leads somewhere."""
        self._pays[pay.op] = pay

    # -- time ------------------------------------------------------------------------------------------------

    def after(self, delay_us: int, do: Callable[[], None]) -> None:
        """Does something later."""
        heapq.heappush(self._queue, (self.now_us + delay_us, next(self._order), do))

    def say(self, text: str) -> None:
        """A line of the trace, and of the digest."""
        line = f"{self.now_us / SECOND:14.6f} {text}"
        self._digest.update(line.encode())
        if self._trace:
            self.result.trace.append(line)

    def begin(self) -> None:
        """Schedules the plan and starts the engine."""
        for item in self.plan.items:
            self.after(item.at_us, lambda item=item: self._play[type(item)](item))  # type: ignore[misc]
        self.after(self.plan.heal_us, self._heal)
        self.start()

    def run(self) -> bool:
        """Until nothing is under way any more. Returns whether that came to be."""
        for _ in range(STEPS_MAX):
            if self.witness.violations:
                return True
            tick_at = self._tick_at_us
            if tick_at is not None and (not self._queue or tick_at <= self._queue[0][0]):
                self.now_us = max(self.now_us, tick_at)
                self._tick()
            elif self._queue:
                at_us, _, do = heapq.heappop(self._queue)
                self.now_us = max(self.now_us, at_us)
                do()
            else:
                return True
        self.witness.complain("everything is settled in the end", f"not at rest after {STEPS_MAX} steps")
        return False

    # -- the engine's life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the engine on what the disk has; tries again where the disk does not let it."""
        if self.engine is not None:
            return
        self._lives += 1
        self.witness.disk_failed |= bool(self.disk.mode)
        try:
            self.journal = journal = SqliteJournal(self.disk.path, factory=self.disk.connection_class)
            self.link = link = SimulatedLink(self.network, self._step, self.witness)
            router = Router(_DIRECTORY, link.reachable)
            ids = PaymentIds(random.Random(f"{self.plan.seed}/{self._lives}").randbytes)
            intake = PaymentIntake(router, self._tokens, journal, bytes(32), ids=ids)
            core = WatchedCore(self)
            engine = Engine(
                core,
                journal,
                link,
                intake,  # type: ignore[arg-type]
                clock=self.clock,
                in_flight_max=self.plan.in_flight_max,
                on_commit=self._step,
                observe=router.observe,
            )
            self.recovered = engine.recover()
        except CrashError as crash:
            self._die(crash)
            return
        except (sqlite3.Error, JournalMismatchError, JournalUnavailableError) as error:
            self._stop_journal()
            if not self.disk.mode:
                self.witness.complain("a gateway starts on a sound disk", repr(error))
                return
            self.after(START_RETRY_US, self.start)
            return
        self.engine, self.core, self._failures = engine, core, 0
        self.witness.open(self.disk.path)
        self.witness.after_restart()
        self.say(f"the engine starts with {self.recovered} payments in flight")
        self._tick_at_us = self.now_us

    def _tick(self) -> None:
        engine = self.engine
        assert engine is not None, "ticks are planned for living engines only"
        try:
            busy = engine.tick()
            self.witness.disk_failed |= bool(self.disk.failed)
            self.witness.after_tick()
        except CrashError as crash:
            self._die(crash)
            return
        except Exception as error:  # noqa: BLE001 - whatever the engine raises is a finding
            self.witness.complain("the engine does not break", f"{type(error).__name__}: {error}")
            return
        self._plan_tick(engine, busy)

    def _plan_tick(self, engine: Engine, busy: bool) -> None:
        if busy or len(engine.inbox):
            self._tick_at_us = self.now_us + TICK_US
            return
        failures, self._failures = self._failures, engine.counts.commit_failures
        if not engine.writable or failures != self._failures:
            self._tick_at_us = self.now_us + RETRY_US
            return
        due_us = self.core.next_due_us()
        if due_us is None:
            self._tick_at_us = None
        else:
            self._tick_at_us = max(due_us - self.clock.now_us() + self.now_us, self.now_us + IDLE_US)

    def wake(self) -> None:
        """Something waits for the engine."""
        if self.engine is not None and self.engine.writable:
            self._tick_at_us = min(self._tick_at_us or self.now_us + TICK_US, self.now_us + TICK_US)

    def _step(self) -> None:
        """Called between any two steps that the world could see: the process may end here."""
        if self.crash is not None:
            self._steps_left -= 1
            if self._steps_left < 0:
                raise CrashError

    def _die(self, crash: CrashError) -> None:
        planned, self.crash = self.crash, None
        power = isinstance(crash, TornError) or (planned is not None and planned.power)
        down_us = planned.down_us if planned is not None else SECOND
        self.result.faults["torn_commit" if isinstance(crash, TornError) else "power_cut" if power else "crash"] += 1
        self.say(f"the engine's process ends{', and the power with it' if power else ''}")
        if power:
            self.disk.power_cut()
            self.witness.close()
        self._stop_journal()
        if power:
            self.disk.forget_former()
        for call in self.calls:
            call.lost = True
        self.calls.clear()
        self.engine = self.link = self._tick_at_us = None
        if planned is not None and planned.clock_us:
            self.clock.ahead_us += planned.clock_us
            self.witness.clocks_differ = True
            self.result.faults["clock_set"] += 1
        self.after(down_us, self.start)

    def cut_power(self) -> None:
        """The machine loses power now, and starts again."""
        self.crash = plans.Crash(self.now_us, 0, 0, True, SECOND, 0)
        self._die(CrashError())

    def _stop_journal(self) -> None:
        self.disk.disconnect()
        self.journal = None

    def _deliver(self, answered: Answered) -> None:
        if self.link is None:
            self.result.faults["answer_to_dead_engine"] += 1
            return
        self.link.arrived.append(answered)
        self.wake()

    # -- callers ---------------------------------------------------------------------------------------------

    def submit(self, call: SimulatedCall) -> None:
        """A request arrives at the gateway, if there is one."""
        if self.engine is None:
            call.lost = True
            return
        if call.op in self.witness.asked and call.method != CANCEL:
            self.witness.submitted.add((call.op, call.other))
        self.calls.append(call)
        self.engine.inbox.put([call])
        self.wake()

    def told(self, call: SimulatedCall, answer: bytes | HutongError) -> None:
        """The gateway answers a call."""
        self._step()
        if call.lost:
            self.witness.complain("a dead engine is silent", f"operation {call.op} was answered by it")
            return
        call.answers += 1
        if call.answers > 1:
            self.witness.complain("each request has one answer", f"operation {call.op} got {answer!r} too")
            return
        self.calls.remove(call)
        if isinstance(answer, HutongError):
            self.say(f"operation {call.op} is refused: {answer.name}")
            self.witness.disk_failed |= bool(self.disk.failed)
            self.witness.refused(call, answer)
        else:
            self._digest.update(answer)
            self.witness.answered(call, answer)
            self.say(f"operation {call.op} is answered")

    def request(self, op: int, other: bool = False) -> SimulatedCall | None:
        """The request of an operation; None where it cannot be asked yet."""
        asked = self.witness.asked.get(op)
        if isinstance(asked, Pay):
            now_us = self.clock.now_us() if self.now_us >= self.plan.heal_us else START_US + self.now_us
            return create_call(asked, other, now_us, self.told)
        if isinstance(asked, Refund):
            original = self.payment_of(asked.of)
            return None if original is None else refund_call(asked, original, other, self.told)
        return None

    def payment_of(self, op: int) -> bytes | None:
        """The payment of an operation, once its debit left or a caller was told of it."""
        known = self.witness.payment_of.get(op)
        if known is None:
            label = str(op)
            known = next(
                (leg_id[:16] for leg_id in self.witness.carried if self.witness.labels[leg_id[:16]] == label), None
            )
        return known

    def _play_request(self, item: Pay | Refund) -> None:
        self._ask(item.op, other=False)

    def _play_again(self, item: plans.Again) -> None:
        self._ask(item.op, other=item.other)

    def _ask(self, op: int, *, other: bool) -> None:
        call = self.request(op, other)
        if call is not None:
            self.say(f"operation {op} is asked for{' with another payload' if other else ''}")
            self.submit(call)

    def _play_cancel(self, item: plans.Cancel) -> None:
        payment_id = self.payment_of(item.of)
        if payment_id is not None:
            self.say(f"operation {item.of} is to be cancelled")
            self.submit(cancel_call(item.of, payment_id, self.told))

    def _play_read(self, item: plans.Read) -> None:
        payment_id = self.payment_of(item.of)
        if payment_id is None or self.engine is None:
            return
        reader = SqliteReader(self.disk.path)
        queries = Queries(lambda: reader)
        try:
            self.witness.read(payment_id, queries.get(payment_id))
        except HutongError as error:
            self.witness.complain("what is known can be read", f"{payment_id.hex()}: {error}")
        finally:
            queries.close()

    # -- faults ----------------------------------------------------------------------------------------------

    def _play_crash(self, item: plans.Crash) -> None:
        if item.armed_by:
            self._armed.append(item)
        else:
            self._begin_crash(item)

    def _notice(self, kind: str) -> None:
        """Something happened that a crash may be counted from."""
        for item in self._armed:
            if item.armed_by == kind:
                self._armed.remove(item)
                self._begin_crash(item)
                return

    def _begin_crash(self, item: plans.Crash) -> None:
        if self.engine is not None and self.crash is None:
            self.crash, self._steps_left = item, item.steps
            self.after(SECOND, lambda: self._crash_idle(item))

    def _crash_idle(self, item: plans.Crash) -> None:
        """An engine that has nothing to do crashes too."""
        if self.crash is item:
            self._die(CrashError())

    def _play_torn(self, item: plans.TornCommit) -> None:
        self.disk.torn_part = item.part

    def _play_disk(self, item: plans.DiskFault) -> None:
        self.result.faults[f"disk_{item.mode}"] += 1
        self.say(f"the disk fails: {item.mode}")
        self.disk.mode, self.disk.failing_statement = item.mode, item.statement
        self.after(item.lasts_us, self._mend_disk)

    def _mend_disk(self) -> None:
        self.disk.mode = ""
        self.say("the disk works")

    def _play_down(self, item: plans.Down) -> None:
        self.result.faults["participant_restarted"] += 1
        self.say(f"{item.participant} ends and forgets what it had not synced")
        participant = self.network.participants[item.participant]
        self.network.restart(item.participant)
        self.after(min(item.noticed_us, item.lasts_us), lambda: setattr(participant, "known_down", participant.down))
        self.after(item.lasts_us, lambda: self._bring_up(item.participant))

    def _bring_up(self, name: str) -> None:
        participant = self.network.participants[name]
        participant.down = participant.known_down = False
        self.say(f"{name} is back")

    def _play_slow(self, item: plans.Slow) -> None:
        self.result.faults["participant_slow"] += 1
        self.say(f"{item.participant} is slow")
        self.network.participants[item.participant].sync_us = item.sync_us
        self.after(item.lasts_us, lambda: self._make_quick(item.participant))

    def _make_quick(self, name: str) -> None:
        self.network.participants[name].sync_us = 0
        self.network.sync(name)

    def _play_jump(self, item: plans.ClockJump) -> None:
        self.result.faults["clock_jump"] += 1
        self.say(f"the clock leaps by {item.by_us / SECOND} s")
        self.clock.ahead_us += item.by_us
        self.witness.clocks_differ = True
        self.wake()

    def _heal(self) -> None:
        """From now on nothing breaks."""
        self.say("all is repaired")
        self.disk.mode, self.disk.torn_part, self.crash = "", None, None
        self._armed.clear()
        for name, participant in self.network.participants.items():
            participant.down = participant.known_down = False
            self._make_quick(name)
        self.start()

    def close(self) -> Result:
        """Ends the run."""
        self._stop_journal()
        self.witness.close()
        result = self.result
        result.violations = self.witness.violations
        result.states = self.witness.states
        result.faults.update(self.network.counts)
        result.fates = self.network.fates
        result.digest = self._digest.hexdigest()
        return result
