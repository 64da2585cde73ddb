"""A pack of plain ONNX files: OpenCV's FaceDetectorYN, an embedder and a classifier as `pack.json` declares them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facepay.embedding import Unusable, checked
from facepay.extraction.interface import WHERE_MODELS, FaceSeen, Image, ModelsUnusable, Points, session
from hutong_contract.extras import needs

with needs("faces"):
    import cv2


ALIGNED: Final = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)
"""Where the landmarks go in an aligned crop of 112 x 112, as all ArcFace-like networks expect."""
DETECT_SIDE_MAX: Final = 1280
"""Larger images are shrunk before detection."""
CONFIDENCE_MIN: Final = 0.6
FACES_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class Network:
    """How one network is fed."""

    file: str
    size: int
    """Side of its square input."""
    channels: str = "RGB"
    mean: tuple[float, ...] = (127.5, 127.5, 127.5)
    """Subtracted from each channel, 0 to 255, in the order of `channels`."""
    scale: tuple[float, ...] = (127.5, 127.5, 127.5)
    """Then divided by."""
    dimension: int = 0
    """Embedder: numbers that it gives."""
    crop: float = 0.0
    """Classifier: the crop's side in face sides."""
    live_index: int = 1
    """Classifier: which output is the live class."""

    def tensor(self, image: Image) -> NDArray[np.float32]:
        """A BGR image of its size as [1, 3, size, size]."""
        picture = image[:, :, ::-1] if self.channels == "RGB" else image
        values = (picture.astype(np.float32) - np.array(self.mean, np.float32)) / np.array(self.scale, np.float32)
        return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


_IMAGENET: Final = {"mean": (123.675, 116.28, 103.53), "scale": (58.395, 57.12, 57.375)}
KNOWN: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "face_detection_yunet*.onnx": ("detector", {"size": 0}),
    "mobilefacenet*.onnx": ("embedder", {"size": 112, "dimension": 128, **_IMAGENET}),
    "minifasnet*.onnx": (
        "classifier",
        {"size": 80, "channels": "BGR", "mean": (0.0, 0.0, 0.0), "scale": (1.0, 1.0, 1.0), "crop": 2.7},
    ),
}
"""Files that need no pack.json, by name; measured on photographs, not guessed."""


def declared(folder: Path) -> dict[str, Network]:
    """The networks of a folder: from pack.json where there is one, otherwise by known names."""
    out: dict[str, Network] = {}
    file = folder / "pack.json"
    if file.exists():
        try:
            names = {one.name for one in fields(Network)}
            for role, values in json.loads(file.read_text()).items():
                if role not in ("detector", "embedder", "classifier") or not set(values) <= names:
                    raise ModelsUnusable(f"{file}: '{role}' or one of its fields is not known. {WHERE_MODELS}")
                out[role] = Network(**{"size": 0, **values})
        except (ValueError, TypeError, AttributeError):
            raise ModelsUnusable(f"{file} is not JSON as docs/faces.md shows it") from None
        return out
    for pattern, (role, values) in KNOWN.items():
        for found in sorted(folder.glob(pattern)):
            out.setdefault(role, Network(file=found.name, **values))
    return out


