"""From cosine scores to probabilities: is it in the collection at all, and which of the hits are right?

In: a query vector, and the rows of its best hits among so many. Out: a `Scale`, the mapping from this query's scores to
probabilities. It rises with the score, so that probabilities never contradict the ranking and the cut-off is a line in
the list.

Cosines of different queries cannot be compared: what is a good score for "a dog" is noise for "basketball". Two
backgrounds make them comparable: the mean and the spread of scores over pictures that were not asked for, and a bank
of some 750 neutral queries (labels.txt). A picture that does show what was asked for scores high among the
neutral queries, too; where it is only the least bad of a collection, others describe it better.

    presence    a logistic of the best hit's score, of how far the best hits' scores stand above those of the neutral
                queries on the same pictures (in each part of the space), of how many of these beat the query, and of
                how close the query lies to them (what is common scores lower than what is special), and of how many
                pictures were searched (the more there are, the better is the best by chance): is anything there that
                was asked for?
    best hit    its probability is presence, made honest: one half stays one half, so that the line between something
                and nothing lies where presence puts it; on either side it goes as far as hits were found to be right
    other hits  fall off from there, the faster the closer the scores lie together

All of it was fitted on labelled pairs by `mmsearch.training.calibrate`, in units of the background, and is stored with
the encoder. A space without such a file is calibrated by the collection itself (calibrating.py): its own pictures are
the background, and the weights are those fitted for the towers of `lite` without regard to the parts of their space
(ROUGH).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import ModelError
from mmsearch.types import CalibrationKind

if TYPE_CHECKING:
    from mmsearch.encoders.protocol import Encoder

Direction = Literal["t2i", "i2i", "i2t", "t2t"]  # what asks (texts, pictures), what is found (images, captions)
DIRECTIONS: tuple[Direction, ...] = ("t2i", "i2i", "i2t", "t2t")

FORMAT = 1
FEATURES = 5  # what `Background.features` gives besides one number for each part of the space
HITS = 10  # so many of the best hits tell how quickly scores fall
LEADERS = 5  # so many of them are compared with the neutral queries
FEWEST, MOST = 50, 10_000  # pictures searched: how probabilities go on below and above was not measured
NO_GAP = 0.1  # added to the distance of the best to the tenth hit, before its logarithm: scores may be equal


@dataclass(frozen=True, slots=True)
class Scale:
    """One query's mapping from cosine score to probability: 1 / (1 + exp(-(slope * score + intercept))), slope > 0."""

    slope: float
    intercept: float

    def probability(self, scores: NDArray[Any]) -> NDArray[np.float64]:
        """Scores of any shape -> probabilities, 0 to 1."""
        logits = self.slope * np.asarray(scores, np.float64) + self.intercept
        return np.asarray(1 / (1 + np.exp(-np.clip(logits, -500, 500))), np.float64)


@dataclass(frozen=True, slots=True)
class Weights:
    """What was fitted, in units of the background. Scores are (score - mean) / spread there.

    presence: constant, best score, height above the neutral queries in each part, logarithm of the neutral queries that
        beat the query, its mean cosine to them (above their own to one another), logarithm of the pictures searched.
    best: what the presence logit is multiplied by where it is positive, and where it is negative.
    fall: logarithm of the slope: constant, and times the logarithm of (best - tenth score + NO_GAP).
    usual_gap: that logarithm where there are fewer than ten hits.
    plain: direction -> slope and intercept of a logistic of the score alone.
    """

    presence: tuple[float, ...]
    best: tuple[float, float]
    fall: tuple[float, float]
    usual_gap: float
    plain: Mapping[str, tuple[float, float]]


# Written by `python -m mmsearch.training.calibrate` for `lite` without its known pairs, which other encoders do not
# have, as if its space had one part.
ROUGH = Weights(
    presence=(4.7974, 0.2607, 1.4273, -1.0457, 3.1125, -1.1568),
    best=(0.4659, 2.2272),
    fall=(0.8828, -0.5701),
    usual_gap=0.3704,
    plain={"t2i": (1.2819, -5.1184), "i2i": (1.8684, -3.7285), "i2t": (2.0014, -6.0565), "t2t": (1.658, -6.2106)},
)


