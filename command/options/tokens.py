"""What `hutong token`, `code` and `keys` take: who asks, and names of tokens; and the service that they call."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click
from google.protobuf.message import Message

from command.options.connection import Connection, connected
from hutong.tokenization.v1 import token_pb2 as pb
from hutong.tokenization.v1 import token_pb2_grpc
from hutong_client.client import HutongClient
from hutong_contract.names import WALLET_TRID

REF_DIGITS: Final = 32

requestor_option = click.option(
    "--requestor", default=WALLET_TRID, show_default=True, help="The token requestor (TRID) that asks, 11 digits."
)
reason_option = click.option("--reason", default="", help="A text of up to 64 characters for the history.")
name_argument = click.argument("name")


class TokenCalls:
    """The token service of a running network."""

    def __init__(self, client: HutongClient) -> None:
        self._client = client
        self.stub = token_pb2_grpc.TokenServiceStub(client.channel)

    def call(self, method: Any, request: Message) -> Any:
        """One call. Raises as hutong_client.client does."""
        return self._client.call(method, request)


@contextmanager
def token_service(connection: Connection, *, as_json: bool) -> Iterator[TokenCalls]:
    """The token service of a gateway; errors end the command as command.options.connection says."""
    with connected(connection, as_json=as_json) as client:
        yield TokenCalls(client)


def read_secret(value: str) -> str:
    """The value, or a line of standard input for "-"."""
    return sys.stdin.readline().strip() if value == "-" else value


def token_name(value: str) -> pb.TokenName:
    """A token's number, or its reference in hexadecimal; "-" reads it."""
    text = read_secret(value)
    if len(text) == REF_DIGITS:
        return pb.TokenName(token_ref=read_ref(text))
    return pb.TokenName(token=text)


def read_ref(text: str) -> bytes:
    """A reference of 16 bytes from 32 hexadecimal digits; empty stays empty."""
    try:
        ref = bytes.fromhex(text)
    except ValueError:
        ref = b"?"
    if len(ref) not in (0, REF_DIGITS // 2):
        raise click.UsageError("A reference has 32 hexadecimal digits; `hutong token show` prints them.")
    return ref
