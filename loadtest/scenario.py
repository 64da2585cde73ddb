"""A scenario of `hutong load`: which operations, at which rates, for how long. TOML in, a value out. Pure.

[load]
seconds = 30          # of the one stage, where no [[stage]] says others
rate = 2000           # calls a second, open loop; or in_flight = 256, closed loop
arrivals = "poisson"  # or "uniform"
connections = 4
processes = 1

[mix]                 # operation = weight, exact (loadtest.operations.OPERATIONS)
token = 70
refund = 5

[[stage]]             # any number, one after the other
rate = 500
seconds = 10

[knee]                # instead of stages: a search that ends by itself
rate_from = 200
rate_to = 20000
step = 1.4
stage_s = 5
slo_p99_ms = 50
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final

from loadtest.operations import OPERATIONS

BUILT_IN: Final = ("token", "mix", "knee")
"""Scenarios that come with the package, by name."""
SECONDS_MAX: Final = 24 * 3600.0
RATE_MAX: Final = 1_000_000.0
CONNECTIONS_MAX: Final = 1024
PROCESSES_MAX: Final = 64
STAGES_MAX: Final = 1000


class ScenarioError(ValueError):
    """A scenario file is wrong. The text has a line for each error, with its path in the file."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stretch of load."""

    seconds: float
    rate_per_s: float = 0.0
    """Calls a second that are due (open loop); 0 for a closed loop."""
    in_flight: int = 0
    """Calls that each connection keeps in flight (closed loop); 0 for an open loop."""


@dataclass(frozen=True, slots=True)
class KneeSearch:
    """Rising stages until the server keeps up no more."""

    rate_from: float = 200.0
    rate_to: float = 20_000.0
    step: float = 1.4
    stage_s: float = 5.0
    slo_p99_ms: float = 50.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """What to do."""

    name: str
    mix: dict[str, int]
    stages: tuple[Stage, ...]
    knee: KneeSearch | None = None
    arrivals: str = "poisson"
    connections: int = 4
    processes: int = 1


def read(name: str) -> Scenario:
    """The scenario of a file, or a built-in one by its name.

    Raises:
        ScenarioError: no such file or name, or what is wrong in it, all of it.
    """
    path = Path(name)
    try:
        if name in BUILT_IN and not path.exists():
            text = (resources.files("loadtest") / "scenarios" / f"{name}.toml").read_text("utf-8")
        else:
            text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{name}: {error}; built in are {', '.join(BUILT_IN)}") from error
    return parse(text, path.stem)


def parse(text: str, name: str = "scenario") -> Scenario:
    """The scenario that a TOML text describes.

    Raises:
        ScenarioError: everything that is wrong in it.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{name}: {error}") from error
    reading = _Reading()
    reading.only(data, "", {"load", "mix", "stage", "knee"})
    load = reading.table(data, "load")
    reading.only(load, "load", {"seconds", "rate", "in_flight", "arrivals", "connections", "processes"})
    scenario = Scenario(
        name=name,
        mix=reading.mix(data.get("mix")),
        stages=reading.stages(data.get("stage"), load),
        knee=reading.knee(data["knee"]) if "knee" in data else None,
        arrivals=reading.choice(load, "load.arrivals", ("poisson", "uniform")),
        connections=int(reading.number(load, "load.connections", 1, CONNECTIONS_MAX, 4, whole=True)),
        processes=int(reading.number(load, "load.processes", 1, PROCESSES_MAX, 1, whole=True)),
    )
    if scenario.knee is not None and "stage" in data:
        reading.errors.append("stage: a knee search makes its own stages")
    if reading.errors:
        raise ScenarioError("\n".join(f"{name}: {error}" for error in reading.errors))
    return scenario


def with_rate(scenario: Scenario, rate_per_s: float) -> Scenario:
    """The same scenario at one rate: each stage's, or where a knee search begins."""
    if scenario.knee is not None:
        return replace(scenario, knee=replace(scenario.knee, rate_from=rate_per_s))
    return replace(
        scenario, stages=tuple(replace(stage, rate_per_s=rate_per_s, in_flight=0) for stage in scenario.stages)
    )


