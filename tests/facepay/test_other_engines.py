"""Proves: Milvus (on milvus-lite) and torch give the answers of the exact scan, through the same interface."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facepay.gallery.engine import Batch, Engine, Enrolled
from facepay.gallery.floats import FloatScan
from facepay.gallery.gpu import GpuScan, GpuUnavailable
from facepay.gallery.milvus import MilvusGallery, MilvusUnavailable
from facepay.gallery.sketch import Projection
from hutong_contract.secret import Secret

DIMENSION = 32


def open_milvus(folder: Path) -> Engine:
    pytest.importorskip("pymilvus", reason="pymilvus is not installed")
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    return MilvusGallery(str(folder / "faces.db"), Projection(Secret(b"m" * 32), DIMENSION))


def open_torch(_: Path) -> Engine:
    pytest.importorskip("torch", reason="torch is not installed: the GPU engine is tested on its CPU device")
    return GpuScan(DIMENSION, "cpu")


def open_cuda(_: Path) -> Engine:
    torch = pytest.importorskip("torch", reason="torch is not installed: the GPU engine needs it")
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    return GpuScan(DIMENSION)


def open_floats(_: Path) -> Engine:
    return FloatScan(DIMENSION)


@pytest.fixture(params=[open_milvus, open_torch, open_cuda, open_floats], ids=["milvus", "torch", "cuda", "floats"])
def engine(request: Any, tmp_path: Path) -> Iterator[Engine]:
    made = request.param(tmp_path)
    yield made
    made.close()


def people(count: int) -> Any:
    out = np.random.default_rng(1).standard_normal((count, DIMENSION))
    return (out / np.linalg.norm(out, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_enrol_search_regions_and_delete(engine: Engine) -> None:
    vectors = people(300)
    ids = np.arange(1, 301, dtype=np.int64)
    persons = (ids + 1) // 2
    regions = (ids % 2 + 1).astype(np.uint32)
    engine.add(Enrolled(ids, persons, regions, vectors))
    assert len(engine) == 300
    query = vectors[[10, 20]]
    floors = np.full(2, 0.5, np.float32)
    found = engine.search(Batch(query, floors))
    assert [one[0].template for one in found] == [11, 21]
    assert found[0][0].score == pytest.approx(1, abs=1e-3)
    assert len({candidate.person for candidate in found[0]}) == len(found[0])
    exact = (query @ vectors.T).max(axis=1)
    assert [one[0].score for one in found] == pytest.approx(exact.tolist(), abs=1e-3)
    other = engine.search(Batch(query, floors, np.array([1, 2], np.uint32)))
    assert other[0][0].template != 11
    assert other[1][0].template == 21
    assert engine.remove([11, 9999]) == 1
    assert len(engine) == 299
    assert all(one.template != 11 for one in engine.search(Batch(query, floors))[0])


def test_a_missing_gpu_says_what_to_do() -> None:
    try:
        import torch
    except ImportError:
        with pytest.raises(GpuUnavailable, match="torch"):
            GpuScan(DIMENSION)
        return
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(GpuUnavailable, match="CUDA"):
        GpuScan(DIMENSION)


def test_an_unreachable_milvus_says_so() -> None:
    pytest.importorskip("pymilvus", reason="pymilvus is not installed")
    with pytest.raises(MilvusUnavailable):
        MilvusGallery("/nowhere/at/all/faces.db", Projection(Secret(b"m" * 32), DIMENSION))
