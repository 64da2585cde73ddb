"""One payment code presented a hundred times at once at two gateways: `hutong token check --presentations`.

Two `hutong up` processes, one with each front, share a journal on PostgreSQL and a vault; each has its own books for
its simulated participants. Half the codes are reserved online, half are computed as an offline device does. At the end
both gateways are stopped, and the journal is compared with itself and with the books of both.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc

from gateway.journal.conservation import compare
from hutong.gateway.v1 import payment_pb2 as pb
from hutong.gateway.v1 import payment_pb2_grpc
from hutong.tokenization.v1 import token_pb2, token_pb2_grpc
from hutong_client import keys
from hutong_client.client import HutongClient, new_idempotency_key
from hutong_client.options import ClientOptions
from hutong_contract.errors import from_rpc_error
from hutong_contract.names import WALLET_TRID as WALLET
from hutong_contract.payment_code import offline_code
from sandbox.journals import check_url, examine_journal
from sandbox.participants.books import FILE_NAME, totals
from sandbox.population import Wallet, populate

FRONTS: Final = ("native", "aio")
"""One gateway with each."""
PRESENTATIONS: Final = 100
"""Presentations of one code at once, half of them at each gateway."""
AMOUNT_MINOR: Final = 100
SEED: Final = 1
WALLETS_PER_ISSUER: Final = 3
START_S: Final = 60.0
"""How long a gateway may take to start."""
STOP_S: Final = 30.0
POLL_S: Final = 0.05
LAST_LINES: Final = 5
"""Of a gateway's log, told where it fails."""
SPENT: Final = "CODE_SPENT"
SUCCEEDED: Final = "SUCCEEDED"
CALL_S: Final = 30.0
"""For one call."""
SHARED_FILES: Final = ("gateway.key", "directory.json")
"""Files that gateways on one journal share, besides the vault."""

Progress = Callable[[str, int, int], None]


class PresentationsError(Exception):
    """The gateways cannot be run; the text says why."""


@dataclass(slots=True)
class Report:
    """The results of all rounds."""

    rounds: int = 0
    presentations: int = 0
    accepted: int = 0
    spent: int = 0
    """Refused with CODE_SPENT."""
    others: dict[str, int] = field(default_factory=dict)
    """Any other outcome and how often; there should be none."""
    wrong_rounds: int = 0
    """Rounds without exactly one accepted and all others refused as spent."""
    accepted_at: list[int] = field(default_factory=lambda: [0] * len(FRONTS))
    """By gateway."""
    payments: int = 0
    """In the journal."""
    succeeded: int = 0
    """Of them."""
    in_flight: int = 0
    findings: list[str] = field(default_factory=list)
    """Of the conservation check."""
    seconds: float = 0.0

    @property
    def proven(self) -> bool:
        """Whether every code paid once, and no money was lost."""
        settled = self.payments == self.succeeded == self.rounds and not self.in_flight and not self.findings
        return self.rounds > 0 and not self.wrong_rounds and settled

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "proven": self.proven}


@dataclass(frozen=True, slots=True)
class Station:
    """A running gateway, seen from outside."""

    process: subprocess.Popen[bytes]
    client: HutongClient

    @property
    def tokens(self) -> token_pb2_grpc.TokenServiceStub:
        """Its token service."""
        return token_pb2_grpc.TokenServiceStub(self.client.channel)

    @property
    def payments(self) -> payment_pb2_grpc.PaymentServiceStub:
        """Its payment service."""
        return payment_pb2_grpc.PaymentServiceStub(self.client.channel)


def run(folder: Path, url: str, rounds: int, progress: Progress) -> Report:
    """Runs the gateways in an empty folder, on an empty PostgreSQL database.

    Raises PresentationsError where they do not run, JournalError where the journal cannot be one that they share.
    """
    check_url(url)
    report = Report()
    folders = [folder / f"gateway-{number}" for number in range(1, len(FRONTS) + 1)]
    began = time.monotonic()
    with _gateways(folders, folder / "vault", url) as stations:
        population = populate(SEED, wallets_per_issuer=WALLETS_PER_ISSUER)
        tokens = _tokens(stations[0], population.wallets)
        merchant = population.merchants[0].id
        for round_ in range(rounds):
            code = _code(stations, tokens[round_ % len(tokens)], round_)
            _count(report, _present(stations, code, merchant))
            progress("presenting one code a hundred times", round_ + 1, rounds)
    report.seconds = round(time.monotonic() - began, 1)
    _settle(report, folders, url)
    return report


@contextmanager
def _gateways(folders: Sequence[Path], vault: Path, url: str) -> Iterator[list[Station]]:
    """Both gateways; the second gets what the first one made and they must share."""
    with ExitStack() as stack:
        stations: list[Station] = []
        for data, front in zip(folders, FRONTS, strict=True):
            data.mkdir(parents=True)
            if stations:
                for name in SHARED_FILES:
                    shutil.copy2(folders[0] / name, data / name)
            stations.append(stack.enter_context(_gateway(data, vault, url, front)))
        yield stations


