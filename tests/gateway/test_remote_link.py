"""Participants over gRPC: who may connect, what happens to nonsense, and that a leg not sent is known not to be."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from gateway.links import remote
from hutong.gateway.v1 import payment_pb2 as payments
from hutong.participant.v1 import participant_pb2 as pb
from hutong.participant.v1 import participant_pb2_grpc as rpc
from hutong_client import keys
from hutong_client.client import HutongClient
from hutong_contract.errors import from_rpc_error
from hutong_contract.limits import FRAME_ANSWERS_MAX
from hutong_contract.names import CALLER_METADATA
from sandbox.network import Network
from sandbox.options import NetworkOptions
from tests.deadlines import CALL_S, wait_until

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

    def __init__(
        self, network: Network, participant_id: str, secret: str | None = None, caller: str = "", installation: str = ""
    ) -> None:
        known = network.gateway.router.directory.participants.get(participant_id)
        right = known.secret if known is not None else ""
        self.channel = grpc.insecure_channel(network.target)
        self._out: queue.Queue[pb.ConnectRequest | None] = queue.Queue()
        self.stream = rpc.ParticipantServiceStub(self.channel).Connect(
            iter(self._out.get, None), timeout=CALL_S, metadata=((CALLER_METADATA, caller),) if caller else ()
        )
        shown = right if secret is None else secret
        self.send(hello=pb.Hello(participant_id=participant_id, secret=shown, installation=installation))

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


def test_a_second_installation_is_refused_while_the_first_lives(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether it names another one or none; and it is reported. When the first has left, it gets in."""
    first = Participant(network, "issuer-a", installation="one")
    first.welcome()
    for installation in ("another", ""):
        second = Participant(network, "issuer-a", installation=installation)
        assert second.refusal() == "PARTICIPANT_CONNECTED"
        second.close()
    assert "refused as participant issuer-a: another installation" in caplog.text
    with HutongClient(network.target) as client:
        paid: list[payments.Payment] = []
        caller = threading.Thread(target=lambda: paid.append(pay(client, network)))
        caller.start()
        (debit,) = first.receive().legs.legs
        first.answer(debit, pb.ANSWER_RESULT_DECLINED)
        caller.join(CALL_S)
        assert paid[0].state == payments.PAYMENT_STATE_DECLINED
    first.close()
    wait_until(lambda: not network.gateway.reachable("issuer-a"))
    second = Participant(network, "issuer-a", installation="another")
    second.welcome()
    second.close()


def test_an_installation_that_has_no_name_does_not_take_over_from_another_without(network: Network) -> None:
    first = Participant(network, "issuer-a")
    first.welcome()
    second = Participant(network, "issuer-a")
    assert second.refusal() == "PARTICIPANT_CONNECTED"
    named = Participant(network, "issuer-a", installation="x" * 65)
    assert named.refusal() == "FIELD_INVALID"
    for one in (first, second, named):
        one.close()


def test_wrong_secrets_are_slowed_and_reported_and_lock_nobody_out(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    begun = time.monotonic()
    guesses = [Participant(network, "issuer-a", f"a wrong secret, number {number}") for number in range(50)]
    right = Participant(network, "issuer-a")
    right.welcome()
    assert [one.refusal() for one in guesses] == ["PARTICIPANT_REFUSED"] * len(guesses)
    assert time.monotonic() - begun >= remote.WRONG_S
    said = [one for one in caplog.messages if "wrong credentials" in one]
    assert 1 <= len(said) < len(guesses)
    for one in (right, *guesses):
        one.close()


def test_more_answers_than_a_frame_may_have_end_the_stream(network: Network) -> None:
    issuer = Participant(network, "issuer-a")
    issuer.welcome()
    issuer.send(answers=pb.AnswerFrame(answers=[pb.Answer(leg_id=bytes(17))] * (FRAME_ANSWERS_MAX + 1)))
    assert issuer.refusal() == "FRAME_INVALID"
    issuer.close()


def test_answers_that_nobody_asked_for_are_paced() -> None:
    pace = remote.Pace(per_s=100, at_once=50)
    assert pace.take(50, 1000.0) == 0
    assert pace.take(10, 1000.0) == pytest.approx(0.1)
    assert pace.take(0, 1000.1) == pytest.approx(0)
    assert pace.take(50, 2000.0) == 0, "a pause gives back what may come at once, and no more"
    assert pace.take(1, 2000.0) == pytest.approx(0.01)


def test_a_flood_of_answers_leaves_the_payments_of_others_alone(network: Network) -> None:
    """400,000 answers to legs that never were."""
    issuer, flooder = Participant(network, "issuer-a"), Participant(network, "acquirer-a")
    issuer.welcome()
    flooder.welcome()
    frame = pb.AnswerFrame(
        answers=[pb.Answer(leg_id=bytes([number]) * 17, response_code="00") for number in range(200)]
    )
    for _ in range(2000):
        flooder.send(answers=frame)
    anomalies = network.gateway.engine.counts.anomalies
    wait_until(lambda: sum(anomalies.values()) > 0)
    most = network.options.participant_window
    with HutongClient(network.target) as client:
        caller = threading.Thread(target=lambda: pay(client, network), daemon=True)
        caller.start()
        (debit,) = issuer.receive().legs.legs
        issuer.answer(debit, pb.ANSWER_RESULT_DECLINED)
        caller.join(CALL_S)
        assert not caller.is_alive()
        assert sum(anomalies.values()) < most + remote.UNASKED_PER_S * CALL_S, "they are read as slowly as is said"
        assert len(network.gateway.engine.inbox) < 2 * most
    issuer.close()
    flooder.close()


def test_a_connection_of_the_same_installation_takes_over(network: Network) -> None:
    first = Participant(network, "issuer-a", installation="one")
    first.welcome()
    second = Participant(network, "issuer-a", installation="one")
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
    first = Participant(network, "issuer-a", installation="one")
    first.welcome()
    with HutongClient(network.target) as client:
        callers = [threading.Thread(target=lambda: pay(client, network), daemon=True) for _ in range(3)]
        for caller in callers:
            caller.start()
        lost: list[pb.Leg] = []
        while len(lost) < len(callers):
            lost.extend(first.receive().legs.legs)
        assert network.gateway.unanswered("issuer-a") == len(lost)
        second = Participant(network, "issuer-a", installation="one")
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
