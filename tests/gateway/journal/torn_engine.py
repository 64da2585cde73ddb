"""An engine in a process of its own that pays, refunds, cancels and repeats without end, until it is killed."""

from __future__ import annotations

import random
import threading
import time
from multiprocessing.connection import Connection

from gateway.engine.model import Kind, Payment
from gateway.engine.states import State
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError, Reason
from tests.gateway.journal.remote_participants import PipeLink
from tests.gateway.journal.shared import Caller, Node, draft
from tests.gateway.journal.shared import refund as refund_of
from tokenization.interface import Condition

IN_FLIGHT = 150
CAP = 400_000
KEYS_BEHIND = 400
"""How far back a request may be repeated: also from before this process began, and from another one."""


def serve(told: Connection, legs: Connection, url: str, first: int, seed: int) -> None:
    """Makes payments number `first` and up, the same ones as every other engine that is given the same numbers."""
    link = PipeLink(legs)
    node = Node(url, link)  # type: ignore[arg-type]
    link.wake = node.engine.inbox.wake
    node.start()
    rng = random.Random(seed)
    lock = threading.Lock()
    done: list[bytes] = []
    number = first

    def tell(key: str, payment: Payment, answer: bytes | HutongError) -> None:
        if isinstance(answer, HutongError):
            return
        body = pb.CreatePaymentResponse.FromString(answer).payment
        with lock:
            told.send((key, bytes.fromhex(body.payment_id.replace("-", "")), int(body.state), answer))
            if int(body.state) == int(State.SUCCEEDED) and payment.kind == Kind.PAYMENT:
                done.append(bytes.fromhex(body.payment_id.replace("-", "")))

    while node.engine.failure is None:
        if node.engine.in_flight > IN_FLIGHT:
            time.sleep(0.002)
            continue
        number += 1
        at = number if rng.random() < 0.7 else max(0, number - rng.randrange(KEYS_BEHIND))
        payment = _payment(at)
        key = payment.idempotency.decode().strip()
        node.create(payment, Caller(lambda answer, key=key, payment=payment: tell(key, payment, answer)))  # type: ignore[misc]
        if rng.random() < 0.05:
            node.cancel(payment.payment_id)
        if done and rng.random() < 0.2:
            refund = refund_of(done[rng.randrange(len(done))], rng.randrange(1, 8))
            node.create(refund, Caller(lambda answer, refund=refund: tell(refund.payment_id.hex(), refund, answer)))  # type: ignore[misc]
        if number % 20 == 0:
            time.sleep(0.005)


def _payment(at: int) -> Payment:
    """Payment number `at`: its amount, code and limit follow from the number, so that a repeat is the same request."""
    amount = 10 + at % 7
    limit = f"limit-{at % 3}".encode().ljust(16)
    limits = (Condition(limit, amount, CAP, int(Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT)),)
    spends = (f"code-{at // 2}".encode().ljust(16),) if at % 10 < 4 else ()
    return draft(amount, key=f"pay-{at}", counters=limits if at % 4 == 0 else (), spends=spends)
