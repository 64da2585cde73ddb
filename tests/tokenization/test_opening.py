"""What is wrong with a vault is found at start, and nothing is changed: bits, cuts, passphrases, missing halves."""

from __future__ import annotations

import hashlib
import random
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest

from hutong_contract.secret import Secret
from tests.tokenization.world import CHEAP, PASSPHRASE, Clock, World, use
from tokenization.errors import VaultDamagedError, VaultError, WrongPassphraseError
from tokenization.interface import PayerKeyKind
from tokenization.lifecycle import Event
from tokenization.passphrase import VARIABLE, find_passphrase
from tokenization.service import open_service


@pytest.fixture
def closed(tmp_path: Path) -> World:
    """A vault with some of everything, closed and sealed."""
    world = World(tmp_path / "vault")
    for number in range(40):
        world.token(f"62258800{number:04d}")
    token = world.token()
    world.service.bind_face(token, Secret("face-one"))
    world.service.reserve_code(token)
    world.service.provision(token, "phone")
    world.service.change_state(token, Event.SUSPEND)
    world.service.close()
    return world


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def refused(world: World, kind: type[VaultError]) -> str:
    before = contents(world.folder)
    with pytest.raises(kind) as error:
        world.open()
    assert contents(world.folder) == before, "nothing was changed"
    return str(error.value)


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["vault.db", "kek.sealed", "vault.db.seal"])
def test_any_flipped_bit_is_refused(closed: World, name: str) -> None:
    path = closed.folder / name
    whole = path.read_bytes()
    source = random.Random(name)
    for bit in [0, len(whole) * 8 - 1, *(source.randrange(len(whole) * 8) for _ in range(25))]:
        flip(path, bit)
        refused(closed, VaultError)
        path.write_bytes(whole)
    closed.open().close()


@pytest.mark.parametrize("name", ["vault.db", "kek.sealed", "vault.db.seal"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 0.9999])
def test_truncated_files_are_refused(closed: World, name: str, part: float) -> None:
    path = closed.folder / name
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    refused(closed, VaultDamagedError)


@pytest.mark.parametrize("name", ["vault.db", "kek.sealed"])
def test_half_a_vault_is_refused(closed: World, name: str) -> None:
    (closed.folder / name).unlink()
    assert name in refused(closed, VaultDamagedError)


def test_wrong_passphrase(closed: World) -> None:
    before = contents(closed.folder)
    with pytest.raises(WrongPassphraseError, match="HUTONG_PASSPHRASE"):
        open_service(closed.folder, Secret("wrong"), clock_us=closed.clock, cost=CHEAP)
    assert contents(closed.folder) == before


def test_files_of_two_vaults_do_not_mix(closed: World, tmp_path: Path) -> None:
    other = World(tmp_path / "other")
    other.service.close()
    shutil.copy(other.folder / "kek.sealed", closed.folder / "kek.sealed")
    refused(closed, VaultDamagedError)
    (closed.folder / "vault.db.seal").unlink()
    refused(closed, VaultDamagedError)


