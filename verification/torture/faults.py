"""What is done to the processes, as a table: each fault hurts something, lets it lie a while, and puts it back."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from verification.torture import clock_faults
from verification.torture.disk import Disk
from verification.torture.line import Line
from verification.torture.processes import (
    FENCED,
    GatewayProcess,
    ParticipantProcess,
    PostgresProcess,
    TortureError,
    Victim,
)
from verification.torture.record import Answer, Asked

DOWN_S: Final = (0.0, 0.8)
"""How long something lies dead before it is started again."""
DOWN_LONG_S: Final = (5.5, 7.0)
"""Longer than a lease and than a leg's time: the other gateways take over, inquiries begin."""
LONG_SHARE: Final = 0.15
PAUSE_S: Final = (0.2, 2.5)
FULL_S: Final = (0.5, 3.0)
TOGETHER: Final = (1, 3)
"""Participants that die at once."""
KILL_WHILE_FULL_SHARE: Final = 0.4
REFILL_S: Final = 0.05
TROUBLE_S: Final = 15.0
"""After the disk was full or the database away: how long a start that was refused for it is no finding."""


class Hurt(NamedTuple):
    """Something was put back; when the first new payment through it succeeds, it has recovered."""

    kind: str
    since_ns: int
    gateway: int | None = None
    """Index of the gateway that must have been asked; None: any."""
    participant: str = ""
    """Id of the issuer or first acquirer that the payment must have; empty: any."""

    def matches(self, asked: Asked, answer: Answer) -> bool:
        """Whether a payment went through what was hurt."""
        return (self.gateway is None or answer.gateway == self.gateway) and (
            not self.participant or self.participant in (asked.issuer, asked.acquirer)
        )


@dataclass(slots=True)
class Stage:
    """Everything that can be hurt."""

    gateways: list[GatewayProcess]
    participants: list[ParticipantProcess]
    postgres: PostgresProcess | None
    disk: Disk
    lines: list[Line] = field(default_factory=list)
    """Of each gateway to the database."""
    kills: Counter[str] = field(default_factory=Counter)
    """kill -9, by what was killed."""
    cuts: Counter[str] = field(default_factory=Counter)
    """Lines that were cut in the midst of a tick, alone or with the machine at the end."""
    pauses: Counter[str] = field(default_factory=Counter)
    full_disks: int = 0
    wrong_clocks: int = 0
    restarts: Counter[str] = field(default_factory=Counter)
    """Starts after an end that was to be expected, by its reason."""
    findings: list[str] = field(default_factory=list)
    trouble_until_s: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)

    def victims(self) -> list[Victim]:
        """All of them."""
        return [*self.gateways, *self.participants, *([self.postgres] if self.postgres else [])]

    def lie(self, rng: random.Random, bounds_s: tuple[float, float]) -> None:
        """Waits."""
        self.stop.wait(rng.uniform(*bounds_s))

    def trouble(self) -> None:
        """From now on, for a while, a start may be refused."""
        self.trouble_until_s = time.monotonic() + TROUBLE_S

    def supervise(self) -> None:
        """Starts what ended by itself; where there was no reason to, that is a finding."""
        for victim in self.victims():
            if not victim.ended():
                continue
            words = victim.last_words().strip().splitlines()
            last = words[-1] if words else "it said nothing"
            if isinstance(victim, GatewayProcess) and any(FENCED in line for line in words[-3:]):
                self.restarts["fenced"] += 1
            elif time.monotonic() < self.trouble_until_s:
                self.restarts[f"{victim.name.split('-')[0]} in trouble"] += 1
            else:
                self.findings.append(f"{victim.name} ended by itself: {last}")
            victim.start()

    def pids(self) -> list[int]:
        """Of all processes."""
        return [pid for victim in self.victims() for pid in victim.pids()]


def _down_s(rng: random.Random) -> tuple[float, float]:
    return DOWN_LONG_S if rng.random() < LONG_SHARE else DOWN_S


def kill_gateway(stage: Stage, rng: random.Random) -> list[Hurt]:
    """kill -9 of a gateway that works; while none does, of participants."""
    working = [gateway for gateway in stage.gateways if gateway.listens()]
    if not working:
        return kill_participants(stage, rng)
    gateway = rng.choice(working)
    gateway.kill()
    stage.kills["gateway"] += 1
    stage.lie(rng, _down_s(rng) if len(stage.gateways) > 1 else DOWN_S)
    gateway.start()
    return [Hurt("gateway", time.monotonic_ns(), gateway=stage.gateways.index(gateway))]


def kill_participants(stage: Stage, rng: random.Random) -> list[Hurt]:
    """kill -9 of some issuers and acquirers."""
    some = rng.sample(stage.participants, rng.randint(*TOGETHER))
    for participant in some:
        participant.kill()
    stage.kills["participant"] += len(some)
    stage.lie(rng, _down_s(rng))
    for participant in some:
        participant.start()
    now_ns = time.monotonic_ns()
    return [Hurt("participant", now_ns, participant=participant.name) for participant in some]


def kill_postmaster(stage: Stage, rng: random.Random) -> list[Hurt]:
    """kill -9 of the database server."""
    postgres = _postgres(stage)
    stage.trouble()
    postgres.kill()
    stage.kills["postmaster"] += 1
    stage.lie(rng, DOWN_S)
    postgres.start()
    stage.trouble()
    return [Hurt("postmaster", time.monotonic_ns())]


