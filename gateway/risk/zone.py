"""Whose day it is: a time zone as UTC plus so many minutes, or by its name where the system knows it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_OFFSET: Final = re.compile(r"UTC([+-])(\d{1,2})(?::([0-5]\d))?")
_HOUR_S: Final = 3600
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Zone:
    """Days and times of day in one zone. Remembers the hour that was asked for last: a zone's offset changes only at
    full hours or their quarters, which `_span_us` accounts for."""

    _span_us: Final = _HOUR_S * 250_000

    def __init__(self, name: str) -> None:
        """`name`: "UTC+8", "UTC-03:30" or "Asia/Shanghai". Raises ValueError."""
        self.name = name
        self._zone = _parse(name)
        self._from_us = self._until_us = 0
        self._offset_us = 0

    def local_us(self, now_us: int) -> int:
        """The local time as microseconds that count as if the zone were UTC."""
        if not self._from_us <= now_us < self._until_us:
            self._from_us = now_us - now_us % self._span_us
            self._until_us = self._from_us + self._span_us
            moment = (_EPOCH + timedelta(microseconds=now_us)).astimezone(self._zone)
            self._offset_us = (moment.utcoffset() or timedelta()) // timedelta(microseconds=1)
        return now_us + self._offset_us


def _parse(name: str) -> tzinfo:
    matched = _OFFSET.fullmatch(name)
    if matched is not None:
        sign, hours, minutes = matched.groups()
        offset = timedelta(hours=int(hours), minutes=int(minutes or 0))
        if offset > timedelta(hours=14):
            raise ValueError(f"{name!r} is further from UTC than any place on earth")
        return timezone(offset if sign == "+" else -offset)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f'{name!r} is no time zone that this system knows; write "UTC+8" or "Asia/Shanghai"') from None
