"""What a request asked for, as it is kept with its idempotency key: the values here are in journals, for ever."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import pytest

from gateway.calls import CREATE, REFUND
from gateway.engine.answer import id_text
from hutong.gateway.v1 import payment_pb2 as pb
from tests.gateway.risk.gate import Call, Gate

Change = Callable[[pb.CreatePaymentRequest], None]


def hold(request: pb.CreatePaymentRequest) -> None:
    request.hold.lifetime.seconds = 3600


def default_hold(request: pb.CreatePaymentRequest) -> None:
    request.hold.SetInParent()


def reference(request: pb.CreatePaymentRequest) -> None:
    request.reference = "订单 7"


def token(request: pb.CreatePaymentRequest) -> None:
    request.payer.token.token = "1"
    request.payer.token.cryptogram.value = b"proof"
    request.payer.token.cryptogram.counter = 300
    request.payee.merchant.terminal_id = "t2"


def deadline(request: pb.CreatePaymentRequest) -> None:
    request.deadline.seconds = 1_790_000_060


GOLDEN: dict[str, tuple[Change, str]] = {
    "plain": (lambda _: None, "b47061efcd758256b41a393906c975e0"),
    "deadline": (deadline, "b47061efcd758256b41a393906c975e0"),
    "hold": (hold, "1a846f3701d77976ecee7ef1b07cf312"),
    "default hold": (default_hold, "5007efab61a8f13cf2964dc24245022c"),
    "reference": (reference, "7895ad818e61021d62af38c943590c9d"),
    "token": (token, "d443cc6b6b501d545601840f16a03330"),
}
"""Under a key of 32 zero bytes. A deadline is not part of it: a repeat has another."""


def made(gate: Gate, payload: bytes) -> bytes:
    """The id of the payment that a request makes."""
    call = gate.submit(Call(CREATE, payload, "shop"))
    gate.run()
    return bytes.fromhex(call.payment.payment_id.replace("-", ""))


def kept(gate: Gate, payment_id: bytes) -> str:
    (payment,) = gate.journal.load([payment_id])
    return payment.fingerprint.hex()


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_fingerprints_are_what_they_were(tmp_path: Path, name: str) -> None:
    change, golden = GOLDEN[name]
    gate = Gate(tmp_path, "")
    request = gate.request()
    change(request)
    assert kept(gate, made(gate, request.SerializeToString())) == golden
    gate.journal.close()


def test_a_refunds_is_over_its_original(tmp_path: Path) -> None:
    """The original's id is new each time, so the value is made up here as the format says."""
    gate = Gate(tmp_path, "")
    original = made(gate, gate.request().SerializeToString())
    asked = pb.RefundPaymentRequest(
        payment_id=id_text(original), idempotency_key="back", amount_minor=10, reference="r"
    )
    call = gate.submit(Call(REFUND, asked.SerializeToString(), "shop"))
    gate.run()
    refund = bytes.fromhex(call.payment.payment_id.replace("-", ""))
    expected = blake2b(original + b"refund" + b"16 6 10  r", digest_size=16, key=bytes(32)).hexdigest()
    assert kept(gate, refund) == expected
    gate.journal.close()


def test_another_encoding_of_the_same_request_is_a_repeat(tmp_path: Path) -> None:
    """Fields in another order, a number longer than it must be: the fingerprint is over what was understood."""
    gate = Gate(tmp_path, "")
    request = gate.request(key="once")
    first = gate.submit(Call(CREATE, request.SerializeToString(), "shop"))
    gate.run()
    pieces = [
        pb.CreatePaymentRequest(currency=request.currency).SerializeToString(),
        pb.CreatePaymentRequest(amount_minor=request.amount_minor).SerializeToString(),
        pb.CreatePaymentRequest(payee=request.payee).SerializeToString(),
        pb.CreatePaymentRequest(payer=request.payer).SerializeToString(),
        pb.CreatePaymentRequest(idempotency_key=request.idempotency_key).SerializeToString(),
    ]
    payload = b"".join(pieces)
    assert payload != request.SerializeToString()
    repeat = gate.submit(Call(CREATE, payload, "shop"))
    gate.run()
    assert repeat.told == first.told
    gate.journal.close()
