"""The rules in force: read from their file, and again when it changes, without a restart.

A file with an error is refused as a whole and the old rules stay in force; that is logged, counted, and shown by
`status`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.engine.clock import Clock
from gateway.risk.judge import Judge
from gateway.risk.rule_file import DEFAULT_FILE, RulesError, read_rules

log = logging.getLogger(__name__)

POLL_S: Final = 1.0
"""How often the file is looked at."""

Signature = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the rules in force."""

    path: str
    """Empty where they are the package's own."""
    version: str
    loaded_us: int
    refused_files: int
    problems: tuple[str, ...]
    """Mistakes in the file as it is now; empty if it is in force."""


class RuleBook:
    """A file of rules, and the judge that applies them. For any thread."""

    def __init__(self, path: Path | None = None, *, now_us: Callable[[], int] | None = None) -> None:
        """Without a path: the package's own rules. Raises RulesError."""
        self._path = path
        self._now_us = now_us or Clock().now_us
        self._lock = threading.Lock()
        self._signature = self._look()
        self.judge = Judge(read_rules(path or DEFAULT_FILE))
        self._loaded_us = self._now_us()
        self._asked = False
        self._refused_files = 0
        self._problems: tuple[str, ...] = ()

    def status(self) -> Status:
        """The state of the rules in force now."""
        with self._lock:
            return Status(
                str(self._path or ""),
                self.judge.rules.version,
                self._loaded_us,
                self._refused_files,
                self._problems,
            )

    def reload(self) -> str:
        """Reads the file again and returns the version in force. Raises RulesError; then the old rules stay."""
        with self._lock:
            self._signature = self._look()
            try:
                rules = read_rules(self._path or DEFAULT_FILE)
            except RulesError as error:
                self._refused_files += 1
                self._problems = tuple(error.problems)
                log.error("the risk rules stay as they were (%s): %s", self.judge.rules.version, error)
                raise
            if rules.version != self.judge.rules.version:
                log.info("risk rules %s are in force", rules.version)
            self.judge.rules = rules
            self._loaded_us = self._now_us()
            self._problems = ()
            return rules.version

    def ask(self) -> None:
        """Makes the next `poll` read the file, changed or not. May be called from a signal handler: takes no lock."""
        self._asked = True

    @property
    def stale(self) -> bool:
        """Whether `poll` would read the file. Costs one stat() of the file."""
        return self._asked or (self._path is not None and self._look() != self._signature)

    def poll(self) -> None:
        """Reads the file again if it has changed since the last read, or if `ask` was called."""
        if self.stale:
            self._asked = False
            try:
                self.reload()
            except RulesError:
                return  # logged, counted, and shown by status

    def _look(self) -> Signature | None:
        """Values that change when the file changes; None if there is no file."""
        try:
            found = (self._path or DEFAULT_FILE).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