COLUMNS = [
    ("accounts", "record"), ("accounts", "blind"), ("accounts", "ref"), ("keys", "record"), ("keys", "lookup"),
    ("policies", "record"), ("requestors", "record"), ("codes", "lookup"), ("purposes", "wrapped"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_changed_row_is_found_without_the_seal_too(closed: World, table: str, column: str) -> None:
    """As after a kill, when no seal was written: the rows' own tags are checked."""
    (closed.folder / "vault.db.seal").unlink()
    with sqlite3.connect(closed.folder / "vault.db") as database:
        key = "name" if table == "purposes" else "id"
        row = database.execute(f"SELECT {key}, {column} FROM {table} WHERE {column} IS NOT NULL LIMIT 1").fetchone()
        value = bytearray(row[1])
        value[-1] ^= 1
        database.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (bytes(value), row[0]))
    database.close()
    before = hashlib.sha256((closed.folder / "vault.db").read_bytes()).digest()
    with pytest.raises(VaultDamagedError):
        closed.open()
    assert hashlib.sha256((closed.folder / "vault.db").read_bytes()).digest() == before


@pytest.mark.parametrize(
    "change", ["UPDATE events SET kind = 'resumed'", "UPDATE accounts SET version = 9 WHERE id = 3"]
)
def test_changed_plain_columns_are_found(closed: World, change: str) -> None:
    (closed.folder / "vault.db.seal").unlink()
    with sqlite3.connect(closed.folder / "vault.db") as database:
        database.execute(change)
    database.close()
    with pytest.raises(VaultDamagedError):
        closed.open()


def test_a_swapped_ciphertext_is_found(closed: World) -> None:
    """Rows of two accounts exchange their records: each would open, but stands in the wrong place."""
    (closed.folder / "vault.db.seal").unlink()
    with sqlite3.connect(closed.folder / "vault.db") as database:
        rows = database.execute("SELECT record, tag FROM accounts WHERE id IN (1, 2) ORDER BY id").fetchall()
        for number, (record, tag) in zip((2, 1), rows, strict=True):
            database.execute("UPDATE accounts SET record = ?, tag = ? WHERE id = ?", (record, tag, number))
    database.close()
    with pytest.raises(VaultDamagedError):
        closed.open()


def test_a_flipped_bit_in_an_unsealed_file_is_refused_or_harmless(closed: World) -> None:
    """Without a seal a bit in unused space may pass; what opens must then hold exactly what it held."""
    (closed.folder / "vault.db.seal").unlink()
    path = closed.folder / "vault.db"
    whole = path.read_bytes()
    source = random.Random(3)
    found = 0
    for _ in range(20):
        path.write_bytes(whole)
        flip(path, source.randrange(len(whole) * 8))
        try:
            service = closed.open()
        except VaultError:
            found += 1
            continue
        assert len(service) == 41
        service.close()
        (closed.folder / "vault.db.seal").unlink()
    assert found, "what was hit in used space was found"


def test_the_suite_is_the_vaults_own(closed: World) -> None:
    with pytest.raises(VaultError, match="suite"):
        closed.open("sm")
    with pytest.raises(VaultError, match="suite"):
        World(closed.folder.parent / "third", "rot13")


def test_files_are_private(closed: World) -> None:
    for name in ("vault.db", "kek.sealed", "vault.db.seal"):
        assert stat.S_IMODE((closed.folder / name).stat().st_mode) == 0o600


def test_a_creation_that_was_killed_leaves_no_trap(tmp_path: Path) -> None:
    """Killed before or between the two renames: the next start begins anew, or finishes."""
    world = World(tmp_path / "vault")
    world.service.close()
    folder = world.folder
    (folder / "vault.db.seal").unlink()
    (folder / "vault.db").rename(folder / "vault.db.creating")
    world.open().close()
    for name in ("vault.db", "kek.sealed"):
        (folder / name).rename(folder / (name + ".creating"))
    (folder / "vault.db.seal").unlink()
    world.service = world.open()
    assert len(world.service) == 0
    world.resolved(use(PayerKeyKind.TOKEN, world.token()))
    world.service.close()


def test_passphrase_from_the_folder_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(VaultError, match="no passphrase"):
        find_passphrase(tmp_path, create=False)
    made = find_passphrase(tmp_path, create=True)
    assert find_passphrase(tmp_path, create=False) == made
    path = tmp_path / "passphrase"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(VaultError, match="chmod 600"):
        find_passphrase(tmp_path, create=False)
    monkeypatch.setenv(VARIABLE, "from the environment")
    assert find_passphrase(tmp_path, create=False) == Secret("from the environment")
    service = open_service(tmp_path / "vault", clock_us=Clock(), cost=CHEAP)
    service.close()
    assert not (tmp_path / "vault" / "passphrase").exists()
    assert find_passphrase(tmp_path, create=False) != PASSPHRASE
