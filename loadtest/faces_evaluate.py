"""`hutong face evaluate` and `liveness`: what given models make of given photographs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from facepay import evaluation
from facepay.embedding import Unusable
from facepay.extraction import Extractor, ModelsUnusable, open_pack
from facepay.extraction.quality import QUALITY_RULES, QualityPolicy, the_one
from facepay.frames import FILE_FORMATS, PIXELS_MAX, decode_file, measured
from facepay.liveness import cues
from facepay.liveness.judgement import LABEL, LivenessPolicy, judge
from facepay.liveness.report import as_json, count
from loadtest import faces_plots as face_plots
from loadtest.errors import BenchError
from loadtest.progress import Begin
from sandbox.faces import camera
from sandbox.faces.photographs import read

SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".pbm", ".pnm", ".tif", ".tiff"})
IMAGES_MAX: Final = 20_000
ROC_ROWS: Final = 50
"""Rows of the ROC in the answer; the plot has all."""
FRAME_CROP: Final = 1.2
STILL_CUES: Final = frozenset({"texture", "frequency", "specular", "moire", "classifier"})
"""Cues that one picture can have."""
SIMULATED_POLICY: Final = LivenessPolicy()


def models(folder: Path) -> Extractor:
    """Opens models. Raises BenchError, whose text says what to do."""
    try:
        return open_pack(folder)
    except ModelsUnusable as error:
        raise BenchError(str(error)) from None


@dataclass(slots=True)
class _Seen:
    """What was made of the pictures."""

    vectors: list[evaluation.Scores]
    persons: list[int]
    unreadable: Counter[str]
    """Pictures that could not be decoded, by reason."""
    refused: Counter[str]
    """Pictures that were decoded and not used, by reason."""


def evaluate(images: Path, folder: Path, plots: Path | None, say: Begin) -> dict[str, object]:
    """One folder a person: how many pictures could be read, held a face and were good enough; scores of all pairs, ROC,
    equal error, open-set errors. Draws into `plots` where it is given. Raises BenchError where nothing can be read."""
    if plots is not None:
        face_plots.check()
    extractor = models(folder)
    people = sorted(path for path in images.iterdir() if path.is_dir())
    files = [
        (n, file)
        for n, person in enumerate(people)
        for file in sorted(person.iterdir())
        if file.suffix.lower() in SUFFIXES
    ]
    if len(people) < 2 or not files:
        raise BenchError(
            f"{images} needs a folder for each of at least two people, with images in it ({', '.join(FILE_FORMATS)})"
        )
    if len(files) > IMAGES_MAX:
        raise BenchError(f"{len(files)} images; at most {IMAGES_MAX}")
    seen = _look_at(files, extractor, say("looking at images", len(files)))
    readable = len(files) - seen.unreadable.total()
    if not readable:
        reasons = ", ".join(f"{count} {name}" for name, count in seen.unreadable.most_common())
        raise BenchError(
            f"none of {len(files)} images could be read: {reasons}. {', '.join(FILE_FORMATS)} are read, up to "
            f"{PIXELS_MAX // 1_000_000} megapixels."
        )
    by_rule = {name: count for name, count in seen.refused.items() if name in QUALITY_RULES}
    result: dict[str, object] = {
        "models": extractor.name,
        "dimension": extractor.dimension,
        "people": len(people),
        "images": len(files),
        "readable": readable,
        "unreadable": dict(seen.unreadable),
        "with_a_face": readable - seen.refused["no_face"],
        "detection_rate": round(1 - seen.refused["no_face"] / readable, 4),
        "used": len(seen.vectors),
        "refused": dict(seen.refused),
        "refused_by_quality_rules": {"images": sum(by_rule.values()), **by_rule},
        "quality_rules": asdict(QualityPolicy()),
    }
    if len(set(seen.persons)) < 2:
        return result
    return result | _scores(np.stack(seen.vectors), np.array(seen.persons), plots, f"{images.name}, {extractor.name}")


def _look_at(files: Sequence[tuple[int, Path]], extractor: Extractor, done: Callable[[int], None]) -> _Seen:
    seen = _Seen([], [], Counter(), Counter())
    for person, file in files:
        done(1)
        try:
            image = decode_file(read(file))
        except (Unusable, OSError) as error:
            seen.unreadable[error.reason if isinstance(error, Unusable) else "not_readable"] += 1
            continue
        try:
            found, _ = the_one(image, extractor.faces(image), QualityPolicy())
            if found.embedding is None:
                raise Unusable("no_embedding", "the model refused to take an embedding")
        except Unusable as error:
            seen.refused[error.reason] += 1
            continue
        seen.vectors.append(found.embedding)
        seen.persons.append(person)
    return seen


def _scores(vectors: evaluation.Scores, persons: NDArray[np.int64], plots: Path | None, what: str) -> dict[str, object]:
    both = evaluation.pairs(vectors, persons)
    equal = evaluation.equal_error(both)
    curve = evaluation.roc(both)
    result: dict[str, object] = {
        "genuine": _summary(both.genuine),
        "impostor": _summary(both.impostor),
        "equal_error": asdict(equal) if equal else None,
        "true_match_rate_at_fmr": {str(fmr): evaluation.true_match_at(both, fmr) for fmr in evaluation.FMR_POINTS},
        "roc": [[round(float(value), 6) for value in row] for row in curve[:: max(1, len(curve) // ROC_ROWS)]],
        "fnir_at_fpir": [asdict(one) for one in evaluation.open_set(vectors, persons)],
    }
    if plots is not None:
        result["plots"] = face_plots.draw(plots, both, equal, what)
    return result


def _summary(scores: evaluation.Scores) -> dict[str, object]:
    if not len(scores):
        return {"pairs": 0}
    return {
        "pairs": len(scores),
        "mean": round(float(scores.mean()), 4),
        "sigma": round(float(scores.std()), 4),
        "min": round(float(scores.min()), 4),
        "max": round(float(scores.max()), 4),
    }


def look(paths: Sequence[Path], folder: Path) -> dict[str, object]:
    """Cues of single photographs, or of several as frames of one capture; and the classifier's opinion."""
    extractor = models(folder)
    out: list[dict[str, object]] = []
    for path in paths:
        try:
            image = decode_file(read(path))
            seen, measure = the_one(image, extractor.faces(image), QualityPolicy())
        except Unusable as error:
            out.append({"image": str(path), "error": error.reason, "detail": str(error)})
            continue
        x, y, width, height = seen.box
        side = FRAME_CROP * max(width, height)
        left, top = max(0, round(x + width / 2 - side / 2)), max(0, round(y + height / 2 - side / 2))
        part = image[top : top + round(side), left : left + round(side)]
        found = cues.measure([part], None, "")
        abstained = sorted(STILL_CUES - found.keys() - {"classifier"})
        if seen.live is not None and not cues.is_grey(part):
            found["classifier"] = seen.live
        elif seen.live is not None:
            abstained.append("classifier")
        judged = judge(found, LivenessPolicy())
        out.append(
            {
                "image": str(path),
                "live": judged.live,
                "score": round(judged.score, 4),
                "reason": judged.reason,
                "cues": {name: round(value, 4) for name, value in found.items()},
                "abstained": abstained,
                "species": {name: round(value, 2) for name, value in judged.species.items()},
                "quality": asdict(measure),
            }
        )
    return {
        "label": LABEL,
        "models": extractor.name,
        "operating_point": LivenessPolicy().evidence_min,
        "images": out,
    }


def simulate(shots: int, seed: int, say: Begin) -> dict[str, object]:
    """Error rates on simulated captures, each attack species apart. The detectors see frames and depth alone."""
    challenges = ("turn_left", "turn_right", "nod", "blink")
    counted = {}
    done = say("simulated captures", shots * (1 + len(camera.ATTACKS)))
    for species in (camera.LIVE, *camera.ATTACKS):
        judged = []
        for number in range(shots):
            challenge = challenges[number % len(challenges)]
            shot = camera.take(seed * 100_000 + number, challenge, seed, species)
            judged.append(judge(measured(shot.frames, shot.depth_map, challenge), SIMULATED_POLICY))
            done(1)
        counted[species] = count(species, species == camera.LIVE, judged)
    point = {"operating_point": SIMULATED_POLICY.evidence_min}
    return point | as_json(counted.pop(camera.LIVE), list(counted.values()))
