"""The tier of a payment: how its payer was verified, and what counts as a static code."""

from __future__ import annotations

import pytest

from gateway.risk.tiers import counts_as_static, missing_factor, tier_of
from hutong.gateway.v1 import payment_pb2 as pb

CODE, CONSUMER, TOKEN, FACE, TRANSIT = (
    pb.KEY_KIND_PAYMENT_CODE,
    pb.KEY_KIND_CONSUMER_CODE,
    pb.KEY_KIND_TOKEN,
    pb.KEY_KIND_FACE,
    pb.KEY_KIND_TRANSIT,
)
SECOND = 1_000_000


@pytest.mark.parametrize(
    ("kind", "assurance", "facts", "tier"),
    [
        (CODE, "00", {}, "C"),
        (CODE, "11", {}, "C"),
        (CODE, "13", {}, "C"),
        (CODE, "12", {}, "B"),
        (CODE, "14", {}, "B"),
        (CODE, "12", {"agreement": True}, "A"),
        (CODE, "11", {"agreement": True}, "C"),
        (CODE, "12", {"static_code": True}, "D"),
        (CODE, "12", {"static_code": True, "agreement": True}, "D"),
        (CONSUMER, "12", {}, "B"),
        (FACE, "11", {}, "C"),
        (FACE, "12", {}, "B"),
        (TRANSIT, "00", {}, "C"),
        (TOKEN, "00", {}, "A"),
        (TOKEN, "00", {"scanned": True}, "C"),
        (TOKEN, "12", {"scanned": True}, "B"),
        (TOKEN, "12", {"scanned": True, "static_merchant": True}, "D"),
    ],
)
def test_tiers(kind: int, assurance: str, facts: dict[str, bool], tier: str) -> None:
    asked = {"static_code": False, "scanned": False, "static_merchant": False, "agreement": False} | facts
    assert tier_of(kind, assurance, **asked) == tier


@pytest.mark.parametrize(
    ("kind", "age_s", "seen", "static"),
    [
        (CODE, 0, False, False),
        (CODE, 40, False, False),
        (CODE, 40.000001, False, True),
        (CODE, -5, False, False),
        (CODE, 1, True, True),
        (CONSUMER, 10, False, False),
        (CONSUMER, 1e9, False, True),
        (TOKEN, 1e9, True, False),
        (FACE, 1e9, True, False),
    ],
)
def test_a_screenshot_is_an_old_code_or_one_that_was_seen(kind: int, age_s: float, seen: bool, static: bool) -> None:
    now_us = 10**15
    made_us = now_us - int(age_s * SECOND)
    assert counts_as_static(kind, made_us, now_us, 40 * SECOND, seen=seen) is static


@pytest.mark.parametrize(
    ("kind", "assurance", "static_code", "proven", "factor"),
    [
        (CODE, "00", True, False, "fresh_code"),
        (CODE, "12", True, False, "fresh_code"),
        (CODE, "00", False, False, "cryptogram"),
        (CODE, "12", False, False, ""),
        (CONSUMER, "00", False, True, ""),
        (FACE, "11", False, False, "passcode"),
        (FACE, "12", False, False, ""),
        (TOKEN, "00", False, False, "cryptogram"),
    ],
)
def test_what_can_be_added(kind: int, assurance: str, static_code: bool, proven: bool, factor: str) -> None:
    assert missing_factor(kind, assurance, static_code=static_code, proven=proven) == factor
