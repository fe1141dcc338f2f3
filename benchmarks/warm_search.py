"""How long searches take in an open engine, beside NumPy, usearch and LanceDB on the same vectors in the same run.

The goals: text search over 100,000 images, encoding and metadata included, p50 under 10 ms; over 1,000,000 p50 under
20 ms at recall@10 of at least 0.99. The peers: `pip install usearch lancedb`; those that are not there are left out.

Vectors are random, of unit length, and vary more in some directions than in others; queries are such vectors too.
Real text queries lie farther off, which costs approximate indexes recall, not exact ones. With two threads, two
searches go on at the same time; within a search every contestant is told to use one core.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from common import alternate, parser, percentile, table, write_report
from numpy.typing import NDArray

from mmsearch import Engine, SearchResult, Term
from mmsearch.encoders.protocol import Encoder
from mmsearch.encoders.registry import load_encoder
from mmsearch.vectors.flat import FlatIndex

K = 10
DECAY = 0.5  # the n-th direction varies by n^-DECAY: embeddings of pictures vary in few directions, too
QUERIES = 200
PART = 100_000  # vectors made or handed over at once
THREADS = (1, 2)
ONE_CORE = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LANCE_CPU_THREADS", "RAYON_NUM_THREADS")
NOUNS = ("car", "dog", "beach", "mountain", "guitar", "penguin", "castle", "strawberry", "lighthouse", "bicycle")
TEXTS = [f"a {kind} {noun}" for noun in NOUNS for kind in ("red", "small", "lonely", "beautiful old wooden")]

TEXT, VECTOR, BARE, NUMPY = "mmsearch, text", "mmsearch, vector", "mmsearch, index alone", "NumPy, float32"
Search = Callable[[int], object]  # the number of a query -> its answer
Rows = NDArray[np.float32]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="vectors")
    options.add_argument("--rounds", type=int, default=5, help="how often each contestant has its turn")
    options.add_argument("--seconds", type=float, default=2.0, help="how long a turn lasts")
    options.add_argument("--folder", type=Path, help="where to put collections and databases; else a temporary one")
    options.add_argument(
        "--no-hnsw", action="store_true", help="leave out usearch's graph: minutes to build at 1,000,000"
    )
    args = options.parse_args()
    if args.quick:
        args.counts, args.rounds, args.seconds = [2_000], 1, 0.1
    encoder = load_encoder(args.model)
    parts = []
    for count in sorted(args.counts):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            parts += report(count, Path(folder), encoder, args.rounds, args.seconds, hnsw=not args.no_hnsw)
    parts.append(
        "mmsearch, text: `Engine.search`, whole: the text is encoded, vectors are compared, exact scores and what the "
        "hits are and where they lie come from the catalog. mmsearch, vector: the same with a ready vector. All others "
        "compare vectors only and return ids. Recall: the share of the ten nearest by NumPy in float32 that are among "
        "the ten found."
    )
    packages = ["numpy", "faiss-cpu", "onnxruntime", "sqlalchemy", "usearch", "lancedb"]
    write_report(args, "Searching in an open engine", parts, packages)


def report(count: int, folder: Path, encoder: Encoder, rounds: int, seconds: float, *, hnsw: bool) -> list[str]:
    """Measure every contestant over `count` vectors; the parts of the report about it."""
    rng = np.random.default_rng(count)
    dimension = encoder.space.dimension
    rows = np.concatenate([vectors(rng, min(PART, count - done), dimension) for done in range(0, count, PART)])
    queries = vectors(rng, QUERIES, dimension)
    built: dict[str, float] = {}
    with Engine.open(folder / "collection", model=encoder) as engine:
        started = time.perf_counter()
        for first in range(0, count, PART):
            keys = [str(number) for number in range(first, min(first + PART, count))]
            engine.add_vectors(keys, rows[first : first + PART])
        engine.index()
        built[VECTOR] = time.perf_counter() - started
        bare = FlatIndex.open(next((folder / "collection" / "index").glob("*/images-*")))

        def by_vector(number: int) -> SearchResult:
            return engine.search(Term(vector=queries[number]), k=K)

        searches: dict[str, Search] = {
            TEXT: lambda number: engine.search(TEXTS[number % len(TEXTS)], k=K),
            VECTOR: by_vector,
            BARE: lambda number: bare.search(queries[number : number + 1], K),
            NUMPY: lambda number: by_numpy(rows, queries[number]),
        }
        nearest = [set(by_numpy(rows, query).tolist()) for query in queries]
        answers: dict[str, Callable[[int], set[int]]] = {
            VECTOR: lambda number: {int(hit.key or -1) for hit in by_vector(number)}
        }
        for name, search, ids, building in peers(rows, queries, folder, hnsw=hnsw):
            searches[name], answers[name], built[name] = search, ids, building
        recall = {
            name: np.mean([len(nearest[number] & ids(number)) / K for number in range(QUERIES)])
            for name, ids in answers.items()
        }
        parts = [f"## {count:,} vectors of {dimension} dimensions"]
        for threads in THREADS:
            latencies = measured(searches, threads, rounds, seconds)
            parts.append(f"{threads} thread{'s' * (threads > 1)}:")
            cells = [
                [
                    name,
                    f"{percentile(times, 50) * 1000:.2f}",
                    f"{percentile(times, 99) * 1000:.2f}",
                    f"{threads * len(times) / sum(times):,.0f}",
                    f"{recall[name]:.3f}" if name in recall else "",
                    f"{built[name]:,.1f}" if name in built else "",
                ]
                for name, times in latencies.items()
            ]
            columns = ["contestant", "p50, ms", "p99, ms", "searches a second", "recall@10", "seconds to build"]
            parts.append(table(columns, cells))
    return parts


def measured(searches: dict[str, Search], threads: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Contestant -> seconds of each of its searches, over all turns."""
    times: dict[str, list[float]] = {name: [] for name in searches}

    def turn(name: str) -> float:
        until = time.perf_counter() + seconds

        def work(first: int) -> list[float]:
            found = []
            for number in itertools.count(first, threads):
                started = time.perf_counter()
                searches[name](number % QUERIES)
                found.append(time.perf_counter() - started)
                if started > until:
                    return found
            raise AssertionError

        with ThreadPoolExecutor(threads) as pool:
            for found in pool.map(work, range(threads)):
                times[name] += found
        return seconds

    for search in searches.values():  # opened, compiled, in the page cache
        for number in range(3):
            search(number)
    alternate({name: lambda name=name: turn(name) for name in searches}, rounds)  # type: ignore[misc]
    return times


