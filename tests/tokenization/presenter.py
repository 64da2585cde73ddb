"""A gateway process, reduced to what decides about a code: the token service on a shared vault, and a shared journal.

Reads one code for each line of standard input, presents it in several ticks at once with payments of their own, and
prints how many were admitted, how many found the code spent, and how many were refused otherwise.
"""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

from gateway.engine.model import Kind, Leg, LegKind, Payment, Writes
from gateway.journal.sqlite import SqliteJournal
from hutong_contract.errors import HutongError, Reason
from hutong_contract.secret import Secret
from tokenization.interface import KeyUse, PayerKeyKind, Resolution
from tokenization.service import TokenService, open_service
from tokenization.writing import new_ref, system_clock_us

TICKS = 5
PER_TICK = 10


def payment(resolution: Resolution, now_us: int) -> Payment:
    return Payment(
        payment_id=new_ref(now_us, lambda count: uuid.uuid4().bytes[:count]),
        kind=Kind.PAYMENT,
        amount_minor=100,
        currency="CNY",
        debtor=resolution.issuer_id,
        creditors=("acquirer-a",),
        created_us=now_us,
        deadline_us=now_us + 30_000_000,
        idempotency=uuid.uuid4().bytes,
        account=resolution.token,
        account_ref=resolution.token_ref,
        key_ref=resolution.key_ref,
        spends=resolution.spends,
        spend_reason=resolution.spend_reason,
        legs=[Leg(1, LegKind.DEBIT, resolution.issuer_id, 100)],
    )


def present(service: TokenService, journal: SqliteJournal, code: str) -> tuple[int, int, int]:
    """Admitted, found spent, refused otherwise."""
    now_us = system_clock_us()
    one = KeyUse(
        PayerKeyKind.PAYMENT_CODE, Secret(code), 100, "CNY", "merchant-1", "t1", channel="qr_consumer_presented"
    )
    admitted = spent = other = 0
    for _ in range(TICKS):
        answers = service.resolve([one] * PER_TICK, now_us)
        found = [answer for answer in answers if not isinstance(answer, HutongError)]
        other += PER_TICK - len(found)
        for verdict in journal.commit(Writes(admissions=[payment(answer, now_us) for answer in found])):
            if verdict is None:
                admitted += 1
            elif verdict.reason == Reason.ERROR_REASON_CODE_SPENT:
                spent += 1
            else:
                other += 1
    return admitted, spent, other


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(vault: str, passphrase: str, journal_path: str, engine: str) -> None:
    service = open_service(Path(vault), Secret(passphrase))
    journal = SqliteJournal(journal_path, int(engine))
    _say("ready")
    for line in sys.stdin:
        _say(" ".join(map(str, present(service, journal, line.strip()))))
    service.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
