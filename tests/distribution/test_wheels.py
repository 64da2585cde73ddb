"""Builds both wheels, installs them into clean environments, and runs there what their users would run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deadlines import START_S, wait_until

pytestmark = [pytest.mark.process, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "python"
UV = Path(sys.executable).with_name("uv")
CLIENT_BYTES_MAX = 70_000_000
CLIENT_PACKAGES_MAX = 8
INSTALL_S = 4 * START_S
"""For a build or an installation: packages may have to be downloaded first."""
NO_INDEX = re.compile(r"(?i)failed to fetch|error sending request|could not connect|dns error|network connectivity")
"""What uv says where no package index can be reached."""


def run(*command: str | Path, ok: bool = True, seconds: float = START_S, cwd: Path | None = None) -> str:
    """What a program printed on both of its streams; fails unless it ended as expected."""
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=seconds,
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")},
    )
    assert (done.returncode == 0) is ok, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


@dataclass(frozen=True)
class Environment:
    """A virtual environment with nothing but what was installed into it."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        (found,) = self.folder.glob("lib/python*/site-packages")
        return found


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of both wheels and source distributions, built as `make wheels` does."""
    probe = [str(UV), "pip", "install", "--dry-run", "--no-cache", "--python", sys.executable, "--target"]
    nowhere = tmp_path_factory.mktemp("probe")
    asked = subprocess.run(
        [*probe, str(nowhere), "hatchling"], capture_output=True, text=True, check=False, timeout=INSTALL_S
    )
    if asked.returncode and NO_INDEX.search(asked.stderr):
        pytest.skip(f"no package index can be reached: {asked.stderr.strip().splitlines()[-1]}")
    folder = tmp_path_factory.mktemp("dist")
    run(UV, "build", "--all-packages", "--out-dir", folder, seconds=INSTALL_S, cwd=ROOT)
    return folder


def made(tmp_path_factory: pytest.TempPathFactory, wheels: Path, *wanted: str) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("environment") / "venv")
    run(UV, "venv", "--python", sys.executable, environment.folder)
    run(UV, "pip", "install", "--python", environment.python, "--find-links", wheels, *wanted, seconds=INSTALL_S)
    return environment


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Environment:
    """An environment with `hutong-client`."""
    return made(tmp_path_factory, wheels, "hutong-client")


@pytest.fixture(scope="session")
def application(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Environment:
    """An environment with `hutong` without extras."""
    return made(tmp_path_factory, wheels, "hutong")


def test_both_wheels_and_source_distributions_are_built_with_their_licence(wheels: Path) -> None:
    assert {file.name.split("-")[0] for file in wheels.glob("*.whl")} == {"hutong", "hutong_client"}
    assert {file.name.split("-")[0] for file in wheels.glob("*.tar.gz")} == {"hutong", "hutong_client"}
    for wheel in wheels.glob("*.whl"):
        assert any(name.endswith("licenses/LICENSE") for name in zipfile.ZipFile(wheel).namelist()), wheel.name
    (app,) = wheels.glob("hutong-*.whl")
    assert not [name for name in zipfile.ZipFile(app).namelist() if name.startswith("hutong_c")], "no file twice"


def test_the_client_is_small_and_all_names_that_it_installs_are_its_own(client: Environment) -> None:
    distributions = list(client.packages.glob("*.dist-info"))
    assert len(distributions) <= CLIENT_PACKAGES_MAX, distributions
    size = sum(file.stat().st_size for file in client.packages.rglob("*") if file.is_file())
    assert size <= CLIENT_BYTES_MAX
    (own,) = (one for one in distributions if one.name.startswith("hutong_client"))
    names = {line.split(",")[0].split("/")[0] for line in (own / "RECORD").read_text().splitlines()}
    assert all(name.startswith("hutong") for name in names), names
    for package in ("hutong", "hutong_client", "hutong_contract"):
        assert (client.packages / package / "py.typed").is_file()


def test_importing_the_client_loads_nothing_heavy_and_every_module_of_it_can_be_imported(client: Environment) -> None:
    loaded = "import sys, hutong_client; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    installed = {file.name.removesuffix(".py") for file in client.packages.iterdir()}
    found = set(run(client.python, "-c", loaded).split()) & installed
    assert found <= {"google", "grpc", "hutong", "hutong_client", "hutong_contract", "typing_extensions"}
    every = """
