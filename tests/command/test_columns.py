"""Columns line up whatever is in them, and the commands that people call often import little."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from command.printing.columns import facts, table
from sandbox.network import Network
from sandbox.options import NetworkOptions
from tests.deadlines import START_S

HEAVY = ("rich", "numpy", "cv2", "numba", "onnxruntime", "zxingcpp", "sqlite3", "cryptography", "gateway", "facepay")
"""Packages that take longer to import than a payment to make."""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with Network.start(NetworkOptions(data=tmp_path_factory.mktemp("data"), listen="127.0.0.1:0")) as started:
        yield started


def test_facts_line_up_and_leave_out_what_is_empty() -> None:
    shown = click.unstyle(facts([("id", "1"), ("reference", "桌 7"), ("hold ends", " "), ("to", "m")]))
    assert shown == "id         1\nreference  桌 7\nto         m\n"


def test_a_table_lines_up_with_wide_characters_and_is_nothing_without_rows() -> None:
    assert table("Legs", ("#", "kind"), []) == ""
    shown = click.unstyle(table("Legs", ("#", "kind", "at"), [("1", "扣款", "x"), ("2", "credit", "")]))
    assert shown == "Legs\n#  kind    at\n1  扣款    x\n2  credit\n"


@pytest.mark.process
def test_paying_and_showing_import_no_heavy_package(network: Network) -> None:
    token = network.wallet_tokens["wallet-01"].reveal()
    script = (
        "import sys\n"
        "from command.main import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        f"    print(*sorted({{name.partition('.')[0] for name in sys.modules}} & set({HEAVY!r})), file=sys.stderr)\n"
    )

    def run(*words: str) -> str:
        command = [sys.executable, "-c", script, *words, "--target", network.target]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=START_S, check=False)
        assert (ran.returncode, ran.stderr) == (0, "\n"), ran.stderr
        return ran.stdout

    paid = run("pay", "--token", token, "--merchant", "m1001", "--amount", "2.00")
    payment_id = paid.split()[1]
    assert "SUCCEEDED" in run("show", payment_id)
    assert "2.00 CNY" in run("receipt", payment_id)
    assert "SUCCEEDED" in run("refund", payment_id, "--amount", "1.00")
