"""`hutong face evaluate` and `liveness`: what given models make of given photographs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click
import numpy as np
from numpy.typing import NDArray

from clients.command.face_plots import Curve, draw
from clients.faces import camera
from facepay import evaluation
from facepay.embedding import Unusable
from facepay.extraction import Extractor, ModelsUnusable, open_pack
from facepay.extraction.quality import QualityPolicy, the_one
from facepay.frames import BYTES_MAX, decode, measured
from facepay.liveness import cues
from facepay.liveness.judgement import LABEL, LivenessPolicy, judge
from facepay.liveness.report import as_json, count

SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".pgm"})
IMAGES_MAX: Final = 20_000
FRAME_CROP: Final = 1.2
SIMULATED_POLICY: Final = LivenessPolicy()


def models(folder: Path) -> Extractor:
    """Opens models or ends the command with the text that says what to do."""
    try:
        return open_pack(folder)
    except ModelsUnusable as error:
        raise click.ClickException(str(error)) from None


def read(path: Path) -> bytes:
    """A file's bytes, bounded. Raises Unusable."""
    if path.stat().st_size > BYTES_MAX:
        raise Unusable("too_large", f"{path.name} is larger than {BYTES_MAX} bytes")
    return path.read_bytes()


def evaluate(
    images: Path, folder: Path, plots: Path, say: Callable[[str, int], Callable[[int], None]]
) -> dict[str, object]:
    """One folder a person: detection rate, scores, ROC, open-set errors; plots beside."""
    extractor = models(folder)
    people = sorted(path for path in images.iterdir() if path.is_dir())
    files = [
        (n, file)
        for n, person in enumerate(people)
        for file in sorted(person.iterdir())
        if file.suffix.lower() in SUFFIXES
    ]
    if len(people) < 2 or not files:
        raise click.ClickException(f"{images} needs one folder for each of at least two people, with images in them")
    if len(files) > IMAGES_MAX:
        raise click.ClickException(f"{len(files)} images; at most {IMAGES_MAX}")
    done = say("looking at images", len(files))
    refused: Counter[str] = Counter()
    vectors, persons = [], []
    for person, file in files:
        try:
            image = decode(read(file))
            seen, _ = the_one(image, extractor.faces(image), QualityPolicy())
            if seen.embedding is None:
                raise Unusable("not_live", "the model refused to take an embedding")
            vectors.append(seen.embedding)
            persons.append(person)
        except Unusable as error:
            refused[error.reason] += 1
        done(1)
    result: dict[str, object] = {
        "models": extractor.name,
        "dimension": extractor.dimension,
        "people": len(people),
        "images": len(files),
        "used": len(vectors),
        "detection_rate": round(1 - (refused["no_face"] / len(files)), 4),
        "refused": dict(refused),
    }
    return result | (_scores(np.stack(vectors), np.array(persons), plots) if len(set(persons)) > 1 else {})


def _scores(vectors: evaluation.Scores, persons: NDArray[np.int64], plots: Path) -> dict[str, object]:
    both = evaluation.pairs(vectors, persons)
    curve = evaluation.roc(both)
    found = evaluation.open_set(vectors, persons)
    plots.mkdir(parents=True, exist_ok=True)
    edges = np.linspace(-0.4, 1.0, 71)
    shapes = [
        Curve(name, (edges[:-1] + edges[1:]) / 2, np.histogram(scores, edges, density=True)[0])
        for name, scores in (("genuine", both.genuine), ("impostor", both.impostor))
        if len(scores)
    ]
    draw(plots / "scores.png", "Scores of pairs", ("cosine", "density"), shapes)
    draw(
        plots / "roc.png",
        "Receiver operating characteristic",
        ("false match rate", "true match rate"),
        [Curve("all pairs", curve[:, 1], curve[:, 2])],
        log_x=True,
    )
    return {
        "genuine": _summary(both.genuine),
        "impostor": _summary(both.impostor),
        "true_match_rate_at_fmr": {str(fmr): evaluation.true_match_at(both, fmr) for fmr in evaluation.FMR_POINTS},
        "roc": [[round(float(value), 6) for value in row] for row in curve[::8]],
        "fnir_at_fpir": [asdict(one) for one in found],
        "plots": [str(plots / "scores.png"), str(plots / "roc.png")],
    }


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
            image = decode(read(path))
            seen, measure = the_one(image, extractor.faces(image), QualityPolicy())
        except Unusable as error:
            out.append({"image": str(path), "error": error.reason, "detail": str(error)})
            continue
        x, y, width, height = seen.box
        side = FRAME_CROP * max(width, height)
        left, top = max(0, round(x + width / 2 - side / 2)), max(0, round(y + height / 2 - side / 2))
        found = cues.measure([image[top : top + round(side), left : left + round(side)]], None, "")
        if seen.live is not None:
            found["classifier"] = seen.live
        judged = judge(found, LivenessPolicy())
        out.append(
            {
                "image": str(path),
                "live": judged.live,
                "score": round(judged.score, 4),
                "reason": judged.reason,
                "cues": {name: round(value, 4) for name, value in found.items()},
                "quality": asdict(measure),
            }
        )
    return {"label": LABEL, "models": extractor.name, "images": out}


def simulate(shots: int, seed: int, say: Callable[[str, int], Callable[[int], None]]) -> dict[str, object]:
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
    return as_json(counted.pop(camera.LIVE), list(counted.values()))
