"""Limits of the contract: what a gateway takes in one message, and for how long. Servers refuse what is above them;
clients and load generators can know before they send.

Names end in their unit: `_MAX` counts things, `_CHARACTERS_MAX` characters, `_BYTES_MAX` bytes; `_US` and `_S` are
microseconds and seconds.
"""

from __future__ import annotations

from typing import Final

MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Largest message in either direction, as gRPC's own default. Larger ones get MESSAGE_TOO_LARGE."""

CALLER_CHARACTERS_MAX: Final = 128
"""Most characters of the name that a caller gives itself in its metadata; printable ASCII."""

# -- payments ------------------------------------------------------------------------------------------------------

PAYMENTS_MAX: Final = 500
"""Payments in one BatchCreatePayments."""
IDEMPOTENCY_KEY_CHARACTERS_MAX: Final = 64
"""Printable ASCII, at least one."""
REFERENCE_CHARACTERS_MAX: Final = 64
"""Most characters of a merchant's order number or another text that is kept with a payment or refund."""
AMOUNT_MINOR_MAX: Final = 999_999_999_999
"""Twelve digits, as in ISO 8583 field 4."""
DEADLINE_DEFAULT_US: Final = 30_000_000
"""A payment without a deadline must have ended after this."""
DEADLINE_MAX_US: Final = 86_400_000_000
HOLD_DEFAULT_S: Final = 7 * 86_400
HOLD_MAX_S: Final = 30 * 86_400
REPLY_MARGIN_US: Final = 50_000
"""An unfinished payment is answered this long before the call's own deadline, so that the answer arrives in time."""
REPLY_MAX_US: Final = 60_000_000
"""A call without a deadline of its own is answered after this."""

# -- barcodes ------------------------------------------------------------------------------------------------------

PAYLOADS_MAX: Final = 500
"""Texts in one BatchDecode."""
PAYLOAD_CHARACTERS_MAX: Final = 7_089
"""The most that a QR symbol holds (version 40-L, digits); a longer text is no barcode."""

# -- tokens and faces ----------------------------------------------------------------------------------------------

KEYS_RESOLVED_MAX: Final = 500
"""Keys in one Resolve of the token service."""
NONCES_MAX: Final = 64
"""Nonces in one BeginCapture."""
TEMPLATES_MAX: Final = 8
"""Templates in one enrolment."""
SUBJECT_CHARACTERS_MAX: Final = 128
"""Most characters of the name under which a face is enrolled."""

# -- participants --------------------------------------------------------------------------------------------------

FRAME_ANSWERS_MAX: Final = 25_000
"""Answers in one frame of a participant."""
INSTALLATION_CHARACTERS_MAX: Final = 64
"""Most characters of the name that a participant gives its installation."""
SECRET_CHARACTERS_MIN: Final = 16
"""Fewest characters of a secret that proves an identity: guesses are slowed and not counted, so it must not be
guessable."""

# -- pages of lists ------------------------------------------------------------------------------------------------

PAYMENTS_PAGE_DEFAULT: Final = 50
PAYMENTS_PAGE_MAX: Final = 200
"""Of the payments of a gateway."""
SETTLEMENT_PAGE_DEFAULT: Final = 100
SETTLEMENT_PAGE_MAX: Final = 1_000
DECISIONS_PAGE_DEFAULT: Final = 50
DECISIONS_PAGE_MAX: Final = 500
"""Of the decisions of risk rules."""
HISTORY_PAGE_DEFAULT: Final = 100
HISTORY_PAGE_MAX: Final = 1_000
"""Of a token's history."""
