"""`hutong pay`, `refund`, `capture`, `void`, `show`: payments on a running network, from the command line."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import click

from command.options.amounts import CURRENCY_DEFAULT, exponent_of, minor_units
from command.options.connection import Connection, connected, connection_options
from command.options.durations import Period
from command.options.folders import FILE
from command.options.formats import json_option
from command.printing.columns import facts, table
from command.printing.said import say, say_json
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_client import keys, wording
from hutong_client.client import SETTLED_STATES, HutongClient
from hutong_client.wording import key_name, money, state_name
from hutong_contract.currencies import EXPONENT_OF
from hutong_contract.errors import HutongError, Reason
from hutong_contract.response_codes import in_words, meaning

wait_option = click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Wait until a payment of unknown fate is settled."
)
key_option = click.option("--idempotency-key", default="", help="To repeat a request safely. Default: a random one.")


@click.command()
@connection_options
@click.option("--code", help="Payer: the digits of a payment code; - reads them from standard input.")
@click.option("--token", help="Payer: a token; - reads it from standard input.")
@click.option("--requestor", default="", help="Payer: the token requestor (TRID) that presents the token.")
@click.option("--payer-barcode", help="Payer: the text of a code that a wallet shows; - reads it.")
@click.option("--payer-image", type=FILE, help="Payer: its image.")
@click.option("--merchant", help="Payee: a merchant's id.")
@click.option("--terminal", default="", help="Payee: the merchant's terminal.")
@click.option("--barcode", help="Payee: the text of a merchant's code; - reads it.")
@click.option("--image", type=FILE, help="Payee: its image.")
@click.option("--amount", default="", help="Such as 12.50. Default: what the payee's code says.")
@click.option("--currency", default="", help="ISO 4217, such as CNY. Default: the payee's code's; CNY with --amount.")
@click.option("--reference", default="", help="An order number, kept with the payment.")
@click.option("--hold", is_flag=True, help="Only hold the amount (pre-authorisation); `hutong capture` takes it.")
@click.option("--hold-for", type=Period(), metavar="TIME", help="How long, such as 90s, 45m, 1h or 7d. Default: 7d.")
@key_option
@wait_option
@json_option
def pay(
    connection: Connection,
    amount: str,
    currency: str,
    reference: str,
    idempotency_key: str,
    hold_for: int | None,
    *,
    hold: bool,
    wait: bool,
    as_json: bool,
    **ends: Any,
) -> None:
    """Make a payment on a running network.

    Name one payer (--code, --token, --payer-barcode or --payer-image) and one payee (--merchant, --barcode or --image).
    Give secrets on standard input (-) rather than on the command line, which other users of the machine can see.
    Exits with 1 unless the payment succeeded, or its amount is held where that was asked for.
    """
    payer, payee = _payer(ends), _payee(ends)
    if not amount and ends["merchant"] is not None:
        raise click.UsageError("Give --amount: a merchant's id says none, only a code may.")
    currency = currency or (CURRENCY_DEFAULT if amount else "")
    if currency:
        exponent_of(currency)
    amount_minor = minor_units(amount, currency) if amount else 0
    with connected(connection, as_json=as_json) as client:
        try:
            payment = client.create_payment(
                payer=payer,
                payee=payee,
                amount_minor=amount_minor,
                currency=currency,
                idempotency_key=idempotency_key,
                reference=reference,
                hold_s=(hold_for or 0) // 1_000_000 if hold or hold_for else None,
            )
        except HutongError as error:
            if not amount and _lacks_amount(error):
                raise click.UsageError("Give --amount: the payee's code says none.") from None
            raise
        good = pb.PAYMENT_STATE_HELD if hold or hold_for else pb.PAYMENT_STATE_SUCCEEDED
        _finish(client, payment, good, wait=wait, as_json=as_json)


@click.command()
@connection_options
@click.argument("payment_id")
@click.option("--amount", default="", help="Such as 5.00. Default: all that is left.")
@click.option("--reference", default="", help="A text that is kept with the refund.")
@key_option
@wait_option
@json_option
def refund(
    connection: Connection,
    payment_id: str,
    amount: str,
    reference: str,
    idempotency_key: str,
    *,
    wait: bool,
    as_json: bool,
) -> None:
    """Refund a payment on a running network, in part or what is left of it. Exits with 1 unless it succeeded."""
    with connected(connection, as_json=as_json) as client:
        currency = client.get_payment(payment_id).payment.currency if amount else ""
        made = client.refund_payment(
            payment_id,
            amount_minor=minor_units(amount, currency) if amount else 0,
            idempotency_key=idempotency_key,
            reference=reference,
        )
        _finish(client, made, pb.PAYMENT_STATE_SUCCEEDED, wait=wait, as_json=as_json)


@click.command()
@connection_options
@click.argument("payment_id")
@click.option("--amount", default="", help="Such as 12.50. Default: all that is held.")
@wait_option
@json_option
def capture(connection: Connection, payment_id: str, amount: str, *, wait: bool, as_json: bool) -> None:
    """Take what a payment holds: all of it, or an --amount; the rest is freed.

    Done once: the same amount may be asked for again, and gets the same answer. Exits with 1 unless the payment
    succeeded.
    """
    with connected(connection, as_json=as_json) as client:
        currency = client.get_payment(payment_id).payment.currency if amount else ""
        amount_minor = minor_units(amount, currency) if amount else 0
        payment = client.capture_payment(payment_id, amount_minor=amount_minor)
        _finish(client, payment, pb.PAYMENT_STATE_SUCCEEDED, wait=wait, as_json=as_json)


@click.command()
@connection_options
@click.argument("payment_id")
@json_option
def void(connection: Connection, payment_id: str, *, as_json: bool) -> None:
    """Free what a payment holds, or cancel a payment that has not ended. Exits with 1 unless it was cancelled."""
    with connected(connection, as_json=as_json) as client:
        payment = client.cancel_payment(payment_id)
        _finish(client, payment, pb.PAYMENT_STATE_CANCELLED, wait=False, as_json=as_json)


@click.command()
@connection_options
@click.argument("payment_id")
@json_option
def show(connection: Connection, payment_id: str, *, as_json: bool) -> None:
    """Show a payment with its legs, its refunds, and why it took its route."""
    with connected(connection, as_json=as_json) as client:
        found = client.get_payment(payment_id)
    if as_json:
        say_json(wording.as_json(found))
        return
    echo = functools.partial(click.echo, nl=False)
    echo(_facts(found.payment))
    echo(table("Legs", ("#", "kind", "participant", "state", "code", "undoes"), map(_leg_row, found.legs)))
    echo(table("Route", ("acquirer", "score", "reasons", "tried"), map(_candidate_row, found.candidates)))
    if found.HasField("risk"):
        judged = found.risk
        say(f"Risk: {judged.action}, score {judged.score}, tier {judged.tier}, rules {judged.version}")
        echo(table("Rules that fired", ("rule", "points", "action"), map(_finding_row, judged.findings)))
    echo(table("Refunds", ("id", "amount", "state"), map(_refund_row, found.refunds)))


def _payer(ends: dict[str, Any]) -> pb.RoutingKey:
    given = _one(ends, "payer", ("code", "token", "payer_barcode", "payer_image"))
    if given == "payer_image":
        return keys.barcode(_scan(ends[given]))
    value = _read(ends[given])
    if given == "code":
        return keys.payment_code(value)
    return keys.token(value, ends["requestor"]) if given == "token" else keys.barcode(value)


def _payee(ends: dict[str, Any]) -> pb.RoutingKey:
    given = _one(ends, "payee", ("merchant", "barcode", "image"))
    if given == "merchant":
        return keys.merchant(ends["merchant"], ends["terminal"])
    return keys.barcode(_scan(ends["image"]) if given == "image" else _read(ends["barcode"]))


def _one(ends: dict[str, Any], end: str, names: tuple[str, ...]) -> str:
    given = [name for name in names if ends[name] is not None]
    if len(given) != 1:
        options = ", ".join("--" + name.replace("_", "-") for name in names)
        raise click.UsageError(f"Name the {end} in one way: {options}.")
    return given[0]


def _read(value: str) -> str:
    return sys.stdin.readline().strip() if value == "-" else value


def _scan(path: Path) -> str:
    from gateway.barcode.readers import Reader

    try:
        with Reader() as reader:
            seen = reader.read(path).symbols
    except HutongError as error:
        raise click.ClickException(str(error)) from error
    if len(seen) != 1:
        raise click.ClickException(f"{path} shows {len(seen)} symbols, not one. Photograph the code alone.")
    return seen[0].text


def _lacks_amount(error: HutongError) -> bool:
    """Whether neither the caller nor the payee's code named an amount."""
    return error.reason == Reason.ERROR_REASON_AMOUNT_NOT_POSITIVE or error.fields.get("field") == "amount_minor"


