"""Options that name a gateway and say how to reach it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from clients.options import ClientOptions, TlsOptions

TARGET_DEFAULT: Final = "127.0.0.1:50050"
CALL_S: Final = 30.0
"""Deadline of each call."""

Command = Callable[..., None]
_PEM: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the gateway is, and how to reach it."""

    target: str
    options: ClientOptions


def connection_options(command: Command) -> Command:
    """Adds the options that name the gateway; the command gets them as `connection`."""

    @click.option(
        "--target", envvar="HUTONG_TARGET", default=TARGET_DEFAULT, show_default=True, help="HOST:PORT or unix:/PATH."
    )
    @click.option("--tls-ca", type=_PEM, help="Use TLS, and expect a certificate signed by this authority (PEM).")
    @click.option("--tls-cert", type=_PEM, help="This client's own certificate chain (PEM), for mutual TLS.")
    @click.option("--tls-key", type=_PEM, help="Its private key (PEM).")
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
