"""The CSV form of a participant's own statement for reconciliation (RFC 4180)."""

from __future__ import annotations

from typing import Final

COLUMNS: Final = (
    "participant",
    "leg_id",
    "original_leg_id",
    "kind",
    "currency",
    "amount_minor",
    "booked",
    "window",
)
"""The first line. `amount_minor` is the signed change of the account; `window` the settlement window in which the
participant counts the line, or empty."""
