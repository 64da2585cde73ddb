"""The tree's own promises: readable sizes of files, a module for each group of commands, tests that mirror packages.

Which package may import which is checked by the contracts in pyproject.toml (`make check`).
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "command",
    "facepay",
    "gateway",
    "hutong_client",
    "hutong_contract",
    "loadtest",
    "sandbox",
    "tokenization",
    "verification",
)
SOURCES = ("clients/python", "contract", *(name for name in PACKAGES if not name.startswith("hutong_")))
SMALL = ("command", "sandbox")
LINES_MAX = 400


@pytest.mark.parametrize("package", SMALL)
def test_a_file_has_one_subject_and_so_no_more_lines_than_that_takes(package: str) -> None:
    sizes = {path: len(path.read_text("utf-8").splitlines()) for path in (ROOT / package).rglob("*.py")}
    assert sizes
    assert {str(path): lines for path, lines in sizes.items() if lines > LINES_MAX} == {}


def test_the_command_has_a_module_for_each_group_and_nothing_beside() -> None:
    from command.main import COMMANDS

    known = {module.removeprefix("command.") for module, _ in COMMANDS.values()} | {"main", "options", "printing"}
    found = {
        path.stem for path in (ROOT / "command").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert found - {"__init__"} == known


def test_tests_stand_where_the_packages_do() -> None:
    """A folder of tests is named for the package it tests."""
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.rglob("test_*.py"))}
    packages = {"clients" if name == "hutong_client" else name.removeprefix("hutong_") for name in PACKAGES}
    assert packages <= folders
    beside = {path.name for path in ROOT.iterdir() if path.is_dir()} | {"distribution", "golden"}
    assert folders - packages <= beside


def test_paths_that_pages_name_are_there() -> None:
    """Whatever stands between backquotes and begins with a folder of ours."""
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()}
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    named = {
        f"{page.relative_to(ROOT)}: {one}": ROOT / one
        for page in pages
        for one in re.findall(r"`([\w./-]+/[\w./-]*)`", page.read_text("utf-8"))
        if one.split("/")[0] in folders
    }
    assert len(named) > 60
    assert sorted(said for said, path in named.items() if not path.exists()) == []


def test_the_drawing_names_every_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    drawing = text.split("```")[1]
    names = {"clients" if name == "hutong_client" else name.removeprefix("hutong_") for name in PACKAGES}
    assert {name for name in names if f"{name}/" not in drawing} == set()


def test_every_constant_is_used() -> None:
    """A constant of a module that is named nowhere else in the tree is dead wood."""
    code = {
        path: path.read_text("utf-8")
        for folder in (*SOURCES, "tests", "examples")
        for path in (ROOT / folder).rglob("*.py")
    }
    names = Counter(re.findall(r"\w+", "\n".join(code.values())))
    dead = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, text in code.items()
        for name in re.findall(r"^(_?[A-Z][A-Z0-9_]+)(?:: [^=\n]+)? = ", text, re.MULTILINE)
        if names[name] == 1
    ]
    assert len(code) > 400
    assert dead == []