import importlib, pkgutil
for name in ("hutong", "hutong_client", "hutong_contract"):
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        importlib.import_module(module.name)
        print(module.name)
"""
    imported = run(client.python, "-c", every).split()
    assert {"hutong_client.aio", "hutong_contract.capture", "hutong.gateway.v1.payment_pb2_grpc"} <= set(imported)


def test_a_users_program_sees_types(client: Environment, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from hutong_client import AsyncHutongClient, HutongClient, keys\n"
        "\n"
        "def blocking(client: HutongClient) -> None:\n"
        "    reveal_type(client.create_payment(payer=keys.payment_code('6'), payee=keys.merchant('m1')))\n"
        "    reveal_type(client.watch_payments())\n"
        "    reveal_type(client.request_token('issuer-a', '6'))\n"
        "    client.capture_payment(17)\n"
        "    client.create_payment(payer=keys.payment_code('6'), payee=keys.merchant('m1'), amount=5)\n"
        "\n"
        "async def awaited(client: AsyncHutongClient) -> None:\n"
        "    reveal_type(await client.get_receipt('p1'))\n"
        "    reveal_type((await client.reserve_code(b'')).reveal())\n"
    )
    said = run(
        *(sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-executable", client.python),
        *("--cache-dir", tmp_path / "cache", program.name),
        ok=False,
        cwd=tmp_path,
    ).splitlines()
    revealed = [
        re.sub(r"\b(builtins|typing|collections\.abc)\.", "", line.split('"')[1]) for line in said if "Reveal" in line
    ]
    assert revealed == [
        "hutong.gateway.v1.payment_pb2.Payment",
        "Iterator[hutong.gateway.v1.payment_pb2.PaymentEvent]",
        "hutong_contract.secret.Secret[str]",
        "hutong.gateway.v1.payment_pb2.Receipt",
        "str",
    ]
    errors = [line for line in said if ": error:" in line]
    assert len(errors) == 2, said
    assert "arg-type" in errors[0]
    assert "call-arg" in errors[1]


def test_the_application_without_extras_serves_its_light_commands_and_names_what_others_need(
    application: Environment, tmp_path: Path
) -> None:
    hutong = application.folder / "bin" / "hutong"
    assert "pay" in run(hutong, "--help")
    assert '"scheme": "upi"' in run(hutong, "barcode", "decode", "upi://pay?pa=a.b@icici&am=10", "--json")
    assert "pip install 'hutong[faces]'" in run(hutong, "demo", ok=False)
    assert "pip install 'hutong[pictures]'" in run(
        hutong, "up", "--listen", "127.0.0.1:0", "--data", tmp_path / "data", ok=False
    )
    assert "pip install 'hutong[bench]'" in run(hutong, "bench", ok=False)
    assert "pip install 'hutong[postgres]'" in run(
        hutong, "check", tmp_path, "--journal", "postgresql://127.0.0.1/x", ok=False
    )


@pytest.fixture
def network(tmp_path_factory: pytest.TempPathFactory, wheels: Path, tmp_path: Path) -> Iterator[str]:
    """The target of a network that the installed application runs."""
    environment = made(tmp_path_factory, wheels, "hutong[faces,pictures]")
    data = tmp_path / "data"
    command = [environment.folder / "bin" / "hutong", "up", "--data", data, "--listen", "127.0.0.1:0", "--accounts"]
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: (data / "network.json").exists() or process.poll() is not None, START_S)
            assert process.poll() is None
            yield str(json.loads((data / "network.json").read_text())["target"])
        finally:
            process.terminate()
            process.wait(START_S)


def test_the_examples_run_on_the_client_alone_against_the_installed_application(
    client: Environment, network: str
) -> None:
    assert sorted(EXAMPLES.glob("*.py")), "the examples are there"
    for program in EXAMPLES.glob("*.py"):
        assert "usage" in run(client.python, program, "--help")
    payer = ("--target", network, "--issuer", "issuer-a", "--account", "6217000130000009")
    code = run(client.python, EXAMPLES / "wallet.py", *payer, "show").strip()
    charged = run(
        *(client.python, EXAMPLES / "terminal.py", "--target", network, "--merchant", "m1001"),
        *("--terminal", "m1001t1", "charge", code, "1250", "--order", "order 1"),
    )
    assert "12.50 CNY" in charged
    measured = run(client.python, EXAMPLES / "probe.py", *payer, "--seconds", "0.5", "--callers", "4")
    assert "SUCCEEDED" in measured
