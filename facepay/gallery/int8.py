"""int8 matrix products by onnxruntime, for batches of queries that resemble nobody.

Sealed rows become constant weights of a tiny graph (u8 queries x s8 rows), which onnxruntime packs once for this
processor: several times as fast as weights passed at run time, and one more copy in memory. Products only choose
rows; scores are then taken exactly, like everywhere.
"""

from __future__ import annotations

import threading
from typing import Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from facepay.gallery import kernels
from facepay.gallery.onnx_writer import matmul_model
from facepay.gallery.scan import ROW_LIMIT, Best, Prepared, Wide
from facepay.gallery.segment import Rows

WEIGHT_ROWS: Final = 16_384
"""Rows of one graph: 8 MB of weights, which stay in the cache while a batch passes."""
QUERIES_MIN: Final = 8
"""Fewer vague queries are cheaper through their sketches."""
SLACK: Final = 0.01
"""Products are taken with rounded queries: six standard deviations of what that changes."""
_LEVELS: Final = 127
_ZERO: Final = 128


class Products:
    """Packed weights of sealed segments, made when first needed and dropped with their segment."""

    def __init__(self, threads: int) -> None:
        self.enabled = False
        self._threads = threads
        self._lock = threading.Lock()
        self._packed: dict[int, tuple[Rows, list[ort.InferenceSession]]] = {}

    def wide(self, parts: tuple[Rows, ...]) -> Wide | None:
        """The function that searches vague queries over these parts; None where it is not enabled."""
        if not self.enabled:
            return None

        def run(prepared: Prepared, queries: NDArray[np.int64], best: Best) -> bool:
            if len(queries) < QUERIES_MIN:
                return False
            self._search(parts, prepared, queries, best)
            return True

        return run

    def close(self) -> None:
        """Frees the weights."""
        with self._lock:
            self._packed.clear()

    def _sessions(self, parts: tuple[Rows, ...]) -> list[list[ort.InferenceSession]]:
        with self._lock:
            current = {id(part) for part in parts if part.path or part.count == len(part.persons)}
            for gone in set(self._packed) - current:
                del self._packed[gone]
            for part in parts:
                if id(part) in current and id(part) not in self._packed:
                    self._packed[id(part)] = (part, self._pack(part))
            return [self._packed[id(part)][1] if id(part) in current else [] for part in parts]

    def _pack(self, part: Rows) -> list[ort.InferenceSession]:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        return [
            ort.InferenceSession(
                matmul_model(np.ascontiguousarray(part.rows[start : start + WEIGHT_ROWS].T), _ZERO),
                options,
                providers=["CPUExecutionProvider"],
            )
            for start in range(0, part.count, WEIGHT_ROWS)
        ]

    def _search(self, parts: tuple[Rows, ...], prepared: Prepared, queries: NDArray[np.int64], best: Best) -> None:
        vectors = prepared.vectors[queries]
        step = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-9) / _LEVELS
        rounded = (np.rint(vectors / step) + _ZERO).astype(np.uint8)
        chosen = np.empty(max(part.count for part in parts), np.int32)
        for number, (part, sessions) in enumerate(zip(parts, self._sessions(parts), strict=True)):
            starts = range(0, part.count, WEIGHT_ROWS)
            for start, session in zip(starts, sessions, strict=True) if sessions else ():
                products = session.run(None, {"queries": rounded})[0]
                stop = start + products.shape[1]
                for index, query in enumerate(queries.tolist()):
                    floor = (prepared.floors[query] - SLACK) / step[index, 0]
                    found = kernels.above(
                        products[index], part.scales[start:stop], part.persons[start:stop], floor, chosen
                    )
                    self._score(part, number, chosen[:found] + start, prepared, query, best)
            if not sessions:  # The tail is no constant: all of it is scored.
                everything = np.arange(part.count, dtype=np.int32)
                for query in queries.tolist():
                    self._score(part, number, everything, prepared, query, best)

    @staticmethod
    def _score(part: Rows, number: int, chosen: NDArray[np.int32], prepared: Prepared, query: int, best: Best) -> None:
        if len(chosen):
            kernels.score_rows(
                chosen,
                prepared.regions[query],
                prepared.vectors[query],
                part.rows,
                part.scales,
                part.persons,
                part.regions,
                (number + 1) * ROW_LIMIT,
                best.scores[query],
                best.people[query],
                best.places[query],
            )
