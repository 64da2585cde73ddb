"""The last fault on PostgreSQL: the database is set back to a backup, after payments that the backup does not have.

A gateway that acknowledged one of them must notice, end with the reason, and not start again before an operator accepts
it.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from hutong.gateway.v1 import payment_pb2 as pb
from hutong_client import keys
from hutong_client.client import HutongClient
from hutong_client.errors import CallError
from hutong_contract.errors import HutongError
from hutong_contract.names import WALLET_TRID as WALLET
from verification.torture.load import CURRENCY, Payer, Shop
from verification.torture.processes import START_S, GatewayProcess, PostgresProcess, TortureError
from verification.torture.stage import Stage

WENT_BACK: Final = "has lost commits"
"""What a gateway says of such a database."""
NOTICED_S: Final = 30.0
POLL_S: Final = 0.1
PAY_S: Final = 20.0
AMOUNT_MINOR: Final = 100


def put_back(stage: Stage, payers: Sequence[Payer], shops: Sequence[Shop], kept: Path) -> list[str]:
    """Plays the fault; `kept`: where the backup is while it is needed. Returns the findings. Raises TortureError."""
    postgres = stage.postgres
    if postgres is None:
        return []
    _restart(stage, postgres, lambda: _copy(postgres.folder, kept))
    paid = [gateway for gateway in stage.gateways if _pays(gateway, payers, shops)]
    if not paid:
        raise TortureError("no payment succeeded after the backup was made")

    def restore() -> None:
        shutil.rmtree(postgres.folder)
        _copy(kept, postgres.folder)

    postgres.kill()
    restore()
    postgres.start()
    _wait(postgres.answers, "PostgreSQL did not start on the backup")
    findings = [f"{one.name} goes on on a database that went back" for one in paid if not _ends(one)]
    for gateway in paid:
        gateway.kill()
        gateway.start()
        if not _ends(gateway):
            findings.append(f"{gateway.name} starts on a database that went back")
            gateway.kill()
    for gateway in paid:
        gateway.accepts_loss = True
        gateway.start()
        _wait(gateway.listens, f"{gateway.name} does not start although the loss was accepted")
        gateway.accepts_loss = False
    shutil.rmtree(kept)
    return findings


def _restart(stage: Stage, postgres: PostgresProcess, meanwhile: Callable[[], None]) -> None:
    """kill -9 of the server, and all works again."""
    stage.trouble()
    postgres.kill()
    meanwhile()
    postgres.start()
    _wait(postgres.answers, "PostgreSQL did not start")
    for gateway in stage.gateways:
        if not gateway.pid:
            gateway.start()
    _wait(lambda: all(one.listens() for one in stage.gateways), "a gateway did not start")


def _copy(source: Path, target: Path) -> None:
    """With its owners: the server is another user's."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)  # noqa: S603, S607


def _pays(gateway: GatewayProcess, payers: Sequence[Payer], shops: Sequence[Shop]) -> bool:
    """Whether a payment succeeded at this gateway."""
    until_s = time.monotonic() + NOTICED_S
    while time.monotonic() < until_s:
        with HutongClient(gateway.target) as client:
            for payer in payers:
                try:
                    payment = client.create_payment(
                        payer=keys.token(payer.token, WALLET),
                        payee=keys.merchant(shops[0].id),
                        amount_minor=AMOUNT_MINOR,
                        currency=CURRENCY,
                        deadline_s=PAY_S,
                    )
                except (HutongError, CallError):
                    continue
                if payment.state == pb.PAYMENT_STATE_SUCCEEDED:
                    return True
        time.sleep(POLL_S)
    return False


def _ends(gateway: GatewayProcess) -> bool:
    """Whether it ends in time, and says why."""
    until_s = time.monotonic() + max(NOTICED_S, START_S)
    while gateway.pid and time.monotonic() < until_s:
        time.sleep(POLL_S)
    return not gateway.pid and WENT_BACK in gateway.last_words()


def _wait(ready: Callable[[], bool], failure: str) -> None:
    until_s = time.monotonic() + START_S
    while not ready():
        if time.monotonic() > until_s:
            raise TortureError(failure)
        time.sleep(POLL_S)
