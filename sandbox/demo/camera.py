"""Simulated people in front of simulated cameras: enrolment desks and terminals that capture faces, over gRPC."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable
from typing import Final

import numpy as np

from hutong.facepay.v1 import face_pb2, face_pb2_grpc
from hutong_client.client import HutongClient
from hutong_contract.capture import Captured, ServiceKey, TerminalKey, build_capture, build_enrolment
from hutong_contract.secret import Secret
from sandbox.faces import camera
from sandbox.faces.people import People, Vectors
from sandbox.faces.readiness import when_ready
from sandbox.population import Merchant, Wallet

DESK: Final = "enrolment-desk"
"""The terminal id under which enrolments request the service's key."""
SITTINGS: Final = 3
"""Photographs taken at enrolment."""
QUALITY: Final = 0.9
"""Of photographs at terminals, 0 to 1."""
CONSENT_TEXT: Final = "demonstration 1"


class TerminalCamera:
    """Simulated cameras of terminals, in front of simulated faces. Safe from several threads."""

    def __init__(
        self,
        client: HutongClient,
        seed: int,
        persons: int,
        clock_us: Callable[[], int],
        waiting: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`persons`: size of the simulated population of faces; wallets name theirs by number. `waiting` is called with
        the seconds that the face service may still need to load its search."""
        self._client = client
        self._persons = persons
        self._clock_us = clock_us
        self._seed = seed
        self._faces = face_pb2_grpc.FaceServiceStub(client.channel)
        self._keys: dict[str, TerminalKey] = {}
        self._people: People | None = None
        self._albums: dict[tuple[str, int], Vectors] = {}
        """Photographs of everybody, one each: they are drawn together, which costs no more than drawing one."""
        self._shots: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._waiting = waiting
        self._loading = threading.Lock()
        self._loaded = False

    def enrol(self, wallet: Wallet) -> Secret[str]:
        """Takes photographs, passcode and phone digits, sealed to the face service; returns the routing reference."""
        self._registered(DESK, DESK)
        begun = self._begin(DESK)
        templates = [self._album("desk", number, begun.dimension)[wallet.person] for number in range(SITTINGS)]
        request = face_pb2.EnrollRequest(
            subject=wallet.id,
            sealed=build_enrolment(_service_key(begun), templates, wallet.passcode, Secret(wallet.phone_last_four)),
            consent=face_pb2.Consent(
                purpose="payment by face", text_version=CONSENT_TEXT, given_at_us=self._clock_us()
            ),
        )
        return Secret(self._enrolled(request).reference)

    def _enrolled(self, request: face_pb2.EnrollRequest) -> face_pb2.EnrollResponse:
        """Enrols. The first enrolment waits until the service has loaded its search; the others wait for the first."""
        if self._loaded:
            return self._client.call(self._faces.Enroll, request)
        with self._loading:
            answer = when_ready(lambda: self._client.call(self._faces.Enroll, request), waiting=self._waiting)
            self._loaded = True
            return answer

    def capture(
        self, wallet: Wallet, merchant: Merchant, terminal_id: str, amount_minor: int, *, passcode: bool, live: bool
    ) -> face_pb2.FaceCapture:
        """Photographs the owner, or a print of the owner's portrait, for this amount; signed and sealed."""
        key = self._registered(terminal_id, merchant.id)
        begun = self._begin(terminal_id)
        number, embedding = self._photograph(wallet.person, begun.dimension)
        shot = camera.take(wallet.person, begun.challenge, number, camera.LIVE if live else camera.PRINT)
        captured = Captured(
            embedding=embedding,
            liveness=shot.liveness,
            frames=shot.frames,
            depth_map=shot.depth_map,
            challenge=shot.challenge,
            passcode=wallet.passcode if passcode else None,
        )
        return build_capture(
            captured,
            key=key,
            service=_service_key(begun),
            nonce=begun.nonces[0],
            terminal_id=terminal_id,
            merchant_id=merchant.id,
            captured_at_us=self._clock_us(),
            amount_minor=amount_minor,
            currency=merchant.currency,
        )

    def _photograph(self, person: int, dimension: int) -> tuple[int, Vectors]:
        """The next photograph of a person, with its number."""
        with self._lock:
            self._shots[person] += 1
            number = self._shots[person]
        photograph: Vectors = self._album("terminal", number, dimension)[person]
        return number, photograph

    def _album(self, place: str, number: int, dimension: int) -> Vectors:
        with self._lock:
            if self._people is None:
                self._people = People(self._seed, dimension)
            album = self._albums.get((place, number))
            if album is None:
                if place == "desk":
                    album = self._people.enrolled(0, self._persons, number)
                else:
                    album = self._people.probes(np.arange(self._persons), QUALITY, number)
                self._albums[place, number] = album
            return album

    def _begin(self, terminal_id: str) -> face_pb2.BeginCaptureResponse:
        request = face_pb2.BeginCaptureRequest(terminal_id=terminal_id, count=1)
        return self._client.call(self._faces.BeginCapture, request, repeatable=True)

    def _registered(self, terminal_id: str, merchant_id: str) -> TerminalKey:
        """The terminal's key, registered with the face service before it is first used."""
        with self._lock:
            key = self._keys.get(terminal_id)
            if key is None:
                key = TerminalKey.from_seed(hashlib.sha256(f"{self._seed} {terminal_id}".encode()).digest())
                request = face_pb2.RegisterTerminalRequest(
                    terminal_id=terminal_id,
                    merchant_id=merchant_id,
                    public_key=key.public_key,
                    algorithm=key.algorithm,
                )
                self._client.call(self._faces.RegisterTerminal, request, repeatable=True)
                self._keys[terminal_id] = key
            return key


def _service_key(begun: face_pb2.BeginCaptureResponse) -> ServiceKey:
    return ServiceKey(begun.key_id, begun.public_key)
