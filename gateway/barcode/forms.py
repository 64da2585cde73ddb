"""Tables of bills and credit transfers: one file in `formats/` is one format, read and written by one engine.

A format has fields that stand on lines of their own (`layout = "lines"`, told by their place), or fields with a name
(`layout = "tags"`). What a field means is its `role`; what it must look like are `pattern`, `longest`, `values` and
`check`. Files are read once, at import. The format of the tables is described in docs/barcodes.md.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import Any, Final

from gateway.barcode.checks import CHECKS, Check
from hutong_contract.currencies import NUMBER_OF

LINES: Final = "lines"
TAGS: Final = "tags"
PACKED: Final = "packed"
"""Lines under compression: `bysquare` packs and unpacks them."""
KINDS: Final = frozenset({"bill", "credit_transfer"})
ROLES: Final = frozenset(
    {
        "account", "participant", "merchant_name", "merchant_city", "postal_code", "country", "amount", "currency",
        "reference", "bill_number", "message", "merchant_category", "",
    }
)  # fmt: skip
AMOUNTS: Final = frozenset({"decimal", "comma", "minor"})
DEFAULT_TOLERATED: Final = (":line_end", ":separator_at_end", "*:case")
"""What readers of every format pass over: it loses nothing."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a format."""

    name: str
    """Its name in the tables and in what checks see beside it."""
    path: str
    """How violations call it: its tag, or the number of its line, from 1."""
    place: int
    """Its line from 0; -1 for a field with a tag."""
    tag: str
    role: str
    match: Callable[[str], object] | None
    longest: int
    values: frozenset[str]
    check: Check | None
    rule: str
    """The rule that a value breaks that `check` refuses."""
    mandatory: bool
    fixed: str
    """What is always written here."""
    prefix: str
    """What stands before the value, such as `EUR`; `{currency}` for the currency's code."""
    structured: bool
    """Whether a value makes the payment one to a biller, under a reference that its systems read."""
    amount: str
    """How an amount is written: `decimal` (12.30), `comma` (12,30), `minor` (1230)."""
    width: int
    """To how many characters an amount is filled up with zeros."""
    open: bool
    """Whether an amount of zero, or an empty one, says that the payer enters it."""
    iban: str
    """What makes an IBAN of an account number that stands here, such as `PL`."""
    bic_after: str
    """The mark behind which the bank's BIC follows the account."""
    fits: Callable[[str], object] | None
    """Which of a merchant code's texts may be written here; another goes to the next field of the same role."""
    numeric: bool
    """Whether a currency stands here as its number."""
    head: str
    """Of a field that stands in the head (a named group): what is written there for no value."""
    absent: frozenset[str]
    """Values that say that there is none."""
    derive: tuple[tuple[str, Callable[[str], object]], ...]
    """What is written here by the form of the reference: of several, the first that fits."""


@dataclass(frozen=True, slots=True)
class Form:
    """One format of bills or credit transfers."""

    name: str
    title: str
    source: str
    kind: str
    """`bill` or `credit_transfer`."""
    head: Callable[[str], re.Match[str] | None]
    """How a text of this format begins; named groups are fields too."""
    written_head: str
    layout: str
    separator: str
    mark: str
    """Between a tag and its value."""
    fields: tuple[Field, ...]
    by_tag: Mapping[str, Field]
    """By tag, in upper case."""
    line_ends: frozenset[str]
    """What may end a line by the document; readers take LF, CR LF and CR for the same."""
    least: int
    most: int
    """Fewest and most lines."""
    percent: bool
    """Whether values are percent-encoded."""
    bytes_max: int
    currency: str
    country: str
    currencies: frozenset[str]
    space: str
    """Whose accounts these are: `Routing.scheme`."""
    account: str
    """`merchant_account` or `proxy`: `Routing.kind`."""
    payee: tuple[str, ...]
    """Fields that name the payee together, where the account alone does not."""
    purpose: str
    tolerated: frozenset[tuple[str, str]]
    control_sum: str
    """The name of the field that holds how many characters there are, line ends included (UPN)."""
    trailing: str
    """Written at the end."""
    separator_from_head: bool
    """Whether the head's last character is the separator, as the document lets the writer choose it."""
    whole: bool
    """Whether the head is itself a field, as in `K:PR|…`."""
    examples: tuple[str, ...]


