"""Gets what a load uses from a running network: tokens of its simulated wallets, merchants, their codes.

Tokens are asked for over the raw client, a few hundred at once, before the clock starts. Who the wallets and merchants
are follows from the network's seed and size, which its data folder says (`network.json`).
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hutong.tokenization.v1 import token_pb2
from hutong_contract.names import WALLET_TRID
from loadtest.h2 import UnaryLoad
from loadtest.operations import Supply
from sandbox.codes import merchant_code
from sandbox.population import Population, populate

REQUEST_PATH: Final = "/hutong.tokenization.v1.TokenService/RequestToken"
WALLETS_DEFAULT: Final = 3
MERCHANTS_DEFAULT: Final = 2
"""As `hutong up` has them, for each issuer and for each acquirer."""
FETCH_S: Final = 60.0
"""For all tokens of a network."""


class SupplyError(Exception):
    """The network does not give what a load needs. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    """A network to load."""

    target: str
    """HOST:PORT or unix:/path."""
    seed: int = 1
    wallets_per_issuer: int = WALLETS_DEFAULT
    merchants_per_acquirer: int = MERCHANTS_DEFAULT


def place_of(folder: Path, target: str = "") -> Place:
    """What a data folder says of the network that runs on it; `target` instead of its own, where it is given.

    Raises:
        SupplyError: no network has run on the folder.
    """
    try:
        said = json.loads((folder / "network.json").read_text("utf-8"))
        return Place(
            target or str(said["target"]),
            int(said["seed"]),
            int(said.get("wallets_per_issuer", WALLETS_DEFAULT)),
            int(said.get("merchants_per_acquirer", MERCHANTS_DEFAULT)),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SupplyError(f"{folder} is not the data folder of a network: run `hutong up --data {folder}`") from error


def pid_of(folder: Path) -> int:
    """The process of the network that runs on a data folder of this machine; 0 where nobody knows."""
    try:
        return int(json.loads((folder / "network.json").read_text("utf-8"))["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def fetch(place: Place) -> Supply:
    """Everything that a load on this network may use.

    Raises:
        SupplyError: nothing answers there, or it knows none of the wallets.
    """
    people = populate(
        place.seed,
        wallets_per_issuer=place.wallets_per_issuer,
        merchants_per_acquirer=place.merchants_per_acquirer,
    )
    return Supply(
        tokens=_tokens(place, people),
        requestor_id=WALLET_TRID,
        merchants=[(shop.id, terminal) for shop in people.merchants for terminal in shop.terminals],
        codes=[merchant_code(shop, shop.terminals[0], None) for shop in people.merchants],
    )


def _tokens(place: Place, people: Population) -> list[str]:
    try:
        load = UnaryLoad(place.target, REQUEST_PATH)
    except (OSError, ValueError) as error:
        raise SupplyError(f"nothing answers at {place.target}: run `hutong up`, or name another --host") from error
    tokens: dict[int, str] = {}
    refused = ""
    try:
        for number, wallet in enumerate(people.wallets):
            asked = token_pb2.RequestTokenRequest(
                requestor_id=WALLET_TRID, issuer_id=wallet.issuer_id, account_number=wallet.account.reveal()
            )
            load.send(number, asked.SerializeToString())
        until = time.monotonic() + FETCH_S
        while load.in_flight and time.monotonic() < until:
            for reply in load.exchange(0.1):
                if reply.status == 0:
                    tokens[reply.tag] = token_pb2.RequestTokenResponse.FromString(reply.body).token
                else:
                    refused = reply.reason or f"status {reply.status}"
    except OSError as error:
        raise SupplyError(f"{place.target} broke off: {error}") from error
    finally:
        load.close()
    if not tokens:
        raise SupplyError(f"{place.target} gave no token: {refused or 'no answer in time'}")
    return [tokens[number] for number in sorted(tokens)]
