"""Payments through intake, engine and journal under risk rules: limits, actions, velocity, repeats, what is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.calls import CREATE
from gateway.engine.model import Cancel, Capture
from gateway.risk.rule_file import parse_rules
from gateway.risk.tiers import TIERS
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import Reason
from hutong_contract.secret import Secret
from tests.gateway.risk.gate import HEAD, MIDNIGHT_US, START_US, Call, Gate

SECOND = 1_000_000
LIMITS = "[limits.CNY]\nA = 90_000\nB = 50_000\nC = 10_000\nD = 5_000\n"
DECLINE = 'action = "decline"\n'

Open = Callable[[str], Gate]


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Open]:
    opened: list[Gate] = []

    def open_(rules: str) -> Gate:
        opened.append(Gate(tmp_path, rules))
        return opened[0]

    yield open_
    opened[0].close()


def rule(body: str, name: str = "the rule") -> str:
    return f'[[rule]]\nname = "{name}"\n{body}\n'


@pytest.mark.parametrize(
    ("assurance", "age_s", "cap", "tier"), [("14", 0, 50_000, "B"), ("00", 0, 10_000, "C"), ("14", 41, 5_000, "D")]
)
def test_a_day_has_exactly_its_tiers_limit(gate: Open, assurance: str, age_s: int, cap: int, tier: str) -> None:
    here = gate(LIMITS)
    here.keys.changes = {"assurance_method": assurance, "made_us": START_US - age_s * SECOND}
    assert here.pay(cap - 1000).outcome == "SUCCEEDED"
    over = here.pay(1001)
    assert (over.outcome, over.error.fields["limit"], over.error.fields["most_minor"]) == (
        "DAILY_LIMIT",
        f"day {tier}",
        str(cap),
    )
    assert here.pay(1000).outcome == "SUCCEEDED"
    assert here.pay(1).outcome == "DAILY_LIMIT"
    assert here.pay(1, account=2).outcome == "SUCCEEDED"
    assert [row.limit for row in here.decisions] == [f"day {tier}"] * 2


def test_a_screenshot_of_a_code_counts_as_static(gate: Open) -> None:
    """The same code, presented again for another payment after it was refused: tier D, whatever its age."""
    here = gate(LIMITS + rule('terminals = ["t1"]\n' + DECLINE))
    code = "66001" + "7" * 14
    assert here.pay(6_000, code=code, terminal="t1").outcome == "RISK_DECLINED"
    assert here.pay(6_000, code=code).error.fields["limit"] == "day D"
    assert here.pay(5_000, code=code).outcome == "SUCCEEDED"
    assert here.pay(6_000).outcome == "SUCCEEDED", "a fresh code of the same payer is of tier C"


def test_the_same_request_again_is_no_screenshot(gate: Open) -> None:
    here = gate(LIMITS + rule('terminals = ["t1"]\n' + DECLINE))
    code = "66001" + "7" * 14
    assert here.pay(6_000, code=code, terminal="t1", key="one").outcome == "RISK_DECLINED"
    assert here.pay(6_000, code=code, key="one").outcome == "SUCCEEDED"


def test_a_token_that_nobody_shows_as_a_code_is_paid_by_agreement(gate: Open) -> None:
    here = gate(LIMITS)
    assert here.pay(90_000, token=True).outcome == "SUCCEEDED"
    assert here.pay(1, token=True).error.fields["limit"] == "day A"


def test_an_agreement_has_a_number_of_its_own(gate: Open) -> None:
    account = (1).to_bytes(16, "big").hex()
    here = gate(LIMITS + f'[[agreement]]\naccount = "{account}"\nday_minor = 70_000\n')
    here.keys.changes = {"assurance_method": "12"}
    assert here.pay(70_000).outcome == "SUCCEEDED"
    assert here.pay(1).error.fields["limit"] == "day A"
    assert here.pay(50_001, account=2).error.fields["limit"] == "day B"


def test_the_day_begins_anew_at_midnight_of_the_zone(gate: Open) -> None:
    here = gate(LIMITS)
    here.clock.us = MIDNIGHT_US - 1
    assert here.pay(10_000).outcome == "SUCCEEDED"
    assert here.pay(1).outcome == "DAILY_LIMIT"
    here.clock.us = MIDNIGHT_US
    assert here.pay(10_000).outcome == "SUCCEEDED"
    assert here.pay(1).outcome == "DAILY_LIMIT"


def test_other_currencies_have_other_limits_or_none(gate: Open) -> None:
    rules = parse_rules((HEAD + LIMITS + "[limits.USD]\nB = 7\n").encode(), "rules")
    assert rules.limit("B", "USD", b"") == 7
    assert [rules.limit(tier, "EUR", b"") for tier in TIERS] == [None] * 4
    assert gate(LIMITS).pay(10_000).outcome == "SUCCEEDED"


def test_a_payment_that_the_issuer_declines_gives_its_limit_back(gate: Open) -> None:
    here = gate(LIMITS)
    here.keys.changes = {"token": Secret("nobody")}
    assert here.pay(10_000).outcome == "DECLINED"
    here.keys.changes = {}
    assert here.pay(10_000).outcome == "SUCCEEDED"


def test_one_batch_holds_the_limit_row_by_row(gate: Open) -> None:
    here = gate(LIMITS)
    call = here.batch([here.request(3_000) for _ in range(5)])
    here.run()
    (told,) = call.told
    assert isinstance(told, bytes)
    results = pb.BatchCreatePaymentsResponse.FromString(told).results
    assert [result.WhichOneof("outcome") for result in results] == ["payment"] * 3 + ["error"] * 2


@pytest.mark.parametrize(
    ("points", "outcome", "action"),
    [(49, "SUCCEEDED", "approve"), (50, "STEP_UP_NEEDED", "step_up"), (90, "RISK_DECLINED", "decline")],
)
def test_the_score_decides_the_action(gate: Open, points: int, outcome: str, action: str) -> None:
    here = gate(
        "[score]\nstep_up = 50\ndecline = 90\n"
        + rule(f'keys = ["payment_code"]\npoints = {points - 9}', "much")
        + rule('keys = ["payment_code"]\npoints = 9', "little")
        + rule('keys = ["face"]\npoints = 900', "of others")
    )
    call = here.pay()
    assert call.outcome == outcome
    (row,) = here.decisions
    kept = json.loads(row.judgement)
    assert (kept["action"], kept["score"], kept["tier"]) == (action, points, "C")
    assert [name for name, _, _ in kept["rules"]] == ["much", "little"]
    assert kept["version"] == here.judge.rules.version
    assert bool(row.reason) == (outcome != "SUCCEEDED")
    if row.reason:
        assert call.error.fields["decision"].replace("-", "") == row.payment_id.hex()


def test_a_hard_rule_declines_whatever_the_score(gate: Open) -> None:
    here = gate(rule('accounts = ["00000000000000000000000000000001"]\n' + DECLINE))
    assert here.pay().outcome == "RISK_DECLINED"
    assert here.pay(account=2).outcome == "SUCCEEDED"
    assert here.pay(token=True).outcome == "RISK_DECLINED"
    assert here.decisions[0].reason == Reason.ERROR_REASON_RISK_DECLINED


def test_a_caller_does_not_learn_which_rule_it_was(gate: Open) -> None:
    here = gate(rule('merchants = ["m1"]\n' + DECLINE, "secret name"))
    assert "secret name" not in str(here.pay().error)


def test_a_step_up_asks_for_what_can_be_added(gate: Open) -> None:
    """A screenshot needs a fresh code; with it the same request, with the same key, is paid."""
    here = gate(rule('static_code = true\naction = "step_up"'))
    here.keys.changes = {"made_us": 1}
    first = here.pay(key="one")
    assert (first.outcome, first.error.fields["factor"]) == ("STEP_UP_NEEDED", "fresh_code")
    here.keys.changes = {}
    assert here.pay(key="one").outcome == "SUCCEEDED"


def test_a_step_up_that_nothing_can_satisfy_lets_the_payment_in(gate: Open) -> None:
    here = gate(rule('keys = ["payment_code"]\naction = "step_up"'))
    assert here.pay().error.fields["factor"] == "cryptogram"
    here.keys.changes = {"assurance_method": "12"}
    assert here.pay().outcome == "SUCCEEDED"


HELD = "[hold]\nhours = 1\n" + rule('currency = "CNY"\namount_above = 5_000\naction = "hold"')


def capture(here: Gate, payment: pb.Payment, *, operator: bool) -> Call:
    call = Call(-1, b"", "shop")
    key = bytes.fromhex(payment.payment_id.replace("-", ""))
    here.engine.inbox.put([Capture(key, 0, call, here.clock.us + 9 * SECOND, operator)])
    here.run()
    return call


def test_a_held_payment_rests_until_the_operator_releases_it(gate: Open) -> None:
    here = gate(HELD)
    held = here.pay(6_000)
    assert (held.outcome, held.payment.reason) == ("HELD", "risk_hold")
    assert capture(here, held.payment, operator=False).outcome == "RISK_HELD"
    (row,) = here.decisions
    assert (json.loads(row.judgement)["action"], row.reason) == ("hold", 0)
    released = capture(here, held.payment, operator=True)
    assert (released.outcome, released.payment.reason) == ("SUCCEEDED", "")
    assert capture(here, held.payment, operator=True).outcome == "SUCCEEDED"
    assert here.pay(5_000).outcome == "SUCCEEDED"


def test_a_held_payment_that_is_rejected_frees_its_limit(gate: Open) -> None:
    here = gate("[limits.CNY]\nC = 6_000\n" + HELD)
    held = here.pay(6_000)
    assert here.pay(1).outcome == "DAILY_LIMIT"
    call = Call(-1, b"", "shop")
    here.engine.inbox.put([Cancel(bytes.fromhex(held.payment.payment_id.replace("-", "")), call)])
    here.run()
    assert call.outcome == "CANCELLED"
    assert here.pay(5_000).outcome == "SUCCEEDED"


def test_a_held_payment_that_nobody_looks_at_expires(gate: Open) -> None:
    here = gate("[limits.CNY]\nC = 6_000\n" + HELD)
    held = here.pay(6_000)
    here.clock.us += 3600 * SECOND - 1
    here.run()
    assert here.pay(1).outcome == "DAILY_LIMIT"
    here.clock.us += SECOND
    here.run()
    late = capture(here, held.payment, operator=True)
    assert (late.outcome, late.error.fields["state"]) == ("PAYMENT_NOT_HELD", "EXPIRED")
    here.clock.us = START_US + 60 * SECOND
    assert here.pay(5_000).outcome == "SUCCEEDED"


def test_what_a_caller_holds_for_itself_is_declined_where_rules_would_hold_it(gate: Open) -> None:
    here = gate(HELD)
    request = here.request(6_000)
    request.hold.SetInParent()
    call = Call(CREATE, request.SerializeToString(), "shop")
    here.submit(call)
    here.run()
    assert call.outcome == "RISK_DECLINED"


def test_a_declined_request_that_is_repeated_is_judged_anew(gate: Open) -> None:
    here = gate(rule('between = ["22:00", "23:00"]\n' + DECLINE))
    code = "66001" + "7" * 14
    assert [here.pay(code=code, key="one").outcome for _ in range(2)] == ["RISK_DECLINED"] * 2
    here.clock.us += 3600 * SECOND
    paid = here.pay(code=code, key="one")
    assert paid.outcome == "SUCCEEDED"
    here.clock.us += 23 * 3600 * SECOND
    again = here.pay(code=code, key="one")
    assert again.told == paid.told, "what was admitted is answered as it was, whatever the rules say now"
    assert len(here.decisions) == 2


VELOCITY = 'per = "{per}"\nwithin_seconds = 64\n'


@pytest.mark.parametrize("exact", [False, True])
def test_velocity_fires_beyond_its_number_and_not_before(gate: Open, exact: bool) -> None:
    window = VELOCITY.format(per="payer") + "payments_above = 3\n" + DECLINE
    here = gate(rule(window + ("exact = true" if exact else "")))
    here.clock.us = START_US // (64 * SECOND) * 64 * SECOND
    assert [here.pay().outcome for _ in range(5)] == ["SUCCEEDED"] * 3 + ["RISK_DECLINED"] * 2
    assert here.pay(account=2).outcome == "SUCCEEDED"
    here.clock.us += 63 * SECOND
    assert here.pay().outcome == "RISK_DECLINED"
    here.clock.us += SECOND
    assert here.pay().outcome == "SUCCEEDED"


@pytest.mark.parametrize("exact", [False, True])
def test_velocity_of_an_amount(gate: Open, exact: bool) -> None:
    window = VELOCITY.format(per="merchant") + 'currency = "CNY"\nsum_above = 5_000\n' + DECLINE
    here = gate(rule(window + ("exact = true" if exact else "")))
    outcomes = [here.pay(amount, account=amount % 7).outcome for amount in (3_000, 2_001, 2_000, 1)]
    assert outcomes == ["SUCCEEDED", "RISK_DECLINED", "SUCCEEDED", "RISK_DECLINED"]
    assert here.pay(5_000, merchant="m2").outcome == "SUCCEEDED"


@pytest.mark.parametrize(
    ("per", "same", "other"),
    [
        ("payer", {}, {"account": 2}),
        ("key", {}, {"account": 2}),
        ("merchant", {"account": 2}, {"merchant": "m2"}),
        ("terminal", {"account": 2, "terminal": "t1"}, {"terminal": "t2"}),
        ("caller", {"account": 2, "merchant": "m2"}, {"caller": "other"}),
    ],
)
def test_velocity_of_each_subject(gate: Open, per: str, same: dict[str, str], other: dict[str, str]) -> None:
    here = gate(rule(VELOCITY.format(per=per) + "payments_above = 1\n" + DECLINE))
    assert here.pay(terminal="t1").outcome == "SUCCEEDED"
    assert here.pay(**{"terminal": "t1", **same}).outcome == "RISK_DECLINED"  # type: ignore[arg-type]
    assert here.pay(**other).outcome == "SUCCEEDED"  # type: ignore[arg-type]


def test_velocity_holds_within_one_batch(gate: Open) -> None:
    here = gate(rule(VELOCITY.format(per="payer") + "payments_above = 3\n" + DECLINE))
    calls = [here.ask() for _ in range(10)]
    here.run()
    assert [call.outcome for call in calls] == ["SUCCEEDED"] * 3 + ["RISK_DECLINED"] * 7


def test_one_request_sent_many_times_at_once_counts_once_and_has_one_answer(gate: Open) -> None:
    here = gate(rule(VELOCITY.format(per="payer") + "payments_above = 2\n" + DECLINE))
    code = "66001" + "7" * 14
    calls = [here.ask(code=code, key="one") for _ in range(20)]
    here.run()
    assert {str(call.told) for call in calls} == {str(calls[0].told)}
    assert calls[0].outcome == "SUCCEEDED"
    here.pay(code=code, key="one")
    assert here.pay().outcome == "SUCCEEDED"
    assert here.pay().outcome == "RISK_DECLINED"


def test_one_code_shown_many_times_at_once_counts_once(gate: Open) -> None:
    here = gate(rule(VELOCITY.format(per="payer") + "payments_above = 2\n" + DECLINE))
    code = "66001" + "7" * 14
    calls = [here.ask(code=code) for _ in range(20)]
    here.run()
    assert sorted(call.outcome for call in calls) == ["CODE_SPENT"] * 19 + ["SUCCEEDED"]
    assert here.pay().outcome == "SUCCEEDED"
    assert here.pay().outcome == "RISK_DECLINED"


def test_what_the_journal_refuses_does_not_count(gate: Open) -> None:
    here = gate(LIMITS + rule(VELOCITY.format(per="payer") + "payments_above = 1\n" + DECLINE))
    assert here.pay(10_001).outcome == "DAILY_LIMIT"
    assert here.pay(10_000).outcome == "SUCCEEDED"
    assert here.pay(1).outcome == "RISK_DECLINED"


def test_refusals_of_one_tick_are_bounded(gate: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.intake.DECLINES_PER_TICK_MAX", 3)
    here = gate(rule('merchants = ["m1"]\n' + DECLINE))
    calls = [here.ask() for _ in range(5)]
    here.run()
    assert [call.outcome for call in calls] == ["RISK_DECLINED"] * 3 + ["OVERLOADED"] * 2
    assert len(here.decisions) == 3


def test_a_payment_of_which_nothing_fired_is_not_in_the_list_and_still_says_its_tier(gate: Open) -> None:
    here = gate(LIMITS)
    payment = here.pay().payment
    assert here.decisions == []
    kept = here.journal.load([bytes.fromhex(payment.payment_id.replace("-", ""))])[0]
    assert kept.risk_id < 0


def test_new_rules_hold_from_the_next_payment_on_and_windows_go_on(gate: Open) -> None:
    body = VELOCITY.format(per="payer") + "payments_above = 2\n" + DECLINE
    here = gate(rule(body))
    assert here.pay().outcome == "SUCCEEDED"
    here.judge.rules = parse_rules((HEAD + rule(body) + rule('merchants = ["m2"]\n' + DECLINE, "no")).encode(), "x")
    assert here.pay(merchant="m2").outcome == "RISK_DECLINED"
    assert [here.pay().outcome for _ in range(2)] == ["SUCCEEDED", "RISK_DECLINED"]
