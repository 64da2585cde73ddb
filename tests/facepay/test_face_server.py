"""Proves: terminals and commands reach the service over gRPC, errors carry the table's reasons, plots are drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import pytest
from click.testing import CliRunner

from command.face import face
from command.face import network as face_network
from facepay.model import Options
from facepay.operators import Operators
from facepay.passcode import Cost
from facepay.service import open_service
from hutong.facepay.v1 import face_pb2, face_pb2_grpc
from hutong_contract.errors import from_rpc_error
from hutong_contract.secret import Secret
from sandbox.faces import camera
from sandbox.faces.capturing import FaceTerminal, Factors
from sandbox.faces.people import People
from tests.facepay import tiny_models
from tests.facepay.serving import serving

DIMENSION = 512


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server on loopback, in a thread with its own loop."""
    folder = tmp_path_factory.mktemp("faces")
    service = open_service(folder, dimension=DIMENSION, options=Options(passcode_cost=Cost(1, 64)))
    with serving(service, Operators(whoever_reaches=True)) as address:
        yield address
    service.close()


@pytest.fixture
def terminal(target: str) -> Iterator[FaceTerminal]:
    with grpc.insecure_channel(target) as channel:
        made = FaceTerminal(face_pb2_grpc.FaceServiceStub(channel), People(7, DIMENSION), "t1", "m1")
        made.register()
        yield made


FACTORS = Factors(Secret("271828"), Secret("1234"))


def outcome(terminal: FaceTerminal, capture: face_pb2.FaceCapture) -> str:
    answer = terminal._stub.Identify(face_pb2.IdentifyRequest(capture=capture))
    return face_pb2.Outcome.Name(answer.outcome)


@pytest.mark.slow
def test_a_terminal_enrols_and_identifies_and_attacks_fail(terminal: FaceTerminal) -> None:
    reference = terminal.enroll_person(10, "ten", FACTORS)
    answer = terminal._stub.Identify(face_pb2.IdentifyRequest(capture=terminal.capture(10)))
    assert (answer.outcome, answer.reference) == (face_pb2.OUTCOME_MATCHED, reference.reveal())
    assert outcome(terminal, terminal.capture(11)) == "OUTCOME_NO_MATCH"
    for species in camera.ATTACKS:
        assert outcome(terminal, terminal.capture(10, species=species)) == "OUTCOME_NOT_LIVE"
    replay = terminal.capture(10)
    assert outcome(terminal, replay) == "OUTCOME_MATCHED"
    assert outcome(terminal, replay) == "OUTCOME_BAD_CAPTURE"


@pytest.mark.slow
def test_many_callers_at_once_each_get_their_own_answer(terminal: FaceTerminal) -> None:
    references = {}
    for person in range(20, 30):
        references[person] = terminal.enroll_person(person, f"p{person}", FACTORS).reveal()
    order = [20 + number % 10 for number in range(60)]
    captures = [terminal.capture(person, seed=number) for number, person in enumerate(order)]
    calls = [terminal._stub.Identify.future(face_pb2.IdentifyRequest(capture=one)) for one in captures]
    assert [call.result().reference for call in calls] == [references[person] for person in order]


def test_errors_carry_the_tables_reasons(terminal: FaceTerminal) -> None:
    terminal.enroll_person(40, "forty", FACTORS)
    with pytest.raises(grpc.RpcError) as caught:
        terminal.enroll_person(40, "not forty", FACTORS)
    error = from_rpc_error(caught.value)
    assert error is not None
    assert error.name == "FACE_ALREADY_ENROLLED"
    with pytest.raises(grpc.RpcError) as caught:
        terminal._stub.DeleteSubject(face_pb2.DeleteSubjectRequest(subject="nobody"))
    unknown = from_rpc_error(caught.value)
    assert unknown is not None
    assert unknown.name == "FACE_SUBJECT_UNKNOWN"
    request = face_pb2.EnrollRequest(subject="x", sealed=b"junk", consent=face_pb2.Consent(purpose="p", given_at_us=1))
    with pytest.raises(grpc.RpcError) as caught:
        terminal._stub.Enroll(request)
    invalid = from_rpc_error(caught.value)
    assert invalid is not None
    assert invalid.fields == {"field": "sealed"}


def run(*arguments: str) -> Any:
    return CliRunner().invoke(face, arguments)


