"""Every command that calls a gateway has the same options, and says in its own words why a call cannot be made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from command.main import main
from hutong_client.client import HutongClient
from hutong_client.options import ClientOptions

OPTIONS = {"--target", "--tls-ca", "--tls-cert", "--tls-key", "--tls-name", "--plaintext-anywhere"}
EXTRA = {
    ("pay",): ["--token", "1", "--merchant", "m", "--amount", "1"],
    ("keys", "erase"): ["--yes"],
    ("risk", "explain"): ["--amount", "1"],
    ("settle", "reconcile"): ["--books", "."],
    ("face", "enroll"): ["--person", "1", "--passcode", "123456", "--last-four", "1234"],
    ("face", "identify"): ["--person", "1"],
}
"""What commands ask for besides, before they call."""
ONE_WAY = {("participants",), ("settle", "statement")}
"""The first's processes dial gateways on this machine only; the second seldom calls one."""


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def calling() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """The commands that call a gateway."""
    for path, command in commands(main):
        if path not in ONE_WAY and any("--target" in one.opts for one in command.params):
            yield path, command


def test_whatever_takes_a_target_takes_the_same_options() -> None:
    found = {path: {opt for one in command.params for opt in one.opts} for path, command in calling()}
    assert {("pay",), ("token", "request"), ("code", "show"), ("keys", "rotate"), ("face", "enroll")} <= set(found)
    assert {path: OPTIONS - options for path, options in found.items() if OPTIONS - options} == {}


def words(path: tuple[str, ...], command: click.Command) -> list[str]:
    """A call of a command with something for whatever it asks for."""
    given = list(path)
    for one in command.params:
        if isinstance(one, click.Argument):
            given += ["." if isinstance(one.type, click.Path) else "1"] * (one.required or one.name == "number")
        elif one.required:
            given += [one.opts[0], "1"]
    return given + EXTRA.get(path, [])


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("localhost", "has no port: write localhost:50050"),
        ("pay.example:50050", "--tls-ca FILE"),
        ("::1", "[::1]:50050"),
        ("127.0.0.1:port", "is not HOST:PORT"),
    ],
)
def test_a_target_that_cannot_be_called_is_wrong_usage(target: str, said: str) -> None:
    for path, command in calling():
        result = CliRunner().invoke(main, [*words(path, command), "--target", target])
        assert result.exit_code == 2, (path, result.output)
        assert said in " ".join(result.output.split()), (path, result.output)
        assert "allow_plaintext" not in result.output


def test_a_wrong_target_in_the_environment_is_wrong_usage_where_no_network_is_needed() -> None:
    result = CliRunner().invoke(main, ["barcode", "decode", "1"], env={"HUTONG_TARGET": "localhost"})
    assert (result.exit_code, "has no port" in result.output) == (2, True), result.output


def test_the_library_refuses_a_target_without_a_port() -> None:
    with pytest.raises(ValueError, match="has no port"):
        HutongClient("localhost")
    with pytest.raises(ValueError, match="brackets"):
        HutongClient("::1")
    for target in ("localhost:1", "unix:/tmp/x", "dns:///localhost:1", "[::1]:1"):
        HutongClient(target, ClientOptions(allow_plaintext=True)).close()


def test_a_participants_target_is_checked_before_anything_is_made(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["participants", "--data", str(tmp_path / "new"), "--target", "nonsense"])
    assert result.exit_code == 2
    assert "has no port" in result.output
    assert list(tmp_path.iterdir()) == []
