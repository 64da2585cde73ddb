"""No secret of the token service reaches a file, a log, an error or a repr; and the searcher finds what is planted."""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from hutong_contract import transit
from hutong_contract.cryptogram import cryptogram
from hutong_contract.errors import HutongError
from hutong_contract.payment_code import offline_code
from hutong_contract.secret import Secret
from tests.deadlines import CALL_S
from tests.tokenization.leaks import find_leaks, spellings
from tests.tokenization.world import PASSPHRASE, World, use
from tokenization import numbers
from tokenization.errors import VaultError
from tokenization.interface import Account, Cryptogram, PayerKeyKind
from tokenization.key_kinds import KeyKind
from tokenization.lifecycle import Event
from tokenization.service import open_service

SECRET = "6225880112345674"


@pytest.mark.parametrize("spelling", sorted(spellings(SECRET)))
def test_the_searcher_finds_every_spelling(tmp_path: Path, spelling: str) -> None:
    (tmp_path / "log").write_bytes(b"\x00...." + spellings(SECRET)[spelling] + b"....")
    assert spelling in {leak.spelling for leak in find_leaks([SECRET], [tmp_path])}
    assert find_leaks(["6225880112345675"], [tmp_path]) == []


def test_the_searcher_finds_text_and_keys(tmp_path: Path) -> None:
    assert find_leaks([b"\x01\x02\x03\x04\x05\x06\x07\x08"], [], [("log", "key=0102030405060708")])
    assert find_leaks([SECRET], [tmp_path], [("log", f"pan={SECRET}")])
    assert not find_leaks([SECRET], [tmp_path], [("log", f"pan=************{SECRET[-4:]}")])


@pytest.mark.parametrize("secret", [Secret(SECRET), Secret(SECRET.encode())], ids=["text", "bytes"])
def test_a_secret_masks_itself(secret: Secret[str] | Secret[bytes]) -> None:
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>30}", f"{secret!r}", "%s %r" % (secret, secret)]  # noqa: UP031
    shown += [repr([secret]), repr({"a": secret}), repr(ValueError(secret)), str(ValueError(secret))]
    shown += [repr(Account("issuer-a", Secret(SECRET), {"holder": SECRET})), repr(use(PayerKeyKind.TOKEN, SECRET))]
    assert not find_leaks([SECRET], [], [("shown", text) for text in shown])


def test_a_secret_is_not_copied_out() -> None:
    for escape in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            escape(Secret(SECRET))
    assert Secret(SECRET) == Secret(SECRET)
    assert Secret(SECRET) != SECRET
    assert Secret(SECRET).last_four() == "5674"
    assert not hasattr(Secret(SECRET), "__dict__")


