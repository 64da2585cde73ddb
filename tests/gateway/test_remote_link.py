"""Participants over gRPC: who may connect, what happens to nonsense, and that a leg not sent is known not to be."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from hutong.gateway.v1 import payment_pb2 as payments
from hutong.participant.v1 import participant_pb2 as pb
from hutong.participant.v1 import participant_pb2_grpc as rpc
from hutong_client import keys
from hutong_client.client import HutongClient
from hutong_contract.errors import from_rpc_error
from hutong_contract.names import CALLER_METADATA
from sandbox.network import Network, NetworkOptions
from tests.deadlines import CALL_S

pytestmark = pytest.mark.process


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    options = NetworkOptions(data=tmp_path, seed=2, listen="127.0.0.1:0", magic_amounts=False)
    network = Network.start(options)
    # These leave the process: from now on they are whoever connects as them.
    network.gateway._link._local_ids -= {"issuer-a", "acquirer-a"}  # type: ignore[attr-defined]
    yield network
    network.close()


class Participant:
    """A participant written by hand, which answers what a test makes it answer."""

    def __init__(self, network: Network, participant_id: str, secret: str | None = None, caller: str = "") -> None:
        known = network.gateway.router.directory.participants.get(participant_id)
        right = known.secret if known is not None else ""
        self.channel = grpc.insecure_channel(network.target)
        self._out: queue.Queue[pb.ConnectRequest | None] = queue.Queue()
        self.stream = rpc.ParticipantServiceStub(self.channel).Connect(
            iter(self._out.get, None), timeout=CALL_S, metadata=((CALLER_METADATA, caller),) if caller else ()
        )
        self.send(hello=pb.Hello(participant_id=participant_id, secret=right if secret is None else secret))

    def send(self, **frame: object) -> None:
        self._out.put(pb.ConnectRequest(**frame))  # type: ignore[arg-type]

    def receive(self) -> pb.ConnectResponse:
        return next(self.stream)

    def welcome(self) -> None:
        assert self.receive().welcome.window > 0

    def answer(self, leg: pb.Leg, result: pb.AnswerResult.ValueType = pb.ANSWER_RESULT_APPROVED) -> None:
        answer = pb.Answer(leg_id=leg.leg_id, result=result, response_code="00")
        self.send(answers=pb.AnswerFrame(answers=[answer]))

    def refusal(self) -> str:
        with pytest.raises(grpc.RpcError) as caught:
            for _ in self.stream:
                pass
        error = from_rpc_error(caught.value)
        return error.name if error else str(caught.value)

    def close(self) -> None:
        self._out.put(None)
        self.stream.cancel()
        self.channel.close()


def pay(client: HutongClient, network: Network) -> payments.Payment:
    token = network.wallet_tokens["wallet-01"].reveal()
    return client.create_payment(
        payer=keys.token(token), payee=keys.merchant("m1001"), amount_minor=100, currency="CNY"
    )


def test_who_cannot_prove_itself_is_refused(network: Network) -> None:
    for participant_id, secret, reason in [
        ("issuer-a", "wrong", "PARTICIPANT_REFUSED"),
        ("issuer-a", "", "PARTICIPANT_REFUSED"),
        ("nobody", "", "PARTICIPANT_UNKNOWN"),
    ]:
        stranger = Participant(network, participant_id, secret)
        assert stranger.refusal() == reason
        stranger.close()
    # What a caller says of itself proves nothing.
    liar = Participant(network, "issuer-a", "", caller="issuer-a")
    assert liar.refusal() == "PARTICIPANT_REFUSED"
    liar.close()


def test_a_stream_that_does_not_begin_with_hello_is_refused(network: Network) -> None:
    with grpc.insecure_channel(network.target) as channel:
        frames = iter([pb.ConnectRequest(answers=pb.AnswerFrame())])
        with pytest.raises(grpc.RpcError) as caught:
            next(rpc.ParticipantServiceStub(channel).Connect(frames, timeout=CALL_S))
        error = from_rpc_error(caught.value)
        assert error is not None
        assert error.name == "FRAME_INVALID"


def test_an_issuer_that_is_not_connected_is_unavailable_at_once(network: Network) -> None:
    with HutongClient(network.target) as client:
        payment = pay(client, network)
    assert (payment.state, payment.reason) == (payments.PAYMENT_STATE_DECLINED, "unavailable")


def test_a_payment_over_two_streams_with_noise_between(network: Network) -> None:
    """Double answers, answers for unknown payments, empty results and a second hello move nothing."""
    issuer, acquirer = Participant(network, "issuer-a"), Participant(network, "acquirer-a")
    issuer.welcome()
    acquirer.welcome()
    with HutongClient(network.target) as client:
        paid: list[payments.Payment] = []
        caller = threading.Thread(target=lambda: paid.append(pay(client, network)))
        caller.start()
        (debit,) = issuer.receive().legs.legs
        assert debit.kind == pb.LEG_KIND_DEBIT
        issuer.answer(pb.Leg(leg_id=bytes(17)))
        issuer.answer(pb.Leg(leg_id=b"short"))
        issuer.answer(debit, pb.ANSWER_RESULT_UNSPECIFIED)
        acquirer.answer(debit)  # not its leg
        issuer.answer(debit)
        issuer.answer(debit)
        (credit,) = acquirer.receive().legs.legs
        assert (credit.kind, credit.account) == (pb.LEG_KIND_CREDIT, "m1001")
        acquirer.answer(credit)
        caller.join()
        assert paid[0].state == payments.PAYMENT_STATE_SUCCEEDED
        assert network.gateway.engine.counts.anomalies["answer from another participant"] == 1
    issuer.send(hello=pb.Hello(participant_id="issuer-a"))
    assert issuer.refusal() == "FRAME_INVALID"
    issuer.close()
    acquirer.close()


def test_a_second_connection_takes_over(network: Network) -> None:
    first = Participant(network, "issuer-a")
    first.welcome()
    second = Participant(network, "issuer-a")
    second.welcome()
    assert list(first.stream) == []
    assert network.gateway.reachable("issuer-a")
    first.close()
    second.close()


def test_a_response_code_that_is_none_is_not_passed_on(network: Network) -> None:
    issuer = Participant(network, "issuer-a")
    issuer.welcome()
    with HutongClient(network.target) as client:
        paid: list[payments.Payment] = []
        caller = threading.Thread(target=lambda: paid.append(pay(client, network)))
        caller.start()
        (debit,) = issuer.receive().legs.legs
        code = "\x1b[31m" + "no" * 10_000
        refusal = pb.Answer(leg_id=debit.leg_id, result=pb.ANSWER_RESULT_DECLINED, response_code=code)
        issuer.send(answers=pb.AnswerFrame(answers=[refusal]))
        caller.join(CALL_S)
    assert (paid[0].state, paid[0].reason) == (payments.PAYMENT_STATE_DECLINED, "96")
    issuer.close()


def test_a_stream_that_takes_over_takes_what_waits_and_the_account_follows_it(network: Network) -> None:
    """The first stream never answers; what it holds does not weigh on the second one."""
    first = Participant(network, "issuer-a")
    first.welcome()
    with HutongClient(network.target) as client:
        callers = [threading.Thread(target=lambda: pay(client, network), daemon=True) for _ in range(3)]
        for caller in callers:
            caller.start()
        lost: list[pb.Leg] = []
        while len(lost) < len(callers):
            lost.extend(first.receive().legs.legs)
        assert network.gateway.unanswered("issuer-a") == len(lost)
        second = Participant(network, "issuer-a")
        second.welcome()
        assert network.gateway.unanswered("issuer-a") == 0
        first.close()
        for leg in lost:
            second.answer(leg, pb.ANSWER_RESULT_DECLINED)
            second.answer(leg, pb.ANSWER_RESULT_DECLINED)
        for caller in callers:
            caller.join(CALL_S)
            assert not caller.is_alive()
        assert network.gateway.unanswered("issuer-a") == 0
    second.close()
