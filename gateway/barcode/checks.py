"""Checks of the ids that schemes route by: check digits and formats, each a function of a value and its neighbours.

A check receives the value and the other fields beside it (a PayNow proxy is judged by its type), and returns whether it
is valid. Profiles name checks by their key in `CHECKS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from gateway.barcode import references

Check = Callable[[str, Mapping[str, str]], bool]

_VPA: Final = re.compile(r"[A-Za-z0-9._-]{2,64}@[A-Za-z][A-Za-z0-9.-]{1,63}").fullmatch
_EMAIL: Final = re.compile(r"[^@\s]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63}){1,4}").fullmatch
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}").fullmatch
_PIX_PHONE: Final = re.compile(r"\+[1-9][0-9]{6,14}").fullmatch
_PIX_URL: Final = re.compile(r"[A-Za-z0-9.-]{3,63}(:[0-9]{1,5})?(/[!-~]{1,76})").fullmatch
_IFSC: Final = re.compile(r"[A-Za-z]{4}0[A-Za-z0-9]{6}[0-9A-Za-z]{1,26}").fullmatch
_BIC: Final = re.compile(r"[A-Z0-9]{4}[A-Z]{2}[A-Z0-9]{2}([A-Z0-9]{3})?").fullmatch
_CUIT: Final = re.compile("[0-9]{2}-[0-9]{8}-[0-9]").fullmatch
_OGM: Final = re.compile(
    r"(\+{3}[0-9]{3}/[0-9]{4}/[0-9]{5}\+{3}|\*{3}[0-9]{3}/[0-9]{4}/[0-9]{5}\*{3}|[0-9]{12})"
).fullmatch
_NRIC: Final = re.compile(r"[STFGM][0-9]{7}[A-Z]").fullmatch
_PAYNOW_VPA: Final = re.compile(r"[^#\s]{1,60}#[A-Za-z0-9]{2,12}").fullmatch
_UEN: Final = re.compile(r"([0-9]{8,9}|[STR][0-9]{2}[A-Z]{2}[0-9]{4})[A-Z][A-Z0-9]{0,8}").fullmatch
_HK_MOBILE: Final = re.compile(r"\+[0-9]{1,4}-[0-9]{6,12}").fullmatch
_NMID: Final = re.compile(r"ID[0-9]{13}").fullmatch
_PAKISTAN_ID: Final = re.compile(r"\+92[0-9]{10}|03[0-9]{9}|[A-Za-z0-9._@-]{3,40}").fullmatch


def digits(value: str, shortest: int, longest: int) -> bool:
    """Whether a value is ASCII digits of a length."""
    return shortest <= len(value) <= longest and value.isascii() and value.isdigit()


def luhn(number: str) -> bool:
    """ISO/IEC 7812-1 check digit."""
    if not (number.isascii() and number.isdigit()):
        return False
    total = 0
    for place, digit in enumerate(reversed(number)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _modulo_11(number: str, weights: tuple[int, ...]) -> str:
    """A check digit. Letters count by their place in ASCII after "0": 17 for A (Receita Federal, IN 2229/2024)."""
    rest = sum((ord(sign) - 48) * weight for sign, weight in zip(number, weights, strict=True)) % 11
    return str(0 if rest < 2 else 11 - rest)


_CPF_WEIGHTS: Final = tuple(range(11, 1, -1))
_CNPJ: Final = re.compile(r"[0-9A-Z]{12}[0-9]{2}").fullmatch
_CNPJ_WEIGHTS: Final = (6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)


def cpf(number: str) -> bool:
    """Brazil's person number: eleven digits, two of them check digits."""
    if not digits(number, 11, 11) or len(set(number)) == 1:
        return False
    first = _modulo_11(number[:9], _CPF_WEIGHTS[1:])
    return number[9:] == first + _modulo_11(number[:9] + first, _CPF_WEIGHTS)


def cnpj(number: str) -> bool:
    """Brazil's company number: twelve digits or capital letters and two check digits."""
    if not _CNPJ(number) or number.strip("0") == "":
        return False
    first = _modulo_11(number[:12], _CNPJ_WEIGHTS[1:])
    return number[12:] == first + _modulo_11(number[:12] + first, _CNPJ_WEIGHTS)


def cuit(number: str) -> bool:
    """Argentina's tax number: eleven digits, the last a check digit modulo 11; also written as 20-11111111-2."""
    number = "".join(number.split("-")) if _CUIT(number) else number
    if not digits(number, 11, 11):
        return False
    total = sum(int(d) * w for d, w in zip(number, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2), strict=False))
    return (11 - total % 11) % 11 == int(number[10])


def thai_id(number: str) -> bool:
    """Thailand's national or tax id: thirteen digits, the last a check digit."""
    if not digits(number, 13, 13):
        return False
    total = sum(int(digit) * weight for digit, weight in zip(number[:12], range(13, 1, -1), strict=True))
    return (11 - total % 11) % 10 == int(number[12])


