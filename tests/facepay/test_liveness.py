"""Proves: each attack species is told from live faces on simulated captures, counted apart, and stops a payment."""

from __future__ import annotations

import contextlib
import importlib.util
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from facepay.decision import Outcome
from facepay.embedding import Unusable
from facepay.extraction import open_pack
from facepay.frames import decode, decode_file, file_size_of, measured, size_of
from facepay.liveness import cues
from facepay.liveness.judgement import Judgement, LivenessPolicy, combine, judge
from facepay.liveness.report import as_json, count
from facepay.model import Asked
from sandbox.faces import camera
from tests.facepay import tiny_models

CHALLENGES = ("turn_left", "turn_right", "nod", "blink")
POLICY = LivenessPolicy()
MODELS = Path(__file__).parents[2].parent / "shared" / "models"


def judged(species: str, depth: bool = True) -> list[Judgement]:
    out = []
    for number in range(12):
        challenge = CHALLENGES[number % 4]
        shot = camera.take(500 + number, challenge, number, species, depth=depth)
        out.append(judge(measured(shot.frames, shot.depth_map, challenge), POLICY))
    return out


def test_live_faces_pass() -> None:
    errors = count("live", True, judged(camera.LIVE))
    assert errors.rate <= 1 / 12


@pytest.mark.parametrize("depth", [True, False], ids=["depth", "no depth"])
@pytest.mark.parametrize("species", camera.ATTACKS)
def test_each_attack_species_is_refused(species: str, depth: bool) -> None:
    assert count(species, False, judged(species, depth)).rate <= 1 / 12


CUE_OF = {
    camera.PRINT: {"frequency", "motion", "depth"},
    camera.SCREEN: {"frequency", "moire", "specular", "depth"},
    camera.MASK: {"texture", "specular"},
    camera.REPLAY: {"frequency", "challenge", "depth"},
    camera.INJECTION: {"motion", "challenge", "depth"},
}


@pytest.mark.parametrize("species", camera.ATTACKS)
def test_the_cues_that_should_see_a_species_do(species: str) -> None:
    shot = camera.take(77, "turn_left", 3, species)
    found = measured(shot.frames, shot.depth_map, "turn_left")
    assert {name for name, value in found.items() if value < 0.5} >= CUE_OF[species] - {"moire"}


def test_too_few_cues_are_a_non_response_and_not_live() -> None:
    silent = judge({"texture": 1.0}, POLICY)
    assert (silent.live, silent.responded) == (False, False)
    assert not judge({"texture": 1.0, "nonsense": 1.0, "also": 1.0, "motion": 7.0}, POLICY).responded


def test_one_sure_cue_outweighs_the_others_and_sources_cannot_vouch_for_each_other() -> None:
    good = dict.fromkeys(("texture", "frequency", "motion", "depth"), 0.99)
    assert judge(good, POLICY).live
    assert not judge(good | {"depth": 0.01}, POLICY).live
    assert combine(good, {"depth": 0.01})["depth"] == 0.01
    assert combine({"depth": 0.01}, good)["depth"] == 0.01


def test_cues_that_disagree_are_weighed_and_none_vetoes_alone() -> None:
    """A photograph whose skin is smooth, as compression makes it, and which all else takes for live."""
    photograph = {"texture": 0.02, "frequency": 0.99, "specular": 0.95, "moire": 0.95}
    assert judge(photograph | {"classifier": 0.992}, POLICY).live
    assert judge(photograph, POLICY).live
    mask = photograph | {"specular": 0.05}
    assert not judge(mask, POLICY).live
    assert not judge(mask | {"classifier": 0.99}, POLICY).live, "one classifier does not outvote two physical cues"
    for name in ("texture", "frequency", "specular", "moire"):
        certain = dict.fromkeys(("texture", "frequency", "specular", "moire", "classifier"), 0.95)
        judged = judge(certain | {name: 0.2}, POLICY)
        assert judged.live, (name, judged.species)


def test_what_cannot_see_an_attack_does_not_vouch_for_it() -> None:
    """A mask moves, answers and has depth; a copied file has texture and no grid."""
    moves = dict.fromkeys(("motion", "challenge", "depth", "frequency", "moire"), 0.999)
    assert judge(moves | {"texture": 0.01, "specular": 0.05}, POLICY).reason.startswith("like a mask")
    still = dict.fromkeys(("texture", "frequency", "specular", "moire", "depth", "classifier"), 0.999)
    assert judge(still | {"motion": 0.01, "challenge": 0.01}, POLICY).reason.startswith("like an injection")


