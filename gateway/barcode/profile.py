"""Scheme profiles: data files that say how a scheme's real codes look. One file in `schemes/` is one scheme.

A profile says how it is recognised (`account`, `primitive`, `application`, `link`), which fields route it, what it
asks beyond EMVCo (`demand`) and what it allows against it (`tolerate`), and how to write one (`build`). The format is
described in docs/barcodes.md. Files are read once, at import, and turned into the dataclasses below.
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
from gateway.barcode.model import PAYMENT, PURPOSES
from hutong_contract.currencies import NUMBER_OF

EXACT_SCORE: Final = 100
"""A template whose identifier is the scheme's own, letter for letter."""
PATTERN_SCORE: Final = 70
"""A template whose identifier has the scheme's form."""
PRIMITIVE_SCORE: Final = 50
"""A primitive account object that EMVCo gave to a network."""
DEFAULT_TOLERATED: Final = ("*:reserved", ":over_512", "63:lower_case", "54:decimals", "56:decimals")
"""What no scheme's acceptors refuse: it loses nothing and misleads nobody."""

KIND_CODES: Final = MappingProxyType({"M": "merchant_account", "P": "proxy", "L": "link"})
"""Letters that stand for kinds of routing keys inside a code."""

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """Where in a code a value stands: ids from the root (`62/07`) or from the account template (`@/01`)."""

    path: Path
    inside: bool
    """Whether the path begins in the account template."""
    guid: str = ""
    """The identifier of the template that it starts in, in lower case, wherever that stands: written
    `#org.example/01`; `&` is an unreserved template (80 to 99) of the account's own identifier, written `&/25`."""
    start: int = 0
    end: int | None = None
    after: str = ""
    """Only what follows the last occurrence of this text."""
    only: str = ""
    """The id, where the part is just one whole field of the account template: the common case."""
    first: str = ""
    """`value` or `id` of the first field of the account template behind its 00, written `@/+` and `@/+id`."""
    literal: str = ""
    """A text that is the same in every code, written `=text`: it keeps the keys of two forms of a scheme apart."""


@dataclass(frozen=True, slots=True)
class Route:
    """One way in which an account template routes; of several, the first whose field is there."""

    kind: str
    account: Part
    check: Check | None
    check_name: str
    participant: Part | None
    terminal: Part | None
    payee: tuple[Part, ...] = ()
    """The fields that name the payee together, where `account` alone is not unique in the scheme."""
    more: tuple[Part, ...] = ()
    """Fields that belong to the account behind `account`; joined by `/`."""
    payee_text: Part | None = None
    """Where the code itself carries such a joined text: a key of another scheme in Hutong's encoding."""
    purpose: str = ""
    """What a code that routes in this way asks for; empty where the scheme's table of purposes says it."""
    remote: bool = False
    """Whether the key only points to the payment's description: what the code says of `Profile.unbelieved` is void."""
    scheme: Part | None = None
    """Where the code names another scheme whose key it carries."""
    kind_code: Part | None = None
    """Where a letter of `KIND_CODES` says what kind of key that is."""


@dataclass(frozen=True, slots=True)
class Demand:
    """One requirement of a scheme for its codes."""

    path_text: str
    """The path as the profile writes it; `@` stands for the account object's id."""
    part: Part
    present: bool
    """Whether the value must be there; otherwise it is judged only if it is."""
    when: Part | None
    """Judged only in codes that have `when_value` here."""
    when_value: str
    match: Callable[[str], object] | None
    check: Check | None
    rule: str


