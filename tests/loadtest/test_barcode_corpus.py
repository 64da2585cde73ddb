"""`hutong barcode corpus`: pictures from a seed, judged beside the libraries alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from command.barcode import barcode
from command.printing.barcodes import corpus_page
from gateway.barcode.symbols import render_png
from loadtest import barcode_corpus
from loadtest.barcode_scenes import KINDS

pytestmark = [pytest.mark.process, pytest.mark.slow]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_seed_gives_the_same_pictures(tmp_path: Path) -> None:
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        assert barcode_corpus.generate(tmp_path / name, 1, seed) == len(KINDS)
    first = files_of(tmp_path / "a")
    assert first == files_of(tmp_path / "b")
    assert first != files_of(tmp_path / "c")
    assert len(first) == 2 * len(KINDS)


def test_a_generated_corpus_is_read_beside_the_libraries(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    ran = CliRunner().invoke(barcode, ["corpus", str(folder), "--generate", "1", "--seed", "2", "--json"])
    assert ran.exit_code == 0, ran.output
    report = json.loads(ran.stdout)
    assert report["pictures"] == len(KINDS)
    readers = report["readers"]
    assert readers["hutong"]["right"] > readers["zxing"]["right"] > 0
    assert readers["opencv"]["right"] > 0
    assert readers["hutong"]["false"] == 0
    assert sum(kind["pictures"] for kind in report["kinds"].values()) == len(KINDS)
    assert "targets:" in corpus_page(report)


def test_what_is_wrong_is_counted_and_what_cannot_be_judged_is_told(tmp_path: Path) -> None:
    for name, text in (("right", "right"), ("wrong", "something else"), ("none", "")):
        (tmp_path / f"{name}.png").write_bytes(render_png("right"))
        (tmp_path / f"{name}.txt").write_text(text + "\n", "utf-8")
    (tmp_path / "list.png").write_bytes(render_png("right"))
    (tmp_path / "list.json").write_text('["right"]', "utf-8")
    (tmp_path / "untold.png").write_bytes(render_png("right"))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "broken.txt").write_text("", "utf-8")
    ran = CliRunner().invoke(barcode, ["corpus", str(tmp_path), "--json"])
    assert ran.exit_code == 1
    report = json.loads(ran.stdout)
    assert report["kinds"]["."]["pictures"] == 5
    assert report["readers"]["hutong"]["right"] == 2 + 1
    assert report["readers"]["hutong"]["false"] == 2
    assert not report["targets_met"]["false readings"]
    assert report["unread_files"] == 1
    assert "untold.txt" in report["problems"][0]


@pytest.mark.parametrize("made", [False, True])
def test_a_folder_that_is_no_corpus_is_refused(tmp_path: Path, made: bool) -> None:
    (tmp_path / "note").write_text("x", "utf-8")
    arguments = ["corpus", str(tmp_path), *(["--generate", "1"] if made else [])]
    ran = CliRunner().invoke(barcode, arguments)
    assert ran.exit_code == 1
    assert ("not empty" if made else "no pictures") in ran.output