def peers(
    rows: Rows, queries: Rows, folder: Path, *, hnsw: bool
) -> Iterator[tuple[str, Search, Callable[[int], set[int]], float]]:
    """(name, search, ids found, seconds to build) of each peer that is installed."""
    if find_spec("usearch"):
        import usearch.index

        half = rows.astype(np.float16)

        def exactly(number: int) -> Any:
            query = queries[number].astype(np.float16)
            return usearch.index.search(half, query, K, "ip", exact=True, threads=1)

        yield "usearch, exact, float16", exactly, lambda number: set(exactly(number).keys.tolist()), 0.0
        if hnsw:
            started = time.perf_counter()
            graph = usearch.index.Index(ndim=rows.shape[1], metric="ip", dtype="f16")
            graph.add(np.arange(len(rows)), rows, threads=os.cpu_count() or 1)
            seconds = time.perf_counter() - started

            def walk(number: int) -> Any:
                return graph.search(queries[number], K, threads=1)

            yield "usearch, HNSW, float16", walk, lambda number: set(walk(number).keys.tolist()), seconds
    if find_spec("lancedb"):
        import lancedb
        import pyarrow  # type: ignore[import-untyped]

        started = time.perf_counter()
        database = lancedb.connect(folder / "lancedb")

        def batches() -> Iterator[pyarrow.RecordBatch]:
            for first in range(0, len(rows), PART):
                part = rows[first : first + PART]
                flat = pyarrow.array(part.reshape(-1))
                vectors = pyarrow.FixedSizeListArray.from_arrays(flat, rows.shape[1])
                ids = pyarrow.array(np.arange(first, first + len(part)))
                yield pyarrow.RecordBatch.from_arrays([ids, vectors], schema=schema)

        schema = pyarrow.schema([("id", pyarrow.int64()), ("vector", pyarrow.list_(pyarrow.float32(), rows.shape[1]))])
        stored: Any = database.create_table("vectors", batches(), schema=schema)
        seconds = time.perf_counter() - started

        def scan(number: int) -> Any:
            return stored.search(queries[number]).distance_type("dot").select(["id", "_distance"]).limit(K).to_arrow()

        yield "LanceDB, scan", scan, lambda number: set(scan(number)["id"].to_pylist()), seconds


def by_numpy(rows: Rows, query: Rows) -> NDArray[np.int64]:
    """The K nearest rows, best first."""
    scores = rows @ query
    best = np.argpartition(scores, -K)[-K:]
    return best[np.argsort(-scores[best])]


def vectors(rng: np.random.Generator, count: int, dimension: int) -> Rows:
    """Unit vectors (count, dimension)."""
    rows = rng.standard_normal((count, dimension), np.float32)
    rows *= np.arange(1, dimension + 1, dtype=np.float32) ** -DECAY
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


if __name__ == "__main__":
    if any(os.environ.get(name) != "1" for name in ONE_CORE):  # libraries read these when they are loaded
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict.fromkeys(ONE_CORE, "1"))
    main()
