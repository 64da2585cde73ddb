"""The process that pays: clients of all gateways at once, until its standard input ends.

    python -m verification.torture.load < PLAN

PLAN is one line of JSON, see `Plan`. Every request and answer goes into the record. A request without an answer is made
again with the same key, at whichever gateway; so is one that has not ended, and now and then one that has. Some
payments are by one-time code, a code is sometimes presented twice, some amounts make a participant misbehave, some
payments are refunded, and some that linger are cancelled.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from hutong.gateway.v1 import payment_pb2 as pb
from hutong.tokenization.v1 import token_pb2, token_pb2_grpc
from hutong_client import keys
from hutong_client.client import HutongClient
from hutong_client.errors import CallError, Unreachable
from hutong_client.options import ClientOptions, RetryOptions
from hutong_client.retries import is_passing
from hutong_contract.errors import HutongError
from hutong_contract.names import WALLET_TRID as WALLET
from sandbox.participants.magic import MAGIC
from verification.torture.record import CANCEL, PAYMENT, REFUND, Answer, Asked, Writer

CURRENCY: Final = "CNY"
CALL_S: Final = 3.0
"""For a call: less than a leg's time, so that some callers hear of a payment as it stands."""
PAUSE_S: Final = 0.03
"""Longest pause of a caller between two calls."""
UNREACHABLE_PAUSE_S: Final = 0.1
"""After a call that reached nobody: whoever starts again needs the processor more."""
REMEMBERED_MAX: Final = 5_000
"""Requests that may be repeated, payments that may be refunded."""
WAITING_MAX: Final = 20_000
"""Requests without a final answer that wait to be made again."""
MAGIC_SHARE, CODE_SHARE, REFUND_SHARE, REPEAT_SHARE, AGAIN_SHARE, CANCEL_SHARE = 0.02, 0.1, 0.1, 0.05, 0.3, 0.3
TWICE_SHARE: Final = 0.3
"""Of codes that are presented a second time, for another payment."""
MAGIC_AMOUNTS: Final = tuple(sorted(MAGIC))
BACKOFF: Final = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 300))
"""Short, so that it is the gateway's recovery that is measured."""


@dataclass(frozen=True, slots=True)
class Payer:
    """A token that can pay, and whose account is behind it."""

    token: str
    issuer: str


