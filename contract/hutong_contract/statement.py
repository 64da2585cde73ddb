"""The CSV in which a participant hands in its own statement for reconciliation (RFC 4180)."""

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
"""The first line. `amount_minor` is the signed change of the account; `window` the settlement window that the
participant counts the line in, or empty where it does not say."""
