"""What callers do to a gateway, as calls to send and answers to judge: the same for every generator. Pure.

An operation begins with a call. When its answer comes, `Call.end` judges it and may name the next call: a wallet asks
for a code before a terminal charges it, a hold is captured, a payment is refunded. Requests are prepared once as bytes
and get a new idempotency key each time, which costs 2 µs; messages built anew would cost 20.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hutong.gateway.v1 import payment_pb2 as pb
from hutong.tokenization.v1 import token_pb2
from hutong_client import keys
from loadtest.h2 import Reply
from loadtest.payments import CREATE_PATH, GET_PATH

CAPTURE_PATH: Final = "/hutong.gateway.v1.PaymentService/CapturePayment"
REFUND_PATH: Final = "/hutong.gateway.v1.PaymentService/RefundPayment"
RESERVE_PATH: Final = "/hutong.tokenization.v1.TokenService/ReserveCode"
AMOUNTS: Final = 900
"""Different amounts that are paid: 1.00 to 9.99."""
REMEMBERED_MAX: Final = 256
"""Payments of one generator that pollers ask about and that are repeated."""
RESET: Final = "CONNECTION_RESET"
"""The outcome of a call whose stream was reset."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended."""

    good: bool
    what: str
    """The payment's state, or the reason of the refusal (hutong.status.v1.ErrorReason, without its prefix)."""
    follow: Call | None = None
    """What its caller does next."""


@dataclass(frozen=True, slots=True)
class Call:
    """One unary call."""

    name: str
    """The line of a report that it is counted in."""
    path: str
    message: bytes
    end: Callable[[Reply], Outcome]


@dataclass(frozen=True, slots=True)
class Supply:
    """Whom and what a load may use, fetched from a running network before the clock starts (loadtest.supplies)."""

    tokens: Sequence[str]
    requestor_id: str
    merchants: Sequence[tuple[str, str]]
    """Merchant and terminal."""
    codes: Sequence[str]
    """Texts of merchants' static codes, each in its own scheme."""
    currency: str = "CNY"


