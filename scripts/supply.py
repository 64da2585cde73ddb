"""What this program is made of: a bill of materials (CycloneDX), and whether every licence in it is one that we take.

    python scripts/supply.py sbom dist/hutong.cdx.json
    python scripts/supply.py licences

Both look at the distributions of the environment that runs them, which `make` fills from requirements.lock; that file's
hashes go into the bill. The bill marks what only development and tests need (scope `excluded`) and what belongs to an
extra (`optional`). The same environment and lock give the same bill, byte for byte.
"""

from __future__ import annotations

import argparse
import importlib.metadata as metadata
import json
import re
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[1]
LOCK: Final = ROOT / "requirements.lock"
APPLICATION: Final = "hutong"
EXTRA: Final = "all"
ALLOWED: Final = frozenset(
    {
        "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "MIT",
        "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "ZPL-2.1", "Zlib", "ISC", "Unlicense",
    }
)  # fmt: skip
"""SPDX identifiers. MPL-2.0 binds changes to its own files, of which we make none."""
EXCEPTIONS: Final = {
    "psycopg": frozenset({"LGPL-3.0-only"}),
    "psycopg-binary": frozenset({"LGPL-3.0-only"}),
}
"""Licences that we take of these alone: the LGPL of a library that is imported, not changed."""
STATED: Final = {
    "insightface": "MIT",
    "numba": "BSD-2-Clause",
    "qrcode": "BSD-3-Clause",
}
"""Where a distribution's own metadata say nothing, or too little: as its repository's licence file says."""
_SPELT: Final = {
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "apache-2.0": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "bsd 2-clause license": "BSD-2-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "mit": "MIT",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "mpl-2.0": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}
"""How metadata older than SPDX expressions write licences."""
_NO_LICENCE: Final = frozenset({"dfsg approved", "osi approved", "other/proprietary license"})
"""Classifiers beside others that name no licence."""
_PINNED: Final = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)")
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_WORD: Final = re.compile(r"\(|\)|\bAND\b|\bOR\b|[^()\s]+(?:\s+WITH\s+[^()\s]+)?")


class SupplyError(Exception):
    """Something that the build is made of is not as it must be; the text says what to do."""


def installed() -> dict[str, metadata.Distribution]:
    """The environment's distributions, by canonical name."""
    return {canonicalize_name(one.metadata["Name"]): one for one in metadata.distributions()}


def licence_of(name: str, about: Any) -> str:
    """A distribution's licence as an SPDX expression. Raises SupplyError where its metadata do not say one."""
    stated = STATED.get(name) or about.get("License-Expression")
    if stated:
        return str(stated)
    given = str(about.get("License") or "").strip()
    classified = [one.rsplit("::", 1)[-1].strip() for one in about.get_all("Classifier") or () if "License ::" in one]
    found = [_SPELT.get(one.lower(), one) for one in classified if one.lower() not in _NO_LICENCE]
    if len(found) == 1:
        return found[0]
    if given and "\n" not in given:
        return " AND ".join(_SPELT.get(one.strip().lower(), one.strip()) for one in re.split(r"\bAND\b", given))
    if found:
        return " OR ".join(sorted(set(found)))
    raise SupplyError(f"{name} does not say its licence: look it up, and write it into STATED in scripts/supply.py")


def is_allowed(expression: str, allowed: frozenset[str]) -> bool:
    """Whether an SPDX expression can be met with allowed licences: all parts of an AND, one of an OR."""
    words = [" ".join(word.split()) for word in _WORD.findall(expression)]
    at = 0

    def choice() -> bool:
        nonlocal at
        met = both()
        while at < len(words) and words[at] == "OR":
            at += 1
            met = both() or met
        return met

    def both() -> bool:
        nonlocal at
        met = one()
        while at < len(words) and words[at] == "AND":
            at += 1
            met = one() and met
        return met

    def one() -> bool:
        nonlocal at
        if at >= len(words):
            raise SupplyError(f"{expression!r} is no licence expression")
        word, at = words[at], at + 1
        if word != "(":
            return word in allowed
        met = choice()
        at += 1
        return met

    met = choice()
    return met and at == len(words)


def refused(found: Mapping[str, metadata.Distribution]) -> list[str]:
    """What is said of each distribution whose licence we do not take, or do not know."""
    problems = []
    for name, one in sorted(found.items()):
        try:
            licence = licence_of(name, one.metadata)
        except SupplyError as error:
            problems.append(str(error))
            continue
        if not is_allowed(licence, ALLOWED | EXCEPTIONS.get(name, frozenset())):
            problems.append(f"{name} {one.version}: {licence} is not among the licences that we take")
    return problems


