"""How long filtered, worded and composed searches take in an open engine, beside the plain one in the same run.

The goal at 100,000 images: the p99 of a filtered search, whatever the filter lets through, under three times the p50
of an unfiltered one. Each filter is evaluated once for a state of the catalog; its first search is shown by itself.

Vectors are random, of unit length, and vary more in some directions than in others; the queries are texts, encoded by
the built-in encoder. What words and files have a part in is measured on fewer images, which are files with a caption.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import alternate, parser, percentile, table, write_report
from numpy.typing import NDArray
from pictures import small_pictures
from PIL import Image

from mmsearch import Engine, Filters, Query, Term
from mmsearch.encoders.registry import load_encoder

GOAL = 3.0
PLAIN = "no filter"
NOUNS = ("car", "dog", "beach", "mountain", "guitar", "penguin", "castle", "strawberry", "lighthouse", "bicycle")
TEXTS = [f"a {kind} {noun}" for noun in NOUNS for kind in ("red", "small", "lonely", "beautiful old wooden")]
DECAY = 0.5  # the n-th direction varies by n^-DECAY: embeddings of pictures vary in few directions, too


class RandomVectors:
    """The built-in encoder for queries; random vectors for pictures and for captions, which come by the hundred."""

    image_size, batch_size = 16, 256

    def __init__(self, model: str) -> None:
        self._real = load_encoder(model)
        self.space = self._real.space
        self.calibration = getattr(self._real, "calibration", None)
        self._rng = np.random.default_rng(1)

    def prepare(self, picture: Image.Image) -> NDArray[np.uint8]:  # noqa: ARG002 - what is on it is no matter
        return np.zeros(1, np.uint8)

    def encode_images(self, prepared: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        dimension = self.space.dimension
        rows = self._rng.standard_normal((len(prepared), dimension), np.float32)
        rows *= np.arange(1, dimension + 1, dtype=np.float32) ** -DECAY
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if len(texts) <= 2:
            return self._real.encode_texts(texts)
        return self.encode_images([np.zeros(1)] * len(texts))


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--count", type=int, default=100_000, help="images that are filtered")
    options.add_argument("--files", type=int, default=10_000, help="files with captions, for all other searches")
    options.add_argument("--rounds", type=int, default=5, help="how often each kind of search has its turn")
    options.add_argument("--seconds", type=float, default=2.0, help="how long a turn lasts")
    args = options.parse_args()
    if args.quick:
        args.count, args.files, args.rounds, args.seconds = 3_000, 600, 1, 0.1
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with Engine.open(folder / "filtered", model=RandomVectors(args.model)) as engine:
            rows = RandomVectors(args.model).encode_images([np.zeros(1)] * args.count)
            engine.add_vectors([f"{number % 10}/{number}" for number in range(args.count)], rows)
            engine.index()
            filtered = measured(engine, filters(args.count), args.rounds, args.seconds)
        pictures = small_pictures(folder / "pictures", args.files, width=48, height=32)
        captions = folder / "captions.csv"
        lines = (f"{n // 1000:04}/{n:07}.jpg,{TEXTS[n % len(TEXTS)]} number {n}" for n in range(args.files))
        captions.write_text("\n".join(["image,caption", *lines]))
        with Engine.open(folder / "worded", model=RandomVectors(args.model)) as engine:
            engine.index(pictures, captions=captions)
            worded = measured(engine, others(pictures), args.rounds, args.seconds)
        write(args, filtered, worded)


def filters(count: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """name -> what the report says of it, what differs from a plain query."""

    def first(share: float) -> dict[str, Any]:
        return {"filters": Filters(where=f"id <= {max(10, round(share * count))}")}

    shares = (0.001, 0.01, 0.1, 0.5, 0.9)
    named = {"filters": Filters(where="name like '%7%' and not format = 'png'")}
    return {
        PLAIN: ("", {}),
        **{f"{share:.1%}": ("`--where 'id <= N'`", first(share)) for share in shares},
        "none of them": ("`--where`, of an unknown format", named),
    }


def others(pictures: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """As `filters`."""
    unwanted = (Term(text="people", weight=-1), Term(image=1))
    return {
        PLAIN: ("", {}),
        "a folder": ("`--in`", {"filters": Filters(inside=(min(pictures.iterdir()),))}),
        "composed": ("two texts, one unwanted, and an image", {"also": unwanted}),
        "unique": ("`--unique`; all are alike to one of 16", {"unique": True, "k": 3}),
        "keywords": ("`--keywords`", {"match": "keywords"}),
        "hybrid": ("`--hybrid`", {"match": "hybrid"}),
        "joint": ("`--joint`", {"match": "joint"}),
    }


def measured(
    engine: Engine, said: dict[str, tuple[str, dict[str, Any]]], rounds: int, seconds: float
) -> dict[str, tuple[str, float, list[float]]]:
    """name -> what it is, seconds of the first search, seconds of each later one."""
    latencies: dict[str, list[float]] = {}
    first: dict[str, float] = {}
    numbers = itertools.count()

    def ask(name: str) -> float:
        changes = dict(said[name][1])
        terms = (Term(text=TEXTS[next(numbers) % len(TEXTS)]), *changes.pop("also", ()))
        started = time.perf_counter()
        result = engine.search(Query(terms, **changes))
        assert len(result) == 10 or name in ("keywords", "unique", "none of them"), (name, len(result))
        return time.perf_counter() - started

    for name in said:
        if name == PLAIN:
            ask(name)  # loads the text tower and opens the index
        first[name], latencies[name] = ask(name), []

    def turn(name: str) -> float:
        ends = time.perf_counter() + seconds
        while time.perf_counter() < ends:
            latencies[name].append(ask(name))
        return 0.0

    alternate({name: lambda name=name: turn(name) for name in said}, rounds)
    return {name: (said[name][0], first[name], latencies[name]) for name in said}


Found = dict[str, tuple[str, float, list[float]]]


def write(args: Any, filtered: Found, worded: Found) -> None:
    plain = percentile(filtered[PLAIN][2], 50)
    worst = max(percentile(times, 99) / plain for name, (_, _, times) in filtered.items() if name != PLAIN)
    parts = [
        f"## {args.count:,} images, filtered",
        shown(filtered),
        f"The worst filtered p99 is {worst:.1f} times the unfiltered p50; goal {GOAL:g}: "
        f"{'met' if worst < GOAL else 'missed'}.",
        f"## {args.files:,} files, each with a caption",
        shown(worded),
        "Every search is whole: the text is encoded, filters decide, vectors are compared, exact scores and "
        "probabilities, files and dates come from the catalog. First: the filter is evaluated and its ids are kept.",
    ]
    write_report(args, "Filtered, worded and composed searches", parts, ["faiss-cpu", "onnxruntime", "sqlalchemy"])


def shown(found: Found) -> str:
    plain = percentile(found[PLAIN][2], 50)
    rows = []
    for name, (what, first, times) in found.items():
        middle, slow = percentile(times, 50), percentile(times, 99)
        cells = (first * 1000, middle * 1000, slow * 1000)
        rows.append([name, what, *(f"{value:.1f}" for value in cells), f"{slow / plain:.1f}", f"{len(times):,}"])
    return table(["search", "how", "first, ms", "p50, ms", "p99, ms", "p99 / plain p50", "searches"], rows)


if __name__ == "__main__":
    main()
