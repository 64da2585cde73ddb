"""One-time codes: forms, skew, age, days, replay, guessing, limits; and the arithmetic of forging them, simulated."""

from __future__ import annotations

import hmac
import random

import pytest

from hutong_contract import payment_code as form
from hutong_contract.errors import HutongError, Reason
from hutong_contract.secret import Secret
from tests.tokenization.world import START_US, World, use
from tokenization import failures as limits
from tokenization.codes import Provisioning
from tokenization.failures import Failures
from tokenization.interface import KeyUse, PayerKeyKind
from tokenization.lifecycle import Event


def shown(code: str | Secret[str], **facts: str) -> KeyUse:
    return use(PayerKeyKind.PAYMENT_CODE, code, **facts)


def at(made: Provisioning, time_us: int) -> str:
    return form.offline_code(made.alias, made.day_key.reveal(), time_us, made.suite)


def test_both_forms_have_19_digits_and_their_prefix(world: World) -> None:
    token = world.token()
    online = world.service.reserve_code(token).code.reveal()
    offline = at(world.service.provision(token, "phone"), world.clock.now_us)
    assert form.is_payment_code(online)
    assert form.is_payment_code(offline)
    assert (online[:2], offline[:2]) == ("66", "67")


@pytest.mark.parametrize(
    ("alias", "suite"), [("12345678", "international"), ("12345678x", "sm"), ("123456789", "none")]
)
def test_a_phone_refuses_what_it_cannot_compute(alias: str, suite: str) -> None:
    with pytest.raises(ValueError, match=r"alias|suite"):
        form.offline_code(alias, bytes(32), START_US, suite)


def test_online_code_pays_once_and_for_a_minute(world: World) -> None:
    token = world.token()
    made = world.service.reserve_code(token)
    first, second = (world.resolved(shown(made.code)) for _ in range(2))
    assert first.token == token
    assert first.spends == second.spends, "whoever commits first wins"
    assert len(first.spends) == 1
    world.clock.move_s(59.999)
    world.resolved(shown(made.code))
    world.clock.move_s(0.001)
    assert world.refused(shown(made.code)).reason == Reason.ERROR_REASON_CODE_EXPIRED
    other = world.service.reserve_code(token)
    assert world.resolved(shown(other.code)).spends != first.spends


def test_codes_survive_a_restart(world: World) -> None:
    token = world.token()
    online = world.service.reserve_code(token).code
    made = world.service.provision(token, "phone")
    offline = at(made, world.clock.now_us)
    before = [world.resolved(shown(code)).spends for code in (online, offline)]
    world.reopen()
    assert [world.resolved(shown(code)).spends for code in (online, offline)] == before
    assert world.service.provision(token, "phone") == made, "asked again, the same"


@pytest.mark.parametrize(
    ("age_steps", "reason"),
    [
        (-2, Reason.ERROR_REASON_CODE_UNKNOWN),
        (-1, None),
        (0, None),
        (1, None),
        (2, Reason.ERROR_REASON_CODE_EXPIRED),
        (10, Reason.ERROR_REASON_CODE_EXPIRED),
    ],
)
def test_clock_skew_of_one_step(world: World, age_steps: int, reason: int | None) -> None:
    """One step ahead and one behind are accepted; one step more is not."""
    made = world.service.provision(world.token(), "phone")
    code = at(made, world.clock.now_us - age_steps * form.STEP_US)
    if reason is None:
        world.resolved(shown(code))
    else:
        assert world.refused(shown(code)).reason == reason


def test_each_step_and_each_device_spends_its_own(world: World) -> None:
    token = world.token()
    phone, watch = world.service.provision(token, "phone"), world.service.provision(token, "watch")
    now_us = world.clock.now_us
    spends = {
        world.resolved(shown(at(made, now_us + shift))).spends
        for made in (phone, watch)
        for shift in (-form.STEP_US, 0, form.STEP_US)
    }
    assert len(spends) == 6
    assert world.resolved(shown(at(phone, now_us))).spends == world.resolved(shown(at(phone, now_us))).spends