def _finish(client: HutongClient, payment: pb.Payment, good: int, *, wait: bool, as_json: bool) -> None:
    """Waits where asked to, prints the payment, and exits with 1 unless it is in the state that was wanted."""
    if wait and payment.state not in SETTLED_STATES:
        from command.printing.screen import Screen  # few payments need it, and it takes long to import

        with Screen(stderr=True, quiet=as_json).status(
            f"{payment.payment_id} is {state_name(payment.state)}; waiting until it is settled"
        ):
            payment = client.settled(payment)
    if as_json:
        say_json(wording.as_json(payment))
    else:
        click.echo(_facts(payment), nl=False)
    if payment.state != good:
        sys.exit(1)


def _facts(payment: pb.Payment) -> str:
    """A payment in two columns."""
    exponent = EXPONENT_OF.get(payment.currency, 2)
    payer = f"{payment.issuer_id} by {key_name(payment.payer_key)} ····{payment.payer_last_four}"
    merchant = f"{payment.merchant_id} {payment.terminal_id}".strip()
    payee = f"{merchant} by {key_name(payment.payee_key)}"
    if payment.kind == pb.PAYMENT_KIND_REFUND:
        payer, payee = merchant, f"{payment.issuer_id} ····{payment.payer_last_four}"  # money goes back
    rows = [
        ("id", payment.payment_id),
        ("state", state_name(payment.state) + (f": {in_words(payment.reason)}" if payment.reason else "")),
        ("amount", money(payment.amount_minor, payment.currency, exponent)),
        ("held first", money(payment.authorised_minor, payment.currency, exponent) if payment.authorised_minor else ""),
        ("hold ends", payment.hold_expire_time.ToJsonString() if payment.state == pb.PAYMENT_STATE_HELD else ""),
        ("from", payer),
        ("to", payee),
        ("through", payment.acquirer_id),
        ("reference", payment.reference),
        ("refunds", payment.original_payment_id),
        ("refunded", money(payment.refunded_minor, payment.currency, exponent) if payment.refunded_minor else ""),
        ("made", payment.create_time.ToJsonString()),
        ("ended", payment.end_time.ToJsonString() if payment.HasField("end_time") else ""),
    ]
    return facts(rows)


def _leg_row(leg: pb.PaymentLeg) -> tuple[str, ...]:
    undoes = str(leg.original_number or "")
    code = f"{leg.response_code} {meaning(leg.response_code)}".strip()
    return str(leg.number), leg.kind, leg.participant_id, leg.state, code, undoes


def _candidate_row(one: pb.RouteCandidate) -> tuple[str, ...]:
    return one.acquirer_id, f"{one.score:.2f}", ", ".join(one.reasons), "yes" if one.tried else ""


def _finding_row(one: pb.RiskFinding) -> tuple[str, ...]:
    return one.rule, str(one.points), one.action


def _refund_row(payment: pb.Payment) -> tuple[str, ...]:
    exponent = EXPONENT_OF.get(payment.currency, 2)
    return payment.payment_id, money(payment.amount_minor, payment.currency, exponent), state_name(payment.state)
