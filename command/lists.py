"""`hutong payments`, `watch`, `merchants`, `wallets`: what there is on a running network."""

from __future__ import annotations

import functools
import itertools
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import click

from command.options.connection import Connection, connected, connection_options
from command.options.durations import Period
from command.options.folders import data_option
from command.options.formats import json_lines_option
from command.options.leads import DIRECTORY_FILE
from command.printing.columns import table
from command.printing.said import say, say_json
from gateway.directory import Directory, DirectoryError, load
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_client import wording
from hutong_client.client import HutongClient
from hutong_client.errors import DeadlineExceeded
from hutong_client.wording import key_name, money, state_name
from hutong_contract.currencies import EXPONENT_OF
from hutong_contract.secret import Secret
from sandbox.places import PlaceError, read_network
from sandbox.population import Wallet, populate

SHOWN_DEFAULT: Final = 20
SHOWN_MAX: Final = 10_000
PAGE_MAX: Final = 200
TOKEN_REF_HEX: Final = 32
STATES: Final = {
    name.removeprefix("PAYMENT_STATE_").lower(): number for name, number in pb.PaymentState.items() if number
}
KINDS: Final[dict[str, pb.PaymentKind.ValueType]] = {
    "payment": pb.PAYMENT_KIND_PAYMENT,
    "refund": pb.PAYMENT_KIND_REFUND,
}
DATA_TEXT: Final = "The network's data folder, as given to `hutong up --data`."

Command = Callable[..., None]


def filter_options(command: Command) -> Command:
    """Adds the options of a payment filter; the command gets them as `only`, a function of the client."""

    @click.option("--merchant", default="", help="Only of this merchant.")
    @click.option("--terminal", default="", help="Only of this terminal of --merchant.")
    @click.option("--token", default="", help="Only with this token; - reads it from standard input.")
    @click.option("--token-ref", default="", metavar="HEX", help="Only with the token of this reference (16 bytes).")
    @click.option("--state", "states", multiple=True, type=click.Choice(sorted(STATES)), help="Only in this state.")
    @click.option("--kind", type=click.Choice(sorted(KINDS)), help="Only payments, or only refunds.")
    @click.option("--since", type=Period(), metavar="TIME", help="Only made in the last 90s, 45m, 1h or 7d.")
    @click.option("--until", type=Period(), metavar="TIME", help="Only made so long ago or longer.")
    @functools.wraps(command)
    def with_filter(
        merchant: str,
        terminal: str,
        token: str,
        token_ref: str,
        states: tuple[str, ...],
        kind: str | None,
        since: int | None,
        until: int | None,
        **rest: Any,
    ) -> None:
        if terminal and not merchant:
            raise click.UsageError("Give --merchant with --terminal: terminals are named by their merchants.")
        if token and token_ref:
            raise click.UsageError("--token and --token-ref exclude each other.")
        reference = _reference(token_ref)
        number = sys.stdin.readline().strip() if token == "-" else token
        made = pb.PaymentFilter(
            merchant_id=merchant,
            terminal_id=terminal,
            token_ref=reference,
            states=[STATES[state] for state in states],
            kind=KINDS[kind] if kind else pb.PAYMENT_KIND_UNSPECIFIED,
        )
        now_us = time.time_ns() // 1000
        if since is not None:
            made.start_time.FromMicroseconds(now_us - since)
        if until is not None:
            made.end_time.FromMicroseconds(now_us - until)

        def only(client: HutongClient) -> pb.PaymentFilter:
            if number:
                made.token_ref = client.get_token(Secret(number)).view.token_ref
            return made

        command(only=only, **rest)

    return with_filter


Only = Callable[[HutongClient], pb.PaymentFilter]


@click.command()
@connection_options
@filter_options
@click.option(
    "--most",
    type=click.IntRange(1, SHOWN_MAX),
    default=SHOWN_DEFAULT,
    show_default=True,
    help="How many to list, newest first.",
)
@json_lines_option
def payments(connection: Connection, only: Only, most: int, *, as_json: bool) -> None:
    """List payments and refunds of a running network, newest first."""
    with connected(connection, as_json=as_json) as client:
        listed = client.list_payments(only=only(client), page_size=min(most + 1, PAGE_MAX))
        found = list(itertools.islice(listed, most + 1))
    if as_json:
        for payment in found[:most]:
            say_json(wording.as_json(payment))
        return
    names = ("made", "id", "kind", "state", "amount", "merchant", "terminal", "key", "token reference", "reference")
    _print(names, map(_payment_row, found[:most]), "payments")
    if len(found) > most:
        say(f"and older ones: list more with --most, up to {SHOWN_MAX:,}")


@click.command()
@connection_options
@filter_options
@click.option("--after", type=click.IntRange(min=0), help="Begin after this number; 0 begins at the first event kept.")
@click.option("--for", "lasts_us", type=Period(), metavar="TIME", help="Stop after 90s, 45m, 1h or 7d.")
@click.option("--most", type=click.IntRange(min=1), help="Stop after so many events.")
@json_lines_option
def watch(
    connection: Connection, only: Only, after: int | None, lasts_us: int | None, most: int | None, *, as_json: bool
) -> None:
    """Print each change of each payment of a running network as it happens, until stopped.

    Begins now, or with --after at an earlier event. A connection that breaks is opened again, and no event is missed.
    """
    with connected(connection, as_json=as_json) as client:
        events = client.watch_payments(
            only=only(client),
            after_sequence=after or 0,
            from_now=after is None,
            deadline_s=None if lasts_us is None else lasts_us / 1e6,
        )
        try:
            for event in itertools.islice(events, most):
                if as_json:
                    say_json(wording.as_json(event))
                else:
                    say(_event_line(event))
        except DeadlineExceeded:
            if lasts_us is None:
                raise
        except KeyboardInterrupt:
            return  # it is how a person stops this


