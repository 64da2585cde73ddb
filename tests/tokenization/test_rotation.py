"""Rotation while resolving goes on, killed half way, and erasure: nothing fails, nothing destroyed opens again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hutong_contract.errors import HutongError, Reason
from hutong_contract.secret import Secret
from tests.deadlines import CALL_S, START_S
from tests.tokenization.leaks import find_leaks
from tests.tokenization.world import CHEAP, PAN, PASSPHRASE, World, use
from tokenization import rotation
from tokenization.interface import Account, PayerKeyKind
from tokenization.keyring import FileKeks
from tokenization.suite import SUITES, SealBrokenError


def fill(world: World, count: int) -> list[Secret[str]]:
    accounts = [Account("issuer-a", Secret(f"622588{number:06d}")) for number in range(count)]
    return [made.token for made in world.service.register_accounts(accounts)]


def test_a_rotation_rewraps_everything_and_destroys_the_old_key(world: World) -> None:
    tokens = fill(world, 2_500)
    world.service.rotate_keys()
    assert world.service.rotation.wait(CALL_S)
    status = world.service.key_status()
    assert (status.active, status.remaining, status.rotating) == (2, 0, False)
    assert [version.state for version in status.versions] == ["retired", "active"]
    assert world.service.detokenize(tokens[7]) == Secret("622588000007")
    world.reopen()
    assert world.service.key_status().active == 2
    assert world.service.detokenize(tokens[2_499]) == Secret("622588002499")
    assert world.token() != tokens[0], "new accounts are wrapped by the new version"
    keks = FileKeks.open(world.folder / "kek.sealed", SUITES[world.service.suite], PASSPHRASE)
    with pytest.raises(SealBrokenError):
        keks.unwrap(1, bytes(60), b"")


def test_resolving_and_registering_go_on_beside_it(world: World) -> None:
    tokens = fill(world, 3_000)
    uses = [use(PayerKeyKind.TOKEN, token) for token in tokens[:200]]
    before = world.service.resolve(uses, world.clock.now_us)
    refused: list[HutongError] = []
    rounds = 0
    world.service.rotate_keys()
    while not world.service.rotation.wait(0.0) or rounds < 3:
        answers = world.service.resolve(uses, world.clock.now_us)
        refused += [answer for answer in answers if isinstance(answer, HutongError)]
        world.service.register_account(Account("issuer-b", Secret(f"622588{rounds:06d}")))
        rounds += 1
    assert refused == []
    assert world.service.resolve(uses, world.clock.now_us) == before
    assert world.service.key_status().remaining == 0
    assert world.service.detokenize(world.token("622588000000", "issuer-b")) == Secret("622588000000")


KILLED = """
import os, signal, sys
from pathlib import Path
from hutong_contract.secret import Secret
from tokenization import rotation
from tokenization.service import open_service

rotation.CHUNK = 100
service = open_service(Path(sys.argv[1]), Secret(sys.argv[2]))
kill_after = int(sys.argv[3])
whole = rotation.Rotation._step
steps = 0

def step(self, session):
    global steps
    steps += 1
    if steps > kill_after:
        os.kill(os.getpid(), signal.SIGKILL)  # in the middle of a transaction
    return whole(self, session)

rotation.Rotation._step = step
if kill_after == 0:
    FileKeks = type(service._vault.keks)
    made = FileKeks.add_version
    def add_version(self, now_us):
        made(self, now_us)
        os.kill(os.getpid(), signal.SIGKILL)  # the key file has the version, the vault does not know it
    FileKeks.add_version = add_version
