"""A gateway's own record of a shared journal: the last tick of each engine number that it saw committed.

A tick's number only grows, whoever holds the engine number. So a database with a lower number has lost commits (it was
restored from a backup, or a lagging standby became the primary), while one with a higher epoch and no lower tick was
only taken over. A running gateway compares at each tick and heartbeat. The record is also kept in a small file of the
data folder, so that a gateway that starts again notices too.

The file is written each second without a sync, and with one at start, stop and refusal: a machine that loses power may
lose some seconds of it, a killed process one second at most. A database that went back by less than that while no
gateway ran is not noticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

log = logging.getLogger(__name__)

FILE_NAME: Final = "journal.seen"
NAMED_MAX: Final = 8
"""Most engine numbers named in a text."""
BYTES_MAX: Final = 1 << 20


class Standing(NamedTuple):
    """The epoch and last tick of an engine number."""

    engine: int
    epoch: int
    tick: int


class Behind(NamedTuple):
    """An engine number whose commits a database has lost."""

    known: Standing
    found: Standing | None
    """None: the database does not know the number at all."""

    def __str__(self) -> str:
        there = f"{self.found.tick:,}" if self.found is not None else "none"
        lost = self.known.tick - (self.found.tick if self.found is not None else 0)
        return f"engine {self.known.engine} had committed tick {self.known.tick:,}, it has {there} ({lost:,} lost)"


def told(behind: Iterable[Behind]) -> str:
    """A few of them in words."""
    some = list(behind)
    more = f"; and {len(some) - NAMED_MAX} more" if len(some) > NAMED_MAX else ""
    return "; ".join(str(one) for one in some[:NAMED_MAX]) + more


class Memory:
    """The highest tick of each engine number that was seen committed. For one thread at a time."""

    def __init__(self, path: Path | None = None) -> None:
        """`path`: the file; None keeps all in memory."""
        self._path = path
        self._known: dict[int, Standing] = {}
        self._saved = ""
        self._troubled = False
        self.system = ""
        """The database that it was, if it has an identity."""
        if path is not None and path.exists():
            self._read(path)

    @property
    def known(self) -> Mapping[int, Standing]:
        """By engine number."""
        return self._known

    def behind(self, standings: Iterable[Standing]) -> list[Behind]:
        """The engine numbers for which a database has less than is recorded. `standings`: of all engine numbers in
        it."""
        found = {one.engine: one for one in standings}
        return [
            Behind(known, found.get(engine))
            for engine, known in sorted(self._known.items())
            if known.tick > (found[engine].tick if engine in found else 0)
        ]

    def learn(self, standings: Iterable[Standing]) -> None:
        """Records standings that were seen committed."""
        known = self._known
        for one in standings:
            before = known.get(one.engine)
            if before is None or one.tick > before.tick or one.epoch > before.epoch:
                known[one.engine] = one

    def forget(self, standings: Iterable[Standing]) -> None:
        """An operator accepted the loss: the database's own standings are recorded from now on."""
        self._known = {one.engine: one for one in standings}

    def save(self, *, durable: bool) -> None:
        """Writes the file if anything has changed. If it cannot be written, that is logged once and is no reason to
        stop: the database is still compared with memory."""
        text = self._text()
        if self._path is None or (text == self._saved and not durable):
            return
        try:
            if durable:
                self._replace(self._path, text)
            else:
                self._overwrite(self._path, text)
        except OSError as error:
            if not self._troubled:
                log.warning("%s cannot be written: a database that went back may not be noticed: %s", self._path, error)
            self._troubled = True
        else:
            self._saved, self._troubled = text, False

    def _text(self) -> str:
        engines = {str(engine): [one.epoch, one.tick] for engine, one in sorted(self._known.items())}
        body = json.dumps({"system": self.system, "engines": engines})
        return f"{_digest(body)} {body}\n"

    def _read(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                text = file.read(BYTES_MAX).decode()
            digest, _, body = text.rstrip("\n").partition(" ")
            if digest != _digest(body):
                raise ValueError("its checksum is wrong")
            content = json.loads(body)
            self.system = str(content["system"])
            self._known = {
                int(key): Standing(int(key), int(two[0]), int(two[1])) for key, two in content["engines"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            log.warning("%s cannot be read, so what the database lost while nobody ran is not noticed: %s", path, error)
        else:
            self._saved = text

    @staticmethod
    def _overwrite(path: Path, text: str) -> None:
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(file, text.encode(), 0)
            os.ftruncate(file, len(text.encode()))
        finally:
            os.close(file)

    @staticmethod
    def _replace(path: Path, text: str) -> None:
        new = path.with_name(path.name + ".new")
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(file, text.encode())
            os.fsync(file)
        finally:
            os.close(file)
        new.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _digest(body: str) -> str:
    return hashlib.blake2b(body.encode(), digest_size=8).hexdigest()
