"""What is done to the processes, as a table: each fault hurts something, lets it lie a while, and puts it back."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, NamedTuple

from verification.torture import clock_faults
from verification.torture.processes import (
    GatewayProcess,
    PostgresProcess,
    TortureError,
    Victim,
)
from verification.torture.record import Answer, Asked
from verification.torture.stage import Stage

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
