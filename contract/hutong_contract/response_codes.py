"""Response codes in words: what an issuer or acquirer means by the two characters of ISO 8583 field 39."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

MEANINGS: Final = MappingProxyType(
    {
        "00": "approved",
        "01": "ask the issuer",
        "02": "ask the issuer, special conditions",
        "03": "no such merchant",
        "04": "keep the card",
        "05": "not honoured, no reason given",
        "06": "error",
        "07": "keep the card, special conditions",
        "12": "the transaction is not valid",
        "13": "the amount is not valid",
        "14": "no such account",
        "15": "no such issuer",
        "19": "enter it again",
        "21": "nothing was done",
        "25": "the original was not found",
        "30": "the message could not be read",
        "31": "this institution is not supported",
        "33": "the card has expired, keep it",
        "34": "suspected fraud, keep the card",
        "38": "too many wrong PINs, keep the card",
        "39": "no credit account",
        "40": "this function is not supported",
        "41": "the card was lost",
        "43": "the card was stolen",
        "51": "not enough money",
        "52": "no current account",
        "53": "no savings account",
        "54": "expired",
        "55": "wrong PIN",
        "56": "no such card",
        "57": "not allowed for this account",
        "58": "not allowed at this terminal",
        "59": "suspected fraud",
        "61": "above the limit for amounts",
        "62": "restricted",
        "63": "a security check failed",
        "64": "differs from the original amount",
        "65": "above the limit for the number of payments",
        "68": "the answer came too late",
        "75": "too many wrong PINs",
        "76": "does not agree with the original",
        "77": "differs from what was sent before",
        "78": "the account is not active",
        "90": "the end of the day is being settled",
        "91": "the issuer or acquirer cannot be reached",
        "92": "no way to the issuer or acquirer",
        "93": "against the law",
        "94": "a duplicate with other contents",
        "95": "totals do not agree",
        "96": "malfunction",
    }
)
"""ISO 8583:1987 field 39 to its meaning, as interbank card networks use it."""


def meaning(code: str) -> str:
    """What a code means; empty where that is not laid down."""
    return MEANINGS.get(code, "")


def in_words(reason: str) -> str:
    """A payment's reason for people: "not enough money (51)" for a code, else the reason as it is."""
    words = meaning(reason)
    return f"{words} ({reason})" if words else reason
