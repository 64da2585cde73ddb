"""The record of what the load asked for and was told, independent of the gateway's journal.

One JSON object per line. A request is written before it is sent, an answer as soon as it arrives; the process that
writes is never killed, so what it has written is kept. Times are of the system's monotonic clock, in nanoseconds.
"""

from __future__ import annotations

import base64
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

PAYMENT: Final = "payment"
REFUND: Final = "refund"
CANCEL: Final = "cancel"
STATES_FINAL: Final = frozenset({"SUCCEEDED", "DECLINED", "FAILED", "CANCELLED", "EXPIRED"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, with all that is needed to repeat it."""

    key: str
    """Idempotency key."""
    kind: str
    """PAYMENT or REFUND."""
    amount_minor: int
    issuer: str = ""
    """Of the payer; empty of a refund."""
    merchant: str = ""
    acquirer: str = ""
    """The merchant's first."""
    token: int = 0
    """Which of the run's tokens pays."""
    code: str = field(default="", repr=False)
    """One-time code that pays instead."""
    original: str = ""
    """Of a refund: the payment's id."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a caller was told about a request."""

    key: str
    gateway: int
    asked_ns: int
    told_ns: int
    payment_id: str
    state: str
    body: bytes
    """The payment as the caller got it; empty of a cancellation, which is another request about the same payment."""
    first: bool = False
    """Whether the key was never sent before."""

    @property
    def final(self) -> bool:
        """Whether the payment had ended."""
        return self.state in STATES_FINAL


class Writer:
    """Appends to a record; for several threads, since each line is one write."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def asked(self, one: Asked) -> None:
        """Before it is sent."""
        fields = {name: getattr(one, name) for name in Asked.__slots__ if getattr(one, name)}
        self._write({"asked": fields})

    def answered(self, one: Answer) -> None:
        """As soon as it is told."""
        fields: dict[str, Any] = {name: getattr(one, name) for name in Answer.__slots__}
        fields["body"] = base64.b64encode(one.body).decode()
        self._write({"answer": fields})

    def refused(self, key: str, reason: str) -> None:
        """An error instead of an answer."""
        self._write({"refused": [key, reason]})

    def _write(self, line: dict[str, Any]) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")


@dataclass(slots=True)
class Record:
    """A record that is being read while it grows."""

    path: Path
    asked: dict[str, Asked] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    """By reason."""
    _offset: int = 0

    def read(self) -> list[Answer]:
        """Takes in what was written since; returns the new answers."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        new = [found for line in whole.splitlines() if (found := self._take(json.loads(line))) is not None]
        self.answers.extend(new)
        return new

    def _take(self, line: dict[str, Any]) -> Answer | None:
        if (fields := line.get("asked")) is not None:
            one = Asked(**fields)
            self.asked[one.key] = one
        elif (fields := line.get("answer")) is not None:
            fields["body"] = base64.b64decode(fields["body"])
            return Answer(**fields)
        else:
            self.refusals[line["refused"][1]] += 1
        return None