@dataclass(frozen=True, slots=True)
class Account:
    """How a scheme is recognised by one object of a merchant code."""

    scheme: str
    ids: frozenset[str]
    identifiers: tuple[str, ...]
    """Lower-case values of 00."""
    pattern: Callable[[str], object] | None
    """A form of 00, or of a primitive's value: a primitive that does not have it is another's."""
    primitive: bool
    where: tuple[tuple[str, Callable[[str], object]], ...]
    """Fields of a template, and the forms that they must have for it to be the scheme's; without `identifiers` and
    `pattern` the template is known by these alone, whatever stands in its 00."""
    country: str
    """The code's country must be this; empty for any."""
    format_indicator: str
    """The value of object 00 under the root that this form of code has."""
    score: int
    routes: tuple[Route, ...]
    demands: tuple[Demand, ...]
    mandatory: tuple[str, ...]
    exclusive: tuple[str, ...]
    """Fields of which a code has only one: each would name a payee."""
    raw: Callable[[str], object] | None
    """The form of an object 26 to 51 that holds a plain text where the standard has a template."""
    describes: tuple[str, ...]
    """Fields of the account object that do not take part in naming the payee: labels, references, dates."""


@dataclass(frozen=True, slots=True)
class LinkForm:
    """A URL that leads to a merchant."""

    scheme: str
    match: Callable[[str], re.Match[str] | None]
    """Named groups `account`, `participant`, `terminal` route."""
    query: Mapping[str, Mapping[str, Any]]
    """Query parameters with a meaning: name to `field`, `required`, `check`, `values`."""
    kind: str
    purpose: str
    purposes: Mapping[str, str]
    """The group `action`, in lower case, to what such a link asks for."""
    country: str
    """ISO 3166 alpha-2 code that these links take for granted; empty where they do not."""
    currency: str
    """ISO 4217 alphabetic code that they take for granted."""
    checksum: str
    """The parameter, at the link's end, with EMV's checksum over all before it; empty where there is none."""
    account_case: str
    """`upper` where the account is the same in either case; else empty."""


@dataclass(frozen=True, slots=True)
class Purpose:
    """A value by which a code says what it asks for."""

    name: str
    """One of `model.PURPOSES`."""
    part: Part
    match: Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Expiry:
    """Where a code has its expiry."""

    part: Part
    format: str
    """`calendar` (YYYYMMDD, YYMMDDHHMMSS or YYYYMMDDHHMMSS), `day_first` (DDMMYYYYHHMM), both in the zone
    `offset_minutes` east of UTC and to the day's end where no time is given, `epoch_s` or `epoch_ms`."""
    offset_minutes: int


@dataclass(frozen=True, slots=True)
class Build:
    """How to write a merchant code of this scheme."""

    template: str
    """Root id of the account template or primitive."""
    template_by_parts: Mapping[int, str]
    """Another root id for an account of so many fields."""
    fields: tuple[tuple[str, str], ...]
    """Ids inside it (nested ones as `01/00`) and what stands there: text with {account}, {participant}, {terminal};
    {account/0}, {account/1}, … are the fields of an account that is made of several."""
    extra: tuple[tuple[str, str], ...]
    """Further objects at the root, as `99/00`, with {created} and {expires} too."""
    omit: frozenset[str]
    """Root objects that the scheme's own codes leave out."""
    fee: str


@dataclass(frozen=True, slots=True)
class Profile:
    """One scheme."""

    name: str
    title: str
    source: str
    countries: frozenset[str]
    currencies: frozenset[str]
    """ISO 4217 numeric codes."""
    amount: str
    """Root id of the amount, where it is not 54; `default_currency` is its currency."""
    default_currency: str
    checksum: str
    """Root id of the checksum, where it is not 63: judged if it is there."""
    reference: Part | None
    bill_number: Part | None
    """Where the scheme's own codes have the payee's references, if not in 62."""
    accounts: tuple[Account, ...]
    applications: tuple[str, ...]
    """Prefixes of application identifiers (upper-case hex) in consumer codes."""
    pan: Callable[[str], object] | None
    """What a consumer code's PAN must look like."""
    links: tuple[LinkForm, ...]
    demands: tuple[Demand, ...]
    tolerated: frozenset[tuple[str, str]]
    purposes: tuple[Purpose, ...]
    """Of several, the first that a code fits; none: `purpose`."""
    purpose: str
    unbelieved: tuple[str, ...]
    """Paths that do not count where a route is `remote`."""
    expiries: tuple[Expiry, ...]
    """Of several, the earliest counts."""
    build: Build | None
    account_space: str
    """Schemes with the same space share their accounts, so that one's account may stand in the other's code."""
    wrapper: bool
    """Whether this marks a code of several schemes and does not take payments itself."""
    examples: tuple[str, ...]


