"""The face service: enrolment, identification, payment, erasure, renewal. Blocking; safe from many threads.

Order of truth: keys, then store, then gallery. Enrolment is durable before it is findable; erasure makes somebody
unfindable before it destroys the key. `resolve` is the gateway's interface, everything else is for `server`.
"""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Final

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from contract import capture
from contract.errors import HutongError, Reason
from contract.secret import Secret
from facepay import passcode as passcodes
from facepay import score_model
from facepay.captures import NONCE_LIFE_US, BadCapture, Checked, Nonces, Place, open_capture
from facepay.decision import Decision, Outcome, Thresholds, decide, passcode_needed, thresholds
from facepay.embedding import Unusable, checked
from facepay.frames import measured
from facepay.gallery.batching import QueueFull, SearchQueue
from facepay.gallery.engine import Batch, Candidate, Enrolled, Vectors
from facepay.gallery.gallery import Gallery, warm_up
from facepay.gallery.sketch import Projection
from facepay.interface import FaceMatch, FaceUse
from facepay.keys import Keyring
from facepay.liveness.judgement import Judgement, combine, judge
from facepay.model import Asked, Identified, Options, Session, Status, check_enrolment
from facepay.score_model import ScoreModel
from facepay.store import TEMPLATES_MAX, Consent, NewSubject, Store, Subject, Terminal
from hutong.facepay.v1 import capture_pb2

SAME_PERSON_MIN: Final = 0.55
"""Cosine between enrolment photographs at which two names are one person; siblings stay below, twins do not."""
MODEL_PERSONS_MIN: Final = 2_000
"""Fewer persons say too little about strangers; the default model stands."""
MODEL_SAMPLE: Final = 16_384
MODEL_PROBES: Final = 2_048
"""Pairs for fitting: 2,048 x 16,384, a third of a second."""
EXPIRED_AT_ONCE_MAX: Final = 256
NONCES_AT_ONCE_MAX: Final = 64
SEARCH_WAIT_S: Final = 10.0
"""A search that takes longer has failed."""

_REASONS: Final = {
    Outcome.NO_MATCH: Reason.ERROR_REASON_FACE_NO_MATCH,
    Outcome.AMBIGUOUS: Reason.ERROR_REASON_FACE_AMBIGUOUS,
    Outcome.NEEDS_LAST_FOUR: Reason.ERROR_REASON_FACE_NEEDS_LAST_FOUR,
    Outcome.NEEDS_PASSCODE: Reason.ERROR_REASON_FACE_NEEDS_PASSCODE,
    Outcome.NOT_LIVE: Reason.ERROR_REASON_FACE_NOT_LIVE,
    Outcome.BAD_CAPTURE: Reason.ERROR_REASON_CAPTURE_INVALID,
}
"""How each outcome but `matched` is refused."""


def open_service(
    folder: Path, *, dimension: int = 512, options: Options | None = None, master: Secret[bytes] | None = None
) -> FaceService:
    """Opens or makes the service in a folder: `keys/` apart from `faces.db`, `gallery/` derived from both."""
    folder.mkdir(parents=True, exist_ok=True)
    return FaceService(folder, dimension, options or Options(), master)


