"""Options that say where the token vault's keys are: in a file beside it, or in a hardware module."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from command.options.folders import NEW_FILE
from hutong_contract.secret import Secret
from sandbox.vaults import PIN_VARIABLE, KeyModule


def module_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds `--hsm-library` and `--hsm-token` to a command; it gets `key_module`, which is None without them."""

    @click.option(
        "--hsm-library",
        type=NEW_FILE,
        help=f"PKCS#11 library of the hardware module that keeps the vault's keys; its PIN is in {PIN_VARIABLE}.",
    )
    @click.option("--hsm-token", default="", metavar="LABEL", help="With --hsm-library: label of the module's token.")
    @functools.wraps(command)
    def with_module(*args: Any, hsm_library: Path | None, hsm_token: str, **options: Any) -> None:
        command(*args, key_module=_key_module(hsm_library, hsm_token), **options)

    return with_module


def _key_module(library: Path | None, token_label: str) -> KeyModule | None:
    if library is None and not token_label:
        return None
    if library is None or not token_label:
        raise click.UsageError("--hsm-library and --hsm-token belong together")
    pin = os.environ.get(PIN_VARIABLE, "")
    if not pin:
        raise click.UsageError(f"set {PIN_VARIABLE} to the PIN of the token {token_label!r}")
    return KeyModule(library, token_label, Secret(pin))