_CUT: Final = re.compile(r"(?P<path>.*)\[(?P<start>[0-9]{1,2}):(?P<end>[0-9]{1,2})\]").fullmatch
"""A path with the characters that count, such as `@/04[0:3]`."""


def _part(text: str, options: Mapping[str, Any], name: str) -> Part:
    if text.startswith("="):
        return Part((), inside=False, literal=text[1:])
    if text in {"@/+", "@/+id"}:
        return Part((), inside=True, first="id" if text.endswith("id") else "value")
    cut = options.get(f"{name}_slice", (0, None))
    written = _CUT(text)
    if written is not None:
        text, cut = written["path"], (int(written["start"]), int(written["end"]))
    inside = text == "@" or text.startswith("@/")
    guid = text.partition("/")[0].lstrip("#").lower() if text[:1] in {"&", "#"} else ""
    text = text.partition("/")[2] if guid else text
    path = tuple(part for part in (text[2:] if inside else text).split("/") if part)
    after = options.get(f"{name}_after", "")
    only = path[0] if inside and len(path) == 1 and not after and cut == (0, None) else ""
    return Part(path, inside, guid, cut[0], cut[1], after, only)


def _optional_part(options: Mapping[str, Any], name: str) -> Part | None:
    return _part(options[name], options, name) if name in options else None


def _route(options: Mapping[str, Any]) -> Route:
    name = options.get("check", "")
    first, *more = options["account"] if isinstance(options["account"], list) else [options["account"]]
    return Route(
        kind=options.get("kind", "merchant_account"),
        account=_part(first, options, "account"),
        check=CHECKS[name] if name else None,
        check_name=name,
        participant=_optional_part(options, "participant"),
        terminal=_optional_part(options, "terminal"),
        payee=tuple(_part(path, {}, "payee") for path in options.get("payee", ())),
        more=tuple(_part(path, {}, "account") for path in more),
        payee_text=_optional_part(options, "payee_text"),
        purpose=_purpose(options.get("purpose", "")),
        remote=options.get("remote", False),
        scheme=_optional_part(options, "scheme"),
        kind_code=_optional_part(options, "kind_code"),
    )


def _purpose(name: str) -> str:
    if name and name not in PURPOSES:
        raise ValueError(f"purpose {name}; these are known: {', '.join(sorted(PURPOSES))}")
    return name


def _demand(options: Mapping[str, Any]) -> Demand:
    pattern = options.get("pattern") or "|".join(re.escape(value) for value in options.get("values", ()))
    check = options.get("check", "")
    return Demand(
        path_text=options["path"],
        part=_part(options["path"], options, "path"),
        present=options.get("present", False),
        when=_part(options["when"][0], {}, "when") if "when" in options else None,
        when_value=options["when"][1] if "when" in options else "",
        match=re.compile(pattern).fullmatch if pattern else None,
        check=CHECKS[check] if check else None,
        rule=options.get("rule") or check or ("value" if options.get("values") else "format"),
    )


def _paths(text: str) -> list[str]:
    """The paths that a text such as `62/50-99` or `81` stands for; of a range also what is inside each."""
    root, mark, inner = text.rpartition("/")
    if "-" not in inner or text == "02-51":
        return [text]
    return [path for n in sorted(_ids(inner)) for path in (f"{root}{mark}{n}", f"{root}{mark}{n}/00")]


def _ids(text: str) -> frozenset[str]:
    first, _, last = text.partition("-")
    return frozenset(f"{n:02d}" for n in range(int(first), int(last or first) + 1))


