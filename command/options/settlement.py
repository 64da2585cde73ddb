"""Options for where `hutong settle` finds windows: at a running gateway, or in a data folder."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import click

from command.options.connection import Connection, connected, connection_options
from command.options.folders import data_option, journal_option
from command.options.operators import OPERATOR_VARIABLE, operator_option, secret_of
from gateway.engine.ports import JournalUnavailableError
from hutong_client.errors import CallError
from hutong_client.settlement import SettlementClient
from hutong_contract.errors import HutongError
from hutong_contract.secret import Secret
from sandbox.journals import JournalError
from sandbox.settlement import Desk, FolderDesk, GatewayDesk

PARTICIPANT_VARIABLE: Final = "HUTONG_PARTICIPANT_SECRET"


Command = Callable[..., None]
OpenDesk = Callable[[], Any]


def desk_options(command: Command) -> Command:
    """Adds the options that say where settlement is and who asks; the command gets a context manager as `desk`."""

    @data_option("Work on this data folder instead of a running gateway; to close a window none may run on it.")
    @journal_option("Of the folder's journal, where it does not remember it.")
    @operator_option
    @click.option(
        "--as",
        "asked_as",
        default="",
        help=f"Ask as this participant instead, for what is its own; its secret in {PARTICIPANT_VARIABLE}.",
    )
    @connection_options
    @functools.wraps(command)
    def with_desk(
        connection: Connection, data: Path | None, journal: str, operator: str, asked_as: str, **rest: Any
    ) -> None:
        if asked_as and data is not None:
            raise click.UsageError("--as speaks of a running gateway: whoever has the folder sees all of it")
        secret = secret_of(PARTICIPANT_VARIABLE if asked_as else OPERATOR_VARIABLE)
        command(desk=_opener(connection, data, journal, "" if asked_as else operator, asked_as, secret), **rest)

    return with_desk


def _opener(
    connection: Connection, data: Path | None, journal: str, operator: str, participant: str, secret: Secret[str] | None
) -> OpenDesk:
    @contextmanager
    def opened() -> Iterator[Desk]:
        try:
            with ExitStack() as stack:
                if data is not None:
                    yield FolderDesk(data, journal, stack)
                    return
                client = stack.enter_context(connected(connection, as_json=False))
                yield GatewayDesk(
                    client, SettlementClient(client, requestor=operator, participant=participant, secret=secret)
                )
        except (HutongError, CallError, JournalError, JournalUnavailableError, OSError, ValueError) as error:
            raise click.ClickException(str(error)) from None

    return opened
