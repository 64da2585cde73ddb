"""Proves both clients against real gRPC servers: typed errors, deadlines, retries, throttling, watching, tokens."""

from __future__ import annotations

import asyncio
import inspect
import random
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent import futures
from dataclasses import replace
from typing import Any, cast

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory

import hutong_client
from hutong.gateway.v1 import payment_pb2 as pb
from hutong.gateway.v1 import payment_pb2_grpc as rpc
from hutong.tokenization.v1 import token_pb2, token_pb2_grpc
from hutong_client import calls, keys
from hutong_client.aio import AsyncHutongClient
from hutong_client.client import HutongClient
from hutong_client.errors import CallError, DeadlineExceeded, Unreachable
from hutong_client.options import ClientOptions, RetryOptions, TlsOptions, is_local
from hutong_client.retries import Retrier, Throttle
from hutong_client.wire import open_channel, run
from hutong_contract.errors import DETAILS_METADATA_KEY, HutongError, Reason
from hutong_contract.secret import Secret
from tests.deadlines import CALL_S

FAST = ClientOptions(deadline_s=5, retry=RetryOptions(backoff_s=0.001, backoff_max_s=0.002))
OVERLOADED = HutongError(Reason.ERROR_REASON_OVERLOADED)
PAYER, PAYEE = keys.payment_code("6600000000000000001"), keys.merchant("m1001", "m1001t1")


def fail(context: grpc.ServicerContext, error: HutongError | grpc.StatusCode) -> None:
    if isinstance(error, HutongError):
        context.set_trailing_metadata(((DETAILS_METADATA_KEY, error.to_status().SerializeToString()),))
        context.abort(error.status_code, str(error))
    context.abort(error, "as the test asked")


class Refusal(grpc.RpcError):
    """A refusal as a stub raises it."""

    def __init__(self, error: HutongError) -> None:
        status = error.to_status().SerializeToString()
        self.trailing_metadata = lambda: ((DETAILS_METADATA_KEY, status),)  # type: ignore[assignment,method-assign,return-value]


class Script:
    """An attempt that fails as often as it is told, then answers."""

    def __init__(self, *failures: HutongError) -> None:
        self.failures = list(failures)

    async def __call__(self, timeout_s: float) -> str:
        if self.failures:
            raise Refusal(self.failures.pop(0))
        return "answer"


def spent(retry_us: int = 0) -> HutongError:
    return HutongError(Reason.ERROR_REASON_QUERY_BUDGET_SPENT).after(retry_us)