def locked(text: str) -> dict[str, dict[str, list[str]]]:
    """Name to versions (several, where Python versions need others) to the SHA-256 digests of their files, from a lock.
    Raises SupplyError where one has no hashes."""
    found: dict[str, dict[str, list[str]]] = {}
    for entry in re.split(r"\n(?=\S)", text):
        pinned = _PINNED.match(entry)
        if pinned is None:
            continue
        hashes = _HASH.findall(entry)
        if not hashes:
            raise SupplyError(f"{pinned[1]} has no hashes in the lock: run make lock")
        found.setdefault(canonicalize_name(pinned[1]), {})[pinned[2]] = sorted(hashes)
    return found


def needed(found: Mapping[str, metadata.Distribution], name: str, extras: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(distribution, what it needs) for everything that one needs with these extras, itself and the rest included."""
    seen: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(name), extra) for extra in ("", *extras)]
    while waiting:
        one, extra = waiting.pop()
        if (one, extra) in seen or one not in found:
            continue
        seen.add((one, extra))
        for text in found[one].requires or ():
            wanted = Requirement(text)
            if wanted.marker is not None and not wanted.marker.evaluate({"extra": extra}):
                continue
            target = canonicalize_name(wanted.name)
            if target in found:
                yield one, target
                waiting += [(target, more) for more in ("", *wanted.extras)]


def bill(found: Mapping[str, metadata.Distribution], lock: Mapping[str, Mapping[str, list[str]]]) -> dict[str, Any]:
    """A CycloneDX 1.5 document of an environment. Raises SupplyError where it has what the lock has not."""
    base = {target for _, target in needed(found, APPLICATION, ())}
    edges: dict[str, set[str]] = {}
    for one, target in needed(found, APPLICATION, (EXTRA,)):
        edges.setdefault(one, set()).add(target)
    shipped = {target for targets in edges.values() for target in targets}
    components = []
    for name, one in sorted(found.items()):
        if name == APPLICATION or (name not in lock and name not in shipped):
            continue  # tools of the environment itself, such as pip
        version = one.version
        if name in lock and version not in lock[name]:
            raise SupplyError(f"{name} {version} is installed, which the lock has not: run make clean and make")
        hashes = lock.get(name, {}).get(version, [])
        component: dict[str, Any] = {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
            "licenses": [{"expression": licence_of(name, one.metadata)}],
            "scope": "required" if name in base else "optional" if name in shipped else "excluded",
        }
        if hashes:  # of each file that may be installed: a wheel for every platform, and the source
            component["externalReferences"] = [
                {
                    "type": "distribution",
                    "url": f"https://pypi.org/project/{name}/{version}/#files",
                    "hashes": [{"alg": "SHA-256", "content": digest}],
                }
                for digest in hashes
            ]
        components.append(component)
    versions = {component["name"]: component["version"] for component in components}
    application = found[APPLICATION]
    own = f"pkg:pypi/{APPLICATION}@{application.version}"
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": APPLICATION,
                "version": application.version,
                "purl": own,
                "licenses": [{"expression": licence_of(APPLICATION, application.metadata)}],
            }
        },
        "components": components,
        "dependencies": [
            {
                "ref": own if name == APPLICATION else f"pkg:pypi/{name}@{versions[name]}",
                "dependsOn": sorted(f"pkg:pypi/{one}@{versions[one]}" for one in edges.get(name, ())),
            }
            for name in (APPLICATION, *sorted(shipped))
        ],
    }
    content = json.dumps(document, sort_keys=True)
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}"
    return document


def main() -> int:
    """Runs one of both."""
    parser = argparse.ArgumentParser(description="Bill of materials, and licences.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("licences", help="Fails where a licence is not one that we take.")
    commands.add_parser("sbom", help="Writes a CycloneDX document.").add_argument("file", type=Path)
    given = parser.parse_args()
    found = installed()
    try:
        if given.command == "licences":
            problems = refused(found)
            for problem in problems:
                sys.stderr.write(f"{problem}\n")
            sys.stdout.write(f"{len(found)} distributions, {len(problems)} with a licence that we do not take\n")
            return 1 if problems else 0
        document = bill(found, locked(LOCK.read_text("utf-8")))
    except (SupplyError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    given.file.parent.mkdir(parents=True, exist_ok=True)
    given.file.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    sys.stdout.write(f"{given.file}: {len(document['components'])} components\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
