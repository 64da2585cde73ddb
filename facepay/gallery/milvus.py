"""The same gallery on Milvus, through pymilvus: for more machines than one. deploy/milvus.md says how to move.

Milvus sees rotated templates only (the epoch's secret stays here). The index is FLAT by default, which is exact;
other indexes are approximate and owe a recall certificate of their own (`hutong face bench --engine milvus`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from facepay.gallery.engine import (
    PLACES,
    Batch,
    Candidate,
    Enrolled,
    GalleryUnavailable,
    Ids,
    Opened,
    Source,
    State,
    Vectors,
)
from facepay.gallery.sketch import Projection
from hutong_contract.extras import MissingExtraError, needs
from hutong_contract.secret import Secret

COLLECTION: Final = "hutong_faces"
INSERT_ROWS: Final = 1_000
"""Rows of one insert: 2 MB at 512 dimensions, far below the 64 MB that a message may have."""
IDS_AT_ONCE: Final = 1_024
"""Templates named in one request."""
IDS_PAGE: Final = 8_192
"""Ids read at a time, of the 16,384 rows that Milvus gives at most."""
SEARCH_S: Final = 5.0
"""Longest wait for a search: less than a caller of the face service waits."""
CALL_S: Final = 30.0
"""Longest wait for anything else."""
LOAD_ROWS: Final = 8_192
"""Templates decrypted at a time."""
TEMPLATES_EXPECTED: Final = 4
"""Places asked for, for each person wanted: one person may have several templates."""


class MilvusUnavailable(GalleryUnavailable):
    """pymilvus is not installed, or the server cannot be reached. The text says what to do."""


class MilvusGallery:
    """facepay.gallery.engine.Gallery on a Milvus collection."""

    def __init__(
        self,
        uri: str,
        projection: Projection,
        *,
        token: Secret[str] | None = None,
        collection: str = COLLECTION,
        epoch: int = 1,
        index: str = "FLAT",
        index_params: dict[str, int] | None = None,
    ) -> None:
        """`uri` is a file path (milvus-lite) or http://host:19530; `token` is "user:password"."""
        try:
            with needs("milvus"):
                from pymilvus import MilvusClient
        except MissingExtraError as error:
            raise MilvusUnavailable(str(error)) from None
        self._uri = uri
        self._projection = projection
        self._name = collection
        self._epoch = epoch
        self._source: Source | None = None
        with self._reaching():
            self._client: Any = MilvusClient(uri=uri, token=token.reveal() if token else "", timeout=CALL_S)
            if not self._client.has_collection(collection, timeout=CALL_S):
                self._create(index, index_params or {})
            self._client.load_collection(collection, timeout=CALL_S)

    @classmethod
    def of_epoch(
        cls, uri: str, projection: Projection, name: str, epoch: int, *, token: Secret[str] | None = None
    ) -> MilvusGallery:
        """The collection of one epoch of the gallery `name`; those of earlier epochs are dropped."""
        prefix = f"{COLLECTION}_{name}_"
        collection = f"{prefix}{epoch:04d}"
        gallery = cls(uri, projection, token=token, collection=collection, epoch=epoch)
        with gallery._reaching():
            for other in gallery._client.list_collections(timeout=CALL_S):
                if other.startswith(prefix) and other < collection:
                    gallery._client.drop_collection(other, timeout=CALL_S)
        return gallery

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Turns what Milvus refuses, or a lost connection, into MilvusUnavailable."""
        import grpc
        from pymilvus import MilvusException

        try:
            yield
        except MilvusException as error:
            raise MilvusUnavailable(f"Milvus at {self._uri}: {error.message}") from None
        except grpc.RpcError as error:
            raise MilvusUnavailable(f"Milvus at {self._uri} cannot be reached: {error.code().name}") from None

    def _create(self, index: str, params: dict[str, int]) -> None:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("template", DataType.INT64, is_primary=True)
        schema.add_field("person", DataType.INT64)
        schema.add_field("region", DataType.INT64)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self._projection.dimension)
        indexes = self._client.prepare_index_params()
        indexes.add_index("vector", index_type=index, metric_type="IP", params=params)
        # Strong: what is enrolled is found, and what is deleted is not, by whoever asks next on any node.
        self._client.create_collection(
            self._name, schema=schema, index_params=indexes, consistency_level="Strong", timeout=CALL_S
        )

    def add(self, enrolled: Enrolled) -> None:
        rotated = self._projection.rotate(enrolled.vectors)
        for start in range(0, len(rotated), INSERT_ROWS):
            part = slice(start, start + INSERT_ROWS)
            rows = [
                {"template": template, "person": person, "region": region, "vector": vector}
                for template, person, region, vector in zip(
                    enrolled.templates[part].tolist(),
                    enrolled.persons[part].tolist(),
                    enrolled.regions[part].tolist(),
                    rotated[part].tolist(),
                    strict=True,
                )
            ]
            with self._reaching():
                self._client.upsert(self._name, rows, timeout=CALL_S)

    def flush(self) -> None:
        """Seals growing segments, which are slower to search; after a bulk load."""
        with self._reaching():
            self._client.flush(self._name, timeout=CALL_S)

    def remove(self, templates: Sequence[int]) -> int:
        removed = 0
        with self._reaching():
            for start in range(0, len(templates), IDS_AT_ONCE):
                ids = list(templates[start : start + IDS_AT_ONCE])
                removed += len(self._client.get(self._name, ids=ids, output_fields=["template"], timeout=CALL_S))
                self._client.delete(self._name, ids=ids, timeout=CALL_S)
        return removed

    def search(self, batch: Batch) -> list[tuple[Candidate, ...]]:
        """The best persons for each query, also those with a score below the floor. Queries of one region are sent to
        Milvus together."""
        regions = np.zeros(len(batch.vectors), np.uint32) if batch.regions is None else batch.regions
        rotated = self._projection.rotate(batch.vectors)
        out: list[tuple[Candidate, ...]] = [()] * len(rotated)
        for region in np.unique(regions).tolist():
            members = np.flatnonzero(regions == region)
            for query, hits in zip(members.tolist(), self._hits(rotated[members], _of_region(region)), strict=True):
                out[query] = _persons(hits)
        return out

    def search_among(self, batch: Batch, templates: Sequence[int]) -> list[tuple[Candidate, ...]]:
        regions = np.zeros(len(batch.vectors), np.uint32) if batch.regions is None else batch.regions
        rotated = self._projection.rotate(batch.vectors)
        hits: list[list[Any]] = [[] for _ in rotated]
        for start in range(0, len(templates), IDS_AT_ONCE):
            among = f"template in {[int(one) for one in templates[start : start + IDS_AT_ONCE]]}"
            for query, region in enumerate(regions.tolist()):
                test = f"{among} and {_of_region(region)}" if region else among
                hits[query] += self._hits(rotated[query : query + 1], test)[0]
        return [_persons(one) for one in hits]

    def sample(self, count: int, random: np.random.Generator) -> tuple[Vectors, Ids]:
        """Templates drawn at random from the store of record, to which the gallery was made equal."""
        assert self._source is not None, "recovered first"
        ids = self._source.templates()
        chosen = np.sort(random.choice(ids, min(count, len(ids)), replace=False))
        drawn = self._source.load(chosen)
        return drawn.vectors, drawn.persons

    def recover(self, source: Source) -> Opened:
        self._source = source
        truth = source.templates()
        have = self._ids()
        stray = np.setdiff1d(have, truth, assume_unique=True)
        self.remove(stray.tolist())
        missing = np.setdiff1d(truth, have, assume_unique=True)
        for start in range(0, len(missing), LOAD_ROWS):
            self.add(source.load(missing[start : start + LOAD_ROWS]))
        if len(missing) >= LOAD_ROWS:
            self.flush()
        return Opened((), len(stray), len(missing))

    def maintain(self) -> int:
        """Nothing: Milvus compacts by itself."""
        return 0

    def state(self) -> State:
        return State(self._epoch)

    def __len__(self) -> int:
        with self._reaching():
            rows = self._client.query(self._name, filter="", output_fields=["count(*)"], timeout=CALL_S)
        return int(rows[0]["count(*)"])

    def close(self) -> None:
        """Ends the connection; the collection stays."""
        self._client.close()

    def destroy(self) -> None:
        with self._reaching():
            self._client.drop_collection(self._name, timeout=CALL_S)
        self.close()

    def _hits(self, rotated: Vectors, test: str) -> Any:
        with self._reaching():
            return self._client.search(
                self._name,
                data=rotated.tolist(),
                limit=PLACES * TEMPLATES_EXPECTED,
                filter=test,
                output_fields=["person"],
                search_params={"metric_type": "IP"},
                timeout=SEARCH_S,
            )

    def _ids(self) -> Ids:
        """Template ids in the collection, ascending."""
        out: list[int] = []
        with self._reaching():
            pages = self._client.query_iterator(
                self._name, batch_size=IDS_PAGE, output_fields=["template"], timeout=CALL_S
            )
            while page := pages.next():
                out += [int(row["template"]) for row in page]
            pages.close()
        return np.unique(np.array(out, np.int64))


def _of_region(region: int) -> str:
    return f"region == {region}" if region else ""


def _persons(hits: Any) -> tuple[Candidate, ...]:
    seen: dict[int, Candidate] = {}
    for hit in hits:
        person = int(hit["entity"]["person"])
        if person not in seen:
            seen[person] = Candidate(
                person, float(hit["distance"]), int(hit["template"] if "template" in hit else hit["id"])
            )
    return tuple(sorted(seen.values(), key=lambda one: -one.score)[:PLACES])