class Gateway(rpc.PaymentServiceServicer):
    """Fails as often as `failures` says, then answers. Keeps every request."""

    def __init__(self) -> None:
        self.failures: list[HutongError | grpc.StatusCode] = []
        self.seen: list[Any] = []
        self.streams: list[list[tuple[int, int] | pb.WatchPaymentsResponse | grpc.StatusCode | HutongError]] = []
        self.hold: threading.Event | None = None
        self.metadata: list[dict[str, Any]] = []

    def _meet(self, request: Any, context: grpc.ServicerContext) -> None:
        self.seen.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        if self.hold is not None:
            self.hold.wait(CALL_S)
        if self.failures:
            fail(context, self.failures.pop(0))

    def CreatePayment(self, request: Any, context: Any) -> pb.CreatePaymentResponse:  # noqa: N802
        self._meet(request, context)
        return pb.CreatePaymentResponse(payment=pb.Payment(payment_id="p1", reference=request.reference))

    def BatchCreatePayments(self, request: Any, context: Any) -> pb.BatchCreatePaymentsResponse:  # noqa: N802
        self._meet(request, context)
        refused = pb.BatchCreatePaymentsResult(error=HutongError(Reason.ERROR_REASON_CODE_SPENT).to_status())
        made = pb.BatchCreatePaymentsResult(payment=pb.Payment(payment_id="p1"))
        return pb.BatchCreatePaymentsResponse(results=[made, refused])

    def GetPayment(self, request: Any, context: Any) -> pb.GetPaymentResponse:  # noqa: N802
        self._meet(request, context)
        state = pb.PAYMENT_STATE_SUCCEEDED
        return pb.GetPaymentResponse(payment=pb.Payment(payment_id=request.payment_id, state=state))

    def CapturePayment(self, request: Any, context: Any) -> pb.CapturePaymentResponse:  # noqa: N802
        self._meet(request, context)
        payment = pb.Payment(payment_id=request.payment_id, amount_minor=request.amount_minor)
        return pb.CapturePaymentResponse(payment=payment)

    def GetReceipt(self, request: Any, context: Any) -> pb.GetReceiptResponse:  # noqa: N802
        self._meet(request, context)
        return pb.GetReceiptResponse(receipt=pb.Receipt(payment_id=request.payment_id))

    def CancelPayment(self, request: Any, context: Any) -> pb.CancelPaymentResponse:  # noqa: N802
        self._meet(request, context)
        return pb.CancelPaymentResponse(payment=pb.Payment(payment_id=request.payment_id))

    def RefundPayment(self, request: Any, context: Any) -> pb.RefundPaymentResponse:  # noqa: N802
        self._meet(request, context)
        return pb.RefundPaymentResponse(refund=pb.Payment(payment_id="r1", amount_minor=request.amount_minor))

    def ListPayments(self, request: Any, context: Any) -> pb.ListPaymentsResponse:  # noqa: N802
        self._meet(request, context)
        pages = {"": (["p9", "p8"], "second"), "second": ([], "third"), "third": (["p1"], "")}
        ids, following = pages[request.page_token]
        return pb.ListPaymentsResponse(payments=[pb.Payment(payment_id=one) for one in ids], next_page_token=following)

    def WatchPayments(self, request: Any, context: Any) -> Iterator[pb.WatchPaymentsResponse]:  # noqa: N802
        self.seen.append(request)
        for step in self.streams.pop(0):
            if isinstance(step, pb.WatchPaymentsResponse):
                yield step
            elif isinstance(step, tuple):
                sequence, state = step
                event = pb.PaymentEvent(sequence=sequence, payment_id="p1", state=state)  # type: ignore[arg-type]
                yield pb.WatchPaymentsResponse(events=[event])
            else:
                fail(context, step)


