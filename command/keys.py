"""`hutong keys`: the token vault's key-encryption key, on a running network or, with --data, on the folder itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
from rich.table import Table

from command.options.connection import Connection, connection_options, stop
from command.options.folders import data_option
from command.options.formats import json_option
from command.options.groups import Group
from command.options.tokens import name_argument, reason_option, token_name, token_service
from command.options.vaults import module_options
from command.printing.said import say_either, say_json
from command.printing.screen import Screen, add_row
from command.printing.token_values import plain
from hutong.tokenization.v1 import token_pb2 as pb
from hutong_contract.errors import HutongError
from hutong_contract.names import OPERATOR_TRID
from hutong_contract.secret import Secret
from sandbox.vaults import KeyModule, open_vault
from tokenization import wire
from tokenization.errors import VaultError
from tokenization.service import TokenService

ROTATION_S: Final = 3_600.0
"""Longest wait for a rotation."""
POLL_S: Final = 0.2

vault_folder_option = data_option(
    "Work on this data folder instead of a running network; HUTONG_PASSPHRASE or the folder's own file opens it."
)
operator_option = click.option(
    "--requestor", default=OPERATOR_TRID, show_default=True, help="The operator (TRID) that asks, 11 digits."
)


@click.group(cls=Group)
def keys() -> None:
    """Rotate, show and erase the token vault's keys."""


@keys.command()
@connection_options
@operator_option
@vault_folder_option
@module_options
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until every account is re-wrapped.")
@json_option
def rotate(
    connection: Connection,
    requestor: str,
    data: Path | None,
    key_module: KeyModule | None,
    *,
    wait: bool,
    as_json: bool,
) -> None:
    """Make a new version of the key-encryption key and re-wrap every account's key, while payments go on."""
    if data is not None:
        with _vault(data, key_module, as_json=as_json) as local:
            local.rotate_keys()
            with _waiting("re-wrapping", as_json=as_json):
                local.rotation.wait(ROTATION_S)
            status = wire.status_message(local.key_status())
    else:
        with token_service(connection, as_json=as_json) as service:
            status = service.call(service.stub.RotateKeys, pb.RotateKeysRequest(requestor_id=requestor)).status
            if wait:
                status = _follow(service, requestor, status, as_json=as_json)
    _print_status(status, as_json=as_json)


@keys.command()
@connection_options
@operator_option
@vault_folder_option
@module_options
@json_option
def status(
    connection: Connection, requestor: str, data: Path | None, key_module: KeyModule | None, *, as_json: bool
) -> None:
    """Show the key's versions, and what a rotation has left to do."""
    if data is not None:
        with _vault(data, key_module, as_json=as_json) as local:
            found = wire.status_message(local.key_status())
    else:
        with token_service(connection, as_json=as_json) as service:
            found = service.call(service.stub.GetKeyStatus, pb.GetKeyStatusRequest(requestor_id=requestor)).status
    _print_status(found, as_json=as_json)


@keys.command()
@connection_options
@operator_option
@vault_folder_option
@module_options
@name_argument
@reason_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def erase(
    connection: Connection, requestor: str, data: Path | None, key_module: KeyModule | None, name: str, reason: str,
    *, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Destroy the key of one account and all that identifies it. NAME is its token's number or reference."""
    named = token_name(name)
    if not yes:
        click.confirm("The account's data cannot be restored afterwards. Erase it?", abort=True, err=True)
    if data is not None:
        with _vault(data, key_module, as_json=as_json) as local:
            local_name = Secret(named.token) if named.token else named.token_ref
            local.erase(local_name, reason=reason)
            ref = named.token_ref or local.reference_of(Secret(named.token))
    else:
        asked = pb.EraseAccountRequest(requestor_id=requestor, name=named, reason=reason)
        with token_service(connection, as_json=as_json) as service:
            ref = service.call(service.stub.EraseAccount, asked).view.token_ref
    say_either({"token_ref": ref.hex(), "erased": True}, f"erased {ref.hex()}", as_json=as_json)


def _follow(service: Any, requestor: str, found: pb.KeyStatus, *, as_json: bool) -> pb.KeyStatus:
    """Asks again until nothing is left."""
    until = time.monotonic() + ROTATION_S
    with _waiting("re-wrapping", as_json=as_json) as shown:
        while found.rotating and time.monotonic() < until:
            shown.update(f"re-wrapping: {found.remaining} of {found.accounts} left")
            time.sleep(POLL_S)
            found = service.call(service.stub.GetKeyStatus, pb.GetKeyStatusRequest(requestor_id=requestor)).status
    return found


def _waiting(text: str, *, as_json: bool) -> Any:
    return Screen(stderr=True, quiet=as_json).status(text)


@contextmanager
def _vault(data: Path, key_module: KeyModule | None, *, as_json: bool) -> Iterator[TokenService]:
    """The vault of a data folder, opened in this process."""
    folder = data / "vault" if (data / "vault").is_dir() else data
    if not (folder / "vault.db").exists():
        raise click.UsageError(f"{data} holds no vault.")
    try:
        opened = open_vault(folder, key_module)
    except VaultError as error:
        stop("VAULT_NOT_OPENED", str(error), {}, as_json=as_json)
    try:
        yield opened.service
    except HutongError as error:
        stop(error.name, error.text, error.fields, as_json=as_json)
    finally:
        opened.close()


def _print_status(found: pb.KeyStatus, *, as_json: bool) -> None:
    if as_json:
        say_json(plain(found) | {"remaining": found.remaining, "rotating": found.rotating})
        return
    console = Screen()
    console.print(f"store {found.store}, suite {found.suite}, {found.accounts} accounts, {found.remaining} to re-wrap")
    table = Table("version", "state", "made", "retired", box=None, padding=(0, 1))
    for one in found.versions:
        retired = one.retire_time.ToJsonString() if one.HasField("retire_time") else ""
        add_row(table, str(one.version), one.state, one.create_time.ToJsonString(), retired)
    console.print(table)
