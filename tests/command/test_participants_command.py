"""`hutong participants` for a gateway that starts none: it waits for them, pays through them, refuses without them."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from command.main import main
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_client import keys
from hutong_client.client import HutongClient
from hutong_contract.errors import HutongError, Reason
from sandbox.checking import check_folder
from sandbox.network import Network
from sandbox.options import NetworkOptions, Where
from tests.deadlines import START_S, wait_until

pytestmark = pytest.mark.process


def pay(network: Network) -> pb.Payment:
    with HutongClient(network.target) as client:
        return client.create_payment(
            payer=keys.token(network.wallet_tokens["wallet-01"].reveal()),
            payee=keys.merchant("m1001"),
            amount_minor=100,
            currency="CNY",
        )


def turned_away(network: Network) -> bool:
    """Whether routing knows that nobody is there; before, a debit finds it out, and takes nothing."""
    try:
        assert pay(network).state == pb.PAYMENT_STATE_DECLINED
    except HutongError as error:
        return error.reason == Reason.ERROR_REASON_ACQUIRER_UNAVAILABLE
    return False


def test_they_connect_to_where_the_folder_says(tmp_path: Path) -> None:
    options = NetworkOptions(data=tmp_path, listen="127.0.0.1:0", participants=Where.CONNECT)
    command = [sys.executable, "-m", "command.main", "participants", "--data", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with ThreadPoolExecutor(1) as thread:
        starting = thread.submit(Network.start, options)
        wait_until((tmp_path / "network.json").exists, START_S)
        with (
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as participants,
            starting.result(START_S) as network,
        ):
            assert network.participants == {}
            assert pay(network).state == pb.PAYMENT_STATE_SUCCEEDED
            participants.terminate()
            said, _ = participants.communicate(timeout=START_S)
            assert (participants.returncode, "9 participants connect to" in said) == (0, True)
            wait_until(lambda: turned_away(network), START_S)
    report = check_folder(tmp_path)
    assert report.findings == []
    assert report.by_state.pop("SUCCEEDED") == 1
    assert report.by_state.keys() <= {"DECLINED"}


def test_without_a_gateway_it_says_what_to_name(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["participants", "--data", str(tmp_path)])
    assert result.exit_code == 2
    assert "--target" in result.output
