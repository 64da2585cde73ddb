"""A receipt as text, for the paper roll of a terminal or the screen of a wallet: 32 to 48 columns. Pure."""

from __future__ import annotations

import unicodedata
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from hutong.gateway.v1 import payment_pb2 as pb
from hutong_client.wording import key_name, money, state_name
from hutong_contract.cleaning import JOINERS, printable
from hutong_contract.response_codes import in_words

COLUMNS_MIN: Final = 32
COLUMNS_MAX: Final = 48
COLUMNS: Final = 40
INDENT: Final = "  "
GROUP: Final = 4
"""Characters of a receipt number that are printed together."""

TITLES: Final = {
    pb.PAYMENT_STATE_SUCCEEDED: "PAID",
    pb.PAYMENT_STATE_HELD: "PRE-AUTHORISED, NOT PAID",
    pb.PAYMENT_STATE_DECLINED: "DECLINED, NOT PAID",
    pb.PAYMENT_STATE_FAILED: "FAILED, NOT PAID",
    pb.PAYMENT_STATE_CANCELLED: "CANCELLED, NOT PAID",
    pb.PAYMENT_STATE_EXPIRED: "EXPIRED, NOT PAID",
}
REFUND_TITLE: Final = "REFUND"


def render(receipt: pb.Receipt, columns: int = COLUMNS) -> str:
    """The receipt, lines of at most `columns`. Raises ValueError unless that is COLUMNS_MIN to COLUMNS_MAX."""
    if not COLUMNS_MIN <= columns <= COLUMNS_MAX:
        raise ValueError(f"a receipt has {COLUMNS_MIN} to {COLUMNS_MAX} columns")
    blocks = [_head(receipt, columns)]
    blocks.extend(
        [line for label, value in rows if value for line in _row(label, value, columns)]
        for rows in (_facts(receipt), _amounts(receipt), _refunds(receipt), _numbers(receipt))
    )
    rule = "\n" + "-" * columns + "\n"
    return rule.join("\n".join(block) for block in blocks if block) + "\n"


Row = tuple[str, str]
"""A label and its value; a row without a value is not printed."""


def _head(receipt: pb.Receipt, columns: int) -> list[str]:
    title = TITLES[receipt.state]
    if receipt.kind == pb.PAYMENT_KIND_REFUND:
        succeeded = receipt.state == pb.PAYMENT_STATE_SUCCEEDED
        title = REFUND_TITLE if succeeded else f"{REFUND_TITLE} {state_name(receipt.state)}"
    names = [printable(receipt.merchant_name or receipt.merchant_id), printable(receipt.merchant_city)]
    return [_centred(_cut(line, columns), columns) for line in (*filter(None, names), "", title)]


def _facts(receipt: pb.Receipt) -> list[Row]:
    return [
        ("Merchant", receipt.merchant_id),
        ("Terminal", receipt.terminal_id),
        ("Account", receipt.masked_account),
        ("By", key_name(receipt.payer_key)),
        ("Issuer", receipt.issuer_id),
        ("Acquirer", receipt.acquirer_id),
        ("Reference", receipt.reference),
        ("Began", _time(receipt.create_time)),
        ("Ended", _time(receipt.end_time) if receipt.HasField("end_time") else ""),
        ("Held until", _time(receipt.hold_expire_time) if receipt.HasField("hold_expire_time") else ""),
        ("Why", in_words(receipt.reason)),
    ]


def _amounts(receipt: pb.Receipt) -> list[Row]:
    refund = receipt.kind == pb.PAYMENT_KIND_REFUND
    paid = "Given back" if refund else "Captured" if receipt.authorised_minor else "Paid"
    return [
        ("Pre-authorised", _money(receipt, receipt.authorised_minor)),
        ("Held now", _money(receipt, receipt.held_minor)),
        ("Asked for", _money(receipt, 0 if receipt.paid_minor or receipt.held_minor else receipt.amount_minor)),
        (paid.upper(), _money(receipt, receipt.paid_minor)),
    ]


def _refunds(receipt: pb.Receipt) -> list[Row]:
    entries: list[Row] = []
    for one in receipt.refunds:
        said = "" if one.state == pb.PAYMENT_STATE_SUCCEEDED else f" {state_name(one.state).lower()}"
        entries.append((f"Refund{said} {_time(one.create_time)[:10]}", _money(receipt, -one.amount_minor)))
    if receipt.refunds:
        left = money(receipt.refundable_minor, receipt.currency, receipt.exponent)
        entries += [("Refunded", _money(receipt, receipt.refunded_minor)), ("Left", left)]
    return entries


def _numbers(receipt: pb.Receipt) -> list[Row]:
    number = receipt.receipt_number
    grouped = " ".join(number[at : at + GROUP] for at in range(0, len(number), GROUP))
    return [("Receipt", grouped), ("Payment", receipt.payment_id), ("Refund of", receipt.original_payment_id)]


def _row(label: str, value: str, columns: int) -> list[str]:
    """One line if both fit, otherwise the value on lines of its own. Characters that would control the printer are not
    printed."""
    value = printable(value)
    room = columns - _width(label) - _width(value)
    if room > 0:
        return [label + " " * room + value]
    pieces = []
    while value:
        piece = _cut(value, columns - len(INDENT))
        pieces.append(INDENT + piece)
        value = value[len(piece) :]
    return [label, *pieces]


def _time(stamp: Timestamp) -> str:
    return f"{stamp.ToDatetime():%Y-%m-%d %H:%M:%S} UTC"


def _money(receipt: pb.Receipt, minor: int) -> str:
    return money(minor, receipt.currency, receipt.exponent) if minor else ""


def _centred(text: str, columns: int) -> str:
    return (" " * ((columns - _width(text)) // 2) + text).rstrip()


def _width(text: str) -> int:
    """Columns that a text takes: Chinese characters take two (Unicode annex 11)."""
    return sum(
        0 if unicodedata.combining(c) or c in JOINERS else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _cut(text: str, columns: int) -> str:
    """As much of a text as fits."""
    taken = 0
    for at, character in enumerate(text):
        taken += _width(character)
        if taken > columns:
            return text[:at]
    return text
