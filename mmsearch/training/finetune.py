"""Fit an encoder to someone's own pictures, without touching its towers.

In: an encoder, pictures with what is said about them. Out: small maps on its vectors (nn/heads.py, `Adapter`), and what
they gain on pictures that they were not trained on.

    held out   every picture once: the pictures are divided into FOLDS parts, and each is measured with maps that were
               trained on the others. Where the set names its own test pictures, these alone; of very many, one part
    strength   the maps count only as far as they help others than those they were trained on (WiSE-FT: Wortsman et
               al. 2022, arXiv 2109.01903). It is chosen on parts that are held out, never on what it is measured on
    written    maps trained on all pictures but those named for tests, with the strength that is best over all parts

As the encoder stays, its vectors are computed once; the rest is a minute on two cores.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmsearch.calibrating import neutral_queries
from mmsearch.encoders.protocol import Encoder
from mmsearch.errors import UsageError
from mmsearch.judging import Values
from mmsearch.nn.dual_encoder import DualEncoder
from mmsearch.nn.heads import Adapter
from mmsearch.nn.tuning import wise_ft
from mmsearch.testsets import Captioned, Labelled
from mmsearch.training.batches import Batches
from mmsearch.training.build import adapter, objective_of
from mmsearch.training.cache import FeatureCache
from mmsearch.training.examples import OnProgress
from mmsearch.training.learners.learner import Learner
from mmsearch.training.locked import of_encoder
from mmsearch.training.loop import Trained, forget, train
from mmsearch.training.material import Source
from mmsearch.training.measuring import Compared, compared, figures, judged, together
from mmsearch.training.mixing import Weighted
from mmsearch.training.objectives.anchored import Anchored
from mmsearch.training.picture import Picture
from mmsearch.training.recipe import Recipe
from mmsearch.training.splits import by_picture, folds

FOLDS = 5
MANY = 5_000  # pictures, above which one part is enough to measure on
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)

Part = tuple[Captioned | Labelled, dict[float, tuple[Values, ...]]]


@dataclass(frozen=True, slots=True)
class Fitted:
    """encoder: on rows of the encoder below. strength: 0 to 1. held_out: before and after."""

    encoder: DualEncoder
    strength: float
    held_out: Compared
    trained: Trained


def fit(
    recipe: Recipe,
    base: Encoder,
    sets: Sequence[Weighted],
    cache: FeatureCache,
    folder: Path,
    on_progress: OnProgress | None,
    *,
    keep_checkpoints: bool = False,
) -> Fitted:
    """folder: for checkpoints and logs. keep_checkpoints: until `forget_rounds`, the same rounds are not trained again
    (see `train`). Raises what `train` raises, UsageError for sets that cannot be divided."""
    about = "; ".join(one.supervised.about for one in sets)
    test, apart, parts = _divided(about, sets, recipe.seed)
    rounds = len(parts) + bool(test or apart) + (not test)
    source = Source(cache, of_encoder(base), True, True, on_progress=on_progress)
    pictures = [picture for one in sets for picture in one.supervised.pictures]
    source.train_images(pictures, recipe)  # all rows at once: each round finds its own among them
    source.train_texts(pictures)
    fitting = _Fitting(recipe, sets, about, source, base.space.dimension, folder, rounds, keep_checkpoints)
    alone = test or apart
    measured: list[Part] = []
    for number, part in enumerate(parts):
        learnt, _ = fitting.train(number, [*alone, *part])
        measured.append(fitting.measured(learnt, part))
    strength = _best(measured)
    if alone:
        whole, trained = fitting.train(len(parts), alone)
        measured, chosen = [fitting.measured(whole, alone)], [strength]
    else:
        chosen = [_best([one for one in measured if one is not part]) for part in measured]
    before = together([(asked, values[0.0]) for asked, values in measured])
    after = together([(part[0], part[1][one]) for part, one in zip(measured, chosen, strict=True)])
    if not test:
        whole, trained = fitting.train(rounds - 1, [])
    share = strength * recipe.interpolate
    return Fitted(with_strength(whole, share), share, compared(about, before, after), trained)


def forget_rounds(folder: Path) -> None:
    """The maps lie elsewhere, whole: the next run begins anew."""
    for one in folder.glob("round-*"):
        forget(one)


def _divided(
    about: str, sets: Sequence[Weighted], seed: int
) -> tuple[list[Picture], list[Picture], list[list[Picture]]]:
    """-> pictures that the sets name for tests, with their copies; without them, of very many pictures, a part that is
    measured alone; and the parts on which strengths are chosen. Each content once."""
    sides = by_picture([one.supervised for one in sets], dev=0, test=0, seed=seed)
    test = list({picture.content: picture for side in sides for picture in side.test}.values())
    named = {picture.content for picture in test}
    pictures = {picture.content: picture for one in sets for picture in one.supervised.pictures}
    rest = [picture for content, picture in pictures.items() if content not in named]
    parts = _parts(about, rest, seed)
    if len(rest) <= MANY:
        return test, [], parts
    return (test, [], parts[:1]) if test else ([], parts[0], parts[1:2])


def _parts(about: str, pictures: Sequence[Picture], seed: int) -> list[list[Picture]]:
    """FOLDS parts, fewer where a part would have nothing to ask for. Raises UsageError where there are no two."""
    captioned = any(picture.captions for picture in pictures)
    for count in range(FOLDS, 1, -1):
        parts = folds(pictures, count, seed=seed)
        if all(_can_be_asked(part, captioned) for part in parts):
            return parts
    what = "a caption" if captioned else "two labels"
    raise UsageError(f"{about} cannot be divided into parts that have {what} each; add pictures.")


def _can_be_asked(pictures: Sequence[Picture], captioned: bool) -> bool:
    if captioned:
        return any(picture.captions for picture in pictures)
    return len({label for picture in pictures for label in picture.labels}) > 1


@dataclass(frozen=True, slots=True)
class _Fitting:
    """What all rounds of training share. width: of the vectors."""

    recipe: Recipe
    sets: Sequence[Weighted]
    about: str
    source: Source
    width: int
    folder: Path
    rounds: int
    keep_checkpoints: bool

    def train(self, number: int, without: Sequence[Picture]) -> tuple[DualEncoder, Trained]:
        """A round on all pictures but those of these contents; from the same beginning each time."""
        recipe, source = self.recipe, self.source
        left_out = {picture.content for picture in without}
        torch.manual_seed(recipe.seed)
        learner = adapter(self.width)
        used = [
            (one.weight, [picture for picture in one.supervised.pictures if picture.content not in left_out])
            for one in self.sets
        ]
        used = [one for one in used if one[1]]
        pictures = [picture for _, one in used for picture in one]
        images, texts = source.train_images(pictures, recipe), source.train_texts(pictures)
        with Batches(used, size=recipe.batch, seed=recipe.seed, images=images, texts=texts) as batches:
            trained = train(
                learner, self._objective(learner), batches.batch, recipe, self.folder / f"round-{number}",
                data=batches.mark, keep_checkpoint=self.keep_checkpoints, on_progress=self._report(number),
            )  # fmt: skip
        return learner.encoder, trained

    def measured(self, encoder: DualEncoder, held: Sequence[Picture]) -> Part:
        side, cpu = self.source.held_out(self.about, held), torch.device("cpu")
        shares = {strength: strength * self.recipe.interpolate for strength in STRENGTHS}
        return side.test, {
            strength: judged(with_strength(encoder, share), side, cpu) for strength, share in shares.items()
        }

    def _objective(self, learner: Learner) -> nn.Module:
        objective = objective_of(self.recipe, self.width)
        if not self.recipe.general_weight:
            return objective
        heads = (learner.encoder.image_head, learner.encoder.text_head)
        adapters = [head for head in heads if isinstance(head, Adapter)]
        return Anchored(objective, adapters, self._anchors(), self.recipe.general_weight)

    def _anchors(self) -> Tensor:
        """(m, d): what everyday texts are to the encoder below."""
        assert self.source.locked is not None
        texts = neutral_queries()
        rows = self.source.cache.texts(self.source.locked, texts, on_progress=self.source.on_progress)
        return torch.from_numpy(rows.take(np.arange(len(texts))))

    def _report(self, number: int) -> OnProgress | None:
        """All rounds as one, so that the time left is that of all."""
        report, steps = self.source.on_progress, self.recipe.steps
        if report is None:
            return None
        return lambda one: report(replace(one, done=number * steps + one.done, total=self.rounds * steps))


def _best(parts: Sequence[Part]) -> float:
    """The strength that helps held-out pictures most; the weaker one of two that help alike."""
    score = {
        strength: sum(figures(values[strength])["recall"] * len(test.pictures) for test, values in parts)
        for strength in STRENGTHS
    }
    return max(STRENGTHS, key=lambda strength: (round(score[strength], 6), -strength))


def with_strength(encoder: DualEncoder, strength: float) -> DualEncoder:
    """Between the identity (0) and what was learnt (1)."""
    made = copy.deepcopy(encoder)
    after = encoder.state_dict()
    made.load_state_dict(wise_ft({name: torch.zeros_like(value) for name, value in after.items()}, after, strength))
    return made.eval()
