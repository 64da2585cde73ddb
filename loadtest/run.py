"""Runs a scenario against a gateway with generators as processes of their own, and adds up what they saw.

A generator has some connections and drives them in turn on one core. What it saw of each stage comes back as counts
and histograms, which are added up; so percentiles are those of all calls, not means of percentiles.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final

from loadtest import knee
from loadtest.arrivals import Arrivals
from loadtest.drive import WAIT_S, Driver, Seen
from loadtest.h2 import ConnectionLostError, UnaryLoad
from loadtest.histogram import Histogram
from loadtest.operations import Flow, Mix, Operations, Supply
from loadtest.payments import CREATE_PATH
from loadtest.runqueue import RunQueue
from loadtest.scenario import Scenario, Stage

FINISH_S: Final = 15.0
"""For the last answers of a stage."""
ANSWER_S: Final = 120.0
"""For a generator to answer beyond the stage's own time."""
CPU_WARNING: Final = 0.7
"""Share of its core from which a generator may measure itself."""
STAGES_LOST: Final = 2
"""Stages in a row that the server does not keep, after which a knee search ends."""


@dataclass(slots=True)
class Tally:
    """What was seen of one stage."""

    offered_per_s: float = 0.0
    """Operations that were due each second, or were begun in a closed loop."""
    seconds: float = 0.0
    calls: int = 0
    good: int = 0
    """Operations that came to their end as asked: one that takes two calls counts once, as it was offered once."""
    refusals: Counter[str] = field(default_factory=Counter)
    """Calls that did not do what was asked, by reason or state."""
    lines: Counter[str] = field(default_factory=Counter)
    """Calls by what they were."""
    from_due: Histogram = field(default_factory=Histogram)
    from_send: Histogram = field(default_factory=Histogram)
    missed: int = 0
    unanswered: int = 0
    cpu_s: float = 0.0
    lost: str = ""
    """Why the connection ended, where it did before the stage's end."""

    def see(self, seen: Seen) -> None:
        """Counts a call."""
        self.calls += 1
        self.lines[seen.name] += 1
        if seen.outcome.good:
            self.good += seen.outcome.follow is None
        else:
            self.refusals[seen.outcome.what] += 1
        self.from_due.record(seen.from_due_s)
        self.from_send.record(seen.from_send_s)

    def add(self, other: Tally) -> None:
        """Adds what another generator saw of the same stage."""
        self.offered_per_s += other.offered_per_s
        self.seconds = max(self.seconds, other.seconds)
        self.calls += other.calls
        self.good += other.good
        self.refusals += other.refusals
        self.lines += other.lines
        self.from_due.add(other.from_due)
        self.from_send.add(other.from_send)
        self.missed += other.missed
        self.unanswered += other.unanswered
        self.cpu_s += other.cpu_s
        self.lost = self.lost or other.lost

    @property
    def goodput_per_s(self) -> float:
        """Operations a second that came to their end as asked."""
        return self.good / self.seconds if self.seconds else 0.0

    def stage(self) -> knee.Stage:
        """As the knee search sees it; calls in flight by Little's law."""
        done_per_s = self.calls / self.seconds if self.seconds else 0.0
        return knee.Stage(
            self.offered_per_s,
            self.goodput_per_s,
            self.from_due.percentile_ms(99.0),
            done_per_s * self.from_due.mean_ms / 1e3,
        )


