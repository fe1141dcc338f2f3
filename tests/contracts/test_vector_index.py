"""What every kind of vector index must do, checked against a slow loop and hand-worked cases."""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmsearch.errors import DamagedError, UsageError
from mmsearch.vectors import flat
from mmsearch.vectors.generations import INDEXES
from mmsearch.vectors.protocol import VectorIndex
from mmsearch.vectors.rows import Chunk, positions_of

Build = Callable[..., VectorIndex]
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads the maps that Linux shows under /proc")


@pytest.fixture(params=sorted(INDEXES))
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def build(kind: str, tmp_path: Path) -> Build:
    def build(chunks: Sequence[Chunk], dimension: int) -> VectorIndex:
        path = tmp_path / f"index-{len(list(tmp_path.iterdir()))}"
        INDEXES[kind].build(iter(chunks), path, dimension)
        return INDEXES[kind].open(path)

    return build


def unit_rows(rng: np.random.Generator, count: int, dimension: int) -> NDArray[np.float32]:
    rows = rng.standard_normal((count, dimension)).astype(np.float32)
    unit: NDArray[np.float32] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return unit


def sample(rng: np.random.Generator, count: int, dimension: int) -> Chunk:
    """Rows with ids that leave gaps."""
    return np.cumsum(rng.integers(1, 4, count)), unit_rows(rng, count, dimension).astype(np.float16)


def cut(chunk: Chunk, size: int) -> list[Chunk]:
    ids, rows = chunk
    return [(ids[start : start + size], rows[start : start + size]) for start in range(0, len(ids), size)]


def loop_scores(query: NDArray[np.float32], ids: NDArray[np.int64], rows: NDArray[np.float16]) -> dict[int, float]:
    """The slow, independent answer: id -> inner product, by Python's own arithmetic."""
    numbers = [float(value) for value in query]
    return {
        int(id_): math.fsum(a * float(b) for a, b in zip(numbers, row, strict=True))
        for id_, row in zip(ids, rows, strict=True)
    }


def assert_right(
    result: tuple[NDArray[np.float32], NDArray[np.int64]],
    queries: NDArray[np.float32],
    chunk: Chunk,
    k: int,
    allowed: NDArray[np.int64] | None = None,
) -> None:
    """The result is the best min(k, matches) of each query; which of equal ones is kept is left open."""
    scores, found = result
    confined = None if allowed is None else set(allowed.tolist())
    assert scores.dtype == np.float32
    assert found.dtype == np.int64
    for query, its_scores, its_ids in zip(queries, scores, found, strict=True):
        truth = {i: s for i, s in loop_scores(query, *chunk).items() if confined is None or i in confined}
        best = sorted(truth.values(), reverse=True)[:k]
        assert len(its_ids) == len(its_scores) == len(best)
        assert len(set(its_ids.tolist())) == len(its_ids)
        np.testing.assert_allclose(its_scores, best, atol=1e-5)
        np.testing.assert_allclose(its_scores, [truth[i] for i in its_ids.tolist()], atol=1e-5)
        order = [(-score, i) for score, i in zip(its_scores.tolist(), its_ids.tolist(), strict=True)]
        assert order == sorted(order)


