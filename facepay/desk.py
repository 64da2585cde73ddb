"""The common part of the face service: keys, store, gallery, the score model and its thresholds."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from facepay import passcode as passcodes
from facepay import score_model
from facepay.captures import Nonces
from facepay.decision import Thresholds, thresholds
from facepay.gallery import kernel_cache
from facepay.gallery.batching import SearchQueue
from facepay.gallery.deferred import DeferredGallery
from facepay.gallery.engine import Gallery, GalleryNotReady, GalleryUnavailable
from facepay.gallery.opening import Local, open_gallery
from facepay.keys import Keyring
from facepay.model import Options
from facepay.score_model import ScoreModel
from facepay.store import Store
from hutong_contract.errors import HutongError, Reason
from hutong_contract.secret import Secret

MODEL_PERSONS_MIN: Final = 2_000
"""With fewer persons there is too little data about strangers, and the default model is used."""
MODEL_SAMPLE: Final = 16_384
MODEL_PROBES: Final = 2_048
"""Pairs for fitting: 2,048 x 16,384, a third of a second."""


class Desk:
    """Opens keys, store and gallery, for the parts of `service.FaceService`."""

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
        self._behind = False
        self._queue = SearchQueue(self._gallery)

    def _open_gallery(self, epoch: int, secret: Secret[bytes]) -> Gallery:
        """The gallery of an epoch, equal to the store. If kernels must be compiled first and the options allow it, the
        gallery is returned while it is still being opened. Raises GalleryUnavailable."""
        place = self.options.gallery or Local(self._folder / "gallery", self.options.threads, self.options.int8_batches)
        empty = not self._store.counts()[1]
        gallery = open_gallery(place, self._keys.name, epoch, secret, self.dimension, self._prepare, empty=empty)
        wait = not empty and (self.options.wait_for_kernels or kernel_cache.is_warm())
        if wait and isinstance(gallery, DeferredGallery):
            gallery.wait(None)
        return gallery

    def _prepare(self, gallery: Gallery) -> None:
        """Makes a newly opened gallery equal to the store, and fits the score model to the people enrolled."""
        gallery.recover(self._store.templates)
        self._fit(gallery)

    def _require_ready(self, within_s: float | None) -> None:
        """Waits up to this long until the gallery is open; None: without limit. Raises FACE_NOT_READY, which says when
        to try again, and FACE_UNAVAILABLE."""
        gallery = self._gallery
        if isinstance(gallery, DeferredGallery):
            with self._reaching_gallery():
                gallery.wait(within_s)

    @contextmanager
    def _reaching_gallery(self) -> Iterator[None]:
        """Translates errors of the gallery into FACE_NOT_READY and FACE_UNAVAILABLE."""
        try:
            yield
        except GalleryNotReady as error:
            raise not_ready(error) from None
        except GalleryUnavailable:
            raise HutongError(Reason.ERROR_REASON_FACE_UNAVAILABLE) from None

    @contextmanager
    def _changing_gallery(self) -> Iterator[None]:
        """Wraps a change of the gallery that follows a change of the store. If the gallery cannot be reached, the
        caller gets FACE_UNAVAILABLE, and `maintain` repeats the change. Raises FACE_NOT_READY if nothing was
        changed."""
        try:
            yield
        except GalleryNotReady as error:
            raise not_ready(error) from None
        except GalleryUnavailable:
            self._behind = True
            raise HutongError(Reason.ERROR_REASON_FACE_UNAVAILABLE) from None

    def _catch_up(self) -> None:
        """Updates a gallery that could not be reached for a while. Raises FACE_UNAVAILABLE."""
        if self._behind:
            with self._changing_gallery():
                self._gallery.recover(self._store.templates)
            self._behind = False

    def thresholds(self) -> Thresholds:
        """The thresholds for the number of people enrolled now."""
        return thresholds(self._model, self._persons, self.options.policy)

    def fit_scores(self) -> None:
        """Fits the score model, if there are enough people and twice as many as at the last fit."""
        if not self._gallery.state().ready_in_s:
            self._fit(self._gallery)

    def _fit(self, gallery: Gallery) -> None:
        if self._persons < max(MODEL_PERSONS_MIN, 2 * self._model_persons):
            return
        random = np.random.default_rng(self._persons)
        vectors, persons = gallery.sample(MODEL_SAMPLE, random)
        self._model = score_model.fit(vectors, persons, MODEL_PROBES, random, len(gallery))
        self._model_persons = self._persons


def not_ready(error: GalleryNotReady) -> HutongError:
    """The error for callers while the gallery is being opened."""
    seconds = f"{error.retry_s:.0f}"
    return HutongError(Reason.ERROR_REASON_FACE_NOT_READY, retry_s=seconds).after(int(error.retry_s * 1e6))
