"""Proves: the face service on Milvus (milvus-lite) gives the answers of the local gallery, through enrolment,
replacement, erasure, restart and renewal; what Milvus missed or kept is made up for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facepay.decision import Outcome
from facepay.gallery.engine import GalleryUnavailable
from facepay.gallery.opening import Milvus
from facepay.model import Asked, Options
from facepay.service import open_service
from hutong_contract.capture import TerminalKey
from hutong_contract.errors import HutongError
from hutong_contract.secret import Secret
from sandbox.faces.people import People
from tests.facepay.conftest import CHEAP, NOW, Desk

pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def opened(folder: Path, options: Options) -> Desk:
    service = open_service(folder, options=options)
    key = TerminalKey.from_seed(b"t" * 32)
    service.register_terminal("t1", "m1", key.algorithm, key.public_key)
    return Desk(service, People(11), key, folder)


@pytest.fixture
def on_milvus(tmp_path: Path) -> Options:
    return Options(passcode_cost=CHEAP.passcode_cost, gallery=Milvus(str(tmp_path / "milvus.db")), upkeep_every_s=0)


@pytest.fixture
def elsewhere(tmp_path: Path, on_milvus: Options) -> Iterator[Desk]:
    """A service on Milvus."""
    made = opened(tmp_path / "elsewhere", on_milvus)
    yield made
    made.service.close()


def answer(desk: Desk, person: int, **where: Any) -> tuple[Outcome, str, float]:
    found = desk.service.identify(Asked(desk.capture(person, quality=0.9, seed=person + 1), **where), desk.now_us)
    return found.decision.outcome, found.subject.name if found.subject else "", round(found.decision.score, 2)


def same(one: Desk, two: Desk, persons: range, **where: Any) -> None:
    for person in persons:
        (first, who, score), (second, other, its) = answer(one, person, **where), answer(two, person, **where)
        assert (first, who) == (second, other)
        if first is Outcome.MATCHED:
            assert score == pytest.approx(its, abs=0.011)


@pytest.mark.slow
def test_answers_are_those_of_the_local_gallery(elsewhere: Desk, desk: Desk, on_milvus: Options) -> None:
    one, two = elsewhere, desk
    for desk in (one, two):
        for person in range(4):
            desk.enroll(person, region=person % 2 + 1, merchants=["m7"] if person < 2 else [])
    same(one, two, range(5))
    same(one, two, range(2), region=2)
    same(one, two, range(1, 3), merchant_id="m7")
    with pytest.raises(HutongError, match="FACE_ALREADY_ENROLLED"):
        one.enroll(3, name="somebody else")
    for desk in (one, two):
        desk.service.delete("person 1", desk.now_us)
        desk.enroll(2, vectors=list(desk.people.enrolled(2, 1, 1)), replace=True)
    same(one, two, range(1, 3))
    assert answer(one, 1)[0] is Outcome.NO_MATCH
    assert one.service.verify("person 2", one.capture(2), one.now_us).outcome is Outcome.MATCHED
    one.reopen(on_milvus)
    same(one, two, range(1, 3))
    assert len(one.service._gallery) == 3  # type: ignore[arg-type]
    one.service.renew()
    assert one.service.status().epoch == 2
    same(one, two, range(1, 3))
    assert len(one.service._gallery._client.list_collections()) == 1  # type: ignore[attr-defined]


def test_what_milvus_missed_is_made_up_for(
    elsewhere: Desk, on_milvus: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = elsewhere
    desk.enroll(1)
    gallery: Any = desk.service._gallery

    def down(*_: Any, **__: Any) -> Any:
        raise GalleryUnavailable("the network is cut")

    with monkeypatch.context() as cut:
        for name in ("add", "remove"):
            cut.setattr(gallery, name, down)
        for change in (lambda: desk.enroll(2), lambda: desk.service.delete("person 1", NOW)):
            with pytest.raises(HutongError, match="FACE_UNAVAILABLE"):
                change()
    assert answer(desk, 1)[0] is Outcome.MATCHED, "who was not erased is still there"
    desk.service.maintain(desk.now_us)
    assert answer(desk, 2)[0] is Outcome.MATCHED, "who is on disk is found once Milvus is back"
    with monkeypatch.context() as cut:
        cut.setattr(gallery, "_hits", down)
        with pytest.raises(HutongError, match="FACE_UNAVAILABLE"):
            answer(desk, 1)
    reference = desk.enroll(2, passcode=Secret("271828"), replace=True)
    desk.service._store.delete(1, NOW)  # A crash between the store and the gallery.
    desk.service._gallery.remove(desk.service._store.templates.of(2))
    desk.reopen(on_milvus)
    assert answer(desk, 1)[0] is Outcome.NO_MATCH
    found = desk.identify(2)
    assert found.subject is not None
    assert found.subject.reference == reference


def test_two_services_on_one_milvus_keep_apart(elsewhere: Desk, tmp_path: Path, on_milvus: Options) -> None:
    first = elsewhere
    first.enroll(1)
    second = opened(tmp_path / "two", on_milvus)
    second.enroll(2)
    assert answer(first, 2)[0] is Outcome.NO_MATCH
    assert answer(second, 1)[0] is Outcome.NO_MATCH
    second.service.renew()
    assert answer(first, 1)[0] is Outcome.MATCHED
    vectors, persons = first.service._gallery.sample(10, np.random.default_rng(1))
    assert (vectors.shape, persons.tolist()) == ((1, 512), [1])
    second.service.close()
