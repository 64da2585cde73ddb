"""`hutong barcode corpus`: how well pictures are read, beside zxing-cpp alone and OpenCV alone in the same run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from gateway.barcode.found import Effort
from gateway.barcode.readers import Limits, Reader
from hutong_contract.errors import HutongError
from hutong_contract.extras import needs
from loadtest.progress import Begin, unseen

SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
READERS: Final = {"hutong": Effort.LADDER, "zxing": Effort.ZXING, "opencv": Effort.OPENCV}
LIMITS: Final = Limits(cpu_s=10, wall_s=120.0)
RATIO_MAX: Final = 3.0
"""Times zxing-cpp's own time that a picture may take which zxing-cpp reads."""
REST_P95_MS_MAX: Final = 2_000.0
"""What 95 of 100 of the other pictures may take."""
FALSE_MAX: Final = 1 / 1_000
PROBLEMS_SHOWN_MAX: Final = 20


class CorpusError(Exception):
    """The folder is no corpus; the text says what is missing."""


@dataclass(slots=True)
class _Tally:
    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    times: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in READERS})
    false: Counter[str] = field(default_factory=Counter)
    ratios: list[float] = field(default_factory=list)
    rest: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def generate(folder: Path, each: int, seed: int) -> int:
    """Writes `each` pictures of every kind, and what each shows, into an empty folder; the number of pictures.

    The same seed gives the same pictures.

    Raises:
        CorpusError: the folder holds something already, or cannot be written.
    """
    with needs("pictures"):  # where nothing is drawn it is not needed
        import cv2

        from loadtest import barcode_scenes as scenes
    from loadtest.barcodes import distinct_codes

    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise CorpusError(f"{folder} is not empty: name a new folder for the pictures")
        texts = iter(distinct_codes(each * len(scenes.KINDS), seed))
        for kind in scenes.KINDS:
            place = folder / kind.replace(" ", "-").lower()
            place.mkdir()
            for number in range(each):
                chance = np.random.default_rng([seed, scenes.KINDS.index(kind), number])
                one = scenes.sample(kind, number, next(texts), chance)
                suffix, how = (".jpg", [cv2.IMWRITE_JPEG_QUALITY, one.quality]) if one.quality else (".png", [])
                done, data = cv2.imencode(suffix, one.image, how)
                assert done, "OpenCV writes every picture of three channels"
                path = place / f"{number:05d}{suffix}"
                path.write_bytes(bytes(data))
                path.with_suffix(".txt").write_text("".join(one.texts), "utf-8")
    except OSError as error:
        raise CorpusError(f"cannot write {error.filename}: {error.strerror}") from error
    return each * len(scenes.KINDS)


def measure(folder: Path, begin: Begin = unseen) -> dict[str, Any]:
    """Reads every picture with every reader; keys as printed by `--json`.

    A picture's text stands beside it: `NAME.txt` holds the text of the one code that `NAME.png` shows, or nothing where
    it shows none; `NAME.json` holds a list of texts. The kind of a picture is the folder that it lies in.

    Raises:
        CorpusError: there are no pictures with texts.
    """
    pictures = list(_pictures(folder))
    if not pictures:
        raise CorpusError(f"no pictures under {folder}: each needs its text beside it, NAME.txt or NAME.json")
    tally = _Tally()
    advance = begin("pictures", len(pictures))
    with Reader(LIMITS) as reader:
        for path in pictures:
            kind = str(path.parent.relative_to(folder))
            try:
                _measure_one(path, tally.kinds.setdefault(kind, Counter()), tally, reader)
            except (HutongError, OSError, ValueError) as error:
                tally.problems.append(f"{path}: {error}")
            advance(1)
    return _report(tally)


def _pictures(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            yield path


def _expected(path: Path) -> set[str]:
    several = path.with_suffix(".json")
    if several.is_file():
        told = json.loads(several.read_text("utf-8"))
        if not isinstance(told, list) or not all(isinstance(text, str) for text in told):
            raise ValueError(f"{several.name} is no list of texts")
        return set(told)
    one = path.with_suffix(".txt")
    if not one.is_file():
        raise ValueError(f"no {one.name} beside it says what it shows")
    text = one.read_bytes().decode("utf-8").removesuffix("\n")
    return {text} if text else set()


def _measure_one(path: Path, kind: Counter[str], tally: _Tally, reader: Reader) -> None:
    expected, data = _expected(path), path.read_bytes()
    kind["pictures"] += 1
    right: dict[str, bool] = {}
    spent: dict[str, float] = {}
    for name, effort in READERS.items():
        texts, spent[name] = _texts(reader, data, effort)
        right[name] = texts == expected
        kind[name] += right[name]
        tally.false[name] += bool(texts - expected)
        tally.times[name].append(spent[name])
    if not expected:
        return
    texts, first = _texts(reader, data, Effort.ZXING_FIRST)
    if texts == expected and first > 0:
        tally.ratios.append(spent["hutong"] / first)
    elif not right["zxing"]:
        tally.rest.append(spent["hutong"])


def _texts(reader: Reader, data: bytes, effort: Effort) -> tuple[set[str], float]:
    """What a reader says, and its milliseconds of processor time: all it may have, where it was stopped."""
    try:
        reading = reader.read(data, effort)
    except HutongError:
        return set(), LIMITS.cpu_s * 1000.0
    spent = reading.cpu_s if reading.cpu_s else float(LIMITS.cpu_s)
    return {symbol.text for symbol in reading.symbols}, spent * 1000


def _report(tally: _Tally) -> dict[str, Any]:
    count = sum(kind["pictures"] for kind in tally.kinds.values())
    with_code = {name: kind for name, kind in tally.kinds.items() if kind["pictures"]}
    read = {name: sum(kind[name] for kind in with_code.values()) for name in READERS}
    readers = {
        name: {"right": read[name], "false": tally.false[name], **_spread(tally.times[name])} for name in READERS
    }
    ratios, rest = _spread(tally.ratios, ""), _spread(tally.rest)
    behind = sorted(name for name, kind in with_code.items() if kind["hutong"] < max(kind["zxing"], kind["opencv"]))
    return {
        "pictures": count,
        "readers": readers,
        "kinds": {name: dict(kind) for name, kind in sorted(tally.kinds.items())},
        "behind_in": behind,
        "times_zxing_where_it_reads": ratios,
        "where_zxing_reads_nothing": rest,
        "unread_files": len(tally.problems),
        "problems": tally.problems[:PROBLEMS_SHOWN_MAX],
        "targets_met": {
            "no kind behind": not behind,
            "false readings": tally.false["hutong"] <= count * FALSE_MAX,
            "time where zxing-cpp reads": not tally.ratios or ratios["p50"] <= RATIO_MAX,
            "time of the rest": not tally.rest or rest["p95_ms"] <= REST_P95_MS_MAX,
        },
    }


def _spread(values: list[float], unit: str = "_ms") -> dict[str, float]:
    if not values:
        return {}
    p50, p95 = np.percentile(values, (50, 95))
    return {f"p50{unit}": round(float(p50), 2), f"p95{unit}": round(float(p95), 2), f"max{unit}": round(max(values), 2)}
