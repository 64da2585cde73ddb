"""Proves: search equals an exact float scan through inserts, deletes, sealing, merging and restarts, on isotropic and
clustered data; damage on disk is found, set aside and repaired; nobody deleted is ever found."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from facepay.gallery import files, segment
from facepay.gallery import gallery as gallery_module
from facepay.gallery.certificate import TIE
from facepay.gallery.engine import Batch, Engine, Enrolled
from facepay.gallery.floats import FloatScan
from facepay.gallery.gallery import Gallery
from facepay.gallery.instructions import GROUP_WORDS
from facepay.gallery.sketch import SIGMAS_FIRST, Projection, limits
from hutong_contract.secret import Secret

DIMENSION = 64
PROJECTION = Projection(Secret(b"p" * 32), DIMENSION)
FLOOR = 0.5


def vectors_of(count: int, seed: int, clusters: int = 0, dimension: int = DIMENSION) -> Any:
    """Unit vectors: isotropic, or tightly around a few centres."""
    random = np.random.default_rng(seed)
    out = random.standard_normal((count, dimension))
    if clusters:
        centres = np.random.default_rng(99).standard_normal((clusters, dimension)) * 2.0
        out = out * 0.7 + centres[random.integers(0, clusters, count)]
    return (out / np.linalg.norm(out, axis=1, keepdims=True)).astype(np.float32)


class Truth:
    """A source that keeps vectors plainly."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[int, int, Any]] = {}

    def templates(self) -> Any:
        return np.array(sorted(self.rows), np.int64)

    def load(self, templates: Any) -> Enrolled:
        rows = [self.rows[int(one)] for one in templates]
        return Enrolled(
            np.asarray(templates, np.int64),
            np.array([person for person, _, _ in rows], np.int64),
            np.array([region for _, region, _ in rows], np.uint32),
            np.stack([vector for _, _, vector in rows]),
        )


def same(engine: Engine, truth: Truth, queries: Any, regions: Any = None) -> None:
    """The engine's first answer is the exact scan's wherever that reaches the floor, but for ties."""
    exact = FloatScan(queries.shape[1])
    if truth.rows:
        exact.add(truth.load(truth.templates()))
    batch = Batch(queries, np.full(len(queries), FLOOR, np.float32), regions)
    for found, expected in zip(engine.search(batch), exact.search(batch), strict=True):
        living = {person for person, _, _ in truth.rows.values()}
        assert all(one.person in living for one in found), "somebody deleted was found"
        if not expected or expected[0].score < FLOOR:
            continue
        assert found, "nobody found, though somebody is above the floor"
        near = [one.person for one in expected if expected[0].score - one.score < TIE]
        assert found[0].person in near
        assert abs(found[0].score - expected[0].score) < TIE


class Changes(RuleBasedStateMachine):
    """Random histories of one gallery on disk."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.truth = Truth()
        self.next_template = 1
        self.next_person = 1
        self.clusters = 0
        self.gallery = Gallery(Path(self.folder.name), PROJECTION, threads=1)
        self.gallery.recover(self.truth)

    @initialize(clusters=st.sampled_from([0, 5]))
    def data(self, clusters: int) -> None:
        self.clusters = clusters

    @rule(count=st.integers(1, 120), seed=st.integers(0, 1000), per_person=st.integers(1, 3))
    def enrol(self, count: int, seed: int, per_person: int) -> None:
        vectors = vectors_of(count, seed, self.clusters)
        ids = np.arange(self.next_template, self.next_template + count, dtype=np.int64)
        persons = self.next_person + np.arange(count, dtype=np.int64) // per_person
        regions = (ids % 3).astype(np.uint32)
        for template, person, region, vector in zip(ids, persons, regions, vectors, strict=True):
            self.truth.rows[int(template)] = (int(person), int(region), vector)
        self.next_template += count
        self.next_person = int(persons[-1]) + 1
        self.gallery.add(Enrolled(ids, persons, regions, vectors))

    @rule(share=st.floats(0.05, 1.0), seed=st.integers(0, 1000))
    def delete(self, share: float, seed: int) -> None:
        ids = self.truth.templates()
        chosen = ids[np.random.default_rng(seed).random(len(ids)) < share].tolist()
        assert self.gallery.remove(chosen) == len(chosen)
        for one in chosen:
            del self.truth.rows[one]

    @rule()
    def seal(self) -> None:
        self.gallery.seal()

    @rule()
    def merge(self) -> None:
        while self.gallery.maintain():
            pass

    @rule()
    def restart(self) -> None:
        self.gallery.close()
        self.gallery = Gallery(Path(self.folder.name), PROJECTION, threads=1)
        assert not self.gallery.recover(self.truth).quarantined

    @rule()
    def crash_before_the_gallery_heard(self) -> None:
        """The store knows one more and one fewer than the gallery's files do."""
        self.gallery.close()
        if self.truth.rows:
            del self.truth.rows[int(self.truth.templates()[0])]
        vector = vectors_of(1, self.next_template, self.clusters)[0]
        self.truth.rows[self.next_template] = (self.next_person, 0, vector)
        self.next_template, self.next_person = self.next_template + 1, self.next_person + 1
        self.gallery = Gallery(Path(self.folder.name), PROJECTION, threads=1)
        self.gallery.recover(self.truth)

    @invariant()
    def equals_the_exact_scan(self) -> None:
        assert len(self.gallery) == len(self.truth.rows)
        queries = vectors_of(6, self.next_template, self.clusters)
        ids = self.truth.templates()[-4:]
        if len(ids):
            near = self.truth.load(ids).vectors + 0.3 * vectors_of(len(ids), 5)
            queries = np.concatenate([queries, near / np.linalg.norm(near, axis=1, keepdims=True)]).astype(np.float32)
        same(self.gallery, self.truth, queries)
        same_regions = (np.arange(len(queries)) % 3).astype(np.uint32)
        found = self.gallery.search(Batch(queries, np.full(len(queries), FLOOR, np.float32), same_regions))
        for region, candidates in zip(same_regions.tolist(), found, strict=True):
            for one in candidates:
                assert region in (0, self.truth.rows[one.template][1])

    def teardown(self) -> None:
        self.gallery.close()
        self.folder.cleanup()


