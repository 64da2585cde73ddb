"""Proves: who is enrolled is found and nobody else; payments need their factors; the deleted are gone; restarts keep."""

from __future__ import annotations

import numpy as np
import pytest

from contract.errors import HutongError
from contract.secret import Secret
from facepay.decision import Outcome
from facepay.interface import FaceMatch, FaceUse
from facepay.passcode import ATTEMPTS_MAX, LOCK_US
from facepay.service import Asked, open_service
from facepay.store import Consent


@pytest.mark.parametrize("person", [0, 3])
def test_enrolled_person_is_found_with_the_reference(desk, person):
    references = {one: desk.enroll(one) for one in range(5)}
    answer = desk.service.identify(Asked(desk.capture(person)), desk.now_us)
    assert answer.decision.outcome is Outcome.MATCHED
    assert answer.subject.reference == references[person]