class Operations:
    """Begins operations of one generator. Not for several threads."""

    def __init__(self, supply: Supply, prefix: str) -> None:
        """`prefix` of the idempotency keys: no two generators at one gateway may have the same.

        Raises:
            ValueError: a supply without tokens or merchants, or a prefix over 40 characters.
        """
        if not (supply.tokens and supply.merchants):
            raise ValueError("a load needs tokens and merchants")
        if not 0 < len(prefix) <= 40 or not prefix.isascii():
            raise ValueError("a prefix has 1 to 40 ASCII characters")
        self._supply = supply
        self._prefix = prefix.encode()
        self._made = 0
        self._tokens = itertools.cycle(supply.tokens)
        self._merchants = itertools.cycle(supply.merchants)
        self._known: list[str] = []
        """Ids of payments that succeeded, the newest last."""
        self._sent: list[bytes] = []
        """Requests that succeeded, as they were sent."""
        shops = list(zip(supply.tokens, itertools.cycle(supply.merchants), strict=False))
        self._by_token = _cycle(
            self._body(keys.token(token, supply.requestor_id), keys.merchant(*shop), index)
            for index, (token, shop) in enumerate(shops)
        )
        self._hot = _cycle(
            self._body(keys.token(token, supply.requestor_id), keys.merchant(*supply.merchants[0]), index)
            for index, token in enumerate(supply.tokens)
        )
        self._by_code = _cycle(
            self._body(keys.token(token, supply.requestor_id), keys.barcode(code), index)
            for index, (token, code) in enumerate(zip(itertools.cycle(supply.tokens), supply.codes, strict=False))
        )
        self._holds = _cycle(
            self._body(keys.token(token, supply.requestor_id), keys.merchant(*shop), index, hold=True)
            for index, (token, shop) in enumerate(shops)
        )

    def _body(self, payer: pb.RoutingKey, payee: pb.RoutingKey, index: int, *, hold: bool = False) -> bytes:
        return pb.CreatePaymentRequest(
            payer=payer,
            payee=payee,
            amount_minor=100 + index % AMOUNTS,
            currency=self._supply.currency,
            hold=pb.Hold() if hold else None,
        ).SerializeToString()

    def _keyed(self, body: bytes) -> bytes:
        """A request with a new key: field 1, then the rest as prepared."""
        self._made += 1
        key = self._prefix + b"-%012d" % self._made
        return b"\x0a" + bytes([len(key)]) + key + body

    # -- operations ----------------------------------------------------------------------------------------------

    def token(self) -> Call:
        """A payment by token to a merchant's terminal."""
        return self._pay("pay by token", next(self._by_token))

    def hot(self) -> Call:
        """A payment by token to one merchant, always the same."""
        return self._pay("pay the hot merchant", next(self._hot))

    def scan(self) -> Call:
        """A wallet that scanned a merchant's static code and pays with its token."""
        return self._pay("pay a scanned merchant code", next(self._by_code))

    def code(self) -> Call:
        """A wallet shows a one-time code, whose digits a terminal charges: two calls."""
        return self._reserve("pay by payment code", keys.payment_code)

    def barcode(self) -> Call:
        """The same, where the terminal sends the text of the QR or Code 128 symbol that it read: two calls."""
        return self._reserve("pay by scanned code", keys.barcode)

    def hold(self) -> Call:
        """A pre-authorisation, then its capture: two calls."""

        def held(reply: Reply) -> Outcome:
            payment, outcome = _judge(reply, pb.PAYMENT_STATE_HELD)
            if not outcome.good:
                return outcome
            message = pb.CapturePaymentRequest(payment_id=payment.payment_id).SerializeToString()
            return Outcome(True, outcome.what, Call("capture", CAPTURE_PATH, message, self._succeeded))

        return Call("hold", CREATE_PATH, self._keyed(next(self._holds)), held)

    def refund(self) -> Call:
        """A payment by token, then its refund in full: two calls."""

        def paid(reply: Reply) -> Outcome:
            payment, outcome = _judge(reply, pb.PAYMENT_STATE_SUCCEEDED)
            if not outcome.good:
                return outcome
            body = pb.RefundPaymentRequest(payment_id=payment.payment_id).SerializeToString()
            return Outcome(True, outcome.what, Call("refund", REFUND_PATH, self._keyed(body), self._succeeded))

        return Call("pay, to refund", CREATE_PATH, self._keyed(next(self._by_token)), paid)

    def repeat(self) -> Call:
        """An earlier request sent again with its key: the same payment answers. A payment where there is none yet."""
        if not self._sent:
            return self.token()
        return Call("repeat", CREATE_PATH, self._sent[self._made % len(self._sent)], self._succeeded)

    def poll(self) -> Call:
        """A status query about an earlier payment. A payment where there is none yet."""
        if not self._known:
            return self.token()
        ask = pb.GetPaymentRequest(payment_id=self._known[self._made % len(self._known)])
        self._made += 1
        return Call("GetPayment", GET_PATH, ask.SerializeToString(), _answered)

    # -- parts ---------------------------------------------------------------------------------------------------

    def _pay(self, name: str, body: bytes) -> Call:
        message = self._keyed(body)

        def paid(reply: Reply) -> Outcome:
            payment, outcome = _judge(reply, pb.PAYMENT_STATE_SUCCEEDED)
            if outcome.good:
                self._remember(payment.payment_id, message)
            return outcome

        return Call(name, CREATE_PATH, message, paid)

    def _remember(self, payment_id: str, message: bytes) -> None:
        if len(self._known) < REMEMBERED_MAX:
            self._known.append(payment_id)
            self._sent.append(message)
        else:
            at = self._made % REMEMBERED_MAX
            self._known[at], self._sent[at] = payment_id, message

    def _reserve(self, name: str, key: Callable[[str], pb.RoutingKey]) -> Call:
        def reserved(reply: Reply) -> Outcome:
            if reply.status:
                return _refused(reply)
            code = token_pb2.ReserveCodeResponse.FromString(reply.body).code
            body = self._body(key(code), keys.merchant(*next(self._merchants)), self._made)
            return Outcome(True, "OK", self._pay(name, body))

        asked = token_pb2.ReserveCodeRequest(
            requestor_id=self._supply.requestor_id, name=token_pb2.TokenName(token=next(self._tokens))
        )
        return Call("ReserveCode", RESERVE_PATH, asked.SerializeToString(), reserved)

    def _succeeded(self, reply: Reply) -> Outcome:
        return _judge(reply, pb.PAYMENT_STATE_SUCCEEDED)[1]