@click.command()
@data_option(DATA_TEXT, required=True)
@click.option("--acquirer", default="", help="Only merchants that this acquirer pays.")
@click.option("--search", default="", help="Only where id, name or city contain this text.")
@json_lines_option
def merchants(data: Path, acquirer: str, search: str, *, as_json: bool) -> None:
    """List the merchants of a network: whom its directory knows, with their terminals and acquirers."""
    rows = [
        {
            "merchant_id": one.id,
            "name": one.name,
            "city": one.city,
            "country": one.country,
            "mcc": one.mcc,
            "currency": one.currency,
            "terminal_ids": sorted(one.terminals),
            "acquirer_ids": [terms.acquirer_id for terms in one.acquirers],
        }
        for one in _directory(data).merchants.values()
        if not acquirer or any(terms.acquirer_id == acquirer for terms in one.acquirers)
        if _has(search, one.id, one.name, one.city)
    ]
    if as_json:
        for row in rows:
            say_json(row)
        return
    names = ("merchant", "name", "city", "country", "MCC", "currency", "terminals", "acquirers")
    _print(names, (tuple(map(_joined, row.values())) for row in rows), "merchants")


@click.command()
@data_option(DATA_TEXT, required=True)
@click.option("--issuer", default="", help="Only wallets of this issuer.")
@click.option("--search", default="", help="Only where id or owner contain this text.")
@click.option("--accounts", is_flag=True, help="Also show the simulated account numbers.")
@json_lines_option
def wallets(data: Path, issuer: str, search: str, *, accounts: bool, as_json: bool) -> None:
    """List the simulated wallets of a network, with their owners and issuers."""
    rows = [
        {
            "wallet_id": one.id,
            "owner": one.name,
            "issuer_id": one.issuer_id,
            "currency": one.currency,
            **({"account_number": one.account.reveal()} if accounts else {}),
        }
        for one in _wallets(data)
        if not issuer or one.issuer_id == issuer
        if _has(search, one.id, one.name)
    ]
    if as_json:
        for row in rows:
            say_json(row)
        return
    names = ("wallet", "owner", "issuer", "currency", *(("account",) if accounts else ()))
    _print(names, (tuple(row.values()) for row in rows), "wallets")


def _reference(text: str) -> bytes:
    try:
        if len(text) not in (0, TOKEN_REF_HEX):
            raise ValueError(text)
        return bytes.fromhex(text)
    except ValueError:
        raise click.UsageError("--token-ref is 32 hexadecimal digits, as `hutong token show` prints them.") from None


def _directory(data: Path) -> Directory:
    path = data / DIRECTORY_FILE
    if not path.exists():
        raise click.UsageError(f"{data} has no {DIRECTORY_FILE}: name a folder that `hutong up --data` has used.")
    try:
        return load(path)
    except DirectoryError as error:
        raise click.ClickException(str(error)) from error


def _wallets(data: Path) -> tuple[Wallet, ...]:
    try:
        said = read_network(data)
    except PlaceError as error:
        raise click.ClickException(str(error)) from error
    if not said:
        raise click.UsageError(f"{data} is no network's: name a folder that `hutong up --data` has used.")
    count = said.get("wallets_per_issuer", 3)
    return populate(said["seed"], wallets_per_issuer=count).wallets


def _has(search: str, *texts: str) -> bool:
    return any(search.casefold() in text.casefold() for text in texts)


def _joined(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _print(names: tuple[str, ...], rows: Iterable[tuple[str, ...]], what: str) -> None:
    shown = list(rows)
    if not shown:
        say(f"no {what}")
        return
    click.echo(table(f"{len(shown):,} {what}", names, shown), nl=False)


def _payment_row(payment: pb.Payment) -> tuple[str, ...]:
    return (
        payment.create_time.ToJsonString(),
        payment.payment_id,
        "refund" if payment.kind == pb.PAYMENT_KIND_REFUND else "payment",
        state_name(payment.state),
        money(payment.amount_minor, payment.currency, EXPONENT_OF.get(payment.currency, 2)),
        payment.merchant_id,
        payment.terminal_id,
        key_name(payment.payer_key),
        payment.token_ref.hex(),
        payment.reference,
    )


def _event_line(event: pb.PaymentEvent) -> str:
    amount = money(event.amount_minor, event.currency, EXPONENT_OF.get(event.currency, 2))
    where = f"{event.merchant_id} {event.terminal_id}".strip()
    kind = "refund" if event.kind == pb.PAYMENT_KIND_REFUND else f"by {key_name(event.payer_key)}"
    time_text = event.time.ToJsonString()
    return f"{event.sequence}  {time_text}  {event.payment_id}  {state_name(event.state)}  {amount}  {where}  {kind}"