class OpencvPack:
    """facepay.extraction.interface.Extractor on OpenCV and onnxruntime."""

    def __init__(self, folder: Path) -> None:
        networks = declared(folder)
        for role in ("detector", "embedder"):
            if role not in networks or not (folder / networks[role].file).exists():
                raise ModelsUnusable(f"{folder} holds no {role}. {WHERE_MODELS}")
        self.name = f"opencv:{folder.name}"
        self._embedder = networks["embedder"]
        self.dimension = self._embedder.dimension
        self._detector = _detector(folder / networks["detector"].file)
        self._network = session(folder / self._embedder.file, "embedder")
        self._classifier = networks.get("classifier")
        self._live = session(folder / self._classifier.file, "classifier") if self._classifier else None
        self._check()

    def _check(self) -> None:
        size = self._embedder.size
        try:
            made = self._embed(np.zeros((size, size, 3), np.uint8))
        except ModelsUnusable:
            raise
        except Exception as error:  # noqa: BLE001 - onnxruntime raises its own types for a wrong shape
            raise ModelsUnusable(f"the embedder does not take {size} x {size} images: {error}") from None
        if made.shape != (self.dimension,):
            raise ModelsUnusable(f"the embedder gives {made.size} numbers, pack.json says {self.dimension}")

    def faces(self, image: Image) -> Sequence[FaceSeen]:
        ratio = min(1.0, DETECT_SIDE_MAX / max(image.shape[:2]))
        small = image if ratio == 1 else cv2.resize(image, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
        self._detector.setInputSize((small.shape[1], small.shape[0]))
        _, found = self._detector.detect(small)
        rows = [] if found is None else sorted(found.tolist(), key=lambda row: -row[14])[:FACES_MAX]
        return [self._seen(image, np.array(row, np.float32), ratio) for row in rows]

    def _seen(self, image: Image, row: NDArray[np.float32], ratio: float) -> FaceSeen:
        box = tuple(float(value / ratio) for value in row[:4])
        landmarks = (row[4:14].reshape(5, 2) / ratio).astype(np.float32)
        try:
            embedding = checked(self._embed(align(image, landmarks, self._embedder.size)), self.dimension)
        except Unusable:
            embedding = None
        return FaceSeen(
            (box[0], box[1], box[2], box[3]), landmarks, float(row[14]), embedding, self._liveness(image, box)
        )

    def _embed(self, crop: Image) -> NDArray[np.float32]:
        name = self._network.get_inputs()[0].name
        return np.asarray(self._network.run(None, {name: self._embedder.tensor(crop)})[0], np.float32).reshape(-1)

    def _liveness(self, image: Image, box: tuple[float, ...]) -> float | None:
        if self._live is None or self._classifier is None:
            return None
        crop = surrounding(image, box, self._classifier.crop, self._classifier.size)
        name = self._live.get_inputs()[0].name
        out = np.asarray(self._live.run(None, {name: self._classifier.tensor(crop)})[0], np.float64).reshape(-1)
        if out.min() < 0 or abs(out.sum() - 1) > 1e-3:  # Logits, not yet probabilities.
            out = np.exp(out - out.max())
            out /= out.sum()
        return float(out[self._classifier.live_index])


def _detector(path: Path) -> Any:
    log: Any = cv2.utils.logging
    level = log.getLogLevel()
    log.setLogLevel(log.LOG_LEVEL_ERROR)  # The new graph engine warns of a target that was never asked for.
    try:
        return cv2.FaceDetectorYN.create(str(path), "", (320, 320), CONFIDENCE_MIN)
    except cv2.error:
        raise ModelsUnusable(f"{path} is not a detector that OpenCV can load. {WHERE_MODELS}") from None
    finally:
        log.setLogLevel(level)


def align(image: Image, landmarks: Points, size: int) -> Image:
    """The face turned and scaled so that its landmarks lie where networks expect them. Raises Unusable."""
    matrix, _ = cv2.estimateAffinePartial2D(landmarks, ALIGNED * (size / 112), method=cv2.LMEDS)
    if matrix is None:
        raise Unusable("no_face", "the landmarks do not form a face")
    return np.asarray(cv2.warpAffine(image, matrix, (size, size)), np.uint8)


def surrounding(image: Image, box: tuple[float, ...], crop: float, size: int) -> Image:
    """A square around the face, `crop` times its longer side, as large as the image allows."""
    x, y, width, height = box
    side = min(crop * max(width, height), *image.shape[:2])
    left = min(max(0.0, x + width / 2 - side / 2), image.shape[1] - side)
    top = min(max(0.0, y + height / 2 - side / 2), image.shape[0] - side)
    part = image[round(top) : round(top + side), round(left) : round(left + side)]
    return np.asarray(cv2.resize(part, (size, size)), np.uint8)
