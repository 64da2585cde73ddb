"""Proves that a part that is not installed is named with its extra, and that the table of extras is right."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hutong_contract.extras import EXTRAS, MissingExtraError, check_installed, needs

ROOT = Path(__file__).parents[2]
WITHOUT = """
import sys
from importlib.machinery import PathFinder

find = PathFinder.find_spec

def find_others(name, path=None, target=None):
    return None if name.partition(".")[0] in {modules!r} else find(name, path, target)

PathFinder.find_spec = find_others
"""
"""Begins a program that runs as if these modules were not installed."""


def run_without(modules: set[str], program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = WITHOUT.format(modules=modules) + program
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_the_table_names_the_extras_of_the_project_and_all_installs_each() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["optional-dependencies"]
    assert set(EXTRAS) <= set(declared)
    assert declared["all"] == [f"hutong[{','.join(sorted(set(declared) - {'all'}))}]"]


def test_a_missing_module_of_an_extra_names_the_extra() -> None:
    with (
        pytest.raises(MissingExtraError, match=r"numba is not installed: pip install 'hutong\[faces\]'"),
        needs("faces"),
    ):
        raise ModuleNotFoundError("No module named 'numba'", name="numba.core")


def test_a_defect_of_ones_own_is_not_said_to_be_a_missing_extra() -> None:
    with pytest.raises(ModuleNotFoundError) as raised, needs("faces"):
        raise ModuleNotFoundError("No module named 'facepay.typo'", name="facepay.typo")
    assert not isinstance(raised.value, MissingExtraError)


def test_an_extra_that_is_installed_passes_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed("faces")
    monkeypatch.setitem(EXTRAS, "faces", ("no_such_module_here",))
    with pytest.raises(MissingExtraError, match="no_such_module_here"):
        check_installed("faces")


@pytest.mark.process
@pytest.mark.parametrize(
    ("extra", "arguments"),
    [
        ("bench", ["bench", "--help"]),
        ("faces", ["demo"]),
        ("faces", ["face", "--help"]),
        ("postgres", ["check", ".", "--journal", "postgresql://localhost/x"]),
        ("postgres", ["up", "--listen", "127.0.0.1:0", "--journal", "postgresql://localhost/x"]),
    ],
)
def test_a_command_whose_part_is_missing_says_how_to_install_it(extra: str, arguments: list[str]) -> None:
    done = run_without(set(EXTRAS[extra]), "from command.main import main\nmain()", *arguments)
    assert done.returncode == 1, done.stderr
    assert f"pip install 'hutong[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.process
def test_a_network_that_lacks_only_faces_says_how_to_do_without_and_leaves_no_folder(tmp_path: Path) -> None:
    data = tmp_path / "data"
    program = "from command.main import main\nmain()"
    done = run_without(
        {"numba", "llvmlite", "onnxruntime"}, program, "up", "--listen", "127.0.0.1:0", "--data", str(data)
    )
    assert done.returncode == 1, done.stderr
    assert "pip install 'hutong[faces]'" in done.stderr
    assert "--no-faces" in done.stderr
    assert not data.exists()


@pytest.mark.process
def test_without_extras_all_but_their_own_commands_can_be_asked_for_help() -> None:
    light = ["capture", "check", "code", "keys", "participants", "pay", "receipt", "refund", "risk", "settle", "show"]
    light += ["simulate", "token", "void", "barcode"]
    program = f"""
from click.testing import CliRunner
from command.main import main
for name in {light!r}:
    done = CliRunner().invoke(main, [name, "--help"])
    assert done.exit_code == 0, (name, done.output, done.exception)
"""
    heavy = {module for modules in EXTRAS.values() for module in modules}
    done = run_without(heavy, program)
    assert done.returncode == 0, done.stderr


@pytest.mark.process
def test_a_network_without_a_face_service_needs_no_part_of_one(tmp_path: Path) -> None:
    program = """
from pathlib import Path
from hutong_client import HutongClient, HutongError, keys
from sandbox.network import Network
from sandbox.options import NetworkOptions
with Network.start(NetworkOptions(data=Path(sys.argv[1]), listen="127.0.0.1:0", faces=False)) as network:
    assert network.faces is None
    token = network.wallet_tokens["wallet-01"]
    with HutongClient(network.target) as client:
        paid = client.create_payment(
            payer=keys.token(token.reveal(), client.options.requestor), payee=keys.merchant("m1001"),
            amount_minor=100, currency="CNY",
        )
        print(paid.state, paid.reason)
        try:
            client.create_payment(
                payer=keys.face(b"sealed"), payee=keys.merchant("m1001"), amount_minor=1, currency="CNY"
            )
        except HutongError as error:
            print(error)
"""
    done = run_without({"numba", "llvmlite", "onnxruntime"}, program, str(tmp_path / "data"))
    assert done.returncode == 0, done.stderr
    paid, refused = done.stdout.splitlines()
    assert paid == "7 ", "succeeded"
    assert "NO_ROUTE" in refused
    assert "key=face" in refused
