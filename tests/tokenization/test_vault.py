"""The vault's writer: shared commits, refusals that stay alone, a disk that fails, memory that never lags behind."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from hutong_contract.errors import HutongError, Reason
from tests.deadlines import CALL_S
from tests.tokenization.world import World, use
from tokenization import vault as vault_module
from tokenization.interface import PayerKeyKind
from tokenization.lifecycle import Event
from tokenization.store import Session, StoreError


def commits(world: World) -> int:
    with world.service._vault.store.looking() as session:
        return int(session.rows("SELECT value FROM meta WHERE name = 'requestors'")[0][0])


def test_jobs_that_wait_share_a_commit_and_one_refusal_stays_alone(world: World) -> None:
    vault = world.service._vault
    assert world.service.rotation.wait(CALL_S), "it looks once at start whether something is left to do"
    began, go = threading.Event(), threading.Event()
    transactions: list[int] = []
    whole = vault.store.writing

    @contextlib.contextmanager
    def counted() -> Iterator[Session]:
        transactions.append(1)
        with whole() as session:
            yield session

    vault.store.writing = counted  # type: ignore[method-assign]

    def block(_: Session) -> None:
        began.set()
        assert go.wait(CALL_S)

    def add(session: Session) -> int:
        session.run("UPDATE meta SET value = value + 1 WHERE name = 'requestors'")
        return int(session.rows("SELECT value FROM meta WHERE name = 'requestors'")[0][0])

    def add_and_refuse(session: Session) -> int:
        add(session)
        raise HutongError(Reason.ERROR_REASON_FIELD_INVALID)

    before = commits(world)
    first = vault.submit(block)
    assert began.wait(CALL_S)
    jobs: list[Future[int]] = [vault.submit(add_and_refuse if number == 5 else add) for number in range(20)]
    go.set()
    first.result(10)
    results = [job.exception(10) or job.result() for job in jobs]
    assert isinstance(results[5], HutongError)
    assert [one for one in results if isinstance(one, int)] == [before + at for at in range(1, 20)]
    assert len(transactions) == 2
    assert commits(world) == before + 19


class Failing:
    """Stands where a transaction would begin, and fails there."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self) -> Failing:
        return self

    def __enter__(self) -> None:
        raise self.error

    def __exit__(self, *_: object) -> None:
        return None


def test_a_disk_that_fails_refuses_writes_and_nothing_else(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    token = world.token()
    code = world.service.reserve_code(token).code
    store = world.service._vault.store
    with monkeypatch.context() as broken:
        broken.setattr(store, "writing", Failing(StoreError("disk full")))
        with pytest.raises(HutongError) as refusal:
            world.service.change_state(token, Event.SUSPEND)
        assert refusal.value.reason == Reason.ERROR_REASON_VAULT_UNAVAILABLE
        world.resolved(use(PayerKeyKind.PAYMENT_CODE, code))
        broken.setattr(store, "writing", Failing(RuntimeError("a defect")))
        with pytest.raises(HutongError):
            world.service.reserve_code(token)
    world.service.change_state(token, Event.SUSPEND)
    assert isinstance(world.resolve(use(PayerKeyKind.PAYMENT_CODE, code)), HutongError)


def test_a_database_that_cannot_be_read_refuses_everything_and_is_caught_up_with(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = world.token()
    world.resolved(use(PayerKeyKind.TOKEN, token))
    other = world.open()
    try:
        other.change_state(token, Event.SUSPEND)
    finally:
        other.close()
    with monkeypatch.context() as broken:
        broken.setattr(world.service._vault.store, "reading", Failing(StoreError("input/output error")))
        for _ in range(2):
            assert world.refused(use(PayerKeyKind.TOKEN, token)).reason == Reason.ERROR_REASON_VAULT_UNAVAILABLE
    assert world.refused(use(PayerKeyKind.TOKEN, token)).reason == Reason.ERROR_REASON_TOKEN_NOT_ACTIVE


def test_a_row_changed_under_a_running_service_is_not_believed(world: World) -> None:
    token = world.token()
    with contextlib.closing(sqlite3.connect(world.folder / "vault.db")) as database, database:
        database.execute("UPDATE keys SET account = 1")
        database.execute(
            "INSERT INTO events SELECT 1 + COALESCE(MAX(id), 0), 1, 0, 0, 'resumed', '', '', x'00' FROM events"
        )
    assert world.refused(use(PayerKeyKind.TOKEN, token)).reason == Reason.ERROR_REASON_VAULT_UNAVAILABLE


def test_the_queue_is_bounded(world: World) -> None:
    vault = world.service._vault
    assert world.service.rotation.wait(CALL_S)
    go, began = threading.Event(), threading.Event()

    def block(_: Session) -> None:
        began.set()
        assert go.wait(CALL_S)

    vault.submit(block)
    assert began.wait(CALL_S)
    waiting = [vault.submit(lambda _: None) for _ in range(vault_module.JOBS_MAX)]
    with pytest.raises(HutongError) as refusal:
        vault.submit(lambda _: None)
    assert refusal.value.reason == Reason.ERROR_REASON_VAULT_UNAVAILABLE
    go.set()
    assert all(one.result(30) is None for one in waiting)


def test_a_closed_service_refuses(world: World) -> None:
    token = world.token()
    world.service.close()
    with pytest.raises(HutongError):
        world.service.reserve_code(token)
    world.service = world.open()
