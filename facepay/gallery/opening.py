"""Chooses and opens the gallery of a service: in this process on its own files, or on Milvus."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from facepay.gallery.deferred import DeferredGallery
from facepay.gallery.engine import Gallery
from hutong_contract.secret import Secret


@dataclass(frozen=True, slots=True)
class Local:
    """Segments in a folder, searched by this process."""

    folder: Path
    """One folder in it for each epoch."""
    threads: int = 2
    int8_batches: bool = False


@dataclass(frozen=True, slots=True)
class Milvus:
    """Collections on a Milvus cluster, or in a file of milvus-lite."""

    uri: str
    """http://host:19530, or the path of a file."""
    token: Secret[str] | None = field(default=None, repr=False)
    """"user:password", where the cluster asks for it."""


Place = Local | Milvus


def open_gallery(
    place: Place,
    name: str,
    epoch: int,
    secret: Secret[bytes],
    dimension: int,
    prepare: Callable[[Gallery], object],
    *,
    empty: bool = False,
) -> Gallery:
    """The gallery `name` in one epoch, as it was left; those of earlier epochs (left by a crash during a renewal) are
    deleted. `secret` makes the epoch's rotation; `prepare` is called with the gallery once it is open, before anybody
    else can use it. `empty`: nobody is enrolled; where there are no files either, a gallery in this process is opened
    when somebody is. Otherwise it is opened in the background: see DeferredGallery. Raises GalleryUnavailable."""
    if isinstance(place, Milvus):
        from facepay.gallery.milvus import MilvusGallery
        from facepay.gallery.sketch import Projection

        projection = Projection(secret, dimension)
        projection.query(np.zeros((1, dimension), np.float32))  # The one kernel that it needs is compiled here.
        distant = MilvusGallery.of_epoch(place.uri, projection, name, epoch, token=place.token)
        prepare(distant)
        return distant

    def open_it() -> Gallery:
        local = _open_local(place, epoch, secret, dimension)
        prepare(local)
        return local

    deferred = DeferredGallery(epoch, open_it, empty=empty and not place.folder.exists())
    if not empty or place.folder.exists():
        deferred.open_now()
    return deferred


def _open_local(place: Local, epoch: int, secret: Secret[bytes], dimension: int) -> Gallery:
    # Imported here: loading the kernels' compiler takes longer than all else that a gateway does at its start.
    from facepay.gallery.gallery import Gallery as LocalGallery
    from facepay.gallery.gallery import warm_up
    from facepay.gallery.sketch import Projection

    projection = Projection(secret, dimension)
    folder = place.folder / f"epoch-{epoch:04d}"
    gallery = LocalGallery(folder, projection, epoch, threads=place.threads)
    gallery.use_products(place.int8_batches)
    warm_up(projection)
    for other in place.folder.iterdir() if place.folder.exists() else ():
        if other.name < folder.name:
            shutil.rmtree(other, ignore_errors=True)
    return gallery
