"""KEKs in a PKCS#11 module: Debian's softhsm2, installed if it is missing and may be, else skipped with the reason."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from command.main import main
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_client import keys
from hutong_client.client import HutongClient
from hutong_contract.secret import Secret
from sandbox.network import Network, NetworkError
from sandbox.options import NetworkOptions
from sandbox.vaults import PIN_VARIABLE, KeyModule
from tests.deadlines import CALL_S, START_S
from tests.tokenization.world import PASSPHRASE, Clock, World, use
from tokenization.errors import VaultError
from tokenization.interface import Account, PayerKeyKind
from tokenization.service import open_service
from tokenization.suite import SealBrokenError
from verification.presentations import target_of

pytestmark = pytest.mark.process

pkcs11 = pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed: the extra `hsm`")
LIBRARIES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
)
INSTALL_S = 120
PIN = Secret("864297531")


def library() -> str | None:
    return next((path for path in LIBRARIES if Path(path).exists()), None)


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The library, with empty tokens `hutong` and `network`."""
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
    for label in ("hutong", "network"):
        words = ["softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "1234", "--pin", PIN.reveal()]
        subprocess.run(words, check=True, capture_output=True)
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
    accounts = [Account("issuer-a", Secret(f"622588{number:06d}")) for number in range(300)]
    tokens = [made.token for made in service.register_accounts(accounts)]
    assert not (tmp_path / "vault" / "kek.sealed").exists()
    service.rotate_keys()
    uses = [use(PayerKeyKind.TOKEN, token) for token in tokens]
    before = service.resolve(uses, clock())
    assert service.rotation.wait(CALL_S)
    assert service.resolve(uses, clock()) == before
    status = service.key_status()
    assert (status.store, status.active, status.remaining) == ("pkcs11", 2, 0)
    assert [version.state for version in status.versions] == ["active"], "version 1 was destroyed"
    assert service.detokenize(tokens[299]) == Secret("622588000299")
    service.close()
    keks.close()

    keks = HsmKeks(module, "hutong", PIN, clock())
    service = open_service(tmp_path / "vault", clock_us=clock, keks=keks)
    assert service.detokenize(tokens[0]) == Secret("622588000000")
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


def test_a_network_whose_vault_needs_the_module(module: str, tmp_path: Path) -> None:
    """`hutong up` with a module, keys rotated by command, stopped; then it starts and pays with the module only."""
    words = [
        "up",
        "--data",
        str(tmp_path),
        "--listen",
        "127.0.0.1:0",
        "--hsm-library",
        module,
        "--hsm-token",
        "network",
    ]
    environment = {**os.environ, PIN_VARIABLE: PIN.reveal(), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    log = tmp_path / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "command.main", *words], env=environment, stdout=output, stderr=output
        )
    try:
        target = target_of(tmp_path, process)
        assert target is not None, log.read_text()
        before = _status(target)
        assert before["store"] == "pkcs11"
        after = json.loads(CliRunner().invoke(main, ["keys", "rotate", "--target", target, "--json"]).stdout)
        assert (after["active_version"], after["remaining"]) == (before["active_version"] + 1, 0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_S) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert PIN.reveal() not in log.read_text()
    assert not list((tmp_path / "vault").glob("kek*"))
    assert not (tmp_path / "vault" / "passphrase").exists()

    options = NetworkOptions(data=tmp_path, listen="127.0.0.1:0", magic_amounts=False)
    for wrong in (
        None,
        KeyModule(Path(module), "network", Secret("0000")),
        KeyModule(Path(module), "elsewhere", PIN),
        KeyModule(tmp_path / "none.so", "network", PIN),
    ):
        with pytest.raises(NetworkError, match=r"module|PKCS#11") as refused:
            Network.start(replace(options, key_module=wrong))
        assert PIN.reveal() not in str(refused.value)
    assert PIN.reveal() not in repr(KeyModule(Path(module), "network", PIN))
    in_module = ["keys", "status", "--data", str(tmp_path), "--hsm-library", module, "--hsm-token", "network", "--json"]
    at_rest = CliRunner().invoke(main, in_module, env={PIN_VARIABLE: PIN.reveal()})
    assert json.loads(at_rest.stdout)["active_version"] == after["active_version"]
    without = CliRunner().invoke(main, ["keys", "status", "--data", str(tmp_path)])
    assert without.exit_code == 1
    assert "hardware module" in without.output
    with pytest.raises(NetworkError, match="another vault"):
        Network.start(replace(options, data=tmp_path / "other", key_module=KeyModule(Path(module), "network", PIN)))
    right = replace(options, key_module=KeyModule(Path(module), "network", PIN))
    with Network.start(right) as network, HutongClient(network.target) as client:
        wallet = network.population.wallets[0]
        made = client.create_payment(
            payer=keys.payment_code(network.tokens.reserve_code(network.wallet_tokens[wallet.id]).code.reveal()),
            payee=keys.merchant(network.population.merchants[0].id), amount_minor=100, currency="CNY",
        )  # fmt: skip
        assert made.state == pb.PAYMENT_STATE_SUCCEEDED
        assert network.tokens.detokenize(network.wallet_tokens[wallet.id]) == wallet.account


def _status(target: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(
        CliRunner().invoke(main, ["keys", "status", "--target", target, "--json"]).stdout
    )
    return found


@pytest.mark.parametrize(
    ("words", "pin", "said"),
    [
        (["--hsm-token", "hutong"], "1", "belong together"),
        (["--hsm-library", "/lib/some.so"], "1", "belong together"),
        (["--hsm-library", "/lib/some.so", "--hsm-token", "hutong"], "", PIN_VARIABLE),
    ],
)
def test_options_that_name_half_a_module(words: list[str], pin: str, said: str) -> None:
    for command in (["up"], ["keys", "rotate"]):
        result = CliRunner().invoke(main, [*command, *words], env={PIN_VARIABLE: pin})
        assert result.exit_code == 2
        assert said in result.output
