"""The exact scan on a GPU, by torch: fp16 products over everything, scores taken again in float32.

Torch is imported when the engine is made, and is no dependency: `pip install torch` for your GPU first. It runs on
torch's CPU device as well, which is how it is tested where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from facepay.gallery.engine import PLACES, Batch, Candidate, Enrolled, Ids
from facepay.gallery.rows import Register

BLOCK_ROWS: Final = 1_048_576
"""Rows of one block on the device (1 GiB in fp16 at 512 dimensions); a batch makes a score matrix of 128 MiB."""
TEMPLATES_EXPECTED: Final = 4
"""Places asked for, for each person wanted: one person may have several templates."""


class GpuUnavailable(RuntimeError):  # noqa: N818 - it is what is wrong
    """Torch, or a device for it, is missing. The text says how to get it."""


class GpuScan:
    """facepay.gallery.engine.Engine on a torch device."""

    def __init__(self, dimension: int, device: str = "cuda") -> None:
        try:
            import torch
        except ImportError:
            raise GpuUnavailable("the GPU engine needs torch: see pytorch.org for the wheel of your driver") from None
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise GpuUnavailable("torch finds no CUDA device; `--engine sketch` needs none")
        self._torch: Any = torch
        self._device = device
        self._type = torch.float32 if device == "cpu" else torch.float16
        self._dimension = dimension
        self._register = Register()
        self._blocks: list[Any] = []
        self._alive: list[Any] = []
        self._regions: list[Any] = []
        self._filled = 0

    def add(self, enrolled: Enrolled) -> None:
        torch = self._torch
        with self._register.lock:
            done = 0
            while done < len(enrolled.templates):
                block, at = divmod(self._filled, BLOCK_ROWS)
                if block == len(self._blocks):
                    self._grow()
                take = min(BLOCK_ROWS - at, len(enrolled.templates) - done)
                part = slice(done, done + take)
                rows = torch.from_numpy(enrolled.vectors[part]).to(self._device, self._type)
                self._blocks[block][at : at + take] = rows
                regions = torch.from_numpy(enrolled.regions[part].astype(np.int32))
                self._regions[block][at : at + take] = regions.to(self._device)
                self._alive[block][at : at + take] = True
                done += take
                self._filled += take
            self._register.add(enrolled)

    def remove(self, templates: Sequence[int]) -> int:
        with self._register.lock:
            rows = self._register.remove(templates)
            for row in rows.tolist():
                block, at = divmod(row, BLOCK_ROWS)
                self._alive[block][at] = False
                self._blocks[block][at] = 0
            return len(rows)

    def search(self, batch: Batch) -> list[tuple[Candidate, ...]]:
        """The best persons for each query, also those with a score below the floor."""
        torch = self._torch
        queries = torch.from_numpy(np.ascontiguousarray(batch.vectors)).to(self._device)
        with self._register.lock:
            blocks = list(zip(self._blocks, self._alive, self._regions, strict=True))
        found: list[tuple[Ids, Any]] = []
        for number, (rows, alive, regions) in enumerate(blocks):
            scores = queries.to(self._type) @ rows.T
            mask = alive[None, :]
            if batch.regions is not None:
                wanted = torch.from_numpy(batch.regions.astype(np.int32)).to(self._device)[:, None]
                mask = mask & ((wanted == 0) | (regions[None, :] == wanted))
            scores = scores.masked_fill(~mask, -2)
            top = torch.topk(scores, min(PLACES * TEMPLATES_EXPECTED, scores.shape[1]), dim=1)
            exact = torch.einsum("qd,qkd->qk", queries, rows[top.indices].to(torch.float32))
            exact = exact.masked_fill(top.values <= -2, -2)
            found.append((top.indices.cpu().numpy() + number * BLOCK_ROWS, exact.cpu().numpy()))
        return [self._best(found, query) for query in range(len(batch.vectors))]

    def __len__(self) -> int:
        return len(self._register)

    def close(self) -> None:
        """Frees the device's memory."""
        self._blocks, self._alive, self._regions = [], [], []

    def _best(self, found: list[tuple[Ids, Any]], query: int) -> tuple[Candidate, ...]:
        if not found:
            return ()
        rows = np.concatenate([part[query] for part, _ in found])
        scores = np.concatenate([part[query] for _, part in found])
        good = scores > -2
        return self._register.best(rows[good], scores[good])

    def _grow(self) -> None:
        torch = self._torch
        shape = (BLOCK_ROWS, self._dimension)
        self._blocks.append(torch.zeros(shape, dtype=self._type, device=self._device))
        self._alive.append(torch.zeros(BLOCK_ROWS, dtype=torch.bool, device=self._device))
        self._regions.append(torch.zeros(BLOCK_ROWS, dtype=torch.int32, device=self._device))
