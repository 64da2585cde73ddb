"""A participant's statement as CSV (RFC 4180): one line for each payment or refund, in the order of success. Pure.

Texts that came from outside are written so that a spreadsheet shows them and calculates none
(hutong_contract.cleaning); the journal has them as they came."""

from __future__ import annotations

import csv
import io
from typing import Final, Protocol

from gateway.clearing.model import Settled, Window, is_refund
from gateway.clearing.text import decimal, utc
from gateway.engine.answer import id_text
from hutong_contract.cleaning import cell

COLUMNS: Final = (
    "window",
    "payment_id",
    "kind",
    "direction",
    "amount_minor",
    "currency",
    "amount",
    "counterparty",
    "merchant_id",
    "terminal_id",
    "reference",
    "payer_last_four",
    "original_payment_id",
    "created",
    "settled",
)
"""`direction` is the effect on this participant's account with the others: debit if it pays, credit if it is paid."""


class Writer(Protocol):
    """Makes a statement piece by piece. What it writes depends only on its window and lines."""

    def begin(self) -> str:
        """The part before the lines."""
        ...

    def line(self, settled: Settled) -> str:
        """The line of a payment or refund to which the participant is a party; empty if this statement leaves it
        out."""
        ...

    def end(self) -> str:
        """The part after the lines."""
        ...


class CsvWriter:
    """Writes a statement as CSV."""

    def __init__(self, window: Window, participant: str) -> None:
        self._number = window.number
        self._participant = participant
        self._buffer = io.StringIO(newline="")
        self._row = csv.writer(self._buffer, lineterminator="\r\n")

    def begin(self) -> str:
        return self._line(COLUMNS)

    def line(self, settled: Settled) -> str:
        pays = settled.debtor == self._participant
        return self._line(
            (
                self._number,
                id_text(settled.payment_id),
                "refund" if is_refund(settled.kind) else "payment",
                "debit" if pays else "credit",
                settled.amount_minor,
                settled.currency,
                decimal(settled.amount_minor, settled.currency),
                cell(settled.creditor if pays else settled.debtor),
                cell(settled.merchant_id),
                cell(settled.terminal_id),
                cell(settled.reference),
                cell(settled.last_four),
                "" if settled.original_id is None else id_text(settled.original_id),
                utc(settled.created_us),
                utc(settled.settled_us),
            )
        )

    def end(self) -> str:
        return ""

    def _line(self, values: tuple[object, ...]) -> str:
        buffer = self._buffer
        self._row.writerow(values)
        text = buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
        return text
