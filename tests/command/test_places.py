"""A folder or port that cannot be used is refused in one sentence before anything is made, by every command."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from command.main import main
from gateway.listen import Address, Tls
from sandbox import places
from sandbox.network import Network, NetworkError
from sandbox.options import NetworkOptions
from sandbox.places import PlaceError, check_folder, check_free, check_network_folder

START_S = 120
"""Deadline of a process that only has to refuse."""


def hutong(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def refused(*words: str) -> str:
    """What a command says, as a process of its own, that must end with one line and exit status 1."""
    command = [sys.executable, "-m", "command.main", *words]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=START_S, check=False)
    assert ran.returncode == 1, ran.stderr
    assert ran.stderr.startswith("Error: "), ran.stderr
    assert ran.stderr.count("\n") == 1, ran.stderr
    return ran.stderr


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is no folder" in refused("up", "--data", str(tmp_path / "file" / "x"), "--listen", "127.0.0.1:0")
    assert "nothing can be written in /proc" in refused("up", "--data", "/proc/nope", "--listen", "127.0.0.1:0")


def test_a_port_in_use_is_said_once_and_leaves_no_folder(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        said = refused("up", "--data", str(tmp_path / "a" / "b"), "--listen", f"127.0.0.1:{other.getsockname()[1]}")
    assert said.count("cannot be listened on") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ("demo", "--data", "{file}/x"),
        ("participants", "--data", "{file}/x", "--target", "127.0.0.1:1"),
        ("participants", "--data", "{new}", "--vault", "{file}/x", "--target", "127.0.0.1:1"),
        ("token", "bench", "--accounts", "1000", "--data", "{file}/x"),
        ("token", "bench", "--accounts", "1000", "--data", "{file}"),
        ("token", "bench", "--accounts", "1000", "--data", "{full}"),
        ("demo", "--data", "{full}"),
        ("up", "--listen", "127.0.0.1:0", "--vault", "{file}/x"),
        ("up", "--listen", "127.0.0.1:0", "--data", "{full}"),
        ("participants", "--data", "{full}", "--target", "127.0.0.1:1"),
        ("barcode", "encode", "--text", "x", "--png", "{file}/x.png"),
        ("face", "evaluate", "--people", "{full}", "--models", "{full}", "--plots", "{file}/x"),
    ],
)
def test_every_command_refuses_a_folder_it_cannot_use(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letters.txt").write_text("")
    names = {"file": tmp_path / "file", "full": tmp_path / "full", "new": tmp_path / "new"}
    result = hutong(*(word.format(**names) for word in words))
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (1, 2)
    assert "Error: " in result.output
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "letters.txt"]


def test_a_network_that_does_not_start_leaves_a_new_folder_as_it_was(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text("nonsense = [")
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "new" / "deep", tmp_path / "empty"):
        with pytest.raises(NetworkError):
            Network.start(NetworkOptions(data=folder, listen="127.0.0.1:0", risk_rules=rules))
        with pytest.raises(NetworkError, match="cannot be read as a certificate"):
            # The native front has none, which is found after most of the network was made.
            Network.start(NetworkOptions(data=folder, listen="127.0.0.1:0", tls=Tls(rules, rules)))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "rules.toml"]


@pytest.mark.parametrize("name", ["network.json", "directory.json", "gateway.db", "participants/books.db"])
def test_a_folder_with_a_broken_file_is_refused_in_words(tmp_path: Path, name: str) -> None:
    options = NetworkOptions(data=tmp_path / "data", listen="127.0.0.1:0")
    Network.start(options).close()
    broken = tmp_path / "data" / name
    assert broken.exists()
    for extra in (f"{broken}-wal", f"{broken}-shm"):
        Path(extra).unlink(missing_ok=True)
    broken.write_bytes(b"this was something else " * 1_000)
    before = sorted(path for path in (tmp_path / "data").rglob("*"))
    result = hutong("up", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0")
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    assert "Error: " in result.output
    # A folder that was in use before keeps what it has.
    assert broken.read_bytes().startswith(b"this was something else")
    assert set(before) <= set((tmp_path / "data").rglob("*"))


def test_a_folder_in_use_is_refused_before_its_port_is_looked_at(tmp_path: Path) -> None:
    with Network.start(NetworkOptions(data=tmp_path, listen="127.0.0.1:0")) as network:
        result = hutong("up", "--data", str(tmp_path), "--listen", network.target)
        assert result.exit_code == 1
        assert "another gateway runs on" in result.output


def test_a_full_disk_and_a_foreign_folder_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vault").mkdir()
    check_network_folder(tmp_path)  # a vault may be there before the network
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(PlaceError, match=r"notes\.txt"):
        check_network_folder(tmp_path)
    (tmp_path / "network.json").write_text("{}")
    check_network_folder(tmp_path)
    monkeypatch.setattr(places, "FREE_BYTES_MIN", 1 << 62)
    with pytest.raises(PlaceError, match="Make room"):
        check_folder(tmp_path / "new")


def test_a_socket_is_free_unless_somebody_listens_on_it(tmp_path: Path) -> None:
    path = tmp_path / "hutong.sock"
    check_free(Address("", 0, str(path)))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(PlaceError, match="another process listens"):
            check_free(Address("", 0, str(path)))
    check_free(Address("", 0, str(path)))  # left behind by one that was killed
    os.unlink(path)
    path.write_text("")
    with pytest.raises(PlaceError, match="no socket"):
        check_free(Address("", 0, str(path)))
    with pytest.raises(PlaceError, match="no folder"):
        check_free(Address("", 0, str(tmp_path / "no" / "x.sock")))
    with pytest.raises(PlaceError, match="107 bytes"):
        check_free(Address("", 0, str(tmp_path / ("x" * 120))))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (Address("192.0.2.1", 50_050), "no address of this machine"),
        (Address("nobody.invalid", 50_050), "does not lead to an address"),
    ],
)
def test_an_address_of_elsewhere_is_refused(address: Address, said: str) -> None:
    with pytest.raises(PlaceError, match=said):
        check_free(address)
