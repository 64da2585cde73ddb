"""`hutong up`: the network, until stopped."""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import click
from rich.table import Table

from command.options.durations import Period
from command.options.faces import Faces, face_options
from command.options.serving import served_tls
from command.options.vaults import module_options
from command.printing.screen import Screen, add_row
from gateway.budgets import QueryLimits
from gateway.engine.loop import IN_FLIGHT_MAX
from gateway.engine.ports import JournalFencedError
from gateway.journal.interface import JournalWentBackError
from gateway.links.windows import WINDOW, WINDOW_MIN
from hutong_contract import confinement
from hutong_contract.cleaning import log_to
from hutong_contract.extras import MissingExtraError
from sandbox.journals import WENT_BACK
from sandbox.network import DEFAULT_LISTEN, Network, NetworkError, NetworkOptions, Where
from sandbox.places import PlaceError, check_network_folder
from sandbox.vaults import KeyModule

SHOWN_MAX: Final = 12
"""Wallets and merchants listed at the start."""


@click.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the network's state; made if it is not there. Without it: a temporary one, removed at the end.",
)
@click.option("--listen", default=DEFAULT_LISTEN, show_default=True, help="HOST:PORT, [IPV6]:PORT or unix:/path.")
@click.option("--front", type=click.Choice(["native", "aio"]), default=None, help="Default: native, or aio for TLS.")
@click.option(
    "--participants",
    type=click.Choice([where.value for where in Where]),
    default=Where.HERE.value,
    show_default=True,
    help="Where issuers and acquirers run: in this process; as processes of their own, over gRPC; or elsewhere (see "
    "hutong participants), then they connect to this gateway.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the simulated people and merchants.")
