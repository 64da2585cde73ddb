"""A machine's clock that a test can set, beside the real one."""

from __future__ import annotations

import time

from gateway.engine.clock import Clock

DAY_US = 86_400_000_000


class Wall:
    """By how much the machine's clock is ahead of what it should show; `clock` is a process's on that machine."""

    def __init__(self, ahead_us: int = 0) -> None:
        self.ahead_us = ahead_us

    def clock(self) -> Clock:
        return Clock(wall_ns=lambda: time.time_ns() + self.ahead_us * 1000)