Serve = Callable[[Gateway], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[grpc.Server] = []

    def start(gateway: Gateway) -> str:
        server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        rpc.add_PaymentServiceServicer_to_server(gateway, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(0).wait()


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


class Awaited:
    """The asyncio client behind the blocking one's face, on an event loop of its own, so that tests serve both."""

    def __init__(self, target: str, options: ClientOptions) -> None:
        self._client = AsyncHutongClient(target, options)
        self._runner = asyncio.Runner()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **more: Any) -> Any:
            made: Any = method(*args, **more)
            if inspect.isasyncgen(made):
                return self._iterate(cast("AsyncGenerator[Any, None]", made))
            return self._runner.run(made)

        return call

    def _iterate(self, source: AsyncGenerator[Any, None]) -> Iterator[Any]:
        async def following() -> Any:
            return await anext(source, None)

        try:
            while (one := self._runner.run(following())) is not None:
                yield one
        finally:
            self._runner.run(source.aclose())

    def __enter__(self) -> Awaited:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


Face = HutongClient | Awaited


@pytest.fixture(params=["blocking", "asyncio"])
def kind(request: pytest.FixtureRequest) -> type[Face]:
    """The two clients."""
    return HutongClient if request.param == "blocking" else Awaited


@pytest.fixture
def client(gateway: Gateway, serve: Serve, kind: type[Face]) -> Iterator[HutongClient]:
    with kind(serve(gateway), FAST) as client:
        yield client  # type: ignore[misc] # of the same face


def pay(client: Face, **more: Any) -> pb.Payment:
    payment: pb.Payment = client.create_payment(payer=PAYER, payee=PAYEE, amount_minor=100, currency="CNY", **more)
    return payment


def test_every_field_arrives(gateway: Gateway, client: HutongClient) -> None:
    payment = pay(client, reference="order 7", idempotency_key="k1", expires_in_s=60)
    assert payment.reference == "order 7"
    (request,) = gateway.seen
    assert (request.payer, request.payee) == (PAYER, PAYEE)
    assert (request.amount_minor, request.currency, request.idempotency_key) == (100, "CNY", "k1")
    assert request.HasField("deadline")


def test_a_client_says_who_it_is_only_where_it_has_a_name(gateway: Gateway, serve: Serve, kind: type[Face]) -> None:
    target = serve(gateway)
    for caller in ("", "shop 7"):
        with kind(target, replace(FAST, caller=caller)) as client:
            pay(client)
    assert [one.get("hutong-caller") for one in gateway.metadata] == [None, "shop 7"]


def test_a_refusal_is_the_reason_of_the_table_with_its_fields(gateway: Gateway, client: HutongClient) -> None:
    gateway.failures = [HutongError(Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT, limit="5")]
    with pytest.raises(HutongError) as refused:
        pay(client)
    assert refused.value.reason == Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT
    assert refused.value.fields == {"limit": "5"}
    assert len(gateway.seen) == 1, "a refusal that time does not heal is not repeated"


def test_passing_failures_are_repeated_with_the_same_key(gateway: Gateway, client: HutongClient) -> None:
    gateway.failures = [OVERLOADED, grpc.StatusCode.UNAVAILABLE, HutongError(Reason.ERROR_REASON_DRAINING)]
    pay(client)
    assert len(gateway.seen) == 4
    assert len({request.idempotency_key for request in gateway.seen}) == 1
    pay(client)
    assert gateway.seen[-1].idempotency_key != gateway.seen[0].idempotency_key


def test_the_time_that_the_gateway_asks_for_is_waited_and_only_within_the_deadline() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    retrier = Retrier(FAST.retry, sleep=sleep, clock=lambda: sum(waits), rng=random.Random(1))
    assert run(retrier.call(Script(spent(700_000), spent(1_300_000)), 5.0, repeatable=True)) == "answer"
    assert 0.7 <= waits[0] <= 0.7 + FAST.retry.backoff_max_s
    assert 1.3 <= waits[1] <= 1.3 + FAST.retry.backoff_max_s
    with pytest.raises(HutongError, match="QUERY_BUDGET_SPENT"):
        run(retrier.call(Script(spent(6_000_000)), 5.0, repeatable=True))
    assert len(waits) == 2, "nobody waits for what comes after the deadline"


def test_a_spent_budget_does_not_throttle_other_calls() -> None:
    async def sleep(seconds: float) -> None:
        pass

    retrier = Retrier(RetryOptions(throttle_tokens=4), sleep=sleep)
    for _ in range(20):
        with pytest.raises(HutongError):
            run(retrier.call(Script(*[spent()] * 10), 5.0, repeatable=True))
    assert run(retrier.call(Script(OVERLOADED), 5.0, repeatable=True)) == "answer"


def test_refunds_and_reads_are_repeated_too(gateway: Gateway, client: HutongClient) -> None:
    gateway.failures = [OVERLOADED, OVERLOADED]
    assert client.refund_payment("p1", amount_minor=5).amount_minor == 5
    assert len({request.idempotency_key for request in gateway.seen}) == 1
    gateway.failures = [grpc.StatusCode.UNAVAILABLE]
    assert client.get_payment("p1").payment.payment_id == "p1"


def test_a_cancellation_has_no_key_and_is_not_repeated(gateway: Gateway, client: HutongClient) -> None:
    gateway.failures = [grpc.StatusCode.UNAVAILABLE]
    with pytest.raises(Unreachable):
        client.cancel_payment("p1")
    assert len(gateway.seen) == 1
    assert client.cancel_payment("p1").payment_id == "p1"


def test_a_batch_is_repeated_only_if_every_request_has_a_key(gateway: Gateway, client: HutongClient) -> None:
    with_key, without = pb.CreatePaymentRequest(idempotency_key="k"), pb.CreatePaymentRequest()
    gateway.failures = [grpc.StatusCode.UNAVAILABLE]
    made, refused = client.batch_create_payments([with_key, with_key])
    assert isinstance(made, pb.Payment)
    assert isinstance(refused, HutongError)
    assert refused.reason == Reason.ERROR_REASON_CODE_SPENT
    gateway.failures = [grpc.StatusCode.UNAVAILABLE]
    with pytest.raises(Unreachable):
        client.batch_create_payments([with_key, without])


def test_attempts_end_and_the_last_failure_is_raised(gateway: Gateway, client: HutongClient) -> None:
    gateway.failures = [OVERLOADED] * 10
    with pytest.raises(HutongError, match="OVERLOADED"):
        pay(client)
    assert len(gateway.seen) == FAST.retry.attempts_max


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_becomes_a_typed_error(gateway: Gateway, client: HutongClient, code: grpc.StatusCode) -> None:
    gateway.failures = [code] * 4
    with pytest.raises(CallError) as failed:
        pay(client)
    kinds = {grpc.StatusCode.UNAVAILABLE: Unreachable, grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded}
    assert type(failed.value) is kinds.get(code, CallError)
    assert failed.value.code is code
    assert failed.value.details == "as the test asked"
    assert len(gateway.seen) == (4 if code is grpc.StatusCode.UNAVAILABLE else 1)


def test_a_silent_gateway_is_a_deadline(gateway: Gateway, client: HutongClient) -> None:
    gateway.hold = threading.Event()
    with pytest.raises(DeadlineExceeded):
        pay(client, deadline_s=0.05)
    gateway.hold.set()


def test_nobody_there_is_unreachable(kind: type[Face]) -> None:
    with kind("127.0.0.1:1", FAST) as client, pytest.raises(Unreachable):
        pay(client)


def test_waits_grow_are_bounded_and_never_outlast_the_deadline() -> None:
    slept: list[float] = []
    now = [0.0]

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    async def attempt(_: float) -> str:
        raise _Unavailable

    options = RetryOptions(attempts_max=50, backoff_s=1, backoff_max_s=4, throttle_tokens=1_000)
    retrier = Retrier(options, sleep=sleep, clock=lambda: now[0], rng=random.Random(1))
    with pytest.raises(Unreachable):
        run(retrier.call(attempt, 30.0, repeatable=True))
    assert all(wait <= 4 for wait in slept)
    assert slept[0] <= 1
    assert sum(slept) < 30
    assert len(slept) > 8


class _Unavailable(grpc.RpcError, grpc.Call):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "gone"

    def trailing_metadata(self) -> Any:
        return ()

    def initial_metadata(self) -> Any:
        return ()

    def add_callback(self, callback: Any) -> bool:
        return False

    def cancel(self) -> bool:
        return False

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> float:
        return 0.0


def test_throttling_stops_repeating_while_most_calls_fail() -> None:
    throttle = Throttle(RetryOptions(throttle_tokens=4, throttle_ratio=0.5))
    assert [throttle.failed() for _ in range(4)] == [True, False, False, False]
    for _ in range(8):
        throttle.succeeded()
    assert throttle.failed()


def test_a_struggling_gateway_is_not_flooded(gateway: Gateway, client: HutongClient) -> None:
    gateway.failures = [OVERLOADED] * 1_000
    for _ in range(20):
        with pytest.raises(HutongError):
            pay(client)
    assert len(gateway.seen) < 20 + 2 * FAST.retry.attempts_max


def test_watching_resumes_after_the_last_event_and_repeats_none(gateway: Gateway, client: HutongClient) -> None:
    debiting, succeeded = pb.PAYMENT_STATE_DEBITING, pb.PAYMENT_STATE_SUCCEEDED
    gateway.streams = [
        [(3, debiting), (5, debiting), grpc.StatusCode.UNAVAILABLE],
        [grpc.StatusCode.UNAVAILABLE],
        [(5, debiting), (6, succeeded)],
        [(9, succeeded)],
    ]
    events = client.watch_payments(after_sequence=2)
    assert [next(events).sequence for _ in range(4)] == [3, 5, 6, 9]
    events.close()  # type: ignore[attr-defined]
    assert [request.after_sequence for request in gateway.seen] == [2, 5, 5, 6]


def test_watching_from_now_is_resumed_from_where_the_gateway_said_it_had_come_to(
    gateway: Gateway, client: HutongClient
) -> None:
    """Also where nothing that fits came before the connection broke: what is paid meanwhile is not missed."""
    mine = pb.PaymentFilter(token_ref=b"t" * 16)
    gateway.streams = [
        [grpc.StatusCode.UNAVAILABLE],
        [pb.WatchPaymentsResponse(sequence=70), grpc.StatusCode.UNAVAILABLE],
        [pb.WatchPaymentsResponse(sequence=90), (95, pb.PAYMENT_STATE_DEBITING), grpc.StatusCode.UNAVAILABLE],
        [(96, pb.PAYMENT_STATE_SUCCEEDED)],
    ]
    events = client.watch_payments(from_now=True, only=mine)
    assert [next(events).sequence for _ in range(2)] == [95, 96]
    events.close()  # type: ignore[attr-defined]
    assert [(one.after_sequence, one.from_now) for one in gateway.seen] == [
        (0, True),
        (0, True),
        (70, False),
        (95, False),
    ]
    assert all(one.filter == mine for one in gateway.seen)
    gateway.streams = [[grpc.StatusCode.UNAVAILABLE], [pb.WatchPaymentsResponse(sequence=97)], []]
    assert client.newest_sequence() == 97
    with pytest.raises(Unreachable):
        client.newest_sequence()


def test_lists_ask_for_pages_until_there_are_none(gateway: Gateway, client: HutongClient) -> None:
    """An empty page may have a next one."""
    shop = pb.PaymentFilter(merchant_id="m1")
    listed = client.list_payments(only=shop, page_size=2)
    assert next(listed).payment_id == "p9"
    assert len(gateway.seen) == 1, "the next page is asked for when it is needed"
    gateway.failures = [OVERLOADED, HutongError(Reason.ERROR_REASON_LIST_BEHIND)]
    assert [payment.payment_id for payment in listed] == ["p8", "p1"]
    assert [one.page_token for one in gateway.seen] == ["", "second", "second", "second", "third"]
    assert all((one.filter, one.page_size) == (shop, 2) for one in gateway.seen)


def test_watching_what_is_gone_is_an_error(gateway: Gateway, client: HutongClient) -> None:
    gateway.streams = [[HutongError(Reason.ERROR_REASON_SEQUENCE_GONE, first="7")]]
    with pytest.raises(HutongError, match="SEQUENCE_GONE"):
        next(client.watch_payments())


def test_watching_gives_up_when_nothing_comes_back(gateway: Gateway, client: HutongClient) -> None:
    gateway.streams = [[grpc.StatusCode.UNAVAILABLE]] * 30
    with pytest.raises(Unreachable):
        next(client.watch_payments())
    assert 10 < len(gateway.seen) < 30


def test_an_open_payment_is_watched_until_it_is_settled(gateway: Gateway, client: HutongClient) -> None:
    gateway.streams = [[(1, pb.PAYMENT_STATE_CREDIT_UNKNOWN)], [(2, pb.PAYMENT_STATE_SUCCEEDED)]]
    opened = pb.Payment(payment_id="p1", state=pb.PAYMENT_STATE_CREDIT_UNKNOWN)
    assert client.settled(opened).state == pb.PAYMENT_STATE_SUCCEEDED
    final = pb.Payment(payment_id="p1", state=pb.PAYMENT_STATE_DECLINED)
    asked = len(gateway.seen)
    assert client.settled(final) is final
    assert len(gateway.seen) == asked


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("127.0.0.1:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("unix:/tmp/x", True),
        ("10.0.0.1:1", False),
        ("pay.example:443", False),
    ],
)
def test_plaintext_stays_on_this_machine_unless_allowed(target: str, local: bool) -> None:
    assert is_local(target) is local
    if local:
        open_channel(target, ClientOptions()).close()
        AsyncHutongClient(target)
    else:
        with pytest.raises(ValueError, match="TLS"):
            AsyncHutongClient(target)
        with pytest.raises(ValueError, match="TLS"):
            open_channel(target, ClientOptions())
        open_channel(target, ClientOptions(allow_plaintext=True)).close()
        open_channel(target, ClientOptions(tls=TlsOptions())).close()


