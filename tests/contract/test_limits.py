"""The limits of the contract are those that its files and its servers name, and each stands once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hutong_contract import limits, names
from hutong_contract.errors import HutongError
from hutong_contract.paging import page_size

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "proto" / "hutong"
PACKAGES = ("clients/python", "contract", "facepay", "gateway", "loadtest", "sandbox", "tokenization", "verification")


@pytest.mark.parametrize(
    ("file", "sentence", "limit"),
    [
        ("gateway/v1/payment.proto", r"Makes up to ([\d,]+) payments", limits.PAYMENTS_MAX),
        ("gateway/v1/payment.proto", r"1 to ([\d,]+) printable ASCII", limits.IDEMPOTENCY_KEY_CHARACTERS_MAX),
        ("gateway/v1/payment.proto", r"text of up to ([\d,]+) characters", limits.REFERENCE_CHARACTERS_MAX),
        ("gateway/v1/payment.proto", r"Unset: ([\d,]+) seconds from now", limits.DEADLINE_DEFAULT_US // 1_000_000),
        ("gateway/v1/payment.proto", r"At most ([\d,]+) hours ahead", limits.DEADLINE_MAX_US // 3_600_000_000),
        ("gateway/v1/payment.proto", r"Unset: ([\d,]+) days", limits.HOLD_DEFAULT_S // 86_400),
        ("gateway/v1/payment.proto", r"At most ([\d,]+) days", limits.HOLD_MAX_S // 86_400),
        ("gateway/v1/barcode.proto", r"Decodes up to ([\d,]+) texts", limits.PAYLOADS_MAX),
        ("gateway/v1/barcode.proto", r"up to ([\d,]+) characters make sense", limits.PAYLOAD_CHARACTERS_MAX),
        ("gateway/v1/settlement.proto", r"At most ([\d,]+); 0 means 100", limits.SETTLEMENT_PAGE_MAX),
        ("gateway/v1/risk.proto", r"1 to ([\d,]+); 0 for 50", limits.DECISIONS_PAGE_MAX),
        ("tokenization/v1/token.proto", r"payers' keys, up to ([\d,]+) at once", limits.KEYS_RESOLVED_MAX),
        ("tokenization/v1/token.proto", r"At most ([\d,]+); 0 means 100", limits.HISTORY_PAGE_MAX),
        ("facepay/v1/face.proto", r"How many nonces, 1 to ([\d,]+)", limits.NONCES_MAX),
    ],
)
def test_the_contracts_files_say_the_limit(file: str, sentence: str, limit: int) -> None:
    said = re.findall(sentence, (PROTO / file).read_text(encoding="utf-8"))
    assert said, f"{file} no longer says it as {sentence}"
    assert {int(number.replace(",", "")) for number in said} == {limit}


@pytest.mark.parametrize("name", sorted(name for name in vars(names) if name.isupper()))
def test_a_name_of_the_contract_is_written_in_one_place(name: str) -> None:
    literal = f'"{getattr(names, name)}"'
    found = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if literal in path.read_text(encoding="utf-8")
    ]
    assert found == ["contract/hutong_contract/names.py"]


def test_a_page_has_as_many_as_are_asked_for_up_to_the_most() -> None:
    assert [page_size(asked, 100, 1_000) for asked in (0, 1, 1_000, 1_001)] == [100, 1, 1_000, 1_000]
    with pytest.raises(HutongError) as refused:
        page_size(-1, 100, 1_000)
    assert refused.value.name == "FIELD_INVALID"
