"""Payments that the intake gives to a worker, as those paid by face: they come back to the engine, or are refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from facepay.interface import FaceMatch, FaceUse
from hutong_contract.errors import HutongError, Reason
from hutong_contract.secret import Secret
from tests.deadlines import CALL_S
from tests.gateway.risk.gate import Call, Gate


class Faces:
    """Knows everybody, once it is let go on."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.go_on = threading.Event()
        self.answered: BaseException | None = None

    def resolve(self, uses: Sequence[FaceUse], now_us: int) -> list[FaceMatch | HutongError]:
        self.asked.set()
        assert self.go_on.wait(CALL_S)
        return [FaceMatch(Secret("1"), "11", bytes([at]) * 16) for at in range(len(uses))]


class Here:
    """A gateway with workers."""

    def __init__(self, folder: Path) -> None:
        self.faces = Faces()
        self.workers = ThreadPoolExecutor(1)
        self.woken = threading.Event()
        self.gate = Gate(folder, "", faces=self.faces, workers=self.workers, wake=self.woken.set)

    def ask(self) -> Call:
        """A payment by face arrives, and a worker begins with it."""
        request = self.gate.request()
        request.payer.face.sealed = b"sealed"
        call = self.gate.submit(Call(0, request.SerializeToString(), "shop"))
        self.gate.engine.tick()
        assert self.faces.asked.wait(CALL_S)
        assert not call.told
        return call

    def finish(self) -> None:
        """The worker ends."""
        self.woken.clear()
        self.faces.go_on.set()
        assert self.woken.wait(CALL_S)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    made = Here(tmp_path)
    yield made
    made.faces.go_on.set()
    made.workers.shutdown()
    made.gate.journal.close()


def test_a_payment_that_comes_back_is_made(here: Here) -> None:
    call = here.ask()
    here.finish()
    here.gate.run()
    assert call.outcome == "SUCCEEDED"


def test_a_suspension_meanwhile_is_felt(here: Here) -> None:
    """Keys are resolved in the tick that commits: also those of payments that waited for a worker, or for the tick."""
    by_face = here.ask()
    by_code = here.gate.ask()
    here.gate.keys.refusal = HutongError(Reason.ERROR_REASON_TOKEN_NOT_ACTIVE)
    here.finish()
    here.gate.run()
    assert [by_face.outcome, by_code.outcome] == ["TOKEN_NOT_ACTIVE"] * 2


def test_what_comes_back_after_the_engine_has_ended_is_refused(here: Here) -> None:
    call = here.ask()
    here.gate.engine.end()
    here.finish()
    assert call.outcome == "DRAINING", "nobody else would answer"


def test_what_came_back_before_the_engine_ends_is_refused(here: Here) -> None:
    call = here.ask()
    here.finish()
    here.gate.engine.end()
    assert call.outcome == "DRAINING"


def test_what_comes_back_while_the_clock_is_wrong_is_refused(here: Here) -> None:
    call = here.ask()
    here.finish()
    here.gate.clock.wrong = "an hour ahead"
    here.gate.engine.tick()
    assert call.outcome == "CLOCK_WRONG"


def test_a_defect_while_it_is_looked_at_leaves_nobody_without_an_answer(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A face's payment, a call, and an event of the same tick."""
    waits = here.ask()
    here.finish()
    also = here.gate.ask()

    def defect(*_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(here.gate.judge, "begin", defect)
    engine = here.gate.engine
    with pytest.raises(RuntimeError, match="planted"):
        engine._run()
    assert [waits.outcome, also.outcome] == ["INTERNAL"] * 2


def test_a_defect_after_it_was_looked_at_too(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = here.ask()
    here.finish()
    also = here.gate.ask()

    def defect(*_: object, **__: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(here.gate.core, "step", defect)
    with pytest.raises(RuntimeError, match="planted"):
        here.gate.engine._run()
    assert [waits.outcome, also.outcome] == ["INTERNAL"] * 2
    assert waits.error.reason == Reason.ERROR_REASON_INTERNAL
