"""Checks of captures: single-use nonces, and everything that must hold before a face is compared."""

from __future__ import annotations

import enum
import hashlib
import hmac
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric import x25519
from google.protobuf.message import DecodeError

from facepay.embedding import Unusable, checked
from facepay.gallery.engine import Vectors
from facepay.records import Terminal
from hutong.facepay.v1 import capture_pb2
from hutong_contract import capture
from hutong_contract.bounded import Bounded
from hutong_contract.secret import Secret

NONCE_LIFE_US: Final = 60 * 1_000_000
"""Lifetime of a nonce, in microseconds: a payer needs some seconds to look and to type a passcode."""
NONCES_MAX: Final = 65_536
"""Most unused nonces; the oldest are dropped first."""
CLOCK_SKEW_US: Final = 5 * 1_000_000
"""How far ahead a terminal's clock may be."""
CHALLENGES: Final = ("turn_left", "turn_right", "nod", "blink")


class Fault(enum.Enum):
    """Why a capture is refused."""

    SEAL = "not sealed to this service, or altered"
    CONTENTS = "contents cannot be read"
    TERMINAL = "terminal not registered"
    SIGNATURE = "not signed by the terminal"
    NONCE = "nonce unknown, used, expired or given to another terminal"
    STALE = "captured too long ago or in the future"
    SPLICED = "embedding, frames or factors are not those that were signed"
    PLACE = "captured at another merchant or terminal, or for another amount"
    EMBEDDING = "embedding not usable"


class BadCapture(Exception):  # noqa: N818 - it is what happened
    """A capture that is refused, and why."""

    def __init__(self, fault: Fault, detail: str = "") -> None:
        self.fault = fault
        super().__init__(f"{fault.value}: {detail}" if detail else fault.value)


@dataclass(frozen=True, slots=True)
class Place:
    """Where and for how much the caller says the capture was made; empty fields are not checked."""

    merchant_id: str = ""
    terminal_id: str = ""
    amount_minor: int = 0
    currency: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """A capture that passed all checks."""

    nonce: bytes
    terminal_id: str
    vector: Vectors = field(repr=False)
    """[D], unit length."""
    cues: Mapping[str, float]
    passcode: Secret[str] | None
    last_four: Secret[str] | None
    frames: tuple[bytes, ...] = field(repr=False)
    depth_map: bytes = field(repr=False)
    challenge: str = ""
    """The challenge that this nonce set."""
    answered: str = ""
    """The challenge that the terminal says was answered."""


class Nonces:
    """Nonces that were issued and not yet used, in memory. A restart forgets them, and terminals ask again."""

    def __init__(self, most: int = NONCES_MAX) -> None:
        """`most`: how many are kept; the oldest is dropped first."""
        self._lock = threading.Lock()
        self._waiting: Bounded[bytes, tuple[str, int, str]] = Bounded(most)

    def give(self, terminal_id: str, count: int, now_us: int) -> tuple[list[bytes], str]:
        """Issues nonces to a terminal, with the challenge that goes with them."""
        challenge = secrets.choice(CHALLENGES)
        nonces = [secrets.token_bytes(capture.NONCE_BYTES) for _ in range(count)]
        with self._lock:
            for nonce in nonces:
                self._waiting.put(nonce, (terminal_id, now_us + NONCE_LIFE_US, challenge))
        return nonces, challenge

    def take(self, nonce: bytes, terminal_id: str, now_us: int) -> str | None:
        """Uses a nonce up and returns its challenge, or None if the nonce is unknown, used or too old."""
        with self._lock:
            found = self._waiting.pop(nonce)
        if found is None or found[0] != terminal_id or found[1] < now_us:
            return None
        return found[2]


def open_capture(
    sealed: bytes,
    key: x25519.X25519PrivateKey,
    terminals: Mapping[str, Terminal],
    nonces: Nonces,
    dimension: int,
    now_us: int,
    place: Place,
) -> Checked:
    """Opens a sealed capture and checks all of it. Raises BadCapture. The nonce is used up only after the signature was
    verified, so that a forged capture cannot use up a terminal's nonce."""
    contents, statement = _parse(sealed, key)
    terminal = terminals.get(statement.terminal_id)
    if terminal is None:
        raise BadCapture(Fault.TERMINAL)
    algorithm = capture.Algorithm.ValueType(terminal.algorithm)
    if not capture.signature_is_valid(algorithm, terminal.public_key, contents.signature, contents.statement):
        raise BadCapture(Fault.SIGNATURE)
    challenge = nonces.take(statement.nonce, statement.terminal_id, now_us)
    if challenge is None:
        raise BadCapture(Fault.NONCE)
    if not now_us - NONCE_LIFE_US <= statement.captured_at_us <= now_us + CLOCK_SKEW_US:
        raise BadCapture(Fault.STALE)
    _check_hashes(contents, statement)
    _check_place(statement, terminal, place)
    try:
        vector = checked(np.frombuffer(contents.embedding, "<f4"), dimension)
    except (Unusable, ValueError) as error:
        raise BadCapture(Fault.EMBEDDING, str(error)) from None
    return Checked(
        nonce=statement.nonce,
        terminal_id=statement.terminal_id,
        vector=vector,
        cues={cue.name: cue.score for cue in statement.liveness},
        passcode=Secret(contents.passcode) if contents.passcode else None,
        last_four=Secret(contents.last_four) if contents.last_four else None,
        frames=tuple(contents.frames),
        depth_map=contents.depth_map,
        challenge=challenge,
        answered=statement.challenge,
    )


def _parse(
    sealed: bytes, key: x25519.X25519PrivateKey
) -> tuple[capture_pb2.CaptureContents, capture_pb2.CaptureStatement]:
    try:
        plain = capture.unseal(key, sealed, capture.CAPTURE_PURPOSE)
    except capture.SealError as error:
        raise BadCapture(Fault.SEAL, str(error)) from None
    try:
        contents = capture_pb2.CaptureContents.FromString(plain)
        return contents, capture_pb2.CaptureStatement.FromString(contents.statement)
    except DecodeError:
        raise BadCapture(Fault.CONTENTS) from None


def _check_hashes(contents: capture_pb2.CaptureContents, statement: capture_pb2.CaptureStatement) -> None:
    pairs = (
        (statement.embedding_hash, hashlib.sha256(contents.embedding).digest()),
        (statement.frame_hash, capture.frame_hash(contents.frames, contents.depth_map)),
        (statement.factors_hash, capture.factors_hash(statement.nonce, contents.passcode, contents.last_four)),
    )
    if not all(hmac.compare_digest(signed, found) for signed, found in pairs):
        raise BadCapture(Fault.SPLICED)


def _check_place(statement: capture_pb2.CaptureStatement, terminal: Terminal, place: Place) -> None:
    pairs = (
        (statement.merchant_id, terminal.merchant_id),
        (statement.merchant_id, place.merchant_id or statement.merchant_id),
        (statement.terminal_id, place.terminal_id or statement.terminal_id),
        (statement.amount_minor or place.amount_minor, place.amount_minor or statement.amount_minor),
        (statement.currency or place.currency, place.currency or statement.currency),
    )
    if any(signed != said for signed, said in pairs):
        raise BadCapture(Fault.PLACE)
