"""The final check: compares the callers' record with the gateways' answers, the journal and the participants' books."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from uuid import UUID

from gateway.engine.states import State
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_client.errors import CallError
from hutong_client.retries import is_passing
from hutong_contract.errors import HutongError
from verification.torture.load import Asker, told
from verification.torture.record import PAYMENT, Answer, Asked, Record

BATCH: Final = 100
THREADS: Final = 8
ATTEMPTS_MAX: Final = 30
"""Attempts while the answer is a passing refusal."""
PAUSE_S: Final = 0.5
LOSSES_MAX: Final = 100
"""Most losses that are described; all count for the exit status."""

Nets = Mapping[tuple[str, bytes, str], int]
Told = dict[str, Answer | str]
"""Key -> the answer, or the reason of its refusal."""


def ask_again(asker: Asker, asked: Iterable[Asked], rng: random.Random, progress: Callable[[int], None]) -> Told:
    """Sends every request once more, each to any gateway."""
    found: Told = {}
    lock = threading.Lock()

    def run(some: Sequence[Asked], gateway: int) -> None:
        answers = _ask(asker, some, gateway)
        with lock:
            found.update(answers)
            progress(len(found))

    payments = [one for one in asked if one.kind == PAYMENT]
    refunds = [one for one in asked if one.kind != PAYMENT]
    batches = [payments[at : at + BATCH] for at in range(0, len(payments), BATCH)] + [[one] for one in refunds]
    with ThreadPoolExecutor(THREADS) as threads:
        for ended in [threads.submit(run, batch, rng.randrange(len(asker.clients))) for batch in batches]:
            ended.result()
    return found


def _ask(asker: Asker, some: Sequence[Asked], gateway: int) -> Told:
    for attempt in range(ATTEMPTS_MAX):
        asked_ns = time.monotonic_ns()
        try:
            results = _results(asker, some, gateway)
        except (HutongError, CallError) as error:
            results = [error] * len(some)
        if attempt + 1 == ATTEMPTS_MAX or not any(isinstance(one, Exception) and is_passing(one) for one in results):
            break
        time.sleep(PAUSE_S)
    return {
        one.key: str(result) if isinstance(result, Exception) else told(one.key, gateway, asked_ns, result)
        for one, result in zip(some, results, strict=True)
    }


def _results(asker: Asker, some: Sequence[Asked], gateway: int) -> Sequence[pb.Payment | HutongError | CallError]:
    if some[0].kind != PAYMENT:
        return [asker.ask(some[0], gateway)]
    return asker.clients[gateway].batch_create_payments([asker.payment(one) for one in some])


class Losses:
    """Sentences about acknowledged facts that do not hold."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.count = 0

    def add(self, sentence: str) -> None:
        """One more."""
        self.count += 1
        if len(self.sentences) < LOSSES_MAX:
            self.sentences.append(sentence)


def compare_answers(record: Record, again: Told, losses: Losses) -> None:
    """One key, one payment, one final answer, whenever and wherever it was requested."""
    finals: dict[str, Answer] = {}
    payments: dict[str, str] = {}
    for answer in record.answers:
        if payments.setdefault(answer.key, answer.payment_id) != answer.payment_id:
            losses.add(f"{answer.key} was answered with {answer.payment_id} and with {payments[answer.key]}")
        if answer.final:
            first = finals.setdefault(answer.key, answer)
            if first.state != answer.state or (first.body and answer.body and first.body != answer.body):
                losses.add(f"{answer.key} ended {first.state} for one caller, {answer.state} for another")
            if not first.body:
                finals[answer.key] = answer
    for key, payment_id in payments.items():
        now = again[key]
        if isinstance(now, str):
            losses.add(f"{key} was answered with payment {payment_id}, and now: {now}")
            continue
        if now.payment_id != payment_id:
            losses.add(f"{key} was answered with payment {payment_id}, and now with {now.payment_id}")
        first = finals.get(key, now)
        if first.state != now.state or (first.body and first.body != now.body):
            losses.add(f"{key} ended {first.state}, and asked again {now.state}, with another answer than the first")


def compare_journal(record: Record, states: Mapping[bytes, int], losses: Losses) -> None:
    """Every acknowledged payment is in the journal, in the state that its caller was told."""
    for answer in record.answers:
        state = states.get(UUID(answer.payment_id).bytes)
        if state is None:
            losses.add(f"{answer.key}: payment {answer.payment_id} was acknowledged and is not in the journal")
        elif answer.final and State(state).name != answer.state:
            losses.add(f"{answer.key}: payment {answer.payment_id} was {answer.state} and is {State(state).name}")


def compare_books(record: Record, books: Nets, losses: Losses) -> None:
    """What callers were told moved did move, by the participants' own books; and what failed did not."""
    moved: dict[bytes, list[tuple[str, int]]] = {}
    for (participant, payment_id, _), net in books.items():
        moved.setdefault(payment_id, []).append((participant, net))
    for answer in {answer.payment_id: answer for answer in record.answers if answer.final}.values():
        asked = record.asked[answer.key]
        nets = moved.get(UUID(answer.payment_id).bytes, [])
        amounts = sorted(net for _, net in nets)
        expected = [-asked.amount_minor, asked.amount_minor] if answer.state == "SUCCEEDED" else []
        if amounts != expected:
            losses.add(f"{answer.key}: payment {answer.payment_id} {answer.state}, but the books moved {nets}")
        elif asked.kind == PAYMENT and nets and (asked.issuer, -asked.amount_minor) not in nets:
            losses.add(f"{answer.key}: payment {answer.payment_id} was not taken from {asked.issuer}, but {nets}")


def compare_codes(record: Record, again: Told, losses: Losses) -> None:
    """A one-time code paid once."""
    by_code: dict[str, set[str]] = {}
    for answer in [*record.answers, *(one for one in again.values() if isinstance(one, Answer))]:
        code = record.asked[answer.key].code
        if code:
            by_code.setdefault(code, set()).add(answer.payment_id)
    for payments in by_code.values():
        if len(payments) > 1:
            losses.add(f"one code was spent by {len(payments)} payments: {', '.join(sorted(payments))}")