def test_a_refusal_is_one_that_an_operator_can_explain() -> None:
    refused = judge({"texture": 0.01, "specular": 0.05, "frequency": 0.9, "classifier": 0.62}, POLICY)
    assert refused.reason == "like a mask: texture 0.01, specular 0.05, against classifier 0.62"
    assert refused.score < 0.27
    assert min(refused.species, key=lambda one: refused.species[one]) == "mask"
    assert judge({"texture": 0.9}, POLICY).reason == "too few cues: 1 of at least 3"


def test_the_operating_point_moves_between_attacks_let_through_and_people_refused() -> None:
    doubtful = {"texture": 0.1, "frequency": 0.9, "specular": 0.6}
    assert judge(doubtful, LivenessPolicy(evidence_min=-2.0)).live
    assert not judge(doubtful, LivenessPolicy(evidence_min=0.0)).live


@pytest.mark.parametrize("side", [66, 90, 114])
def test_a_small_picture_is_not_taken_for_a_screen(side: int) -> None:
    """Enlarging it to the size of the others made a grid, and its skin has no pores to see."""
    for person in range(6):
        shot = camera.take(500 + person, "nod", 1)
        frame: Any = cv2.imdecode(np.frombuffer(shot.frames[0], np.uint8), cv2.IMREAD_COLOR)
        small: Any = cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA)
        found = cues.measure([small], None, "")
        assert "texture" not in found
        assert judge(found, POLICY).live, found
    tiny: Any = cv2.resize(frame, (40, 40), interpolation=cv2.INTER_AREA)
    assert not judge(cues.measure([tiny], None, ""), POLICY).responded


def test_grey_pictures_are_known() -> None:
    colour = tiny_models.picture([(3, 3)])
    grey: Any = cv2.cvtColor(cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    _, data = cv2.imencode(".jpg", grey)
    assert cues.is_grey(grey)
    assert cues.is_grey(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8))
    assert not cues.is_grey(colour)


