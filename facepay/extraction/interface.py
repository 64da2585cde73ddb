"""What adapters give: faces with landmarks, embeddings and quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from hutong_contract.extras import needs

Image = NDArray[np.uint8]
Points = NDArray[np.float32]

WHERE_MODELS: Final = (
    "Put models in a folder and name it with --models. Detector: face_detection_yunet_2023mar.onnx from OpenCV Zoo "
    "(MIT). Embedder: an ONNX network of aligned faces, such as MobileFaceNet (Apache-2.0), declared in pack.json. Or "
    "a pack of insightface such as buffalo_l (non-commercial research only) with `pip install 'hutong[insightface]'`. "
    "docs/faces.md shows pack.json."
)


class ModelsUnusable(Exception):  # noqa: N818 - it is what happened
    """A model folder without what is needed, or with a file that is no model; the text says which and what to do."""


@dataclass(frozen=True, slots=True)
class FaceSeen:
    """One face in an image."""

    box: tuple[float, float, float, float]
    """x, y, width, height in pixels."""
    landmarks: Points = field(repr=False)
    """[5, 2]: the eye on the image's left, the other eye, nose, mouth's left corner, the other."""
    confidence: float
    embedding: NDArray[np.float32] | None = field(default=None, repr=False)
    """Unit length; None where the adapter refused to take one."""
    live: float | None = None
    """What a classifier of attacks says, 0 to 1; None without one."""


class Extractor(Protocol):
    """A set of models."""

    name: str
    dimension: int

    def faces(self, image: Image) -> Sequence[FaceSeen]:
        """All faces in a BGR image, the surest first."""
        ...


def session(path: Any, purpose: str) -> Any:
    """Opens an ONNX model. Raises ModelsUnusable where the file is missing or not one."""
    with needs("faces"):
        import onnxruntime as ort
        from onnxruntime.capi import onnxruntime_pybind11_state as states

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except (states.NoSuchFile, FileNotFoundError):
        raise ModelsUnusable(f"{path}: the {purpose} is missing. {WHERE_MODELS}") from None
    except (states.InvalidProtobuf, states.InvalidGraph, states.Fail, states.InvalidArgument, states.NotImplemented):
        raise ModelsUnusable(f"{path} is not an ONNX model that can be loaded. {WHERE_MODELS}") from None
