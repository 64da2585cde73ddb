"""Where a barcode leads: by a directory file, by a data folder, or as a running network says."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from command.options.connection import Connection, check_connection, connected, connection_options
from command.options.folders import FILE, data_option
from command.printing.said import say
from gateway.barcode.routing import Directory
from gateway.directory import DirectoryError, load
from hutong.gateway.v1 import barcode_pb2 as pb
from hutong.gateway.v1 import barcode_pb2_grpc as rpc
from hutong_client.client import HutongClient
from hutong_client.errors import CallError, DeadlineExceeded, Unreachable
from hutong_client.options import RetryOptions
from hutong_contract.errors import HutongError
from sandbox.leads import AsNetworkSays, ByDirectory, Leads, NotAsked

ASK_S: Final = 5.0
"""How long a network that was not named may take to answer."""
DIRECTORY_FILE: Final = "directory.json"
"""In a data folder."""

Command = Callable[..., None]


def leads_options(command: Command) -> Command:
    """Adds the options that say who knows where codes lead; the command gets a context manager of Leads as `leads`."""

    @click.option(
        "--directory",
        "directory_file",
        type=FILE,
        help="Say where codes lead by this directory (JSON) instead of asking the network at --target.",
    )
    @data_option("Or by the directory in this data folder.")
    @click.option("--offline", is_flag=True, help="Or ask nobody where they lead.")
    @connection_options
    @functools.wraps(command)
    def with_leads(
        connection: Connection,
        directory_file: Path | None,
        data: Path | None,
        *,
        offline: bool,
        **rest: Any,
    ) -> None:
        if sum((directory_file is not None, data is not None, offline)) > 1:
            raise click.UsageError("--directory, --data and --offline exclude each other.")
        source = click.get_current_context().get_parameter_source("target")
        named = source is click.core.ParameterSource.COMMANDLINE

        @contextmanager
        def opened() -> Iterator[Leads]:
            path = data / DIRECTORY_FILE if data is not None else directory_file
            if path is not None:
                yield ByDirectory(_load(path))
            elif offline:
                yield NotAsked()
            elif named:
                with connected(connection, as_json=bool(rest.get("as_json"))) as client:
                    yield AsNetworkSays(client)
            else:
                with _whoever_answers(connection) as found:
                    yield found

        command(leads=opened, **rest)

    return with_leads


@contextmanager
def _whoever_answers(connection: Connection) -> Iterator[Leads]:
    """The network that runs here, if one does; else it is said that none was asked."""
    check_connection(connection)
    options = replace(connection.options, deadline_s=ASK_S, retry=RetryOptions(attempts_max=1))
    with HutongClient(connection.target, options) as client:
        network = AsNetworkSays(client)
        try:
            client.call(rpc.BarcodeServiceStub(client.channel).Decode, pb.DecodeRequest(payload="0"))
        except (Unreachable, DeadlineExceeded):
            say(
                f"Where codes lead is not said: no network answers at {connection.target}. Start one with `hutong up`, "
                "or give --target, --data or --directory; --offline asks none.",
                err=True,
            )
            yield NotAsked()
            return
        except (HutongError, CallError):
            pass  # it answers
        yield network


def _load(path: Path) -> Directory:
    try:
        return load(path)
    except DirectoryError as error:
        raise click.ClickException(str(error)) from None
