"""Proves: both adapters load real ONNX files and find, align, embed and classify faces; whatever cannot be used is
refused by name; models that are missing or none say what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from facepay.embedding import Unusable
from facepay.extraction import Extractor, ModelsUnusable, open_pack
from facepay.extraction.quality import QualityPolicy, the_one, turn
from tests.facepay import tiny_models

MODELS = Path(__file__).parents[2].parent / "shared" / "models"
POLICY = QualityPolicy(sharpness_min=5)


@pytest.fixture(params=["opencv", "insightface"])
def pack(request: Any, tmp_path: Path) -> Extractor:
    if request.param == "opencv":
        return open_pack(tiny_models.opencv_pack(tmp_path / "tiny"))
    pytest.importorskip("insightface", reason="insightface is not installed")
    return open_pack(tiny_models.insightface_pack(tmp_path / "tiny"))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_one_face_is_found_aligned_and_embedded(pack: Extractor) -> None:
    assert pack.dimension == tiny_models.DIMENSION
    image = tiny_models.picture([(3, 4)])
    face, quality = the_one(image, pack.faces(image), POLICY)
    x, y, width, height = face.box
    assert (x + width / 2, y + height / 2) == pytest.approx((112, 144), abs=2)
    assert (width, height) == pytest.approx((64, 64), abs=2)
    assert face.embedding is not None
    assert np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-5)
    assert face.landmarks[2] == pytest.approx([112, 144 + 0.02 * 64], abs=2)
    assert quality.turn < 0.1
    again = tiny_models.picture([(4, 3)])
    same, _ = the_one(again, pack.faces(again), POLICY)
    other_image = tiny_models.picture([(3, 4)], seed=2)
    other, _ = the_one(other_image, pack.faces(other_image), POLICY)
    assert face.embedding @ same.embedding > 0.95 > face.embedding @ other.embedding


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_classifier_looks_at_the_face(pack: Extractor) -> None:
    image = tiny_models.picture([(3, 4)])
    bright = pack.faces(image)[0].live
    dim: Any = cv2.convertScaleAbs(image, alpha=0.97)
    dark = pack.faces(dim)[0].live
    assert bright is not None
    assert dark is not None
    assert dark < bright


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("faces", "policy", "reason"),
    [
        ([], POLICY, "no_face"),
        ([(2, 2), (5, 5)], POLICY, "several_faces"),
        ([(3, 3)], QualityPolicy(side_px_min=100), "too_small"),
        ([(3, 3)], QualityPolicy(sharpness_min=1e6), "blurred"),
    ],
)
def test_unusable_images_are_refused_by_name(
    pack: Extractor, faces: list[tuple[int, int]], policy: QualityPolicy, reason: str
) -> None:
    image = tiny_models.picture(faces)
    with pytest.raises(Unusable) as caught:
        the_one(image, pack.faces(image), policy)
    assert caught.value.reason == reason


def test_a_blurred_picture_is_less_sharp_and_a_turned_head_is_seen() -> None:
    from facepay.extraction.interface import FaceSeen
    from facepay.extraction.quality import quality

    image = tiny_models.picture([(3, 4)])
    landmarks = np.array([[90, 130], [130, 130], [110, 146], [95, 160], [125, 160]], np.float32)
    face = FaceSeen((80, 112, 64, 64), landmarks, 1.0)
    assert quality(cv2.GaussianBlur(image, (0, 0), 3), face).sharpness < quality(image, face).sharpness / 4
    assert turn(landmarks) == 0
    landmarks[2, 0] = 130
    assert turn(landmarks) == 0.5
    with pytest.raises(Unusable) as caught:
        the_one(image, [FaceSeen((80, 112, 64, 64), landmarks, 1.0)], POLICY)
    assert caught.value.reason == "turned"


@pytest.mark.parametrize("victim", ["find.onnx", "embed.onnx", "live.onnx"])
@pytest.mark.parametrize("damage", [b"this is no model", b""])
def test_a_file_that_is_no_model_is_named(tmp_path: Path, victim: str, damage: bytes) -> None:
    folder = tiny_models.opencv_pack(tmp_path)
    (folder / victim).write_bytes(damage)
    with pytest.raises(ModelsUnusable, match=victim):
        open_pack(folder)


@pytest.mark.parametrize("victim", ["det_tiny.onnx", "w_tiny.onnx", "liveness/liveness.onnx"])
def test_a_file_that_is_no_model_is_named_in_an_insightface_pack(tmp_path: Path, victim: str) -> None:
    pytest.importorskip("insightface", reason="insightface is not installed")
    folder = tiny_models.insightface_pack(tmp_path)
    (folder / victim).write_bytes(b"this is no model")
    with pytest.raises(ModelsUnusable, match=Path(victim).name):
        open_pack(folder)


def test_missing_models_say_where_to_get_them_and_under_which_licence(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ModelsUnusable) as caught:
            open_pack(folder)
        for word in ("OpenCV Zoo", "MIT", "Apache-2.0", "non-commercial", "buffalo_l"):
            assert word in str(caught.value)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"embedder": {"file": "embed.onnx", "size": 112, "dimension": 512}}, "64 numbers"),
        ({"embedder": {"file": "embed.onnx", "size": 96, "dimension": 64}}, "does not take"),
        ({"embedder": {"file": "gone.onnx", "size": 112, "dimension": 64}}, "no embedder"),
        ({"embedder": {"file": "embed.onnx", "sizes": 112}}, "not known"),
        ({"verifier": {"file": "embed.onnx"}}, "not known"),
    ],
)
def test_wrong_declarations_are_refused(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    folder = tiny_models.opencv_pack(tmp_path)
    declared = json.loads((folder / "pack.json").read_text()) | change
    (folder / "pack.json").write_text(json.dumps(declared))
    with pytest.raises(ModelsUnusable, match=text):
        open_pack(folder)
    (folder / "pack.json").write_text("{not json")
    with pytest.raises(ModelsUnusable, match=r"pack\.json"):
        open_pack(folder)


@pytest.mark.skipif(not MODELS.is_dir(), reason="../shared/models, real face models, is not here")
def test_real_models_tell_people_apart() -> None:
    data = pytest.importorskip("skimage.data", reason="scikit-image, whose astronaut is the test picture, is missing")
    pack = open_pack(MODELS)
    assert pack.dimension == 128
    image = np.ascontiguousarray(data.astronaut()[:, :, ::-1])
    face, _ = the_one(image, pack.faces(image), QualityPolicy())
    mirrored: Any = np.ascontiguousarray(image[:, ::-1])
    dark: Any = cv2.convertScaleAbs(image, alpha=0.7)
    for other in (mirrored, dark):
        seen, _ = the_one(other, pack.faces(other), QualityPolicy())
        assert face.embedding @ seen.embedding > 0.7
    assert face.live is not None
    assert not pack.faces(np.ascontiguousarray(data.coffee()[:, :, ::-1]))
