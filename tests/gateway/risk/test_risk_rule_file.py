"""The file of rules: what is right is read, and every mistake is named with its line and what to write instead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from command.risk import check
from gateway.risk.facts import Facts
from gateway.risk.rule_file import DEFAULT_FILE, RulesError, parse_rules, read_rules
from gateway.risk.toml_lines import line_at, lines_of
from hutong.gateway.v1 import payment_pb2 as pb

REF = "0123456789abcdef0123456789abcdef"


def problems(text: str) -> list[str]:
    with pytest.raises(RulesError) as refused:
        parse_rules(text.encode(), "rules.toml")
    return refused.value.problems


RULE = 'version = 1\n[[rule]]\nname = "one"\n'

BAD = [
    ("", 1, "version is missing; write version = 1"),
    ("version = 2", 1, "whole number from 1 to 1"),
    ('version = "1"', 1, "whole number"),
    ("version = 1\nversion = 1", 2, "line 2"),
    ("version = 1\nrules = 3", 2, "did you mean 'rule'?"),
    ("version = 1\nzone = 8", 2, "must be a text"),
    ('version = 1\nzone = "Mars"', 2, 'write "UTC+8"'),
    ("version = 1\n[codes]\nfresh_seconds = 0", 3, "from 1 to 300"),
    ("version = 1\ncodes = 3", 2, "must be a table: [codes]"),
    ("version = 1\n[codes]\nfresh_second = 3", 3, "did you mean 'fresh_seconds'?"),
    ("version = 1\n[limits.CNX]\nB = 1", 2, "not an ISO 4217 code"),
    ("version = 1\n[limits.CNY]\nE = 1", 3, "is not known; known here: A, B, C, D"),
    ("version = 1\n[limits.CNY]\nB = 5000.0", 3, "whole number"),
    ("version = 1\n[limits.CNY]\nB = -1", 3, "whole number"),
    ("version = 1\n[limits.CNY]\nB = true", 3, "whole number"),
    ("version = 1\n[score]\nstep_up = 50\nhold = 40", 2, "must rise"),
    ("version = 1\n[score]\napprove = 1", 3, "is not known"),
    ("version = 1\n[agreement]\naccount = 1", 2, "must be tables: [[agreement]]"),
    ("version = 1\n[[agreement]]\nday_minor = 5", 2, "needs account"),
    (f'version = 1\n[[agreement]]\naccount = "{REF}"', 2, "needs day_minor"),
    ('version = 1\n[[agreement]]\naccount = "12"\nday_minor = 5', 3, "32 lower-case hexadecimal digits"),
    ("version = 1\n[[rule]]\npoints = 3", 2, "needs a name"),
    (RULE + "points = 3", 2, "no condition"),
    (RULE + 'keys = ["token"]', 2, "needs a consequence"),
    (RULE + 'keys = ["tokens"]\npoints = 3', 4, "known: payment_code"),
    (RULE + 'keys = "token"\npoints = 3', 4, "list of texts"),
    (RULE + "keys = []\npoints = 3", 4, "list of texts"),
    (RULE + 'keys = ["face"]\npoints = 0', 5, "from 1 to 1000"),
    (RULE + 'keys = ["face"]\naction = "approve"', 5, "must be one of step_up, hold, decline"),
    (RULE + "amount_above = 3\npoints = 1", 4, "needs currency"),
    (RULE + 'currency = "cny"\npoints = 1', 4, "ISO 4217"),
    (RULE + 'between = ["23:00"]\npoints = 1', 4, "two different times"),
    (RULE + 'between = ["24:00", "05:00"]\npoints = 1', 4, "two different times"),
    (RULE + 'between = ["05:00", "05:00"]\npoints = 1', 4, "two different times"),
    (RULE + 'tiers = ["E"]\npoints = 1', 4, "known: A, B, C, D"),
    (RULE + "static_code = 1\npoints = 1", 4, "true or false"),
    (RULE + 'accounts = ["6217000130000009"]\npoints = 1', 4, "looks like an account number"),
    (RULE + 'accounts = ["ABC"]\npoints = 1', 4, "32 lower-case"),
    (RULE + 'keys_beginning = ["ab"]\npoints = 1', 4, "6 to 32"),
    (RULE + "key_younger_hours = 0\npoints = 1", 4, "whole number"),
    (RULE + 'per = "payer"\npayments_above = 3\npoints = 1', 2, "needs within_seconds"),
    (RULE + "within_seconds = 9\npayments_above = 3\npoints = 1", 2, "needs per"),
    (RULE + 'per = "shop"\nwithin_seconds = 9\npayments_above = 3\npoints = 1', 4, "payer, key, merchant"),
    (RULE + 'per = "payer"\nwithin_seconds = 9\npoints = 1', 2, "one of payments_above and sum_above"),
    (RULE + 'per = "payer"\nwithin_seconds = 9\nsum_above = 3\npoints = 1', 6, "needs currency"),
    (RULE + 'per = "payer"\nwithin_seconds = 9\npayments_above = 3\nexact = true\npoints = 1', 7, "decided when"),
    (RULE + 'keys = ["face"]\npoints = 1\n[[rule]]\nname = "one"\nkeys = ["face"]\npoints = 1', 7, "another rule's"),
    (RULE + 'keys = ["face"]\nponits = 1', 5, "did you mean 'points'?"),
    (RULE + 'keys = [\n  "face",\n]\nweights = 1\npoints = 2', 7, "is not known"),
    ("version = 1\nx = '", 2, "is not TOML"),
]


@pytest.mark.parametrize(("text", "line", "says"), BAD)
def test_a_mistake_is_named_with_its_line(text: str, line: int, says: str) -> None:
    found = problems(text)
    assert any(says in one and f"line {line}" in one for one in found), found


def test_an_account_number_is_not_repeated_in_the_message() -> None:
    assert "6217" not in "".join(problems(RULE + 'accounts = ["6217000130000009"]\npoints = 1'))


def test_all_mistakes_are_named_at_once_up_to_a_bound() -> None:
    found = problems("version = 1\n" + "".join(f"wrong_{number} = 1\n" for number in range(50)))
    assert len(found) == 20


def test_bytes_that_are_no_text_and_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(RulesError, match="not UTF-8"):
        parse_rules(b"\xff", "x")
    with pytest.raises(RulesError, match="cannot be read"):
        read_rules(tmp_path / "missing.toml")
    large = tmp_path / "large.toml"
    large.write_bytes(b"#" * (4 * 1024 * 1024 + 1))
    with pytest.raises(RulesError, match="larger than"):
        read_rules(large)


def test_the_packages_own_rules_and_their_limits() -> None:
    rules = read_rules(DEFAULT_FILE)
    assert {tier: rules.limits.get((tier, "CNY")) for tier in "ABCD"} == {
        "A": None,
        "B": 500_000,
        "C": 100_000,
        "D": 50_000,
    }
    assert pb.KEY_KIND_TOKEN not in rules.by_kind
    assert rules.zone.name == "UTC+8"
    assert rules.thresholds == {"step_up": 50, "hold": 70, "decline": 90}


def test_the_version_is_of_the_content() -> None:
    one, same, other = (parse_rules(text, "x").version for text in (b"version = 1", b"version = 1", b"version=1"))
    assert one == same != other
    assert len(one) == 16


def facts(**changes: object) -> Facts:
    made = Facts(1_790_000_000_000_000, pb.KEY_KIND_PAYMENT_CODE, 1000, "CNY", "C")
    return made._replace(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("condition", "fires", "not_fires"),
    [
        ('tiers = ["C", "D"]', {}, {"tier": "B"}),
        ('currency = "CNY"\namount_above = 999', {}, {"amount_minor": 999}),
        ('currency = "CNY"\namount_above = 999', {}, {"currency": "USD"}),
        ("static_code = true", {"static_code": True}, {}),
        ("static_code = false", {}, {"static_code": True}),
        ("static_merchant_code = true", {"static_merchant": True}, {}),
        ("key_younger_hours = 1", {"key_age_us": 3_599_999_999}, {"key_age_us": 3_600_000_000}),
        ("key_younger_hours = 1", {"key_age_us": 0}, {"key_age_us": -1}),
        (f'accounts = ["{REF}"]', {"account": bytes.fromhex(REF)}, {"account": bytes(16)}),
        (f'keys_beginning = ["{REF[:6]}"]', {"key": bytes.fromhex(REF)}, {"key": b"\x01\x23\x46" + bytes(13)}),
        (f'keys_beginning = ["{REF[:7]}"]', {"key": bytes.fromhex(REF)}, {"key": b"\x01\x23\x45\x77" + bytes(12)}),
        ('issuers = ["issuer-a"]', {"issuer": "issuer-a"}, {"issuer": "issuer-b"}),
        ('merchants = ["m1"]', {"merchant": "m1"}, {"merchant": "m2"}),
        ('terminals = ["t1"]', {"terminal": "t1"}, {}),
        ('categories = ["6051"]', {"category": "6051"}, {}),
        ('callers = ["shop"]', {"caller": "shop"}, {}),
        # 1,790,000,000 s is 2026-09-21 14:13:20 UTC, 22:13:20 in UTC+8.
        ('between = ["22:00", "06:00"]', {}, {"now_us": 1_790_000_000_000_000 + 8 * 3_600_000_000}),
        ('between = ["22:13", "22:14"]', {}, {"now_us": 1_790_000_040_000_000}),
        ('between = ["22:14", "22:13"]', {"now_us": 1_790_000_040_000_000}, {}),
    ],
)
def test_conditions(condition: str, fires: dict[str, object], not_fires: dict[str, object]) -> None:
    (rule,) = parse_rules(f"{RULE}{condition}\npoints = 1".encode(), "x").rules
    assert all(holds(facts(**fires)) for holds in rule.conditions)
    assert not all(holds(facts(**not_fires)) for holds in rule.conditions)


def test_lines_of_every_kind_of_value() -> None:
    text = '''a = 1 # [no]
"b c" = """
x = 2
"""
[t]
list = [
  1, # ]
  2,
]
u.v = { w = 1,  z = "}" }
[[r]]
k = 1
[[r]]
k = "]["
[r.deep]
k = 2
'''
    lines = lines_of(text)
    wanted = {("a",): 1, ("b c",): 2, ("t",): 5, ("t", "list"): 6, ("t", "u", "v"): 10, ("r", 0): 11}
    wanted |= {("r", 0, "k"): 12, ("r", 1): 13, ("r", 1, "k"): 14, ("r", 1, "deep"): 15, ("r", 1, "deep", "k"): 16}
    assert lines == wanted
    assert line_at(lines, ("r", 1, "unknown")) == 13
    assert line_at(lines, ("nowhere",)) == 1


def test_the_command_checks_a_file(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_bytes(DEFAULT_FILE.read_bytes())
    bad.write_text("version = 1\nzone = 3\n")
    done = CliRunner().invoke(check, [str(good), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["limits"]["CNY D"] == 50_000
    done = CliRunner().invoke(check, [str(bad)])
    assert done.exit_code == 1
    assert "line 2: zone must be a text" in done.output
    done = CliRunner().invoke(check, [str(bad), "--json"])
    assert (done.exit_code, json.loads(done.stdout)["valid"]) == (1, False)
    assert CliRunner().invoke(check, [str(tmp_path / "missing")]).exit_code == 2
