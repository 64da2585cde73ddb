"""An issuer or an acquirer of one's own: dials the gateway, and carries out legs on accounts in a SQLite file.

    export HUTONG_PARTICIPANT_SECRET=...     # as in the gateway's directory.json
    python participant.py --id issuer-a --role issuer --accounts accounts.csv --file issuer-a.db

`accounts.csv` has a line `account,currency,balance in minor units` for each account. An issuer's accounts are tokens
(the token service gives each account number one), an acquirer's are merchant ids. The rules are those of
hutong/participant/v1/participant.proto; `hutong participants conform` checks them on a participant that runs. Needs
`hutong-client` alone. Runs until it is interrupted, and connects again when a stream ends.
"""

from __future__ import annotations

import argparse
import csv
import os
import queue
import random
import socket
import sqlite3
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import grpc

from hutong.participant.v1 import participant_pb2 as pb
from hutong.participant.v1 import participant_pb2_grpc as rpc
from hutong_client import ClientOptions, HutongError, Reason, open_channel
from hutong_client.errors import typed

RECONNECT_S = 0.1
RECONNECT_MAX_S = 5.0
REFUSALS = (Reason.ERROR_REASON_PARTICIPANT_REFUSED, Reason.ERROR_REASON_PARTICIPANT_UNKNOWN)
"""Credentials that will not be better the next time."""
LEG_ID_BYTES = 17
BEGINS = (pb.LEG_KIND_DEBIT, pb.LEG_KIND_CREDIT, pb.LEG_KIND_AUTHORISATION)
"""Kinds that name an account; the others speak of an earlier leg."""
APPROVED = (pb.ANSWER_RESULT_APPROVED, "00")
Verdict = tuple[pb.AnswerResult.ValueType, str]

SCHEMA = """
CREATE TABLE IF NOT EXISTS accounts (
    account TEXT, currency TEXT, balance INTEGER NOT NULL, PRIMARY KEY (account, currency)
) WITHOUT ROWID;
-- What is known of a leg id. `leg` is empty where only its reversal has come: a tombstone.
CREATE TABLE IF NOT EXISTS legs (
    id BLOB PRIMARY KEY, leg BLOB NOT NULL, result INTEGER NOT NULL, code TEXT NOT NULL,
    account TEXT NOT NULL, currency TEXT NOT NULL,
    moved INTEGER NOT NULL DEFAULT 0,     -- what it added to the balance, refunds of it not counted
    held INTEGER NOT NULL DEFAULT 0,      -- what it sets aside
    refunded INTEGER NOT NULL DEFAULT 0,  -- what its refunds gave back
    capture BLOB,                         -- of an authorisation: the leg that captured it
    reversed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
"""


def declined(code: str) -> Verdict:
    """Not done, and never will be under this leg id."""
    return pb.ANSWER_RESULT_DECLINED, code