class _Reading:
    """Collects what is wrong, so that all of it is told at once."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def only(self, table: dict[str, Any], path: str, known: set[str]) -> None:
        for name in sorted(set(table) - known):
            self.errors.append(f"{path}{'.' if path else ''}{name}: not known; there are {', '.join(sorted(known))}")

    def table(self, data: dict[str, Any], name: str) -> dict[str, Any]:
        found = data.get(name, {})
        if isinstance(found, dict):
            return found
        self.errors.append(f"{name}: must be a table, [{name}]")
        return {}

    def number(
        self,
        table: dict[str, Any],
        path: str,
        least: float,
        most: float,
        default: float,
        *,
        whole: bool = False,
    ) -> float:
        value = table.get(path.rpartition(".")[2], default)
        right = isinstance(value, int) if whole else isinstance(value, int | float)
        if isinstance(value, bool) or not right or not least <= value <= most:
            kind = "a whole number" if whole else "a number"
            self.errors.append(f"{path}: must be {kind} from {least:g} to {most:g}, not {value!r}")
            return default
        return float(value)

    def choice(self, table: dict[str, Any], path: str, choices: tuple[str, ...]) -> str:
        value = table.get(path.rpartition(".")[2], choices[0])
        if value not in choices:
            self.errors.append(f"{path}: must be {' or '.join(choices)}, not {value!r}")
            return choices[0]
        return str(value)

    def mix(self, found: object) -> dict[str, int]:
        if found is None:
            return {"token": 1}
        if not isinstance(found, dict) or not found:
            self.errors.append("mix: must be a table of operations and their weights")
            return {"token": 1}
        for name, weight in found.items():
            if name not in OPERATIONS:
                self.errors.append(f"mix.{name}: no such operation; there are {', '.join(OPERATIONS)}")
            elif isinstance(weight, bool) or not isinstance(weight, int) or weight < 1:
                self.errors.append(f"mix.{name}: a weight is a whole number above 0, not {weight!r}")
        return {str(name): weight for name, weight in found.items()}

    def stage(self, table: dict[str, Any], path: str) -> Stage:
        seconds = self.number(table, f"{path}.seconds", 0.1, SECONDS_MAX, 10.0)
        if ("rate" in table) == ("in_flight" in table):
            self.errors.append(f"{path}: give a rate (open loop) or in_flight (closed loop), one of them")
            return Stage(seconds, 1.0)
        if "rate" in table:
            return Stage(seconds, rate_per_s=self.number(table, f"{path}.rate", 0.01, RATE_MAX, 1.0))
        return Stage(seconds, in_flight=int(self.number(table, f"{path}.in_flight", 1, 100_000, 1, whole=True)))

    def stages(self, found: object, load: dict[str, Any]) -> tuple[Stage, ...]:
        if found is None:
            has = "rate" in load or "in_flight" in load
            return (self.stage(load if has else {**load, "rate": 100}, "load"),)
        if not isinstance(found, list) or not 0 < len(found) <= STAGES_MAX:
            self.errors.append(f"stage: must be 1 to {STAGES_MAX} tables, [[stage]]")
            return (Stage(1.0, 1.0),)
        stages = []
        for number, table in enumerate(found):
            if not isinstance(table, dict):
                self.errors.append(f"stage[{number}]: must be a table")
                continue
            self.only(table, f"stage[{number}]", {"seconds", "rate", "in_flight"})
            stages.append(self.stage(table, f"stage[{number}]"))
        return tuple(stages)

    def knee(self, found: object) -> KneeSearch:
        if not isinstance(found, dict):
            self.errors.append("knee: must be a table, [knee]")
            return KneeSearch()
        self.only(found, "knee", {"rate_from", "rate_to", "step", "stage_s", "slo_p99_ms"})
        usual = KneeSearch()
        return KneeSearch(
            self.number(found, "knee.rate_from", 0.01, RATE_MAX, usual.rate_from),
            self.number(found, "knee.rate_to", 0.01, RATE_MAX, usual.rate_to),
            self.number(found, "knee.step", 1.01, 10.0, usual.step),
            self.number(found, "knee.stage_s", 0.5, SECONDS_MAX, usual.stage_s),
            self.number(found, "knee.slo_p99_ms", 0.001, 600_000.0, usual.slo_p99_ms),
        )
