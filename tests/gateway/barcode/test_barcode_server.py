"""BarcodeService over a real gRPC connection: every method, its errors, and no credential in any answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2

from gateway.barcode.server import BarcodeServicer
from gateway.directory import parse
from hutong.gateway.v1 import barcode_pb2 as pb
from hutong.gateway.v1 import barcode_pb2_grpc as rpc
from hutong_contract.errors import DETAILS_METADATA_KEY, from_status
from hutong_contract.limits import PAYLOADS_MAX

Use = Callable[["rpc.BarcodeServiceAsyncStub"], Awaitable[None]]
DIRECTORY = parse(
    {
        "participants": [{"id": "acq", "role": "acquirer"}],
        "merchants": [
            {
                "id": "m-1",
                "name": "Shop",
                "acquirers": [{"id": "acq"}],
                "accounts": [{"scheme": "hutong", "account": "m-1"}],
            }
        ],
    }
)


def served(use: Use) -> None:
    async def run() -> None:
        server = grpc.aio.server()
        rpc.add_BarcodeServiceServicer_to_server(BarcodeServicer(DIRECTORY), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                await use(rpc.BarcodeServiceStub(channel))
        finally:
            await server.stop(None)

    asyncio.run(run())


async def refused(call: Awaitable[object]) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    trailing: Any = raised.value.trailing_metadata()
    details = dict(trailing)[DETAILS_METADATA_KEY]
    assert isinstance(details, bytes)
    status = status_pb2.Status()
    status.ParseFromString(details)
    error = from_status(status)
    assert error is not None
    assert error.status_code == raised.value.code()
    return error.name


def test_encode_decode_render_scan_translate() -> None:
    async def use(stub: rpc.BarcodeServiceAsyncStub) -> None:
        request = pb.EncodeRequest(
            account="m-1", terminal_id="t", merchant_name="最佳", merchant_city="City", amount_minor=125
        )
        payload = (await stub.Encode(request)).payload
        decoded = (await stub.Decode(pb.DecodeRequest(payload=payload))).barcode
        assert (decoded.kind, decoded.scheme, decoded.amount_minor) == (pb.BARCODE_KIND_EMV_MPM, "hutong", 125)
        assert (decoded.route.to, decoded.route.merchant_id, decoded.route.status) == ("acq", "m-1", "routed")
        assert decoded.profile.valid
        assert not decoded.strict.valid
        assert [violation.path for violation in decoded.strict.violations] == ["59"]
        image = (await stub.Render(pb.RenderRequest(text=payload))).symbol
        found = (await stub.Scan(pb.ScanRequest(image=image))).symbols
        assert [symbol.text for symbol in found] == [payload]
        assert found[0].barcode == decoded
        assert len(found[0].corners) == 8
        for form in (pb.SYMBOL_FORMAT_SVG, pb.SYMBOL_FORMAT_TERMINAL):
            assert (await stub.Render(pb.RenderRequest(text=payload, format=form))).symbol.decode("utf-8")
        said = await stub.Translate(pb.TranslateRequest(payload="upi://pay?pa=a.b@icici&pn=A&tn=x"))
        assert (said.source, said.scheme, said.route.account) == ("upi", "hutong", "a.b@icici")
        assert "no_place" in {loss.reason for loss in said.losses}

    served(use)


def test_what_a_code_asks_for_is_in_the_answer() -> None:
    async def use(stub: rpc.BarcodeServiceAsyncStub) -> None:
        request = pb.EncodeRequest(
            account="m-1", merchant_name="A", merchant_city="B", amount_minor=1000, tip="percent"
        )
        request.tip_basis_points = 350
        request.expire_time.seconds = 1_900_000_000
        decoded = (await stub.Decode(pb.DecodeRequest(payload=(await stub.Encode(request)).payload))).barcode
        assert (decoded.tip, decoded.tip_minor, decoded.tip_basis_points) == ("percent", 35, 350)
        assert (decoded.amount_due_minor, decoded.purpose) == (1035, "payment")
        assert not decoded.HasField("amount_least_minor")
        assert decoded.expire_time.seconds == 1_900_000_000
        assert decoded.route.payee == "m-1"
        assert [candidate.reason for candidate in decoded.candidates] == ["26/00 is io.hutong.pay"]
        asked = pb.EncodeRequest(account="m-1", merchant_name="A", merchant_city="B", amount_minor=1000, tip="asked")
        decoded = (await stub.Decode(pb.DecodeRequest(payload=(await stub.Encode(asked)).payload))).barcode
        assert (decoded.amount_least_minor, decoded.HasField("amount_due_minor")) == (1000, False)
        asked.tip_minor = 5
        assert await refused(stub.Encode(asked)) == "FIELD_INVALID"
        mandate = pb.TranslateRequest(payload="upi://mandate?pa=a.b@icici&am=5")
        assert await refused(stub.Translate(mandate)) == "CODE_NOT_PAYABLE"

    served(use)


def test_a_batch_keeps_its_order_and_shows_no_digits() -> None:
    async def use(stub: rpc.BarcodeServiceAsyncStub) -> None:
        digits = "6612345678901234567"
        answer = await stub.BatchDecode(pb.BatchDecodeRequest(payloads=[digits, "nothing", "wxp://f2f0abcdef"]))
        assert [barcode.scheme for barcode in answer.barcodes] == ["hutong", "", "wechatpay"]
        assert digits[2:] not in str(answer)
        assert not answer.barcodes[0].HasField("strict")
        assert answer.barcodes[1].kind == pb.BARCODE_KIND_UNKNOWN

    served(use)


def test_errors_are_typed() -> None:
    async def use(stub: rpc.BarcodeServiceAsyncStub) -> None:
        many = pb.BatchDecodeRequest(payloads=["x"] * (PAYLOADS_MAX + 1))
        assert await refused(stub.BatchDecode(many)) == "BATCH_TOO_LARGE"
        assert await refused(stub.Encode(pb.EncodeRequest(account="m", merchant_name=""))) == "FIELD_INVALID"
        assert await refused(stub.Scan(pb.ScanRequest(image=b"no picture"))) == "FIELD_INVALID"
        assert await refused(stub.Render(pb.RenderRequest(text="x", level="Z"))) == "FIELD_INVALID"
        assert await refused(stub.Translate(pb.TranslateRequest(payload="6612345678901234567"))) == "KEY_NOT_PAYEE"
        assert await refused(stub.Translate(pb.TranslateRequest(payload="x"))) == "BARCODE_UNKNOWN"

    served(use)
