"""Enrolment and its end: who is in the gallery, with which templates and factors, and who no longer is."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Final

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from contract import capture
from contract.errors import HutongError, Reason
from contract.secret import Secret
from facepay.desk import Desk
from facepay.embedding import Unusable, checked
from facepay.gallery.engine import Batch, Enrolled, Vectors
from facepay.model import check_enrolment
from facepay.records import TEMPLATES_MAX, Consent, NewSubject
from hutong.facepay.v1 import capture_pb2

SAME_PERSON_MIN: Final = 0.55
"""Cosine between enrolment photographs at which two names are one person; siblings stay below, twins do not."""
EXPIRED_AT_ONCE_MAX: Final = 256


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
        allow_lookalike: bool = False,
        now_us: int | None = None,
    ) -> Secret[str]:
        """Enrols somebody, or replaces their templates and factors; returns the opaque routing reference.

        Raises FACE_UNUSABLE, FIELD_INVALID or FIELD_MISSING, and FACE_ALREADY_ENROLLED where somebody alike is
        enrolled under another name.
        """
        now_us = time.time_ns() // 1000 if now_us is None else now_us
        vectors = self._vectors(embeddings)
        check_enrolment(subject, passcode, last_four, consent, region, now_us)
        hashed = self._passcodes.hash(passcode)
        with self._changing:
            person = self._store.person_named(subject)
            if not allow_lookalike:
                self._refuse_double(vectors, person)
            if person is not None:
                return self._replace(person, vectors, hashed, last_four, region)
            reference = Secret("face_" + secrets.token_hex(16))
            new = NewSubject(subject, vectors, reference, consent, hashed, last_four, region, tuple(merchants))
            enrolled = self._store.add([new], now_us)
            self._persons += 1
            with self._changing_gallery():
                self._gallery.add(enrolled[0])
            return reference

    def enroll_sealed(
        self,
        subject: str,
        sealed: bytes,
        consent: Consent,
        *,
        region: int = 0,
        merchants: Sequence[str] = (),
        allow_lookalike: bool = False,
        now_us: int | None = None,
    ) -> tuple[Secret[str], int]:
        """The same from a sealed EnrollmentContents; returns the number of templates as well."""
        try:
            plain = capture.unseal(self._keys.capture_key, sealed, capture.ENROLMENT_PURPOSE)
            contents = capture_pb2.EnrollmentContents.FromString(plain)
            embeddings = [np.frombuffer(one, "<f4") for one in contents.embeddings]
        except (capture.SealError, DecodeError, ValueError):
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="sealed") from None
        reference = self.enroll(
            subject,
            embeddings,
            Secret(contents.passcode),
            contents.last_four,
            consent,
            region=region,
            merchants=merchants,
            allow_lookalike=allow_lookalike,
            now_us=now_us,
        )
        return reference, len(embeddings)

    def enroll_many(self, subjects: Sequence[NewSubject], now_us: int) -> None:
        """Moves subjects in from another system in one durable step, without looking for doubles: their names must
        be new, their vectors of unit length, their passcodes hashed already (or absent: such a face pays only
        small amounts)."""
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
        """Erases somebody; returns how many templates, and the receipt. Raises FACE_SUBJECT_UNKNOWN."""
        with self._changing:
            person = self._store.person_named(subject)
            if person is None:
                raise HutongError(Reason.ERROR_REASON_FACE_SUBJECT_UNKNOWN)
            return self._erase(person, now_us)

    def expire(self, now_us: int) -> int:
        """Erases those whose consent has ended; returns how many. For a background thread, until it returns 0."""
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

    def _replace(self, person: int, vectors: Vectors, hashed: str, last_four: str, region: int) -> Secret[str]:
        old, enrolled = self._store.replace_templates(person, vectors, region)
        self._store.set_factors(person, hashed, last_four)
        with self._changing_gallery():
            self._gallery.add(enrolled)
            self._gallery.remove(old)
        subject = self._store.subject(person)
        assert subject is not None
        return subject.reference

    def _erase(self, person: int, now_us: int) -> tuple[int, bytes]:
        with self._changing_gallery():
            self._gallery.remove(self._store.templates.of(person))
        templates, receipt = self._store.delete(person, now_us)
        self._persons -= 1
        return len(templates), receipt
