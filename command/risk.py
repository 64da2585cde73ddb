"""`hutong risk`: the rules by which payments are let in, and what they decided."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from command.options.amounts import minor_units
from command.options.connection import Connection, connected, connection_options
from command.options.folders import FILE
from command.options.formats import json_option
from command.options.groups import Group
from command.options.operators import OPERATOR_VARIABLE, operator_option, secret_of
from command.printing.said import say, say_either, say_json
from command.printing.screen import Screen, add_row
from gateway.risk.rule_fields import KINDS
from gateway.risk.rule_file import RulesError, describe, read_rules
from hutong.gateway.v1 import payment_pb2, risk_pb2
from hutong_client import wording
from hutong_client.risk import RiskClient
from hutong_client.wording import key_name, money, state_name
from hutong_contract.currencies import EXPONENT_OF

Command = Callable[..., None]
OpenDesk = Callable[[bool], Any]


def desk_options(command: Command) -> Command:
    """Adds the options that name the gateway and the operator; the command gets, as `desk`, what opens a RiskClient
    whose errors become exit status 1."""

    @operator_option
    @connection_options
    @functools.wraps(command)
    def with_desk(connection: Connection, operator: str, **rest: Any) -> None:
        @contextmanager
        def opened(as_json: bool) -> Iterator[RiskClient]:
            with connected(connection, as_json=as_json) as client:
                yield RiskClient(client, requestor=operator, secret=secret_of(OPERATOR_VARIABLE))

        command(desk=opened, **rest)

    return with_desk


@click.group(cls=Group)
def risk() -> None:
    """Show, check, reload and try risk rules; list what they decided."""


@risk.command()
@click.argument("file", type=FILE)
@json_option
def check(file: Path, *, as_json: bool) -> None:
    """Check a file of rules. Exits with 1 if it has errors."""
    try:
        facts = describe(read_rules(file))
    except RulesError as error:
        if as_json:
            say_json({"valid": False, "problems": error.problems})
            raise click.exceptions.Exit(1) from None
        raise click.ClickException(f"the file cannot be used:\n{error}") from None
    if as_json:
        say_json({"valid": True, **facts})
        return
    click.echo(f"{file} is right: version {facts['version']}, {len(facts['rules'])} rules, days of {facts['zone']}")


@risk.command()
@desk_options
@json_option
def status(desk: OpenDesk, *, as_json: bool) -> None:
    """Show which rules are in force, and how often they acted."""
    with desk(as_json) as client:
        found = client.status()
    if as_json:
        say_json(_plain(found))
        return
    console = Screen()
    where = found.path or "the package's own rules"
    console.print(f"{where}, version {found.version}, since {_time(found.load_time)}", highlight=False)
    for problem in found.problems:
        console.print(Text(f"not in force: {problem}", "red"))
    judged = ", ".join(f"{action} {count:,}" for action, count in sorted(found.actions.items())) or "none yet"
    console.print(f"payments judged: {judged}; {found.subjects:,} of {found.subjects_max:,} subjects remembered")
    table = Table("rule", "fired", box=None, padding=(0, 1))
    for rule in found.rules:
        add_row(table, rule, f"{found.fired.get(rule, 0):,}")
    console.print(table)


@risk.command(name="reload")
@desk_options
@json_option
def reload_(desk: OpenDesk, *, as_json: bool) -> None:
    """Read the file of rules again. Where it has errors the old rules stay, and this exits with 1."""
    with desk(as_json) as client:
        version = client.reload()
    say_either({"version": version}, f"version {version} is in force", as_json=as_json)


@risk.command()
@desk_options
@click.option("--limit", "most", type=click.IntRange(1), default=50, show_default=True, help="How many, newest first.")
@json_option
def decisions(desk: OpenDesk, most: int, *, as_json: bool) -> None:
    """List payments of which a rule fired or that were refused, newest first."""
    with desk(as_json) as client:
        found = list(client.decisions(most))
    if as_json:
        say_json([_plain(one) for one in found])
        return
    table = Table(
        "time", "payment", "outcome", "score", "tier", "amount", "key", "merchant", "account", "why", box=None
    )
    for one in found:
        add_row(table, *_row(one))
    Screen().print(table if found else "no rule has fired and nothing was refused")


def _row(one: risk_pb2.RiskDecision) -> tuple[str, ...]:
    found = one.judgement
    why = [finding.rule for finding in found.findings] + ([f"limit: {one.limit}"] if one.limit else [])
    return (
        _time(one.time),
        one.payment_id,
        one.refused or state_name(one.state),
        str(found.score),
        found.tier,
        money(one.amount_minor, one.currency, EXPONENT_OF.get(one.currency, 2)),
        key_name(one.payer_key),
        one.merchant_id,
        f"{one.account[:8]}…",
        ", ".join(why),
    )


@risk.command()
@desk_options
@click.argument("payment_id")
@json_option
def release(desk: OpenDesk, payment_id: str, *, as_json: bool) -> None:
    """Let a payment go on that the rules hold: its merchant is paid. Exits with 1 unless it succeeded."""
    with desk(as_json) as client:
        _tell_end(client.release(payment_id), as_json, payment_pb2.PAYMENT_STATE_SUCCEEDED)


@risk.command()
@desk_options
@click.argument("payment_id")
@json_option
def reject(desk: OpenDesk, payment_id: str, *, as_json: bool) -> None:
    """Reject a payment that the rules hold: its payer's funds are freed. Exits with 1 unless it was cancelled."""
    with desk(as_json) as client:
        _tell_end(client.reject(payment_id), as_json, payment_pb2.PAYMENT_STATE_CANCELLED)


