"""The gateway's interface to the token service: what a payer's key resolves to, and under which conditions.

One call carries a batch. Resolving changes nothing that a caller can see: what a payment uses up (a one-time code, a
budget, a count) is returned as conditions, which the gateway settles inside its own journal commit. Therefore a code is
single-use also across processes and restarts.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from hutong_contract.errors import HutongError, Reason
from hutong_contract.secret import Secret


class PayerKeyKind(enum.StrEnum):
    """The kind of key that a payer presented."""

    __hash__ = str.__hash__

    PAYMENT_CODE = "payment_code"
    """Digits of a one-time code, online or offline."""
    CONSUMER_CODE = "consumer_code"
    """The credential inside an EMV consumer-presented code (its token and, where there is one, cryptogram)."""
    TOKEN = "token"
    """A token, with a cryptogram if its domain asks for one."""
    FACE = "face"
    """The opaque reference that the face service gave for a matched subject."""
    TRANSIT = "transit"
    """A signed transit code, submitted after the gate let the rider through."""


@dataclass(frozen=True, slots=True)
class Cryptogram:
    """Proof by a device that holds a token; see hutong.tokenization.v1.Cryptogram."""

    value: bytes
    counter: int
    unpredictable_number: int


class KeyUse(NamedTuple):
    """One key presented for one payment: the key, and the facts that its domain is checked against."""

    kind: PayerKeyKind
    value: Secret[str]
    amount_minor: int
    currency: str
    merchant_id: str
    terminal_id: str = ""
    merchant_category: str = ""
    """ISO 18245 merchant category code, four digits, or empty where unknown."""
    channel: str = ""
    """`qr_merchant_presented`, `qr_consumer_presented`, `token`, `face`, `transit`."""
    requestor_id: str = ""
    device_id: str = ""
    cryptogram: Cryptogram | None = None
    assurance_method: str = ""
    """Assurance that the presenting channel adds, an EMV two-digit method code, or empty."""


class Condition(NamedTuple):
    """A condition of a payment: `counter + add <= cap`. Settled and added in the commit that admits the payment, and
    given back if the payment does not succeed."""

    counter: bytes
    """16 bytes that name the counter (a budget, a use count, a day's limit), derived with a key: no secret shows."""
    add: int
    """What the payment adds: its amount in minor units, or 1 where uses are counted."""
    cap: int
    """The most that the counter may come to. 0 in what is read back from a journal, which keeps counter and `add`."""
    reason: int
    """The hutong.status.v1.ErrorReason to answer with when the condition fails. 0 in what is read back."""
    limit: str = ""
    """Name of the limit that a risk rule sets here; empty for what belongs to the payer's key: a budget, a count."""


class Resolution(NamedTuple):
    """What a payer's key resolves to."""

    issuer_id: str
    token: Secret[str]
    """The account-unified token, as the issuer knows the account. Never stored by the gateway."""
    token_ref: bytes
    """16 bytes that name the token in journals and logs. They cannot be used to pay."""
    key_ref: bytes
    """16 bytes that name the routing key used."""
    last_four: str
    """Last four digits of the token, for receipts."""
    assurance_method: str = "00"
    spends: tuple[bytes, ...] = ()
    """16-byte values that can be spent only once (a code and step, a cryptogram's counter)."""
    counters: tuple[Condition, ...] = ()
    amount_max_minor: int | None = None
    """Largest amount that this key may pay at once, already checked against KeyUse."""
    spend_reason: int = Reason.ERROR_REASON_CODE_SPENT
    """The hutong.status.v1.ErrorReason to answer with when one of `spends` was spent before."""
    made_us: int = 0
    """When the presented value was made, UTC in microseconds: a code's step, a cryptogram's payment; 0 if it does not
    change."""
    key_since_us: int = 0
    """When the routing key was created; 0 where the token itself was presented."""


class TokenResolver(Protocol):
    """The narrow interface between the gateway's engine and the token service."""

    def resolve(self, uses: Sequence[KeyUse], now_us: int) -> list[Resolution | HutongError]:
        """Answers each use in its place. `now_us` is UTC in microseconds. Never raises for a bad key: a refusal is
        a HutongError in its place. Runs on the engine's thread: no disk or network on the common path, and no
        more than some tens of microseconds for each use."""
        ...


@dataclass(frozen=True, slots=True)
class Account:
    """An account that an issuer registers."""

    issuer_id: str
    number: Secret[str]
    """PAN or account number, digits."""
    attributes: dict[str, str] = field(default_factory=dict, repr=False)
    """What else the issuer knows; sealed with the number."""
