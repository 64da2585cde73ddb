"""Lengths of time on the command line: 90s, 45m, 1h, 7d."""

from __future__ import annotations

import re
from typing import Any, Final

import click

_UNITS_US: Final = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
LONGEST_US: Final = 366 * _UNITS_US["d"]


class Period(click.ParamType[int]):
    """A number of seconds, minutes, hours or days, up to 366 days; the command gets microseconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"([0-9]{1,9})([smhd])", str(value))
        length_us = int(match[1]) * _UNITS_US[match[2]] if match else 0
        if not 0 < length_us <= LONGEST_US:
            self.fail(f"{value!r} is no length of time: write it as 90s, 45m, 1h or 7d.", param, ctx)
        return length_us
