"""Fit how an encoder's scores become probabilities (relevance.py), and write it beside its weights:

    python -m mmsearch.training.calibrate --data DIR --out mmsearch/encoders/weights/lite

In: an encoder's folder, and DIR (or MMSEARCH_DATA) with `flickr8k.tar`. Out: `calibration.json` in that folder, its
checksum in the folder's `encoder.json`; the fingerprint stays. A minute on two cores.

Fitted on Flickr8k dev, which no tower was trained on: words, phrases and sentences from its captions (mentions.py) are
asked of all of its pictures and of parts of them. Three queries in ten are asked in vain: things of absent_queries.txt,
and words and phrases after every picture that may show them was taken out. Test, the clothing photographs, Caltech101
and the demo play no part.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmsearch.calibrating import background_of, neutral_queries
from mmsearch.encoders.pairs import ENDS
from mmsearch.encoders.protocol import Encoder
from mmsearch.encoders.trained import CALIBRATION, MANIFEST, TrainedEncoder, read_manifest
from mmsearch.errors import MMSearchError, ModelError
from mmsearch.relevance import HITS, Background, Direction, Weights, to_json
from mmsearch.training import sources
from mmsearch.training.mentions import OPEN, RIGHT, WRONG, Asked, Mentions
from mmsearch.training.sources import Example

log = logging.getLogger(__name__)

DEEP = 20  # hits of each query that are learned from
MANY = 300  # phrases, and sentences
PARTS_OF_ALL = (500, 250, 250, 120, 120)  # besides all pictures, so many of them are a collection
IN_VAIN = {"absent": 0.24, "gone": 0.06}  # shares of the queries that nothing answers
SHRINK = 1e-3  # weight decay of the presence logistic

Pairs = tuple[NDArray[np.float64], NDArray[np.int8]]  # scores and labels, (queries, DEEP)


@dataclass(frozen=True, slots=True)
class Asking:
    """One query asked of one collection. scores, labels: of its first DEEP hits. features, gap: as in relevance.py."""

    kind: str
    scores: NDArray[np.float64]
    labels: NDArray[np.int8]
    features: NDArray[np.float64]
    gap: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=os.environ.get("MMSEARCH_DATA"), help="folder of prepared data")
    parser.add_argument("--out", type=Path, required=True, help="folder of the encoder")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("name the folder of the data with --data DIR or MMSEARCH_DATA")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        build(Path(arguments.data), arguments.out)
    except MMSearchError as error:
        parser.exit(2, f"{error}\n")


def build(data: Path, out: Path) -> None:
    """The whole way: pictures and sentences, backgrounds, fits, files."""
    encoder = TrainedEncoder(out)
    examples = sources.flickr8k(data)["dev"]
    images = encode_pictures(encoder, examples)
    mentions = Mentions([example.texts for example in examples])
    log.info("%d pictures, %d neutral queries", len(images), len(neutral_queries()))
    whole = fit(encoder, images, mentions, (encoder.space.dimension,))
    log.info("one part, for relevance.ROUGH if the encoder has no known pairs: %s", whole[1])
    background, weights = fit(encoder, images, mentions, parts_of(encoder))
    log.info("%s", weights)
    write(out, background, weights)


def parts_of(encoder: TrainedEncoder) -> tuple[int, ...]:
    """The heads, and the concept channel with what known pairs add, of our own recipe, as its manifest says; else the
    space as a whole."""
    recipe = encoder.facts.get("training", {}).get("recipe", {})
    parts = recipe.get("kept_width", 0), recipe.get("concept_width", 0) + ENDS
    return parts if sum(parts) == encoder.space.dimension else (encoder.space.dimension,)


def encode_pictures(encoder: TrainedEncoder, examples: Sequence[Example]) -> NDArray[np.float32]:
    """(n, d), rounded as the catalog keeps them."""
    rows = [
        encoder.encode_images([encoder.prepare(example.open()) for example in examples[start : start + 64]])
        for start in range(0, len(examples), 64)
    ]
    return np.concatenate(rows).astype(np.float16).astype(np.float32)


def write(folder: Path, background: Background, weights: Weights) -> None:
    """The file, and what the manifest says about it."""
    content = json.dumps(to_json(background, weights)).encode()
    (folder / CALIBRATION).write_bytes(content)
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    manifest[CALIBRATION] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    read_manifest(folder)
    log.info("written: %s (%d bytes)", folder / CALIBRATION, len(content))


# --- asking -----------------------------------------------------------------------------------------------------


def fit(
    encoder: TrainedEncoder, images: NDArray[np.float32], mentions: Mentions, parts: tuple[int, ...]
) -> tuple[Background, Weights]:
    """Everything that relevance.py reads, for a space seen as these parts."""
    background = background_of(images, encoder.encode_texts(neutral_queries()), parts)
    if background is None:
        raise ModelError("All pictures, or all texts, have the same vector; these weights cannot be calibrated.")
    askings = list(ask(encoder, images, mentions, background))
    presence, best, fall, usual_gap = fit_hits(askings)
    pictures, sentences = pairs_of_pictures(images, mentions), pairs_of_sentences(encoder, images, mentions)
    found: dict[str, Pairs] = {
        "t2i": (np.stack([one.scores for one in askings]), np.stack([one.labels for one in askings])),
        "i2i": _standard(background, "i2i", *pictures),
        "i2t": _standard(background, "i2t", *sentences["i2t"]),
        "t2t": _standard(background, "t2t", *sentences["t2t"]),
    }
    shares = {"t2i": weights_of(askings)}
    plain = {way: fit_plain(*pairs, shares.get(way)) for way, pairs in found.items()}
    return background, Weights(presence, best, fall, usual_gap, plain)


def ask(
    encoder: TrainedEncoder, images: NDArray[np.float32], mentions: Mentions, background: Background
) -> Iterator[Asking]:
    """Every query of every collection that answers it, or that none answers."""
    chance = np.random.default_rng(0)
    count = len(images)
    collections = [np.arange(count)] + [
        np.sort(chance.choice(count, size, replace=False)) for size in PARTS_OF_ALL if size < count
    ]
    words = mentions.words()
    absent = mentions.absent(absent_queries())
    queries = [
        *words, *(replace(one, text=f"a {one.text}") for one in words),
        *mentions.phrases(MANY), *mentions.sentences(MANY),
        *absent, *(replace(one, text=one.text.removeprefix("a ").removeprefix("an ")) for one in absent),
    ]  # fmt: skip
    vectors = encoder.encode_texts([one.text for one in queries])
    for which in collections:
        for query, vector in zip(queries, vectors, strict=True):
            if query.kind == "absent" or query.there[which].any():
                yield _asking(query, vector, images[which], query.labels[which], background)
    for query, vector in zip(queries, vectors, strict=True):
        left = np.flatnonzero(query.labels == WRONG)
        if query.kind in ("word", "phrase") and len(left) >= count / 5:
            yield _asking(replace(query, kind="gone"), vector, images[left], query.labels[left], background)


def absent_queries() -> list[str]:
    lines = Path(__file__).with_name("absent_queries.txt").read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _asking(
    query: Asked,
    vector: NDArray[np.float32],
    images: NDArray[np.float32],
    labels: NDArray[np.int8],
    background: Background,
) -> Asking:
    scores = images @ vector
    order = np.argsort(-scores, kind="stable")[:DEEP]
    mean, spread = background.standard(vector, "t2i")
    features, gap = background.features(vector, images[order[:HITS]], len(images))
    assert gap is not None
    return Asking(query.kind, (scores[order].astype(np.float64) - mean) / spread, labels[order], features, gap)


def weights_of(askings: Sequence[Asking]) -> NDArray[np.float64]:
    """(queries,): each kind of query that is answered weighs the same, and those in vain as IN_VAIN says."""
    kinds = np.array([one.kind for one in askings])
    answered = sorted(set(kinds) - set(IN_VAIN))
    shares = dict.fromkeys(answered, (1 - sum(IN_VAIN.values())) / len(answered)) | IN_VAIN
    counts = {kind: int((kinds == kind).sum()) for kind in shares}
    return np.array([shares[kind] / counts[kind] for kind in kinds.tolist()])


# --- fits -------------------------------------------------------------------------------------------------------


def fit_hits(
    askings: Sequence[Asking],
) -> tuple[tuple[float, ...], tuple[float, float], tuple[float, float], float]:
    """-> presence, best, fall, usual_gap of `Weights`."""
    weights = torch.tensor(weights_of(askings))
    features = torch.tensor(np.stack([one.features for one in askings]))
    there = torch.tensor([float(one.kind not in IN_VAIN) for one in askings], dtype=torch.float64)
    size = features[:, 1:].std(0)
    scaled = torch.cat([features[:, :1], features[:, 1:] / size], dim=1)
    presence = torch.zeros(scaled.shape[1], dtype=torch.float64, requires_grad=True)

    def presence_loss() -> Tensor:
        return (_log_loss(scaled @ presence, there) * weights).sum() + SHRINK * presence[1:].square().sum()

    _minimise(presence_loss, [presence])
    logit = (scaled @ presence).detach()
    gaps = torch.tensor([one.gap for one in askings], dtype=torch.float64)
    scores = torch.tensor(np.stack([one.scores[:HITS] for one in askings]))  # (queries, HITS)
    labels = torch.tensor(np.stack([one.labels[:HITS] for one in askings]), dtype=torch.float64)
    counted = (labels != OPEN) * weights[:, None]
    best = torch.zeros(2, dtype=torch.float64, requires_grad=True)  # logarithms: both stay positive
    fall = torch.tensor([0.0, 0.0], dtype=torch.float64, requires_grad=True)

    def hits_loss() -> Tensor:
        top = logit.clamp(min=0) * best[0].exp() + logit.clamp(max=0) * best[1].exp()
        slope = (fall[0] + fall[1] * gaps).exp()
        logits = top[:, None] + slope[:, None] * (scores - scores[:, :1])
        return (_log_loss(logits, (labels == RIGHT).double()) * counted).sum()

    _minimise(hits_loss, [best, fall])
    unscaled = presence.detach() / torch.cat([torch.ones(1, dtype=torch.float64), size])
    multiply, slopes = best.detach().exp().tolist(), fall.detach().tolist()
    return (
        tuple(round(value, 4) for value in unscaled.tolist()),
        (round(multiply[0], 4), round(multiply[1], 4)),
        (round(slopes[0], 4), round(slopes[1], 4)),
        round(float((gaps * weights).sum() / weights.sum()), 4),
    )


def fit_plain(
    scores: NDArray[np.float64], labels: NDArray[np.int8], weights: NDArray[np.float64] | None
) -> tuple[float, float]:
    """Slope and intercept of a logistic of the score alone. weights: (queries,), all the same without."""
    each = np.ones(len(scores)) if weights is None else weights
    counted = torch.tensor((labels != OPEN) * each[:, None])
    counted = counted / counted.sum()
    right, given = torch.tensor((labels == RIGHT).astype(np.float64)), torch.tensor(scores)
    line = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    _minimise(lambda: (_log_loss(line[0] * given + line[1], right) * counted).sum(), [line])
    slope, intercept = line.detach().tolist()
    return round(slope, 4), round(intercept, 4)


def _log_loss(logits: Tensor, right: Tensor) -> Tensor:
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, right, reduction="none")


def _minimise(loss: Callable[[], Tensor], parameters: list[Tensor]) -> None:
    solver = torch.optim.LBFGS(parameters, max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> float:
        solver.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    solver.step(closure)  # type: ignore[no-untyped-call]


# --- pictures and sentences that ask ----------------------------------------------------------------------------

Found = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int8]]  # queries (q, d), scores and labels (q, DEEP)


def pairs_of_pictures(images: NDArray[np.float32], mentions: Mentions) -> Found:
    """Pictures look for others. Right: at least half of what several captions of either mention is the same, and that
    two things or more; wrong: nothing that is mentioned is even near."""
    shown, near = mentions.shown(2).astype(np.int64), mentions.near().astype(np.int64)
    both = shown @ shown.T
    either = shown.sum(1)[:, None] + shown.sum(1) - both
    touching = np.maximum(shown @ near.T, near @ shown.T)
    labels = np.where((both >= 2) & (2 * both >= either), RIGHT, np.where(touching == 0, WRONG, OPEN))
    scores = images @ images.T
    np.fill_diagonal(scores, -2)
    askers = np.flatnonzero(shown.sum(1) >= 2)
    return _first(images, scores, labels.astype(np.int8), askers)


def pairs_of_sentences(encoder: Encoder, images: NDArray[np.float32], mentions: Mentions) -> dict[Direction, Found]:
    """Pictures (i2t) and sentences (t2t) look for captions. Right: captions of the same picture, and those of whose
    things all, and two at least, are mentioned there; wrong: nothing of the caption is near."""
    captions = [(owner, text) for owner, texts in enumerate(mentions.captions) for text in texts]
    vectors = encoder.encode_texts([text for _, text in captions]).astype(np.float16).astype(np.float32)
    owners = np.array([owner for owner, _ in captions])
    single = Mentions([[text] for _, text in captions])
    says, near_says = single.shown(1).astype(np.int64), single.near().astype(np.int64)
    shown, near = mentions.shown(1).astype(np.int64), mentions.near().astype(np.int64)

    def labels(mine: NDArray[np.int64], mine_near: NDArray[np.int64], own: NDArray[np.bool_]) -> NDArray[np.int8]:
        covered, touching = mine @ says.T, np.maximum(mine_near @ says.T, mine @ near_says.T)
        right = own | ((covered == says.sum(1)) & (covered >= 2))
        return np.where(right, RIGHT, np.where(touching == 0, WRONG, OPEN)).astype(np.int8)

    some = np.arange(0, len(images), 2)
    askers = np.arange(0, len(captions), 9)
    of_pictures = labels(shown[some], near[some], owners == some[:, None])
    of_texts = labels(says[askers], near_says[askers], owners == owners[askers][:, None])
    text_scores = vectors[askers] @ vectors.T
    text_scores[np.arange(len(askers)), askers] = -2
    return {
        "i2t": _first(images[some], images[some] @ vectors.T, of_pictures, np.arange(len(some))),
        "t2t": _first(vectors[askers], text_scores, of_texts, np.arange(len(askers))),
    }


def _first(
    queries: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int8], askers: NDArray[np.int64]
) -> Found:
    order = np.argsort(-scores[askers], axis=1, kind="stable")[:, :DEEP]
    rows = askers[:, None]
    return queries[askers], scores[rows, order], labels[rows, order]


def _standard(
    background: Background,
    direction: Direction,
    queries: NDArray[np.float32],
    scores: NDArray[np.float32],
    labels: NDArray[np.int8],
) -> Pairs:
    """Scores in units of the background."""
    middle = np.array([background.standard(query, direction) for query in queries])  # (q, 2)
    return (scores - middle[:, :1]) / middle[:, 1:], labels


if __name__ == "__main__":
    main()
