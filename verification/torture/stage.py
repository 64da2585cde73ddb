"""What torture may hurt: processes, disk and connections of one network; and the record of what was done to them."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from verification.torture.disk import Disk
from verification.torture.line import Line
from verification.torture.processes import FENCED, GatewayProcess, ParticipantProcess, PostgresProcess, Victim

TROUBLE_S: Final = 15.0
"""After the disk was full or the database away: for how many seconds a start that was refused because of it is no
finding."""


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
        """Starts again what ended by itself; an end without a reason is a finding."""
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
