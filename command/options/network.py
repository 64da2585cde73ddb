"""Options of a whole network: its port, its participants, where its state is, what it bounds."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from command.options.durations import Period
from command.options.faces import Faces, face_options
from command.options.folders import FILE, FOLDER, journal_option, vault_option
from command.options.population import PopulationChoice, population_options
from command.options.serving import served_tls
from command.options.vaults import module_options
from gateway.budgets import QueryLimits
from gateway.engine.loop import IN_FLIGHT_MAX
from gateway.links.windows import WINDOW, WINDOW_MIN
from sandbox.options import DEFAULT_LISTEN, NetworkOptions, Where

Command = Callable[..., None]
NetworkIn = Callable[[Path], NetworkOptions]
"""The options of the network that was asked for, in a data folder."""


def network_options(command: Command) -> Command:
    """Adds the options; the command gets, as `network_in`, the network that they ask for, in a folder that it names."""

    @click.option(
        "--listen",
        default=DEFAULT_LISTEN,
        show_default=True,
        help="Where callers connect: HOST:PORT, [IPV6]:PORT or unix:/PATH.",
    )
    @click.option(
        "--front",
        type=click.Choice(["native", "aio"]),
        default=None,
        help="The gRPC server. Default: native, or aio for TLS.",
    )
    @click.option(
        "--participants",
        type=click.Choice([where.value for where in Where]),
        default=Where.HERE.value,
        show_default=True,
        help="Where issuers and acquirers run: in this process; as processes of their own, over gRPC; or elsewhere, "
        "then they connect to this gateway (see hutong participants).",
    )
    @population_options
    @click.option(
        "--in-flight", type=click.IntRange(1), default=IN_FLIGHT_MAX, show_default=True, help="Most payments at once."
    )
    @click.option(
        "--participant-window",
        type=click.IntRange(WINDOW_MIN),
        default=WINDOW,
        show_default=True,
        help="Legs that may be unanswered at one participant that is not in this process.",
    )
    @click.option(
        "--query-rate",
        type=click.FloatRange(0, min_open=True),
        default=QueryLimits().rate_per_s,
        show_default=True,
        help="Status queries a second that each caller may make, besides one every 3 s for each slow payment.",
    )
    @click.option(
        "--query-burst",
        type=click.IntRange(1),
        default=QueryLimits().burst,
        show_default=True,
        help="Status queries that a caller may make at once.",
    )
    @click.option(
        "--drain-seconds",
        type=click.FloatRange(0),
        default=10.0,
        show_default=True,
        help="Longest wait for payments in flight, on SIGTERM.",
    )
    @click.option("--tls-cert", type=FILE, help="Serve with TLS: the certificate chain (PEM).")
    @click.option("--tls-key", type=FILE, help="Its private key (PEM).")
    @click.option("--tls-client-ca", type=FILE, help="Callers must show a certificate of this authority (PEM).")
    @click.option(
        "--participant-certs",
        type=FOLDER,
        help="With --tls-client-ca and --participants processes: folder with ID.pem and ID.key of each participant, of "
        "which ID is a subject alternative name.",
    )
    @journal_option(
        "postgresql://… for a database server, also CockroachDB and YugabyteDB (or HUTONG_JOURNAL). Default: SQLite in "
        "the folder.",
        remembered=True,
    )
    @click.option(
        "--accept-lost-commits",
        is_flag=True,
        help="Serve on a database that has lost commits which this folder's gateways acknowledged (a restored backup, "
        "a standby that lagged). Without it such a database is refused. What was lost is recorded in it.",
    )
    @vault_option
    @module_options
    @click.option("--with-faces/--no-faces", default=True, show_default=True, help="Whether there is a face service.")
    @face_options
    @click.option(
        "--settle-every",
        type=Period(),
        default=None,
        metavar="TIME",
        help="Close a settlement window at every turn of this period, such as 15m, 6h or 1d, from midnight UTC on.",
    )
    @click.option(
        "--risk-rules",
        type=FILE,
        help="File of risk rules, read again when it changes or on SIGHUP. Default: the package's own.",
    )
    @click.option("--plaintext-anywhere", is_flag=True, help="Allow a plaintext port that other machines can reach.")
    @functools.wraps(command)
    def with_network(
        faces: Faces, population: PopulationChoice, key_module: Any, vault: Path | None, journal: str, **given: Any
    ) -> None:
        tls = served_tls(given.pop("tls_cert"), given.pop("tls_key"), given.pop("tls_client_ca"))
        network_in = functools.partial(
            NetworkOptions,
            listen=given.pop("listen"),
            front=given.pop("front") or ("aio" if tls else "native"),
            tls=tls,
            plaintext_anywhere=given.pop("plaintext_anywhere"),
            participants=Where(given.pop("participants")),
            participant_certificates=given.pop("participant_certs"),
            seed=population.seed,
            wallets_per_issuer=population.wallets_per_issuer,
            merchants_per_acquirer=population.merchants_per_acquirer,
            magic_amounts=population.magic_amounts,
            journal=journal,
            accept_lost_commits=given.pop("accept_lost_commits"),
            vault=vault,
            key_module=key_module,
            faces=given.pop("with_faces"),
            face_gallery=faces.gallery,
            face_operators=faces.operators,
            face_operator_secret=faces.secret,
            risk_rules=given.pop("risk_rules"),
            in_flight_max=given.pop("in_flight"),
            participant_window=given.pop("participant_window"),
            queries=QueryLimits(given.pop("query_rate"), given.pop("query_burst")),
            drain_s=given.pop("drain_seconds"),
            settle_every_us=given.pop("settle_every") or 0,
        )
        command(network_in=network_in, **given)

    return with_network
