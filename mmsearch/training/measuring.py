"""An encoder in training, measured on what it was not trained on, with the figures and intervals of `mmsearch eval`.

In: a `DualEncoder` and a held-out side. Out: values of each query (judging.py), so that before and after can be
compared on the same queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mmsearch import judging
from mmsearch.judging import Difference, Measure, Values
from mmsearch.nn.dual_encoder import DualEncoder
from mmsearch.testsets import Captioned, Labelled
from mmsearch.training.held_out import HeldOut
from mmsearch.training.picture import plain

BATCH = 64  # pictures or texts at once


@dataclass(frozen=True, slots=True)
class Compared:
    """One set, measured before and after: about, in one line; figures with 95 % intervals; what was gained."""

    about: str
    before: tuple[Measure, ...]
    after: tuple[Measure, ...]
    gained: tuple[Difference, ...]

    @property
    def asked(self) -> Difference:
        """What texts found more: text to image R@10, or mAP where labels are asked for."""
        return next(one for one in self.gained if one.direction == "t2i" and one.name in ("R@10", "mAP"))

    @property
    def main(self) -> Difference:
        """The difference that decides: `asked`; where labels are too few for its interval, what pictures of a label
        found of one another, as pictures are many."""
        sure = (one for one in self.gained if (one.direction, one.name) == ("i2i", "mAP") and one.low is not None)
        return self.asked if self.asked.low is not None else next(sure, self.asked)


@torch.inference_mode()
def vectors(
    encoder: DualEncoder, side: HeldOut, device: torch.device
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pictures (n, d) and texts (t, d) of the held-out side, unit length."""
    was_training = encoder.training
    encoder.eval()
    try:
        images = [encoder.images(part.to(device)).pooled for part in side.images(BATCH)]
        texts = [
            encoder.texts(part.to(device), None if mask is None else mask.to(device)).pooled
            for part, mask in side.texts(BATCH)
        ]
    finally:
        encoder.train(was_training)
    return _rows(images), _rows(texts)


def _rows(parts: Sequence[torch.Tensor | None]) -> NDArray[np.float32]:
    made: NDArray[np.float32] = torch.cat([part for part in parts if part is not None]).float().cpu().numpy()
    return made


def judged(encoder: DualEncoder, side: HeldOut, device: torch.device) -> tuple[Values, ...]:
    return together([(side.test, judging.judge(side.test, *vectors(encoder, side, device)))])


def compared(about: str, before: tuple[Values, ...], after: tuple[Values, ...]) -> Compared:
    """Both on the same queries."""
    return Compared(about, judging.measures(before), judging.measures(after), judging.differences(before, after))


def figures(values: Sequence[Values]) -> Mapping[str, float]:
    """Means by name as in `t2i_R@10`, and `recall`: the mean of all recalls (or mAPs), by which choices are made."""
    found = {
        f"{one.direction}_{name}": float(mean)
        for one in values
        for name, mean in zip(one.names, one.values.mean(axis=0), strict=True)
        if name.startswith("R@") or name == "mAP"
    }
    return found | {"recall": sum(found.values()) / len(found)}


def together(folds: Sequence[tuple[Captioned | Labelled, tuple[Values, ...]]]) -> tuple[Values, ...]:
    """Values of parts that share no picture, as those of one set. What texts found is grouped by what they say, over
    all parts: a label that is asked in several is one query, and so is one caption of fifty pictures."""
    subjects = _subjects([test for test, _ in folds])
    made = []
    for direction in dict.fromkeys(one.direction for _, values in folds for one in values):
        parts, groups, start = [], [], 0
        for (test, values), of_texts in zip(folds, subjects, strict=True):
            for one in values:
                if one.direction == direction:
                    parts.append(one)
                    groups.append(of_texts if direction == "t2i" else one.groups + start)
            start += len(test.pictures)
        ranks = [part.ranks for part in parts if part.ranks is not None]
        values_of_all = np.concatenate([part.values for part in parts])
        of_ranks = np.concatenate(ranks) if ranks else None
        made.append(Values(direction, parts[0].names, values_of_all, np.concatenate(groups), of_ranks))
    return tuple(made)


def _subjects(tests: Sequence[Captioned | Labelled]) -> list[NDArray[np.int64]]:
    """Of each text of each set, its group. All captions of a picture are one, and so are pictures that share a caption:
    of (A dog. | a pet), (a dog), (a cat) the groups are 0 0 0 1. Labels are their own."""
    parents: dict[str, str] = {}

    def first(text: str) -> str:
        while parents.setdefault(text, text) != text:
            parents[text] = text = parents[parents[text]]
        return text

    plain_texts = [[plain(text) if isinstance(test, Captioned) else text for text in test.texts] for test in tests]
    for test, texts in zip(tests, plain_texts, strict=True):
        of_picture: dict[int, str] = {}
        owners = test.owners.tolist() if isinstance(test, Captioned) else range(len(texts))
        for owner, text in zip(owners, texts, strict=True):
            parents[first(text)] = first(of_picture.setdefault(owner, text))
    numbers: dict[str, int] = {}
    return [
        np.array([numbers.setdefault(first(text), len(numbers)) for text in texts], np.int64) for texts in plain_texts
    ]
