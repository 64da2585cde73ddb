"""ISO 4217 and ISO 3166-1: the codes that a payment barcode may name."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

_EXPONENT_0: Final = (
    "BIF108 CLP152 DJF262 GNF324 ISK352 JPY392 KMF174 KRW410 PYG600 RWF646 UGX800 VND704 VUV548 XAF950 XOF952 XPF953"
)
_EXPONENT_3: Final = "BHD048 IQD368 JOD400 KWD414 LYD434 OMR512 TND788"
_EXPONENT_2: Final = """
AED784 AFN971 ALL008 AMD051 AOA973 ARS032 AUD036 AWG533 AZN944 BAM977 BBD052 BDT050 BGN975 BMD060 BND096 BOB068
BRL986 BSD044 BTN064 BWP072 BYN933 BZD084 CAD124 CDF976 CHF756 CNY156 COP170 CRC188 CUP192 CVE132 CZK203 DKK208
DOP214 DZD012 EGP818 ERN232 ETB230 EUR978 FJD242 FKP238 GBP826 GEL981 GHS936 GIP292 GMD270 GTQ320 GYD328 HKD344
HNL340 HTG332 HUF348 IDR360 ILS376 INR356 IRR364 JMD388 KES404 KGS417 KHR116 KPW408 KYD136 KZT398 LAK418 LBP422
LKR144 LRD430 LSL426 MAD504 MDL498 MGA969 MKD807 MMK104 MNT496 MOP446 MRU929 MUR480 MVR462 MWK454 MXN484 MYR458
MZN943 NAD516 NGN566 NIO558 NOK578 NPR524 NZD554 PAB590 PEN604 PGK598 PHP608 PKR586 PLN985 QAR634 RON946 RSD941
RUB643 SAR682 SBD090 SCR690 SDG938 SEK752 SGD702 SHP654 SLE925 SOS706 SRD968 SSP728 STN930 SVC222 SYP760 SZL748
THB764 TJS972 TMT934 TOP776 TRY949 TTD780 TWD901 TZS834 UAH980 USD840 UYU858 UZS860 VES928 WST882 XCD951 XCG532
YER886 ZAR710 ZMW967 ZWG924
"""


def _table() -> dict[str, tuple[str, int]]:
    rows = ((_EXPONENT_0, 0), (_EXPONENT_2, 2), (_EXPONENT_3, 3))
    return {word[3:]: (word[:3], exponent) for text, exponent in rows for word in text.split()}


BY_NUMBER: Final = MappingProxyType(_table())
"""ISO 4217 numeric code to alphabetic code and exponent."""
NUMBER_OF: Final = MappingProxyType({alpha: number for number, (alpha, _) in BY_NUMBER.items()})
"""ISO 4217 alphabetic code to numeric code."""
EXPONENT_OF: Final = MappingProxyType(dict(BY_NUMBER.values()))
"""ISO 4217 alphabetic code to the number of decimals of its minor unit."""

_COMMON: Final = {"RMB": "CNY", "YUAN": "CNY", "CNH": "CNY", "¥": "CNY", "$": "USD", "€": "EUR", "YEN": "JPY"}
"""Common names of currencies that are not their codes."""

COUNTRIES: Final = frozenset(
    """AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ
    CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR
    GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO
    JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR
    MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO
    RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV
    TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS XK YE YT ZA ZM ZW""".split()  # noqa: SIM905 - a list of words reads better than 250 quoted ones
)
"""ISO 3166-1 alpha-2 codes, and XK, which card schemes use."""


def nearest(text: str) -> str:
    """The alphabetic currency code that was probably meant; empty if none is near."""
    upper = text.strip().upper()
    if upper in EXPONENT_OF:
        return upper
    if upper in BY_NUMBER:
        return BY_NUMBER[upper][0]
    import difflib  # only mistakes need it

    return _COMMON.get(upper, "") or next(iter(difflib.get_close_matches(upper, EXPONENT_OF, 1, 0.6)), "")
