"""What was acknowledged and is not so is found: another answer, another payment, a state, money that never moved."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from gateway.engine.states import State
from verification.torture.record import PAYMENT, Answer, Asked, Record, Writer
from verification.torture.verify import (
    Losses,
    Nets,
    Told,
    compare_answers,
    compare_books,
    compare_codes,
    compare_journal,
)

ID = "01a200c6-dc82-7000-8e1a-f3f5912bac75"
OTHER = "01a200c6-dc82-7000-8e1a-f3f5912bac76"
RAW = UUID(ID).bytes
ASKED = Asked("key", PAYMENT, 300, "issuer-a", "m1001", "acquirer-a", code="6612345678901234567")


def answer(payment_id: str = ID, state: str = "SUCCEEDED", body: bytes = b"body", key: str = "key") -> Answer:
    return Answer(key, 0, 1, 2, payment_id, state, body)


def record(tmp_path: Path, *answers: Answer) -> Record:
    """As the load writes it and the run reads it."""
    writer = Writer(tmp_path / "record")
    writer.asked(ASKED)
    writer.asked(Asked("second", PAYMENT, 300, "issuer-a", "m1001", "acquirer-a", code=ASKED.code))
    writer.refused("key", "UNAVAILABLE")
    for one in answers:
        writer.answered(one)
    found = Record(tmp_path / "record")
    assert found.read() == list(answers)
    assert found.read() == []
    assert found.asked["key"] == ASKED
    return found


def test_what_was_written_is_read_in_pieces(tmp_path: Path) -> None:
    found = record(tmp_path, answer())
    with (tmp_path / "record").open("ab") as file:
        file.write(b'{"refused": ["key",')
        file.flush()
        assert found.read() == []
        file.write(b' "DRAINING"]}\n')
    assert found.read() == []
    assert found.refusals == {"UNAVAILABLE": 1, "DRAINING": 1}


@pytest.mark.parametrize(
    ("told", "again", "losses"),
    [
        ([answer()], answer(), 0),
        ([answer(state="CREDITING", body=b"early"), answer()], answer(), 0),
        ([answer(body=b"")], answer(), 0),
        ([answer()], answer(body=b"another"), 1),
        ([answer()], answer(state="FAILED"), 1),
        ([answer()], answer(payment_id=OTHER), 1),
        ([answer()], "JOURNAL_UNAVAILABLE", 1),
        ([answer(), answer(body=b"another")], answer(), 1),
        ([answer(state="CREDITING"), answer(payment_id=OTHER)], answer(payment_id=OTHER), 2),
    ],
)
def test_answers(tmp_path: Path, told: list[Answer], again: Answer | str, losses: int) -> None:
    found = Losses()
    now: Told = {"key": again}
    compare_answers(record(tmp_path, *told), now, found)
    assert found.count == losses, found.sentences


@pytest.mark.parametrize(
    ("states", "losses"), [({RAW: State.SUCCEEDED}, 0), ({RAW: State.FAILED}, 1), ({RAW: State.CREDITING}, 1), ({}, 1)]
)
def test_journal(tmp_path: Path, states: dict[bytes, int], losses: int) -> None:
    found = Losses()
    compare_journal(record(tmp_path, answer()), states, found)
    assert found.count == losses, found.sentences


TAKEN = {("issuer-a", RAW, "CNY"): -300}
GIVEN = {("acquirer-b", RAW, "CNY"): 300}


@pytest.mark.parametrize(
    ("state", "books", "losses"),
    [
        ("SUCCEEDED", {**TAKEN, **GIVEN}, 0),
        ("SUCCEEDED", {("issuer-b", RAW, "CNY"): -300, **GIVEN}, 1),
        ("SUCCEEDED", TAKEN, 1),
        ("SUCCEEDED", {}, 1),
        ("SUCCEEDED", {**TAKEN, **GIVEN, ("acquirer-a", RAW, "CNY"): 300}, 1),
        ("FAILED", {}, 0),
        ("FAILED", TAKEN, 1),
    ],
)
def test_books(tmp_path: Path, state: str, books: Nets, losses: int) -> None:
    found = Losses()
    compare_books(record(tmp_path, answer(state=state)), books, found)
    assert found.count == losses, found.sentences


def test_a_code_that_paid_twice(tmp_path: Path) -> None:
    found = Losses()
    kept = record(tmp_path, answer())
    compare_codes(kept, {"key": answer(), "second": "CODE_SPENT"}, found)
    assert found.count == 0
    compare_codes(kept, {"key": answer(), "second": answer(OTHER, key="second")}, found)
    assert found.count == 1
    assert (ASKED.code not in found.sentences[0], ASKED.code not in repr(ASKED)) == (True, True)