OPERATIONS: Final[Mapping[str, Callable[[Operations], Call]]] = {
    "token": Operations.token,
    "scan": Operations.scan,
    "code": Operations.code,
    "barcode": Operations.barcode,
    "hold": Operations.hold,
    "refund": Operations.refund,
    "repeat": Operations.repeat,
    "poll": Operations.poll,
    "hot": Operations.hot,
}
"""Every operation by the name that a mix gives it."""


class Mix:
    """Which operation is next: each in exact proportion to its weight, spread as evenly as weights allow.

    Smooth weighted round robin: over any run as long as the sum of the weights each comes as often as its weight says.
    """

    def __init__(self, weights: Mapping[str, int]) -> None:
        """
        Raises:
            ValueError: an operation that there is not, or weights that are no whole numbers above 0.
        """
        if unknown := sorted(set(weights) - set(OPERATIONS)):
            raise ValueError(f"no operation {', '.join(unknown)}; there are {', '.join(OPERATIONS)}")
        if not weights or any(not isinstance(weight, int) or weight < 1 for weight in weights.values()):
            raise ValueError("a mix has one or more operations, with whole numbers above 0 as weights")
        self._weights = dict(weights)
        self._total = sum(weights.values())
        self._credit = dict.fromkeys(weights, 0)

    @property
    def names(self) -> tuple[str, ...]:
        """The operations that it has."""
        return tuple(self._weights)

    def next(self) -> str:
        """The name of the next operation."""
        credit = self._credit
        for name, weight in self._weights.items():
            credit[name] += weight
        chosen = max(credit, key=credit.__getitem__)
        credit[chosen] -= self._total
        return chosen


class Flow:
    """Operations of a mix, one after the other, for one generator."""

    def __init__(self, operations: Operations, mix: Mix) -> None:
        self._operations = operations
        self._next = mix.next
        if len(mix.names) == 1:
            (only,) = mix.names
            self._next = lambda: only

    def begin(self) -> Call:
        """The first call of the next operation."""
        return OPERATIONS[self._next()](self._operations)


def _cycle(bodies: Iterator[bytes]) -> Iterator[bytes]:
    return itertools.cycle(list(bodies))


def _refused(reply: Reply) -> Outcome:
    return Outcome(False, reply.reason or (RESET if reply.status < 0 else f"STATUS_{reply.status}"))


def _answered(reply: Reply) -> Outcome:
    return Outcome(True, "OK") if reply.status == 0 else _refused(reply)


_PREFIX: Final = "PAYMENT_STATE_"
_STATES: Final = {number: name.removeprefix(_PREFIX) for name, number in pb.PaymentState.items()}


def _judge(reply: Reply, wanted: int) -> tuple[pb.Payment, Outcome]:
    """The payment that answers, and whether it is in the state that was wanted. Every answer of a call that makes or
    moves a payment has the payment in field 1."""
    if reply.status:
        return pb.Payment(), _refused(reply)
    payment = pb.CreatePaymentResponse.FromString(reply.body).payment
    return payment, Outcome(payment.state == wanted, _STATES.get(payment.state, str(payment.state)))
