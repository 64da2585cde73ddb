"""The people and shops of the simulated network: issuers with wallets and acquirers with merchants, all from one seed.

The same seed gives the same people, shops, numbers and secrets. None of them are real: account numbers are Luhn-valid
and made up, and the secrets are as public as the seed.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass, field
from typing import Final

from hutong_contract.secret import Secret

CURRENCY: Final = "CNY"
COUNTRY: Final = "CN"
OPENING_MINOR: Final = 5_000_000
"""Opening balance of a wallet's account: 50,000.00."""
ISSUERS: Final = (
    ("issuer-a", "Amber Bank", "62170001"),
    ("issuer-b", "Birch Bank", "62258802"),
    ("issuer-c", "Cedar Wallet", "62305803"),
    ("issuer-d", "Drum Tower Credit Union", "62148304"),
)
"""Participant id, name, first digits of its account numbers."""
ACQUIRERS: Final = (
    ("acquirer-a", "Arcade Payments", "hutong"),
    ("acquirer-b", "Bell Acquiring", "unionpay"),
    ("acquirer-c", "Courtyard Pay", "hutong"),
    ("acquirer-d", "Dock Merchant Services", "unionpay"),
    ("acquirer-e", "Eave Collect", "hkfps"),
)
"""Participant id, name, and the scheme of its merchants' printed codes."""
SHOPS: Final = (
    ("Lotus Tea House", "Hangzhou", "5812"),
    ("Willow Noodles", "Xian", "5812"),
    ("North Gate Books", "Beijing", "5942"),
    ("Plum Pharmacy", "Chengdu", "5912"),
    ("Star Ferry Tailors", "Hong Kong", "5697"),
    ("Stone Lion Groceries", "Beijing", "5411"),
    ("Cloud Silk", "Suzhou", "5651"),
    ("Harbour Dumplings", "Qingdao", "5814"),
    ("Red Maple Florist", "Kunming", "5992"),
    ("Peak Tram Cameras", "Hong Kong", "5946"),
)
"""Name, city, ISO 18245 merchant category."""
GIVEN: Final = ("Mei", "Jun", "Lan", "Hao", "Yue", "Ning", "Tao", "Rui", "Xin", "Bo", "Fang", "Kai")
FAMILY: Final = ("Lin", "Zhou", "Chen", "Wu", "Shen", "Gao", "Song", "Tang")
SCHEME_PARTICIPANTS: Final = {"hutong": "", "unionpay": "48100000", "hkfps": "388"}
"""Scheme -> id in that scheme of the issuer of its codes here: an organisation, a clearing code."""
HONG_KONG: Final = "Hong Kong"


@dataclass(frozen=True, slots=True)
class Wallet:
    """A person with a phone, and an account at an issuer."""

    id: str
    name: str
    issuer_id: str
    account: Secret[str]
    """Account number at the issuer: 16 digits."""
    currency: str
    opening_minor: int
    device_id: str
    phone_last_four: str
    passcode: Secret[str]
    """Six digits, for paying by face."""
    person: int
    """Index of the person's face in the simulated population of faces."""


@dataclass(frozen=True, slots=True)
class AcquirerTerms:
    """An acquirer's terms for a merchant."""

    id: str
    cost_bp: int
    """Its price, in hundredths of a percent of the amount."""
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Merchant:
    """A shop."""

    id: str
    name: str
    city: str
    country: str
    mcc: str
    currency: str
    terminals: tuple[str, ...]
    scheme: str
    """Scheme of its printed codes."""
    account: str
    """Its account in that scheme."""
    scheme_participant: str
    """The issuer of that account, as the scheme numbers them; empty if the scheme does not."""
    acquirers: tuple[AcquirerTerms, ...]
    """The first is the merchant's own, and the cheapest; the others can replace it."""

    @property
    def payee(self) -> str:
        """The merchant's identification in that scheme, as its code contains it: UnionPay's accounts are unique within
        an acquirer."""
        acquirer = self.scheme_participant
        return f"{acquirer * 2}:{self.account}" if self.scheme == "unionpay" else self.account

    @property
    def home(self) -> str:
        """The acquirer that printed its codes."""
        return self.acquirers[0].id


@dataclass(frozen=True, slots=True)
class Institution:
    """An issuer or acquirer."""

    id: str
    role: str
    """"issuer" or "acquirer"."""
    name: str
    secret: Secret[str] = field(repr=False)
    """The secret that proves its identity."""


@dataclass(frozen=True, slots=True)
class Population:
    """Everybody."""

    seed: int
    institutions: tuple[Institution, ...]
    wallets: tuple[Wallet, ...]
    merchants: tuple[Merchant, ...]

    @property
    def issuers(self) -> tuple[Institution, ...]:
        """The institutions that hold wallets' accounts."""
        return tuple(one for one in self.institutions if one.role == "issuer")

    @property
    def acquirers(self) -> tuple[Institution, ...]:
        """The institutions that hold merchants' accounts."""
        return tuple(one for one in self.institutions if one.role == "acquirer")

    def wallets_of(self, issuer_id: str) -> tuple[Wallet, ...]:
        """The wallets with an account at this issuer."""
        return tuple(wallet for wallet in self.wallets if wallet.issuer_id == issuer_id)

    def merchants_of(self, acquirer_id: str) -> tuple[Merchant, ...]:
        """The merchants that this acquirer can credit."""
        return tuple(shop for shop in self.merchants if any(acquirer_id == terms.id for terms in shop.acquirers))

    def directory(self) -> str:
        """The gateway's directory file of them, as JSON text. Contains the participants' secrets."""
        return json.dumps(
            {
                "participants": [_participant(one) for one in self.institutions],
                "merchants": [_merchant(one) for one in self.merchants],
                "routes": [],
            },
            indent=1,
        )


