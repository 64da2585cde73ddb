"""A time zone for days and times of day: UTC plus so many minutes, or a name that the system knows."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_OFFSET: Final = re.compile(r"UTC([+-])(\d{1,2})(?::([0-5]\d))?")
_HOUR_S: Final = 3600
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


DAY_US: Final = 86_400_000_000


class Zone:
    """Days and times of day in one zone. Caches the quarter of an hour of the last query, since offsets change only at
    such boundaries."""

    _span_us: Final = _HOUR_S * 250_000

    def __init__(self, name: str) -> None:
        """`name`: "UTC+8", "UTC-03:30" or "Asia/Shanghai". Raises ValueError."""
        self.name = name
        self._zone = _parse(name)
        # Each is replaced as a whole: several threads may ask about different times.
        self._span = (0, 0, 0)
        """From, until, offset, all in microseconds."""
        self._known_day = (0, 0, 0)
        """From, until, number."""

    def local_us(self, now_us: int) -> int:
        """The local time as microseconds that count as if the zone were UTC."""
        return now_us + self._around(now_us)[2]

    def day(self, now_us: int) -> int:
        """The number of the local day."""
        from_us, until_us, number = self._known_day
        if not from_us <= now_us < until_us:
            from_us, until_us, offset_us = self._around(now_us)
            number, since_us = divmod(now_us + offset_us, DAY_US)
            begun_us = now_us - since_us
            self._known_day = max(begun_us, from_us), min(begun_us + DAY_US, until_us), number
        return number

    def _around(self, now_us: int) -> tuple[int, int, int]:
        span = self._span
        if not span[0] <= now_us < span[1]:
            from_us = now_us - now_us % self._span_us
            moment = (_EPOCH + timedelta(microseconds=now_us)).astimezone(self._zone)
            offset_us = (moment.utcoffset() or timedelta()) // timedelta(microseconds=1)
            span = self._span = from_us, from_us + self._span_us, offset_us
        return span


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
