"""Participants as processes behind a small window: legs that are lost for ever give their places back."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from gateway.engine.transitions import Timing
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_client import keys
from hutong_client.client import HutongClient
from hutong_client.wording import state_name
from hutong_contract.names import WALLET_TRID
from sandbox.checking import check_folder
from sandbox.network import Network
from sandbox.options import NetworkOptions, Where
from tests.deadlines import CALL_S, wait_until

pytestmark = [pytest.mark.process, pytest.mark.slow]

WINDOW = 16
MONEY = 12
"""Places of the window that debits may take."""
LOST_MINOR = 9020
"""The issuer never sees a debit of this amount."""
STOPPED_S = 3.0
"""How long callers wait for an issuer that stands still: some leg timeouts and inquiries."""
IMPATIENT = Timing(leg_timeout_us=300_000, inquiry_us=300_000, reversal_us=300_000, reversal_max_us=1_000_000)


def create(client: HutongClient, network: Network, amounts: list[int], deadline_s: float) -> list[pb.Payment]:
    """Payments as they stand when they have ended, or after `deadline_s`."""
    token = network.wallet_tokens["wallet-01"].reveal()
    requests = [
        pb.CreatePaymentRequest(
            idempotency_key=f"{time.monotonic_ns()}",
            payer=keys.token(token, WALLET_TRID),
            payee=keys.merchant("m1002"),
            amount_minor=amount,
            currency="CNY",
        )
        for amount in amounts
    ]
    paid = client.batch_create_payments(requests, deadline_s=deadline_s)
    payments = [one for one in paid if isinstance(one, pb.Payment)]
    assert len(payments) == len(amounts), paid
    return payments


def ask(client: HutongClient, network: Network, amounts: list[int]) -> list[pb.Payment]:
    """Payments as they end."""
    payments = create(client, network, amounts, CALL_S)
    return [client.settled(payment, deadline_s=CALL_S) for payment in payments]


def small(folder: Path) -> NetworkOptions:
    return NetworkOptions(
        data=folder,
        seed=9,
        listen="127.0.0.1:0",
        participants=Where.PROCESSES,
        timing=IMPATIENT,
        participant_window=WINDOW,
    )


def test_debits_lost_beyond_the_window_leave_it_free_and_nothing_is_reversing(tmp_path: Path) -> None:
    with Network.start(small(tmp_path)) as network, HutongClient(network.target) as client:
        for _ in range(4):
            lost = ask(client, network, [LOST_MINOR] * MONEY)
            assert [state_name(payment.state) for payment in lost] == ["FAILED"] * MONEY
        # Everything at once: what does not fit is declined, and nothing of it is left over either.
        storm = ask(client, network, [LOST_MINOR] * 5 * WINDOW)
        assert {(state_name(payment.state), payment.reason) for payment in storm} == {
            ("FAILED", "no answer"),
            ("DECLINED", "unavailable"),
        }
        (ordinary,) = ask(client, network, [100])
        assert state_name(ordinary.state) == "SUCCEEDED"
        wait_until(lambda: network.gateway.engine.in_flight == 0)
        issuer = ordinary.issuer_id
        assert network.gateway.reachable(issuer)
        wait_until(lambda: network.gateway.unanswered(issuer) == 0)
    report = check_folder(tmp_path, "")
    assert report.conserved, report.findings
    assert report.in_flight == 0
    assert "REVERSING" not in report.by_state


def test_an_issuer_that_stands_still_and_goes_on_leaves_nothing_reversing(tmp_path: Path) -> None:
    """Its window fills with what it does not answer; when it goes on, all of that is settled."""
    with Network.start(small(tmp_path)) as network, HutongClient(network.target) as client:
        (ordinary,) = ask(client, network, [100])
        issuer = ordinary.issuer_id
        process = _process_of(network, issuer)
        process.send_signal(signal.SIGSTOP)
        try:
            stuck = create(client, network, [100] * 3 * WINDOW, STOPPED_S)
            assert network.gateway.unanswered(issuer) <= WINDOW
        finally:
            process.send_signal(signal.SIGCONT)
        states = {state_name(client.settled(payment, deadline_s=CALL_S).state) for payment in stuck}
        assert states <= {"SUCCEEDED", "FAILED", "DECLINED"}
        assert states & {"FAILED", "DECLINED"}
        (ordinary,) = ask(client, network, [100])
        assert state_name(ordinary.state) == "SUCCEEDED"
        wait_until(lambda: network.gateway.engine.in_flight == 0)
        wait_until(lambda: network.gateway.unanswered(issuer) == 0)
    report = check_folder(tmp_path, "")
    assert report.conserved, report.findings


def _process_of(network: Network, participant: str) -> subprocess.Popen[bytes]:
    (process,) = [child for child in network._children if participant in [str(word) for word in child.args]]  # type: ignore[union-attr]
    return process
