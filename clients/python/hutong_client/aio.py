"""The client for asyncio: the methods of `hutong_client.client.HutongClient`, awaited.

async with AsyncHutongClient("127.0.0.1:50050") as client:
    payment = await client.create_payment(
        payer=keys.payment_code(digits), payee=keys.merchant("m1001"), amount_minor=1250, currency="CNY"
    )
    async for event in client.watch_payments():
        ...
"""

from __future__ import annotations

from collections.abc import Awaitable
from types import TracebackType
from typing import Protocol, TypeVar

import grpc

from hutong_client.calls import Calls
from hutong_client.options import ClientOptions, metadata_of
from hutong_client.wire import AioWire, Metadata

Request = TypeVar("Request", contravariant=True)
Response = TypeVar("Response", covariant=True)


class Unary(Protocol[Request, Response]):
    """A unary method of a generated stub on a grpc.aio channel."""

    def __call__(
        self, request: Request, *, timeout: float | None = None, metadata: Metadata = ()
    ) -> Awaitable[Response]:
        """Sends the request."""
        ...


class AsyncHutongClient(Calls):
    """A connection to a gateway, for the tasks of one event loop: the one in which it is first used."""

    def __init__(self, target: str, options: ClientOptions | None = None) -> None:
        """`target` is "host:port" or "unix:/path". Connects when it is first used.

        Raises:
            ValueError: another form of target, or plaintext to a remote machine.
        """
        options = options or ClientOptions()
        self._connection = AioWire(target, options)
        super().__init__(self._connection, options)

    @property
    def channel(self) -> grpc.aio.Channel:
        """For the stubs of other services of the gateway; `call` gives them deadlines, retries and typed errors."""
        return self._connection.channel

    async def call(
        self,
        method: Unary[Request, Response],
        request: Request,
        deadline_s: float | None = None,
        *,
        repeatable: bool = False,
        metadata: Metadata = (),
    ) -> Response:
        """Calls any unary method of a stub on `channel`, with this client's deadline, retries and typed errors.

        `repeatable`: sending the request twice has the effect of sending it once. `metadata`: besides the client's own.
        """
        sent = metadata_of(self.options) + metadata
        return await self.repeated(
            lambda timeout_s: method(request, timeout=timeout_s, metadata=sent), deadline_s, repeatable=repeatable
        )

    async def close(self) -> None:
        """Closes the connection; calls under way, and later ones, fail with CallError(CANCELLED)."""
        await self._connection.close()

    async def __aenter__(self) -> AsyncHutongClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