def _pix_key(value: str, _: Mapping[str, str]) -> bool:
    """E-mail, phone, CPF, CNPJ or random key (Manual de Padrões para Iniciação do Pix, 1.6)."""
    return bool(_UUID(value) or _PIX_PHONE(value) or cpf(value) or cnpj(value) or (len(value) <= 77 and _EMAIL(value)))


def _paynow_proxy(value: str, fields: Mapping[str, str]) -> bool:
    """By its type in 01: 0 mobile number, 1 identity card (NRIC, FIN), 2 entity number (UEN), 3 virtual address.

    No value is right for two types, so a proxy names one payee without its type.
    """
    kind = fields.get("01")
    if kind == "0":
        return value.startswith("+") and digits(value[1:], 8, 15)
    match = {"1": _NRIC, "2": _UEN, "3": _PAYNOW_VPA}.get(kind or "")
    return match is not None and bool(match(value))


def _promptpay_mobile(value: str, _: Mapping[str, str]) -> bool:
    return digits(value, 13, 13) and value.startswith("00")


def _promptpay_number(value: str, _: Mapping[str, str]) -> bool:
    """A national or tax id. None begins with 00 as mobile numbers do, so that no digits are right for both."""
    return digits(value, 13, 13) and not value.startswith("00")


def _calendar(value: str, _: Mapping[str, str]) -> bool:
    """YYYYMMDD, YYYYMMDDHHMMSS or YYMMDDHHMMSS."""
    if not digits(value, 8, 14) or len(value) not in {8, 12, 14}:
        return False
    month = 2 if len(value) == 12 else 4
    return "01" <= value[month : month + 2] <= "12" and "01" <= value[month + 2 : month + 4] <= "31"


def _structured(value: str, _: Mapping[str, str]) -> bool:
    """A creditor reference (RF) or Belgium's structured communication by its check digits; others have none here."""
    if value.upper().startswith("RF"):
        return references.creditor_reference(value)
    found = _OGM(value)
    if found is None:
        return True
    digits = re.sub("[^0-9]", "", value)
    return (int(digits[:10]) % 97 or 97) == int(digits[10:])


def _epc_version(value: str, fields: Mapping[str, str]) -> bool:
    """Version 001 needs the bank's BIC; 002 works without."""
    return value != "001" or bool(fields.get("participant"))


def _simple(match: Callable[[str], object]) -> Check:
    return lambda value, _: bool(match(value))


def _text(check: Callable[[str], bool]) -> Check:
    return lambda value, _: check(value)


def _sized(shortest: int, longest: int) -> Check:
    return lambda value, _: digits(value, shortest, longest)


CHECKS: Final[Mapping[str, Check]] = MappingProxyType(
    {
        "bic": _simple(_BIC),
        "calendar": _calendar,
        "creditor_reference": _text(references.creditor_reference),
        "croatian_reference": references.croatian_reference,
        "cuit": _text(cuit),
        "digits_3": _sized(3, 3),
        "digits_6": _sized(6, 6),
        "digits_8": _sized(8, 8),
        "digits_13": _sized(13, 13),
        "digits_15": _sized(15, 15),
        "digits_16": _sized(16, 16),
        "epc_version": _epc_version,
        "epoch_ms": _sized(13, 13),
        "fps_id": _sized(7, 9),
        "hk_mobile": _simple(_HK_MOBILE),
        "email": _simple(_EMAIL),
        "iban": lambda value, _: references.iban(value),
        "ifsc_account": _simple(_IFSC),
        "iban_and_bic": _text(references.iban_and_bic),
        "luhn": lambda value, _: luhn(value),
        "nip": _text(references.nip),
        "nmid": _simple(_NMID),
        "pakistan_id": _simple(_PAKISTAN_ID),
        "paynow_proxy": _paynow_proxy,
        "pix_key": _pix_key,
        "pix_url": _simple(_PIX_URL),
        "polish_account": _text(references.polish_account),
        "promptpay_mobile": _promptpay_mobile,
        "promptpay_number": _promptpay_number,
        "qris_pan": lambda value, _: digits(value, 12, 19) and value.startswith("9360"),
        "russian_account": references.russian_account,
        "serbian_account": _text(references.serbian_account),
        "serbian_reference": references.serbian_reference,
        "slovenian_reference": references.slovenian_reference,
        "structured_reference": _structured,
        "swiss_account": _text(references.swiss_account),
        "swiss_any_reference": _text(lambda v: references.qr_reference(v) or references.creditor_reference(v)),
        "swiss_reference": references.swiss_reference,
        "thai_id": lambda value, _: thai_id(value),
        "vpa": _simple(_VPA),
    }
)
"""Check name, as profiles write it, to the check."""
