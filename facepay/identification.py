"""Identification: whose face a sealed capture shows, and whether that is enough to pay."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Final

import numpy as np

from facepay import passcode as passcodes
from facepay.captures import BadCapture, Checked, Place, open_capture
from facepay.decision import Decision, Outcome, Thresholds, decide, passcode_needed
from facepay.desk import Desk
from facepay.embedding import Unusable
from facepay.frames import measured
from facepay.gallery.batching import QueueFull
from facepay.gallery.engine import Batch, Candidate, GalleryUnavailable
from facepay.interface import FaceMatch, FaceUse
from facepay.liveness.judgement import Judgement, combine, judge
from facepay.model import Asked, Identified
from facepay.records import Subject
from hutong_contract.errors import HutongError, Reason
from hutong_contract.secret import Secret

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


class SearchDesk(Desk):
    """The part of `service.FaceService` that handles captures."""

    def identify(self, asked: Asked, now_us: int) -> Identified:
        """Opens a capture, checks it, and says whose face it is. Never raises for a bad capture: that is an
        outcome. Raises OVERLOADED, FACE_UNAVAILABLE and FACE_NOT_READY; then the capture's nonce is still good."""
        return self.identify_many([asked], now_us)[0]

    def identify_many(self, asked: Sequence[Asked], now_us: int) -> list[Identified]:
        """The same for several at once, which are searched together."""
        if self._persons:
            self._require_ready(0)
        try:
            answers = self._searched(asked, now_us)
        except (GalleryUnavailable, TimeoutError):
            raise HutongError(Reason.ERROR_REASON_FACE_UNAVAILABLE) from None
        self._outcomes.update(answer.decision.outcome.value for answer in answers)
        return answers

    def _searched(self, asked: Sequence[Asked], now_us: int) -> list[Identified]:
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
        return answers

    def verify(self, subject: str, sealed: bytes, now_us: int) -> Decision:
        """Compares a capture with one subject (1:1). Raises FACE_SUBJECT_UNKNOWN, FACE_UNAVAILABLE and
        FACE_NOT_READY; the last leaves the capture's nonce good."""
        person = self._store.person_named(subject)
        if person is None:
            raise HutongError(Reason.ERROR_REASON_FACE_SUBJECT_UNKNOWN)
        self._require_ready(0)
        opened = self._opened(sealed, Place(), now_us)
        if isinstance(opened, Decision):
            return opened
        threshold = max(self._model.threshold(1, self.options.policy.fmr_verify), self.options.policy.floor_min)
        batch = Batch(opened.vector[None], np.array([-1.0], np.float32))
        try:
            found = self._gallery.search_among(batch, self._store.templates.of(person))[0]
        except GalleryUnavailable:
            raise HutongError(Reason.ERROR_REASON_FACE_UNAVAILABLE) from None
        score = found[0].score if found else 0.0
        outcome = Outcome.MATCHED if found and score >= threshold else Outcome.NO_MATCH
        return Decision(outcome, person if outcome is Outcome.MATCHED else -1, score, -1.0, threshold, 1)

    def resolve(self, uses: Sequence[FaceUse], now_us: int) -> list[FaceMatch | HutongError]:
        """Who pays (facepay.interface.FaceResolver), if the capture has the factors that the amount needs."""
        asked = [
            Asked(use.sealed, Place(use.merchant_id, use.terminal_id, use.amount_minor, use.currency)) for use in uses
        ]
        try:
            answers = self.identify_many(asked, now_us)
        except HutongError as error:
            return [error for _ in uses]
        return [self._settled(answer, use, now_us) for answer, use in zip(answers, uses, strict=True)]

    def _opened(self, sealed: bytes, place: Place, now_us: int) -> Checked | Decision:
        """Opens and checks a capture, or says why it is refused."""
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
        """Starts a search; a sub-gallery is searched at once."""
        last_four = opened.last_four.reveal() if opened.last_four else ""
        if last_four or asked.merchant_id:
            among = self._store.templates.known_by(last_four, asked.merchant_id)
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