class Drive:
    """Uses everything once, right and wrong, and keeps what must stay secret and all that was shown."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.secrets: list[str | bytes] = [PASSPHRASE.reveal()]
        self.shown: list[tuple[str, str]] = []

    def attempt(self, act: Callable[[], object]) -> None:
        try:
            self.shown.append(("result", repr(act())))
        except (HutongError, VaultError, ValueError) as error:
            self.shown.append(("error", f"{error} {error!r} {error.args!r}"))
            if isinstance(error, HutongError):
                self.shown.append(("status", str(error.to_status())))

    def present(self, kind: PayerKeyKind, value: str | Secret[str], **facts: object) -> None:
        one = use(kind, value, **facts)
        self.shown.append(("use", repr(one)))
        for answer in self.world.service.resolve([one], self.world.clock.now_us):
            self.shown.append(("answer", f"{answer} {answer!r}"))

    def accounts(self) -> Secret[str]:
        service = self.world.service
        bodies = [f"622588{number:09d}" for number in range(2_000, 2_030)]
        pans = [body + numbers.check_digit(body) for body in bodies]
        made = service.register_accounts(
            [Account("issuer-a", Secret(pan), {"name": "holder-of-" + pan}) for pan in pans]
        )
        self.secrets += pans + [one.token.reveal() for one in made] + ["holder-of-" + pan for pan in pans]
        self.attempt(lambda: made)
        self.attempt(lambda: service.register_account(Account("issuer-a", Secret("9156" + pans[0]))))
        self.attempt(lambda: service.register_account(Account("", Secret(pans[0]))))
        self.attempt(lambda: service.show(made[0].token))
        self.attempt(lambda: service.show(Secret(pans[1])))
        self.attempt(lambda: service.detokenize(made[0].token))
        return made[0].token

    def keys(self, token: Secret[str]) -> None:
        world, service = self.world, self.world.service
        now_us = world.clock.now_us
        online = service.reserve_code(token)
        day = service.provision(token, "phone")
        offline = offline_code(day.alias, day.day_key.reveal(), now_us, day.suite)
        late = offline_code(day.alias, day.day_key.reveal(), now_us - 120_000_000, day.suite)
        device = service.add_key(token, KeyKind.DEVICE, device_id="phone")
        barcode = service.add_key(token, KeyKind.BARCODE)
        assert device.number is not None
        assert device.device_key is not None
        assert barcode.number is not None
        face = Secret("face-reference-0123456789")
        service.bind_face(token, face)
        rider = ec.generate_private_key(ec.SECP256R1())
        made, certificate = service.issue_transit(token, transit.compress(rider.public_key()), 500, "CNY")
        ride = transit.build_code(certificate, rider, now_us)
        for shown in (online, day, device, barcode, made):
            self.shown.append(("made", repr(shown)))
        number, key = device.number.reveal(), device.device_key.reveal()
        value = cryptogram(number, key, 1_000, "CNY", 1, 7, service.suite)
        codes = [online.code.reveal(), offline, late]
        self.secrets += [*codes, day.day_key.reveal(), number, key, barcode.number.reveal(), face.reveal(), value, ride]
        for code in codes:
            self.present(PayerKeyKind.PAYMENT_CODE, code)
            self.present(PayerKeyKind.PAYMENT_CODE, code[:-1] + str((int(code[-1]) + 1) % 10))
            self.present(PayerKeyKind.TOKEN, code)
        for proof in (Cryptogram(value, 1, 7), Cryptogram(value, 2, 7), None):
            self.present(PayerKeyKind.TOKEN, number, cryptogram=proof)
        for kind in PayerKeyKind:
            for presented in (face, Secret(ride), barcode.number, token, Secret(ride[:-1])):
                self.present(kind, presented, channel="face")
        self.attempt(lambda: service.bind_face(token, face))

    def states(self, token: Secret[str]) -> None:
        service = self.world.service
        for event in (Event.SUSPEND, Event.SUSPEND, Event.RESUME, Event.ACTIVATE):
            self.attempt(lambda event=event: service.change_state(token, event))  # type: ignore[misc]
            self.present(PayerKeyKind.TOKEN, token)
        self.attempt(lambda: service.history(token))
        self.attempt(lambda: service.replace_token(token))
        self.attempt(lambda: service.update_terms(token))
        self.attempt(lambda: service.key_status())
        service.rotate_keys()
        assert service.rotation.wait(CALL_S)
        vault = service._vault
        self.secrets += [*vault.keks._keys.values(), vault.keks._seal_key]  # type: ignore[attr-defined]


def test_nothing_secret_is_left_behind(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    drive = Drive(world)
    token = drive.accounts()
    drive.keys(token)
    drive.states(token)
    drive.shown += [("repr", repr(one)) for one in (world.service, world.service._vault, world.service._vault.keks)]
    drive.shown.append(("log", caplog.text))
    assert find_leaks(drive.secrets, [world.folder], drive.shown) == [], "while the vault is open, its log included"
    world.service.close()
    assert find_leaks(drive.secrets, [world.folder]) == [], "at rest"
    wrong = Secret("a passphrase that is wrong")
    with pytest.raises(VaultError) as error:
        open_service(world.folder, wrong, clock_us=world.clock)
    assert not find_leaks([*drive.secrets, wrong.reveal()], [], [("error", f"{error.value!r}")])
    world.service = world.open()