def _tell_end(payment: payment_pb2.Payment, as_json: bool, wanted: int) -> None:
    if as_json:
        say_json(wording.as_json(payment))
    else:
        say(f"{payment.payment_id} is {state_name(payment.state)}")
    if payment.state != wanted:
        raise click.exceptions.Exit(1)


@risk.command()
@desk_options
@click.option("--payment", default="", help="Take everything from this payment; the other options replace parts.")
@click.option("--key-kind", type=click.Choice(sorted(KINDS)), help="Of the payer's key. Default: payment_code.")
@click.option("--amount", default="", help="Such as 12.50; needed without --payment.")
@click.option("--currency", default="", help="ISO 4217. Default: CNY.")
@click.option("--assurance", default="", help="EMV assurance method of the key, two digits, such as 12.")
@click.option("--static-code", is_flag=True, help="The payer's code is a number that does not change, or a screenshot.")
@click.option("--static-merchant-code", is_flag=True, help="The payer scanned a merchant's static code.")
@click.option("--account", default="", help="Reference, 32 hexadecimal digits.")
@click.option("--key", default="", help="Reference, 32 hexadecimal digits.")
@click.option("--issuer", default="", help="Issuer's id.")
@click.option("--merchant", default="", help="Merchant's id.")
@click.option("--terminal", default="", help="Terminal's id.")
@click.option("--caller", default="", help="Who asks for the payment.")
@click.option(
    "--at", type=click.DateTime(["%Y-%m-%dT%H:%M:%S%z"]), help="Such as 2026-11-22T02:30:00+0800. Default: now."
)
@json_option
def explain(desk: OpenDesk, amount: str, at: datetime | None, *, as_json: bool, **facts: Any) -> None:
    """Say which rules would fire for a payment, without making it.

    Also prints the references of the payer's account and key, to put into rules.
    """
    if not amount and not facts["payment"]:
        raise click.UsageError("Give --amount, or --payment.")
    kind = facts["key_kind"]
    request = risk_pb2.ExplainRiskRequest(
        payment_id=facts["payment"],
        payer_key=KINDS[kind] if kind else payment_pb2.KEY_KIND_UNSPECIFIED,
        amount_minor=minor_units(amount, facts["currency"] or "CNY") if amount else 0,
        currency=facts["currency"],
        assurance_method=facts["assurance"],
        static_code=facts["static_code"],
        static_merchant_code=facts["static_merchant_code"],
        account=facts["account"],
        key=facts["key"],
        issuer_id=facts["issuer"],
        merchant_id=facts["merchant"],
        terminal_id=facts["terminal"],
        caller=facts["caller"],
    )
    if at is not None:
        request.time.FromDatetime(at)
    with desk(as_json) as client:
        found = client.explain(request)
    if as_json:
        say_json(_plain(found))
        return
    _print_explained(found)


def _print_explained(found: risk_pb2.ExplainRiskResponse) -> None:
    judged = found.judgement
    say(f"{judged.action}: score {judged.score}, tier {judged.tier}, rules {judged.version}")
    if found.refused:
        say(f"the caller gets {found.refused}" + (f" ({found.factor})" if found.factor else ""))
    for finding in judged.findings:
        say(f"  {finding.rule}: {finding.action or f'{finding.points} points'}")
    for limit in found.limits:
        say(f"  limit {limit.name}: adds {limit.add:,} of {limit.most:,}, decided when a payment is committed")
    if found.account:
        say(f"  account {found.account}\n  key     {found.key}")


def _plain(message: Any) -> dict[str, Any]:
    """Plain JSON, with every field of the message's own and 64-bit numbers as numbers."""
    plain = wording.as_json(message)
    for field in message.DESCRIPTOR.fields:
        if field.cpp_type == field.CPPTYPE_INT64 and not field.is_repeated:
            plain[field.name] = getattr(message, field.name)
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            plain[field.name] = dict(getattr(message, field.name))
        elif field.is_repeated and field.message_type is not None:
            plain[field.name] = [_plain(one) for one in getattr(message, field.name)]
    return plain


def _time(stamp: Any) -> str:
    return str(stamp.ToJsonString()).partition(".")[0].removesuffix("Z") + "Z"
