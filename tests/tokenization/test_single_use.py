"""One code, 100 presentations at once over two processes with one vault and one journal: one is admitted. 200 times."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hutong_contract.payment_code import offline_code
from hutong_contract.secret import Secret
from tests.deadlines import START_S
from tests.tokenization.presenter import PER_TICK, TICKS
from tests.tokenization.world import CHEAP, PASSPHRASE
from tokenization.interface import Account
from tokenization.service import open_service
from tokenization.writing import system_clock_us

pytestmark = pytest.mark.process

ROUNDS = 100


@pytest.mark.parametrize("form", ["online", "offline"])
def test_one_of_a_hundred_presentations_over_two_processes(tmp_path: Path, form: str) -> None:
    """100 rounds with each form of code: 200 in all."""
    service = open_service(tmp_path / "vault", PASSPHRASE, cost=CHEAP)
    made = service.register_accounts([Account("issuer-a", Secret(f"622588{at:06d}")) for at in range(ROUNDS)])
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'proto' / 'gen'}"}
    command = [sys.executable, "-m", "tests.tokenization.presenter", str(tmp_path / "vault"), PASSPHRASE.reveal()]
    gateways = [
        subprocess.Popen(
            [*command, str(tmp_path / "journal.db"), str(engine)], env=environment, cwd=root, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for engine in (1, 2)
    ]  # fmt: skip
    try:
        for gateway in gateways:
            assert gateway.stdout is not None
            assert gateway.stdout.readline() == "ready\n"
        for one in made:
            if form == "online":
                code = service.reserve_code(one.token).code.reveal()
            else:
                day = service.provision(one.token, "phone")
                code = offline_code(day.alias, day.day_key.reveal(), system_clock_us(), day.suite)
            for gateway in gateways:
                assert gateway.stdin is not None
                gateway.stdin.write(code + "\n")
                gateway.stdin.flush()
            counts = []
            for gateway in gateways:
                assert gateway.stdout is not None
                counts.append([int(count) for count in gateway.stdout.readline().split()])
            admitted, spent, other = (sum(column) for column in zip(*counts, strict=True))
            assert (admitted, spent, other) == (1, 2 * TICKS * PER_TICK - 1, 0)
    finally:
        for gateway in gateways:
            gateway.communicate(timeout=START_S)
        service.close()
    assert [gateway.returncode for gateway in gateways] == [0, 0]
