"""Whether a face is good enough to enrol or identify: size, blur, pose. Pure but for the resize."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from facepay.embedding import Unusable
from facepay.extraction.interface import FaceSeen, Image, Points
from hutong_contract.extras import needs

with needs("faces"):
    import cv2


QUALITY_RULES: Final = ("several_faces", "too_small", "turned", "blurred")
"""Reasons for which a picture with a face in it is refused by `the_one`."""


@dataclass(frozen=True, slots=True)
class QualityPolicy:
    """When a face is refused."""

    side_px_min: float = 48
    """Shorter side of the face; embedders take 112."""
    sharpness_min: float = 25.0
    """Variance of the Laplacian of the face at 112 pixels; below it is out of focus or moved."""
    turn_max: float = 0.45
    """How far the nose may lie from the middle of the eyes, in eye distances: about 35 degrees."""
    second_face_share: float = 0.35
    """A second face at least this large (by area, of the largest) makes it unclear who is meant."""


@dataclass(frozen=True, slots=True)
class Quality:
    """What was measured."""

    side_px: float
    sharpness: float
    turn: float


def quality(image: Image, face: FaceSeen) -> Quality:
    """Measures one face."""
    x, y, width, height = (round(value) for value in face.box)
    crop = image[max(0, y) : max(0, y) + max(1, height), max(0, x) : max(0, x) + max(1, width)]
    grey = cv2.cvtColor(cv2.resize(crop, (112, 112), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    sharpness = float(cv2.Laplacian(grey, cv2.CV_64F).var())
    return Quality(float(min(width, height)), sharpness, turn(face.landmarks))


def turn(landmarks: Points) -> float:
    """How far the nose lies sideways from between the eyes, in eye distances."""
    left, right, nose = landmarks[0], landmarks[1], landmarks[2]
    across = right - left
    distance = float(np.hypot(*across))
    if distance < 1e-6:
        return 1.0
    return abs(float(np.dot(nose - (left + right) / 2, across / distance))) / distance


def the_one(image: Image, faces: Sequence[FaceSeen], policy: QualityPolicy) -> tuple[FaceSeen, Quality]:
    """The one usable face. Raises Unusable: no_face, several_faces, too_small, blurred, turned."""
    if not faces:
        raise Unusable("no_face", "no face was found; look into the camera, in better light")
    ordered = sorted(faces, key=lambda face: -face.box[2] * face.box[3])
    first = ordered[0]
    area = first.box[2] * first.box[3]
    if len(ordered) > 1 and ordered[1].box[2] * ordered[1].box[3] >= policy.second_face_share * area:
        raise Unusable("several_faces", f"{len(ordered)} faces; only one person may stand before the camera")
    measured = quality(image, first)
    tests = (
        (
            "too_small",
            measured.side_px >= policy.side_px_min,
            f"the face is {measured.side_px:.0f} pixels; come nearer",
        ),
        ("turned", measured.turn <= policy.turn_max, "the face is turned away; look into the camera"),
        ("blurred", measured.sharpness >= policy.sharpness_min, "the face is blurred; hold still"),
    )
    for reason, good, text in tests:
        if not good:
            raise Unusable(reason, text)
    return first, measured