def test_hand_worked(build: Build) -> None:
    rows = np.array([[1, 0], [0, 1], [0.5, 0.5], [-1, 0]], np.float16)
    index = build([(np.array([2, 3, 5, 9]), rows)], 2)
    scores, ids = index.search(np.array([[1, 0], [0, 2]], np.float32), 3)
    assert ids.tolist() == [[2, 5, 3], [3, 5, 2]]
    assert scores.tolist() == [[1, 0.5, 0], [2, 1, 0]]
    scores, ids = index.search(np.array([[-1, 0]], np.float32), 10, np.array([1, 3, 5, 9, 70]))
    assert ids.tolist() == [[9, 3, 5]]
    assert scores.tolist() == [[1, 0, -0.5]]
    assert len(index) == 4


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_agrees_with_a_slow_loop_and_with_the_oracle(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    dimension = data.draw(st.sampled_from([1, 2, 7, 8, 16, 33]))
    count = data.draw(st.integers(0, 120))
    ids, rows = sample(rng, count, dimension)
    if count and data.draw(st.booleans()):  # equal rows, and rows that differ in the last bit
        rows = rows[rng.integers(0, max(1, count // 4), count)]
        rows = np.where(rng.random(rows.shape) < 0.02, np.nextafter(rows, np.float16(0)), rows)
    queries = unit_rows(rng, data.draw(st.integers(0, 3)), dimension)
    k = data.draw(st.integers(1, 150))
    allowed = None
    if data.draw(st.booleans()):
        share = data.draw(st.sampled_from([0.0, 0.02, 0.3, 0.9, 1.0]))
        allowed = np.flatnonzero(rng.random(3 * count + 10) < share)
    chunks = cut((ids, rows), data.draw(st.integers(1, 50)))
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(flat, "SEGMENT_ROWS", data.draw(st.sampled_from([5, 40, 1000]))),
        mock.patch.object(flat, "GATHER_SHARE", data.draw(st.sampled_from([0.0, 0.04, 0.5]))),
    ):
        results = []
        for kind, index in INDEXES.items():
            index.build(chunks, Path(folder, kind), dimension)
            results.append(index.open(Path(folder, kind)).search(queries, k, allowed))
            assert_right(results[-1], queries, (ids, rows), k, allowed)
    np.testing.assert_allclose(results[0][0], results[1][0], atol=1e-5)


def test_any_number_of_allowed_ids(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "SEGMENT_ROWS", 30)
    rng = np.random.default_rng(1)
    chunk = sample(rng, 75, 16)
    index = build(cut(chunk, 20), 16)
    queries = unit_rows(rng, 2, 16)
    for count in range(76):
        allowed = np.sort(rng.choice(chunk[0], count, replace=False))
        assert_right(index.search(queries, 10, allowed), queries, chunk, 10, allowed)


def test_chunks_and_segments_do_not_show(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    chunk = sample(rng, 100, 24)
    query = unit_rows(rng, 1, 24)
    expected = None
    for number, (rows_a_chunk, rows_a_segment) in enumerate([(100, 1000), (1, 1000), (33, 10), (100, 50), (7, 100)]):
        monkeypatch.setattr(flat, "SEGMENT_ROWS", rows_a_segment)
        INDEXES[kind].build(cut(chunk, rows_a_chunk), tmp_path / str(number), 24)
        scores, ids = INDEXES[kind].open(tmp_path / str(number)).search(query, 100)
        if expected is None:
            expected = scores, ids
        assert np.array_equal(ids, expected[1])
        np.testing.assert_allclose(scores, expected[0], atol=1e-6)


def test_flat_writes_segments_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "SEGMENT_ROWS", 30)
    flat.FlatIndex.build(cut(sample(np.random.default_rng(0), 100, 8), 47), tmp_path / "index", 8)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "index").iterdir()}
    header = sizes["segment-00003.faiss"] - 10 * 16
    assert 0 < header < 200
    assert sizes == {f"segment-{n:05}.faiss": header + rows * 16 for n, rows in enumerate([30, 30, 30, 10])} | {
        "ids.npy": 128 + 800
    }


def test_equal_rows_come_by_id(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "SEGMENT_ROWS", 16)
    rng = np.random.default_rng(3)
    rows = np.repeat(unit_rows(rng, 1, 40).astype(np.float16), 50, axis=0)
    index = build([(np.arange(100, 150), rows)], 40)
    query = rows[:1].astype(np.float32)
    assert index.search(query, 50)[1].tolist() == [list(range(100, 150))]
    first = index.search(query, 7)
    for _ in range(3):
        assert np.array_equal(index.search(query, 7)[1], first[1])


def test_every_row_finds_itself_first(build: Build) -> None:
    rng = np.random.default_rng(4)
    ids, rows = sample(rng, 300, 32)
    found = build([(ids, rows)], 32).search(rows.astype(np.float32), 1)[1]
    assert np.array_equal(found[:, 0], ids)


def test_rows_come_back_bit_for_bit(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "SEGMENT_ROWS", 40)
    rng = np.random.default_rng(5)
    bits = rng.integers(0, 2**16, (100, 12), dtype=np.uint16)
    bits[(bits & 0x7C00) == 0x7C00] = 0x8000  # infinities and what is no number become -0
    bits[0, :4] = [0x0001, 0x83FF, 0x7BFF, 0x8000]  # smallest, largest subnormal, largest, minus zero
    ids = np.arange(0, 300, 3)
    index = build(cut((ids, bits.view(np.float16)), 33), 12)
    asked = rng.integers(0, 100, 250)
    assert np.array_equal(index.vectors(ids[asked]).view(np.uint16), bits[asked])
    assert index.vectors(np.array([], np.int64)).shape == (0, 12)
    for absent in (-1, 1, 298, 1000):
        with pytest.raises(UsageError, match="does not hold"):
            index.vectors(np.array([0, absent]))


def test_no_rows_is_an_index(build: Build) -> None:
    for chunks in ([], [(np.empty(0, np.int64), np.empty((0, 6), np.float16))]):
        index = build(chunks, 6)
        assert len(index) == 0
        for allowed in (None, np.array([1, 2])):
            scores, ids = index.search(np.ones((3, 6), np.float32), 5, allowed)
            assert scores.shape == ids.shape == (3, 0)
        assert index.vectors(np.empty(0, np.int64)).shape == (0, 6)
        with pytest.raises(UsageError, match="does not hold"):
            index.vectors(np.array([1]))


def test_nothing_allowed_and_nothing_asked(build: Build) -> None:
    index = build([sample(np.random.default_rng(6), 20, 6)], 6)
    queries = np.ones((3, 6), np.float32)
    for allowed in ([], [-5, 0], [1000, 2000]):
        scores, ids = index.search(queries, 5, np.array(allowed, np.int64))
        assert scores.shape == ids.shape == (3, 0)
    scores, ids = index.search(queries[:0], 5)
    assert scores.shape == ids.shape == (0, 5)


def test_builds_refuse_what_does_not_fit(kind: str, tmp_path: Path) -> None:
    rows = np.ones((3, 4), np.float16)
    wrong: list[tuple[list[Chunk], str]] = [
        ([(np.array([1, 3, 3]), rows)], "ascend"),
        ([(np.array([2, 1, 3]), rows)], "ascend"),
        ([(np.array([1, 2, 3]), rows), (np.array([3, 4, 5]), rows)], "ascend"),
        ([(np.array([1, 2]), rows)], "shape|ids"),
        ([(np.array([1, 2, 3]), rows[:, :3])], "ids"),
        ([(np.array([1, 2, 3]), rows.astype(np.float32))], "float32"),
    ]
    for number, (chunks, message) in enumerate(wrong):
        with pytest.raises(UsageError, match=message):
            INDEXES[kind].build(chunks, tmp_path / str(number), 4)


def test_searches_refuse_what_does_not_fit(build: Build) -> None:
    index = build([sample(np.random.default_rng(7), 5, 4)], 4)
    with pytest.raises(UsageError, match="at least 1"):
        index.search(np.ones((1, 4), np.float32), 0)
    with pytest.raises(UsageError, match="shape"):
        index.search(np.ones((1, 5), np.float32), 1)
    with pytest.raises(UsageError, match="shape"):
        index.search(np.ones(4, np.float32), 1)
    with pytest.raises(UsageError, match="finite"):
        index.search(np.array([[1, 0, np.nan, 0]], np.float32), 1)


def test_other_memory_layouts(build: Build) -> None:
    rng = np.random.default_rng(8)
    ids, rows = sample(rng, 60, 10)
    index = build([(ids[::2], np.asfortranarray(rows)[::2])], 10)
    queries = np.asfortranarray(unit_rows(rng, 4, 10))
    assert_right(index.search(queries, 5), queries, (ids[::2], rows[::2]), 5)


def test_searches_from_many_threads(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "SEGMENT_ROWS", 700)
    rng = np.random.default_rng(9)
    ids, rows = sample(rng, 3000, 48)
    index = build([(ids, rows)], 48)
    queries = unit_rows(rng, 160, 48)
    allowed = [None, *(np.sort(rng.choice(ids, count, replace=False)) for count in (3, 60, 1500))]

    def search(number: int) -> tuple[list[list[float]], list[list[int]], NDArray[np.float16]]:
        scores, found = index.search(queries[number : number + 1], 10, allowed[number % 4])
        return scores.tolist(), found.tolist(), index.vectors(found[0])

    serial = [search(number) for number in range(160)]
    with ThreadPoolExecutor(8) as pool:
        for mine, other in zip(serial, pool.map(search, range(160)), strict=True):
            assert mine[:2] == other[:2]
            assert np.array_equal(mine[2], other[2])


def test_a_search_leaves_the_number_of_threads_alone(tmp_path: Path) -> None:
    import faiss

    flat.FlatIndex.build([sample(np.random.default_rng(10), 50, 8)], tmp_path / "index", 8)
    index = flat.FlatIndex.open(tmp_path / "index")
    seen: list[int] = []
    inner = index._search_segment

    def watch(*arguments: object) -> object:
        seen.append(faiss.omp_get_max_threads())
        return inner(*arguments)  # type: ignore[arg-type]

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)
    try:
        with mock.patch.object(index, "_search_segment", watch):
            index.search(np.ones((1, 8), np.float32), 5)
            index.search(np.ones((2, 8), np.float32), 5)
        assert seen == [1, 3]
        assert faiss.omp_get_max_threads() == 3
        with pytest.raises(UsageError):
            index.search(np.ones((1, 9), np.float32), 5)
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)


