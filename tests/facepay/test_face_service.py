"""Proves: who is enrolled is found and nobody else; payments need their factors; the deleted are gone."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facepay.decision import Outcome
from facepay.enrolment import How
from facepay.interface import FaceMatch, FaceUse
from facepay.model import Asked, Options
from facepay.passcode import ATTEMPTS_MAX, LOCK_US
from facepay.records import Consent
from hutong_contract.errors import HutongError
from hutong_contract.secret import Secret


def pay(desk: Any, person: int, amount: int, **more: Any) -> FaceMatch | HutongError:
    use = FaceUse(desk.capture(person, **more), amount, "CNY", "m1", "t1")
    answer: FaceMatch | HutongError = desk.service.resolve([use], desk.now_us)[0]
    return answer


def name_of(answer: FaceMatch | HutongError) -> str:
    assert isinstance(answer, HutongError), "expected a refusal"
    return answer.name


@pytest.mark.slow
def test_the_enrolled_are_found_and_strangers_are_not(desk: Any) -> None:
    references = {one: desk.enroll(one) for one in range(5)}
    for person in range(5):
        answer = desk.identify(person)
        assert answer.decision.outcome is Outcome.MATCHED
        assert answer.subject.reference == references[person]
    assert desk.identify(77).decision.outcome is Outcome.NO_MATCH
    assert len({one.reveal() for one in references.values()}) == 5


def test_empty_gallery_finds_nobody(desk: Any) -> None:
    assert desk.identify(0).decision.outcome is Outcome.NO_MATCH


@pytest.mark.slow
def test_a_gallery_is_made_with_the_first_face(desk: Any) -> None:
    folder = desk.service._folder / "gallery"
    assert desk.service.renew() == 2
    assert not folder.exists()
    desk.enroll(1)
    assert desk.identify(1).decision.outcome is Outcome.MATCHED
    assert desk.service.status().epoch == 2
    assert desk.service.renew() == 3
    assert desk.identify(1).decision.outcome is Outcome.MATCHED


@pytest.mark.slow
def test_small_amounts_need_no_passcode_larger_ones_do(desk: Any) -> None:
    reference = desk.enroll(1)
    small = pay(desk, 1, 5_000)
    assert isinstance(small, FaceMatch)
    assert (small.reference, small.assurance_method) == (reference, "11")
    assert name_of(pay(desk, 1, 5_001)) == "FACE_NEEDS_PASSCODE"
    large = pay(desk, 1, 5_001, passcode=desk.passcode(1))
    assert isinstance(large, FaceMatch)
    assert large.assurance_method == "12"
    assert name_of(pay(desk, 99, 100)) == "FACE_NO_MATCH"


def test_wrong_passcodes_lock_and_the_lock_ends(desk: Any) -> None:
    desk.enroll(1)
    refusals = [name_of(pay(desk, 1, 9_000, passcode=Secret("000001"))) for _ in range(ATTEMPTS_MAX)]
    assert refusals == ["PASSCODE_WRONG"] * (ATTEMPTS_MAX - 1) + ["PASSCODE_LOCKED"]
    assert name_of(pay(desk, 1, 9_000, passcode=desk.passcode(1))) == "PASSCODE_LOCKED"
    desk.reopen()
    assert name_of(pay(desk, 1, 9_000, passcode=desk.passcode(1))) == "PASSCODE_LOCKED", "a restart must not unlock"
    desk.now_us += LOCK_US
    assert isinstance(pay(desk, 1, 9_000, passcode=desk.passcode(1)), FaceMatch)


def test_many_wrong_passcodes_at_once_cannot_outrun_the_limit(desk: Any) -> None:
    desk.enroll(1)
    sealed = [desk.capture(1, passcode=Secret(f"{number:06d}")) for number in range(20)]
    answers: list[str] = []

    def attempt(one: bytes) -> None:
        use = FaceUse(one, 9_000, "CNY", "m1", "t1")
        answers.append(name_of(desk.service.resolve([use], desk.now_us)[0]))

    threads = [threading.Thread(target=attempt, args=(one,)) for one in sealed]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers.count("PASSCODE_WRONG") == ATTEMPTS_MAX - 1
    assert answers.count("PASSCODE_LOCKED") == 20 - (ATTEMPTS_MAX - 1)


@pytest.mark.slow
def test_twins_are_ambiguous_and_last_four_digits_settle_it(desk: Any) -> None:
    desk.enroll(998)
    with pytest.raises(HutongError, match="FACE_ALREADY_ENROLLED"):
        desk.enroll(999)
    reference = desk.enroll(999, allow_lookalike=True)
    twin = desk.people.enrolled(998, 1)[0] + desk.people.enrolled(999, 1)[0]
    assert desk.identify(999, embedding=twin).decision.outcome is Outcome.AMBIGUOUS
    answer = desk.identify(999, last_four=Secret("0999"))
    assert answer.decision.outcome is Outcome.MATCHED
    assert answer.subject.reference == reference


@pytest.mark.slow
def test_same_face_under_another_name_is_reported(desk: Any) -> None:
    desk.enroll(4)
    with pytest.raises(HutongError, match="FACE_ALREADY_ENROLLED"):
        desk.enroll(4, name="somebody else")
    assert desk.service.status().persons == 1


def test_replacing_takes_the_name_and_leaves_nothing_of_who_had_it(desk: Any) -> None:
    reference = desk.enroll(4, merchants=["m7"])
    again = desk.enroll(
        5, name="person 4", replace=True, consent=Consent("payment by face", "2027-01", desk.now_us), merchants=["m8"]
    )
    assert again != reference, "the account that person 4 paid from is not person 5's"
    assert desk.identify(4).decision.outcome is Outcome.NO_MATCH
    found = desk.identify(5).subject
    assert (found.name, found.reference, found.consent.text_version) == ("person 4", again, "2027-01")
    assert desk.service.identify(Asked(desk.capture(5), merchant_id="m7"), desk.now_us).subject is None
    assert desk.service.identify(Asked(desk.capture(5), merchant_id="m8"), desk.now_us).subject is not None
    assert desk.service.status().persons == 1
    keys = sqlite3.connect(desk.folder / "keys" / "keys.db")
    assert keys.execute("SELECT person FROM subject_key").fetchall() == [(2,)]
    keys.close()
    desk.reopen()
    assert desk.identify(4).decision.outcome is Outcome.NO_MATCH
    assert desk.identify(5).subject.reference == again


def test_replacing_keeps_the_reference_only_where_that_is_said(desk: Any) -> None:
    reference = desk.enroll(4)
    better = {"vectors": list(desk.people.enrolled(4, 1, 1)) * 2, "passcode": Secret("271828")}
    assert desk.enroll(4, replace=True, keep_reference=True, **better) == reference
    status = desk.service.status()
    assert (status.persons, status.templates) == (1, 2)
    assert isinstance(pay(desk, 4, 9_000, passcode=Secret("271828")), FaceMatch)
    assert desk.enroll(4, replace=True, keep_reference=True, **better) == reference, "repeated"
    assert desk.service.status().templates == 2
    with pytest.raises(HutongError) as caught:
        desk.enroll(4, keep_reference=True, **better)
    assert caught.value.fields == {"field": "keep_reference"}


OTHER: dict[str, dict[str, Any]] = {
    "face": {"vectors": [np.eye(512, dtype=np.float32)[0]]},
    "templates": {"vectors": 2},
    "passcode": {"passcode": Secret("271828")},
    "region": {"region": 3},
    "merchants": {"merchants": ["m7"]},
    "consent": {"consent": Consent("payment by face", "2027-01", 1)},
    "consent's end": {"consent": Consent("payment by face", "2026-11", 1, 1 << 60)},
}


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER)
def test_a_name_that_is_taken_is_refused_and_nothing_changes(desk: Any, change: dict[str, Any]) -> None:
    reference = desk.enroll(4)
    change = dict(change)
    if change.get("vectors") == 2:
        change["vectors"] = list(desk.people.enrolled(4, 1)) * 2
    with pytest.raises(HutongError, match="FACE_NAME_TAKEN"):
        desk.enroll(4, **change)
    assert desk.enroll(4) == reference
    assert desk.identify(4).subject.reference == reference
    assert desk.service.status().templates == 1


def test_the_same_enrolment_again_changes_nothing_and_gives_the_same_answer(desk: Any) -> None:
    reference = desk.enroll(4, merchants=["m7", "m8"], region=2)
    desk.now_us += 1_000_000
    desk.reopen()
    assert desk.enroll(4, merchants=["m8", "m7"], region=2) == reference
    status = desk.service.status()
    assert (status.persons, status.templates) == (1, 1)


def test_an_enrolment_whose_caller_has_gone_is_not_done(desk: Any) -> None:
    vectors, consent = list(desk.people.enrolled(4, 1)), Consent("p", "1", desk.now_us)

    def enroll(how: How) -> Any:
        return desk.service.enroll("four", vectors, Secret("314159"), "", consent, how=how, now_us=desk.now_us)

    with pytest.raises(HutongError, match="DEADLINE_PAST"):
        enroll(How(still_wanted=lambda: False))
    assert desk.service.status().persons == 0
    assert enroll(How()).repeated is False
    again = enroll(How(still_wanted=lambda: False))
    assert again.repeated, "nothing is written for it"


def test_a_crash_between_replacing_and_destroying_the_old_key_is_made_up_for(
    desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.enroll(4)
    with monkeypatch.context() as crash:
        crash.setattr(desk.service._keys, "erase", lambda _: None)
        reference = desk.enroll(5, name="person 4", replace=True)
    desk.reopen()
    assert desk.identify(5).subject.reference == reference
    assert desk.service._keys.get(1) is None


def test_deleted_is_never_found_and_nothing_of_the_template_is_left(desk: Any) -> None:
    desk.enroll(1)
    desk.enroll(2)
    desk.service.maintain(desk.now_us)
    templates, receipt = desk.service.delete("person 1", desk.now_us)
    assert (templates, len(receipt)) == (1, 32)
    assert desk.identify(1).decision.outcome is Outcome.NO_MATCH
    desk.reopen()
    assert desk.identify(1).decision.outcome is Outcome.NO_MATCH
    assert desk.identify(2).decision.outcome is Outcome.MATCHED
    with pytest.raises(HutongError, match="FACE_SUBJECT_UNKNOWN"):
        desk.service.delete("person 1", desk.now_us)
    keys = sqlite3.connect(desk.folder / "keys" / "keys.db")
    assert keys.execute("SELECT person FROM subject_key").fetchall() == [(2,)]
    keys.close()


def test_deletion_during_searches_is_final_when_it_returns(desk: Any) -> None:
    for person in range(8):
        desk.enroll(person)
    stop = threading.Event()
    late: list[str] = []
    gone: set[str] = set()

    def search() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            for person in range(8):
                before = set(gone)
                answer = desk.identify(person, seed=number)
                if answer.subject is not None and answer.subject.name in before:
                    late.append(answer.subject.name)

    thread = threading.Thread(target=search)
    thread.start()
    for person in range(8):
        desk.service.delete(f"person {person}", desk.now_us)
        gone.add(f"person {person}")
    stop.set()
    thread.join()
    assert not late


def test_sub_galleries_of_regions_and_merchants(desk: Any) -> None:
    desk.enroll(1, region=3, merchants=["m7"])
    desk.enroll(2, region=4)

    def outcome(person: int, **where: Any) -> Outcome:
        answer = desk.service.identify(Asked(desk.capture(person), **where), desk.now_us)
        found: Outcome = answer.decision.outcome
        return found

    assert outcome(1, region=3) is Outcome.MATCHED
    assert outcome(1, region=4) is Outcome.NO_MATCH
    assert outcome(1, merchant_id="m7") is Outcome.MATCHED
    assert outcome(2, merchant_id="m7") is Outcome.NO_MATCH
    assert outcome(2, merchant_id="unknown") is Outcome.NO_MATCH


def test_one_to_one(desk: Any) -> None:
    desk.enroll(1)
    desk.enroll(2)
    assert desk.service.verify("person 1", desk.capture(1), desk.now_us).outcome is Outcome.MATCHED
    assert desk.service.verify("person 1", desk.capture(2), desk.now_us).outcome is Outcome.NO_MATCH
    with pytest.raises(HutongError, match="FACE_SUBJECT_UNKNOWN"):
        desk.service.verify("nobody", desk.capture(2), desk.now_us)


@pytest.mark.parametrize(
    ("vectors", "fault"),
    [
        ([], "1 to 8"),
        ([np.zeros(512)], "bad_length"),
        ([np.full(512, np.nan)], "not_finite"),
        ([np.full(512, np.inf)], "not_finite"),
        ([np.ones(128)], "wrong_dimension"),
        ([np.ones((2, 256))], "wrong_dimension"),
        ([np.ones(512)] * 9, "1 to 8"),
    ],
)
def test_unusable_embeddings_are_refused(desk: Any, vectors: list[Any], fault: str) -> None:
    with pytest.raises(HutongError, match="FACE_UNUSABLE") as caught:
        desk.service.enroll("x", vectors, Secret("314159"), "", Consent("p", "1", desk.now_us), now_us=desk.now_us)
    assert fault in str(caught.value)


def test_embeddings_that_are_not_normalised_are_brought_to_length_one(desk: Any) -> None:
    desk.enroll(1, vectors=[desk.people.enrolled(1, 1)[0] * 23])
    answer = desk.identify(1, embedding=desk.probe(1) * 0.01)
    assert answer.decision.outcome is Outcome.MATCHED
    assert answer.decision.score < 1.001


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"passcode": Secret("12345")}, "passcode"),
        ({"passcode": Secret("111111")}, "passcode"),
        ({"passcode": Secret("abcdef")}, "passcode"),
        ({"consent": Consent("", "1", 1)}, "consent.purpose"),
        ({"consent": Consent("p", "1", 0)}, "consent.given_at_us"),
        ({"consent": Consent("p", "1", 1, 2)}, "consent.expires_at_us"),
        ({"region": 70_000}, "region"),
    ],
)
def test_bad_enrolments_are_refused(desk: Any, change: dict[str, Any], field: str) -> None:
    with pytest.raises(HutongError) as caught:
        desk.enroll(1, **change)
    assert caught.value.fields["field"] == field


def test_consent_that_has_ended_erases(desk: Any) -> None:
    desk.enroll(1, consent=Consent("payment by face", "1", desk.now_us, desk.now_us + 10))
    desk.enroll(2)
    desk.service.maintain(desk.now_us)
    assert desk.service.status().persons == 2
    desk.now_us += 11
    desk.service.maintain(desk.now_us)
    assert desk.identify(1).decision.outcome is Outcome.NO_MATCH
    assert desk.identify(2).decision.outcome is Outcome.MATCHED


def test_filing_counter(desk: Any) -> None:
    desk.reopen(Options(passcode_cost=desk.service.options.passcode_cost, filing_faces=2))
    desk.enroll(1)
    assert not desk.service.status().filing_due
    desk.enroll(2)
    assert desk.service.status().filing_due


def test_renewal_keeps_everybody_and_changes_every_row_on_disk(desk: Any) -> None:
    for person in range(3):
        desk.enroll(person)
    desk.service.renew()
    assert desk.service.status().epoch == 2
    assert all(desk.identify(person).decision.outcome is Outcome.MATCHED for person in range(3))
    desk.reopen()
    assert desk.service.status().epoch == 2
    assert all(desk.identify(person).decision.outcome is Outcome.MATCHED for person in range(3))
    assert [path.name for path in (desk.folder / "gallery").iterdir()] == ["epoch-0002"]


def test_templates_are_not_readable_at_rest(desk: Any) -> None:
    desk.enroll(1)
    reference = desk.enroll(2).reveal()
    vector = desk.people.enrolled(1, 1)[0]
    desk.service.close()
    needles = (vector.astype("<f4").tobytes()[:64], vector.astype("<f2").tobytes()[:32], reference.encode(), b"314160")
    for file in desk.folder.rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert not any(needle in data for needle in needles), file
    desk.reopen()


_ENROL_FOR_EVER = """
import sys
from pathlib import Path
from sandbox.faces.people import People
from hutong_contract.secret import Secret
from facepay.passcode import Cost
from facepay.enrolment import How
from facepay.model import Asked, Options
from facepay.service import open_service
from facepay.records import Consent
service = open_service(Path(sys.argv[1]), options=Options(passcode_cost=Cost(1, 64)))
people = People(11)
for person in range(100000):
    service.enroll(f"p{person}", list(people.enrolled(person, 1)), Secret("314159"), "", Consent("p", "1", 1))
    print(person, flush=True)
"""


@pytest.mark.slow
def test_kill_9_during_enrolment_loses_nobody_who_was_told(tmp_path: Path) -> None:
    from facepay.gallery.engine import Batch
    from facepay.service import open_service
    from sandbox.faces.people import People

    command = [sys.executable, "-c", _ENROL_FOR_EVER, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 25:
            break
    process.kill()
    acknowledged = 26 + len(process.stdout.read().split())
    process.wait()
    process.stdout.close()
    service = open_service(tmp_path)
    assert acknowledged <= service.status().persons <= acknowledged + 1
    people = People(11)
    probes = people.probes(np.arange(acknowledged), 0.9, 1)
    floors = np.full(len(probes), 0.3, np.float32)
    found = []
    for at in range(0, len(probes), 64):
        found += service._gallery.search(Batch(probes[at : at + 64], floors[at : at + 64]))
    assert [one[0].person for one in found] == list(range(1, acknowledged + 1))
    service.close()
