"""Proves that books are durable, append-only in effect, private, and that a full disk costs nothing but the batch."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hutong.participant.v1 import participant_pb2 as pb
from sandbox.participants.books import Books, BooksError, Entry, totals
from sandbox.participants.ledger import Ledger, Role

TOKEN = "6212345678901234567"
ROOT = Path(__file__).parents[3]

WRITER = """
import sys
from pathlib import Path
from sandbox.participants.books import Books
from sandbox.participants.simulated import SimulatedIssuer
from hutong.participant.v1 import participant_pb2 as pb

issuer = SimulatedIssuer("issuer-a", Books(Path(sys.argv[1])), magic_amounts=False)
issuer.ledger.open_accounts([("6212345678901234567", "CNY", 10**9)])
number = 0
while True:
    legs = [
        pb.Leg(leg_id=(number + i).to_bytes(16, "big") + bytes([1]), kind=pb.LEG_KIND_DEBIT, amount_minor=7,
               currency="CNY", account="6212345678901234567")
        for i in range(5)
    ]
    ((_, answers),) = issuer.handle(legs, number)
    assert all(answer.result == pb.ANSWER_RESULT_APPROVED for answer in answers)
    number += 5
    print(number, flush=True)
"""


def entry(number: int, effect: int, participant: str = "issuer-a") -> Entry:
    leg_id = number.to_bytes(16, "big") + b"\1"
    return Entry(leg_id, participant, 1, None, "ref", "CNY", "", abs(effect), effect, 0, 1, "00", number)


def test_kill_9_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'proto/gen'}"}
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        answered = 0
        while answered < 100:
            answered = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        answered = max([answered, *map(int, process.stdout.read().split("\n")[:-1])])
    books = Books(tmp_path)
    ledger = Ledger("issuer-a", Role.ISSUER, books)
    balance = ledger.balance_minor(TOKEN, "CNY")
    net = totals(books.path)
    assert balance is not None
    assert balance == 10**9 + sum(net.values())
    assert len(net) >= answered
    assert len(net) % 5 == 0, "a batch is whole or absent"
    for number in (0, answered - 1):
        inquiry = pb.Leg(
            leg_id=number.to_bytes(16, "big") + b"\x81",
            kind=pb.LEG_KIND_INQUIRY,
            original_leg_id=number.to_bytes(16, "big") + b"\1",
        )
        assert ledger.apply(inquiry, 0) == (pb.ANSWER_RESULT_APPROVED, "00")
    books.close()


def test_no_token_and_no_guessable_hash_is_stored(tmp_path: Path) -> None:
    books = Books(tmp_path / "books")
    other = Books(tmp_path / "other")
    reference = books.reference(TOKEN)
    assert reference.startswith(TOKEN[-4:] + ".")
    assert reference != other.reference(TOKEN), "the hash depends on a key of the folder"
    ledger = Ledger("issuer-a", Role.ISSUER, books)
    ledger.open_accounts([(TOKEN, "CNY", 100)])
    leg = pb.Leg(leg_id=bytes(17), kind=pb.LEG_KIND_DEBIT, amount_minor=1, currency="CNY", account=TOKEN)
    ledger.apply(leg, 0)
    books.commit()
    books.close()
    other.close()
    for file in (tmp_path / "books").iterdir():
        assert TOKEN.encode() not in file.read_bytes()
    again = Books(tmp_path / "books")
    assert again.reference(TOKEN) == reference
    again.close()
    assert stat.S_IMODE((tmp_path / "books" / "books.key").stat().st_mode) == 0o600


def test_an_account_that_is_open_stays_as_it_is(tmp_path: Path) -> None:
    books = Books(tmp_path)
    books.open_accounts("issuer-a", iter([("ref", "CNY", 100)]))
    books.open_accounts("issuer-a", iter([("ref", "CNY", 999), ("new", "CNY", 5)]))
    assert books.balances("issuer-a") == {("ref", "CNY"): 100, ("new", "CNY"): 5}
    books.close()


def test_totals_are_net_for_each_participant_and_payment_and_leave_out_zeros(tmp_path: Path) -> None:
    books = Books(tmp_path)
    reversal = entry(2, 60)._replace(leg_id=(2).to_bytes(16, "big") + b"\2", kind=3)
    for line in (entry(1, -100), entry(1, 100, "acquirer-a"), entry(2, -60), reversal, entry(3, 0)):
        books.append(line)
    books.commit()
    one = (1).to_bytes(16, "big")
    assert totals(books.path) == {("issuer-a", one, "CNY"): -100, ("acquirer-a", one, "CNY"): 100}
    books.close()


def test_a_failed_commit_says_so_and_writes_nothing(tmp_path: Path) -> None:
    books = Books(tmp_path)
    books.append(entry(1, -5))
    books.commit()
    books.append(entry(2, -5))
    books.append(entry(1, -5))
    with pytest.raises(BooksError, match="cannot be written"):
        books.commit()
    assert len(books.take_pending()) == 2
    books.append(entry(3, -5))
    books.commit()
    assert len(totals(books.path)) == 2
    books.close()


def test_a_full_disk_is_a_books_error(tmp_path: Path) -> None:
    books = Books(tmp_path)
    ledger = Ledger("issuer-a", Role.ISSUER, books)
    ledger.open_accounts([(TOKEN, "CNY", 10**9)])
    pages = books._database.execute("PRAGMA page_count").fetchone()[0]
    books._database.execute(f"PRAGMA max_page_count={pages + 1}")
    for number in range(1_000):
        books.append(entry(number, -5))
    with pytest.raises(BooksError, match="full"):
        books.commit()
    assert len(books.take_pending()) == 1_000
    books._database.execute("PRAGMA max_page_count=1000000")
    books.append(entry(5_000, -5))
    books.commit()
    books.close()


@pytest.mark.parametrize("name", ["books.db", "books.key"])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    Books(tmp_path).close()
    (tmp_path / name).write_bytes(b"not what it was" * 1_000)
    with pytest.raises(BooksError):
        Books(tmp_path)


def test_entries_cannot_repeat_a_leg(tmp_path: Path) -> None:
    books = Books(tmp_path)
    with sqlite3.connect(books.path) as database:
        database.execute("INSERT INTO entries VALUES (x'01','a',1,NULL,'r','CNY','',1,1,0,1,'00',1)")
        with pytest.raises(sqlite3.IntegrityError):
            database.execute("INSERT INTO entries VALUES (x'01','a',1,NULL,'r','CNY','',2,2,0,1,'00',1)")
    database.close()
    books.close()
