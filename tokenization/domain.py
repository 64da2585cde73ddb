"""Domains and budgets. A domain says where, to whom and how much a token or routing key may pay; a budget is shared by
all keys of a token."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from hutong_contract.errors import HutongError, Reason
from tokenization.interface import KeyUse

CHANNELS: Final = frozenset({"qr_merchant_presented", "qr_consumer_presented", "token", "face", "transit"})
ASSURANCE_METHODS: Final = frozenset({"00", "10", "11", "12", "13", "14"})
"""EMV assurance methods: none, account verification, one factor, two factors, risk-based, asserted by the issuer."""
LIST_ITEMS_MAX: Final = 256
"""Most entries in one list of a domain: enough for a chain's merchants, and a bound on the cost of a check."""
TEXT_MAX: Final = 64
AMOUNT_MAX_MINOR: Final = 2**53
DAY_US: Final = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Domain:
    """Where a key may be used. An empty or zero field allows everything."""

    channels: frozenset[str] = frozenset()
    merchants: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    """ISO 18245 merchant category codes."""
    amount_max_minor: int = 0
    """Of one payment, in minor units of its currency."""
    currency: str = ""
    count_max: int = 0
    """Payments, ever."""
    total_max_minor: int = 0
    """Sum of payments, ever; needs `currency`."""
    cryptogram_required: bool = False


OPEN: Final = Domain()
"""The domain that allows everything. Recognised by identity, so that the common case costs nothing."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The sum that all keys of one token may spend together."""

    amount_minor: int
    currency: str
    period_days: int = 0
    """Days after which the budget starts again, counted from 1970-01-01 UTC; 0: never."""

    def window(self, now_us: int) -> int:
        """The number of the period that contains a moment."""
        return now_us // (self.period_days * DAY_US) if self.period_days else 0


@dataclass(frozen=True, slots=True)
class Policy:
    """The terms of tokens or keys. Stored once, however many tokens and keys have the same."""

    issuer_id: str = ""
    requestors: tuple[str, ...] = ()
    """TRIDs that may present and change it; empty: any."""
    domain: Domain = OPEN
    budget: Budget | None = None
    assurance_method: str = "00"

    def encode(self) -> bytes:
        """Canonical bytes: equal policies have equal bytes."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), default=sorted).encode()

    @staticmethod
    def decode(data: bytes) -> Policy:
        """Reads `encode`'s bytes."""
        fields: dict[str, Any] = json.loads(data)
        domain = fields["domain"]
        for name in ("channels", "merchants", "categories"):
            domain[name] = frozenset(domain[name])
        read = Domain(**domain)
        return Policy(
            fields["issuer_id"],
            tuple(fields["requestors"]),
            OPEN if read == OPEN else read,
            Budget(**fields["budget"]) if fields["budget"] else None,
            fields["assurance_method"],
        )


_DIMENSIONS: Final[tuple[tuple[str, Callable[[Domain, KeyUse], bool]], ...]] = (
    ("channel", lambda domain, use: not domain.channels or use.channel in domain.channels),
    ("merchant", lambda domain, use: not domain.merchants or use.merchant_id in domain.merchants),
    ("merchant_category", lambda domain, use: not domain.categories or use.merchant_category in domain.categories),
    ("currency", lambda domain, use: not domain.currency or use.currency == domain.currency),
    ("cryptogram", lambda domain, use: not domain.cryptogram_required or use.cryptogram is not None),
)
"""Each dimension, and whether it allows a use. Amount, count, total, device and expiry are checked elsewhere, by the
code that raises their errors."""


def check_use(domain: Domain, use: KeyUse) -> None:
    """Raises HutongError: TOKEN_DOMAIN naming the dimension, or AMOUNT_ABOVE_LIMIT."""
    if domain is OPEN:
        return
    for dimension, allows in _DIMENSIONS:
        if not allows(domain, use):
            raise HutongError(Reason.ERROR_REASON_TOKEN_DOMAIN, dimension=dimension)
    if domain.amount_max_minor and use.amount_minor > domain.amount_max_minor:
        raise HutongError(
            Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT, dimension="amount", amount_max_minor=str(domain.amount_max_minor)
        )


def _is_currency(text: str) -> bool:
    return len(text) == 3 and text.isascii() and text.isalpha() and text.isupper()


def _invalid(name: str) -> HutongError:
    return HutongError(Reason.ERROR_REASON_FIELD_INVALID, field=name)


def check_domain(domain: Domain) -> None:
    """Checks that a domain in a request is consistent. Raises HutongError(FIELD_INVALID) naming the field."""
    if not domain.channels <= CHANNELS:
        raise _invalid("domain.channels")
    for name, values in (("merchant_ids", domain.merchants), ("merchant_categories", domain.categories)):
        if len(values) > LIST_ITEMS_MAX or any(not 0 < len(value) <= TEXT_MAX for value in values):
            raise _invalid(f"domain.{name}")
    if any(not (len(code) == 4 and code.isascii() and code.isdigit()) for code in domain.categories):
        raise _invalid("domain.merchant_categories")
    for name, number in (
        ("amount_max_minor", domain.amount_max_minor),
        ("count_max", domain.count_max),
        ("total_max_minor", domain.total_max_minor),
    ):
        if not 0 <= number <= AMOUNT_MAX_MINOR:
            raise _invalid(f"domain.{name}")
    if (domain.currency and not _is_currency(domain.currency)) or (domain.total_max_minor and not domain.currency):
        raise _invalid("domain.currency")


def check_budget(budget: Budget) -> None:
    """Checks that a budget in a request is consistent. Raises HutongError(FIELD_INVALID) naming the field."""
    if not 0 < budget.amount_minor <= AMOUNT_MAX_MINOR:
        raise _invalid("budget.amount_minor")
    if not _is_currency(budget.currency):
        raise _invalid("budget.currency")
    if not 0 <= budget.period_days <= 366:
        raise _invalid("budget.period_days")


def check_assurance(method: str) -> str:
    """The EMV assurance method of a request, "00" if it names none. Raises HutongError(FIELD_INVALID)."""
    if method and method not in ASSURANCE_METHODS:
        raise _invalid("assurance_method")
    return method or "00"
