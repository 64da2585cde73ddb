"""`hutong barcode`: the JSON that other programs read, files that are really written and read, exit statuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from command.barcode import barcode
from command.printing.barcodes import bench_page
from gateway.barcode import fuzz as fuzzing
from loadtest import barcodes as barcode_bench


def run(*arguments: str, stdin: str | bytes = "") -> Result:
    """Where no network runs."""
    return CliRunner().invoke(barcode, list(arguments), input=stdin, env={"HUTONG_TARGET": "127.0.0.1:1"})


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def encode(*more: str) -> str:
    result = run("encode", "--account", "m-1", "--name", "Shop", "--city", "City", *more)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()[0]


def test_decode_gives_one_object_a_line_for_one_payload_a_line() -> None:
    payloads = [encode(), "6612345678901234567", "", "upi://pay?pa=a.b@icici", "nothing"]
    result = run("decode", "-", "--json", stdin="\n".join(payloads) + "\n")
    assert result.exit_code == 0
    assert [shape["kind"] for shape in lines(result)] == ["emv_mpm", "payment_code", "unknown", "link", "unknown"]


def test_decode_survives_bytes_that_are_no_text() -> None:
    result = run("decode", "-", "--json", stdin=b"\xff\xfe\x00\n" + encode().encode() + b"\n")
    assert [shape["kind"] for shape in lines(result)] == ["unknown", "emv_mpm"]


def test_decode_for_people() -> None:
    result = run("decode", encode("--amount", "12.50"))
    assert "hutong" in result.stdout
    assert "1250" in result.stdout


def test_decode_with_a_directory(tmp_path: Path) -> None:
    path = tmp_path / "directory.json"
    merchant = {
        "id": "m",
        "name": "S",
        "acquirers": [{"id": "a"}],
        "accounts": [{"scheme": "hutong", "account": "m-1"}],
    }
    path.write_text(json.dumps({"participants": [{"id": "a", "role": "acquirer"}], "merchants": [merchant]}), "utf-8")
    shape = lines(run("decode", encode(), "--json", "--directory", str(path)))[0]
    assert (shape["route"]["to"], shape["route"]["status"]) == ("a", "routed")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "directory.json").write_bytes(path.read_bytes())
    shape = lines(run("decode", encode(), "--json", "--data", str(tmp_path / "data")))[0]
    assert (shape["route"]["to"], shape["route"]["status"]) == ("a", "routed")
    alone = run("decode", encode(), "--json")
    assert alone.exit_code == 0
    assert lines(alone)[0]["route"]["status"] == "recognised, no network was asked"
    assert "no network answers at 127.0.0.1:1" in alone.stderr
    offline = run("decode", encode(), "--json", "--offline")
    assert (lines(offline)[0]["route"]["status"], offline.stderr) == ("recognised, no network was asked", "")
    named = run("decode", encode(), "--json", "--target", "127.0.0.1:1")
    assert (named.exit_code, json.loads(named.stdout)["error"]["reason"]) == (1, "UNREACHABLE")
    assert run("decode", encode(), "--offline", "--directory", str(path)).exit_code == 2
    path.write_text("{", "utf-8")
    assert run("decode", encode(), "--directory", str(path)).exit_code == 1


def test_encode_draws_and_scan_reads(tmp_path: Path) -> None:
    png, svg, linear = tmp_path / "a.png", tmp_path / "a.svg", tmp_path / "b.png"
    payload = encode("--png", str(png), "--svg", str(svg), "--terminal-symbol", "--level", "Q")
    assert svg.read_text("utf-8").startswith("<svg")
    assert run("encode", "--text", "6612345678901234567", "--symbology", "code128", "--png", str(linear)).exit_code == 0
    result = run("scan", str(png), str(linear), str(tmp_path / "none.png"), "--json")
    first, second, third = lines(result)
    assert result.exit_code == 1, "one file could not be read"
    assert [code["text"] for code in first["codes"]] == [payload]
    assert first["codes"][0]["decoded"]["scheme"] == "hutong"
    assert (second["codes"][0]["format"], second["codes"][0]["decoded"]["kind"]) == ("Code128", "payment_code")
    assert (third["codes"], bool(third["error"])) == ([], True)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["encode"], 2),
        (["encode", "--account", "m 1", "--name", "Shop"], 1),
        (["encode", "--scheme", "visa", "--account", "4", "--name", "S"], 2),
        (["encode", "--text", "北京", "--symbology", "code128", "--png", "/dev/null"], 1),
        (["translate", "6612345678901234567"], 1),
        (["scan"], 2),
        (["nothing"], 2),
    ],
)
def test_exit_statuses(arguments: list[str], status: int) -> None:
    assert run(*arguments).exit_code == status


def test_translate_tells_the_losses() -> None:
    shape = lines(run("translate", "upi://pay?pa=a.b@icici&pn=A&tn=note", "--json"))[0]
    assert (shape["source"], shape["scheme"], shape["route"]["account"]) == ("upi", "hutong", "a.b@icici")
    assert {"path": "query.tn", "name": "query.tn", "reason": "no_place", "value": "4 characters"} in shape["losses"]
    assert run("translate", "upi://pay?pa=a.b@icici", "--to", "bharatqr").exit_code == 0


def test_bench_measures_and_says_why_it_skips(tmp_path: Path) -> None:
    arguments = ["--codes", "100", "--pictures", "8", "--empty", "6", "--node-modules", str(tmp_path), "--json"]
    report = lines(run("bench", *arguments))[0]
    assert report["codes"]["hutong"]["p50_us"] > 0
    assert report["pictures"]["read"] >= report["pictures"]["read_by_zxing_alone"] > 0
    assert report["empty"] == {"count": 6, "false": 0, "false_by_zxing_alone": 0}
    assert all("skipped" in other for other in report["codes"]["others"].values())
    assert not report["targets_met"]["others"], "a target without a baseline is not met"
    assert "npm install" in bench_page(report) or "node" in bench_page(report)


def test_the_codes_of_the_bench_are_two_hundred_characters_and_right() -> None:
    codes = barcode_bench.distinct_codes(50, 3)
    assert len(set(codes)) == 50
    for code in codes:
        assert 190 <= len(code) <= 210
        assert fuzzing.check(code) is None


def test_fuzz_small_run() -> None:
    result = run("fuzz", "--inputs", "6000", "--seed", "2", "--json")
    report = lines(result)[0]
    assert result.exit_code == 0, report
    assert (report["failed"], report["failures"]) == (0, [])
    assert set(report["kinds"]) == {"emv_mpm", "emv_cpm", "payment_code", "link", "unknown", "bill", "credit_transfer"}


def test_fuzz_is_the_same_for_the_same_seed_and_finds_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(fuzzing.texts(50, 1)) == list(fuzzing.texts(50, 1)) != list(fuzzing.texts(50, 2))

    def broken(text: str) -> None:
        raise IndexError(len(text))

    monkeypatch.setattr(fuzzing, "decode", broken)
    result = run("fuzz", "--inputs", "3", "--json")
    assert result.exit_code == 1
    assert lines(result)[0]["failed"] == 3


PAYNOW = ("--scheme", "paynow", "--account", "201403121W", "--name", "Shop", "--country", "SG", "--currency", "SGD")


@pytest.mark.parametrize(
    ("moment", "valid"), [("2029-12-31T23:59:59+08:00", True), ("2030-01-01T00:00:00+08:00", False), ("now", True)]
)
def test_a_code_is_judged_at_the_moment_that_is_given(moment: str, valid: bool) -> None:
    built = run("encode", *PAYNOW, "--expires", "2030-01-01T00:00:00+08:00" if moment != "now" else "2999-01-01T00:00Z")
    assert built.exit_code == 0, built.output
    shape = lines(run("decode", built.stdout.strip(), "--now", moment, "--json"))[0]
    assert shape["profile"]["valid"] == valid
    assert [v["rule"] for v in shape["profile"]["violations"]] == ([] if valid else ["expired"])


def test_without_a_moment_nothing_has_ended() -> None:
    built = run("encode", *PAYNOW, "--expires", "2001-01-01T00:00:00Z").stdout.strip()
    assert lines(run("decode", built, "--json"))[0]["profile"]["valid"]


@pytest.mark.parametrize("moment", ["1893455999", "1893455999000", "1893455999000000"])
def test_a_moment_may_be_counted_from_1970(moment: str) -> None:
    """2030 begins in Singapore at 1893427200."""
    built = run("encode", *PAYNOW, "--expires", "2030-01-01T00:00:00+08:00").stdout.strip()
    assert not lines(run("decode", built, "--now", moment, "--json"))[0]["profile"]["valid"]


@pytest.mark.parametrize("moment", ["", "soon", "2030-01-01T00:00:00", "31.12.2029"])
def test_a_moment_needs_a_zone(moment: str) -> None:
    said = run("decode", "x", "--now", moment)
    assert said.exit_code == 2
    assert "zone" in said.output
