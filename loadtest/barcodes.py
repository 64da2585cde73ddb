"""`hutong barcode bench` and `fuzz`: figures with a baseline from the same run."""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import zxingcpp

from gateway.barcode import fuzz as fuzzing
from gateway.barcode.decode import decode, forget
from gateway.barcode.found import Effort
from gateway.barcode.raster import Picture
from gateway.barcode.read import read_picture
from gateway.barcode.tlv import join, seal
from loadtest import pictures
from loadtest.progress import Begin, unseen

P50_US_MAX: Final = 40.0
P99_US_MAX: Final = 150.0
OTHERS: Final = ("emvqr", "emvco-merchant-parse")
"""npm packages (ISC) that take EMV merchant codes apart; neither judges, recognises schemes, or routes."""
NODE_S_MAX: Final = 120
FAILURES_SHOWN_MAX: Final = 20
_NODE: Final = """
const [name, file] = process.argv.slice(1);
const library = require(name), parse = library.decode || library.Parse;
const codes = JSON.parse(require('fs').readFileSync(file, 'utf8'));
let refused = 0;
const time = code => { const start = process.hrtime.bigint();
  try { parse(code); } catch (error) { refused++; }
  return Number(process.hrtime.bigint() - start) / 1000; };
codes.slice(0, 2000).map(time);
refused = 0;
const times = codes.map(time);
console.log(JSON.stringify({times, refused}));
"""


def measure(codes: int, seen: int, empty: int, seed: int, node_modules: Path, begin: Begin = unseen) -> dict[str, Any]:
    """The whole report; keys as printed by `--json`."""
    advance = begin("codes and pictures", 2 + seen + empty)
    texts = distinct_codes(codes, seed)
    report: dict[str, Any] = {"codes": {"count": codes, "characters": len(texts[0])}}
    report["codes"]["hutong"] = _spread(_times_us(texts, decode))
    report["codes"]["hutong_remembered"] = _spread(_remembered_us(texts[0]))
    advance(1)
    report["codes"]["others"] = {name: _other(name, texts, node_modules) for name in OTHERS}
    advance(1)
    report["pictures"] = _read_all(seen, seed, lambda: advance(1))
    report["empty"] = _false_readings(empty, seed, lambda: advance(1))
    ours = report["codes"]["hutong"]
    report["targets_met"] = {
        "p50": ours["p50_us"] <= P50_US_MAX,
        "p99": ours["p99_us"] <= P99_US_MAX,
        "others": sum("p50_us" in other for other in report["codes"]["others"].values()) >= 2,
        "reading": report["pictures"]["read"] >= report["pictures"]["read_by_zxing_alone"],
        "false_readings": report["empty"]["false"] * 1000 <= max(empty, 1),
    }
    return report


def distinct_codes(count: int, seed: int) -> list[str]:
    """Dynamic codes of some 200 characters, no two the same, so that nothing is remembered between them."""
    codes = []
    for number in range(count):
        digits = f"{(seed * 7_919 + number) % 1_000_000:06d}"
        merchant = join([("00", "ID.DANA.WWW"), ("01", "936009153030" + digits), ("02", "090302325"), ("03", "UMI")])
        national = join([("00", "ID.CO.QRIS.WWW"), ("02", "ID10265" + digits + "57"), ("03", "UMI")])
        objects = [("00", "01"), ("01", "12"), ("26", merchant), ("51", national), ("52", "5812"), ("53", "360")]
        objects += [("54", f"{number + 1}.00"), ("58", "ID"), ("59", "Warung Kopi Nusa"), ("60", "Bandung")]
        codes.append(seal([*objects, ("62", "0506" + digits)]))
    return codes


def _times_us(texts: Iterable[str], work: Callable[[str], object]) -> list[float]:
    forget()
    gc.collect()
    clock = time.perf_counter_ns
    times = []
    for text in texts:
        start = clock()
        work(text)
        times.append((clock() - start) / 1000)
    return times


def _remembered_us(text: str) -> list[float]:
    """A label on the counter that is scanned again and again."""
    static = seal([("01", "11") if pair[0] == "01" else pair for pair in decode(text).objects[:-1]])
    decode(static)
    clock = time.perf_counter_ns
    times = []
    for _ in range(10_000):
        start = clock()
        decode(static)
        times.append((clock() - start) / 1000)
    return times


