"""How well the built-in encoder finds things: recall on Flickr8k, zero-shot labels on Caltech101 and clothing, and
its answers on the demo pictures.

In: --data (or MMSEARCH_DATA) with flickr8k.tar, caltech101.tar, clothing.tar and demo/; pictures are 224-pixel copies.
The choices that made `lite` were made on Flickr8k dev; the other figures are reports only.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from common import parser, spread, table, write_report
from numpy.typing import NDArray

from mmsearch.decode import decode
from mmsearch.encoders.protocol import Encoder
from mmsearch.encoders.registry import load_encoder
from mmsearch.metrics import median_rank, recall_at, retrieval_ranks
from mmsearch.settings import Limits
from mmsearch.wording import prompts

PLAIN_NAMES = {"Faces_easy": "human face", "longsleeve": "long-sleeved shirt", "outwear": "jacket"}
QUERIES = (
    "a red sports car", "guitar", "penguin", "a castle", "strawberry", "pizza", "a lighthouse", "a dog", "a frog",
    "cat", "an astronaut", "a musical instrument", "something to cut paper", "a bicycle", "a flower", "a tree",
    "a clock", "a cup of coffee", "fruit", "a bird", "a house", "a boat",
)  # fmt: skip
TARGETS = {"flickr8k test t2i": (32, 62, 75), "flickr8k test i2t": (40, 70, 80), "caltech101": 60, "clothing": 62}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", type=Path, default=os.environ.get("MMSEARCH_DATA"), help="folder of the data")
    args = options.parse_args()
    if args.data is None:
        options.error("name the folder of the data with --data DIR or MMSEARCH_DATA")
    encoder = load_encoder(args.model)
    most = 60 if args.quick else None
    write_report(
        args,
        f"What `{encoder.space.name if args.model == 'lite' else 'the encoder'}` finds",
        [
            f"{encoder.space.dimension} dimensions, fingerprint {encoder.space.fingerprint[:12]}. Percent. "
            "The pictures are 224-pixel copies.",
            retrieval(args, encoder, most),
            labels(args, encoder, most),
            answers(args, encoder),
            speed(encoder),
        ],
        packages=("numpy", "onnxruntime", "tokenizers", "pillow"),
    )


def retrieval(args: argparse.Namespace, encoder: Encoder, most: int | None) -> str:
    """Flickr8k: which picture belongs to a sentence, which sentence to a picture; five sentences a picture."""
    files = contents(args.data / "flickr8k.tar")
    captions: dict[str, list[str]] = {}
    for row in csv.DictReader(io.StringIO(files["captions.csv"].decode())):
        captions.setdefault(row["image"], []).append(row["caption"])
    rows = []
    for split in ("dev", "test"):
        names = files[f"{split}.txt"].decode().split()[:most]
        images = encode(encoder, [files[f"images/{name}"] for name in names])
        texts = encoder.encode_texts([text for name in names for text in captions[name]])
        owners = np.array([i for i, name in enumerate(names) for _ in captions[name]])
        for way, ranks in zip(("t2i", "i2t"), retrieval_ranks(images, texts, owners), strict=True):
            found = [f"{recall_at(ranks, k):.1f}" for k in (1, 5, 10)]
            goal = "/".join(f"{target:g}" for target in TARGETS.get(f"flickr8k {split} {way}", ()))  # type: ignore[union-attr]
            rows.append([f"Flickr8k {split}", way, *found, f"{median_rank(ranks):g}", goal or "-"])
    return table(["set", "way", "R@1", "R@5", "R@10", "median rank", "goal"], rows)


def labels(args: argparse.Namespace, encoder: Encoder, most: int | None) -> str:
    """Zero-shot: the class whose name, in the sentences that tagging uses, is nearest to the picture."""
    rows = []
    for name in ("caltech101", "clothing"):
        pictures = {p: content for p, content in contents(args.data / f"{name}.tar").items() if p.startswith("images/")}
        paths = sorted(pictures)[:: 1 if most is None else max(1, len(pictures) // most)]
        truth = [path.split("/")[-2] for path in paths]
        classes = sorted({path.split("/")[-2] for path in pictures})
        shown = [PLAIN_NAMES.get(c, c.replace("_", " ").lower()) for c in classes]
        words = np.stack([encoder.encode_texts(prompts(c)).mean(0) for c in shown])
        words /= np.linalg.norm(words, axis=1, keepdims=True)
        best = np.argsort(-(encode(encoder, [pictures[path] for path in paths]) @ words.T), axis=1)
        right = best == np.array([classes.index(c) for c in truth])[:, None]
        found = [f"{right[:, :k].any(1).mean() * 100:.1f}" for k in (1, 5)]
        rows.append([name, len(paths), len(classes), *found, TARGETS[name]])
    return table(["set", "pictures", "classes", "top-1", "top-5", "goal for top-1"], rows)


def answers(args: argparse.Namespace, encoder: Encoder) -> str:
    """The first three of the demo's pictures for everyday queries, as the demo's own list describes them."""
    folder = args.data / "demo"
    with (folder / "captions.csv").open(encoding="utf-8", newline="") as stream:
        captions = {row["image"]: row["caption"] for row in csv.DictReader(stream)}
    images = encode(encoder, [(folder / "images" / name).read_bytes() for name in captions])
    shown = list(captions.values())
    rows = []
    for query, scores in zip(QUERIES, encoder.encode_texts(QUERIES) @ images.T, strict=True):
        rows.append([query, *(f"{shown[i]} ({scores[i]:.2f})" for i in np.argsort(-scores)[:3])])
    return f"The demo's {len(shown)} pictures; their sentences are not searched.\n\n" + table(
        ["query", "first", "second", "third"], rows
    )


def speed(encoder: Encoder) -> str:
    """Of the towers alone, warm."""
    text, picture = ["two dogs are playing with a ball"], [np.zeros((encoder.image_size,) * 2 + (3,), np.uint8)]
    rows = [
        ["one text of 9 tokens", *milliseconds(lambda: encoder.encode_texts(text), 50)],
        ["one picture", *milliseconds(lambda: encoder.encode_images(picture), 20)],
        ["32 pictures", *milliseconds(lambda: encoder.encode_images(picture * 32), 5)],
    ]
    return "Milliseconds.\n\n" + table(["what", "least", "median", "greatest"], rows)


def milliseconds(work: Callable[[], object], times: int) -> list[str]:
    work()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append((time.perf_counter() - start) * 1000)
    return spread(taken, digits=1)


def contents(path: Path) -> dict[str, bytes]:
    """A tar's files by their path below its single folder."""
    with tarfile.open(path) as tar:
        return {m.name.split("/", 1)[1]: stream.read() for m in tar if m.isfile() and (stream := tar.extractfile(m))}


def encode(encoder: Encoder, files: list[bytes]) -> NDArray[np.float32]:
    """Picture files, decoded as an index run does it -> (n, d) unit length."""

    def prepared() -> Iterator[list[NDArray[np.uint8]]]:
        for start in range(0, len(files), encoder.batch_size):
            pictures = [
                decode(content, target=encoder.image_size, limits=Limits()).picture
                for content in files[start : start + encoder.batch_size]
            ]
            yield [encoder.prepare(picture) for picture in pictures]

    return np.concatenate([encoder.encode_images(batch) for batch in prepared()])


if __name__ == "__main__":
    main()
