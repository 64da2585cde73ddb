"""What every part of the face service stands on: keys, store, gallery, the score model and its thresholds."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from contract.errors import HutongError, Reason
from contract.secret import Secret
from facepay import passcode as passcodes
from facepay import score_model
from facepay.captures import Nonces
from facepay.decision import Thresholds, thresholds
from facepay.gallery.batching import SearchQueue
from facepay.gallery.engine import Gallery, GalleryUnavailable
from facepay.gallery.opening import Local, open_gallery
from facepay.keys import Keyring
from facepay.model import Options
from facepay.score_model import ScoreModel
from facepay.store import Store

MODEL_PERSONS_MIN: Final = 2_000
"""Fewer persons say too little about strangers; the default model stands."""
MODEL_SAMPLE: Final = 16_384
MODEL_PROBES: Final = 2_048
"""Pairs for fitting: 2,048 x 16,384, a third of a second."""


class Desk:
    """Opens everything; see `service.FaceService` for what is done with it."""

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
        self.fit_scores()

    def _open_gallery(self, epoch: int, secret: Secret[bytes]) -> Gallery:
        """The gallery of an epoch, equal to the store. Raises GalleryUnavailable."""
        place = self.options.gallery or Local(self._folder / "gallery", self.options.threads, self.options.int8_batches)
        empty = not self._store.counts()[1]
        gallery = open_gallery(place, self._keys.name, epoch, secret, self.dimension, empty=empty)
        gallery.recover(self._store.templates)
        return gallery

    @contextmanager
    def _changing_gallery(self) -> Iterator[None]:
        """A change of the gallery to what the store says. Where the gallery cannot be reached the caller is told, and
        `maintain` makes up for it. Raises HutongError(FACE_UNAVAILABLE)."""
        try:
            yield
        except GalleryUnavailable:
            self._behind = True
            raise HutongError(Reason.ERROR_REASON_FACE_UNAVAILABLE) from None

    def thresholds(self) -> Thresholds:
        """What the number enrolled asks for now."""
        return thresholds(self._model, self._persons, self.options.policy)

    def fit_scores(self) -> None:
        """Fits the score model to who is enrolled, where that is enough and has doubled since it was last done."""
        if self._persons < max(MODEL_PERSONS_MIN, 2 * self._model_persons):
            return
        random = np.random.default_rng(self._persons)
        vectors, persons = self._gallery.sample(MODEL_SAMPLE, random)
        self._model = score_model.fit(vectors, persons, MODEL_PROBES, random, len(self._gallery))
        self._model_persons = self._persons
