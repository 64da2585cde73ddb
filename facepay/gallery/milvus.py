"""The same gallery on Milvus, through pymilvus: for more machines than one. deploy/milvus.md says how to move.

Milvus sees rotated templates only (the epoch's secret stays here). The index is FLAT by default, which is exact;
other indexes are approximate and owe a recall certificate of their own (`hutong face bench --engine milvus`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from facepay.gallery.engine import PLACES, Batch, Candidate, Enrolled
from facepay.gallery.sketch import Projection

COLLECTION: Final = "hutong_faces"
INSERT_ROWS: Final = 1_000
"""Rows of one insert: 2 MB at 512 dimensions, far below the 64 MB that a message may have."""
TEMPLATES_EXPECTED: Final = 4
"""Places asked for, for each person wanted: one person may have several templates."""


class MilvusUnavailable(RuntimeError):  # noqa: N818 - it is what is wrong
    """pymilvus is not installed, or the server cannot be reached. The text says what to do."""


class MilvusGallery:
    """facepay.gallery.engine.Engine on a Milvus collection."""

    def __init__(
        self,
        uri: str,
        projection: Projection,
        *,
        token: str = "",
        collection: str = COLLECTION,
        index: str = "FLAT",
        index_params: dict[str, int] | None = None,
    ) -> None:
        """`uri` is a file path (milvus-lite) or http://host:19530; `token` is "user:password" or empty."""
        try:
            from pymilvus import MilvusClient, MilvusException
        except ImportError:
            raise MilvusUnavailable("install the extra: pip install 'hutong[milvus]'") from None
        self._projection = projection
        self._name = collection
        try:
            self._client: Any = MilvusClient(uri=uri, token=token) if token else MilvusClient(uri=uri)
            if not self._client.has_collection(collection):
                self._create(index, index_params or {})
            self._client.load_collection(collection)
        except MilvusException as error:
            raise MilvusUnavailable(f"Milvus at {uri}: {error.message}") from None

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
        self._client.create_collection(self._name, schema=schema, index_params=indexes, consistency_level="Strong")

    def add(self, enrolled: Enrolled) -> None:
        """See Engine."""
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
            self._client.upsert(self._name, rows)

    def flush(self) -> None:
        """Seals growing segments, which are slower to search; after a bulk load."""
        self._client.flush(self._name)

    def remove(self, templates: Sequence[int]) -> int:
        """See Engine."""
        ids = list(templates)
        there = self._client.get(self._name, ids=ids, output_fields=["template"])
        self._client.delete(self._name, ids=ids)
        return len(there)

    def search(self, batch: Batch) -> list[tuple[Candidate, ...]]:
        """See Engine; below the floor as well. Queries of one region go together."""
        rotated = self._projection.rotate(batch.vectors)
        regions = np.zeros(len(rotated), np.uint32) if batch.regions is None else batch.regions
        out: list[tuple[Candidate, ...]] = [()] * len(rotated)
        for region in np.unique(regions).tolist():
            members = np.flatnonzero(regions == region)
            found = self._client.search(
                self._name,
                data=rotated[members].tolist(),
                limit=PLACES * TEMPLATES_EXPECTED,
                filter=f"region == {region}" if region else "",
                output_fields=["person"],
                search_params={"metric_type": "IP"},
            )
            for query, hits in zip(members.tolist(), found, strict=True):
                out[query] = _persons(hits)
        return out

    def __len__(self) -> int:
        rows = self._client.query(self._name, filter="", output_fields=["count(*)"])
        return int(rows[0]["count(*)"])

    def close(self) -> None:
        """Ends the connection; the collection stays."""
        self._client.close()


def _persons(hits: Any) -> tuple[Candidate, ...]:
    seen: dict[int, Candidate] = {}
    for hit in hits:
        person = int(hit["entity"]["person"])
        if person not in seen:
            seen[person] = Candidate(
                person, float(hit["distance"]), int(hit["template"] if "template" in hit else hit["id"])
            )
    return tuple(sorted(seen.values(), key=lambda one: -one.score)[:PLACES])