class Bank:
    """Accounts and legs of one participant. All legs of a frame are one transaction: an answer leaves after it is on
    disk, so that a crash never forgets what was answered."""

    def __init__(self, file: Path, *, issuer: bool, accounts: Iterable[tuple[str, str, int]] = ()) -> None:
        """Opens or makes the file, readable by its owner alone; accounts that it has already stay as they are."""
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        self._sql = sqlite3.connect(file, isolation_level=None)
        self._sql.row_factory = sqlite3.Row
        self._sql.execute("PRAGMA journal_mode=WAL")
        self._sql.execute("PRAGMA synchronous=FULL")
        self._sql.executescript(SCHEMA)
        self._sql.executemany("INSERT OR IGNORE INTO accounts VALUES (?, ?, ?)", accounts)
        self.name = f"{socket.gethostname()}:{file.absolute()}"[-64:]
        """Of this installation: one file on one machine."""
        self._sign = -1 if issuer else 1
        """What a debit or credit does to the balance."""
        self._rules = {pb.LEG_KIND_REVERSAL: self._reverse, pb.LEG_KIND_REFUND: self._refund}
        if issuer:
            self._rules |= {
                pb.LEG_KIND_DEBIT: self._move,
                pb.LEG_KIND_AUTHORISATION: self._authorise,
                pb.LEG_KIND_CAPTURE: self._capture,
            }
        else:
            self._rules[pb.LEG_KIND_CREDIT] = self._move

    def close(self) -> None:
        """Closes the file."""
        self._sql.close()

    def work(self, legs: Iterable[pb.Leg]) -> pb.AnswerFrame:
        """Carries out a frame of legs durably and returns the answers. Raises sqlite3.Error, with nothing done."""
        frame = pb.AnswerFrame()
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            for leg in legs:
                result, code = self._answer(leg)
                frame.answers.add(leg_id=leg.leg_id, result=result, response_code=code)
            self._sql.execute("COMMIT")
        except BaseException:
            self._sql.execute("ROLLBACK")
            raise
        return frame

    def _answer(self, leg: pb.Leg) -> Verdict:
        if len(leg.leg_id) != LEG_ID_BYTES:
            return declined("30")
        if leg.kind == pb.LEG_KIND_INQUIRY:
            return self._inquire(leg)
        known = self._find(leg.leg_id)
        if known is not None and known["leg"]:  # a repeat: the same answer, and no second effect
            return (known["result"], known["code"]) if known["leg"] == _bytes(leg) else declined("94")
        rule = self._rules.get(leg.kind)
        if known is not None:  # its reversal came first
            verdict = declined("05")
        elif rule is None:
            verdict = declined("12")
        elif leg.kind != pb.LEG_KIND_REVERSAL and leg.amount_minor <= 0:
            verdict = declined("13")
        elif leg.kind not in BEGINS and len(leg.original_leg_id) != LEG_ID_BYTES:
            verdict = declined("30")
        else:
            self._put(leg, APPROVED)
            verdict = rule(leg)
        self._put(leg, verdict)
        return verdict

    # -- one rule for each kind of leg; the leg is in the table already, as approved -------------------------

    def _move(self, leg: pb.Leg) -> Verdict:
        """A DEBIT at an issuer, a CREDIT at an acquirer."""
        balance = self._balance(leg.account, leg.currency)
        if balance is None:
            return declined("14")
        if self._sign < 0 and balance < leg.amount_minor:
            return declined("51")
        self._change(leg.leg_id, leg.account, leg.currency, moved=self._sign * leg.amount_minor)
        return APPROVED

    def _authorise(self, leg: pb.Leg) -> Verdict:
        balance = self._balance(leg.account, leg.currency)
        if balance is None:
            return declined("14")
        if balance < leg.amount_minor:
            return declined("51")
        self._change(leg.leg_id, leg.account, leg.currency, held=leg.amount_minor)
        return APPROVED

    def _capture(self, leg: pb.Leg) -> Verdict:
        """Takes what is set aside, or a part of it, and frees the rest; once."""
        hold = self._find(leg.original_leg_id)
        if hold is None or not hold["leg"] or pb.Leg.FromString(hold["leg"]).kind != pb.LEG_KIND_AUTHORISATION:
            return declined("25")
        if hold["result"] != pb.ANSWER_RESULT_APPROVED:
            return declined("25")
        if hold["reversed"] or hold["capture"] is not None:
            return declined("12")
        if leg.currency != hold["currency"] or leg.amount_minor > hold["held"]:
            return declined("13")
        self._sql.execute("UPDATE legs SET capture = ? WHERE id = ?", (leg.leg_id, leg.original_leg_id))
        self._change(leg.original_leg_id, hold["account"], hold["currency"], held=-hold["held"])
        self._change(leg.leg_id, hold["account"], hold["currency"], moved=-leg.amount_minor)
        return APPROVED

    def _refund(self, leg: pb.Leg) -> Verdict:
        """Gives back a part of what a DEBIT, CAPTURE or CREDIT moved, in sum never more than that."""
        original = self._find(leg.original_leg_id)
        if original is None or not original["moved"]:
            return declined("25")
        if pb.Leg.FromString(original["leg"]).kind == pb.LEG_KIND_REFUND:
            return declined("25")
        if original["reversed"]:
            return declined("12")
        if leg.currency != original["currency"] or original["refunded"] + leg.amount_minor > abs(original["moved"]):
            return declined("13")
        self._count_refund(leg.original_leg_id, leg.amount_minor)
        self._change(leg.leg_id, original["account"], original["currency"], moved=-self._sign * leg.amount_minor)
        return APPROVED

    def _reverse(self, leg: pb.Leg) -> Verdict:
        """Undoes what is left of the original, or bars it where it never came."""
        original = self._find(leg.original_leg_id)
        if original is None:
            self._sql.execute(
                "INSERT INTO legs (id, leg, result, code, account, currency, reversed) "
                "VALUES (?, x'', 0, '', '', '', 1)",
                (leg.original_leg_id,),
            )
            return APPROVED
        if original["leg"] and pb.Leg.FromString(original["leg"]).kind == pb.LEG_KIND_REVERSAL:
            return declined("12")  # to undo an undoing would pay again
        self._undo(original)
        return APPROVED

    def _inquire(self, leg: pb.Leg) -> Verdict:
        """What became of the original; changes nothing and is not remembered."""
        original = self._find(leg.original_leg_id)
        if original is None:
            return pb.ANSWER_RESULT_NOT_FOUND, "25"
        if original["reversed"]:
            return pb.ANSWER_RESULT_REVERSED, "00"
        return original["result"], original["code"]

    def _undo(self, original: sqlite3.Row) -> None:
        if original["reversed"]:
            return
        self._sql.execute("UPDATE legs SET reversed = 1 WHERE id = ?", (original["id"],))
        if original["held"]:
            self._change(original["id"], original["account"], original["currency"], held=-original["held"])
        if original["capture"] is not None:
            self._undo(self._found(original["capture"]))
        if original["moved"]:
            back = -original["moved"] + self._sign * original["refunded"]
            self._add(original["account"], original["currency"], back)
            leg = pb.Leg.FromString(original["leg"])
            if leg.kind == pb.LEG_KIND_REFUND:
                self._count_refund(leg.original_leg_id, -leg.amount_minor)

    # -- the tables ------------------------------------------------------------------------------------------

    def _find(self, leg_id: bytes) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._sql.execute("SELECT * FROM legs WHERE id = ?", (leg_id,)).fetchone()
        return row

    def _found(self, leg_id: bytes) -> sqlite3.Row:
        row = self._find(leg_id)
        assert row is not None, "a leg that another one speaks of is kept"
        return row

    def _put(self, leg: pb.Leg, verdict: Verdict) -> None:
        self._sql.execute(
            "INSERT INTO legs (id, leg, result, code, account, currency) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET leg = excluded.leg, result = excluded.result, code = excluded.code",
            (leg.leg_id, _bytes(leg), *verdict, leg.account, leg.currency),
        )

    def _balance(self, account: str, currency: str) -> int | None:
        key = (account, currency)
        row = self._sql.execute("SELECT balance FROM accounts WHERE account = ? AND currency = ?", key).fetchone()
        return None if row is None else int(row[0])

    def _change(self, leg_id: bytes, account: str, currency: str, *, moved: int = 0, held: int = 0) -> None:
        """A leg moves or sets aside an amount on an account."""
        self._sql.execute(
            "UPDATE legs SET account = ?, currency = ?, moved = moved + ?, held = held + ? WHERE id = ?",
            (account, currency, moved, held, leg_id),
        )
        self._add(account, currency, moved - held)

    def _add(self, account: str, currency: str, amount: int) -> None:
        self._sql.execute(
            "UPDATE accounts SET balance = balance + ? WHERE account = ? AND currency = ?", (amount, account, currency)
        )

    def _count_refund(self, leg_id: bytes, amount: int) -> None:
        self._sql.execute("UPDATE legs SET refunded = refunded + ? WHERE id = ?", (amount, leg_id))


