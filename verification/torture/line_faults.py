"""Faults of the connection between a gateway and its database, and of the database as a whole."""

from __future__ import annotations

import random
import signal
import time
from contextlib import suppress
from typing import Final

from hutong_contract.extras import needs
from verification.torture.faults import Fault, Hurt
from verification.torture.line import Line
from verification.torture.processes import PostgresProcess, TortureError
from verification.torture.stage import Stage

with needs("bench"):
    import psutil


STATEMENTS: Final = ("COMMIT", "UPDATE numbering", "INSERT INTO payments", "UPDATE leases")
"""Statements before which a connection is cut: with the numbering locked, with a tick's rows locked, with an engine's
lease only, and between two ticks."""
CUT_S: Final = 3.0
"""Until a gateway that works must have sent one of them."""
FREEZE_S: Final = (0.5, 4.0)
FREEZE_LONG_S: Final = (6.0, 9.0)
"""Longer than a lease."""
DOWN_S: Final = ((0.0, 0.8), (5.5, 9.0))
"""How long a lost machine is away, in seconds; the others take over, or it comes back first."""


def freeze_postgres(stage: Stage, rng: random.Random) -> list[Hurt]:
    """Stops the whole database server (SIGSTOP) during commits."""
    postgres = _postgres(stage)
    stage.trouble()
    stopped = [process for pid in postgres.pids() if (process := _process(pid)) is not None]
    try:
        for one in stopped:
            with suppress(psutil.Error):
                one.send_signal(signal.SIGSTOP)
        stage.pauses["server"] += 1
        stage.lie(rng, rng.choice((FREEZE_S, FREEZE_S, FREEZE_LONG_S)))
    finally:
        for one in reversed(stopped):
            with suppress(psutil.Error):
                one.send_signal(signal.SIGCONT)
    stage.trouble()
    now_ns = time.monotonic_ns()
    return [Hurt("frozen server", now_ns, gateway=index) for index, _ in enumerate(stage.gateways)]


def cut_line(stage: Stage, rng: random.Random) -> list[Hurt]:
    """Cuts a gateway's connection during a tick without telling the server; the gateway lives."""
    index = rng.randrange(len(stage.gateways))
    if _cut(stage, _line(stage, index), rng, dies=False):
        stage.trouble()
        stage.cuts["line"] += 1
    return [Hurt("cut line", time.monotonic_ns(), gateway=index)]


def lose_machine(stage: Stage, rng: random.Random) -> list[Hurt]:
    """A gateway's machine dies during a tick, with all its connections, and the server is not told."""
    index = rng.randrange(len(stage.gateways))
    gateway, line = stage.gateways[index], _line(stage, index)
    if not _cut(stage, line, rng, dies=True):
        return [Hurt("cut line", time.monotonic_ns(), gateway=index)]
    gateway.kill()
    stage.kills["gateway"] += 1
    stage.cuts["machine"] += 1
    stage.lie(rng, rng.choice(DOWN_S))
    line.mend()
    gateway.start()
    stage.trouble()
    now_ns = time.monotonic_ns()
    others = [Hurt("machine's neighbour", now_ns, gateway=one) for one in range(len(stage.gateways)) if one != index]
    return [Hurt("lost machine", now_ns, gateway=index), *others]


def _cut(stage: Stage, line: Line, rng: random.Random, *, dies: bool) -> bool:
    """Whether the line carried something to be cut."""
    line.cut(before=rng.choice(STATEMENTS), dies=dies)
    was_cut = line.was_cut.wait(0 if stage.stop.is_set() else CUT_S)
    if not (was_cut and dies):
        line.mend()
    return was_cut


def _process(pid: int) -> psutil.Process | None:
    with suppress(psutil.Error):
        return psutil.Process(pid)
    return None


def _postgres(stage: Stage) -> PostgresProcess:
    if stage.postgres is None:
        raise TortureError("this fault needs PostgreSQL")
    return stage.postgres


def _line(stage: Stage, index: int) -> Line:
    if not stage.lines:
        raise TortureError("this fault needs lines to a database")
    return stage.lines[index]


LINE_FAULTS: Final = (
    Fault(2, freeze_postgres, database=True),
    Fault(3, cut_line, database=True),
    Fault(3, lose_machine, database=True),
)