@click.option("--wallets", type=click.IntRange(1, 10_000), default=3, show_default=True, help="For each issuer.")
@click.option("--merchants", type=click.IntRange(1, 100), default=2, show_default=True, help="For each acquirer.")
@click.option("--magic/--no-magic", default=True, show_default=True, help="Whether magic amounts make trouble.")
@click.option("--in-flight", type=click.IntRange(1), default=IN_FLIGHT_MAX, show_default=True, help="Payments at once.")
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
    help="Status queries a second that each caller may make, besides one each 3 s for each payment that takes long.",
)
@click.option("--query-burst", type=click.IntRange(1), default=QueryLimits().burst, show_default=True, help="At once.")
@click.option("--drain-seconds", type=click.FloatRange(0), default=10.0, show_default=True, help="Grace on SIGTERM.")
@click.option("--tls-cert", type=click.Path(exists=True, path_type=Path), help="PEM certificate chain.")
@click.option("--tls-key", type=click.Path(exists=True, path_type=Path), help="PEM private key.")
@click.option("--tls-client-ca", type=click.Path(exists=True, path_type=Path), help="Callers must be certified by it.")
@click.option(
    "--participant-certs",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="With --tls-client-ca and --participants processes: folder with ID.pem and ID.key of each participant, in "
    "which ID is a DNS name or URI of the certificate.",
)
@click.option(
    "--journal",
    default="",
    envvar="HUTONG_JOURNAL",
    metavar="URL",
    help="postgresql://… for a database server, also CockroachDB and YugabyteDB (or HUTONG_JOURNAL). "
    "Default: SQLite in the folder.",
)
@click.option(
    "--accept-lost-commits",
    is_flag=True,
    help="Serve on a database that has lost commits which this folder's gateways acknowledged (a restored backup, a "
    "standby that lagged). Without it such a database is refused. What was lost is recorded in it.",
)
@click.option(
    "--vault",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the token vault, which gateways of one machine may share. Default: vault in the data folder.",
)
@module_options
@click.option("--with-faces/--no-faces", default=True, show_default=True, help="Whether there is a face service.")
@face_options
@click.option(
    "--settle-every",
    type=Period(),
    default=None,
    metavar="TIME",
    help="Close a settlement window at every turn of this period, such as 15m, 6h or 1d, counted from midnight UTC.",
)
@click.option(
    "--risk-rules",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File of risk rules, read again when it changes or on SIGHUP. Default: the package's own.",
)
@click.option("--accounts", is_flag=True, help="Also show the simulated wallets' account numbers.")
@click.option("--plaintext-anywhere", is_flag=True, help="Allow a plaintext port that other machines can reach.")
def up(
    data: Path | None,
    listen: str,
    front: str | None,
    participants: str,
    seed: int,
    wallets: int,
    merchants: int,
    magic: bool,
    in_flight: int,
    participant_window: int,
    query_rate: float,
    query_burst: int,
    drain_seconds: float,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    participant_certs: Path | None,
    journal: str,
    accept_lost_commits: bool,
    vault: Path | None,
    key_module: KeyModule | None,
    with_faces: bool,
    faces: Faces,
    settle_every: int | None,
    risk_rules: Path | None,
    accounts: bool,
    plaintext_anywhere: bool,
) -> None:
    """Run the network until stopped.

    One gateway with its token and face services, four issuers with wallets and five acquirers with merchants. SIGTERM
    or Ctrl-C drains: nothing new is taken, what is in flight ends or is settled after the next start.
    """
    log_to(sys.stderr, "%(asctime)s %(levelname)s %(name)s %(message)s")
    tls = served_tls(tls_cert, tls_key, tls_client_ca)
    if data is not None:
        try:
            check_network_folder(data)
        except PlaceError as error:
            raise click.ClickException(str(error)) from None
    with ExitStack() as stack:
        folder = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hutong-")))
        options = NetworkOptions(
            data=folder,
            seed=seed,
            listen=listen,
            front=front or ("aio" if tls else "native"),
            tls=tls,
            plaintext_anywhere=plaintext_anywhere,
            participants=Where(participants),
            participant_certificates=participant_certs,
            magic_amounts=magic,
            wallets_per_issuer=wallets,
            merchants_per_acquirer=merchants,
            journal=journal,
            accept_lost_commits=accept_lost_commits,
            vault=vault,
            key_module=key_module,
            faces=with_faces,
            face_gallery=faces.gallery,
            face_operators=faces.operators,
            face_operator_secret=faces.secret,
            risk_rules=risk_rules,
            in_flight_max=in_flight,
            participant_window=participant_window,
            queries=QueryLimits(query_rate, query_burst),
            drain_s=drain_seconds,
            settle_every_us=settle_every or 0,
        )
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        confinement.keep_to_owner()
        confinement.without_dumps()
        confinement.raise_open_files()
        try:
            network = Network.start(options)
        except NetworkError as error:
            raise click.ClickException(str(error)) from None
        except MissingExtraError as error:
            without = " (or leave the face service out: --no-faces)" if error.extra == "faces" else ""
            raise click.ClickException(f"{error}{without}") from None
        signal.signal(signal.SIGHUP, lambda *_: network.gateway.risk.ask())
        _show(network, Screen(), accounts=accounts)
        failed = False
        while not stop.wait(1.0):
            if network.failed:
                failed = True
                break
        empty = network.close()
        Screen(stderr=True).print("drained" if empty else "stopped; what was in flight is settled at the next start")
    failure = network.gateway.engine.failure
    if failed and isinstance(failure, JournalWentBackError):
        raise click.ClickException(f"{failure}. {WENT_BACK}")
    if failed and isinstance(failure, JournalFencedError):
        raise click.ClickException(
            "this gateway did not reach its journal in time, and another gateway has taken over its payments; nothing "
            "acknowledged is lost: start it again"
        )
    if failed:
        raise click.ClickException("the engine stopped by a defect, see the log; nothing acknowledged is lost")


def _show(network: Network, console: Screen, *, accounts: bool) -> None:
    console.print(f"Hutong listens on [bold]{network.target}[/], its state is in {network.data}", highlight=False)
    if network.recovered:
        console.print(f"{network.recovered:,} payments were in flight and are being settled")
    people, shops = network.population.wallets, network.population.merchants
    wallets = Table("wallet", "owner", "issuer", *(("account",) if accounts else ()))
    for wallet in people[:SHOWN_MAX]:
        add_row(wallets, wallet.id, wallet.name, wallet.issuer_id, *((wallet.account.reveal(),) if accounts else ()))
    console.print(wallets)
    merchants = Table("merchant", "name", "terminals", "acquirers, cheapest first")
    for shop in shops[:SHOWN_MAX]:
        add_row(merchants, shop.id, shop.name, " ".join(shop.terminals), " ".join(one.id for one in shop.acquirers))
    console.print(merchants)
    if max(len(people), len(shops)) > SHOWN_MAX:
        console.print(f"and more: {len(people):,} wallets, {len(shops):,} merchants")
    account = people[0].account.reveal() if accounts else "ACCOUNT (see hutong up --accounts)"
    console.print(
        f"Try, in another terminal with HUTONG_TARGET={network.target}:\n"
        f"  hutong token request --issuer {people[0].issuer_id} --account {account}\n"
        f"  hutong pay --token TOKEN --merchant {shops[0].id} --amount 12.50\n"
        "Stop with Ctrl-C.",
        highlight=False,
    )
