"""`hutong participants`: the issuers and acquirers of a data folder, as processes, for gateways that run elsewhere; and
`hutong participants conform`, which checks a participant of the user's own."""

from __future__ import annotations

import os
import shlex
import signal
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import click

from command.options.amounts import CURRENCY_DEFAULT, minor_units
from command.options.connection import checked_target
from command.options.folders import FILE, FOLDER, data_option, vault_option
from command.options.formats import json_option
from command.options.groups import Group
from command.options.population import PopulationChoice, population_options
from command.options.serving import served_tls
from command.options.tokens import read_secret
from command.options.vaults import module_options
from command.printing.conformance import say_outcome, say_report
from command.printing.said import say, say_json
from command.printing.screen import Screen
from command.printing.verdict import failed
from gateway import listen as listening
from hutong_contract import confinement
from hutong_contract.secret import Secret
from sandbox.institutions import Institutions, ParticipantTls, Process, end
from sandbox.participants.books import BooksError
from sandbox.participants.ledger import Role
from sandbox.participants.process import SECRET_VARIABLE
from sandbox.places import PlaceError, check_folder, check_network_folder, read_network
from sandbox.population import populate
from sandbox.vaults import KeyModule, open_vault
from tokenization.errors import VaultError
from verification.conformance.peer import Peer
from verification.conformance.run import checks_of
from verification.conformance.run import conform as run_checks
from verification.conformance.session import AMOUNT_MINOR_MIN, Subject
from verification.conformance.started import Started

LISTEN_DEFAULT: Final = "127.0.0.1:50060"

LOOK_S: Final = 0.5
"""Between looks at whether one has ended."""


@click.group(cls=Group, invoke_without_command=True)
@data_option(
    "Folder with their books, in participants/, and with the vault, unless --vault says otherwise: a gateway's. "
    "[required]",
    new=True,
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    help="A gateway's address, HOST:PORT or unix:/PATH; once for each. Default: the one that last ran on the folder.",
)
@population_options
@vault_option
@click.option(
    "--tls-ca", type=FILE, help="Use TLS, and expect certificates of gateways signed by this authority (PEM)."
)
@click.option("--tls-name", default="", help="The name in the gateways' certificates, if it is not the target's.")
@click.option(
    "--tls-certs",
    type=FOLDER,
    help="Folder with ID.pem and ID.key of each participant, by which it proves who it is. Default: by its secret.",
)
@module_options
@click.pass_context
def participants(
    context: click.Context,
    data: Path | None,
    targets: Sequence[str],
    population: PopulationChoice,
    *,
    vault: Path | None,
    tls_ca: Path | None,
    tls_name: str,
    tls_certs: Path | None,
    key_module: KeyModule | None,
) -> None:
    """Run the simulated issuers and acquirers until stopped.

    Each is a process of its own with books of its own, and connects to every gateway named, again and again: start
    those with `hutong up --participants connect`. A leg is done once, whichever gateway sends it.

    `hutong participants conform` checks a participant of your own.
    """
    if context.invoked_subcommand is not None:
        if data is not None or targets:
            raise click.UsageError(f"--data and --target are not for {context.invoked_subcommand}; see its --help.")
        return
    if data is None:
        raise click.UsageError("Missing option '--data'.")
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
        populate(
            population.seed,
            wallets_per_issuer=population.wallets_per_issuer,
            merchants_per_acquirer=population.merchants_per_acquirer,
        ),
        data,
        population.magic_amounts,
        tls=tls,
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


