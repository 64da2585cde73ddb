"""Payments for people and programs: amounts with decimals, short names of states and keys, plain JSON."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import Message

from hutong.gateway.v1 import payment_pb2 as pb

_NUMBERS: Final = frozenset(
    {
        "amount_minor",
        "authorised_minor",
        "held_minor",
        "paid_minor",
        "refundable_minor",
        "refunded_minor",
    }
)
"""64-bit fields, which protobuf's own JSON writes as strings."""
KEY_NAMES: Final = {
    pb.KEY_KIND_MERCHANT: "merchant id",
    pb.KEY_KIND_MERCHANT_CODE: "merchant code",
    pb.KEY_KIND_PAYMENT_CODE: "payment code",
    pb.KEY_KIND_CONSUMER_CODE: "consumer code",
    pb.KEY_KIND_TOKEN: "token",
    pb.KEY_KIND_FACE: "face",
    pb.KEY_KIND_TRANSIT: "transit code",
    pb.KEY_KIND_ALIAS: "alias",
}


def money(amount_minor: int, currency: str, exponent: int = 2) -> str:
    """An amount in minor units as text, "12.50 CNY"; `exponent` is the currency's number of decimals."""
    sign = "-" if amount_minor < 0 else ""
    digits = str(abs(amount_minor)).rjust(exponent + 1, "0")
    whole = f"{digits[:-exponent]}.{digits[-exponent:]}" if exponent else digits
    return f"{sign}{whole} {currency}".rstrip()


def state_name(state: int) -> str:
    """A payment's state in one word, such as "SUCCEEDED"."""
    return pb.PaymentState.Name(state).removeprefix("PAYMENT_STATE_")  # type: ignore[arg-type]


def key_name(kind: int) -> str:
    """A routing key's kind in words, such as "payment code"."""
    return KEY_NAMES.get(kind, "")  # type: ignore[call-overload, no-any-return]


def as_json(message: Message) -> dict[str, Any]:
    """A message as plain JSON values: field names as in the contract, amounts as numbers, enums by name."""
    plain: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return {name: _plain(name, value) for name, value in plain.items()}


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {inner: _plain(inner, one) for inner, one in value.items()}
    if isinstance(value, list):
        return [_plain(name, one) for one in value]
    return int(value) if name in _NUMBERS else value
