"""A terminal that pays by face: it asks for a nonce, photographs, signs, seals. Over gRPC, like any terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hutong.facepay.v1 import face_pb2, face_pb2_grpc
from hutong_contract.capture import Captured, ServiceKey, TerminalKey, build_capture, build_enrolment
from hutong_contract.names import FACE_OPERATOR_SECRET_METADATA
from hutong_contract.secret import Secret
from sandbox.faces import camera
from sandbox.faces.people import People
from sandbox.faces.readiness import when_ready

TIMEOUT_S = 30.0
"""Deadline of every call."""
CONSENT_TEXT = "2026-11"
CUES_OF_FILE = {"texture": 0.8, "frequency": 0.8, "specular": 0.8}
"""What is stated of an image file: no camera looked."""


def now_us() -> int:
    """UTC in microseconds."""
    return time.time_ns() // 1000


def operator_metadata(secret: Secret[str] | None) -> tuple[tuple[str, str], ...]:
    """What an operator's call carries; nothing where the certificate, or the port, says enough."""
    return ((FACE_OPERATOR_SECRET_METADATA, secret.reveal()),) if secret else ()


@dataclass(frozen=True, slots=True)
class Factors:
    """What the payer types."""

    passcode: Secret[str] | None = None
    last_four: Secret[str] | None = None


class FaceTerminal:
    """One terminal with a simulated camera that sees simulated people."""

    def __init__(
        self,
        stub: face_pb2_grpc.FaceServiceStub,
        people: People,
        terminal_id: str,
        merchant_id: str,
        key: TerminalKey | None = None,
        operator: Secret[str] | None = None,
        clock_us: Callable[[], int] = now_us,
    ) -> None:
        """`operator`: the face operator's secret, where the service asks for one to register and to enrol."""
        self._stub = stub
        self._people = people
        self._operator = operator_metadata(operator)
        self._now = clock_us
        self.terminal_id = terminal_id
        self.merchant_id = merchant_id
        self.key = key or TerminalKey.generate()

    def register(self) -> None:
        """Tells the face service this terminal's public key; once, by the operator."""
        request = face_pb2.RegisterTerminalRequest(
            terminal_id=self.terminal_id,
            merchant_id=self.merchant_id,
            public_key=self.key.public_key,
            algorithm=self.key.algorithm,
        )
        self._stub.RegisterTerminal(request, timeout=TIMEOUT_S, metadata=self._operator)

    def capture(
        self,
        person: int,
        factors: Factors | None = None,
        *,
        amount_minor: int = 0,
        currency: str = "",
        quality: float | None = 0.85,
        species: str = camera.LIVE,
        seed: int = 0,
    ) -> face_pb2.FaceCapture:
        """A fresh sealed capture of a person, or of an attack on that person (`camera.ATTACKS`)."""
        begun = self._stub.BeginCapture(face_pb2.BeginCaptureRequest(terminal_id=self.terminal_id), timeout=TIMEOUT_S)
        shot = camera.take(person, begun.challenge, seed, species)
        vector = self._people.probes(np.array([person], np.int64), quality, seed)[0]
        factors = factors or Factors()
        captured = Captured(
            embedding=vector,
            liveness=shot.liveness,
            frames=shot.frames,
            depth_map=shot.depth_map,
            challenge=shot.challenge,
            passcode=factors.passcode,
            last_four=factors.last_four,
        )
        return build_capture(
            captured,
            key=self.key,
            service=ServiceKey(begun.key_id, begun.public_key),
            nonce=begun.nonces[0],
            terminal_id=self.terminal_id,
            merchant_id=self.merchant_id,
            captured_at_us=self._now(),
            amount_minor=amount_minor,
            currency=currency,
        )

    def capture_of_file(self, embedding: NDArray[np.float32], factors: Factors) -> face_pb2.FaceCapture:
        """A fresh sealed capture around an embedding that was taken from an image file, which no camera looked at."""
        begun = self._stub.BeginCapture(face_pb2.BeginCaptureRequest(terminal_id=self.terminal_id), timeout=TIMEOUT_S)
        return build_capture(
            Captured(embedding, CUES_OF_FILE, passcode=factors.passcode, last_four=factors.last_four),
            key=self.key,
            service=ServiceKey(begun.key_id, begun.public_key),
            nonce=begun.nonces[0],
            terminal_id=self.terminal_id,
            merchant_id=self.merchant_id,
            captured_at_us=self._now(),
        )

    def enroll(
        self,
        subject: str,
        embeddings: Sequence[NDArray[np.float32]],
        passcode: Secret[str],
        last_four: Secret[str] | None = None,
        *,
        region: int = 0,
        merchants: Sequence[str] = (),
        allow_lookalike: bool = False,
        replace: bool = False,
        keep_reference: bool = False,
        waiting: Callable[[float], None] = lambda _: None,
    ) -> face_pb2.EnrollResponse:
        """Enrols somebody at this terminal as the desk; the answer has the opaque reference for the token service.
        Waits while the service loads its search; `waiting` is told how many seconds that may still take."""
        begun = self._stub.BeginCapture(face_pb2.BeginCaptureRequest(terminal_id=self.terminal_id), timeout=TIMEOUT_S)
        service = ServiceKey(begun.key_id, begun.public_key)
        request = face_pb2.EnrollRequest(
            subject=subject,
            sealed=build_enrolment(service, embeddings, passcode, last_four),
            consent=face_pb2.Consent(purpose="payment by face", text_version=CONSENT_TEXT, given_at_us=self._now()),
            region=region,
            merchant_ids=merchants,
            allow_lookalike=allow_lookalike,
            replace=replace,
            keep_reference=keep_reference,
        )
        return when_ready(
            lambda: self._stub.Enroll(request, timeout=TIMEOUT_S, metadata=self._operator), waiting=waiting
        )

    def enroll_person(self, person: int, subject: str, factors: Factors) -> Secret[str]:
        """Enrols one of the simulated people, from two sittings."""
        sittings = [self._people.enrolled(person, 1, sitting)[0] for sitting in range(2)]
        assert factors.passcode is not None
        return Secret(self.enroll(subject, sittings, factors.passcode, factors.last_four).reference)