def test_commands_on_a_running_network(target: str) -> None:
    where = ["--target", target, "--json"]
    done = run("enroll", "fifty", "--person", "50", "--passcode", "271828", "--last-four", "5050", *where)
    assert done.exit_code == 0, done.output
    reference = json.loads(done.stdout)["reference"]
    found = run("identify", "--person", "50", *where)
    assert found.exit_code == 0, found.output
    assert (json.loads(found.stdout)["outcome"], json.loads(found.stdout)["reference"]) == ("matched", reference)
    assert json.loads(run("identify", "--person", "50", "--attack", "screen", *where).stdout)["outcome"] == "not_live"
    stranger = run("identify", "--person", "51", *where)
    assert (stranger.exit_code, json.loads(stranger.stdout)["outcome"]) == (1, "no_match")
    status = json.loads(run("status", *where).stdout)
    assert status["persons"] >= 1
    assert status["filing_threshold"] == 100_000
    assert run("delete", "fifty", *where).exit_code == 0
    again = run("delete", "fifty", *where)
    assert (again.exit_code, json.loads(again.stdout)["error"]["reason"]) == (1, "FACE_SUBJECT_UNKNOWN")
    assert run("identify", "--target", target).exit_code == 2


def test_a_name_that_is_enrolled_needs_replace_and_loses_its_reference_unless_told(target: str) -> None:
    where = ["--target", target, "--passcode", "271828", "--json"]

    def enrol(person: int, *more: str) -> tuple[int, dict[str, Any]]:
        done = run("enroll", "sixty", "--person", str(person), *where, *more)
        return done.exit_code, json.loads(done.stdout)

    code, first = enrol(60)
    assert code == 0
    assert enrol(60) == (0, first | {"repeated": True})
    code, refused = enrol(61)
    assert (code, refused["error"]["reason"]) == (1, "FACE_NAME_TAKEN")
    assert "--replace" in refused["error"]["text"]
    assert json.loads(run("identify", "--person", "60", "--target", target, "--json").stdout)["outcome"] == "matched"
    code, kept = enrol(61, "--replace", "--keep-reference")
    assert (code, kept["reference"]) == (0, first["reference"])
    code, other = enrol(62, "--replace")
    assert code == 0
    assert other["reference"] != first["reference"]
    alone = run("enroll", "sixty", "--person", "62", "--keep-reference", *where)
    assert alone.exit_code == 2
    assert "--replace" in alone.output


@pytest.mark.parametrize("as_json", [True, False])
def test_errors_are_said_in_words(target: str, monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    """A deadline that passes, and a status that no table has, as a proxy in between gives it."""
    more = ["--json"] if as_json else []
    with monkeypatch.context() as hurried:
        hurried.setattr(face_network, "TIMEOUT_S", -1.0)
        late = run("status", "--target", target, *more)
    with ThreadPoolExecutor(1) as threads:
        nothing = grpc.server(threads)
        port = nothing.add_insecure_port("127.0.0.1:0")
        nothing.start()
        other = run("status", "--target", f"127.0.0.1:{port}", *more)
        nothing.stop(0)
    for done, reason in ((late, "DEADLINE_EXCEEDED"), (other, "UNIMPLEMENTED")):
        assert done.exit_code == 1
        assert "_InactiveRpcError" not in done.output
        assert "debug_error_string" not in done.output
        if as_json:
            assert json.loads(done.stdout)["error"]["reason"] == reason
    assert "may have been done" in late.output
    assert "Method not found" in other.output


def test_nobody_at_the_target_says_what_to_do() -> None:
    done = run("status", "--target", "127.0.0.1:1")
    assert done.exit_code == 1
    assert "hutong up" in done.output


def test_images_whose_models_have_another_dimension_are_refused(target: str, tmp_path: Path) -> None:
    pack = tiny_models.opencv_pack(tmp_path / "pack")
    cv2.imwrite(str(tmp_path / "one.png"), tiny_models.picture([(3, 3)]))
    image = ["--image", str(tmp_path / "one.png"), "--models", str(pack)]
    done = run("enroll", "photo", *image, "--passcode", "271828", "--target", target)
    assert done.exit_code == 1
    assert "64 numbers" in done.output


@pytest.mark.slow
def test_evaluate_measures_a_folder_of_people_and_draws(tmp_path: Path) -> None:
    pack = tiny_models.opencv_pack(tmp_path / "pack")
    for person in range(6):
        folder = tmp_path / "people" / f"p{person}"
        folder.mkdir(parents=True)
        image = tiny_models.picture([(4, 4)], seed=person + 1)
        for shot in range(3):
            noise = np.random.default_rng(shot).normal(0, 3, image.shape)
            cv2.imwrite(str(folder / f"{shot}.png"), np.clip(image + noise, 0, 255).astype(np.uint8))
    cv2.imwrite(str(tmp_path / "people" / "p0" / "empty.png"), tiny_models.picture([]))
    (tmp_path / "people" / "p1" / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(8) + b"\xff" * 8)
    plots = tmp_path / "plots"
    arguments = ["--images", str(tmp_path / "people"), "--models", str(pack), "--plots", str(plots), "--json"]
    done = run("evaluate", *arguments)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["images"], result["used"]) == (20, 18)
    assert result["unreadable"] == {"too_large": 1}
    assert result["refused"] == {"no_face": 1}
    assert (result["readable"], result["with_a_face"]) == (19, 18)
    assert result["detection_rate"] == round(18 / 19, 4)
    assert result["refused_by_quality_rules"] == {"images": 0}
    assert result["genuine"]["pairs"] == 18
    assert result["impostor"]["pairs"] == 135
    assert result["genuine"]["mean"] > result["impostor"]["mean"] + 0.05
    assert {one["fpir"] for one in result["fnir_at_fpir"]} >= {0.0, 0.1}
    assert 0 <= result["equal_error"]["rate"] < 0.2
    assert result["equal_error"]["resolution"] == 1 / 18
    rates = [row[1] for row in result["roc"]]
    assert min(rates) == pytest.approx(1 / 135, abs=1e-6), "nothing is claimed below one impostor pair"
    assert rates == sorted(rates)
    for name in ("scores.png", "roc.png"):
        drawn: Any = cv2.imread(str(plots / name))
        assert drawn.shape[2] == 3
        assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 20
    assert sorted(result["plots"]) == [str(plots / "roc.png"), str(plots / "scores.png")]