def test_finding_positions_agrees_with_numpy_sets() -> None:
    rng = np.random.default_rng(11)
    for count, span in [(1, 1), (50, 60), (50, 700), (50, 10_000), (400, 1000)]:
        ids = np.sort(rng.choice(span, count, replace=False)) + 7
        for wanted_count in (0, 1, 2, 3, 20, 300):
            wanted = np.unique(rng.integers(-20, span + 40, wanted_count))
            assert np.array_equal(positions_of(ids, wanted), np.flatnonzero(np.isin(ids, wanted)))


@only_linux
def test_flat_maps_its_rows_instead_of_loading_them(tmp_path: Path) -> None:
    def anonymous_bytes() -> int:
        lines = Path("/proc/self/smaps").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) * 1024

    rows = np.ones((30_000, 512), np.float16)  # 31 MB
    flat.FlatIndex.build([(np.arange(len(rows)), rows)], tmp_path / "index", 512)
    before = anonymous_bytes()
    index = flat.FlatIndex.open(tmp_path / "index")
    index.search(np.ones((1, 512), np.float32), 10)
    index.search(np.ones((1, 512), np.float32), 10, np.arange(0, 30_000, 2))
    assert str(tmp_path / "index" / "segment-00000.faiss") in Path("/proc/self/maps").read_text()
    assert anonymous_bytes() - before < 4_000_000


