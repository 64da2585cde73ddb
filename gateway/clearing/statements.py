"""The statements of a window, and their content as a stream in bounded memory."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from gateway.clearing.camt import CamtWriter
from gateway.clearing.model import Position, Settled, Window
from gateway.clearing.statement import CsvWriter, Writer
from hutong_contract.currencies import EXPONENT_OF
from hutong_contract.errors import HutongError, Reason

CHUNK_CHARACTERS: Final = 64 * 1024
"""Text gathered before it is handed on: one message of a stream, one write of a file."""


class Format(enum.IntEnum):
    """The numbers are those of hutong.gateway.v1.StatementFormat."""

    CSV = 1
    CAMT053 = 2


@dataclass(frozen=True, slots=True)
class Statement:
    """One participant's statement of one window."""

    participant: str
    format: Format
    currency: str = ""
    """Of a format that has one currency in each statement."""

    @property
    def file_name(self) -> str:
        """Its name within the window's folder."""
        participant = quote(self.participant, safe="")  # an id may hold what a file's name cannot
        if self.format is Format.CSV:
            return f"{participant}.csv"
        return f"{participant}.{self.currency}.camt053.xml"


def statements(positions: Iterable[Position]) -> list[Statement]:
    """Every statement of a window, in the order of their names."""
    found = {Statement(position.participant, Format.CSV) for position in positions}
    found.update(Statement(one.participant, Format.CAMT053, one.currency) for one in positions)
    return sorted(found, key=lambda statement: statement.file_name)


def check(statement: Statement) -> Statement:
    """Raises HutongError if currency and format do not fit together."""
    if statement.format is Format.CAMT053 and statement.currency not in EXPONENT_OF:
        raise HutongError(Reason.ERROR_REASON_CURRENCY_UNKNOWN, currency=statement.currency[:3])
    if statement.format is Format.CSV and statement.currency:
        raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="currency", allowed="none with CSV")
    return statement


def writer(statement: Statement, window: Window, positions: Iterable[Position]) -> Writer:
    """The writer of a statement. `positions` are those of the window, or at least this participant's."""
    if statement.format is Format.CSV:
        return CsvWriter(window, statement.participant)
    name = (statement.participant, statement.currency)
    mine = [position for position in positions if (position.participant, position.currency) == name]
    return CamtWriter(window, mine[0] if mine else Position(*name))


def content(
    statement: Statement, window: Window, positions: Iterable[Position], settled: Iterable[Settled]
) -> Iterator[bytes]:
    """A statement's bytes in chunks; `settled` are the window's payments and refunds, in their order."""
    made = writer(statement, window, positions)
    parts = [made.begin()]
    size = len(parts[0])
    for one in settled:
        if statement.participant in (one.debtor, one.creditor):
            part = made.line(one)
            parts.append(part)
            size += len(part)
            if size >= CHUNK_CHARACTERS:
                yield "".join(parts).encode()
                parts, size = [], 0
    parts.append(made.end())
    yield "".join(parts).encode()
