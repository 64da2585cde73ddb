"""Proves that both clients offer the same, that what they send is in the contract, and what asyncio needs besides."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory

import hutong_client
from hutong.gateway.v1 import payment_pb2 as pb
from hutong.gateway.v1 import payment_pb2_grpc as rpc
from hutong.tokenization.v1 import token_pb2, token_pb2_grpc
from hutong_client import AsyncHutongClient, ClientOptions, HutongClient, Secret, calls, keys
from tests.deadlines import CALL_S

OPTIONS = ClientOptions(requestor="10000000077", requestor_secret=Secret("swordfish"), caller="shop 7")


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
        async with AsyncHutongClient(target, OPTIONS) as client:
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
    assert "swordfish" not in repr(OPTIONS)
