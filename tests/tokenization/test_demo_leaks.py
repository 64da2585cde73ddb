"""The whole demonstration, and then every secret that it used is searched for in all that it left behind."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from command.main import main
from hutong_contract.secret import Secret
from tests.tokenization.leaks import SHORTEST, find_leaks

KEPT_ON_PURPOSE = {
    "passphrase": "opens the vault where nobody gave a passphrase; mode 0600",
    "face-master.key": "opens the face templates; mode 0600",
    "directory.json": "what participants prove their identity with; mode 0600",
}
"""Files that exist to hold a secret."""


@pytest.mark.slow
def test_the_demonstration_leaves_no_secret_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    used: set[str | bytes] = set()
    whole = Secret.__init__

    def remember(self: Secret[str], value: str) -> None:
        used.add(value)
        whole(self, value)

    monkeypatch.setattr(Secret, "__init__", remember)
    caplog.set_level(logging.DEBUG)
    data = tmp_path / "data"
    result = CliRunner().invoke(main, ["demo", "--data", str(data), "--json"])
    assert result.exit_code == 0, result.output
    secrets = sorted({value for value in used if len(value) >= SHORTEST}, key=str)
    for prefix in ("9156", "66", "67"):
        assert any(isinstance(one, str) and len(one) == 19 and one.startswith(prefix) for one in secrets), prefix
    assert (data / "gateway.db").exists()
    assert (data / "vault" / "vault.db").exists()
    found = find_leaks(secrets, [data], [("output", result.output), ("log", caplog.text)])
    for name in KEPT_ON_PURPOSE:
        assert {stat.S_IMODE(path.stat().st_mode) for path in data.rglob(name)} <= {0o600}
    leaks = [leak for leak in found if Path(leak.where).name not in KEPT_ON_PURPOSE]
    assert leaks == [], [(leak.where, leak.spelling, str(secrets[leak.secret])[:4]) for leak in leaks]