service.rotate_keys()
service.rotation.wait(60)
"""


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_a_rotation_that_was_killed_is_finished_at_the_next_start(tmp_path: Path, steps: int) -> None:
    world = World(tmp_path / "vault")
    tokens = fill(world, 1_000)
    world.service.close()
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'proto' / 'gen'}"}
    command = [sys.executable, "-c", KILLED, str(world.folder), PASSPHRASE.reveal(), str(steps)]
    killed = subprocess.run(command, env=environment, timeout=START_S, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    world.service = world.open()
    try:
        assert world.service.rotation.wait(CALL_S)
        status = world.service.key_status()
        assert (status.active, status.remaining, status.rotating) == (2, 0, False)
        assert [version.state for version in status.versions] == ["retired", "active"]
        for number in (0, 99, 100, 555, 999):
            assert world.service.detokenize(tokens[number]) == Secret(f"622588{number:06d}")
            world.resolved(use(PayerKeyKind.TOKEN, tokens[number]))
    finally:
        world.service.close()


def test_another_process_follows_a_rotation(world: World) -> None:
    tokens = fill(world, 10)
    other = world.open()
    try:
        world.service.rotate_keys()
        assert world.service.rotation.wait(CALL_S)
        assert other.detokenize(tokens[3]) == Secret("622588000003")
        made = other.register_account(Account("issuer-a", Secret("622588999999")))
        assert world.service.detokenize(made.token) == Secret("622588999999")
        other.rotate_keys()
        assert other.rotation.wait(CALL_S)
        assert world.service.detokenize(made.token) == Secret("622588999999")
        assert world.service.key_status().active == 3
    finally:
        other.close()


def test_rotations_one_after_the_other_and_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "CHUNK", 50)
    tokens = fill(world, 500)
    threads = [threading.Thread(target=world.service.rotate_keys) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert world.service.rotation.wait(CALL_S)
    world.service.rotation.resume()
    assert world.service.rotation.wait(CALL_S)
    status = world.service.key_status()
    assert (status.active, status.remaining) == (5, 0)
    assert [version.state for version in status.versions] == ["retired"] * 4 + ["active"]
    assert world.service.detokenize(tokens[499]) == Secret("622588000499")


def test_erasure_destroys_and_cannot_be_undone(world: World) -> None:
    token, bystander = world.token(), world.token("6225880000000001")
    world.service.bind_face(token, Secret("face-one"))
    code = world.service.reserve_code(token).code
    world.resolved(use(PayerKeyKind.TOKEN, token))
    par = world.service.show(token)[0].par
    world.service.erase(token, reason="asked by the holder")
    assert world.refused(use(PayerKeyKind.TOKEN, token)).reason == Reason.ERROR_REASON_ACCOUNT_ERASED
    assert world.refused(use(PayerKeyKind.PAYMENT_CODE, code)).reason == Reason.ERROR_REASON_ACCOUNT_ERASED
    assert world.refused(use(PayerKeyKind.FACE, "face-one")).reason == Reason.ERROR_REASON_TOKEN_UNKNOWN
    view = world.service.show(token)[0]
    assert (view.erased, view.par, view.last_four) == (True, "", "")
    for act in (world.service.detokenize, world.service.erase, world.service.reserve_code, world.service.replace_token):
        with pytest.raises(HutongError) as refusal:
            act(token)
        assert refusal.value.reason == Reason.ERROR_REASON_ACCOUNT_ERASED
    assert world.service.detokenize(bystander) == Secret("6225880000000001")
    assert find_leaks([par], [world.folder]) == [], "its bytes are gone from the files"
    world.service.rotate_keys()
    assert world.service.rotation.wait(CALL_S)
    world.reopen()
    assert world.refused(use(PayerKeyKind.TOKEN, token)).reason == Reason.ERROR_REASON_ACCOUNT_ERASED
    assert world.token() != token, "the same account may come back, as a new one"


def test_the_active_version_is_not_retired(tmp_path: Path) -> None:
    keks = FileKeks.create(tmp_path / "kek", SUITES["international"], PASSPHRASE, 1, CHEAP)
    with pytest.raises(ValueError, match="rotate first"):
        keks.retire(1, 2)


def test_ciphertexts_are_bound_to_row_field_and_version(tmp_path: Path) -> None:
    keks = FileKeks.create(tmp_path / "kek", SUITES["international"], PASSPHRASE, 1, CHEAP)
    wrapped = keks.wrap(1, bytes(32), b"row 1")
    assert keks.unwrap(1, wrapped, b"row 1") == bytes(32)
    keks.add_version(2)
    for version, aad in ((1, b"row 2"), (2, b"row 1"), (3, b"row 1")):
        with pytest.raises(SealBrokenError):
            keks.unwrap(version, wrapped, aad)
    assert PAN not in repr(keks)