def _field(options: Mapping[str, Any]) -> Field:
    name = options["name"]
    role, check = options.get("role", ""), options.get("check", "")
    if role not in ROLES:
        raise ValueError(f"role {role} of {name}; these are known: {', '.join(sorted(ROLES))}")
    amount = options.get("amount", "decimal")
    if amount not in AMOUNTS:
        raise ValueError(f"amount {amount} of {name}")
    place, tag = options.get("place", -1), options.get("tag", "")
    pattern = options.get("pattern")
    return Field(
        name=name,
        path=tag or (str(place + 1) if place >= 0 else name),
        place=place,
        tag=tag,
        role=role,
        match=re.compile(pattern).fullmatch if pattern else None,
        longest=options.get("longest", 0),
        values=frozenset(options.get("values", ())),
        check=CHECKS[check] if check else None,
        rule=options.get("rule", check),
        mandatory=options.get("mandatory", False),
        fixed=options.get("fixed", ""),
        prefix=options.get("prefix", ""),
        structured=options.get("structured", False),
        amount=amount,
        width=options.get("width", 0),
        open=options.get("open", False),
        iban=options.get("iban", ""),
        bic_after=options.get("bic_after", ""),
        fits=re.compile(options["fits"]).fullmatch if "fits" in options else None,
        numeric=options.get("numeric", False),
        head=options.get("head", ""),
        absent=frozenset(options.get("absent", ())),
        derive=tuple((text, re.compile(form).fullmatch) for text, form in options.get("derive", {}).items()),
    )


def compile_form(text: str) -> Form:
    """Reads one table.

    Raises:
        tomllib.TOMLDecodeError, KeyError, ValueError, re.error: the table is wrong; the message names the part.
    """
    data = tomllib.loads(text)
    layout, kind = data["layout"], data["kind"]
    if layout not in {LINES, TAGS, PACKED} or kind not in KINDS:
        raise ValueError(f"layout {layout}, kind {kind}")
    fields = tuple(_field(options) for options in data["field"])
    currencies = frozenset(data.get("currencies", [data["currency"]] if "currency" in data else []))
    for currency in currencies:
        NUMBER_OF[currency]
    places = [field.place for field in fields]
    return Form(
        name=data["name"],
        title=data["title"],
        source=data["source"],
        kind=kind,
        head=re.compile(data["head"]).match,
        written_head=data.get("written_head", ""),
        layout=layout,
        separator=data.get("separator", "\n"),
        mark=data.get("mark", ""),
        fields=fields,
        by_tag=MappingProxyType({field.tag.upper(): field for field in fields if field.tag}),
        line_ends=frozenset(data.get("line_ends", ())),
        least=data.get("least", 0),
        most=data.get("most", max(places, default=0) + 1 if layout != TAGS else 0),
        percent=data.get("percent", False),
        bytes_max=data.get("bytes_max", 0),
        currency=data.get("currency", ""),
        country=data.get("country", ""),
        currencies=currencies,
        space=data.get("space", data["name"]),
        account=data.get("account", "merchant_account"),
        payee=tuple(data.get("payee", ())),
        purpose=data.get("purpose", "transfer"),
        tolerated=frozenset(
            (path, rule)
            for path, _, rule in (row.rpartition(":") for row in (*DEFAULT_TOLERATED, *data.get("tolerate", ())))
        ),
        control_sum=data.get("control_sum", ""),
        trailing=data.get("trailing", ""),
        separator_from_head=data.get("separator_from_head", False),
        whole=data.get("whole", False),
        examples=tuple(data.get("examples", ())),
    )


def _load() -> dict[str, Form]:
    folder = resources.files("gateway.barcode") / "formats"
    files = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".toml"))
    forms = [compile_form((folder / name).read_text("utf-8")) for name in files]
    return {form.name: form for form in forms}


FORMS: Final = MappingProxyType(_load())
"""Every format, by name."""
