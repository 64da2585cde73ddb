"""The directory: participants, merchants, and which scheme's account names which of them. Read from one JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hutong_contract.limits import SECRET_CHARACTERS_MIN

WEIGHT_MAX: Final = 1e9
"""Largest weight. Shares are computed in proportion, and a much larger number would round small ones to nothing."""
MERCHANTS_MAX: Final = 5_000_000
"""Most merchants; more do not fit one process's memory (about 1 KB each)."""


ISSUER: Final = "issuer"
"""Role of a participant that holds payers' accounts."""


class DirectoryError(Exception):
    """The directory's file cannot be used; the text says what to correct."""


@dataclass(frozen=True, slots=True)
class Participant:
    """An issuer or acquirer."""

    id: str
    role: str
    """`ISSUER` or `acquirer`."""
    name: str
    secret: str = ""
    """The secret that it must send in its Hello if the channel does not prove its identity; empty: none is needed."""
    currencies: frozenset[str] = frozenset()
    """Currencies that it settles; empty: all."""

    def __repr__(self) -> str:
        return f"Participant({self.id!r}, {self.role!r})"


@dataclass(frozen=True, slots=True)
class Acceptance:
    """An acquirer that serves a merchant, and on what terms."""

    acquirer_id: str
    cost_bp: float
    """What it costs, in basis points of the amount."""
    weight: float
    """Share of the traffic among acquirers of equal score; 0: used only if no other can be."""


@dataclass(frozen=True, slots=True)
class Merchant:
    """A merchant and who serves it."""

    id: str
    name: str
    city: str
    country: str
    mcc: str
    currency: str
    terminals: frozenset[str]
    acquirers: tuple[Acceptance, ...]


class Directory:
    """Immutable after loading; a new one replaces it as a whole."""

    def __init__(
        self,
        participants: Mapping[str, Participant],
        merchants: Mapping[str, Merchant],
        accounts: Mapping[tuple[str, str], str],
        routes: Mapping[tuple[str, str], str],
    ) -> None:
        self.participants = participants
        self.merchants = merchants
        self._accounts = accounts
        self._routes = routes

    def merchant(self, scheme: str, account: str) -> Merchant | None:
        """The merchant that an account of a scheme names."""
        merchant_id = self._accounts.get((scheme, account))
        return self.merchants.get(merchant_id) if merchant_id is not None else None

    def participant_for(self, scheme: str, participant: str = "") -> str | None:
        """The participant that serves a scheme's own participant id (BIN, BIC, organisation), or else the whole
        scheme."""
        found = self._routes.get((scheme, participant))
        return found if found is not None else self._routes.get((scheme, ""))

    def account_of(self, merchant_id: str, scheme: str) -> str | None:
        """A merchant's account in a scheme. Searches all accounts, so it is for translating codes and not for
        payments."""
        return next(
            (key[1] for key, known in self._accounts.items() if known == merchant_id and key[0] == scheme), None
        )


def load(path: Path) -> Directory:
    """Reads a directory file. Raises DirectoryError."""
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DirectoryError(f"{path}: {error}") from error


def parse(data: Mapping[str, Any]) -> Directory:
    """Builds a directory from parsed JSON, whose keys docs/directory.md describes. Raises DirectoryError."""
    try:
        for row in data["participants"]:
            if 0 < len(row.get("secret", "")) < SECRET_CHARACTERS_MIN:
                raise ValueError(f"secret of participant {row['id']!r}: at least {SECRET_CHARACTERS_MIN} characters")
        participants = {
            row["id"]: Participant(
                row["id"],
                row["role"],
                row.get("name", row["id"]),
                row.get("secret", ""),
                frozenset(row.get("currencies", ())),
            )
            for row in data["participants"]
        }
        merchants: dict[str, Merchant] = {}
        accounts: dict[tuple[str, str], str] = {}
        for row in data["merchants"]:
            merchant = _merchant(row, participants)
            merchants[merchant.id] = merchant
            for account in row.get("accounts", ()):
                accounts[account["scheme"], account["account"]] = merchant.id
        routes = {(row["scheme"], row.get("participant", "")): row["to"] for row in data.get("routes", ())}
    except (KeyError, TypeError, ValueError) as error:
        raise DirectoryError(f"the directory lacks or has a wrong {error}") from error
    if len(merchants) > MERCHANTS_MAX:
        raise DirectoryError(f"the directory has {len(merchants)} merchants, at most {MERCHANTS_MAX} are allowed")
    if unknown := set(routes.values()) - set(participants):
        raise DirectoryError(f"routes lead to unknown participants: {', '.join(sorted(unknown))}")
    return Directory(participants, merchants, accounts, routes)


def _merchant(row: Mapping[str, Any], participants: Mapping[str, Participant]) -> Merchant:
    acquirers = tuple(
        Acceptance(served["id"], float(served.get("cost_bp", 0)), float(served.get("weight", 1)))
        for served in row["acquirers"]
    )
    for served in acquirers:
        if not 0 <= served.weight <= WEIGHT_MAX:
            raise ValueError(
                f"weight of acquirer {served.acquirer_id!r} of merchant {row['id']!r}: 0 to {WEIGHT_MAX:g}"
            )
        if not math.isfinite(served.cost_bp):
            raise ValueError(f"cost_bp of acquirer {served.acquirer_id!r} of merchant {row['id']!r}: a number")
        participant = participants.get(served.acquirer_id)
        if participant is None or participant.role != "acquirer":
            raise ValueError(f"acquirer {served.acquirer_id!r} of merchant {row['id']!r}")
    return Merchant(
        row["id"],
        row["name"],
        row.get("city", ""),
        row.get("country", ""),
        row.get("mcc", ""),
        row.get("currency", ""),
        frozenset(row.get("terminals", ())),
        acquirers,
    )
