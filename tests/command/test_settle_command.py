"""`hutong settle` on a running network and on its folder at rest: the same windows and bytes, every difference."""

from __future__ import annotations

import csv
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from command.settle import settle
from gateway.clearing.files import verify
from hutong_client.client import HutongClient
from sandbox.checking import check_folder
from tests.gateway.clearing.settled_network import start, trade

pytestmark = pytest.mark.slow


def invoke(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(settle, list(arguments), catch_exceptions=False)
    assert result.exit_code == status, (result.output, result.stderr)
    return result.stdout


def answer(*arguments: str, status: int = 0) -> Any:
    return json.loads(invoke(*arguments, "--json", status=status))


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder at rest with two closed windows, whose files were written from the running network."""
    folder = tmp_path_factory.mktemp("settled")
    with start(folder) as network, HutongClient(network.target) as client:
        target = ("--target", network.target)
        trade(network, client)
        first = answer("close", "1", *target)
        assert answer("close", "1", *target) == first
        assert all(one["pending"] == 0 for one in reconciled(folder, *target).values())
        trade(network, client)
        behind = reconciled(folder, *target)
        assert sum(one["pending"] for one in behind.values()) > 10  # what no window holds yet is no difference
        assert answer("reconcile", *data(folder)) == behind
        refusal = CliRunner().invoke(settle, ["close", *data(folder)])
        assert (refusal.exit_code, "another gateway runs on" in refusal.output) == (1, True)
        assert answer("close", *target)["window"] == 2
        assert [one["window"] for one in answer("windows", *target)] == [2, 1]
        assert answer("show", "1", *target) == first
        answer("files", "1", "--out", str(folder / "running"), *target)
        answer("files", *target, "--out", str(folder / "running"))
        reconciled(folder, *target)
    return folder


def reconciled(folder: Path, *where: str) -> Any:
    found = answer("reconcile", "--books", str(folder), *where)
    assert all(one["agrees"] for one in found.values())
    return found


def data(folder: Path) -> tuple[str, str]:
    return ("--data", str(folder))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_are_the_same_bytes_again_at_rest_and_whole(settled: Path) -> None:
    for number in ("1", "2", "1"):
        answer("files", number, "--out", str(settled / "rest"), *data(settled))
    running, rest = contents(settled / "running"), contents(settled / "rest")
    assert running == rest
    assert len(running) > 8
    assert not any(name.endswith(".part") for name in rest)
    for window in ("window-000001", "window-000002"):
        assert list(verify(settled / "rest" / window)) == []
    for content in rest.values():
        assert b"\r\n" in content or b"</Document>" in content or content.startswith(b"{")


def test_files_add_up_to_the_positions(settled: Path) -> None:
    shown = answer("show", "1", *data(settled))
    assert sum(one["net_minor"] for one in shown["positions"]) == 0
    answer("files", "1", "--out", str(settled / "sums"), *data(settled))
    for one in shown["positions"]:
        with (settled / "sums" / "window-000001" / f"{one['participant']}.csv").open(newline="") as file:
            lines = list(csv.DictReader(file))
        net = sum(int(line["amount_minor"]) * (1 if line["direction"] == "credit" else -1) for line in lines)
        assert net == one["net_minor"]
        assert len(lines) == sum(
            one[part]["count"] for part in ("debits", "credits", "refunds_paid", "refunds_received")
        )


def test_one_participants_files(settled: Path) -> None:
    found = answer("files", "1", "--participant", "issuer-b", "--out", str(settled / "one"), *data(settled))
    assert [one["name"] for one in found["files"]] == ["issuer-b.CNY.camt053.xml", "issuer-b.csv"]
    assert (
        "has nothing in window 1"
        in CliRunner().invoke(settle, ["files", "1", "--participant", "x", *data(settled)]).output
    )


def test_a_clean_network_reconciles_and_again_the_same(settled: Path) -> None:
    first = answer("reconcile", *data(settled))
    assert all(one["agrees"] and one["pending"] == 0 for one in first.values()), first
    assert sum(one["settled"] for one in first.values()) > 20
    assert answer("reconcile", *data(settled)) == first
    assert answer("reconcile", "2", *data(settled))["issuer-a"]["agrees"]
    assert check_folder(settled).conserved


def test_a_statement_that_says_its_windows_reconciles_too(settled: Path) -> None:
    out = settled / "issuer-a.own.csv"
    invoke("statement", str(settled), "--participant", "issuer-a", "--windows", "--output", str(out), *data(settled))
    with out.open(newline="") as file:
        assert {row["window"] for row in csv.DictReader(file)} == {"1", "2"}
    assert answer("reconcile", "--statement", str(out), *data(settled))["issuer-a"]["agrees"]
    assert invoke("statement", str(settled), "--participant", "issuer-a").count("\n") == out.read_text().count("\n")


def test_windows_of_a_folder_at_rest_are_closed_one_after_another(settled: Path, tmp_path: Path) -> None:
    with sqlite3.connect(settled / "gateway.db") as source:
        source.execute("VACUUM INTO ?", (str(tmp_path / "gateway.db"),))
    for _ in range(2):
        assert answer("close", "3", *data(tmp_path))["positions"] == []
    assert answer("close", *data(tmp_path))["window"] == 4
    assert "WINDOW_NOT_NEXT" in CliRunner().invoke(settle, ["close", "6", *data(tmp_path)]).output
    assert "WINDOW_NOT_FOUND" in CliRunner().invoke(settle, ["show", "5", *data(tmp_path)]).output


def test_usage_errors_say_what_to_do(tmp_path: Path) -> None:
    for arguments, status, text in [
        (["show", *data(tmp_path)], 1, "holds no gateway.db"),
        (["close", "0"], 2, "0 is not in the range"),
        (["reconcile", "--target", "127.0.0.1:1"], 2, "--books or --statement"),
        (["show", "--as", "issuer-a", *data(tmp_path)], 2, "--as"),
        (["windows", "--target", "127.0.0.1:1"], 1, ""),
    ]:
        result = CliRunner().invoke(settle, arguments)
        assert result.exit_code == status, (arguments, result.output)
        assert text in result.output


def damage(folder: Path, statement: str, *values: object) -> None:
    database = sqlite3.connect(folder / "participants" / "books.db")
    assert database.execute(statement, values).rowcount == 1, statement
    database.commit()
    database.close()


def copy(folder: Path, payment: bytes, *, number: bytes, sign: int = 1, **changes: Any) -> None:
    """Writes issuer-a's line about a payment once more, with another leg number and changes."""
    database = sqlite3.connect(folder / "participants" / "books.db")
    cursor = database.execute(f"SELECT * FROM entries WHERE {OWN}", (payment,))
    row = dict(zip([column[0] for column in cursor.description], cursor.fetchone(), strict=True))
    row["leg_id"] = changes.pop("payment_id", payment) + number
    row["effect_minor"] *= sign
    row |= changes
    database.execute(f"INSERT INTO entries ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values()))
    database.commit()
    database.close()


OWN = "participant = 'issuer-a' AND substr(leg_id, 1, 16) = ?"
PLANTED = {
    "missing_there": f"DELETE FROM entries WHERE {OWN}",
    "amount": f"UPDATE entries SET effect_minor = effect_minor - 1 WHERE {OWN}",
    "currency": f"UPDATE entries SET currency = 'EUR' WHERE {OWN}",
    "sign": f"UPDATE entries SET effect_minor = -effect_minor WHERE {OWN}",
}
"""Kind of difference to the change in the books that plants it."""
COPIED: dict[str, dict[str, Any]] = {
    "duplicate": {"number": b"\x09"},
    "reversed_there": {"number": b"\x09", "kind": 3, "sign": -1},
    "missing_here": {"number": b"\x01", "payment_id": bytes.fromhex("0190000000007000800000000000abcd")},
}
"""The same for a line that is written once more, with changes."""


def test_each_planted_difference_is_found_and_nothing_else(settled: Path, tmp_path: Path) -> None:
    """All kinds at once, each in a payment of its own; twice the same; the gateway's own books stay right."""
    books = tmp_path / "participants"
    books.mkdir()
    with sqlite3.connect(settled / "participants" / "books.db") as source:
        source.execute("VACUUM INTO ?", (str(books / "books.db"),))
    with (settled / "rest" / "window-000001" / "issuer-a.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["kind"] == "payment"]
    assert len(lines) >= len(PLANTED) + len(COPIED)
    planted = {}
    for kind, line in zip([*PLANTED, *COPIED], lines, strict=False):
        payment_id = bytes.fromhex(line["payment_id"].replace("-", ""))
        if kind in PLANTED:
            damage(tmp_path, PLANTED[kind], payment_id)
        else:
            copy(tmp_path, payment_id, **COPIED[kind])
        planted[line["payment_id"]] = kind
    found = answer("reconcile", "--books", str(books), *data(settled), status=1)
    assert found == answer("reconcile", "--books", str(books), *data(settled), status=1)
    assert [name for name, one in found.items() if not one["agrees"]] == ["issuer-a"]
    differences = {one["payment_id"]: one for one in found["issuer-a"]["differences"]}
    kinds = {key: one["kind"] for key, one in differences.items()}
    stray = "01900000-0000-7000-8000-00000000abcd"
    assert kinds.pop(stray) == "missing_here"
    del planted[next(key for key, kind in planted.items() if kind == "missing_here")]
    assert kinds == planted
    for line in lines:
        if one := differences.get(line["payment_id"]):
            assert (one["ours_minor"], one["ours_currency"], one["window"]) == (-int(line["amount_minor"]), "CNY", 1)
    by_kind = {one["kind"]: one for one in differences.values()}
    assert by_kind["amount"]["theirs_minor"] == by_kind["amount"]["ours_minor"] - 1
    assert by_kind["currency"]["theirs_currency"] == "EUR"
    assert by_kind["sign"]["theirs_minor"] == -by_kind["sign"]["ours_minor"]
    assert by_kind["duplicate"]["theirs_minor"] == 2 * by_kind["duplicate"]["ours_minor"]
    assert len(by_kind["duplicate"]["leg_ids"]) == 2
    assert (by_kind["missing_there"]["leg_ids"], by_kind["missing_there"]["theirs_minor"]) == ([], 0)
    shown = invoke("reconcile", "--books", str(books), *data(settled), status=1)
    assert "7 differences" in shown
    assert stray in shown


def test_a_line_counted_in_another_window_and_a_line_given_twice_are_found(settled: Path, tmp_path: Path) -> None:
    """In the CSV that a participant hands in: timing, and a duplicate with the same leg id."""
    out = tmp_path / "own.csv"
    invoke("statement", str(settled), "--participant", "issuer-a", "--windows", "--output", str(out), *data(settled))
    with out.open(newline="") as file:
        head, *rows = list(csv.reader(file))
    late = next(row for row in rows if row[-1] == "1")
    twice = next(row for row in rows if row[-1] == "2")
    late[-1] = "2"
    with out.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows, twice])
    found = answer("reconcile", "--statement", str(out), *data(settled), status=1)["issuer-a"]
    assert found["counts"] == {"duplicate": 1, "timing": 1}
    by_kind = {one["kind"]: one for one in found["differences"]}
    assert (by_kind["timing"]["window"], by_kind["timing"]["theirs_window"]) == (1, 2)
    assert by_kind["timing"]["leg_ids"] == [late[1]]
    assert by_kind["duplicate"]["leg_ids"] == [twice[1], twice[1]]
    both = [answer("reconcile", number, "--statement", str(out), *data(settled), status=1) for number in ("1", "2")]
    assert [one["issuer-a"]["counts"] for one in both] == [{"timing": 1}, {"duplicate": 1, "timing": 1}]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda rows: rows[:0], "is empty"),
        (lambda rows: [["a", "b"], *rows[1:]], "line 1: the columns are not"),
        (lambda rows: [*rows[:2], rows[2][:-1]], "line 3: there are 7 fields"),
        (lambda rows: [rows[0], [rows[1][0], "00", *rows[1][2:]]], "line 2: a leg id has 34"),
        (lambda rows: [rows[0], [*rows[1][:5], "1.5", *rows[1][6:]]], "line 2: invalid literal"),
        (lambda rows: [rows[0], [*rows[1][:4], "x" * 300, *rows[1][5:]]], "line 2: a field has more than"),
    ],
)
def test_a_statement_that_cannot_be_read_says_where(settled: Path, tmp_path: Path, change: Any, text: str) -> None:
    out = tmp_path / "own.csv"
    invoke("statement", str(settled), "--participant", "issuer-a", "--output", str(out))
    with out.open(newline="") as file:
        rows = change(list(csv.reader(file)))
    with out.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    arguments = ["reconcile", "--statement", str(out), "--participant", "issuer-a", *data(settled)]
    result = CliRunner().invoke(settle, arguments)
    assert result.exit_code == 1
    assert text in result.output
