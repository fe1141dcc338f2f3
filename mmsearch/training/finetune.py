"""Fit an encoder to someone's own pictures, without touching its towers.

In: an encoder, pictures with what is said about them. Out: small maps on its vectors (nn/heads.py, `Adapter`), and what
they gain on pictures that they were not trained on.

    held out   every picture once: the pictures are divided into FOLDS parts, and each part is measured with maps that
               were trained on the others. Where the set names its own test pictures, these; of very many, one part
    strength   the maps count only as far as they help others than those they were trained on (WiSE-FT: Wortsman et
               al. 2022, arXiv 2109.01903): for each part it is chosen on the other parts, in the end on all
    written    maps trained on all pictures, with that strength

As the encoder stays, its vectors are computed once; the rest is a minute on two cores.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmsearch.calibrating import neutral_queries
from mmsearch.encoders.protocol import Encoder
from mmsearch.judging import Values
from mmsearch.nn.dual_encoder import DualEncoder
from mmsearch.nn.heads import Adapter
from mmsearch.nn.tuning import wise_ft
from mmsearch.testsets import Captioned, Labelled
from mmsearch.training.batches import Batches
from mmsearch.training.build import adapter, objective_of
from mmsearch.training.cache import FeatureCache
from mmsearch.training.examples import Report
from mmsearch.training.locked import of_encoder
from mmsearch.training.loop import Trained, train
from mmsearch.training.material import Source
from mmsearch.training.measuring import Compared, compared, figures, judged, together
from mmsearch.training.mixing import Weighted
from mmsearch.training.objectives.anchored import Anchored
from mmsearch.training.picture import Picture
from mmsearch.training.recipe import Recipe
from mmsearch.training.splits import folds

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
    on_progress: Report | None,
) -> Fitted:
    """folder: for checkpoints and logs. Raises what `train` raises."""
    source = Source(cache, of_encoder(base), True, True, on_progress=on_progress)
    about = "; ".join(one.supervised.about for one in sets)
    pictures = list({picture.content: picture for one in sets for picture in one.supervised.pictures}.values())
    source.train_images(pictures, recipe)
    source.train_texts(pictures)
    parts: list[Part] = []
    for number, held in enumerate(_held_out(pictures, recipe.seed)):
        without = {picture.content for picture in held}
        learner, _ = _train(recipe, base, sets, without, source, folder / f"part-{number}", on_progress)
        parts.append(_measured(learner, about, held, source, recipe))
    chosen = [_best([one for one in parts if one is not part] or parts) for part in parts]
    before = together([(test, values[0.0]) for test, values in parts])
    after = together([(part[0], part[1][strength]) for part, strength in zip(parts, chosen, strict=True)])
    strength = _best(parts)
    whole, trained = _train(recipe, base, sets, set(), source, folder / "whole", on_progress)
    encoder = _with_strength(whole, strength * recipe.interpolate)
    return Fitted(encoder, strength * recipe.interpolate, compared(about, before, after), trained)


def _held_out(pictures: Sequence[Picture], seed: int) -> list[list[Picture]]:
    named = [picture for picture in pictures if picture.split == "test"]
    if named:
        return [named]
    parts = folds(pictures, FOLDS, seed=seed)
    return parts[:1] if len(pictures) > MANY else parts


def _train(
    recipe: Recipe,
    base: Encoder,
    sets: Sequence[Weighted],
    without: set[str],
    source: Source,
    folder: Path,
    on_progress: Report | None,
) -> tuple[DualEncoder, Trained]:
    """On all pictures but those whose content is in `without`."""
    torch.manual_seed(recipe.seed)
    learner = adapter(base.space.dimension)
    used = [
        (one.weight, [picture for picture in one.supervised.pictures if picture.content not in without]) for one in sets
    ]
    used = [one for one in used if one[1]]
    pictures = [picture for _, one in used for picture in one]
    with Batches(
        used,
        size=recipe.batch,
        seed=recipe.seed,
        images=source.train_images(pictures, recipe),
        texts=source.train_texts(pictures),
    ) as batches:
        objective = objective_of(recipe, base.space.dimension)
        if recipe.general_weight:
            heads = [
                head for head in (learner.encoder.image_head, learner.encoder.text_head) if isinstance(head, Adapter)
            ]
            objective = Anchored(objective, heads, _anchors(source), recipe.general_weight)
        trained = train(learner, objective, batches.batch, recipe, folder, on_progress=on_progress)
    return learner.encoder, trained


def _anchors(source: Source) -> Tensor:
    """(m, d): what everyday texts are to the encoder below."""
    assert source.locked is not None
    texts = neutral_queries()
    return torch.from_numpy(source.cache.texts(source.locked, texts).take(np.arange(len(texts))))


def _measured(encoder: DualEncoder, about: str, held: Sequence[Picture], source: Source, recipe: Recipe) -> Part:
    side = source.held_out(about, held)
    cpu = torch.device("cpu")
    return side.test, {
        strength: judged(_with_strength(encoder, strength * recipe.interpolate), side, cpu) for strength in STRENGTHS
    }


def _best(parts: Sequence[Part]) -> float:
    """The strength that helps held-out pictures most; the weaker one of two that help alike."""
    score = {
        strength: sum(figures(values[strength])["recall"] * len(test.pictures) for test, values in parts)
        for strength in STRENGTHS
    }
    return max(STRENGTHS, key=lambda strength: (round(score[strength], 6), -strength))


def _with_strength(encoder: DualEncoder, strength: float) -> DualEncoder:
    """Between the identity (0) and what was learnt (1)."""
    made = copy.deepcopy(encoder)
    after = encoder.state_dict()
    made.load_state_dict(wise_ft({name: torch.zeros_like(value) for name, value in after.items()}, after, strength))
    return made.eval()