def kill_backend(stage: Stage, rng: random.Random) -> list[Hurt]:
    """kill -9 of the server's process behind one connection: the server then ends all others and recovers."""
    stage.trouble()
    backends = _postgres(stage).backends()
    if backends:
        with suppress(ProcessLookupError):
            os.kill(rng.choice(backends), signal.SIGKILL)
            stage.kills["backend"] += 1
    return [Hurt("backend", time.monotonic_ns())]


def kill_together(stage: Stage, rng: random.Random) -> list[Hurt]:
    """kill -9 of all gateways, some participants and, as often as not, the database, as near at once as can be."""
    if not all(gateway.listens() for gateway in stage.gateways):
        return kill_participants(stage, rng)
    some = rng.sample(stage.participants, rng.randint(*TOGETHER))
    dead: list[Victim] = [*stage.gateways, *some]
    if stage.postgres is not None and rng.random() < 0.5:
        dead.insert(0, stage.postgres)
        stage.trouble()
        stage.kills["postmaster"] += 1
    for victim in dead:
        victim.kill()
    stage.kills["gateway"] += len(stage.gateways)
    stage.kills["participant"] += len(some)
    stage.lie(rng, DOWN_S)
    for victim in dead:
        victim.start()
    stage.trouble()
    now_ns = time.monotonic_ns()
    return [Hurt("together", now_ns, gateway=index) for index, _ in enumerate(stage.gateways)]


def pause(stage: Stage, rng: random.Random) -> list[Hurt]:
    """SIGSTOP, and SIGCONT a while later: what was thought dead comes back and knows nothing of it."""
    victim: Victim = rng.choice([rng.choice(stage.gateways), rng.choice(stage.participants)])
    victim.pause()
    stage.pauses["gateway" if isinstance(victim, GatewayProcess) else "participant"] += 1
    stage.lie(rng, DOWN_LONG_S if rng.random() < 2 * LONG_SHARE else PAUSE_S)
    victim.resume()
    gateway = stage.gateways.index(victim) if isinstance(victim, GatewayProcess) else None
    return [Hurt("pause", time.monotonic_ns(), gateway=gateway)]


def pause_backend(stage: Stage, rng: random.Random) -> list[Hurt]:
    """SIGSTOP of the server's process behind one connection, in the middle of a commit perhaps."""
    stage.trouble()
    backends = _postgres(stage).backends()
    if backends:
        pid = rng.choice(backends)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            stage.pauses["backend"] += 1
            stage.lie(rng, PAUSE_S)
            os.kill(pid, signal.SIGCONT)
    return [Hurt("pause", time.monotonic_ns())]


def fill_disk(stage: Stage, rng: random.Random) -> list[Hurt]:
    """No space left, for journal, books and vault alike; a gateway may die meanwhile."""
    stage.full_disks += 1
    full_s = rng.uniform(*FULL_S)
    stage.trouble()
    victim = rng.choice(stage.gateways) if rng.random() < KILL_WHILE_FULL_SHARE else None
    try:
        stage.disk.fill(stage.pids())  # itself takes a while
        until_s = time.monotonic() + full_s
        while time.monotonic() < until_s and not stage.stop.is_set():
            stage.disk.fill(stage.pids())
            if victim is not None and victim.listens():
                victim.kill()
                stage.kills["gateway"] += 1
                victim.start()
                victim = None
            stage.stop.wait(REFILL_S)
    finally:
        stage.disk.free(stage.pids())
    stage.trouble()
    now_ns = time.monotonic_ns()
    return [Hurt("full disk", now_ns, gateway=index) for index, _ in enumerate(stage.gateways)]


def wrong_clock(stage: Stage, rng: random.Random) -> list[Hurt]:
    """The clock of a gateway's machine is set, by seconds or days, and set right again."""
    gateway = clock_faults.set_wrong(stage, rng)
    if gateway is None:
        return kill_participants(stage, rng)
    stage.wrong_clocks += 1
    return [Hurt("wrong clock", time.monotonic_ns(), gateway=stage.gateways.index(gateway))]


def _postgres(stage: Stage) -> PostgresProcess:
    if stage.postgres is None:
        raise TortureError("this fault needs PostgreSQL")
    return stage.postgres


class Fault(NamedTuple):
    """A line of the table."""

    weight: int
    """How often, of the sum of all that apply."""
    inflict: Callable[[Stage, random.Random], list[Hurt]]
    database: bool = False
    """Whether it is about PostgreSQL."""


FAULTS: Final = (
    Fault(6, kill_gateway),
    Fault(5, kill_participants),
    Fault(3, kill_together),
    Fault(3, kill_postmaster, database=True),
    Fault(4, kill_backend, database=True),
    Fault(2, pause),
    Fault(1, pause_backend, database=True),
    Fault(2, fill_disk),
    Fault(2, wrong_clock, database=True),
)


def draw(stage: Stage, rng: random.Random, among: Iterable[Fault] = FAULTS) -> Fault:
    """One of those that apply, by weight."""
    apply = [fault for fault in among if stage.postgres is not None or not fault.database]
    return rng.choices(apply, [fault.weight for fault in apply])[0]
