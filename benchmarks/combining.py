"""Pictures and captions in one query: vectors of pictures alone, of captions alone, words, both by reciprocal ranks
(hybrid), and early (one joint vector) against late combination (scores or ranks of both).

In: --data (or MMSEARCH_DATA) with flickr8k.tar; with --quick the demo's pictures and sentences. Each picture is
looked for by one of its five sentences; others of them, or one, are its captions. The weight of captions was chosen on
Flickr8k dev; the other figures are of Flickr8k test, where the engine itself answers as far as it can.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from common import parser, table, write_report
from numpy.typing import NDArray
from quality import contents, encode

from mmsearch import Engine, Query, Term
from mmsearch.combine import reciprocal_ranks
from mmsearch.encoders.protocol import Encoder
from mmsearch.encoders.registry import load_encoder
from mmsearch.joining import CAPTION_WEIGHT
from mmsearch.metrics import recall_at
from mmsearch.settings import shipped_folder

WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
AT = (1, 5, 10)
FAR = 1_000_000  # the rank of what was not among the answers

Sentences = Mapping[str, Sequence[str]]  # file name -> sentences; the first is the query


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", type=Path, default=os.environ.get("MMSEARCH_DATA"), help="folder of the data")
    args = options.parse_args()
    if args.data is None and not args.quick:
        options.error("name the folder of the data with --data DIR or MMSEARCH_DATA, or use --quick")
    encoder = load_encoder(args.model)
    write_report(
        args, "Pictures and captions together", [*choice(args, encoder), *report(args, encoder)],
        packages=("numpy", "onnxruntime", "faiss-cpu", "sqlalchemy"),
    )  # fmt: skip


def data(args: argparse.Namespace, split: str) -> tuple[dict[str, bytes], dict[str, list[str]]]:
    """Pictures and sentences by file name. The sentence that asks is another one for each picture in turn."""
    if args.quick:
        folder = shipped_folder("demo")
        with (folder / "captions.csv").open(encoding="utf-8", newline="") as stream:
            rows = [(row["image"], row["caption"]) for row in csv.DictReader(stream)][split == "dev" :: 2]
        pictures = {name: (folder / "images" / name).read_bytes() for name, _ in rows}
        return pictures, {name: [text, text.upper(), text[: len(text) // 2]] for name, text in rows}
    files = contents(args.data / "flickr8k.tar")
    sentences: dict[str, list[str]] = {}
    for row in csv.DictReader(io.StringIO(files["captions.csv"].decode())):
        sentences.setdefault(row["image"], []).append(row["caption"])
    names = files[f"{split}.txt"].decode().split()
    turned = {name: sentences[name][n % 5 :] + sentences[name][: n % 5] for n, name in enumerate(names)}
    return {name: files[f"images/{name}"] for name in names}, turned


# --- the weight -------------------------------------------------------------------------------------------------


class Vectors:
    """Unit-length rows. images: (n, d). queries: (n, d). captions: (n, most, d)."""

    def __init__(self, encoder: Encoder, pictures: Mapping[str, bytes], sentences: Sentences) -> None:
        self.images = encode(encoder, list(pictures.values()))
        self.queries = encoder.encode_texts([sentences[name][0] for name in pictures])
        self.captions = np.stack([encoder.encode_texts(sentences[name][1:]) for name in pictures])

    def scores(self, captions: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(query, picture): cosines to the pictures, the greatest cosine to one of their captions."""
        return self.queries @ self.images.T, np.einsum("qd,ncd->qnc", self.queries, self.captions[:, :captions]).max(2)

    def early(self, captions: int, weight: float) -> NDArray[np.float32]:
        """(query, picture): cosines to joint vectors."""
        said = unit(self.captions[:, :captions].mean(axis=1))
        return self.queries @ unit((1 - weight) * self.images + weight * said).T


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def recalls(scores: NDArray[np.float32], chosen: slice = slice(None)) -> list[str]:
    """R@1, 5, 10 in percent of the queries that are chosen; each asks for the picture of its own number."""
    ranks = 1 + (scores > np.diagonal(scores)[:, None]).sum(axis=1)
    return [f"{recall_at(ranks[chosen], k):.1f}" for k in AT]


