"""Fuzzes the decoder: mutations of real codes from a seed, and the check of each result.

Used by `hutong barcode fuzz` for millions of texts and by the tests for some thousands.
"""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from gateway.barcode import cpm
from gateway.barcode.artefacts import clean
from gateway.barcode.build import ConsumerCode, MerchantCode, build_consumer_code, build_merchant_code
from gateway.barcode.decode import decode, forget
from gateway.barcode.form_write import rewrite
from gateway.barcode.forms import FORMS
from gateway.barcode.model import Decoded
from gateway.barcode.payload import UTF8_BYTES
from gateway.barcode.profile import PROFILES
from gateway.barcode.tlv import crc, join
from hutong_contract.secret import Secret

SLOWEST_US: Final = 5_000
"""Longest time for one text, in microseconds, whatever it contains."""
_KINDS: Final = frozenset({"emv_mpm", "emv_cpm", "payment_code", "link", "bill", "credit_transfer", "unknown"})
_ODD: Final = "\x00\x07\x1b\x7f\u00e9\u0301\u200f最ក😀\ud800\udfff٣\ufeff\n\t %&=@/\\.,+-eE"
_AMOUNTS: Final = (
    "1,00",
    "1e5",
    "-1",
    "+1",
    "0",
    "0.00",
    ".5",
    "5.",
    "98.",
    "1.2.3",
    "٣",
    "99999999999999",
    "1.005",
    " 1",
)
_HUGE: Final = 100_000

Mutation = Callable[[str, random.Random], str]


def seeds() -> list[str]:
    """Real codes of every kind and scheme, to be mutated."""
    texts = [example for profile in PROFILES.values() for example in profile.examples]
    texts += [example for form in FORMS.values() for example in form.examples]
    texts.append(build_merchant_code(MerchantCode("merchant-1", "Noodle House", "Beijing", amount_minor=1250)))
    texts.append(build_merchant_code(MerchantCode("merchant-1", "最佳运输", "北京", terminal_id="t-1")))
    code = ConsumerCode(Secret("6212345678901234565"), cryptogram=b"12345678", counter=7, unpredictable_number=9)
    texts.append(build_consumer_code(code))
    texts += ["6612345678901234567", "134567890123456789", "2810061234567890123", "5678123456789012345"]
    texts += ["upi://pay?pa=a.shop@icici&pn=A%20Shop&am=12.50&cu=INR&tr=R1&mc=5411"]
    texts += ["https://qr.95516.com/00010000/01116734936470044423094034227630", "wxp://f2f0abcdefghijkl"]
    plain = MerchantCode("merchant-1", "Noodle House", "Beijing", amount_minor=1250)
    texts.append(build_merchant_code(replace(plain, tip="asked")))
    texts.append(build_merchant_code(replace(plain, tip="fixed", tip_minor=50)))
    texts.append(build_merchant_code(replace(plain, tip="percent", tip_basis_points=350)))
    texts += ["upi://mandate?pa=a.shop@icici&am=199.00&validityend=31122028#x", "UPI://PAY?PA=A@ICICI&amp;AM=5&MAM=1"]
    texts += ["weixin://wxpay/bizpayurl/up?pr=NwY5Mz9&groupid=00", "https://qr.alipay.com/fkx01234abcdefgh?t=1"]
    texts += ["0002020102120202000424PK36SCBL00000011234567020506150.5007123101203023591004B7A0"]
    texts += ["004000060000010103002021900021231231212000115102TH91049C30"]
    return texts


def _truncate(text: str, chance: random.Random) -> str:
    return text[: chance.randrange(len(text) + 1)]


def _digit(text: str, chance: random.Random) -> str:
    at = chance.randrange(len(text) or 1)
    return text[:at] + chance.choice("0123456789") + text[at + 1 :]


def _odd(text: str, chance: random.Random) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + chance.choice(_ODD) + text[at + chance.randrange(2) :]


def _delete(text: str, chance: random.Random) -> str:
    at = chance.randrange(len(text) or 1)
    return text[:at] + text[at + chance.randrange(1, 5) :]


def _repeat(text: str, chance: random.Random) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + text[at : at + chance.randrange(1, 40)] * chance.randrange(1, 6) + text[at:]


def _splice(text: str, chance: random.Random) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + text[chance.randrange(len(text) + 1) :]


def _lower(text: str, _: random.Random) -> str:
    return text[:-4] + text[-4:].lower()


def _reseal(text: str, _: random.Random) -> str:
    """Puts a valid checksum behind a damaged body, so that the rules after the checksum are reached."""
    body = text[:-4] if text[-8:-4] == "6304" else text + "6304"
    return body + crc(body)