def _account(scheme: str, options: Mapping[str, Any], primitive: bool) -> Account:
    pattern = options.get("pattern")
    score = PRIMITIVE_SCORE if primitive else PATTERN_SCORE if pattern else EXACT_SCORE
    return Account(
        scheme=scheme,
        ids=frozenset().union(*(_ids(word) for word in options["ids"].split())),
        identifiers=tuple(identifier.lower() for identifier in options.get("identifiers", ())),
        pattern=re.compile(pattern).fullmatch if pattern else None,
        primitive=primitive,
        where=tuple((field, re.compile(form).fullmatch) for field, form in options.get("where", {}).items()),
        country=options.get("country", ""),
        format_indicator=options.get("format_indicator", "01"),
        score=options.get("score", score),
        routes=tuple(_route(route) for route in options.get("route", ())),
        demands=tuple(_demand(demand) for demand in options.get("demand", ())),
        mandatory=tuple(options.get("mandatory", ())),
        exclusive=tuple(options.get("exclusive", ())),
        raw=re.compile(options["raw"]).fullmatch if "raw" in options else None,
        describes=tuple(options.get("describes", ())),
    )


def _build(options: Mapping[str, Any]) -> Build:
    return Build(
        template=options["template"],
        template_by_parts={int(parts): template for parts, template in options.get("template_by_parts", {}).items()},
        fields=tuple(tuple(pair) for pair in options["fields"]),
        extra=tuple(tuple(pair) for pair in options.get("extra", ())),
        omit=frozenset(options.get("omit", ())),
        fee=options.get("fee", ""),
    )


def compile_profile(text: str) -> Profile:
    """Reads one profile.

    Raises:
        tomllib.TOMLDecodeError, KeyError, ValueError, re.error: the file is wrong; the message names the part.
    """
    data = tomllib.loads(text)
    name = data["name"]
    expiry = data.get("expiry", [])
    consumer = data.get("consumer", {})
    tolerated = (*DEFAULT_TOLERATED, *data.get("tolerate", ()))
    return Profile(
        name=name,
        title=data["title"],
        source=data["source"],
        countries=frozenset(data.get("countries", ())),
        currencies=frozenset(NUMBER_OF[currency] for currency in data.get("currencies", ())),
        amount=data.get("amount", "54"),
        default_currency=data.get("default_currency", ""),
        checksum=data.get("checksum", ""),
        reference=_optional_part(data, "reference"),
        bill_number=_optional_part(data, "bill_number"),
        accounts=(
            *(_account(name, options, primitive=False) for options in data.get("account", ())),
            *(_account(name, options, primitive=True) for options in data.get("primitive", ())),
        ),
        applications=tuple(consumer.get("applications", ())),
        pan=re.compile(consumer["pan"]).fullmatch if "pan" in consumer else None,
        links=tuple(
            LinkForm(
                name,
                re.compile(link["pattern"]).fullmatch,
                link.get("query", {}),
                link.get("kind", "link"),
                _purpose(link.get("purpose", PAYMENT)),
                {action: _purpose(purpose) for action, purpose in link.get("purposes", {}).items()},
                link.get("country", ""),
                link.get("currency", ""),
                link.get("checksum", ""),
                link.get("account_case", ""),
            )
            for link in data.get("link", ())
        ),
        demands=tuple(_demand(demand) for demand in data.get("demand", ())),
        tolerated=frozenset(
            (path, rule) for where, _, rule in (i.rpartition(":") for i in tolerated) for path in _paths(where)
        ),
        purposes=tuple(
            Purpose(_purpose(row["name"]), _part(row["path"], row, "path"), re.compile(row["pattern"]).fullmatch)
            for row in data.get("purpose_of", ())
        ),
        purpose=_purpose(data.get("purpose", PAYMENT)),
        unbelieved=tuple(data.get("unbelieved", ())),
        expiries=tuple(
            Expiry(_part(row["path"], row, "path"), row["format"], row.get("offset_minutes", 0))
            for row in (expiry if isinstance(expiry, list) else [expiry])
        ),
        build=_build(data["build"]) if "build" in data else None,
        account_space=data.get("account_space", name),
        wrapper=data.get("wrapper", False),
        examples=tuple(data.get("examples", ())),
    )


def _load() -> dict[str, Profile]:
    folder = resources.files("gateway.barcode") / "schemes"
    files = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".toml"))
    profiles = [compile_profile((folder / name).read_text("utf-8")) for name in files]
    return {profile.name: profile for profile in profiles}


PROFILES: Final = MappingProxyType(_load())
"""Every scheme, by name."""