TestChanges = Changes.TestCase
TestChanges.settings = settings(max_examples=12, stateful_step_count=18, deadline=None)


@pytest.fixture(params=[0, 5], ids=["isotropic", "clustered"])
def filled(request: Any, tmp_path: Path) -> Any:
    """3,000 templates in several segments and a tail, and the truth about them."""
    truth = Truth()
    gallery = Gallery(tmp_path, PROJECTION)
    for start in range(0, 3000, 600):
        ids = np.arange(start + 1, start + 601, dtype=np.int64)
        vectors = vectors_of(600, start, request.param)
        truth.rows |= {int(one): (int(one), 0, vector) for one, vector in zip(ids, vectors, strict=True)}
        gallery.add(Enrolled(ids, ids, np.zeros(600, np.uint32), vectors))
        if start < 2400:
            gallery.seal()
    yield gallery, truth, tmp_path
    gallery.close()


def probes(truth: Truth, count: int, noise: float) -> Any:
    ids = np.random.default_rng(3).choice(truth.templates(), count)
    near = truth.load(ids).vectors + noise * vectors_of(count, 8)
    return (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)


def test_two_stage_search_equals_the_exact_scan(filled: Any) -> None:
    gallery, truth, _ = filled
    for noise in (0.1, 0.6, 1.2):
        for part in np.split(probes(truth, 256, noise), 4):
            same(gallery, truth, part)


def test_int8_products_equal_the_exact_scan(filled: Any) -> None:
    gallery, truth, _ = filled
    gallery.use_products(True)
    for noise in (0.6, 3.0):
        for part in np.split(probes(truth, 256, noise), 4):
            same(gallery, truth, part)
    gallery.remove([int(truth.templates()[0])])
    del truth.rows[int(truth.templates()[0])]
    same(gallery, truth, probes(truth, 64, 0.5))


@pytest.mark.parametrize("dimension", [8, 128, 512, 640])
def test_other_dimensions(dimension: int) -> None:
    gallery = Gallery(None, Projection(Secret(b"q" * 32), dimension))
    truth = Truth()
    vectors = vectors_of(500, 1, dimension=dimension)
    ids = np.arange(1, 501, dtype=np.int64)
    truth.rows = {int(one): (int(one), 0, vector) for one, vector in zip(ids, vectors, strict=True)}
    gallery.add(Enrolled(ids, ids, np.zeros(500, np.uint32), vectors))
    same(gallery, truth, vectors[:64])
    gallery.close()


def test_damaged_segment_is_set_aside_and_rebuilt(filled: Any) -> None:
    gallery, truth, folder = filled
    gallery.close()
    files = sorted(folder.glob("*.hgs"))
    whole = files[1].read_bytes()
    files[1].write_bytes(whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :])
    files[2].write_bytes(whole[:1000])
    files[0].unlink()
    again = Gallery(folder, PROJECTION)
    opened = again.recover(truth)
    assert set(opened.quarantined) == {files[0].name, files[1].name, files[2].name}
    assert {path.name for path in (folder / "quarantine").iterdir()} == {files[1].name, files[2].name}
    assert len(again) == 3000
    same(again, truth, probes(truth, 64, 0.3))
    again.close()


def test_any_flipped_byte_of_a_segment_is_noticed(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path, PROJECTION)
    ids = np.arange(1, 101, dtype=np.int64)
    gallery.add(Enrolled(ids, ids, np.zeros(100, np.uint32), vectors_of(100, 1)))
    gallery.seal()
    gallery.close()
    file = next(tmp_path.glob("*.hgs"))
    whole = file.read_bytes()
    header = 32
    places = [*range(header), *np.random.default_rng(1).integers(segment.PAGE_BYTES, len(whole), 60).tolist()]
    for place in places:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with pytest.raises(segment.SegmentDamaged):
            segment.open_file(file, DIMENSION, PROJECTION.words)
    file.write_bytes(whole)
    segment.open_file(file, DIMENSION, PROJECTION.words)