def _bytes(leg: pb.Leg) -> bytes:
    return leg.SerializeToString(deterministic=True)


def serve_once(stub: rpc.ParticipantServiceStub, bank: Bank, participant_id: str, secret: str) -> bool:
    """Serves one stream until it ends; whether the gateway welcomed it. Raises HutongError where it refuses to."""
    out: queue.SimpleQueue[pb.ConnectRequest | None] = queue.SimpleQueue()
    # After a cut line a stream of the same installation takes over at once; one of another is refused meanwhile.
    hello = pb.Hello(participant_id=participant_id, secret=secret, installation=bank.name)
    out.put(pb.ConnectRequest(hello=hello))
    welcomed = False
    try:
        for response in stub.Connect(iter(out.get, None)):
            welcomed = True
            if response.HasField("legs"):
                out.put(pb.ConnectRequest(answers=bank.work(response.legs.legs)))
    except grpc.RpcError as failure:
        error = typed(failure)
        print(f"{participant_id}: {error}", file=sys.stderr)
        if isinstance(error, HutongError) and error.reason in REFUSALS:
            raise error from None
    finally:
        out.put(None)
    return welcomed


def read_accounts(file: Path) -> list[tuple[str, str, int]]:
    """Lines of (account, currency, balance in minor units)."""
    with file.open(newline="") as lines:
        return [(account, currency, int(balance)) for account, currency, balance in csv.reader(lines)]


def main() -> int:
    """Reads the arguments and runs until interrupted; returns the exit status."""
    parser = argparse.ArgumentParser(description="An issuer or acquirer on a SQLite file.")
    parser.add_argument("--target", default="127.0.0.1:50050", help="the gateway, HOST:PORT or unix:/PATH")
    parser.add_argument("--id", required=True, help="the participant's id in the gateway's directory")
    parser.add_argument("--role", required=True, choices=("issuer", "acquirer"))
    parser.add_argument("--accounts", required=True, type=Path, help="CSV file of accounts")
    parser.add_argument("--file", required=True, type=Path, help="where balances and legs are kept")
    asked = parser.parse_args()
    secret = os.environ.get("HUTONG_PARTICIPANT_SECRET", "")
    bank = Bank(asked.file, issuer=asked.role == "issuer", accounts=read_accounts(asked.accounts))
    wait_s = RECONNECT_S
    try:
        with open_channel(asked.target, ClientOptions()) as channel:
            stub = rpc.ParticipantServiceStub(channel)
            while True:
                wait_s = RECONNECT_S if serve_once(stub, bank, asked.id, secret) else min(2 * wait_s, RECONNECT_MAX_S)
                time.sleep(random.uniform(wait_s / 2, wait_s))
    except HutongError:
        return 1  # said above
    except KeyboardInterrupt:
        return 0
    finally:
        bank.close()


if __name__ == "__main__":
    sys.exit(main())