class FaceService:
    """See the module."""

    def __init__(self, folder: Path, dimension: int, options: Options, master: Secret[bytes] | None) -> None:
        self.dimension = dimension
        self.options = options
        self._folder = folder
        self._keys = Keyring(folder / "keys", master)
        self._store = Store(folder, self._keys, dimension)
        self._passcodes = passcodes.Passcodes(options.passcode_cost)
        self._nonces = Nonces()
        self._terminals = self._store.terminals()
        self._changing = threading.RLock()
        self._persons, _ = self._store.counts()
        self._outcomes: Counter[str] = Counter()
        self._model: ScoreModel = score_model.DEFAULT
        self._model_persons = 0
        self._gallery = self._open_gallery(*self._keys.epoch())
        self._queue = SearchQueue(self._gallery)
        self.fit_scores()
        self._closing = threading.Event()
        self._upkeep = threading.Thread(target=self._keep_up, name="face-upkeep", daemon=True)
        self._upkeep.start()

    # --- captures and terminals -------------------------------------------------------------------------------

    def begin_capture(self, terminal_id: str, count: int, now_us: int) -> Session:
        """Nonces for a registered terminal. Raises CAPTURE_INVALID for another."""
        if terminal_id not in self._terminals:
            raise HutongError(Reason.ERROR_REASON_CAPTURE_INVALID, detail="terminal not registered")
        if not 1 <= count <= NONCES_AT_ONCE_MAX:
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
        """What terminals and enrolment desks seal to."""
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

    # --- enrolment --------------------------------------------------------------------------------------------

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
            for enrolled in self._store.add([new], now_us):
                self._gallery.add(enrolled)
            self._persons += 1
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
            self._gallery.add(
                Enrolled(
                    np.concatenate([one.templates for one in enrolled]),
                    np.concatenate([one.persons for one in enrolled]),
                    np.concatenate([one.regions for one in enrolled]),
                    np.concatenate([one.vectors for one in enrolled]),
                )
            )
            self._persons += len(subjects)

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

    # --- identification ---------------------------------------------------------------------------------------

    def identify(self, asked: Asked, now_us: int) -> Identified:
        """Opens a capture, checks it, and says whose face it is. Never raises for a bad capture: that is an
        outcome. Raises OVERLOADED."""
        return self.identify_many([asked], now_us)[0]

    def identify_many(self, asked: Sequence[Asked], now_us: int) -> list[Identified]:
        """The same for several at once, which are searched together."""
        limits = self.thresholds()
        opened = [self._opened(one.sealed, one.place, now_us) for one in asked]
        searches = [
            self._submit(found, limits, one) if isinstance(found, Checked) else None
            for found, one in zip(opened, asked, strict=True)
        ]
        answers = []
        for found, search in zip(opened, searches, strict=True):
            if isinstance(found, Decision):
                answers.append(Identified(found))
            elif search is not None:
                answers.append(self._identified(found, search.result(SEARCH_WAIT_S), limits))
        self._outcomes.update(answer.decision.outcome.value for answer in answers)
        return answers

    def verify(self, subject: str, sealed: bytes, now_us: int) -> Decision:
        """Compares a capture with one subject (1:1). Raises FACE_SUBJECT_UNKNOWN."""
        person = self._store.person_named(subject)
        if person is None:
            raise HutongError(Reason.ERROR_REASON_FACE_SUBJECT_UNKNOWN)
        opened = self._opened(sealed, Place(), now_us)
        if isinstance(opened, Decision):
            return opened
        threshold = max(self._model.threshold(1, self.options.policy.fmr_verify), self.options.policy.floor_min)
        batch = Batch(opened.vector[None], np.array([-1.0], np.float32))
        found = self._gallery.search_among(batch, self._store.templates_of(person))[0]
        score = found[0].score if found else 0.0
        outcome = Outcome.MATCHED if found and score >= threshold else Outcome.NO_MATCH
        return Decision(outcome, person if outcome is Outcome.MATCHED else -1, score, -1.0, threshold, 1)

    def resolve(self, uses: Sequence[FaceUse], now_us: int) -> list[FaceMatch | HutongError]:
        """facepay.interface.FaceResolver: who pays, with the factors that the amount asks for."""
        asked = [
            Asked(use.sealed, Place(use.merchant_id, use.terminal_id, use.amount_minor, use.currency)) for use in uses
        ]
        try:
            answers = self.identify_many(asked, now_us)
        except HutongError as error:
            return [error for _ in uses]
        return [self._settled(answer, use, now_us) for answer, use in zip(answers, uses, strict=True)]

    def thresholds(self) -> Thresholds:
        """What the number enrolled asks for now."""
        return thresholds(self._model, self._persons, self.options.policy)

    # --- upkeep -----------------------------------------------------------------------------------------------

    def fit_scores(self) -> None:
        """Fits the score model to who is enrolled, where that is enough and has doubled since it was last done."""
        if self._persons < max(MODEL_PERSONS_MIN, 2 * self._model_persons):
            return
        random = np.random.default_rng(self._persons)
        vectors, persons = self._gallery.sample(MODEL_SAMPLE, random)
        self._model = score_model.fit(vectors, persons, MODEL_PROBES, random, len(self._gallery))
        self._model_persons = self._persons

    def maintain(self, now_us: int) -> None:
        """What a background thread does every minute or so: merge segments, refit scores, end expired consents."""
        while self._gallery.maintain():
            pass
        self.fit_scores()
        while self.expire(now_us):
            pass

    def renew(self) -> int:
        """Starts a new gallery epoch under a fresh secret, and destroys the old one; returns the epoch's number.

        Searches go on meanwhile; enrolment waits.
        """
        with self._changing:
            old = self._gallery
            epoch, secret = self._keys.next_epoch()
            self._gallery = self._open_gallery(epoch, secret)
            self._queue.replace(self._gallery)
            self._keys.forget_epochs_before(epoch)
            old.close()
            shutil.rmtree(self._gallery_folder(old.state().epoch), ignore_errors=True)
            return epoch

    def status(self) -> Status:
        """How things are."""
        persons, templates = self._store.counts()
        return Status(
            persons,
            templates,
            self.dimension,
            self._gallery.state().segments,
            self._gallery.state().tail_rows,
            self._gallery.state().quarantined,
            self._gallery.state().epoch,
            self.thresholds(),
            self.options.filing_faces,
            persons >= self.options.filing_faces,
            dict(self._outcomes),
        )

    def _keep_up(self) -> None:
        every = self.options.upkeep_every_s
        while every and not self._closing.wait(every):
            self.maintain(time.time_ns() // 1000)

    def close(self) -> None:
        """Answers what waits and closes files."""
        self._closing.set()
        self._upkeep.join()
        self._queue.close()
        self._gallery.close()
        self._store.close()
        self._keys.close()

    # --- inside -----------------------------------------------------------------------------------------------

    def _gallery_folder(self, epoch: int) -> Path:
        return self._folder / "gallery" / f"epoch-{epoch:04d}"

    def _open_gallery(self, epoch: int, secret: Secret[bytes]) -> Gallery:
        projection = Projection(secret, self.dimension)
        folder = self._gallery_folder(epoch)
        gallery = Gallery(folder, projection, epoch, threads=self.options.threads)
        gallery.use_products(self.options.int8_batches)
        gallery.recover(self._store)
        warm_up(projection)
        for other in folder.parent.iterdir():
            if other.name < folder.name:  # Left by a crash during a renewal.
                shutil.rmtree(other, ignore_errors=True)
        return gallery

    def _vectors(self, embeddings: Sequence[NDArray[np.float32] | Sequence[float]]) -> Vectors:
        if not 1 <= len(embeddings) <= TEMPLATES_MAX:
            raise HutongError(Reason.ERROR_REASON_FACE_UNUSABLE, detail=f"1 to {TEMPLATES_MAX} embeddings")
        try:
            return np.stack([checked(np.asarray(one, np.float32), self.dimension) for one in embeddings])
        except Unusable as error:
            raise HutongError(Reason.ERROR_REASON_FACE_UNUSABLE, fault=error.reason, detail=str(error)) from None

    def _refuse_double(self, vectors: Vectors, person: int | None) -> None:
        found = self._gallery.search(Batch(vectors, np.full(len(vectors), SAME_PERSON_MIN, np.float32)))
        for candidate in (one for candidates in found for one in candidates):
            if candidate.score >= SAME_PERSON_MIN and candidate.person != person:
                raise HutongError(Reason.ERROR_REASON_FACE_ALREADY_ENROLLED, score=f"{candidate.score:.3f}")

    def _replace(self, person: int, vectors: Vectors, hashed: str, last_four: str, region: int) -> Secret[str]:
        old, enrolled = self._store.replace_templates(person, vectors, region)
        self._gallery.add(enrolled)
        self._gallery.remove(old)
        self._store.set_factors(person, hashed, last_four)
        subject = self._store.subject(person)
        assert subject is not None
        return subject.reference

    def _erase(self, person: int, now_us: int) -> tuple[int, bytes]:
        self._gallery.remove(self._store.templates_of(person))
        templates, receipt = self._store.delete(person, now_us)
        self._persons -= 1
        return len(templates), receipt

    def _opened(self, sealed: bytes, place: Place, now_us: int) -> Checked | Decision:
        """A capture that holds and is live, or why not."""
        try:
            opened = open_capture(
                sealed, self._keys.capture_key, self._terminals, self._nonces, self.dimension, now_us, place
            )
        except BadCapture as error:
            return Decision(Outcome.BAD_CAPTURE, detail=str(error))
        judgement = self._judged(opened)
        return opened if judgement.live else Decision(Outcome.NOT_LIVE, detail=judgement.reason)

    def _judged(self, opened: Checked) -> Judgement:
        policy = self.options.liveness
        if not opened.frames:
            if policy.frames_required:
                return Judgement(False, 0.0, False, "no frames")
            return judge(opened.cues, policy)
        try:
            seen = measured(opened.frames, opened.depth_map, opened.challenge)
        except Unusable as error:
            return Judgement(False, 0.0, False, error.reason)
        return judge(combine(opened.cues, seen), policy)

    def _submit(self, opened: Checked, limits: Thresholds, asked: Asked) -> Future[tuple[Candidate, ...]]:
        """Starts a search; a sub-gallery is answered at once."""
        last_four = opened.last_four.reveal() if opened.last_four else ""
        if last_four or asked.merchant_id:
            among = self._store.templates_with(last_four, asked.merchant_id)
            regions = np.array([asked.region], np.uint32)
            batch = Batch(opened.vector[None], np.array([limits.last_four], np.float32), regions)
            answer: Future[tuple[Candidate, ...]] = Future()
            answer.set_result(self._gallery.search_among(batch, among)[0])
            return answer
        try:
            margin = self.options.policy.margin
            return self._queue.submit(opened.vector, limits.alone, region=asked.region, margin=margin)
        except QueueFull:
            raise HutongError(Reason.ERROR_REASON_OVERLOADED) from None

    def _identified(self, opened: Checked, found: tuple[Candidate, ...], limits: Thresholds) -> Identified:
        decision = decide(found, limits, self.options.policy, last_four_known=opened.last_four is not None)
        if decision.outcome is not Outcome.MATCHED:
            return Identified(decision, None, opened)
        subject = self._store.subject(decision.person)
        if subject is None:  # Erased since the search: nobody deleted is ever found.
            return Identified(Decision(Outcome.NO_MATCH, threshold=decision.threshold, enrolled=limits.enrolled))
        return Identified(decision, subject, opened)

    def _settled(self, answer: Identified, use: FaceUse, now_us: int) -> FaceMatch | HutongError:
        """Asks for the factors that the amount needs."""
        opened, subject = answer.capture, answer.subject
        if answer.decision.outcome is not Outcome.MATCHED or opened is None or subject is None:
            detail = {"detail": answer.decision.detail} if answer.decision.detail else {}
            return HutongError(_REASONS[answer.decision.outcome], **detail)
        if opened.passcode is None:
            if passcode_needed(use.amount_minor, use.currency, self.options.policy):
                self._outcomes[Outcome.NEEDS_PASSCODE.value] += 1
                return HutongError(Reason.ERROR_REASON_FACE_NEEDS_PASSCODE)
            return FaceMatch(subject.reference, "11", opened.nonce)
        refused = self._check_passcode(subject, opened.passcode, now_us)
        return refused or FaceMatch(subject.reference, "12", opened.nonce)

    def _check_passcode(self, subject: Subject, passcode: Secret[str], now_us: int) -> HutongError | None:
        if subject.passcode_hash is None:
            return HutongError(Reason.ERROR_REASON_PASSCODE_WRONG)
        if subject.locked_until_us > now_us:
            return HutongError(Reason.ERROR_REASON_PASSCODE_LOCKED)
        until = self._store.count_attempt(subject.person, now_us, passcodes.lock_until)
        if until is None:
            return HutongError(Reason.ERROR_REASON_PASSCODE_LOCKED)
        if self._passcodes.verify(subject.passcode_hash, passcode):
            self._store.clear_failures(subject.person)
            return None
        return HutongError(Reason.ERROR_REASON_PASSCODE_LOCKED if until else Reason.ERROR_REASON_PASSCODE_WRONG)