@dataclass(frozen=True, slots=True)
class Shop:
    """A merchant, and its first acquirer."""

    id: str
    acquirer: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of the load."""

    targets: Sequence[str]
    payers: Sequence[Payer]
    shops: Sequence[Shop]
    seed: int
    record: str
    threads: int = 12

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> Plan:
        """From that line."""
        fields = json.loads(text)
        fields["payers"] = [Payer(**one) for one in fields["payers"]]
        fields["shops"] = [Shop(**one) for one in fields["shops"]]
        return cls(**fields)


class Asker:
    """Sends the requests of the record to any gateway, the same way each time."""

    def __init__(self, targets: Sequence[str], payers: Sequence[Payer], *, deadline_s: float = CALL_S) -> None:
        options = ClientOptions(deadline_s=deadline_s, retry=RetryOptions(attempts_max=1), channel_options=BACKOFF)
        self.clients = [HutongClient(target, options) for target in targets]
        self._payers = payers

    def payment(self, one: Asked) -> pb.CreatePaymentRequest:
        """The request of a payment."""
        payer = keys.payment_code(one.code) if one.code else keys.token(self._payers[one.token].token, WALLET)
        return pb.CreatePaymentRequest(
            idempotency_key=one.key,
            payer=payer,
            payee=keys.merchant(one.merchant),
            amount_minor=one.amount_minor,
            currency=CURRENCY,
        )

    def ask(self, one: Asked, gateway: int) -> pb.Payment:
        """Sends a request. Raises as the client does."""
        client = self.clients[gateway]
        if one.kind == REFUND:
            return client.refund_payment(one.original, amount_minor=one.amount_minor, idempotency_key=one.key)
        (result,) = client.batch_create_payments([self.payment(one)])
        if isinstance(result, HutongError):
            raise result
        return result

    def code(self, payer: int, gateway: int) -> str:
        """A fresh one-time code. Raises as the client does."""
        client = self.clients[gateway]
        name = token_pb2.TokenName(token=self._payers[payer].token)
        request = token_pb2.ReserveCodeRequest(requestor_id=WALLET, name=name)
        return str(client.call(token_pb2_grpc.TokenServiceStub(client.channel).ReserveCode, request).code)

    def close(self) -> None:
        """Closes the connections."""
        for client in self.clients:
            client.close()


class Load:
    """Callers in threads, which share the requests to be repeated."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._asker = Asker(plan.targets, plan.payers)
        self._writer = Writer(Path(plan.record))
        self._waiting: deque[Asked] = deque(maxlen=WAITING_MAX)
        self._done: deque[Asked] = deque(maxlen=REMEMBERED_MAX)
        self._paid: deque[tuple[str, int]] = deque(maxlen=REMEMBERED_MAX)
        self._codes: deque[tuple[int, str]] = deque(maxlen=REMEMBERED_MAX)
        self._stop = threading.Event()

    def run(self) -> None:
        """Runs until `stop`."""
        threads = [threading.Thread(target=self._caller, args=(number,)) for number in range(self._plan.threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._asker.close()

    def stop(self) -> None:
        """Lets every caller end its call."""
        self._stop.set()

    def _caller(self, thread: int) -> None:
        rng = random.Random(f"{self._plan.seed}/{thread}")
        number = 0
        while not self._stop.wait(rng.uniform(0, PAUSE_S)):
            number += 1
            try:
                one, first = self._choose(rng, f"{self._plan.seed}-{thread}-{number}")
            except (HutongError, CallError) as error:
                self._writer.refused("", f"code: {_reason(error)}")
                continue
            self._turn(one, rng, first=first)

    def _choose(self, rng: random.Random, key: str) -> tuple[Asked, bool]:
        """The next request, and whether it was never sent before."""
        if self._waiting and rng.random() < AGAIN_SHARE:
            try:
                return self._waiting.popleft(), False
            except IndexError:  # another caller took it
                pass
        if self._done and rng.random() < REPEAT_SHARE:
            return rng.choice(self._done), False
        one = self._refund(rng, key) if self._paid and rng.random() < REFUND_SHARE else self._payment(rng, key)
        self._writer.asked(one)
        return one, True

    def _payment(self, rng: random.Random, key: str) -> Asked:
        shop = rng.choice(self._plan.shops)
        payer, code = rng.randrange(len(self._plan.payers)), ""
        amount_minor = rng.choice(MAGIC_AMOUNTS) if rng.random() < MAGIC_SHARE else rng.randrange(1, 500)
        if rng.random() < CODE_SHARE:
            payer, code = self._code(rng, payer)
        return Asked(key, PAYMENT, amount_minor, self._plan.payers[payer].issuer, shop.id, shop.acquirer, payer, code)

    def _code(self, rng: random.Random, payer: int) -> tuple[int, str]:
        if self._codes and rng.random() < TWICE_SHARE:
            return rng.choice(self._codes)
        found = payer, self._asker.code(payer, self._gateway(rng))
        self._codes.append(found)
        return found

    def _refund(self, rng: random.Random, key: str) -> Asked:
        payment_id, amount_minor = rng.choice(self._paid)
        return Asked(key, REFUND, rng.randrange(1, amount_minor + 1), original=payment_id)

    def _gateway(self, rng: random.Random) -> int:
        return rng.randrange(len(self._plan.targets))

    def _turn(self, one: Asked, rng: random.Random, *, first: bool) -> None:
        """One call, and what follows from its answer."""
        gateway = self._gateway(rng)
        asked_ns = time.monotonic_ns()
        try:
            payment = self._asker.ask(one, gateway)
        except (HutongError, CallError) as error:
            self._writer.refused(one.key, _reason(error))
            if not isinstance(error, HutongError) or is_passing(error):
                self._waiting.append(one)
            if isinstance(error, Unreachable):
                self._stop.wait(UNREACHABLE_PAUSE_S)
            return
        answer = told(one.key, gateway, asked_ns, payment, first=first)
        self._writer.answered(answer)
        if not answer.final:
            if rng.random() < CANCEL_SHARE:
                self._cancel(one, answer, gateway)
            self._waiting.append(one)
            return
        self._done.append(one)
        if one.kind == PAYMENT and answer.state == "SUCCEEDED":
            self._paid.append((answer.payment_id, one.amount_minor))

    def _cancel(self, one: Asked, known: Answer, gateway: int) -> None:
        asked_ns = time.monotonic_ns()
        try:
            payment = self._asker.clients[gateway].cancel_payment(known.payment_id)
        except (HutongError, CallError) as error:
            self._writer.refused(one.key, f"{CANCEL}: {_reason(error)}")
            return
        self._writer.answered(told(one.key, gateway, asked_ns, payment, cancelled=True))


def told(
    key: str, gateway: int, asked_ns: int, payment: pb.Payment, *, first: bool = False, cancelled: bool = False
) -> Answer:
    """An answer, for the record."""
    return Answer(
        key=key,
        gateway=gateway,
        asked_ns=asked_ns,
        told_ns=time.monotonic_ns(),
        payment_id=payment.payment_id,
        state=pb.PaymentState.Name(payment.state).removeprefix("PAYMENT_STATE_"),
        body=b"" if cancelled else payment.SerializeToString(deterministic=True),
        first=first,
    )


def _reason(error: HutongError | CallError) -> str:
    return error.name if isinstance(error, HutongError) else error.code.name


def main() -> None:
    """Pays until standard input ends."""
    plan: Any = Plan.of(sys.stdin.readline())
    load = Load(plan)
    paying = threading.Thread(target=load.run)
    paying.start()
    sys.stdin.read()
    load.stop()
    paying.join()


if __name__ == "__main__":
    main()
