"""Help texts: every command and option says what it is, quickly; the version is the package's."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from command.main import COMMANDS, main
from tests.deadlines import START_S


def everything() -> Iterator[tuple[str, click.Command]]:
    def below(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield path, command
        if isinstance(command, click.Group):
            for name in command.list_commands(click.Context(command)):
                found = command.get_command(click.Context(command), name)
                assert found is not None
                yield from below(f"{path} {name}", found)

    yield from below("hutong", main)


def test_every_command_and_option_says_what_it_is() -> None:
    silent = []
    seen = 0
    for path, command in everything():
        if not (command.help or "").strip():
            silent.append(path)
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                seen += 1
                if not (option.help or "").strip():
                    silent.append(f"{path} {option.opts[0]}")
    assert seen > 150
    assert silent == []


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_line_in_the_list_is_one_sentence(name: str) -> None:
    line = COMMANDS[name][1]
    assert line[0].isupper()
    assert line.endswith(".")
    assert len(line) <= 72


def test_the_version_is_the_packages() -> None:
    said = CliRunner().invoke(main, ["--version"]).output
    assert importlib.metadata.version("hutong") in said


@pytest.mark.process
def test_the_list_of_commands_imports_none_of_them() -> None:
    """So `hutong --help` takes the time that Python and click take."""
    script = (
        "import sys\n"
        "from command.main import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "print('loaded:', *sorted({name.split('.')[0] for name in sys.modules}\n"
        "    & {'grpc', 'google', 'rich', 'numpy', 'gateway', 'sandbox', 'loadtest', 'tokenization', 'facepay'}))\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=START_S, check=True)
    assert ran.stdout.splitlines()[-1].strip() == "loaded:"