def populate(seed: int, *, wallets_per_issuer: int = 3, merchants_per_acquirer: int = 2) -> Population:
    """Draws the population of a seed. Up to 10,000 wallets for each issuer and 100 merchants for each acquirer."""
    rng = random.Random(f"hutong population {seed}")
    institutions = [
        Institution(key, role, name, Secret(_secret(seed, key)))
        for role, rows in (("issuer", ISSUERS), ("acquirer", ACQUIRERS))
        for key, name, _ in rows
    ]
    wallets = [
        _wallet(rng, row * wallets_per_issuer + index, issuer, bin_, index)
        for row, (issuer, _, bin_) in enumerate(ISSUERS)
        for index in range(wallets_per_issuer)
    ]
    merchants = [_shop(rng, row, index) for row in range(len(ACQUIRERS)) for index in range(merchants_per_acquirer)]
    return Population(seed, tuple(institutions), tuple(wallets), tuple(merchants))


def _wallet(rng: random.Random, number: int, issuer: str, first_digits: str, index: int) -> Wallet:
    body = f"{first_digits}{rng.randrange(10):d}{index:06d}"
    given, family = GIVEN[number % len(GIVEN)], FAMILY[(number // len(GIVEN) + 3 * number) % len(FAMILY)]
    return Wallet(
        id=f"wallet-{number + 1:02d}",
        name=f"{family} {given}",
        issuer_id=issuer,
        account=Secret(body + luhn_digit(body)),
        currency=CURRENCY,
        opening_minor=OPENING_MINOR,
        device_id=f"phone-{rng.getrandbits(48):012x}",
        phone_last_four=f"{rng.randrange(10_000):04d}",
        passcode=Secret(f"{rng.randrange(1_000_000):06d}"),
        person=number,
    )


def _shop(rng: random.Random, row: int, index: int) -> Merchant:
    """Shop `index` of acquirer `row`. The next one or two acquirers serve it too, at a higher price."""
    home, _, scheme = ACQUIRERS[row]
    name, city, mcc = SHOPS[(row + index * len(ACQUIRERS)) % len(SHOPS)]
    key = f"m{row + 1}{index + 1:03d}"
    others = [ACQUIRERS[(row + step) % len(ACQUIRERS)][0] for step in (range(1, 3) if index % 2 else range(1, 2))]
    price = rng.randrange(25, 40)
    terms = [AcquirerTerms(home, price, 10)]
    terms += [AcquirerTerms(other, price + 12 * step, 5) for step, other in enumerate(others, start=1)]
    return Merchant(
        id=key,
        name=name,
        city=city,
        country="HK" if city == HONG_KONG else COUNTRY,
        mcc=mcc,
        currency=CURRENCY,
        terminals=(f"{key}t1", f"{key}t2"),
        scheme=scheme,
        account=_account(scheme, key, mcc, rng),
        scheme_participant=SCHEME_PARTICIPANTS[scheme],
        acquirers=tuple(terms),
    )


def _account(scheme: str, merchant_id: str, mcc: str, rng: random.Random) -> str:
    """An account in the form of the scheme: a merchant number, a proxy id, or the merchant's own id."""
    if scheme == "unionpay":
        return f"{rng.randrange(10**7):07d}{mcc}{rng.randrange(10**4):04d}"
    if scheme == "hkfps":
        return f"1{rng.randrange(10**8):08d}"
    return merchant_id


def luhn_digit(body: str) -> str:
    """The check digit that follows `body` (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, character in enumerate(reversed(body)):
        doubled = int(character) * (2 if place % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return str(-total % 10)


def _secret(seed: int, participant: str) -> str:
    return hashlib.sha256(f"hutong simulated participant {seed} {participant}".encode()).hexdigest()


def _participant(one: Institution) -> dict[str, object]:
    return {
        "id": one.id,
        "role": one.role,
        "name": one.name,
        "secret": one.secret.reveal(),
        "currencies": [CURRENCY],
    }


def _merchant(shop: Merchant) -> dict[str, object]:
    accounts = {("hutong", shop.id), (shop.scheme, shop.payee)}
    return {
        "id": shop.id,
        "name": shop.name,
        "city": shop.city,
        "country": shop.country,
        "mcc": shop.mcc,
        "currency": shop.currency,
        "terminals": list(shop.terminals),
        "accounts": [{"scheme": scheme, "account": account} for scheme, account in sorted(accounts)],
        "acquirers": [{"id": one.id, "cost_bp": one.cost_bp, "weight": one.weight} for one in shop.acquirers],
    }