def people_on_disk(folder: Path, suffix: str, damaged: bool = False) -> Path:
    for person in range(3):
        place = folder / f"p{person}"
        place.mkdir(parents=True)
        image = tiny_models.picture([(4, 4)], seed=person + 1)
        for shot in range(2):
            noise = np.random.default_rng(shot).normal(0, 3, image.shape)
            picture: Any = np.clip(image + noise, 0, 255).astype(np.uint8)
            if suffix == ".pgm":
                picture = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
            assert cv2.imwrite(str(place / f"{shot}{suffix}"), picture)
            if damaged:
                (place / f"{shot}{suffix}").write_bytes(b"no picture")
    return folder


@pytest.mark.parametrize("suffix", [".pgm", ".ppm", ".bmp", ".tiff"])
def test_evaluate_reads_what_opencv_reads_and_writes_nothing_unasked(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = tiny_models.opencv_pack(tmp_path / "pack")
    people = people_on_disk(tmp_path / "people", suffix)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    done = run("evaluate", "--images", str(people), "--models", str(pack), "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["readable"], result["used"], result["detection_rate"]) == (6, 6, 1.0)
    assert "plots" not in result
    assert not list((tmp_path / "here").iterdir())


def test_evaluate_of_what_cannot_be_read_fails_and_says_why(tmp_path: Path) -> None:
    pack = tiny_models.opencv_pack(tmp_path / "pack")
    people = people_on_disk(tmp_path / "people", ".pgm", damaged=True)
    done = run("evaluate", "--images", str(people), "--models", str(pack), "--json")
    assert done.exit_code == 1
    assert "none of 6 images could be read: 6 not_an_image" in done.output
    assert "PGM" in done.output


def test_evaluate_counts_what_its_quality_rules_refuse(tmp_path: Path) -> None:
    pack = tiny_models.opencv_pack(tmp_path / "pack")
    for person in range(2):
        place = tmp_path / "people" / f"p{person}"
        place.mkdir(parents=True)
        cv2.imwrite(str(place / "two.png"), tiny_models.picture([(2, 2), (5, 5)], seed=person))
        blurred: Any = cv2.GaussianBlur(tiny_models.picture([(4, 4)], seed=person), (0, 0), 6)
        cv2.imwrite(str(place / "blurred.png"), blurred + 25)
    done = run("evaluate", "--images", str(tmp_path / "people"), "--models", str(pack), "--json")
    result = json.loads(done.stdout)
    assert done.exit_code == 1, "no scores"
    assert result["refused"]["several_faces"] == 2
    assert result["refused_by_quality_rules"]["images"] == sum(result["refused"].values()) - result["refused"].get(
        "no_face", 0
    )
    assert result["used"] == 0


def test_liveness_command(tmp_path: Path) -> None:
    pack = tiny_models.opencv_pack(tmp_path / "pack")
    image = tmp_path / "one.png"
    cv2.imwrite(str(image), tiny_models.picture([(3, 3)]))
    result = json.loads(run("liveness", str(image), "--models", str(pack), "--json").stdout)
    assert result["label"] == "simulation, uncertified"
    looked = result["images"][0]
    assert set(looked["cues"]) >= {"frequency", "moire", "specular", "classifier"}
    assert looked["abstained"] == ["texture"], "64 pixels show no pores"
    assert set(looked["species"]) == {"print", "screen", "mask", "replay"}, "one picture says nothing of injection"
    assert result["operating_point"] == -1.0
    report = json.loads(run("liveness", "--simulate", "2", "--json").stdout)
    assert set(report["apcer"]) == set(camera.ATTACKS)
    missing = run("liveness", str(image), "--models", str(tmp_path))
    assert missing.exit_code == 1
    assert "OpenCV Zoo" in missing.output
    assert run("liveness").exit_code == 2
