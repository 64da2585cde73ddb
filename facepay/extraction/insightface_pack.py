"""insightface's FaceAnalysis on a local pack directory, with its liveness add-on where the folder holds one.

An absolute path keeps insightface from the network: a pack name would be downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from facepay.embedding import Unusable, checked
from facepay.extraction.interface import WHERE_MODELS, FaceSeen, Image, ModelsUnusable, session
from hutong_contract.extras import MissingExtraError, needs

LIVENESS_FOLDER: Final = "liveness"
"""Folder of the pack with the add-on's model; beside the pack's own files FaceAnalysis would misread it."""
CONFIDENCE_MIN: Final = 0.5


class InsightfacePack:
    """facepay.extraction.interface.Extractor on insightface."""

    def __init__(self, folder: Path, det_size: tuple[int, int] = (640, 640)) -> None:
        try:
            with needs("insightface"):
                from insightface.app import FaceAnalysis
        except MissingExtraError as error:
            raise ModelsUnusable(f"this pack cannot be opened: {error}") from None
        for file in sorted(folder.glob("*.onnx")):
            session(file, "model")  # FaceAnalysis asserts where a file is no model; this says which.
        try:
            self._analysis: Any = FaceAnalysis(
                name=str(folder.resolve()),
                allowed_modules=["detection", "recognition"],
                providers=["CPUExecutionProvider"],
            )
            self._analysis.prepare(ctx_id=-1, det_thresh=CONFIDENCE_MIN, det_size=det_size)
        except AssertionError:
            raise ModelsUnusable(f"{folder} holds no detector that insightface knows. {WHERE_MODELS}") from None
        if "recognition" not in self._analysis.models:
            raise ModelsUnusable(f"{folder} holds no recognition model. {WHERE_MODELS}")
        self.name = f"insightface:{folder.name}"
        self.dimension = int(self._analysis.models["recognition"].output_shape[-1])
        self._liveness = _addon(folder)

    def faces(self, image: Image) -> Sequence[FaceSeen]:
        found = sorted(self._analysis.get(image), key=lambda face: -float(face.det_score))
        return [self._seen(image, face) for face in found]

    def _seen(self, image: Image, face: Any) -> FaceSeen:
        left, top, right, bottom = (float(value) for value in face.bbox)
        try:
            embedding = checked(np.asarray(face.embedding, np.float32), self.dimension)
        except Unusable:
            embedding = None
        live = None
        if self._liveness is not None:
            live = self._liveness.predict(image, face.kps)["live_score"]
        box = (left, top, right - left, bottom - top)
        return FaceSeen(box, np.asarray(face.kps, np.float32), float(face.det_score), embedding, live)


def _addon(folder: Path) -> Any:
    """The liveness add-on, from the pack's own folder rather than a download; None without one."""
    files = sorted((folder / LIVENESS_FOLDER).glob("*.onnx"))
    if not files:
        return None
    from insightface.addons.liveness import Liveness

    session(files[0], "liveness add-on")
    try:
        return Liveness(str(files[0]), providers=["CPUExecutionProvider"])
    except RuntimeError as error:
        raise ModelsUnusable(f"{files[0]}: {error}") from None
