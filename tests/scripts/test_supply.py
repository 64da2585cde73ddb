"""What the program is made of: the bill is complete and true, licences are checked, and all is pinned by hash."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from email.message import Message
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tests.deadlines import START_S

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "supply.py"


@pytest.fixture(scope="module")
def supply() -> ModuleType:
    spec = importlib.util.spec_from_file_location("supply", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=START_S)


def distribution(**about: str | list[str]) -> SimpleNamespace:
    message = Message()
    for name, values in about.items():
        for value in [values] if isinstance(values, str) else values:
            message[name.replace("_", "-")] = value
    return SimpleNamespace(metadata=message, version="1.0", requires=[])


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("LGPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-2.0-only OR (MIT AND AGPL-3.0-only)", False),
        ("(GPL-2.0-only OR Apache-2.0) AND BSD-3-Clause", True),
        ("BSD-2-Clause AND Apache-2.0 WITH LLVM-exception", True),
        ("GPL-3.0-only WITH GCC-exception-3.1", False),
        ("MIT GPL-3.0-only", False),
    ],
)
def test_an_expression_is_allowed_where_it_can_be_met(supply: ModuleType, expression: str, allowed: bool) -> None:
    assert supply.is_allowed(expression, supply.ALLOWED) is allowed


def test_a_licence_that_we_do_not_take_is_named(supply: ModuleType) -> None:
    problems = supply.refused(
        {
            "good": distribution(License_Expression="MIT"),
            "old": distribution(Classifier=["License :: OSI Approved :: Apache Software License"]),
            "copyleft": distribution(License_Expression="GPL-3.0-or-later"),
            "classified": distribution(
                Classifier=["License :: OSI Approved :: GNU Affero General Public License v3"], License="AGPL"
            ),
            "silent": distribution(),
            "psycopg": distribution(License_Expression="LGPL-3.0-only"),
            "other-lgpl": distribution(License_Expression="LGPL-3.0-only"),
        }
    )
    assert sorted(text.split()[0] for text in problems) == ["classified", "copyleft", "other-lgpl", "silent"]


def test_every_licence_here_is_one_that_we_take() -> None:
    done = run("licences")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_bill_names_everything_with_its_hashes(tmp_path: Path, supply: ModuleType) -> None:
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    for path in (one, other):
        done = run("sbom", str(path))
        assert (done.returncode, done.stderr) == (0, "")
    assert one.read_bytes() == other.read_bytes()
    bill = json.loads(one.read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    scopes = {component["name"]: component["scope"] for component in bill["components"]}
    assert (scopes["grpcio"], scopes["psycopg"], scopes["hypothesis"]) == ("required", "optional", "excluded")
    lock = supply.locked((ROOT / "requirements.lock").read_text())
    here = supply.installed()
    assert set(lock) & set(here) <= set(scopes)
    for component in bill["components"]:
        assert component["licenses"][0]["expression"]
        if component["name"] in lock:
            assert component["version"] == here[component["name"]].version
            digests = [one["hashes"][0]["content"] for one in component["externalReferences"]]
            assert digests == lock[component["name"]][component["version"]]
    known = {bill["metadata"]["component"]["bom-ref"], *(one["bom-ref"] for one in bill["components"])}
    for edge in bill["dependencies"]:
        assert {edge["ref"], *edge["dependsOn"]} <= known


def test_what_the_lock_has_not_is_refused(supply: ModuleType) -> None:
    found = {"hutong": distribution(License_Expression="MIT"), "stray": distribution(License_Expression="MIT")}
    with pytest.raises(supply.SupplyError, match=r"stray 1\.0 is installed"):
        supply.bill(found, {"stray": {"2.0": ["0" * 64]}})
    with pytest.raises(supply.SupplyError, match="no hashes"):
        supply.locked("stray==1.0\n")


def test_everything_that_make_fetches_is_pinned_by_hash(supply: ModuleType) -> None:
    for name in ("requirements.lock", "scripts/locks/bootstrap.txt", "scripts/locks/build.txt"):
        assert supply.locked((ROOT / name).read_text()), name
    commands = (ROOT / "Makefile").read_text().replace("\\\n", " ").splitlines()
    for command in commands:
        if re.search(r"\b(pip install|uv build)\b", command):
            assert re.search(r"--require-hashes|BUILD_PINS", command), command