def test_deleted_rows_are_zeros_on_disk_and_the_file_still_checks(filled: Any) -> None:
    gallery, _truth, folder = filled
    gallery.remove([5, 700])
    gallery.close()
    for name in sorted(folder.glob("*.hgs"))[:2]:
        rows = segment.open_file(name, DIMENSION, PROJECTION.words)
        row = rows.find(5) if rows.find(5) >= 0 else rows.find(700)
        assert rows.dead == 1
        assert not rows.rows[row].any()
        assert not rows.fine[row].any()


def test_merging_keeps_what_is_deleted_meanwhile_deleted(filled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, truth, _ = filled
    monkeypatch.setattr(files, "SMALL_SEGMENTS_MAX", 2)
    build = gallery._files.build

    def deleting(sources: Any) -> Any:
        out = build(sources)
        gallery.remove([7])
        return out

    monkeypatch.setattr(gallery._files, "build", deleting)
    assert gallery.maintain() >= 2
    del truth.rows[7]
    query = vectors_of(600, 0)[6:7]
    assert all(one.person != 7 for one in gallery.search(Batch(query, np.array([0.0], np.float32)))[0])
    assert len(gallery) == 2999
    same(gallery, truth, probes(truth, 64, 0.3))


def test_enrolment_is_visible_at_once_while_the_tail_is_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "TAIL_ROWS", 64)
    gallery = Gallery(tmp_path, PROJECTION)
    vectors = vectors_of(200, 4)
    for number, vector in enumerate(vectors):
        one = np.array([number + 1], np.int64)
        gallery.add(Enrolled(one, one, np.zeros(1, np.uint32), vector[None]))
        found = gallery.search(Batch(vector[None], np.array([0.9], np.float32)))[0]
        assert found[0].person == number + 1
    assert gallery.state().segments == 3
    gallery.close()


@pytest.mark.slow
def test_sketch_distances_stay_within_their_limits_on_any_data() -> None:
    projection = Projection(Secret(b"s" * 32), 512)
    for clusters in (0, 3):
        first = vectors_of(4000, 1, clusters, 512)
        second = first + np.random.default_rng(2).uniform(0.2, 1.5, (4000, 1)) * vectors_of(4000, 3, 0, 512)
        second = (second / np.linalg.norm(second, axis=1, keepdims=True)).astype(np.float32)
        cosine = np.einsum("ij,ij->i", first, second).astype(np.float32)
        (one_rotated, one), (two_rotated, two) = projection.query(first), projection.query(second)
        assert np.allclose(one_rotated, projection.rotate(first), atol=1e-5)
        half = np.bitwise_count(one[:, :GROUP_WORDS] ^ two[:, :GROUP_WORDS]).sum(axis=1)
        coarse = np.bitwise_count(one ^ two).sum(axis=1)
        fine = projection.fine_query(one_rotated) ^ projection.fine_query(two_rotated)
        both = coarse + np.bitwise_count(fine).sum(axis=1)
        assert (half > limits(cosine, GROUP_WORDS * 64, SIGMAS_FIRST)).mean() < 1e-3
        assert (coarse > limits(cosine, 512)).mean() < 2e-3
        assert (both > limits(cosine, 1024)).mean() < 2e-3
        assert (coarse > limits(cosine, 512, 2.0)).mean() > 1e-3, "the limit would be idle"


def test_rotation_keeps_cosines_and_epochs_do_not_match() -> None:
    vectors = vectors_of(50, 1)
    other = Projection(Secret(b"r" * 32), DIMENSION)
    rotated = PROJECTION.rotate(vectors)
    assert np.allclose(rotated @ rotated.T, vectors @ vectors.T, atol=1e-5)
    assert np.allclose(PROJECTION.unrotate(rotated), vectors, atol=1e-5)
    assert np.abs(np.einsum("ij,ij->i", rotated, other.rotate(vectors))).max() < 0.7


def test_a_template_that_cannot_be_read_does_not_stop_a_rebuild(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery_module, "LOAD_ROWS", 100)

    class Leaky(Truth):
        def load(self, templates: Any) -> Enrolled:
            """Without multiples of 7: their rows do not decrypt."""
            return super().load([one for one in templates if one % 7])

    truth = Leaky()
    truth.rows = {number + 1: (number + 1, 0, vector) for number, vector in enumerate(vectors_of(350, 6))}
    gallery = Gallery(tmp_path, PROJECTION)
    gallery.recover(truth)
    assert len(gallery) == 300
    readable = Truth()
    readable.rows = {one: row for one, row in truth.rows.items() if one % 7}
    same(gallery, readable, probes(readable, 64, 0.3))
    gallery.seal()
    assert gallery.remove([8]) == 1
    gallery.close()
    again = Gallery(tmp_path, PROJECTION)
    assert again.recover(readable).added == 1
    again.close()
