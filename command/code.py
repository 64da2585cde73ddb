"""`hutong code`: one-time payment codes of a running network."""

from __future__ import annotations

import time
from pathlib import Path

import click

from command.options.connection import Connection, connection_options
from command.options.folders import NEW_FILE
from command.options.formats import json_option
from command.options.groups import Group
from command.options.tokens import name_argument, requestor_option, token_name, token_service
from command.printing.said import say_json
from command.printing.token_values import plain
from hutong.tokenization.v1 import token_pb2 as pb
from hutong_contract.payment_code import STEP_US, offline_code, step_of

DEVICE_DEFAULT = "command-line"


@click.group(cls=Group)
def code() -> None:
    """Show and provision one-time payment codes.

    NAME is a token's number, or its reference (32 hexadecimal digits); - reads it from standard input.
    """


@code.command()
@connection_options
@requestor_option
@name_argument
@click.option("--offline", is_flag=True, help="Compute it as a phone without a network does.")
@click.option("--device", default=DEVICE_DEFAULT, show_default=True, help="With --offline: the device's id.")
@click.option("--qr", is_flag=True, help="Draw the QR symbol in the terminal.")
@click.option("--png", type=NEW_FILE, help="Write the QR symbol to this file.")
@json_option
def show(
    connection: Connection,
    requestor: str,
    name: str,
    device: str,
    png: Path | None,
    *,
    offline: bool,
    qr: bool,
    as_json: bool,
) -> None:
    """Show a code that pays once: reserved for a minute, or with --offline good for its half minute and the next."""
    with token_service(connection, as_json=as_json) as service:
        named = token_name(name)
        if offline:
            asked = pb.ProvisionCodesRequest(requestor_id=requestor, name=named, device_id=device)
            made = service.call(service.stub.ProvisionCodes, asked)
            now_us = time.time_ns() // 1000
            digits = offline_code(made.alias, made.day_key, now_us, made.suite)
            expires_us = (step_of(now_us) + 2) * STEP_US
        else:
            reserved = service.call(service.stub.ReserveCode, pb.ReserveCodeRequest(requestor_id=requestor, name=named))
            digits, expires_us = reserved.code, reserved.expire_time.ToMicroseconds()
    if as_json:
        say_json({"code": digits, "expire_time_us": expires_us, "offline": offline})
    else:
        click.echo(digits)
    _draw(digits, qr=qr, png=png)


@code.command()
@connection_options
@requestor_option
@name_argument
@click.option("--device", default=DEVICE_DEFAULT, show_default=True, help="The device's id.")
@click.option("--day", type=int, default=0, help="Days since 1970-01-01 UTC: today (the default) or tomorrow.")
@json_option
def provision(connection: Connection, requestor: str, name: str, device: str, day: int, *, as_json: bool) -> None:
    """Fetch the alias and key that a device makes a day's offline codes from."""
    asked = pb.ProvisionCodesRequest(requestor_id=requestor, name=token_name(name), device_id=device, day=day)
    with token_service(connection, as_json=as_json) as service:
        made = service.call(service.stub.ProvisionCodes, asked)
    if as_json:
        say_json(plain(made))
        return
    click.echo(f"alias   {made.alias}\nday     {made.day}\nsuite   {made.suite}\nday key {made.day_key.hex()}")


def _draw(digits: str, *, qr: bool, png: Path | None) -> None:
    if qr or png is not None:
        from gateway.barcode.symbols import render_png, render_terminal  # imports OpenCV, which most calls do without

        if qr:
            click.echo(render_terminal(digits))
        if png is not None:
            png.write_bytes(render_png(digits))
            click.echo(f"written to {png}", err=True)