@dataclass(slots=True)
class Measured:
    """A whole run."""

    scenario: Scenario
    target: str
    stages: list[Tally]
    seconds: float
    runqueue_wait_share: float | None
    """Share of the time that the gateway's busiest thread was ready and had no core; None where it cannot be seen."""
    interrupted: bool = False

    def total(self) -> Tally:
        """All stages together."""
        one = Tally()
        for stage in self.stages:
            one.calls += stage.calls
            one.good += stage.good
            one.refusals += stage.refusals
            one.lines += stage.lines
            one.from_due.add(stage.from_due)
            one.from_send.add(stage.from_send)
            one.missed += stage.missed
            one.unanswered += stage.unanswered
            one.cpu_s += stage.cpu_s
            one.seconds += stage.seconds
            one.offered_per_s += stage.offered_per_s * stage.seconds
            one.lost = one.lost or stage.lost
        one.offered_per_s = one.offered_per_s / one.seconds if one.seconds else 0.0
        return one

    def knee(self) -> knee.Knee | None:
        """What a knee search found; None for other scenarios."""
        if self.scenario.knee is None:
            return None
        return knee.find([stage.stage() for stage in self.stages], self.scenario.knee.slo_p99_ms)

    def as_json(self) -> dict[str, Any]:
        """The report as JSON."""
        total, found = self.total(), self.knee()
        report: dict[str, Any] = {
            "scenario": self.scenario.name,
            "target": self.target,
            "offered_per_s": round(total.offered_per_s, 1),
            "goodput_per_s": round(total.goodput_per_s, 1),
            "calls": total.calls,
            "refusals": dict(total.refusals.most_common()),
            "lines": dict(total.lines.most_common()),
            "latency_from_due_ms": total.from_due.percentiles_ms(),
            "latency_from_send_ms": total.from_send.percentiles_ms(),
            "missed": total.missed,
            "unanswered": total.unanswered,
            "generator_cpu_share": round(self._cpu_share(total), 3),
            "runqueue_wait_share": self.runqueue_wait_share,
            "connection_lost": total.lost or None,
            "interrupted": self.interrupted,
            "stages": [
                {
                    "offered_per_s": round(stage.offered_per_s, 1),
                    "goodput_per_s": round(stage.goodput_per_s, 1),
                    "seconds": round(stage.seconds, 2),
                    "refusals": dict(stage.refusals.most_common()),
                    "latency_from_due_ms": stage.from_due.percentiles_ms(),
                    "latency_from_send_ms": stage.from_send.percentiles_ms(),
                    "missed": stage.missed,
                    "generator_cpu_share": round(self._cpu_share(stage), 3),
                }
                for stage in self.stages
            ],
        }
        if found is not None:
            report["knee_per_s"], report["slo_per_s"] = round(found.knee_per_s, 1), round(found.slo_per_s, 1)
            report["usl"] = None if found.usl is None else asdict(found.usl)
        return report

    def _cpu_share(self, tally: Tally) -> float:
        """Of the cores that the generators could use, one each."""
        return tally.cpu_s / tally.seconds / self.scenario.processes if tally.seconds else 0.0