@contextmanager
def _gateway(data: Path, vault: Path, url: str, front: str) -> Iterator[Station]:
    """`hutong up` as a process of its own, stopped by SIGTERM. Raises PresentationsError where it fails."""
    command = [
        *(sys.executable, "-m", "command.main", "up", "--data", str(data), "--vault", str(vault)),
        *("--front", front, "--listen", "127.0.0.1:0", "--seed", str(SEED), "--no-magic"),
        *("--wallets", str(WALLETS_PER_ISSUER)),
    ]
    environment = {**os.environ, "HUTONG_JOURNAL": url, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    log = data / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)  # noqa: S603 - our own module
    try:
        target = target_of(data, process)
        if target is None:
            raise PresentationsError(f"a gateway did not start: {_last_words(log)}")
        with HutongClient(target, ClientOptions(deadline_s=CALL_S)) as client:
            yield Station(process, client)
        process.send_signal(signal.SIGTERM)
        if process.wait(STOP_S):
            raise PresentationsError(f"a gateway did not end well: {_last_words(log)}")
    except subprocess.TimeoutExpired:
        raise PresentationsError(f"a gateway did not end within {STOP_S:.0f} s of SIGTERM") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def target_of(data: Path, process: subprocess.Popen[bytes]) -> str | None:
    """The address that a starting gateway writes down once it listens; None where it ended or takes too long."""
    path = data / "network.json"
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        if path.exists() and (text := path.read_text()).endswith("\n"):
            return str(json.loads(text)["target"])
        time.sleep(POLL_S)
    return None


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return " ".join(line.strip() for line in lines[-LAST_LINES:] if line.strip()) or "it said nothing"


def _tokens(station: Station, wallets: Sequence[Wallet]) -> list[str]:
    """The tokens of these wallets, asked for as a wallet asks."""

    def token(wallet: Wallet) -> str:
        asked = token_pb2.RequestTokenRequest(
            requestor_id=WALLET, issuer_id=wallet.issuer_id, account_number=wallet.account.reveal()
        )
        return str(station.client.call(station.tokens.RequestToken, asked).token)

    return [token(wallet) for wallet in wallets]


def _code(stations: Sequence[Station], token: str, round_: int) -> str:
    """A fresh code: from each gateway in turn, and of each form in turn."""
    station = stations[round_ // 2 % len(stations)]
    name = token_pb2.TokenName(token=token)
    if round_ % 2 == 0:
        reserve = token_pb2.ReserveCodeRequest(requestor_id=WALLET, name=name)
        return str(station.client.call(station.tokens.ReserveCode, reserve).code)
    # A device of its own for each round: one device has one offline code in half a minute.
    provision = token_pb2.ProvisionCodesRequest(requestor_id=WALLET, name=name, device_id=f"phone-{round_}")
    day = station.client.call(station.tokens.ProvisionCodes, provision)
    return offline_code(day.alias, day.day_key, time.time_ns() // 1_000, day.suite)


def _present(stations: Sequence[Station], code: str, merchant: str) -> list[list[str]]:
    """Each gateway's outcomes; all presentations are under way before any answer is looked at."""
    calls: list[list[grpc.Future[pb.CreatePaymentResponse]]] = [[] for _ in stations]
    stubs = [station.payments for station in stations]
    for number in range(PRESENTATIONS):
        at = number % len(stations)
        request = pb.CreatePaymentRequest(
            idempotency_key=new_idempotency_key(),
            payer=keys.payment_code(code),
            payee=keys.merchant(merchant),
            amount_minor=AMOUNT_MINOR,
            currency="CNY",
        )
        calls[at].append(stubs[at].CreatePayment.future(request, timeout=CALL_S))
    return [[_outcome(call) for call in there] for there in calls]


def _outcome(call: Any) -> str:
    """The payment's state or the refusal's reason, in one word."""
    try:
        state = call.result().payment.state
    except grpc.RpcError as failure:
        refusal = from_rpc_error(failure)
        return failure.code().name if refusal is None else refusal.name
    return pb.PaymentState.Name(state).removeprefix("PAYMENT_STATE_")


def _count(report: Report, outcomes: Sequence[Sequence[str]]) -> None:
    """Adds one round."""
    counts = Counter(outcome for there in outcomes for outcome in there)
    report.rounds += 1
    report.presentations += counts.total()
    report.accepted += counts[SUCCEEDED]
    report.spent += counts[SPENT]
    report.wrong_rounds += counts != {SUCCEEDED: 1, SPENT: PRESENTATIONS - 1}
    for at, there in enumerate(outcomes):
        report.accepted_at[at] += there.count(SUCCEEDED)
    for outcome, count in counts.items():
        if outcome not in (SUCCEEDED, SPENT):
            report.others[outcome] = report.others.get(outcome, 0) + count


def _settle(report: Report, folders: Sequence[Path], url: str) -> None:
    """The conservation check over the journal and both gateways' books: a payment is in the books of one of them."""
    found = examine_journal(folders[0], url)
    books: Counter[tuple[str, bytes, str]] = Counter()
    for folder in folders:
        for path in sorted((folder / "participants").rglob(FILE_NAME)):
            books.update(totals(path))
    compare(found, dict(books))
    report.payments, report.succeeded = found.payments, found.by_state.get(SUCCEEDED, 0)
    report.in_flight, report.findings = found.in_flight, list(found.findings)