def _spread(times: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(times, (50, 99))
    return {"p50_us": round(float(p50), 2), "p99_us": round(float(p99), 2), "max_us": round(max(times), 1)}


def _other(name: str, texts: list[str], node_modules: Path) -> dict[str, Any]:
    """Another library on the same codes in the same run, each call timed inside its own process."""
    node = shutil.which("node")
    if node is None:
        return {"skipped": "node is not installed"}
    if not (node_modules / name).is_dir():
        return {"skipped": f"npm install --prefix {node_modules.parent} {' '.join(OTHERS)}"}
    file = node_modules / ".codes.json"
    file.write_text(json.dumps(texts), "utf-8")
    try:
        ran = subprocess.run(  # noqa: S603 - a fixed program, and our own file
            [node, "-e", _NODE, str((node_modules / name).resolve()), str(file.resolve())],
            capture_output=True, check=True, timeout=NODE_S_MAX,
        )  # fmt: skip
        answer = json.loads(ran.stdout.splitlines()[-1])
        return {**_spread(answer["times"]), "refused": answer["refused"]}
    except (subprocess.SubprocessError, ValueError) as error:
        return {"skipped": f"failed: {type(error).__name__}"}
    finally:
        file.unlink(missing_ok=True)


def _zxing_alone(grey: Picture) -> set[str]:
    """The baseline: what zxing-cpp reads by itself with the same formats."""
    formats = zxingcpp.BarcodeFormats([zxingcpp.BarcodeFormat.QRCode, zxingcpp.BarcodeFormat.Code128])
    read = zxingcpp.read_barcodes(grey, formats=formats, text_mode=zxingcpp.TextMode.Plain)
    return {barcode.text for barcode in read if barcode.valid}


def _read_all(count: int, seed: int, step: Callable[[], None]) -> dict[str, Any]:
    chance = np.random.default_rng(seed)
    texts = distinct_codes(max(count, 1), seed)
    kinds: dict[str, Counter[str]] = {name: Counter() for name in pictures.DISTORTIONS}
    total: Counter[str] = Counter()
    for number in range(count):
        name = list(kinds)[number % len(kinds)]
        linear = number // len(kinds) % 4 == 3
        text = f"66{number:017d}" if linear else texts[number]
        grey = pictures.seen(text, "code128" if linear else "qr", name, chance)
        alone = text in _zxing_alone(grey)
        found = {symbol.text for symbol in read_picture(grey, Effort.LADDER)}
        row = {"pictures": 1, "alone": alone, "read": text in found, "wrong": bool(found - {text})}
        row["lost"] = alone and text not in found
        kinds[name].update(row)
        total.update(row)
        step()
    return {
        "count": count,
        "read": total["read"],
        "read_by_zxing_alone": total["alone"],
        "lost_to_zxing": total["lost"],
        "wrong": total["wrong"],
        "by_kind": {
            name: {"pictures": c["pictures"], "zxing": c["alone"], "ours": c["read"]} for name, c in kinds.items()
        },
    }


def _false_readings(count: int, seed: int, step: Callable[[], None]) -> dict[str, Any]:
    chance = np.random.default_rng(seed + 1)
    wrong = alone = 0
    for number in range(count):
        grey = pictures.empty(number, chance)
        alone += bool(_zxing_alone(grey))
        wrong += bool(read_picture(grey, Effort.LADDER))
        step()
    return {"count": count, "false": wrong, "false_by_zxing_alone": alone}


def fuzz(inputs: int, seed: int, begin: Begin = unseen) -> dict[str, Any]:
    """Tries mutated codes; `failures` says what went wrong and for which input of the seed, never the input itself."""
    failures: list[dict[str, Any]] = []
    kinds: Counter[str] = Counter()
    count = 0
    started = time.monotonic()
    advance = begin("inputs", inputs)
    for number, text in enumerate(fuzzing.texts(inputs, seed)):
        problem = fuzzing.check(text)
        if problem is not None:
            count += 1
            if len(failures) < FAILURES_SHOWN_MAX:
                failures.append({"input": number, "problem": problem})
        kinds[decode(text).kind] += 1
        if number % 1_000 == 999:
            advance(1_000)
    seconds = round(time.monotonic() - started, 1)
    return {
        "inputs": inputs,
        "seed": seed,
        "seconds": seconds,
        "kinds": dict(kinds),
        "failed": count,
        "failures": failures,
    }
