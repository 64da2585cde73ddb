"""The values that this package returns: verdicts, routing keys, and `Decoded`, the result for every kind of barcode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from hutong_contract.secret import Secret

FOUND_CHARACTERS_MAX: Final = 48
"""Longest excerpt of a payload shown in a violation: enough to recognise the field, too little to flood a log."""
VIOLATIONS_MAX: Final = 32
"""Most violations kept in one verdict; otherwise the answer to a payload of garbage would be larger than the
payload."""

Pair = tuple[str, str]
"""One data object: its id and its value."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule that a payload breaks."""

    path: str
    """Where: ids joined by `/`, such as `62/05`; empty for the payload as a whole."""
    rule: str
    """Which rule, one stable word such as `length` or `crc_mismatch`."""
    found: str
    """The text at fault, shortened and with control characters escaped; never a credential."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a payload is valid by one rule book, and its violations."""

    valid: bool
    violations: tuple[Violation, ...] = ()


VALID: Final = Verdict(True)


def verdict(violations: list[Violation]) -> Verdict:
    """The verdict for a list of violations."""
    return Verdict(False, tuple(violations[:VIOLATIONS_MAX])) if violations else VALID


@dataclass(frozen=True, slots=True)
class Routing:
    """The routing key of a code, in the scheme's canonical form."""

    scheme: str
    """Whose key it is: `hutong`, `unionpay`, `pix`, …"""
    kind: str
    """`merchant_account`, `proxy`, `payment_code`, `consumer_code` or `link`."""
    account: str
    """The id that routes inside the scheme. Of a payment or consumer code only its public prefix."""
    participant: str = ""
    """A hint at the participant that serves it: a BIN, a BIC, an organisation's id; empty if the code has none."""
    terminal_id: str = ""
    payee_parts: str = ""
    """The fields that name the payee together, joined by `:`, if `account` alone is not unique in the scheme."""

    @property
    def payee(self) -> str:
        """The text that names exactly one payee of the scheme; the directory is searched for it."""
        return self.payee_parts or self.account


PAYMENT: Final = "payment"
MANDATE: Final = "mandate"
PURPOSES: Final = frozenset({PAYMENT, MANDATE, "withdrawal", "deposit", "transfer", "refund", "donation", "bill"})
"""What a code asks the payer for. `mandate`: permission to take money later. `withdrawal`, `deposit`: cash for money,
and money for cash. `transfer`: to a person, or to an account whose owner the code does not call a merchant. `bill`: to
a biller, under the customer's reference."""
PAYABLE: Final = frozenset({PAYMENT, "donation", "bill", "transfer"})
"""Purposes that a payment to the named payee fulfils. A transfer is one of them: shops also print the code of a
person's account, and the directory decides whether the payee is a merchant here."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One scheme that a code may belong to."""

    scheme: str
    score: int
    """Higher fits better; the order of the list, best first."""
    profile: Verdict
    routing: Routing | None
    reason: str = ""
    """By what the scheme was recognised, such as `26/00 is fonepay.com`."""
    purpose: str = PAYMENT
    """What this scheme takes the code to ask for: one of `PURPOSES`."""
    remote: bool = False
    """Whether the code only points to a description of the payment, so that its own amount and reference do not
    count."""
    template: str = ""
    """Root id of the object that the scheme was recognised in."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What the token service needs from a payer's code. Every secret in it is masked."""

    kind: str
    """`payment_code` or `token`."""
    value: Secret[str]
    """The digits of the code, or of the token (the PAN field of a consumer code)."""
    track2: Secret[str] | None = None
    """Track 2 equivalent data (tag 57) as hex digits."""
    cryptogram: Secret[bytes] | None = None
    """Application cryptogram (9F26)."""
    counter: int | None = None
    """Application transaction counter (9F36)."""
    unpredictable_number: int | None = None
    """Unpredictable number (9F37)."""
    issuer_data: Secret[bytes] | None = None
    """Issuer application data (9F10)."""
    requestor_id: str = ""
    """Token requestor id (9F19)."""
    account_reference: Secret[str] | None = None
    """Payment account reference (9F24)."""
    last_four: str = ""
    """Last four digits of the account (9F25), for receipts."""
    lifetime_us: int | None = None
    """How long the scheme lets a code of this kind live, in microseconds; None where it does not say."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """The whole content of a payment barcode. None means that a field does not apply."""

    kind: str
    """`emv_mpm`, `emv_cpm`, `payment_code`, `link`, `bill`, `credit_transfer` or `unknown`."""
    scheme: str | None
    """The scheme that fits best."""
    strict: Verdict | None
    """Right by EMVCo's standard, a bill or credit transfer by its format's own document; None for other kinds."""
    profile: Verdict | None
    """Right by the scheme's own practice."""
    routing: Routing | None = None
    candidates: tuple[Candidate, ...] = ()
    amount_minor: int | None = None
    """Amount in minor units of `currency`."""
    tip: str | None = None
    """`none`, `asked`, `fixed` or `percent`: what the code asks for beyond its amount. None if it does not apply, or
    cannot be understood."""
    tip_minor: int | None = None
    """The fee in minor units: as the code writes it, or the percentage of its amount."""
    tip_basis_points: int | None = None
    """A percentage fee in hundredths of a percent."""
    amount_due_minor: int | None = None
    """What is to be paid in all, fees included; None where the payer enters the amount or decides on a tip."""
    amount_least_minor: int | None = None
    """Smallest amount, if the payer may pay another amount than `amount_minor`; None if not."""
    currency: str | None = None
    """ISO 4217 alphabetic code."""
    merchant_name: str | None = None
    length_reading: str | None = None
    """`characters` or `utf8_bytes`: the reading of EMV lengths that held; characters where both did."""
    initiation: str | None = None
    """`static` or `dynamic`."""
    merchant_city: str | None = None
    merchant_category: str | None = None
    country: str | None = None
    """ISO 3166 alpha-2 code."""
    reference: str | None = None
    """The merchant's reference for this payment."""
    bill_number: str | None = None
    """The bill that is paid, where the code names it beside the reference."""
    terminal_label: str | None = None
    expires_us: int | None = None
    """When the code itself says that it ends, UTC in microseconds."""
    purpose: str | None = None
    """What the code asks for, one of `PURPOSES`; None for payers' codes and what is unknown."""
    artefacts: tuple[str, ...] = ()
    """The names of what a scanner added and this package removed."""
    credential: Credential | None = None
    objects: tuple[Pair, ...] = field(default=(), repr=False)
    """Root objects of an EMV merchant code in their order, byte for byte; empty for other kinds."""
    link: Mapping[str, str] | None = field(default=None, repr=False)
    """Named parts of a link."""
    form: Mapping[str, str] | None = field(default=None, repr=False)
    """Fields of a bill or credit transfer, named as in the table of its format."""


def excerpt(value: str) -> str:
    """A payload's text made safe to show: printable ASCII and letters stay, the rest is escaped, the end is cut off."""
    cut = value[:FOUND_CHARACTERS_MAX]
    if not cut.isprintable():
        cut = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in cut)
    return cut if len(value) <= FOUND_CHARACTERS_MAX else f"{cut}… ({len(value)} characters)"


def covered(value: str) -> str:
    """What may be shown of a field that can contain an account number: its length and kinds of characters."""
    made_of = "digits" if value.isascii() and value.isdigit() else "characters"
    return f"{len(value)} {made_of}"
