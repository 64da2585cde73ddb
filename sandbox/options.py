"""What kind of network: the options of its composition."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from facepay.gallery.opening import Place as GalleryPlace
from gateway import listen as listening
from gateway.budgets import QueryLimits
from gateway.engine.loop import IN_FLIGHT_MAX
from gateway.engine.transitions import Timing
from gateway.links.windows import WINDOW
from hutong_contract.secret import Secret
from sandbox.vaults import KeyModule

DEFAULT_LISTEN: Final = "127.0.0.1:50050"


class Where(enum.StrEnum):
    """Where the participants run."""

    HERE = "here"
    """In this process."""
    PROCESSES = "processes"
    """As processes that this one starts, over gRPC."""
    CONNECT = "connect"
    """Elsewhere: none is started, they connect to the gateway."""


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """What kind of network."""

    data: Path
    seed: int = 1
    listen: str = DEFAULT_LISTEN
    front: str = "native"
    """`native` or `aio`."""
    tls: listening.Tls | None = None
    plaintext_anywhere: bool = False
    participants: Where = Where.HERE
    participant_certificates: Path | None = None
    """With TLS: folder of `ID.pem` and `ID.key` by which participants that run as processes prove their identity. None:
    they use secrets, which a gateway that requires client certificates does not accept."""
    magic_amounts: bool = True
    wallets_per_issuer: int = 3
    merchants_per_acquirer: int = 2
    opening_minor: int | None = None
    """Opening balance of every wallet; None: the population's."""
    journal: str = field(default="", repr=False)
    """URL of a PostgreSQL database, which may hold a password; empty for SQLite in the folder."""
    accept_lost_commits: bool = False
    """Whether to serve on a database that lacks commits which this folder's gateways saw, and record that in it."""
    vault: Path | None = None
    """Folder of the token vault, which several gateways of one machine may share; None: `vault` in the data folder."""
    faces: bool = True
    """Whether there is a face service; it needs the extra `faces`."""
    face_gallery: GalleryPlace | None = None
    """Where templates are searched; None: in this process, on files in the data folder."""
    face_operators: frozenset[str] = frozenset()
    """Names in client certificates that may enrol faces, erase them and register terminals."""
    face_operator_secret: Secret[str] | None = field(default=None, repr=False)
    """Secret of face operators. With neither names nor secret every caller is an operator, if the port can be reached
    from this machine only."""
    key_module: KeyModule | None = None
    """Hardware module that keeps the vault's key-encryption keys; None: a sealed file in the vault's folder."""
    risk_rules: Path | None = None
    """File of risk rules; None: the package's own."""
    timing: Timing = field(default_factory=Timing)
    in_flight_max: int = IN_FLIGHT_MAX
    participant_window: int = WINDOW
    """Legs that may be unanswered at one participant that is not in this process."""
    queries: QueryLimits = field(default_factory=QueryLimits)
    drain_s: float = 10.0
    settle_every_us: int = 0
    """Period at whose ends settlement windows are closed, in microseconds; 0: only when an operator asks."""
