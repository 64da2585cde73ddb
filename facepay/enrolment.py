"""Enrolling and erasing people: which templates and factors are in the gallery, and for how long."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from facepay.desk import Desk
from facepay.embedding import Unusable, checked
from facepay.gallery.engine import Batch, Enrolled, Vectors
from facepay.model import check_enrolment
from facepay.records import Consent, NewSubject
from hutong.facepay.v1 import capture_pb2
from hutong_contract import capture
from hutong_contract.errors import HutongError, Reason
from hutong_contract.limits import TEMPLATES_MAX
from hutong_contract.secret import Secret

SAME_PERSON_MIN: Final = 0.55
"""Cosine between enrolment photographs at which two names count as one person. Siblings are below it, twins are not."""
EXPIRED_AT_ONCE_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class How:
    """Options of an enrolment."""

    replace: bool = False
    """Whether it may replace the person who has the name; that face, its factors and its consent are erased."""
    keep_reference: bool = False
    """With `replace`: whether the new face keeps the old routing reference, and so pays from the same account."""
    allow_lookalike: bool = False
    """Whether a person who looks like another may be enrolled under another name."""
    ready_within_s: float | None = None
    """How long to wait for a gallery that is being opened; None: as long as it takes."""
    still_wanted: Callable[[], bool] = lambda: True
    """Asked once before anything is written: whether the caller still waits for the answer."""


HOW: Final = How()
"""The defaults."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """The result of an enrolment."""

    reference: Secret[str]
    """Opaque routing reference, for the token service."""
    templates: int
    repeated: bool = False
    """Whether the same enrolment was done before, so that nothing changed."""


class EnrolmentDesk(Desk):
    """The part of `service.FaceService` that changes who is enrolled."""

    def enroll(
        self,
        subject: str,
        embeddings: Sequence[NDArray[np.float32] | Sequence[float]],
        passcode: Secret[str],
        last_four: str,
        consent: Consent,
        *,
        region: int = 0,
        merchants: Sequence[str] = (),
        how: How = HOW,
        now_us: int | None = None,
    ) -> Enrolment:
        """Enrols a person under a free name, or in place of the one who has it (`how.replace`). Idempotent: if the same
        embeddings, factors and consent (apart from its time) are enrolled under this name, nothing changes and the
        answer is the same. Raises FACE_UNUSABLE, FIELD_INVALID or FIELD_MISSING; FACE_NAME_TAKEN if somebody else has
        the name; FACE_ALREADY_ENROLLED if the face is enrolled under another name; FACE_NOT_READY; FACE_UNAVAILABLE
        (the person is enrolled and will be found later: repeat the call); DEADLINE_PAST if the caller has stopped
        waiting."""
        now_us = time.time_ns() // 1000 if now_us is None else now_us
        vectors = self._vectors(embeddings)
        check_enrolment(subject, passcode, last_four, consent, region, now_us)
        if how.keep_reference and not how.replace:
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="keep_reference")
        self._require_ready(how.ready_within_s)
        new = NewSubject(
            subject,
            vectors,
            Secret("face_" + secrets.token_hex(16)),
            consent,
            self._passcodes.hash(passcode),
            last_four,
            region,
            tuple(merchants),
        )
        with self._changing:
            person = self._store.person_named(subject)
            if person is not None and (enrolled := self._repeated(person, new, passcode)):
                return enrolled
            if person is not None and not how.replace:
                raise HutongError(Reason.ERROR_REASON_FACE_NAME_TAKEN)
            if not how.allow_lookalike:
                self._refuse_double(vectors, person)
            # The last moment at which nothing is done: whoever has gone would not know of it.
            if not how.still_wanted():
                raise HutongError(Reason.ERROR_REASON_DEADLINE_PAST)
            if person is not None:
                return self._replace(person, new, now_us, keep_reference=how.keep_reference)
            added = self._store.add([new], now_us)
            self._persons += 1
            with self._changing_gallery():
                self._gallery.add(added[0])
            return Enrolment(new.reference, len(vectors))

    def enroll_sealed(
        self,
        subject: str,
        sealed: bytes,
        consent: Consent,
        *,
        region: int = 0,
        merchants: Sequence[str] = (),
        how: How = HOW,
        now_us: int | None = None,
    ) -> Enrolment:
        """`enroll` from a sealed EnrollmentContents."""
        try:
            plain = capture.unseal(self._keys.capture_key, sealed, capture.ENROLMENT_PURPOSE)
            contents = capture_pb2.EnrollmentContents.FromString(plain)
            embeddings = [np.frombuffer(one, "<f4") for one in contents.embeddings]
        except (capture.SealError, DecodeError, ValueError):
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="sealed") from None
        return self.enroll(
            subject,
            embeddings,
            Secret(contents.passcode),
            contents.last_four,
            consent,
            region=region,
            merchants=merchants,
            how=how,
            now_us=now_us,
        )

    def enroll_many(self, subjects: Sequence[NewSubject], now_us: int) -> None:
        """Imports subjects from another system in one durable step, without a search for duplicates: names must be new,
        vectors of unit length, passcodes hashed already or absent (then the face pays only small amounts). Raises
        FACE_UNAVAILABLE."""
        self._require_ready(None)
        with self._changing:
            enrolled = self._store.add(subjects, now_us)
            self._persons += len(subjects)
            with self._changing_gallery():
                self._gallery.add(
                    Enrolled(
                        np.concatenate([one.templates for one in enrolled]),
                        np.concatenate([one.persons for one in enrolled]),
                        np.concatenate([one.regions for one in enrolled]),
                        np.concatenate([one.vectors for one in enrolled]),
                    )
                )

    def delete(self, subject: str, now_us: int) -> tuple[int, bytes]:
        """Erases a person. Returns the number of templates and the receipt. Raises FACE_SUBJECT_UNKNOWN."""
        with self._changing:
            person = self._store.person_named(subject)
            if person is None:
                raise HutongError(Reason.ERROR_REASON_FACE_SUBJECT_UNKNOWN)
            return self._erase(person, now_us)

    def expire(self, now_us: int) -> int:
        """Erases people whose consent has ended, and returns how many. For a background thread, until it returns 0."""
        with self._changing:
            gone = self._store.expired(now_us, EXPIRED_AT_ONCE_MAX)
            for person in gone:
                self._erase(person, now_us)
            return len(gone)

    def _vectors(self, embeddings: Sequence[NDArray[np.float32] | Sequence[float]]) -> Vectors:
        if not 1 <= len(embeddings) <= TEMPLATES_MAX:
            raise HutongError(Reason.ERROR_REASON_FACE_UNUSABLE, detail=f"1 to {TEMPLATES_MAX} embeddings")
        try:
            return np.stack([checked(np.asarray(one, np.float32), self.dimension) for one in embeddings])
        except Unusable as error:
            raise HutongError(Reason.ERROR_REASON_FACE_UNUSABLE, fault=error.reason, detail=str(error)) from None

    def _refuse_double(self, vectors: Vectors, person: int | None) -> None:
        with self._changing_gallery():
            found = self._gallery.search(Batch(vectors, np.full(len(vectors), SAME_PERSON_MIN, np.float32)))
        for candidate in (one for candidates in found for one in candidates):
            if candidate.score >= SAME_PERSON_MIN and candidate.person != person:
                raise HutongError(Reason.ERROR_REASON_FACE_ALREADY_ENROLLED, score=f"{candidate.score:.3f}")

    def _repeated(self, person: int, new: NewSubject, passcode: Secret[str]) -> Enrolment | None:
        """The answer if the same enrolment was done before; None otherwise."""
        if not self._store.holds(person, new):
            return None
        known = self._store.subject(person)
        if known is None or known.passcode_hash is None or not self._passcodes.verify(known.passcode_hash, passcode):
            return None
        self._catch_up()  # Whoever is told that somebody is enrolled can rely on their being found.
        return Enrolment(known.reference, len(new.vectors), repeated=True)

    def _replace(self, person: int, new: NewSubject, now_us: int, *, keep_reference: bool) -> Enrolment:
        if keep_reference:
            known = self._store.subject(person)
            if known is None:  # Its key is gone, and the reference with it.
                raise HutongError(Reason.ERROR_REASON_FACE_SUBJECT_UNKNOWN)
            new = replace(new, reference=known.reference)
        old, enrolled = self._store.replace(person, new, now_us)
        with self._changing_gallery():
            self._gallery.remove(old)
            self._gallery.add(enrolled)
        return Enrolment(new.reference, len(new.vectors))

    def _erase(self, person: int, now_us: int) -> tuple[int, bytes]:
        with self._changing_gallery():
            self._gallery.remove(self._store.templates.of(person))
        templates, receipt = self._store.delete(person, now_us)
        self._persons -= 1
        return len(templates), receipt
