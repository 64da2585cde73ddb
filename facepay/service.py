"""The face service: enrolment, identification, payment, erasure, renewal. Blocking; safe from many threads.

Order of truth: keys, then store, then gallery. An enrolment is durable before it can be found; an erasure makes a
person unfindable before it destroys the key. `resolve` is the gateway's interface, everything else is for `server`.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from facepay.captures import NONCE_LIFE_US
from facepay.enrolment import EnrolmentDesk
from facepay.gallery.engine import GalleryUnavailable
from facepay.identification import SearchDesk
from facepay.model import Options, Session, Status
from facepay.records import Terminal
from hutong_contract import capture
from hutong_contract.errors import HutongError, Reason
from hutong_contract.limits import NONCES_MAX
from hutong_contract.secret import Secret

_log = logging.getLogger(__name__)


def open_service(
    folder: Path,
    *,
    dimension: int = 512,
    options: Options | None = None,
    master: Secret[bytes] | None = None,
    clock_us: Callable[[], int] | None = None,
    settled: Callable[[], bool] = lambda: True,
) -> FaceService:
    """Opens or makes the service in a folder: `keys/` apart from `faces.db`, `gallery/` derived from both. `clock_us`:
    UTC in microseconds; `settled`: whether consents may be ended by it now."""
    folder.mkdir(parents=True, exist_ok=True)
    return FaceService(folder, dimension, options or Options(), master, clock_us, settled)


class FaceService(EnrolmentDesk, SearchDesk):
    """The face service of one data folder. Blocking; safe from many threads."""

    def __init__(
        self,
        folder: Path,
        dimension: int,
        options: Options,
        master: Secret[bytes] | None,
        clock_us: Callable[[], int] | None = None,
        settled: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(folder, dimension, options, master)
        self._clock_us = clock_us or (lambda: time.time_ns() // 1000)
        self._clock_settled = settled
        self._closing = threading.Event()
        self._upkeep = threading.Thread(target=self._keep_up, name="face-upkeep", daemon=True)
        self._upkeep.start()

    def begin_capture(self, terminal_id: str, count: int, now_us: int) -> Session:
        """Nonces for a registered terminal. Raises CAPTURE_INVALID for another."""
        if terminal_id not in self._terminals:
            raise HutongError(Reason.ERROR_REASON_CAPTURE_INVALID, detail="terminal not registered")
        if not 1 <= count <= NONCES_MAX:
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="count")
        given, challenge = self._nonces.give(terminal_id, count, now_us)
        return Session(
            nonces=tuple(given),
            expires_at_us=now_us + NONCE_LIFE_US,
            service=self._keys.service_key,
            challenge=challenge,
            dimension=self.dimension,
        )

    @property
    def service_key(self) -> capture.ServiceKey:
        """The public key to which terminals and enrolment desks seal."""
        return self._keys.service_key

    def register_terminal(self, terminal_id: str, merchant_id: str, algorithm: int, public_key: bytes) -> None:
        """Registers a terminal's key, or replaces it. Raises FIELD_INVALID for a key that is none."""
        kind = capture.Algorithm.ValueType(algorithm)
        if not terminal_id or not capture.public_key_is_valid(kind, public_key):
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="public_key" if terminal_id else "terminal_id")
        terminal = Terminal(merchant_id, algorithm, public_key)
        with self._changing:
            self._store.set_terminal(terminal_id, terminal)
            self._terminals = {**self._terminals, terminal_id: terminal}

    def maintain(self, now_us: int) -> None:
        """What a background thread does every minute or so: merge segments, refit scores, end expired consents,
        and bring a gallery up to date that could not be reached. Raises GalleryUnavailable, FACE_UNAVAILABLE."""
        with self._changing:
            self._catch_up()
        while self._gallery.maintain():
            pass
        self.fit_scores()
        while self._clock_settled() and self.expire(now_us):
            pass

    def renew(self) -> int:
        """Starts a new gallery epoch under a fresh secret, and destroys the old one; returns the epoch's number.

        Searches go on meanwhile; enrolment waits. Raises FACE_UNAVAILABLE: the old epoch stands till the next start.
        """
        if self._persons:
            self._require_ready(None)
        with self._changing, self._changing_gallery():
            old = self._gallery
            epoch, secret = self._keys.next_epoch()
            self._gallery = self._open_gallery(epoch, secret)
            self._queue.replace(self._gallery)
            self._keys.forget_epochs_before(epoch)
            old.destroy()
            return epoch

    def status(self) -> Status:
        """The state of the service."""
        persons, templates = self._store.counts()
        gallery = self._gallery.state()
        return Status(
            persons,
            templates,
            self.dimension,
            gallery.segments,
            gallery.tail_rows,
            gallery.quarantined,
            gallery.epoch,
            self.thresholds(),
            self.options.filing_faces,
            persons >= self.options.filing_faces,
            dict(self._outcomes),
            gallery.ready_in_s,
        )

    def _keep_up(self) -> None:
        every = self.options.upkeep_every_s
        while every and not self._closing.wait(every):
            try:
                self.maintain(self._clock_us())
            except (GalleryUnavailable, HutongError, sqlite3.Error, OSError) as error:
                _log.warning("upkeep of the face gallery is put off: %s", error)

    def close(self) -> None:
        """Answers queued calls and closes the files."""
        self._closing.set()
        self._upkeep.join()
        self._queue.close()
        self._gallery.close()
        self._store.close()
        self._keys.close()
