"""How far probabilities can be believed, where the cut-off lies, how often a query that matches nothing is recognised.

Three collections that played no part in fitting: Flickr8k test (words, phrases and sentences from its captions;
training/mentions.py says what counts as right, wrong and left open), the clothing photographs and Caltech101 (the names
of their kinds). absent_queries.txt is asked in vain of each. The baseline is the best fixed cosine threshold, chosen on
the fitting data. In: --data (or MMSEARCH_DATA) with flickr8k.tar, clothing.tar, caltech101.tar.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from common import parser, table, write_report
from numpy.typing import NDArray
from quality import PLAIN_NAMES, contents, encode

from mmsearch import metrics
from mmsearch.calibrating import background_of, neutral_queries
from mmsearch.encoders.protocol import Encoder
from mmsearch.encoders.registry import load_encoder
from mmsearch.relevance import HITS, Calibration, Direction, calibration_for, to_json
from mmsearch.training.mentions import OPEN, RIGHT, WRONG, Asked, Mentions, words_of

if TYPE_CHECKING:
    from mmsearch.training.calibrate import Found

LINE = 0.5
IN_VAIN = 0.3  # of the queries that the reliability is measured on, as in fitting
MANY = 300
NOTE = (
    "How independent these figures are: every number was fitted, and every choice between variants made, on Flickr8k "
    "dev. But the three collections below were looked at four times on the way: once before anything was fitted, to "
    "see how hard the task is, after which lines that an everyday photograph may well show unmentioned (a traffic "
    "light, say) were taken off absent_queries.txt; and after each of three fits. The first two fell short on Flickr8k "
    "test (65 and 79 % recognised), and led to the work that dev then decided: another bank of neutral queries, and "
    "the number of pictures searched. Caltech101 got worse by that (from 23 to 47 % refused), which was left as it is."
)
SHIRTS = frozenset({"shirt", "t-shirt", "longsleeve"})  # which of them a photograph shows is a matter of taste
TYPED = {  # names of Caltech101 as people would type them
    "Faces_easy": "face", "car_side": "car", "cougar_body": "cougar", "crocodile_head": "crocodile",
    "yin_yang": "yin yang", "flamingo_head": "flamingo", "water_lilly": "water lily", "joshua_tree": "joshua tree",
    "hawksbill": "sea turtle",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Collection:
    """images: (n, d). queries: those it answers, then those asked in vain."""

    name: str
    images: NDArray[np.float32]
    queries: list[Asked]


@dataclass(frozen=True, slots=True)
class Answers:
    """Of all queries of a collection, (q, n), hits in the order of their scores."""

    kinds: NDArray[np.str_]
    scores: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    labels: NDArray[np.int8]

    @property
    def vain(self) -> NDArray[np.bool_]:
        return np.array(self.kinds == "absent")

    def weights(self, in_vain: float) -> NDArray[np.float64]:
        """(q,): kinds that are answered weigh the same, those in vain so much of all."""
        made = np.zeros(len(self.kinds))
        kinds = sorted(set(self.kinds) - {"absent"})
        for kind in kinds:
            made[self.kinds == kind] = (1 - in_vain) / len(kinds) / (self.kinds == kind).sum()
        made[self.vain] = in_vain / self.vain.sum()
        return made


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", type=Path, default=os.environ.get("MMSEARCH_DATA"), help="folder of the data")
    args = options.parse_args()
    encoder = load_encoder(args.model)
    calibration = calibration_for(encoder, None)
    if calibration is None:
        options.error(f"{args.model} has no calibration; python -m mmsearch.training.calibrate makes one")
    if args.quick:
        collections = [quick(encoder)]
        fitted = collections[0]
    elif args.data is None:
        options.error("name the folder of the data with --data DIR or MMSEARCH_DATA")
    else:
        fitted = flickr8k(args.data, encoder, "dev")
        collections = [flickr8k(args.data, encoder, "test"), *(labelled(args.data, encoder, n) for n in KINDS)]
    threshold = best_threshold(answer(fitted, encoder, calibration))
    answers = {one.name: answer(one, encoder, calibration) for one in collections}
    write_report(
        args,
        f"Can the probabilities of `{encoder.space.name if args.model == 'lite' else 'the encoder'}` be believed?",
        [
            __doc__.split("\n\n", 1)[1].split(" In: --data")[0].replace("\n", " "),
            NOTE,
            summary(answers, threshold),
            kinds_of_queries(answers, threshold),
            cut_off(answers, threshold),
            *(reliability(name, one) for name, one in answers.items()),
            *([] if args.quick else [other_directions(args.data, encoder, calibration)]),
            without_the_thing(collections, encoder, calibration),
            rough(fitted, collections, encoder),
        ],
        packages=("numpy", "onnxruntime", "tokenizers", "pillow"),
    )


# --- collections ------------------------------------------------------------------------------------------------


def flickr8k(data: Path, encoder: Encoder, split: str) -> Collection:
    """The pictures of a split, and what its captions mention."""
    images, mentions = split_of(data, encoder, split)
    asked = [*mentions.words(), *mentions.phrases(MANY), *mentions.sentences(MANY), *mentions.absent(absent_queries())]
    return Collection(f"Flickr8k {split}", images, asked)


def split_of(data: Path, encoder: Encoder, split: str) -> tuple[NDArray[np.float32], Mentions]:
    files = contents(data / "flickr8k.tar")
    captions: dict[str, list[str]] = {}
    for row in csv.DictReader(io.StringIO(files["captions.csv"].decode())):
        captions.setdefault(row["image"], []).append(row["caption"])
    names = files[f"{split}.txt"].decode().split()
    mentions = Mentions([captions[name] for name in names])
    return encode(encoder, [files[f"images/{name}"] for name in names]), mentions


KINDS = ("clothing", "caltech101")


def labelled(data: Path, encoder: Encoder, name: str) -> Collection:
    """Folders that say what is in them; each kind is asked for by its name, bare and with an article."""
    pictures = {path: file for path, file in contents(data / f"{name}.tar").items() if path.startswith("images/")}
    kinds = np.array([path.split("/")[-2] for path in pictures])
    known = sorted(set(kinds))
    shown = {kind: TYPED.get(kind, PLAIN_NAMES.get(kind, kind.replace("_", " ").lower())) for kind in known}
    asked = []
    for kind in known:
        near = [o for o in known if set(words_of(shown[o])) & set(words_of(shown[kind])) or {o, kind} <= SHIRTS]
        labels = np.where(kinds == kind, RIGHT, np.where(np.isin(kinds, near), OPEN, WRONG)).astype(np.int8)
        asked += [Asked(text, "name", labels, labels == RIGHT) for text in (shown[kind], f"a {shown[kind]}")]
    taken = {word for text in shown.values() for word in words_of(text)}
    nothing = np.zeros(len(kinds), np.int8)
    vain = [text for text in absent_queries() if not any(f(word) in taken for word in words_of(text) for f in FORMS)]
    asked += [Asked(text, "absent", nothing, nothing == RIGHT) for text in vain if text not in SHOWN.get(name, ())]
    return Collection(name, encode(encoder, list(pictures.values())), asked)


FORMS = (str, lambda word: word.removesuffix("s"), lambda word: word.removesuffix("es"), lambda word: f"{word}s")
SHOWN = {  # what photographs of other names show
    "caltech101": (
        "a tarantula", "a fossil", "a dinosaur skeleton", "a mosque with minarets", "a viking ship", "a fighter jet",
        "a candelabra", "a lion and a lioness", "a drawbridge", "an elephant with its calf", "penguins on the ice",
        "a kangaroo with a joey", "a suit of armour", "a greek temple", "the great wall of china",
    ),
    "clothing": (),
}  # fmt: skip


def quick(encoder: Encoder) -> Collection:
    """The demo pictures, asked for by their captions."""
    folder = Path(__file__).parents[1] / "data" / "demo"
    with (folder / "captions.csv").open(encoding="utf-8", newline="") as stream:
        captions = [(row["image"], row["caption"]) for row in csv.DictReader(stream)]
    images = encode(encoder, [(folder / "images" / name).read_bytes() for name, _ in captions])
    own = np.eye(len(captions), dtype=np.int8) * RIGHT
    asked = [Asked(text, "sentence", labels, labels == RIGHT) for (_, text), labels in zip(captions, own, strict=True)]
    nothing = np.zeros(len(captions), np.int8)
    asked += [Asked(text, "absent", nothing, nothing == RIGHT) for text in absent_queries()[:40]]
    return Collection("demo", images, asked)


def absent_queries() -> list[str]:
    lines = Path(__file__).with_name("absent_queries.txt").read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


# --- answers ----------------------------------------------------------------------------------------------------


def answer(collection: Collection, encoder: Encoder, calibration: Calibration) -> Answers:
    """Ask every query of all pictures."""
    vectors = encoder.encode_texts([one.text for one in collection.queries])
    scores = (vectors @ collection.images.T).astype(np.float64)
    order = np.argsort(-scores, axis=1, kind="stable")
    scores = np.take_along_axis(scores, order, axis=1)
    probabilities = np.empty_like(scores)
    for row, vector in enumerate(vectors):
        scale = calibration.scale(vector, "t2i", collection.images[order[row, :HITS]], len(collection.images))
        assert scale is not None
        probabilities[row] = scale.probability(scores[row])
    labels = np.stack([one.labels for one in collection.queries])
    kinds = np.array([one.kind for one in collection.queries])
    return Answers(kinds, scores, probabilities, np.take_along_axis(labels, order, axis=1))


def best_threshold(answers: Answers) -> float:
    """The cosine that tells queries in vain from the others best, by the mean of both shares; kinds weigh the same."""
    best, weights = answers.scores[:, 0], answers.weights(0.5)
    right = [weights[(best >= one) != answers.vain].sum() for one in best]
    return float(best[int(np.argmax(right))])


def recognised(best: NDArray[np.float64], line: float, answers: Answers) -> tuple[float, float]:
    """-> shares of the queries in vain that are recognised, of the others that are refused (kinds weigh the same)."""
    weights, below = answers.weights(0.5), best < line

    def share(which: NDArray[np.bool_]) -> float:
        return float(np.average(below[which], weights=weights[which]))

    return share(answers.vain), share(~answers.vain)


def percent(share: float) -> str:
    return f"{share * 100:.1f}"


def calibration_error(answers: Answers, in_vain: float) -> float:
    """Of the first hits that are not left open."""
    counted = answers.labels[:, :HITS] != OPEN
    weights = np.repeat(answers.weights(in_vain)[:, None], counted.shape[1], axis=1)[counted]
    right = answers.labels[:, :HITS][counted] == RIGHT
    return metrics.calibration_error(answers.probabilities[:, :HITS][counted], right, weights)


# --- report -----------------------------------------------------------------------------------------------------


def summary(answers: dict[str, Answers], threshold: float) -> str:
    rows = []
    for name, one in answers.items():
        found = recognised(one.probabilities[:, 0], LINE, one)
        fixed = recognised(one.scores[:, 0], threshold, one)
        errors = calibration_error(one, IN_VAIN), calibration_error(one, 0.5)
        counts = int((~one.vain).sum()), int(one.vain.sum())
        rows.append([name, *counts, *map(percent, found), *map(percent, fixed), *(f"{e:.3f}" for e in errors)])
    columns = [
        "collection", "queries answered", "in vain", "recognised %", "refused %",
        "recognised, fixed %", "refused, fixed %", "ECE", "ECE, half in vain",
    ]  # fmt: skip
    return (
        f"Recognised: queries in vain of which no hit has a probability of {LINE}. Refused: queries that some picture "
        "answers, and of which no hit has. Words, phrases and sentences weigh the same. Fixed: the same with a cosine "
        f"of {threshold:.3f} for all queries, the best on the fitting data. Goals: recognised at least 80, refused at "
        f"most 10, ECE at most 0.05. ECE: the first {HITS} hits of each query, hits left open by captions not counted, "
        "ten bins of equal width; three queries in ten asked in vain as in fitting, and one in two.\n\n"
        + table(columns, rows)
    )


def kinds_of_queries(answers: dict[str, Answers], threshold: float) -> str:
    rows = []
    for name, one in answers.items():
        for kind in sorted(set(one.kinds) - {"absent"}):
            which = one.kinds == kind
            first, labels = one.probabilities[which, 0], one.labels[which]
            counted = labels[:, 0] != OPEN
            rows.append(
                [
                    f"{name}, {kind}", int(which.sum()), percent(float((first < LINE).mean())),
                    percent(float((one.scores[which, 0] < threshold).mean())),
                    percent(float((labels[counted, 0] == RIGHT).mean())),
                    percent(float((labels[:, :HITS] == RIGHT).any(1).mean())),
                ]
            )  # fmt: skip
    columns = ["asked for", "queries", "refused %", "refused, fixed %", "first hit right %", f"right in {HITS} %"]
    return "What was refused, by kind; and how often the encoder finds it at all.\n\n" + table(columns, rows)


def cut_off(answers: dict[str, Answers], threshold: float) -> str:
    rows = []
    for name, one in answers.items():
        for way, shown in (("probability", one.probabilities >= LINE), ("fixed", one.scores >= threshold)):
            right, counted = one.labels == RIGHT, one.labels != OPEN
            asked = ~one.vain
            above = shown[asked].sum(1)
            precision = (shown & right)[asked].sum() / max(1, (shown & counted)[asked].sum())
            everything = (shown & right).sum() / max(1, (shown & counted).sum())
            some = right[asked].any(1)
            recall = ((shown & right)[asked].sum(1)[some] / right[asked].sum(1)[some]).mean()
            rows.append(
                [f"{name}, {way}", percent(precision), percent(everything), percent(recall), f"{np.median(above):g}"]
            )
    columns = ["cut-off", "precision %", "queries in vain included %", "recall %", "median hits above"]
    return (
        "All pictures above the line, over all queries: precision, of hits not left open; recall, of the pictures that "
        "the query is right for, mean over queries.\n\n" + table(columns, rows)
    )


def reliability(name: str, answers: Answers) -> str:
    counted = answers.labels[:, :HITS] != OPEN
    weights = np.repeat(answers.weights(IN_VAIN)[:, None], counted.shape[1], axis=1)[counted]
    right = answers.labels[:, :HITS][counted] == RIGHT
    bins = metrics.reliability(answers.probabilities[:, :HITS][counted], right, weights)
    rows = [
        [f"{one.low:.1f} to {one.high:.1f}", percent(one.share), f"{one.mean_probability:.3f}", f"{one.right:.3f}"]
        for one in bins
    ]
    left_open = 1 - counted[~answers.vain].mean()
    return (
        f"Reliability on {name}; {percent(left_open)} % of the hits of queries that are answered are left open.\n\n"
        + table(["probability", "share of hits %", "mean probability", "right"], rows)
    )


def other_directions(data: Path, encoder: Encoder, calibration: Calibration) -> str:
    """Pictures that ask, and captions that are found, on Flickr8k test."""
    from mmsearch.training.calibrate import pairs_of_pictures, pairs_of_sentences

    images, mentions = split_of(data, encoder, "test")
    asked: dict[Direction, Found] = {
        "i2i": pairs_of_pictures(images, mentions),
        **pairs_of_sentences(encoder, images, mentions),
    }
    rows = []
    for direction, (queries, scores, labels) in asked.items():
        scales = [calibration.scale(query, direction) for query in queries]
        probabilities = np.stack([scale.probability(s) for scale, s in zip(scales, scores, strict=True) if scale])
        counted = labels != OPEN
        likely, right = probabilities[counted], labels[counted] == RIGHT
        rows.append(
            [
                direction, len(queries), percent(float(1 - counted.mean())), percent(float(right.mean())),
                f"{metrics.calibration_error(likely, right):.3f}",
                percent(float(right[likely >= LINE].mean())), percent(float((likely[right] >= LINE).mean())),
            ]
        )  # fmt: skip
    columns = ["direction", "queries", "left open %", "right %", "ECE", "precision above the line %", "recall of it %"]
    return (
        "The other directions on Flickr8k test: the first 20 hits of pictures that look for pictures (i2i) or captions "
        "(i2t), and of captions that look for captions (t2t); training/calibrate.py says what is right. Nothing is "
        "asked in vain here, and most hits are left open: these figures say little.\n\n" + table(columns, rows)
    )


def without_the_thing(collections: Sequence[Collection], encoder: Encoder, calibration: Calibration) -> str:
    """The hardest way of asking in vain: for what was there a moment ago, among everything that is like it."""
    rows = []
    for one in collections:
        gone = [query for query in one.queries if query.kind in ("word", "name")]
        recognised_ones = 0
        for query, vector in zip(gone, encoder.encode_texts([query.text for query in gone]), strict=True):
            images = one.images[query.labels == WRONG]
            order = np.argsort(-(images @ vector), kind="stable")[:HITS]
            scale = calibration.scale(vector, "t2i", images[order], len(images))
            assert scale is not None
            recognised_ones += bool(scale.probability(images[order[:1]] @ vector)[0] < LINE)
        if gone:
            rows.append([one.name, len(gone), percent(recognised_ones / len(gone))])
    return (
        "Much harder, and no goal: the same words and names asked of the collections after every picture that shows "
        "them was taken out; hats are then asked for among all other clothes.\n\n"
        + table(["collection", "queries", "recognised %"], rows)
    )


def rough(fitted: Collection, collections: Sequence[Collection], encoder: Encoder) -> str:
    """A space without its own calibration: background and bank of the collection itself, borrowed weights."""
    rows = []
    for one in collections:
        background = background_of(one.images, encoder.encode_texts(neutral_queries()))
        assert background is not None
        stored = to_json(background)
        calibration = calibration_for(None, stored)
        assert calibration is not None
        answers = answer(one, encoder, calibration)
        found = recognised(answers.probabilities[:, 0], LINE, answers)
        rows.append([one.name, *map(percent, found), f"{calibration_error(answers, IN_VAIN):.3f}"])
    return (
        "The same encoder as if it had brought no calibration along: the collection's own pictures are the background, "
        f"the weights are those for unknown spaces (which were fitted with this encoder on {fitted.name}).\n\n"
        + table(["collection", "recognised %", "refused %", "ECE"], rows)
    )


if __name__ == "__main__":
    main()