@only_linux
def test_a_build_holds_one_segment_in_memory(tmp_path: Path) -> None:
    script = """
        import resource, sys
        from pathlib import Path
        import faiss, numpy as np
        from mmsearch.vectors import flat
        flat.SEGMENT_ROWS = 4096  # 6.3 MB
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        flat.FlatIndex.build([], Path(sys.argv[1], "empty"), 768)
        before = peak()
        rows = ((np.arange(start, start + 500), np.ones((500, 768), np.float16)) for start in range(0, 60_000, 500))
        flat.FlatIndex.build(rows, Path(sys.argv[1], "index"), 768)
        print(peak() - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert (tmp_path / "index" / "segment-00014.faiss").exists()  # 92 MB in all
    assert grown < 25


def test_opening_something_else_is_damage(kind: str, tmp_path: Path) -> None:
    import faiss

    def fresh() -> Path:
        path = tmp_path / str(len(list(tmp_path.iterdir())))
        INDEXES[kind].build([sample(np.random.default_rng(12), 20, 8)], path, 8)
        return path

    with pytest.raises(DamagedError):
        INDEXES[kind].open(tmp_path / "nowhere")
    for pattern in ("ids*", "segment*", "rows-00001*"):
        for file in fresh().glob(pattern):
            whole = file.read_bytes()
            for contents in (b"", b"hello", whole[: len(whole) // 2], whole[:20]):
                file.write_bytes(contents)
                with pytest.raises(DamagedError):
                    INDEXES[kind].open(file.parent)
            file.unlink()
            with pytest.raises(DamagedError):
                INDEXES[kind].open(file.parent)
            file.write_bytes(whole)
    path = fresh()
    np.save(path / "ids.npy", np.arange(20)[::-1])
    with pytest.raises(DamagedError, match="ascending"):
        INDEXES[kind].open(path)
    np.save(path / "ids.npy", np.arange(19))
    with pytest.raises(DamagedError, match="one row for each id"):
        INDEXES[kind].open(path)
    if kind == "flat":
        np.save(path / "ids.npy", np.arange(20))
        faiss.write_index(faiss.IndexFlatIP(8), str(path / "segment-00000.faiss"))
        with pytest.raises(DamagedError, match="float16"):
            INDEXES[kind].open(path)