def _amount(text: str, chance: random.Random) -> str:
    amount = chance.choice(_AMOUNTS)
    return text.replace("5802", f"54{len(amount):02d}{amount}5802", 1)


def _nest(text: str, chance: random.Random) -> str:
    inner = "0001A"
    for _ in range(chance.randrange(1, 30)):
        if len(inner) > 90:
            break
        inner = f"{chance.randrange(100):02d}{len(inner):02d}{inner}"
    return text.replace("5204", f"{chance.choice(('26', '51', '62', '64', '80'))}{len(inner):02d}{inner}5204", 1)


def _prefix(text: str, chance: random.Random) -> str:
    return (
        chance.choice(
            ("\\000026", "\ufeff", "]Q1", "]Q6", "\x02", "\u200e", " \n", "\u00ef\u00bb\u00bf", "\\000026\ufeff ")
        )
        + text
    )


def _bytes(text: str, chance: random.Random) -> str:
    """Changes below the base64 of a consumer code: tags, lengths, values."""
    if not text.startswith("hQV"):
        return _digit(text, chance)
    try:
        data = bytearray(base64.b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:
        return text[:-1]
    for _ in range(chance.randrange(1, 4)):
        data[chance.randrange(7, max(8, len(data))) % len(data)] = chance.choice(
            (0x80, 0x81, 0x82, 0xFF, 0x1F, chance.randrange(256))
        )
    return base64.b64encode(bytes(data)).decode("ascii")


def _huge(text: str, chance: random.Random) -> str:
    return (text[:4] + chance.choice("0123456789 ") * _HUGE)[:_HUGE]


_COMMON: Final[tuple[Mutation, ...]] = (
    _truncate, _digit, _digit, _odd, _delete, _repeat, _splice, _lower, _reseal, _amount, _nest, _prefix,
    _bytes, _bytes,
)  # fmt: skip
_HUGE_EVERY: Final = 5_000
"""One text in so many is 100 KB long; more would measure the copying of memory."""


def texts(count: int, seed: int) -> Iterator[str]:
    """`count` mutated texts, the same for the same seed."""
    chance = random.Random(seed)
    originals = seeds()
    for number in range(count):
        text = chance.choice(originals)
        if number % _HUGE_EVERY == _HUGE_EVERY - 1:
            yield _huge(text, chance)
            continue
        for _ in range(chance.randrange(1, 4)):
            text = chance.choice(_COMMON)(text, chance)
        if chance.randrange(3) == 0:
            text = _reseal(text, chance)
        yield text


def check(text: str) -> str | None:
    """Decodes a text; returns None, or what is wrong. Never includes the text: it could be a credential."""
    try:
        started_ns = time.perf_counter_ns()
        decoded = decode(text)
        took_us = (time.perf_counter_ns() - started_ns) // 1000
    except Exception as error:  # noqa: BLE001 - that nothing is raised is what is being checked
        return f"raised {type(error).__name__}: {error}"
    if took_us > SLOWEST_US and _again_us(text) > SLOWEST_US:
        return f"took {took_us} us"
    return _answer(text, decoded)


def _again_us(text: str) -> int:
    """The best of three further tries: the first may have waited for another process."""
    best = SLOWEST_US * 1000
    for _ in range(3):
        forget()
        started_ns = time.perf_counter_ns()
        decode(text)
        best = min(best, (time.perf_counter_ns() - started_ns) // 1000)
    return best


def _answer(text: str, decoded: Decoded) -> str | None:
    """Whether an answer is typed, consistent, written again byte for byte, and silent about credentials."""
    if decoded.kind not in _KINDS:
        return f"kind {decoded.kind}"
    for judged in (decoded.strict, decoded.profile):
        if judged is not None and judged.valid == bool(judged.violations):
            return "a verdict disagrees with its violations"
    payload, _ = clean(text)
    if decoded.kind == "emv_mpm" and decoded.length_reading is not None:
        written = join(decoded.objects, count_bytes=decoded.length_reading == UTF8_BYTES)
        if written != payload:
            return "a merchant code is not written again byte for byte"
    consumer_valid = decoded.kind == "emv_cpm" and decoded.strict is not None and decoded.strict.valid
    if consumer_valid and cpm.parse(payload)[0].text() != payload:
        return "a consumer code is not written again byte for byte"
    if decoded.form is not None and decoded.strict is not None and decoded.strict.valid:
        again = decode(rewrite(decoded.scheme or "", decoded.form))
        if (again.routing, again.amount_minor, again.currency) != (
            decoded.routing, decoded.amount_minor, decoded.currency,
        ):  # fmt: skip
            return "a bill or credit transfer is not written again"
    if decoded.credential is not None and decoded.credential.value.reveal() in repr(decoded):
        return "a credential shows in a repr"
    return None
