"""What the measurements of `hutong barcode` found, for a person."""

from __future__ import annotations

from typing import Any

from loadtest.barcode_corpus import READERS


def bench_page(report: dict[str, Any]) -> str:
    """The report for people."""
    codes, seen, empty = report["codes"], report["pictures"], report["empty"]
    lines = [f"{codes['count']} distinct codes of {codes['characters']} characters (microseconds a code)"]
    rows = [
        ("hutong: classify, judge twice, route", codes["hutong"]),
        ("hutong: remembered label", codes["hutong_remembered"]),
    ]
    rows += [(f"{name} (npm): take apart only", other) for name, other in codes["others"].items()]
    for name, row in rows:
        figures = (
            f"p50 {row['p50_us']:8.2f}  p99 {row['p99_us']:8.2f}" if "p50_us" in row else f"skipped: {row['skipped']}"
        )
        lines.append(f"  {name:42} {figures}" + (f"  refused {row['refused']}" if row.get("refused") else ""))
    lines.append(
        f"{seen['count']} pictures: read {seen['read']}, zxing-cpp alone {seen['read_by_zxing_alone']}, "
        f"wrong {seen['wrong']}"
    )
    lines += [
        f"  {n:10} {k['ours']:4} of {k['pictures']:4}, zxing-cpp alone {k['zxing']:4}"
        for n, k in seen["by_kind"].items()
    ]
    lines.append(
        f"{empty['count']} pictures without a code: {empty['false']} false readings, "
        f"zxing-cpp alone {empty['false_by_zxing_alone']}"
    )
    missed = [name for name, met in report["targets_met"].items() if not met]
    lines.append("targets: " + ("all met" if not missed else f"missed: {', '.join(missed)}"))
    return "\n".join(lines) + "\n"


def fuzz_page(report: dict[str, Any]) -> str:
    """The report for people."""
    kinds = ", ".join(f"{name} {number}" for name, number in sorted(report["kinds"].items()))
    lines = [f"{report['inputs']} inputs of seed {report['seed']} in {report['seconds']} s: {kinds}"]
    lines += [f"  input {failure['input']}: {failure['problem']}" for failure in report["failures"]]
    lines.append(f"{report['failed']} failures")
    return "\n".join(lines) + "\n"


def corpus_page(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [f"{report['pictures']} pictures; milliseconds of processor time from the file's bytes"]
    names = {"hutong": "hutong", "zxing": "zxing-cpp alone", "opencv": "OpenCV alone"}
    for name, row in report["readers"].items():
        times = f"p50 {row['p50_ms']:8.1f}  p95 {row['p95_ms']:8.1f}" if "p50_ms" in row else ""
        lines.append(f"  {names[name]:16} right {row['right']:6}  false {row['false']:4}  {times}")
    lines.append(f"  {'kind':24}{'pictures':>9}" + "".join(f"{names[name]:>18}" for name in READERS))
    for name, kind in report["kinds"].items():
        lines.append(f"  {name:24}{kind['pictures']:9}" + "".join(f"{kind.get(reader, 0):18}" for reader in READERS))
    ratios, rest = report["times_zxing_where_it_reads"], report["where_zxing_reads_nothing"]
    if ratios:
        told = f"p50 {ratios['p50']}, p95 {ratios['p95']} times its own time"
        lines.append(f"where zxing-cpp reads the code (its four formats of the first attempt): {told}")
    if rest:
        lines.append(
            f"where zxing-cpp reads none: p50 {rest['p50_ms']}, p95 {rest['p95_ms']}, at most {rest['max_ms']} ms"
        )
    lines += [f"  {problem}" for problem in report["problems"]]
    missed = [name for name, met in report["targets_met"].items() if not met]
    lines.append("targets: " + ("all met" if not missed else f"missed: {', '.join(missed)}"))
    return "\n".join(lines) + "\n"
