"""int8 matrix products by onnxruntime, for batches of queries that resemble nobody.

Sealed rows become constant weights of a tiny graph (u8 queries x s8 rows), which onnxruntime packs once for this
processor: several times as fast as weights passed at run time, and one more copy in memory. Products only choose
rows; scores are then taken exactly, like everywhere.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from facepay.gallery import kernels
from facepay.gallery.onnx_writer import matmul_model
from facepay.gallery.scan import ROW_LIMIT, Best, Prepared, Wide, on_all
from facepay.gallery.segment import Rows
from hutong_contract.extras import needs

with needs("faces"):
    import onnxruntime as ort


WEIGHT_ROWS: Final = 16_384
"""Rows of one graph: 8 MB of weights, which stay in the cache while a batch passes."""
QUERIES_MIN: Final = 8
"""Fewer vague queries are cheaper through their sketches."""
SLACK: Final = 0.01
"""Products are taken with rounded queries: six standard deviations of what that changes."""
_LEVELS: Final = 127
_ZERO: Final = 128


@dataclass(frozen=True, slots=True)
class _Weights:
    """Some rows of a segment as constant weights."""

    number: int
    """Which segment."""
    part: Rows
    start: int
    session: ort.InferenceSession | None
    """None for the tail, which changes: all of it is scored."""


class Products:
    """Packed weights of sealed segments, made when first needed and dropped with their segment."""

    def __init__(self, pool: ThreadPoolExecutor | None) -> None:
        self.enabled = False
        self._pool = pool
        self._lock = threading.Lock()
        self._packed: dict[int, tuple[Rows, list[ort.InferenceSession]]] = {}

    def wide(self, parts: tuple[Rows, ...]) -> Wide | None:
        """The function that searches vague queries over these parts; None where it is not enabled."""
        if not self.enabled:
            return None

        def run(prepared: Prepared, queries: NDArray[np.int64]) -> list[Best]:
            if len(queries) < QUERIES_MIN:
                return []
            weights = self._weights(parts)
            half = -(-len(weights) // 2) if self._pool else len(weights)
            shares = [share for share in (weights[:half], weights[half:]) if share]
            results = [Best.empty(len(prepared.vectors)) for _ in shares]
            work = [
                partial(_search, share, prepared, queries, best) for share, best in zip(shares, results, strict=True)
            ]
            on_all(self._pool, work)
            return results

        return run

    def close(self) -> None:
        """Frees the weights."""
        with self._lock:
            self._packed.clear()

    def _weights(self, parts: tuple[Rows, ...]) -> list[_Weights]:
        out: list[_Weights] = []
        with self._lock:
            sealed = {id(part) for part in parts if part.count == len(part.persons)}
            for gone in set(self._packed) - sealed:
                del self._packed[gone]
            for number, part in enumerate(parts):
                if id(part) not in sealed:
                    out.append(_Weights(number, part, 0, None))
                    continue
                if id(part) not in self._packed:
                    self._packed[id(part)] = (part, _pack(part))
                starts = range(0, part.count, WEIGHT_ROWS)
                pairs = zip(starts, self._packed[id(part)][1], strict=True)
                out += [_Weights(number, part, start, session) for start, session in pairs]
        return out


def _pack(part: Rows) -> list[ort.InferenceSession]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # Threads are ours: twenty pools that spin would starve each other.
    options.log_severity_level = 3
    return [
        ort.InferenceSession(
            matmul_model(np.ascontiguousarray(part.rows[start : start + WEIGHT_ROWS].T), _ZERO),
            options,
            providers=["CPUExecutionProvider"],
        )
        for start in range(0, part.count, WEIGHT_ROWS)
    ]


def _search(weights: list[_Weights], prepared: Prepared, queries: NDArray[np.int64], best: Best) -> None:
    vectors = prepared.vectors[queries]
    step = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-9) / _LEVELS
    rounded = (np.rint(vectors / step) + _ZERO).astype(np.uint8)
    chosen = np.empty(WEIGHT_ROWS, np.int32)
    for one in weights:
        if one.session is None:
            everything = np.arange(one.part.count, dtype=np.int32)
            for query in queries.tolist():
                _score(one, everything, prepared, query, best)
            continue
        products = one.session.run(None, {"queries": rounded})[0]
        rows = slice(one.start, one.start + products.shape[1])
        scales, persons = one.part.scales[rows], one.part.persons[rows]
        for index, query in enumerate(queries.tolist()):
            floor = (prepared.floors[query] - SLACK) / step[index, 0]
            found = kernels.above(products[index], scales, persons, floor, chosen)
            if found:
                _score(one, chosen[:found] + np.int32(one.start), prepared, query, best)


def _score(one: _Weights, chosen: NDArray[np.int32], prepared: Prepared, query: int, best: Best) -> None:
    kernels.score_rows(
        chosen,
        prepared.regions[query],
        prepared.vectors[query],
        one.part.rows,
        one.part.scales,
        one.part.persons,
        one.part.regions,
        (one.number + 1) * ROW_LIMIT,
        best.scores[query],
        best.people[query],
        best.places[query],
    )
