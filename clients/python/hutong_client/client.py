"""The blocking client: payments and tokens as Python calls, failures as exceptions.

    with HutongClient("127.0.0.1:50050") as client:
        payment = client.create_payment(
            payer=keys.payment_code(digits), payee=keys.merchant("m1001"), amount_minor=1250, currency="CNY"
        )

Every method raises `hutong_contract.errors.HutongError` for a refusal (its `reason` is stable),
`hutong_client.errors.Unreachable` or `DeadlineExceeded` where there is no answer, and `CallError` for anything else.
`hutong_client.aio.AsyncHutongClient` has the same methods for asyncio.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

import grpc

from hutong_client.calls import BATCH_MAX as BATCH_MAX
from hutong_client.calls import FINAL_STATES as FINAL_STATES
from hutong_client.calls import SETTLED_STATES as SETTLED_STATES
from hutong_client.calls import Calls
from hutong_client.calls import new_idempotency_key as new_idempotency_key
from hutong_client.options import ClientOptions, metadata_of
from hutong_client.wire import BlockingWire, Metadata, iterate, run

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Request = TypeVar("Request", contravariant=True)
Response = TypeVar("Response", covariant=True)


class Unary(Protocol[Request, Response]):
    """A unary method of a generated stub on a blocking channel."""

    def __call__(self, request: Request, timeout: float | None = None, metadata: Metadata = ()) -> Response:
        """Sends the request."""
        ...


def _blocking(
    method: Callable[Concatenate[Calls, Arguments], Coroutine[Any, Any, Result]],
) -> Callable[Concatenate[HutongClient, Arguments], Result]:
    """The same method, which blocks until it is done."""

    @wraps(method)
    def call(self: HutongClient, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return run(method(self._calls, *args, **kwargs))

    return call


def _iterating(
    method: Callable[Concatenate[Calls, Arguments], AsyncGenerator[Result, None]],
) -> Callable[Concatenate[HutongClient, Arguments], Iterator[Result]]:
    """The same method as an ordinary iterator; it waits in `next`."""

    @wraps(method)
    def call(self: HutongClient, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Iterator[Result]:
        return iterate(method(self._calls, *args, **kwargs))

    return call


class HutongClient:
    """A connection to a gateway. May be shared by threads."""

    def __init__(self, target: str, options: ClientOptions | None = None) -> None:
        """`target` is "host:port" or "unix:/path". Connects when it is first used.

        Raises:
            ValueError: another form of target, or plaintext to a remote machine.
        """
        self.options: Final = options or ClientOptions()
        self._wire = BlockingWire(target, self.options)
        self._calls = Calls(self._wire, self.options)
        self._metadata = metadata_of(self.options)

    create_payment = _blocking(Calls.create_payment)
    batch_create_payments = _blocking(Calls.batch_create_payments)
    get_payment = _blocking(Calls.get_payment)
    capture_payment = _blocking(Calls.capture_payment)
    get_receipt = _blocking(Calls.get_receipt)
    cancel_payment = _blocking(Calls.cancel_payment)
    refund_payment = _blocking(Calls.refund_payment)
    list_payments_page = _blocking(Calls.list_payments_page)
    list_payments = _iterating(Calls.list_payments)
    newest_sequence = _blocking(Calls.newest_sequence)
    watch_payments = _iterating(Calls.watch_payments)
    settled = _blocking(Calls.settled)

    request_token = _blocking(Calls.request_token)
    get_token = _blocking(Calls.get_token)
    suspend_token = _blocking(Calls.suspend_token)
    resume_token = _blocking(Calls.resume_token)
    delete_token = _blocking(Calls.delete_token)
    reserve_code = _blocking(Calls.reserve_code)
    provision_codes = _blocking(Calls.provision_codes)
    add_face = _blocking(Calls.add_face)

    @property
    def channel(self) -> grpc.Channel:
        """For the stubs of other services of the gateway; `call` gives them deadlines, retries and typed errors."""
        return self._wire.channel

    def call(
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
        sent = self._metadata + metadata

        async def attempt(timeout_s: float) -> Response:
            return method(request, timeout=timeout_s, metadata=sent)

        return run(self._calls.repeated(attempt, deadline_s, repeatable=repeatable))

    def close(self) -> None:
        """Closes the connection; calls under way, and later ones, fail with CallError(CANCELLED)."""
        self._wire.close()

    def __enter__(self) -> HutongClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