@dataclass(frozen=True)
class Background:
    """What scores look like where nothing was asked for, in one space of dimension d.

    images_mean, captions_mean: (d,) float64, mean vectors. bank: (n, d) float32, neutral queries, unit length; no rows
    for a space without texts. parts: the space's dimensions in consecutive stretches that are compared separately,
    each as long as it says; one stretch where nothing is known. spreads: direction -> mean standard deviation of one
    query's scores.
    """

    images_mean: NDArray[np.float64]
    captions_mean: NDArray[np.float64]
    bank: NDArray[np.float32]
    parts: tuple[int, ...]
    spreads: Mapping[str, float]

    @cached_property
    def _slices(self) -> list[slice]:
        ends = np.cumsum(self.parts).tolist()
        return [slice(end - length, end) for length, end in zip(self.parts, ends, strict=True)]

    def standard(self, query: NDArray[np.floating], direction: Direction) -> tuple[float, float]:
        """-> (mean, spread) of the scores that this query would have over the background."""
        mean = self.images_mean if direction.endswith("i") else self.captions_mean
        return float(query @ mean), self.spreads[direction]

    def features(
        self, query: NDArray[np.floating], best: NDArray[np.floating], among: int
    ) -> tuple[NDArray[np.float64], float | None]:
        """query (d,) and best (m, d), unit length, m > 0, best first; among: how many pictures were searched
        -> (what `Weights.presence` weighs, the constant 1 first; the gap that `Weights.fall` weighs, None for fewer
        than ten hits)."""
        query, best = np.asarray(query, np.float32), np.asarray(best, np.float32)
        mean, spread = self.standard(query, "t2i")
        scores = (np.asarray(best[:HITS] @ query, np.float64) - mean) / spread
        leaders = best[:LEADERS]
        heights = []
        beaten_by = np.zeros((len(self.bank), len(leaders)))
        own = np.zeros(len(leaders))
        for part in self._slices:
            neutral, mine = self.bank[:, part] @ leaders[:, part].T, leaders[:, part] @ query[part]  # (n, m), (m,)
            heights.append(float(((mine - neutral.mean(0)) / (neutral.std(0) + 1e-6)).mean()))
            beaten_by += neutral
            own += mine
        rank = float(np.log1p((beaten_by > own).sum(0)).mean())
        gap = None if len(scores) < HITS else float(np.log(max(0.0, scores[0] - scores[HITS - 1]) + NO_GAP))
        nearness = float((query - self.captions_mean) @ self.captions_mean) / self.spreads["t2t"]
        size = float(np.log(min(max(among, FEWEST), MOST)))
        return np.array([1.0, scores[0], *heights, rank, nearness, size]), gap


class Calibration:
    """How scores of one space become probabilities. Immutable.

    kind: `encoder` where the weights were fitted for it, `collection` where they are borrowed.
    """

    def __init__(self, kind: CalibrationKind, background: Background, weights: Weights) -> None:
        self.kind: CalibrationKind = kind
        self.background, self.weights = background, weights

    def scale(
        self,
        query: NDArray[np.float32],
        direction: Direction,
        best: NDArray[np.floating] | None = None,
        among: int = 1000,
    ) -> Scale | None:
        """The mapping for one query, (d,) unit length; None where this space cannot tell (no texts are known in it).

        best: (m, d), rows of its best hits over everything that was searched, best first; ten are looked at. among: how
        many that were. With them, a text can be told to be absent; without, the score alone has to do.
        """
        if direction not in self.background.spreads:
            return None
        mean, spread = self.background.standard(query, direction)
        if direction == "t2i" and best is not None and len(best):
            slope, intercept = self._of_hits(*self.background.features(query, best, among))
        else:
            slope, intercept = self.weights.plain[direction]
        return Scale(slope / spread, intercept - slope * mean / spread)

    def spread(self, modality: Literal["texts", "pictures"]) -> float:
        """How far the scores of one text, or of one picture, spread over images that have nothing to do with it: their
        typical standard deviation. 1 where it is not known."""
        return self.background.spreads.get("t2i" if modality == "texts" else "i2i", 1.0)

    def _of_hits(self, features: NDArray[np.float64], gap: float | None) -> tuple[float, float]:
        """-> slope and intercept, for scores in units of the background."""
        weights = self.weights
        presence = float(features @ np.array(weights.presence))
        logit = presence * weights.best[0 if presence > 0 else 1]
        slope = float(np.exp(weights.fall[0] + weights.fall[1] * (weights.usual_gap if gap is None else gap)))
        return slope, logit - slope * float(features[1])


