"""A face service with a few simulated people, and a terminal that it knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facepay.enrolment import How
from facepay.model import Asked, Identified, Options
from facepay.passcode import Cost
from facepay.records import Consent
from facepay.service import FaceService, open_service
from hutong_contract.capture import Captured, TerminalKey, build_capture
from hutong_contract.secret import Secret
from sandbox.faces.people import People

NOW = 1_800_000_000_000_000
CUES = {"texture": 0.9, "frequency": 0.9, "motion": 0.9}
CHEAP = Options(passcode_cost=Cost(time=1, memory_kib=64))


@dataclass
class Desk:
    """A service, its people and one terminal; time stands still unless a test moves it."""

    service: FaceService
    people: People
    key: TerminalKey
    folder: Path
    now_us: int = NOW

    def passcode(self, person: int) -> Secret[str]:
        return Secret(f"{person + 314159:06d}")

    def enroll(self, person: int, *, name: str = "", **more: Any) -> Secret[str]:
        vectors = more.pop("vectors", None) or list(self.people.enrolled(person, 1))
        consent = more.pop("consent", Consent("payment by face", "2026-11", self.now_us))
        how = How(**{one: more.pop(one) for one in ("replace", "keep_reference", "allow_lookalike") if one in more})
        return self.service.enroll(
            name or f"person {person}",
            vectors,
            more.pop("passcode", self.passcode(person)),
            f"{person % 10000:04d}",
            consent,
            how=how,
            now_us=self.now_us,
            **more,
        ).reference

    def probe(self, person: int, seed: int = 1, quality: float = 0.9) -> Any:
        return self.people.probes(np.array([person]), quality, seed)[0]

    def capture(self, person: int, *, seed: int = 1, quality: float = 0.9, **more: Any) -> bytes:
        """A sealed capture; `more` replaces what build_capture or Captured get."""
        session = self.service.begin_capture("t1", 1, self.now_us)
        fields: dict[str, Any] = {"embedding": self.probe(person, seed, quality), "liveness": CUES}
        statement: dict[str, Any] = {
            "key": self.key,
            "service": session.service,
            "nonce": session.nonces[0],
            "terminal_id": "t1",
            "merchant_id": "m1",
            "captured_at_us": self.now_us,
        }
        for name, value in more.items():
            (fields if name in Captured.__dataclass_fields__ else statement)[name] = value
        return build_capture(Captured(**fields), **statement).sealed

    def identify(self, person: int, **more: Any) -> Identified:
        return self.service.identify(Asked(self.capture(person, **more)), self.now_us)

    def reopen(self, options: Options = CHEAP) -> None:
        self.service.close()
        self.service = open_service(self.folder, options=options)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    service = open_service(tmp_path, options=CHEAP)
    key = TerminalKey.from_seed(b"t" * 32)
    service.register_terminal("t1", "m1", key.algorithm, key.public_key)
    made = Desk(service, People(11), key, tmp_path)
    yield made
    made.service.close()