def test_days_do_not_mix(world: World) -> None:
    """Yesterday's alias is refused today, and yesterday's key makes no code of today; midnight's skew is allowed."""
    token = world.token()
    day_end_us = (form.day_of(world.clock.now_us) + 1) * form.DAY_US
    world.clock.now_us = day_end_us - 1_000_000
    today = world.service.provision(token, "phone")
    tomorrow = world.service.provision(token, "phone", today.day + 1)
    assert today.alias != tomorrow.alias
    assert today.day_key != tomorrow.day_key
    late = at(today, world.clock.now_us)
    world.clock.move_s(2)
    world.resolved(shown(late))
    world.resolved(shown(at(tomorrow, world.clock.now_us)))
    mixed = form.offline_code(tomorrow.alias, today.day_key.reveal(), world.clock.now_us, today.suite)
    assert world.refused(shown(mixed)).reason == Reason.ERROR_REASON_CODE_UNKNOWN
    world.clock.move_s(3_600)
    assert world.refused(shown(at(today, world.clock.now_us))).reason == Reason.ERROR_REASON_CODE_EXPIRED
    for day in (today.day - 1, today.day + 3):
        with pytest.raises(HutongError, match="day"):
            world.service.provision(token, "phone", day)


def test_codes_of_a_deleted_token(world: World) -> None:
    token = world.token()
    online = world.service.reserve_code(token).code
    offline = at(world.service.provision(token, "phone"), world.clock.now_us)
    world.service.change_state(token, Event.DELETE)
    for code in (online, offline):
        assert world.refused(shown(code)).reason == Reason.ERROR_REASON_TOKEN_NOT_ACTIVE
    for ask in (world.service.reserve_code, lambda name: world.service.provision(name, "phone")):
        with pytest.raises(HutongError) as refusal:
            ask(token)
        assert refusal.value.reason == Reason.ERROR_REASON_TOKEN_NOT_ACTIVE


@pytest.mark.parametrize(
    "code", ["", "66", "6" * 19, "67" + "0" * 17, "68" + "1" * 17, "66" + "x" * 17, "６６" + "1" * 17]
)
def test_what_was_never_issued(world: World, code: str) -> None:
    assert world.refused(shown(code)).reason == Reason.ERROR_REASON_CODE_UNKNOWN


def test_a_thousand_guesses_at_an_alias(world: World) -> None:
    """Five are answered, and with the sixth the alias is locked for its day, for the right code too."""
    made = world.service.provision(world.token(), "phone")
    right = at(made, world.clock.now_us)
    source = random.Random(7)
    answers = []
    for number in range(1_000):
        guess = f"{source.randrange(10**8):08d}"
        assert guess != right[-8:]
        answers.append(world.refused(shown(right[:-8] + guess, terminal_id=f"t{number}")))
    assert [answer.reason for answer in answers[:5]] == [Reason.ERROR_REASON_CODE_UNKNOWN] * 5
    assert {answer.reason for answer in answers[5:]} == {Reason.ERROR_REASON_CODE_LOCKED}
    assert world.refused(shown(right)).fields["subject"] == "alias"
    world.reopen()
    assert world.refused(shown(right)).reason == Reason.ERROR_REASON_CODE_LOCKED, "also after a restart"


def test_a_terminal_that_guesses_is_locked_for_a_while(world: World) -> None:
    token = world.token()
    source = random.Random(8)
    answers = [world.refused(shown(f"66{source.randrange(10**17):017d}")) for _ in range(1_000)]
    known = limits.TERMINAL_FAILURES_MAX
    assert {answer.reason for answer in answers[:known]} == {Reason.ERROR_REASON_CODE_UNKNOWN}
    assert {answer.reason for answer in answers[known:]} == {Reason.ERROR_REASON_CODE_LOCKED}
    right = world.service.reserve_code(token).code
    assert world.refused(shown(right)).fields["subject"] == "terminal"
    world.resolved(shown(right, terminal_id="terminal-2"))
    world.reopen()
    assert world.refused(shown(right)).reason == Reason.ERROR_REASON_CODE_LOCKED, "also after a restart"
    world.clock.move_s(600)
    world.resolved(shown(world.service.reserve_code(token).code))


