"""Parses a participant's own statement for reconciliation: the CSV of hutong_contract.statement. Pure."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from gateway.engine.model import LEG_ID_BYTES
from hutong_contract.cleaning import cell
from hutong_contract.statement import COLUMNS

REVERSAL: Final = "reversal"
FIELD_CHARACTERS_MAX: Final = 200


class StatementError(Exception):
    """A participant's statement cannot be read; the text names the line and what is wrong with it."""


class Line(NamedTuple):
    """One movement in a participant's books."""

    leg_id: bytes
    """The payment's id and the leg's number."""
    kind: str
    """debit, credit, refund, reversal, ..."""
    currency: str
    amount_minor: int
    """Signed change of the participant's account with the others: negative where it pays."""
    booked: str
    """When, as the participant writes it."""
    window: int | None = None
    """The settlement window that the participant counts it in, where it says so."""

    @property
    def payment_id(self) -> bytes:
        """The payment that it is part of."""
        return self.leg_id[:16]


def read(rows: Iterable[Iterable[str]], participant: str) -> Iterator[Line]:
    """Lines of one participant from the rows of a CSV. Raises StatementError."""
    number = 0
    try:
        for number, row in enumerate(rows, start=1):
            values = tuple(row)
            if number == 1:
                if values != COLUMNS:
                    raise ValueError(f"the columns are not {', '.join(COLUMNS)}")
            elif values and values[0] in (participant, cell(participant)):
                yield _line(values)
    except (ValueError, csv.Error) as error:
        raise StatementError(f"line {number}: {error}") from error
    if not number:
        raise StatementError("the statement is empty, even its line of column names is missing")


def _line(values: tuple[str, ...]) -> Line:
    if len(values) != len(COLUMNS):
        raise ValueError(f"there are {len(values)} fields instead of {len(COLUMNS)}")
    if max(map(len, values)) > FIELD_CHARACTERS_MAX:
        raise ValueError(f"a field has more than {FIELD_CHARACTERS_MAX} characters")
    _, leg, _, kind, currency, amount, booked, window = values
    leg_id = bytes.fromhex(leg)
    if len(leg_id) != LEG_ID_BYTES:
        raise ValueError(f"a leg id has {LEG_ID_BYTES * 2} hexadecimal digits")
    return Line(leg_id, kind, currency, int(amount), booked, int(window) if window else None)
