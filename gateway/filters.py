"""Which payments a caller asks for: the filter of ListPayments and WatchPayments, and tokens of pages. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.engine.model import Kind
from gateway.engine.states import State
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError, Reason

NAME_CHARACTERS_MAX: Final = 64
"""Of a merchant's or terminal's id in a filter."""
TOKEN_REF_BYTES: Final = 16
STATES_MAX: Final = 32
"""States that a filter may name, repeated ones included; there are fewer."""
ID_BYTES: Final = 16
FIRST_ID: Final = bytes(ID_BYTES)
AFTER_ALL_IDS: Final = b"\xff" * ID_BYTES
"""No payment has this id: its version is not that of a UUIDv7."""
_MILLISECONDS_MAX: Final = (1 << 48) - 1
"""The last time that an id (UUIDv7) can hold."""
_TOKEN_VERSION: Final = b"\x01"
_DIGEST_BYTES: Final = 8
_TOKEN_CHARACTERS: Final = 34
"""Base64 of version, digest of the filter, and payment id, without padding."""
_STATES: Final = frozenset(int(one) for one in State)
_KINDS: Final = frozenset({0, *(int(one) for one in Kind)})


@dataclass(frozen=True, slots=True)
class PaymentFilter:
    """A filter that was checked. Empty fields allow everything."""

    merchant_id: str = ""
    terminal_id: str = ""
    token_ref: bytes = b""
    states: frozenset[int] = frozenset()
    kind: int = 0
    first_id: bytes = FIRST_ID
    """The least payment id that fits: ids begin with the time at which they were made."""
    before_id: bytes = AFTER_ALL_IDS
    """Ids from this one on do not fit."""

    def fits(
        self, payment_id: bytes, merchant_id: str, terminal_id: str, token_ref: bytes, kind: int, state: int
    ) -> bool:
        """Whether a payment, or an event with its payment's columns, is meant."""
        return (
            (not self.merchant_id or merchant_id == self.merchant_id)
            and (not self.terminal_id or terminal_id == self.terminal_id)
            and (not self.token_ref or token_ref == self.token_ref)
            and (not self.states or state in self.states)
            and (not self.kind or kind == self.kind)
            and self.first_id <= payment_id < self.before_id
        )

    @property
    def digest(self) -> bytes:
        """8 bytes that stand for this filter in a page token."""
        fields = (self.merchant_id, self.terminal_id, self.token_ref.hex(), sorted(self.states), self.kind)
        text = f"{fields!r} {self.first_id.hex()} {self.before_id.hex()}"
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()


ALL: Final = PaymentFilter()
"""Every payment fits."""


def checked(asked: pb.PaymentFilter) -> PaymentFilter:
    """The filter that a request asks for. Raises HutongError: FIELD_MISSING, FIELD_INVALID."""
    for field, text in (("filter.merchant_id", asked.merchant_id), ("filter.terminal_id", asked.terminal_id)):
        if len(text) > NAME_CHARACTERS_MAX or not text.isprintable():
            allowed = f"up to {NAME_CHARACTERS_MAX} printable characters"
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field=field, allowed=allowed)
    if asked.terminal_id and not asked.merchant_id:
        raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field="filter.merchant_id")
    if asked.token_ref and len(asked.token_ref) != TOKEN_REF_BYTES:
        raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="filter.token_ref", allowed="16 bytes")
    if len(asked.states) > STATES_MAX or not _STATES.issuperset(asked.states):
        raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="filter.states", allowed="known states, each once")
    if asked.kind not in _KINDS:
        raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="filter.kind", allowed="PAYMENT or REFUND")
    first = _first_id_at(asked.start_time) if asked.HasField("start_time") else FIRST_ID
    before = _first_id_at(asked.end_time) if asked.HasField("end_time") else AFTER_ALL_IDS
    if first > before:
        raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="filter.end_time", least="filter.start_time")
    return PaymentFilter(
        asked.merchant_id, asked.terminal_id, asked.token_ref, frozenset(asked.states), asked.kind, first, before
    )


def page_token(one: PaymentFilter, before_id: bytes) -> str:
    """The token of the page of payments that are older than `before_id`, for this filter."""
    return base64.urlsafe_b64encode(_TOKEN_VERSION + one.digest + before_id).rstrip(b"=").decode()


def page_begins_before(one: PaymentFilter, token: str) -> bytes:
    """The id that the payments of the page are older than. Raises HutongError PAGE_TOKEN_INVALID for a token that was
    not made for this filter."""
    if not token:
        return one.before_id
    try:
        if len(token) != _TOKEN_CHARACTERS:
            raise ValueError(token)
        read = base64.b64decode(token + "==", altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise HutongError(Reason.ERROR_REASON_PAGE_TOKEN_INVALID, field="page_token") from None
    if read[: 1 + _DIGEST_BYTES] != _TOKEN_VERSION + one.digest:
        raise HutongError(Reason.ERROR_REASON_PAGE_TOKEN_INVALID, field="page_token")
    return min(read[1 + _DIGEST_BYTES :], one.before_id)


def _first_id_at(time: Timestamp) -> bytes:
    """The least id (UUIDv7) that a payment created in this millisecond or later can have."""
    milliseconds = time.seconds * 1000 + time.nanos // 1_000_000
    return min(max(milliseconds, 0), _MILLISECONDS_MAX).to_bytes(6, "big") + bytes(ID_BYTES - 6)
