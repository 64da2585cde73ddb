"""`hutong token`: tokens of a running network, and the token service's own measurements."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import click
from rich.table import Table

from command.options.amounts import CURRENCY_DEFAULT, exponent_of, minor_units
from command.options.connection import Connection, connection_options, stop
from command.options.folders import data_option, journal_option
from command.options.formats import json_option
from command.options.groups import Group
from command.options.tokens import (
    name_argument,
    read_ref,
    read_secret,
    reason_option,
    requestor_option,
    token_name,
    token_service,
)
from command.printing.progress import telling
from command.printing.said import say_json
from command.printing.screen import Screen, add_row
from command.printing.token_values import plain
from command.printing.tokens import event_word, keys_table, reference_column, token_table
from command.printing.verdict import failed
from hutong.tokenization.v1 import token_pb2 as pb
from sandbox.places import PlaceError, check_empty

KINDS: Final = {
    "barcode": pb.TOKEN_KEY_KIND_BARCODE,
    "payment_code": pb.TOKEN_KEY_KIND_PAYMENT_CODE,
    "device": pb.TOKEN_KEY_KIND_DEVICE,
    "face": pb.TOKEN_KEY_KIND_FACE,
}


@click.group(cls=Group)
def token() -> None:
    """Request, show, suspend, resume and delete tokens.

    NAME is a token's number, or its reference (32 hexadecimal digits) as `show` prints it; - reads it from standard
    input, where other users of the machine cannot see it.
    """


@token.command()
@connection_options
@requestor_option
@click.option("--issuer", required=True, help="The issuer's id, such as issuer-a.")
@click.option("--account", required=True, help="PAN or account number; - reads it from standard input.")
@click.option("--assurance", default="", help="EMV assurance method: 00, 10 to 14.")
@click.option("--channel", "channels", multiple=True, help="Only in this channel. May be repeated.")
@click.option("--merchant", "merchants", multiple=True, help="Only at this merchant. May be repeated.")
@click.option("--mcc", "categories", multiple=True, help="Only at merchants of this category. May be repeated.")
@click.option("--payment-max", default="", metavar="AMOUNT", help="Largest payment, such as 50.00.")
@click.option("--currency", default="", help="Only in this currency, ISO 4217. Amounts without it are CNY.")
@click.option("--count-max", type=int, default=0, help="Number of payments, ever.")
@click.option("--spend-max", default="", metavar="AMOUNT", help="Budget: what all keys may spend together.")
@click.option("--budget-days", type=int, default=0, help="Days after which the budget begins anew; 0 for never.")
@click.option("--amount-max", type=int, default=0, hidden=True)  # as --payment-max and --spend-max, in minor units
@click.option("--budget", type=int, default=0, hidden=True)
@click.option("--inactive", is_flag=True, help="The token waits for `activate` before it can pay.")
@json_option
def request(connection: Connection, requestor: str, issuer: str, account: str, *, as_json: bool, **terms: Any) -> None:
    """Get the account-unified token of an account: always the same one for the same account."""
    asked = pb.RequestTokenRequest(
        requestor_id=requestor,
        issuer_id=issuer,
        account_number=read_secret(account),
        assurance_method=terms["assurance"],
        inactive=terms["inactive"],
    )
    currency = terms["currency"] or CURRENCY_DEFAULT
    exponent_of(currency)
    for short, limit in (("amount_max", "payment_max"), ("budget", "spend_max")):
        if terms[limit]:
            terms[short] = minor_units(terms[limit], currency, "--" + limit.replace("_", "-"))
    names = ("channels", "merchants", "categories", "amount_max", "currency", "count_max")
    if any(terms[name] for name in names):
        asked.domain.CopyFrom(
            pb.TokenDomain(
                channels=terms["channels"],
                merchant_ids=terms["merchants"],
                merchant_categories=terms["categories"],
                amount_max_minor=terms["amount_max"],
                currency=terms["currency"],
                count_max=terms["count_max"],
            )
        )
    if terms["budget"]:
        budget = pb.TokenBudget(amount_minor=terms["budget"], currency=currency, period_days=terms["budget_days"])
        asked.budget.CopyFrom(budget)
    with token_service(connection, as_json=as_json) as service:
        made = service.call(service.stub.RequestToken, asked)
    if as_json:
        say_json(plain(made))
        return
    click.echo(made.token)
    Screen(stderr=True).print(token_table(made.view))


@token.command()
@connection_options
@requestor_option
@name_argument
@json_option
def show(connection: Connection, requestor: str, name: str, *, as_json: bool) -> None:
    """Show a token and its routing keys, without their numbers."""
    with token_service(connection, as_json=as_json) as service:
        found = service.call(service.stub.GetToken, pb.GetTokenRequest(requestor_id=requestor, name=token_name(name)))
    if as_json:
        say_json(plain(found))
        return
    console = Screen()
    console.print(token_table(found.view))
    if found.keys:
        console.print(keys_table(found.keys))


def _changing(word: str, change: pb.StateChange.ValueType, text: str) -> None:
    """Adds one of the commands that move a token or key along its lifecycle."""

    @token.command(word, help=text)
    @connection_options
    @requestor_option
    @name_argument
    @click.option("--key", default="", help="Only this key: its reference, 32 hexadecimal digits.")
    @reason_option
    @json_option
    def command(connection: Connection, requestor: str, name: str, key: str, reason: str, *, as_json: bool) -> None:
        asked = pb.ChangeStateRequest(
            requestor_id=requestor, name=token_name(name), key_ref=read_ref(key), change=change, reason=reason
        )
        with token_service(connection, as_json=as_json) as service:
            view = service.call(service.stub.ChangeState, asked).view
        if as_json:
            say_json(plain(view))
        else:
            Screen().print(token_table(view))


_changing("activate", pb.STATE_CHANGE_ACTIVATE, "Let a requested token pay.")
_changing("suspend", pb.STATE_CHANGE_SUSPEND, "Stop a token with all its keys, or one key, until resumed.")
_changing("resume", pb.STATE_CHANGE_RESUME, "Let a suspended token or key pay again.")
_changing("delete", pb.STATE_CHANGE_DELETE, "End a token with all its keys, or one key, for ever.")


@token.command()
@connection_options
@requestor_option
@name_argument
@click.option("--add", type=click.Choice(sorted(KINDS)), help="Add a key of this kind.")
@click.option("--device", default="", help="With --add: the device that the key belongs to.")
@click.option("--payment-max", default="", metavar="AMOUNT", help="With --add: largest payment, such as 50.00.")
@click.option("--currency", default=CURRENCY_DEFAULT, show_default=True, help="Of --payment-max, ISO 4217.")
@click.option("--amount-max", type=int, default=0, hidden=True)  # as --payment-max, in minor units
@click.option("--count-max", type=int, default=0, help="With --add: number of payments, ever.")
@click.option("--face-reference", default="", help="With --add face: what the face service gave; - reads it.")
@json_option
def keys(
    connection: Connection, requestor: str, name: str, add: str | None, device: str, payment_max: str, currency: str,
    amount_max: int, count_max: int, face_reference: str, *, as_json: bool,
) -> None:  # fmt: skip
    """List a token's routing keys, or add one. A new key's number is printed once and never again."""
    if payment_max:
        amount_max = minor_units(payment_max, currency, "--payment-max")
    with token_service(connection, as_json=as_json) as service:
        if add is None:
            asked = pb.GetTokenRequest(requestor_id=requestor, name=token_name(name))
            found = service.call(service.stub.GetToken, asked).keys
            if as_json:
                say_json([plain(key) for key in found])
            else:
                Screen().print(keys_table(found))
            return
        wanted = pb.CreateKeyRequest(
            requestor_id=requestor, name=token_name(name), kind=KINDS[add], device_id=device,
            face_reference=read_secret(face_reference),
        )  # fmt: skip
        if amount_max or count_max:
            wanted.domain.CopyFrom(pb.TokenDomain(amount_max_minor=amount_max, count_max=count_max))
        made = service.call(service.stub.CreateKey, wanted)
    if as_json:
        say_json(plain(made))
        return
    if made.number:
        click.echo(made.number)
    Screen(stderr=True).print(keys_table([made.view]))


@token.command()
@connection_options
@requestor_option
@name_argument
@json_option
def history(connection: Connection, requestor: str, name: str, *, as_json: bool) -> None:
    """Show what happened to a token and its keys, oldest first."""
    asked = pb.ListHistoryRequest(requestor_id=requestor, name=token_name(name), page_size=1_000)
    with token_service(connection, as_json=as_json) as service:
        events = service.call(service.stub.ListHistory, asked).events
    if as_json:
        say_json([plain(event) for event in events])
        return
    table = Table("#", "time", reference_column(), "event", "requestor", "reason", box=None, padding=(0, 1))
    for event in events:
        row = (
            str(event.sequence), event.time.ToDatetime().isoformat(" ", "seconds"),
            event.key_ref.hex() or "(token)", event_word(event),
            event.requestor_id or "(local)", event.reason,
        )  # fmt: skip
        add_row(table, *row)
    Screen().print(table)


@token.command()
@click.option(
    "--accounts",
    type=click.IntRange(1_000, 10_000_000),
    default=1_000_000,
    show_default=True,
    help="How many the vault has.",
)
@click.option(
    "--suite",
    type=click.Choice(["international", "sm"]),
    default="international",
    show_default=True,
    help="Algorithms: AES and SHA-2, or SM2, SM3 and SM4.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the account numbers.")
@data_option("An empty folder to build the vault in, and keep.", new=True)
@json_option
def bench(accounts: int, suite: str, seed: int, data: Path | None, *, as_json: bool) -> None:
    """Measure a vault: resolving, codes, start, memory, re-wrapping. Local; takes minutes for a million accounts."""
    from loadtest import tokens as measured  # imports the whole service, which other commands do without

    if data is not None:
        try:
            check_empty(data)
        except PlaceError as error:
            raise click.UsageError(str(error)) from None
    with tempfile.TemporaryDirectory(prefix="hutong-bench-") as made, telling() as show_progress:
        figures = measured.run(data or Path(made), accounts, suite, seed, show_progress)
    report = figures.as_json()
    if as_json:
        say_json(report)
    else:
        _print_figures(report)
    if figures.missed():
        failed("targets were missed", figures.missed())


@token.command()
@click.option("--count", type=click.IntRange(1, 10_000_000), default=1_000_000, show_default=True, help="Of tokens.")
@click.option(
    "--presentations",
    "rounds",
    type=click.IntRange(1, 100_000),
    metavar="ROUNDS",
    help="Instead: show each of ROUNDS codes 100 times at once at two gateways on one journal and one vault.",
)
@journal_option("With --presentations: an empty PostgreSQL database. Default: a server is started for the run.")
@json_option
def check(count: int, rounds: int | None, journal: str, *, as_json: bool) -> None:
    """Check what tokens and codes promise.

    Makes tokens for --count accounts in a vault of its own, and checks each: length, Luhn, BIN, uniqueness. With
    --presentations, checks that every code pays exactly once, however many gateways it is shown to.
    """
    if rounds is None:
        _check_tokens(count, as_json=as_json)
    else:
        _check_presentations(rounds, journal, as_json=as_json)


def _check_tokens(count: int, *, as_json: bool) -> None:
    from loadtest import tokens as measured

    with tempfile.TemporaryDirectory(prefix="hutong-check-") as made, telling() as show_progress:
        found = measured.check_tokens(Path(made), count, show_progress)
    _print_found(found, as_json=as_json)
    if found["unique"] != count or found["broken"]:
        stop("TOKENS_BROKEN", "Tokens are not as they should be; see the figures.", {}, as_json=as_json)


def _check_presentations(rounds: int, journal: str, *, as_json: bool) -> None:
    from sandbox.journals import JournalError, local_server
    from verification import presentations

    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hutong-check-"))
        try:
            url = journal or stack.enter_context(local_server()).url
            report = presentations.run(Path(folder), url, rounds, stack.enter_context(telling()))
        except (JournalError, presentations.PresentationsError) as error:
            stop("NOT_CHECKED", str(error), {}, as_json=as_json)
    _print_found(report.as_json(), as_json=as_json)
    if not report.proven:
        settled = f"{report.succeeded:,} of {report.payments:,} payments succeeded, for {report.rounds:,} codes"
        odd = [f"{report.wrong_rounds:,} codes did not pay exactly once", settled]
        failed("it is not shown that every code pays once", [*odd, f"{report.in_flight:,} in flight", *report.findings])


def _print_found(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        say_json(found)
        return
    for name, value in found.items():
        click.echo(f"{name:16} {value}")


def _print_figures(report: dict[str, Any]) -> None:
    table = Table("figure", "measured", "target", "", box=None, padding=(0, 1))
    for name, value in report.items():
        if name in ("targets", "met"):
            continue
        target = next((key for key in report["targets"] if name == key or (key == "start_s" and "start" in name)), "")
        verdict = {True: "reached", False: "missed"}[report["met"][target]] if target else ""
        table.add_row(name, str(value), str(report["targets"].get(target, "")), verdict)
    Screen().print(table)