def run(
    scenario: Scenario,
    supply: Supply,
    target: str,
    *,
    server_pid: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Measured:
    """Runs a scenario to its end, or until ctrl-C: then what was seen so far is returned.

    `server_pid`: the gateway's process on this machine, whose waits for a core are read; 0 where it runs elsewhere.
    """
    stages: list[Tally] = []
    begin, interrupted = time.perf_counter(), False
    queue = RunQueue(server_pid)
    with _generators(scenario, supply, target) as pipes:
        try:
            for stage in _plan(scenario, stages):
                say(f"stage {len(stages) + 1}: {_words(stage)}")
                stages.append(_stage(pipes, stage))
                if stages[-1].lost:
                    say(f"the connection was lost: {stages[-1].lost}")
                    break
        except KeyboardInterrupt:
            interrupted = True
    return Measured(scenario, target, stages, time.perf_counter() - begin, queue.share(), interrupted)


def _words(stage: Stage) -> str:
    how = f"{stage.rate_per_s:,.0f} calls a second" if stage.rate_per_s else f"{stage.in_flight} in flight each"
    return f"{how} for {stage.seconds:g} s"


def _plan(scenario: Scenario, done: Sequence[Tally]) -> Iterator[Stage]:
    """The stages, one after the other; those of a knee search by what was seen so far."""
    search = scenario.knee
    if search is None:
        yield from scenario.stages
        return
    rate = search.rate_from
    while rate <= search.rate_to:
        yield Stage(search.stage_s, rate_per_s=rate)
        last = done[-STAGES_LOST:]
        if len(last) == STAGES_LOST and not any(knee.keeps_up(one.stage()) for one in last):
            return
        rate *= search.step


def _stage(pipes: Sequence[Connection], stage: Stage) -> Tally:
    share = Stage(stage.seconds, stage.rate_per_s / len(pipes), stage.in_flight)
    for pipe in pipes:
        pipe.send(share)
    total = Tally()
    for pipe in pipes:
        if not pipe.poll(stage.seconds + ANSWER_S):
            raise TimeoutError("a load generator does not answer; is the machine overloaded?")
        total.add(pipe.recv())
    return total


@contextlib.contextmanager
def _generators(scenario: Scenario, supply: Supply, target: str) -> Iterator[list[Connection]]:
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for number in range(scenario.processes):
        ours, theirs = context.Pipe()
        process = context.Process(target=_generate, args=(theirs, scenario, supply, target, number), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        yield pipes
    finally:
        for pipe in pipes:
            with contextlib.suppress(OSError):
                pipe.send(None)
        for process in processes:
            process.join(5.0)
            if process.is_alive():
                process.kill()


def _generate(pipe: Connection, scenario: Scenario, supply: Supply, target: str, number: int) -> None:
    """A generator process: takes stages until None comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C ends the parent, which tells this process
    prefix = f"{os.getpid():x}-{time.time_ns() // 1_000_000:x}"
    tally = Tally()
    drivers: list[Driver] = []

    def seen(one: Seen) -> None:
        tally.see(one)

    loads = []
    count = max(1, scenario.connections // scenario.processes)
    for index in range(count):
        load = UnaryLoad(target, CREATE_PATH)
        flow = Flow(Operations(supply, f"{prefix}-{index:x}"), Mix(scenario.mix))
        loads.append(load)
        drivers.append(Driver(load, flow, seen))
    order = 0
    while (stage := pipe.recv()) is not None:
        tally = Tally(offered_per_s=stage.rate_per_s)
        order += 1
        begin, cpu = time.perf_counter(), time.process_time()
        missed = sum(driver.missed for driver in drivers)
        try:
            _drive(drivers, stage, scenario, seed=number * 1000 + order)
            tally.seconds = time.perf_counter() - begin
            until = time.perf_counter() + FINISH_S
            tally.unanswered = sum(driver.finish(max(0.0, until - time.perf_counter())) for driver in drivers)
        except (ConnectionLostError, OSError) as error:
            tally.seconds = time.perf_counter() - begin
            tally.lost = f"{type(error).__name__} after {tally.seconds:.1f} s: {error}"
            tally.unanswered = sum(driver.in_flight for driver in drivers)
        tally.cpu_s = time.process_time() - cpu
        tally.missed = sum(driver.missed for driver in drivers) - missed
        if not stage.rate_per_s:
            tally.offered_per_s = (tally.good + tally.refusals.total() + tally.unanswered) / tally.seconds
        pipe.send(tally)
    for load in loads:
        load.close()


def _drive(drivers: Sequence[Driver], stage: Stage, scenario: Scenario, *, seed: int) -> None:
    """Connections in turn, none of which waits while others have work."""
    begin = time.perf_counter()
    end = begin + stage.seconds
    pattern: Any = scenario.arrivals
    arrivals = [
        Arrivals(stage.rate_per_s / len(drivers), begin, pattern=pattern, seed=seed * 1024 + at)
        for at in range(len(drivers))
    ]
    while time.perf_counter() < end:
        for driver, own in zip(drivers, arrivals, strict=True):
            wait = len(drivers) == 1
            if stage.rate_per_s:
                driver.open(own, wait=wait)
            else:
                driver.closed(stage.in_flight, wait=wait)
        if len(drivers) > 1:
            next_s = min(own.next_s for own in arrivals) - time.perf_counter() if stage.rate_per_s else WAIT_S
            select.select(drivers, [], [], min(WAIT_S, max(0.0, next_s)))