def test_failures_counted_here_are_not_counted_again_when_read() -> None:
    counted = Failures()
    for _ in range(3):
        counted.add(b"a", 10)
    counted.apply([(number, b"a", 10) for number in range(3)])
    assert not counted.locked(b"a", 4, 100, 20)
    counted.apply([(9, b"a", 11)])
    assert counted.locked(b"a", 4, 100, 20)
    assert not counted.locked(b"a", 4, 100, 111), "forgotten after the window"


def test_invented_terminals_do_not_push_the_lock_of_an_alias_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An alias is locked; then more terminals fail than are remembered."""
    monkeypatch.setattr(limits, "TERMINALS_MAX", 500)
    world.reopen()
    made = world.service.provision(world.token(), "phone")
    right = at(made, world.clock.now_us)
    wrong = right[:-1] + str((int(right[-1]) + 1) % 10)
    for number in range(limits.ALIAS_FAILURES_MAX):
        world.refused(shown(wrong, terminal_id=f"first {number}"))
    invented = [shown(f"66{number:017d}", terminal_id=f"t{number}") for number in range(limits.TERMINALS_MAX + 1)]
    world.service.resolve(invented, world.clock.now_us)
    for _ in range(limits.ALIAS_FAILURES_MAX):
        assert world.refused(shown(wrong, terminal_id="another")).fields["subject"] == "alias"
    assert world.refused(shown(right, terminal_id="yet another")).fields["subject"] == "alias"


def test_failures_are_forgotten_when_they_count_no_longer() -> None:
    counted = Failures()
    for number in range(limits.ALIASES_AT_FIRST):
        counted.add(number.to_bytes(16, "big"), 1_000 + number)
    locked = bytes(15) + b"x"
    now_us = limits.ALIAS_WINDOW_US + 1_000 + limits.ALIASES_AT_FIRST // 2
    for _ in range(limits.ALIAS_FAILURES_MAX):
        counted.add(locked, now_us)
    for number in range(3 * limits.ALIASES_AT_FIRST):
        counted.add(b"later" + number.to_bytes(11, "big"), now_us)
    assert counted.aliases < 4 * limits.ALIASES_AT_FIRST
    assert counted.locked(locked, limits.ALIAS_FAILURES_MAX, limits.ALIAS_WINDOW_US, now_us)


@pytest.mark.parametrize("digits", [2, 3])
def test_forgery_arithmetic_with_a_shortened_mac(digits: int) -> None:
    """A guess at a known alias is right with 3 / 10^digits, for 8 digits 3e-8; five guesses a day with 15 / 10^digits.

    Played with 2 and 3 digits, where it can be counted: within four standard deviations of what is claimed.
    """
    source = random.Random(digits)
    tries = 60_000
    hits = 0
    for trial in range(tries):
        key = source.randbytes(32)
        now = 1_000 + trial
        accepted = {
            form.truncate(hmac.digest(key, form.step_message(step), "sha256"), digits)
            for step in (now - 1, now, now + 1)
        }
        hits += source.randrange(10**digits) in accepted
    claimed = 1 - (1 - 10**-digits) ** 3
    deviation = (tries * claimed * (1 - claimed)) ** 0.5
    assert abs(hits - tries * claimed) < 4 * deviation
    assert claimed <= 3 / 10**digits


def test_every_digit_of_the_mac_is_used() -> None:
    """The cut to eight digits is even: each digit at each place appears, none twice as often as another."""
    counts = [[0] * 10 for _ in range(8)]
    for step in range(4_000):
        code = form.offline_code("123456789", b"k" * 32, step * form.STEP_US)
        for place, digit in enumerate(code[-8:]):
            counts[place][int(digit)] += 1
    assert all(300 < count < 500 for place in counts for count in place)