@participants.command()
@click.option("--id", "participant_id", required=True, help="What its Hello must name, such as issuer-a.")
@click.option("--role", type=click.Choice([role.name.lower() for role in Role]), required=True, help="What it is.")
@click.option(
    "--account",
    required=True,
    help="An account that it knows and nobody else uses meanwhile: a token at an issuer, a merchant's id at an "
    "acquirer; - reads it from standard input. An issuer's needs 20 times --amount, and less than its limits.",
)
@click.option("--currency", default=CURRENCY_DEFAULT, show_default=True, help="The account's, ISO 4217.")
@click.option("--amount", default="1.00", show_default=True, help="Of most legs.")
@click.option(
    "--listen", default=LISTEN_DEFAULT, show_default=True, help="Where it connects to: HOST:PORT or unix:/PATH."
)
@click.option(
    "--answer-seconds", type=click.FloatRange(0.1, 600), default=5.0, show_default=True, help="For an answer."
)
@click.option("--connect-seconds", type=click.FloatRange(1, 3600), default=60.0, show_default=True, help="To connect.")
@click.option(
    "--start",
    default="",
    metavar="COMMAND",
    help="Starts the participant with this command ({target} in it is where to connect), so that it can also be killed "
    "and started again. Default: somebody else starts it.",
)
@click.option("--only", "only", multiple=True, metavar="CHECK", help="Only this check; once for each.")
@click.option("--tls-cert", type=FILE, help="PEM certificate chain; without it plaintext.")
@click.option("--tls-key", type=FILE, help="PEM private key.")
@click.option("--tls-client-ca", type=FILE, help="The participant must be certified by it.")
@click.option("--plaintext-anywhere", is_flag=True, help="Allow plaintext from other machines.")
@json_option
def conform(
    participant_id: str,
    role: str,
    account: str,
    currency: str,
    amount: str,
    listen: str,
    answer_seconds: float,
    connect_seconds: float,
    start: str,
    only: Sequence[str],
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    *,
    plaintext_anywhere: bool,
    as_json: bool,
) -> None:
    """Check that an issuer or acquirer of your own does what participant.proto says.

    Participants dial the gateway, so this listens, plays the gateway's side and waits for the participant to connect:
    point it at the address that is printed, or give --start. Then every kind of leg is sent: once and again, in every
    order that faults bring about, with amounts and accounts that must be declined, over streams that end. What an
    issuer's account has is read off by AUTHORISATIONs that are reversed at once, so that effects are seen and not
    believed; an acquirer's balances cannot be seen. Ends with the account as it was. HUTONG_PARTICIPANT_SECRET is the
    secret that its Hello must have; without it any will do. Exits with 1 if anything failed.
    """
    subject_role = Role[role.upper()]
    known = [check.name for check in checks_of(subject_role)]
    if strange := [name for name in only if name not in known]:
        raise click.UsageError(f"--only {strange[0]}: the checks of an {role} are {', '.join(known)}.")
    amount_minor = minor_units(amount, currency)
    if amount_minor < AMOUNT_MINOR_MIN:
        raise click.UsageError(f"--amount {amount}: at least {AMOUNT_MINOR_MIN} minor units, so that it has parts.")
    tls = served_tls(tls_cert, tls_key, tls_client_ca)
    secret = os.environ.get(SECRET_VARIABLE)
    with ExitStack() as opened:
        try:
            address = listening.parse(listen)
            listening.check(address, secured=tls is not None, plaintext_allowed=plaintext_anywhere)
            peer = opened.enter_context(Peer(address, participant_id, Secret(secret) if secret else None, tls))
            started = _started(start, peer.target)
            if started is not None:
                opened.enter_context(started)
        except listening.ListenError as error:
            raise click.UsageError(f"--listen: {error}") from None
        except ValueError as error:
            raise click.UsageError(f"--start: {error}") from None
        say(f"Waiting for {participant_id} to connect to {peer.target}.", err=True)
        subject = Subject(
            id=participant_id,
            role=subject_role,
            account=read_secret(account),
            currency=currency,
            amount_minor=amount_minor,
            answer_s=answer_seconds,
            connect_s=connect_seconds,
            restart=started.restart if started is not None else None,
        )
        report = run_checks(subject, peer, (lambda _: None) if as_json else say_outcome, only=frozenset(only))
    if as_json:
        say_json(report.as_json())
        raise SystemExit(0 if report.conforms else 1)
    say_report(report)
    if not report.conforms:
        failed(f"{participant_id} does not conform", [outcome.name for outcome in report.failed])


def _started(command: str, target: str) -> Started | None:
    """The participant, where this is to start it. Raises ValueError where the command cannot be read."""
    words = [word.replace("{target}", target) for word in shlex.split(command)]
    return Started(words) if words else None