@pytest.mark.skipif(not MODELS.is_dir(), reason="../shared/models, real face models, is not here")
@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
def test_real_photographs_are_live_and_prints_and_screens_of_them_are_not(grey: bool) -> None:
    """Eight faces in three photographs that come with Python packages; whoever lacks one of these skips it."""
    pack = open_pack(MODELS)
    live: list[bool] = []
    passed: dict[str, int] = dict.fromkeys((camera.PRINT, camera.SCREEN), 0)
    for picture in photographs():
        image: Any = picture
        if grey:
            image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        for face in pack.faces(image):
            x, y, width, height = (round(value) for value in face.box)
            crop = image[max(0, y - height // 10) : y + height, max(0, x - width // 10) : x + width + width // 10]
            found = cues.measure([crop], None, "")
            if face.live is not None and not cues.is_grey(crop):
                found["classifier"] = face.live
            live.append(judge(found, POLICY).live)
            for species in passed:
                frame = camera.still_of(crop, species, seed=len(live))
                passed[species] += judge(cues.measure([frame], None, ""), POLICY).live
    if not live:
        pytest.skip("scikit-image, matplotlib and insightface, whose pictures these are, are missing")
    assert live.count(False) <= len(live) // 8
    assert max(passed.values()) <= len(live) // 8, passed


def photographs() -> list[Any]:
    out = []
    for package, place in (
        ("skimage", "data/astronaut.png"),
        ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
        ("insightface", "data/images/t1.jpg"),
    ):
        found = importlib.util.find_spec(package)
        file = Path(found.origin).parent / place if found and found.origin else None
        if file is not None and file.exists():
            out.append(cv2.imread(str(file)))
    return out


def test_report_counts_species_apart_and_names_the_worst() -> None:
    live = [judge({}, POLICY), Judgement(True, 1, True)]
    attacks = [count("a", False, [Judgement(True, 1, True), *live[:1]]), count("b", False, live[:1])]
    report = as_json(count("live", True, live), attacks)
    assert report["bpcer"] == 0.5
    assert report["live_non_responses"] == 1
    assert report["apcer"] == {"a": 0.5, "b": 0.0}
    assert report["apcer_worst"] == {"species": "a", "rate": 0.5}
    assert report["label"] == "simulation, uncertified"


@pytest.mark.parametrize("species", camera.ATTACKS)
def test_the_service_refuses_attacks_whatever_the_terminal_says(desk: Any, species: str) -> None:
    desk.enroll(1)
    session = desk.service.begin_capture("t1", 1, desk.now_us)
    shot = camera.take(1, session.challenge, 5, species)
    claim = {"texture": 1.0, "frequency": 1.0, "motion": 1.0}
    sealed = desk.capture(1, nonce=session.nonces[0], frames=shot.frames, depth_map=shot.depth_map, liveness=claim)
    assert desk.service.identify(Asked(sealed), desk.now_us).decision.outcome is Outcome.NOT_LIVE


def test_the_service_takes_live_captures_and_refuses_without_cues(desk: Any) -> None:
    desk.enroll(1)
    session = desk.service.begin_capture("t1", 1, desk.now_us)
    shot = camera.take(1, session.challenge, 5)
    sealed = desk.capture(
        1, nonce=session.nonces[0], frames=shot.frames, depth_map=shot.depth_map, liveness=shot.liveness
    )
    assert desk.service.identify(Asked(sealed), desk.now_us).decision.outcome is Outcome.MATCHED
    assert desk.identify(1, liveness={}).decision.outcome is Outcome.NOT_LIVE
    assert desk.identify(1, frames=(b"not an image",)).decision.outcome is Outcome.NOT_LIVE


def png_claiming(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + struct.pack(">II", width, height) + bytes(5)


@pytest.mark.parametrize(
    "data",
    [
        png_claiming(65_535, 65_535),
        png_claiming(0, 10),
        b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03" + bytes(20),
        b"BM" + bytes(16) + struct.pack("<ii", 60_000, -60_000) + bytes(30),
        b"GIF89a" + bytes(20),
        b"",
        b"\xff\xd8" + bytes(3),
        png_claiming(10, 10),
    ],
    ids=["png bomb", "empty png", "jpeg bomb", "bmp bomb", "gif", "nothing", "cut jpeg", "cut png"],
)
def test_images_are_bounded_before_they_are_decoded(data: bytes) -> None:
    with pytest.raises(Unusable):
        decode(data)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_sizes_are_read_from_headers(suffix: str) -> None:
    _, data = cv2.imencode(suffix, np.zeros((37, 91, 3), np.uint8))
    assert size_of(data.tobytes()) == (91, 37)
    assert decode(data.tobytes()).shape == (37, 91, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff", ".pgm", ".ppm"])
def test_files_of_an_operator_are_read_and_bounded_in_every_format(suffix: str) -> None:
    picture = np.full((37, 91, 3), 120, np.uint8)
    _, data = cv2.imencode(suffix, picture[:, :, 0] if suffix == ".pgm" else picture)
    assert file_size_of(data.tobytes()) == (91, 37)
    assert decode_file(data.tobytes()).shape == (37, 91, 3)
    for length in (0, 3, 8, 20, len(data) // 2):
        with contextlib.suppress(Unusable):
            decode_file(data.tobytes()[:length])


TIFF_BOMB = (
    b"II*\0"
    + struct.pack("<IH", 8, 2)
    + struct.pack("<HHII", 256, 4, 1, 60_000)
    + struct.pack("<HHII", 257, 4, 1, 60_000)
)


@pytest.mark.parametrize(
    "data",
    [
        b"P5\n# a comment\n90000 90000\n255\n" + bytes(40),
        b"P5 " + b"9" * 4_000 + b" 1 255 ",
        b"P5\n#" + b"x" * 9_000 + b"\n1 1\n255\n\0",
        b"P5 -1 10 255 ",
        TIFF_BOMB,
        b"II*\0" + struct.pack("<I", 1 << 31),
        b"II*\0" + struct.pack("<IH", 8, 65_535),
        b"MM\0*" + struct.pack(">I", 8),
        b"GIF89a" + bytes(20),
    ],
)
def test_files_that_claim_too_much_or_nothing_are_refused(data: bytes) -> None:
    with pytest.raises(Unusable):
        decode_file(data)


def test_captures_from_outside_hold_no_tiff_and_no_pnm() -> None:
    for suffix in (".tiff", ".pgm"):
        _, data = cv2.imencode(suffix, np.zeros((37, 91), np.uint8))
        with pytest.raises(Unusable, match="PNG, JPEG or BMP"):
            decode(data.tobytes())


def test_too_many_frames_and_false_depth_maps_are_refused() -> None:
    shot = camera.take(1, "nod", 1)
    with pytest.raises(Unusable, match="frames"):
        measured(shot.frames * 5, b"", "nod")
    with pytest.raises(Unusable, match="depth"):
        measured(shot.frames, shot.frames[0], "nod")
