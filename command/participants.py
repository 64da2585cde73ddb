"""`hutong participants`: the issuers and acquirers of a data folder, as processes, for gateways that run elsewhere."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from command.options.connection import checked_target
from command.options.vaults import module_options
from command.printing.screen import Screen
from hutong_contract import confinement
from sandbox.institutions import Institutions, ParticipantTls, Process, end
from sandbox.participants.books import BooksError
from sandbox.places import PlaceError, check_folder, check_network_folder, read_network
from sandbox.population import populate
from sandbox.vaults import KeyModule, open_vault
from tokenization.errors import VaultError

_PEM: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
LOOK_S: Final = 0.5
"""Between looks at whether one has ended."""


@click.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder with their books, in participants/, and with the vault, unless --vault says otherwise: a gateway's.",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    help="A gateway's address, HOST:PORT or unix:/PATH; once for each. Default: the one that last ran on the folder.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="As of the gateways.")
@click.option("--wallets", type=click.IntRange(1, 10_000), default=3, show_default=True, help="As of the gateways.")
@click.option("--merchants", type=click.IntRange(1, 100), default=2, show_default=True, help="As of the gateways.")
@click.option("--magic/--no-magic", default=True, show_default=True, help="Whether magic amounts make trouble.")
@click.option(
    "--vault",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the token vault, which gives accounts their tokens. Default: vault in the data folder.",
)
@click.option(
    "--tls-ca", type=_PEM, help="Use TLS, and expect certificates of gateways signed by this authority (PEM)."
)
@click.option("--tls-name", default="", help="The name in the gateways' certificates, if it is not the target's.")
@click.option(
    "--tls-certs",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with ID.pem and ID.key of each participant, by which it proves who it is. Default: by its secret.",
)
@module_options
def participants(
    data: Path,
    targets: Sequence[str],
    seed: int,
    wallets: int,
    merchants: int,
    *,
    magic: bool,
    vault: Path | None,
    tls_ca: Path | None,
    tls_name: str,
    tls_certs: Path | None,
    key_module: KeyModule | None,
) -> None:
    """Run the simulated issuers and acquirers until stopped.

    Each is a process of its own with books of its own, and connects to every gateway named, again and again: start
    those with `hutong up --participants connect`. A leg is done once, whichever gateway sends it.
    """
    tls = _tls(tls_ca, tls_name, tls_certs)
    try:
        check_network_folder(data)
        if vault is not None:
            check_folder(vault)
        targets = [checked_target(target) for target in targets] or _remembered(data)
    except PlaceError as error:
        raise click.ClickException(str(error)) from None
    confinement.keep_to_owner()
    confinement.without_dumps()
    institutions = Institutions(
        populate(seed, wallets_per_issuer=wallets, merchants_per_acquirer=merchants), data, magic, tls=tls
    )
    if tls is not None and (missing := tls.missing(one.id for one in institutions.population.institutions)):
        raise click.UsageError(f"{len(missing)} files are not there, such as {missing[0]}")
    try:
        opened = open_vault(vault or data / "vault", key_module)
        try:
            institutions.open_accounts(institutions.register(opened.service))
        finally:
            opened.close()
    except (VaultError, BooksError, OSError) as error:
        raise click.ClickException(str(error)) from None
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    processes = institutions.start_all(targets)
    Screen().print(f"{len(processes)} participants connect to {', '.join(targets)}. Stop with Ctrl-C.", highlight=False)
    try:
        _watch(processes, stop)
    finally:
        end(processes)


def _tls(authority: Path | None, name: str, certificates: Path | None) -> ParticipantTls | None:
    if authority is None:
        if name or certificates:
            raise click.UsageError("--tls-name and --tls-certs need --tls-ca.")
        return None
    return ParticipantTls(authority, name, certificates)


def _watch(processes: Sequence[Process], stop: threading.Event) -> None:
    """Until stopped. Raises ClickException where one of them ends."""
    while not stop.wait(LOOK_S):
        if any(process.poll() is not None for process in processes):
            raise click.ClickException("a participant ended, for the reason above; the others are stopped")


def _remembered(data: Path) -> tuple[str]:
    """Where the gateway that last ran on the folder listened. Raises PlaceError."""
    said = read_network(data)
    if not said:
        raise click.UsageError(f"name a gateway with --target: none has run on {data}")
    return (str(said["target"]),)