REQUESTOR = ClientOptions(requestor="10000000077", requestor_secret=Secret("swordfish"), caller="shop 7")


def public(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")}


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    assert public(HutongClient) == public(AsyncHutongClient) - {"repeated"}
    for name in public(HutongClient) - {"call", "close"}:
        blocking, awaited = getattr(HutongClient, name), getattr(AsyncHutongClient, name)
        assert inspect.signature(blocking) == inspect.signature(awaited), name
        assert blocking.__doc__ == awaited.__doc__, name


def test_every_method_that_is_called_is_in_the_contract_with_its_answer() -> None:
    pool = descriptor_pool.Default()
    found = [one for one in vars(calls).values() if isinstance(one, calls.Method)]
    assert len(found) > 10
    for method in found:
        service, name = method.path.strip("/").split("/")
        described = pool.FindServiceByName(service).FindMethodByName(name)
        assert message_factory.GetMessageClass(described.output_type) is method.answer, method.path


def test_everything_public_is_there() -> None:
    for name in hutong_client.__all__:
        assert getattr(hutong_client, name) is not None


class Services(rpc.PaymentServiceServicer, token_pb2_grpc.TokenServiceServicer):
    """Answers in the event loop of the test; `never` is a call that is never answered."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, dict[str, str]]] = []
        self.waiting = asyncio.Event()
        self.cancelled = asyncio.Event()

    def _note(self, request: Any, context: Any) -> None:
        self.asked.append((request, dict(context.invocation_metadata())))

    async def CreatePayment(self, request: Any, context: Any) -> pb.CreatePaymentResponse:  # type: ignore[override]  # noqa: N802
        self._note(request, context)
        return pb.CreatePaymentResponse(payment=pb.Payment(payment_id=request.reference))

    async def WatchPayments(self, request: Any, context: Any) -> Any:  # type: ignore[override]  # noqa: N802
        yield pb.WatchPaymentsResponse(events=[pb.PaymentEvent(sequence=1, payment_id="p1")])
        self.waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def ReserveCode(self, request: Any, context: Any) -> token_pb2.ReserveCodeResponse:  # type: ignore[override]  # noqa: N802
        self._note(request, context)
        return token_pb2.ReserveCodeResponse(code="6600000000000000001")

    async def ChangeState(self, request: Any, context: Any) -> token_pb2.ChangeStateResponse:  # type: ignore[override]  # noqa: N802
        self._note(request, context)
        return token_pb2.ChangeStateResponse(view=token_pb2.TokenView(last_four="0001"))


async def served(services: Services) -> tuple[grpc.aio.Server, str]:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    rpc.add_PaymentServiceServicer_to_server(services, server)  # type: ignore[no-untyped-call]
    token_pb2_grpc.add_TokenServiceServicer_to_server(services, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"


def test_calls_of_one_asyncio_client_run_beside_each_other() -> None:
    async def scene() -> list[str]:
        server, target = await served(Services())  # type: ignore[abstract] # gRPC fills in the others
        async with AsyncHutongClient(target) as client:
            pays = [
                client.create_payment(payer=keys.token("6" * 19), payee=keys.merchant("m1"), reference=f"r{number}")
                for number in range(50)
            ]
            made = [payment.payment_id for payment in await asyncio.gather(*pays)]
            other = rpc.PaymentServiceStub(client.channel)
            asked = pb.CreatePaymentRequest(reference="by a stub")
            made.append((await client.call(other.CreatePayment, asked, repeatable=True)).payment.payment_id)
        await server.stop(None)
        return made

    assert asyncio.run(scene()) == [f"r{number}" for number in range(50)] + ["by a stub"]


def test_cancelling_the_task_that_watches_cancels_the_call() -> None:
    async def scene() -> list[int]:
        services = Services()  # type: ignore[abstract]
        server, target = await served(services)
        seen: list[int] = []

        async def watch(client: AsyncHutongClient) -> None:
            async for event in client.watch_payments():
                seen.append(event.sequence)

        async with AsyncHutongClient(target) as client:
            task = asyncio.create_task(watch(client))
            await asyncio.wait_for(services.waiting.wait(), CALL_S)
            while not seen:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(services.cancelled.wait(), CALL_S)
        await server.stop(None)
        return seen

    assert asyncio.run(scene()) == [1]


def test_tokens_are_asked_for_in_the_name_of_the_options_requestor_with_its_secret() -> None:
    async def scene() -> Services:
        services = Services()  # type: ignore[abstract]
        server, target = await served(services)
        async with AsyncHutongClient(target, REQUESTOR) as client:
            assert (await client.reserve_code(Secret("6" * 19))).reveal() == "6600000000000000001"
            view = await client.suspend_token(b"r" * 16, reason="lost phone")
            assert view.last_four == "0001"
            await client.create_payment(payer=keys.token("6" * 19), payee=keys.merchant("m1"))
        await server.stop(None)
        return services

    (reserve, first), (suspend, second), (_, payment) = asyncio.run(scene()).asked
    assert reserve.requestor_id == suspend.requestor_id == "10000000077"
    assert reserve.name.token == "6" * 19
    assert suspend.name.token_ref == b"r" * 16
    assert (suspend.change, suspend.reason) == (token_pb2.STATE_CHANGE_SUSPEND, "lost phone")
    for sent in (first, second):
        assert (sent["hutong-requestor-secret"], sent["hutong-caller"]) == ("swordfish", "shop 7")
    assert "hutong-requestor-secret" not in payment, "a payment does not carry it"


def test_a_secret_does_not_show_in_options() -> None:
    assert "swordfish" not in repr(REQUESTOR)


def test_calls_of_a_closed_client_say_so(kind: type[Face]) -> None:
    with kind("127.0.0.1:1", FAST) as client:
        client.close()
        for call in (lambda: pay(client), lambda: next(client.watch_payments()), lambda: next(client.list_payments())):
            with pytest.raises(CallError, match="CANCELLED: this client is closed"):
                call()


def test_closing_an_asyncio_client_fails_its_calls_and_does_not_look_like_a_cancelled_task() -> None:
    async def scene() -> list[BaseException | None]:
        services = Services()  # type: ignore[abstract]
        server, target = await served(services)
        client = AsyncHutongClient(target)

        async def watch() -> None:
            async for _ in client.watch_payments():
                pass

        watching = asyncio.create_task(watch())
        getting = asyncio.create_task(client.settled(pb.Payment(payment_id="p1")))
        await asyncio.wait_for(services.waiting.wait(), CALL_S)
        await client.close()
        await asyncio.wait({watching, getting}, timeout=CALL_S)
        await server.stop(None)
        return [watching.exception(), getting.exception()]

    for error in asyncio.run(scene()):
        assert isinstance(error, CallError)
        assert error.code is grpc.StatusCode.CANCELLED
