"""How commands connect to a gateway: the options for it, written once, and how a failed call ends a command."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import click
import grpc

from command.options.folders import FILE
from command.printing.said import say_json
from hutong_client.client import HutongClient
from hutong_client.errors import CallError, DeadlineExceeded, Unreachable, typed
from hutong_client.options import ClientOptions, TlsOptions, check_target, is_local
from hutong_contract.cleaning import printable
from hutong_contract.errors import HutongError

TARGET_DEFAULT: Final = "127.0.0.1:50050"
CALL_S: Final = 30.0
"""Deadline of each call."""

Command = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Connection:
    """A gateway's address, and how to connect to it."""

    target: str
    options: ClientOptions


def connection_options(command: Command) -> Command:
    """Adds the options that name the gateway; the command gets them as `connection`."""

    @click.option(
        "--target", envvar="HUTONG_TARGET", default=TARGET_DEFAULT, show_default=True, help="HOST:PORT or unix:/PATH."
    )
    @click.option("--tls-ca", type=FILE, help="Use TLS, and expect a certificate signed by this authority (PEM).")
    @click.option("--tls-cert", type=FILE, help="This client's own certificate chain (PEM), for mutual TLS.")
    @click.option("--tls-key", type=FILE, help="Its private key (PEM).")
    @click.option("--tls-name", default="", help="The name in the gateway's certificate, if it is not the target's.")
    @click.option("--plaintext-anywhere", is_flag=True, help="Allow plaintext to another machine.")
    @functools.wraps(command)
    def with_connection(
        target: str,
        tls_ca: Path | None,
        tls_cert: Path | None,
        tls_key: Path | None,
        tls_name: str,
        *,
        plaintext_anywhere: bool,
        **rest: Any,
    ) -> None:
        if (tls_cert is None) is not (tls_key is None) or (tls_ca is None and (tls_cert or tls_name)):
            raise click.UsageError("--tls-cert and --tls-key go together, and need --tls-ca.")
        tls = None
        if tls_ca is not None:
            chain = tls_cert.read_bytes() if tls_cert else None
            key = tls_key.read_bytes() if tls_key else None
            tls = TlsOptions(tls_ca.read_bytes(), key, chain, tls_name)
        options = ClientOptions(deadline_s=CALL_S, tls=tls, allow_plaintext=plaintext_anywhere)
        command(connection=Connection(target, options), **rest)

    return with_connection


def checked_target(target: str) -> str:
    """A target in a valid form. Raises click.UsageError, which says how to write it."""
    try:
        check_target(target)
    except ValueError as error:
        raise click.UsageError(f"--target: {error}") from None
    return target


LATE: Final = (
    "No answer in time, and what was asked for may have been done. Look with `show`, or repeat it: a payment "
    "or refund with the same --idempotency-key."
)
"""The text for a call whose deadline passed."""


def check_connection(connection: Connection) -> None:
    """Raises click.UsageError if the target is invalid, or plaintext would leave this machine."""
    target, options = checked_target(connection.target), connection.options
    if options.tls is None and not options.allow_plaintext and not is_local(target):
        raise click.UsageError(
            f"{target} is not on this machine: give --tls-ca FILE, the authority of its certificate, or "
            "--plaintext-anywhere if something else protects the network."
        )


@contextmanager
def connected(connection: Connection, *, as_json: bool, late: str = LATE) -> Iterator[HutongClient]:
    """A client of the gateway. A call that fails, by itself or as a stub's own grpc.RpcError, ends the command with
    exit status 1 and a text that says what to do; `late` is that of a deadline that passed."""
    check_connection(connection)
    try:
        with HutongClient(connection.target, connection.options) as client:
            try:
                yield client
            except grpc.RpcError as failure:
                raise typed(failure) from None
    except ValueError as error:  # a value that no message can hold, such as a text that is not UTF-8
        raise click.UsageError(str(error)) from None
    except HutongError as error:
        stop(error.name, error.text, error.fields, as_json=as_json)
    except Unreachable as error:
        stop("UNREACHABLE", _unreachable(connection, error), {}, as_json=as_json)
    except DeadlineExceeded:
        stop("DEADLINE_EXCEEDED", late, {}, as_json=as_json)
    except CallError as error:
        stop(error.code.name, error.details, {}, as_json=as_json)


def _unreachable(connection: Connection, error: Unreachable) -> str:
    text = f"No gateway answers at {connection.target}. Start one with `hutong up`, or give --target."
    if connection.options.tls is not None:
        text += (
            " If one runs there: does it use TLS, is its certificate signed by --tls-ca, and does it name the target "
            "(or --tls-name)?"
        )
    return f"{text}\n  {error.details}" if error.details else text


def stop(reason: str, text: str, fields: Mapping[str, str], *, as_json: bool) -> NoReturn:
    """Ends the command with exit status 1: the reason and its fields for a program, or in words."""
    if as_json:
        say_json({"error": {"reason": reason, "text": text, "fields": dict(fields)}})
        sys.exit(1)
    facts = "".join(f"\n  {name}: {printable(value)}" for name, value in sorted(fields.items()))
    raise click.ClickException(f"{reason}: {text}{facts}")