def own_calibration(encoder: Encoder | None) -> Mapping[str, Any] | None:
    """What an encoder brings along, if this version can read it."""
    own = getattr(encoder, "calibration", None)
    return own if isinstance(own, Mapping) and own.get("format") == FORMAT else None


def calibration_for(encoder: Encoder | None, stored: Mapping[str, Any] | None) -> Calibration | None:
    """The calibration of a space. encoder: its own, where it brings one along as an attribute `calibration` (what
    `to_json` makes), outranks the collection's. stored: what the catalog holds for the space; None for nothing."""
    own = own_calibration(encoder)
    if own is not None:
        return from_json(own, "encoder")
    if stored is not None and stored.get("format") == FORMAT and "background" in stored:
        return from_json(stored, "collection")
    return None


# --- stored form ------------------------------------------------------------------------------------------------


def to_json(background: Background, weights: Weights | None = None) -> dict[str, Any]:
    """What `from_json` reads. Vectors of the bank as 8-bit numbers with a scale a row: their scores change by less than
    a hundredth of a spread. weights: only where they were fitted for this space."""
    largest = np.abs(background.bank).max(axis=1, initial=1e-12) / 127
    whole = np.round(background.bank / largest[:, None]).astype(np.int8)
    made: dict[str, Any] = {
        "format": FORMAT,
        "background": {
            "images_mean": _packed(background.images_mean.astype("<f4")),
            "captions_mean": _packed(background.captions_mean.astype("<f4")),
            "bank": _packed(whole),
            "bank_scale": _packed(largest.astype("<f4")),
            "parts": list(background.parts),
            "spreads": dict(background.spreads),
        },
    }
    return made if weights is None else {**made, "weights": asdict(weights)}


def from_json(stored: Mapping[str, Any], kind: CalibrationKind) -> Calibration:
    """The calibration that `to_json` wrote. ModelError where it is not whole."""
    try:
        calibration = _from_json(stored, kind)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"The calibration of this space cannot be read ({type(error).__name__}: {error}); for a model of your own, "
            "`python -m mmsearch.training.calibrate` writes it anew, for a collection `mmsearch index` does."
        ) from error
    return calibration


def _from_json(stored: Mapping[str, Any], kind: CalibrationKind) -> Calibration:
    known = stored["background"]
    mean = _unpacked(known["images_mean"], "<f4")
    scale = _unpacked(known["bank_scale"], "<f4")
    bank = _unpacked(known["bank"], np.int8).reshape(len(scale), len(mean)) * scale[:, None]
    background = Background(
        images_mean=mean.astype(np.float64),
        captions_mean=_unpacked(known["captions_mean"], "<f4").astype(np.float64),
        bank=bank.astype(np.float32),
        parts=tuple(known["parts"]),
        spreads=known["spreads"],
    )
    weights = _weights(stored["weights"]) if "weights" in stored else ROUGH
    if len(weights.presence) != FEATURES + len(background.parts) or sum(background.parts) != len(mean):
        raise ValueError("its numbers do not fit together")
    return Calibration(kind, background, weights)


def _weights(stored: Mapping[str, Any]) -> Weights:
    return Weights(
        presence=tuple(stored["presence"]),
        best=_pair(stored["best"]),
        fall=_pair(stored["fall"]),
        usual_gap=float(stored["usual_gap"]),
        plain={direction: _pair(values) for direction, values in stored["plain"].items()},
    )


def _pair(values: Sequence[float]) -> tuple[float, float]:
    first, second = values
    return float(first), float(second)


def _packed(array: NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


def _unpacked(text: str, kind: Any) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(text), kind)