def choice(args: argparse.Namespace, encoder: Encoder) -> Iterator[str]:
    vectors = Vectors(encoder, *data(args, "dev"))
    with_captions, without = slice(0, None, 2), slice(1, None, 2)
    yield (
        "## The weight of captions\n\n"
        f"{len(vectors.images):,} pictures (dev), R@1/5/10 in percent. Early: joint vectors with this weight of the "
        "captions. Late: the weighted sum of the cosine to the picture and of the greatest cosine to one of its "
        "captions. Half: only every other picture has captions, the rest is compared by itself; R of the queries for "
        "either half. "
        "The cosine of two texts is greater than that of a text and a picture, so the more captions weigh, the more "
        f"pictures without any fall behind. Chosen: {CAPTION_WEIGHT}."
    )
    for captions in dict.fromkeys((vectors.captions.shape[1], 1)):
        seen, said = vectors.scores(captions)
        rows = [["pictures alone", "/".join(recalls(seen)), "", "", ""]]
        for weight in WEIGHTS:
            early = vectors.early(captions, weight)
            half = np.where(np.arange(len(seen)) % 2 == 0, early, seen)
            cells = (recalls(early), recalls((1 - weight) * seen + weight * said))
            cells = (*cells, recalls(half, with_captions), recalls(half, without))
            name = f"**{weight}**" if weight == CAPTION_WEIGHT else f"{weight}"
            rows.append([name, *("/".join(one) for one in cells)])
        rows.append(["captions alone", "", "/".join(recalls(said)), "", ""])
        yield table([f"{captions} a picture", "early", "late", "half: with", "half: without"], rows)


# --- what the engine answers ------------------------------------------------------------------------------------


def report(args: argparse.Namespace, encoder: Encoder) -> Iterator[str]:
    pictures, sentences = data(args, "test")
    vectors = Vectors(encoder, pictures, sentences)
    yield (
        f"## Figures\n\n{len(pictures):,} pictures (test), R@1/5/10 in percent. What `Engine.search` answers; "
        "late combination, which it does not offer, is computed beside it, with the same weight or by reciprocal ranks "
        "of the two lists."
    )
    most = vectors.captions.shape[1]
    columns = ["", *dict.fromkeys((f"{most} captions a picture", "1 caption a picture")), "half: with", "half: without"]
    found: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "images").mkdir()
        for name, content in pictures.items():
            (work / "images" / name).write_bytes(content)
        for captions, share in ((most, 1), (1, 1), (1, 2)):
            named = list(pictures)[::share]
            write_captions(work / "captions.csv", {name: sentences[name][1 : 1 + captions] for name in named})
            with Engine.open(work / "collection", model=encoder) as engine:
                if share == 2:  # a table says nothing of pictures that it does not name, so theirs stay
                    engine.remove_root(work / "images")
                engine.index(work / "images", captions=work / "captions.csv")
                ranks = answers(engine, list(pictures), sentences)
            ranks |= late(vectors, captions, np.arange(len(pictures)) % share == 0)
            for way, mine in ranks.items():
                halves = [mine[offset::share] for offset in range(share)]
                found.setdefault(way, []).extend("/".join(f"{recall_at(h, k):.1f}" for k in AT) for h in halves)
    yield table(columns, [[way, *cells] for way, cells in found.items()])


def write_captions(path: Path, captions: Sentences) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("image", "caption"))
        rows.writerows((name, text) for name, texts in captions.items() for text in texts)


def answers(engine: Engine, names: Sequence[str], sentences: Sentences) -> dict[str, NDArray[np.int64]]:
    """Way -> the rank of the right picture for each query."""
    ways = {
        "vectors of pictures": {},
        "vectors of captions": {"find": "captions", "k": 60},  # five hits may be of one picture
        "keywords, all of them": {"match": "keywords"},
        "hybrid": {"match": "hybrid"},
        "joint (early)": {"match": "joint"},
    }
    found: dict[str, list[int]] = {way: [] for way in ways}
    for name in names:
        for way, options in ways.items():
            result = engine.search(Query((Term(text=sentences[name][0]),), **{"k": max(AT), **options}))  # type: ignore[arg-type]
            order = dict.fromkeys(hit.path.name for hit in result if hit.path is not None)
            found[way].append(next((rank for rank, one in enumerate(order, 1) if one == name), FAR))
    return {way: np.array(ranks) for way, ranks in found.items()}


def late(vectors: Vectors, captions: int, told: NDArray[np.bool_]) -> dict[str, NDArray[np.int64]]:
    """As `answers`. told: which pictures have captions; others keep their own cosine, as with joint vectors."""
    seen, said = vectors.scores(captions)
    summed = np.where(told, (1 - CAPTION_WEIGHT) * seen + CAPTION_WEIGHT * said, seen)
    ranks = 1 + (summed > np.diagonal(summed)[:, None]).sum(axis=1)
    where = np.flatnonzero(told)
    by_ranks = []
    for number in range(len(seen)):
        of_captions = where[np.argsort(-said[number, where], kind="stable")]
        order = [
            one
            for one, _ in reciprocal_ranks([np.argsort(-seen[number], kind="stable").tolist(), of_captions.tolist()])
        ]
        by_ranks.append(1 + order.index(number))
    return {"late: sum of scores": ranks, "late: reciprocal ranks": np.array(by_ranks)}


if __name__ == "__main__":
    main()
