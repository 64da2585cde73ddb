"""KEKs in a PKCS#11 module: Debian's softhsm2, installed if it is missing and may be, else skipped with the reason."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.secret import Secret
from tests.tokenization.world import PASSPHRASE, Clock, World, use
from tokenization.errors import VaultError
from tokenization.interface import Account, PayerKeyKind
from tokenization.service import open_service
from tokenization.suite import SealBrokenError

pkcs11 = pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed: the extra `hsm`")
LIBRARIES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
)
INSTALL_S = 120
PIN = Secret("8642")


def library() -> str | None:
    return next((path for path in LIBRARIES if Path(path).exists()), None)


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The library, with an empty token `hutong`."""
    if library() is None and os.geteuid() == 0 and shutil.which("apt-get"):
        command = ["apt-get", "install", "-y", "--no-install-recommends", "softhsm2"]
        subprocess.run(command, timeout=INSTALL_S, check=False, capture_output=True)
    path = library()
    if path is None or shutil.which("softhsm2-util") is None:
        pytest.skip("softhsm2 is not installed and cannot be installed here: apt-get install softhsm2")
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    configuration = folder / "softhsm2.conf"
    configuration.write_text(
        f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(configuration)
    command = [
        "softhsm2-util",
        "--init-token",
        "--free",
        "--label",
        "hutong",
        "--so-pin",
        "1234",
        "--pin",
        PIN.reveal(),
    ]
    subprocess.run(command, check=True, capture_output=True)
    yield path
    if before is None:
        del os.environ["SOFTHSM2_CONF"]
    else:
        os.environ["SOFTHSM2_CONF"] = before


def test_a_vault_whose_keys_never_leave_the_module(module: str, tmp_path: Path) -> None:
    from tokenization.hsm import HsmKeks

    clock = Clock()
    with pytest.raises(VaultError, match="PIN"):
        HsmKeks(module, "hutong", Secret("0000"), clock())
    with pytest.raises(VaultError, match="token"):
        HsmKeks(module, "elsewhere", PIN, clock())

    keks = HsmKeks(module, "hutong", PIN, clock())
    service = open_service(tmp_path / "vault", clock_us=clock, keks=keks)
    accounts = [Account("issuer-a", Secret(f"62258800{number:06d}")) for number in range(300)]
    tokens = [made.token for made in service.register_accounts(accounts)]
    assert not (tmp_path / "vault" / "kek.sealed").exists()
    service.rotate_keys()
    uses = [use(PayerKeyKind.TOKEN, token) for token in tokens]
    before = service.resolve(uses, clock())
    assert service.rotation.wait(60)
    assert service.resolve(uses, clock()) == before
    status = service.key_status()
    assert (status.store, status.active, status.remaining) == ("pkcs11", 2, 0)
    assert [version.state for version in status.versions] == ["active"], "version 1 was destroyed"
    assert service.detokenize(tokens[299]) == Secret("62258800000299")
    service.close()
    keks.close()

    keks = HsmKeks(module, "hutong", PIN, clock())
    service = open_service(tmp_path / "vault", clock_us=clock, keks=keks)
    assert service.detokenize(tokens[0]) == Secret("62258800000000")
    service.erase(tokens[0])
    service.close()

    for bit in (100, 5_000 * 8):
        data = bytearray((tmp_path / "vault" / "vault.db").read_bytes())
        data[bit // 8] ^= 1
        (tmp_path / "vault" / "vault.db").write_bytes(data)
        with pytest.raises(VaultError):
            open_service(tmp_path / "vault", clock_us=clock, keks=keks)
        data[bit // 8] ^= 1
        (tmp_path / "vault" / "vault.db").write_bytes(data)

    wrapped = keks.wrap(2, bytes(32), b"here")
    assert keks.unwrap(2, wrapped, b"here") == bytes(32)
    for version, aad in ((2, b"there"), (1, b"here")):
        with pytest.raises(SealBrokenError):
            keks.unwrap(version, wrapped, aad)
    with pytest.raises(ValueError, match="rotate first"):
        keks.retire(2, clock())
    keks.close()


def test_a_module_does_not_open_another_vault(module: str, tmp_path: Path) -> None:
    from tokenization.hsm import HsmKeks

    other = World(tmp_path / "vault")
    other.service.close()
    keks = HsmKeks(module, "hutong", PIN, other.clock())
    with pytest.raises(VaultError):
        open_service(other.folder, PASSPHRASE, clock_us=other.clock, keks=keks)
    keks.close()
