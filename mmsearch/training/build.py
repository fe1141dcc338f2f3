"""A recipe's parts as modules: towers, heads, learner, objective, and how its material reaches them.

In: a recipe, a cache for features. Out: `Parts`. Where a tower is locked and pictures are not augmented, the learner
reads its cached rows and the tower itself waits outside, to be put back when the encoder is written.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mmsearch.encoders.registry import load_encoder
from mmsearch.nn import checkpoint
from mmsearch.nn.dual_encoder import DualEncoder
from mmsearch.nn.heads import Adapter, DeepHead, LinearHead
from mmsearch.nn.towers import image_tower, text_tower
from mmsearch.nn.towers.tower import Tower
from mmsearch.nn.tuning import merge, tune
from mmsearch.training.cache import FeatureCache
from mmsearch.training.examples import OnProgress
from mmsearch.training.learners import LEARNERS, learner_class
from mmsearch.training.learners.contrastive import Contrastive
from mmsearch.training.learners.learner import Learner
from mmsearch.training.locked import Locked, of_encoder, of_towers
from mmsearch.training.material import Source
from mmsearch.training.objectives import objective_class
from mmsearch.training.recipe import Recipe

Weights = Mapping[str, Mapping[str, Tensor]]  # side -> those of its tower


@dataclass(frozen=True, slots=True)
class Parts:
    """image, text: the whole towers, where the recipe has them; inside the learner a locked one is only a place."""

    learner: Learner
    objective: nn.Module
    source: Source
    image: Tower | None
    text: Tower | None

    def whole_encoder(self) -> DualEncoder:
        """From pixels and tokens to vectors, with updates of low rank baked in."""
        encoder = self.learner.encoder
        assert self.image is not None and self.text is not None
        for tower in (self.image, self.text):
            merge(tower)
        return DualEncoder(self.image, self.text, encoder.image_head, encoder.text_head).eval()


def build(recipe: Recipe, cache: FeatureCache, on_progress: OnProgress | None, begin_with: Weights) -> Parts:
    """Random weights come from the seed, those of begin_with take their place. Raises UsageError, ModelError and
    MissingExtraError for towers that cannot be had."""
    torch.manual_seed(recipe.seed)
    image_name, text_name = (f"open_clip:{recipe.model}",) * 2 if recipe.model else (recipe.image, recipe.text)
    image_tune, text_tune = (recipe.tune,) * 2 if recipe.model else (recipe.image_tune, recipe.text_tune)
    image = image_tower(image_name, sizes=recipe.image_options) if image_name else None
    text = text_tower(text_name, recipe.text_options) if text_name else None
    for side, tower, how in (("image", image, image_tune), ("text", text, text_tune)):
        if tower is not None:
            if side in begin_with:
                tower.load_state_dict(begin_with[side])
            tune(tower, how)
    source = _source(recipe, image, text, cache, on_progress)
    learner = _learner(recipe, image, text, source)
    return Parts(learner, objective_of(recipe, _width(recipe, image)), source, image, text)


def adapter(width: int) -> Learner:
    """Small maps on the vectors of an encoder that stays as it is."""
    return Contrastive(DualEncoder(nn.Identity(), nn.Identity(), Adapter(width), Adapter(width)))


def objective_of(recipe: Recipe, width: int) -> nn.Module:
    kind = objective_class(recipe.objective)
    sizes: dict[str, Any] = {"width": width} if "width" in inspect.signature(kind.__init__).parameters else {}
    return kind(**recipe.options, **sizes)


def teacher_of(recipe: Recipe) -> Locked | None:
    return of_encoder(load_encoder(recipe.teacher)) if recipe.teacher else None


def _width(recipe: Recipe, image: Tower | None) -> int:
    return image.width if recipe.model and image is not None else recipe.width


def _source(
    recipe: Recipe, image: Tower | None, text: Tower | None, cache: FeatureCache, on_progress: OnProgress | None
) -> Source:
    cached_images, cached_texts = (tower is not None and tower.locked for tower in (image, text))
    if recipe.augment == "strong":
        cached_images = False
    locked = None
    if image is not None and text is not None and (cached_images or cached_texts):
        locked = of_towers(
            f"{recipe.image} and {recipe.text}", image, text,
            side=_side(image), tokenizer=_tokenizer(text), max_tokens=_max_tokens(text), fingerprint="",
        )  # fmt: skip
        locked = replace(
            locked,
            image_fingerprint=_mark(image, recipe.image, recipe.image_options, locked.image_fingerprint),
            text_fingerprint=_mark(text, recipe.text, recipe.text_options, locked.text_fingerprint),
        )
    return Source(
        cache, locked, cached_images, cached_texts,
        side=_side(image) if image is not None else 0,
        tokenizer=_tokenizer(text) if text is not None else "",
        max_tokens=_max_tokens(text) if text is not None else 0,
        views=recipe.augment != "none", on_progress=on_progress,
    )  # fmt: skip


def _learner(recipe: Recipe, image: Tower | None, text: Tower | None, source: Source) -> Learner:
    kind = learner_class(recipe.learner)
    if side := LEARNERS[recipe.learner].side:
        alone: Learner = kind(image if side == "image" else text, **recipe.learner_options)
        return alone
    assert image is not None and text is not None  # recipe.py saw to it
    if recipe.model:
        heads: list[nn.Module] = [nn.Identity(), nn.Identity()]
    elif recipe.head == "deep":
        drop = recipe.dropout
        heads = [
            DeepHead(image.width, recipe.width, dropout=drop, roots=True),
            DeepHead(text.width, recipe.width, dropout=drop),
        ]
    else:
        heads = [LinearHead(image.width, recipe.width), LinearHead(text.width, recipe.width)]
    encoder = DualEncoder(
        nn.Identity() if source.cached_images else image, nn.Identity() if source.cached_texts else text, *heads
    )
    both: Learner = kind(encoder, **recipe.learner_options)
    return both


def _mark(tower: Tower, name: str, sizes: Mapping[str, Any], prepared: str) -> str:
    """All that makes the rows of a tower what they are. Equal weights may be read in several ways (heads, activation),
    so its name and sizes count."""
    told = json.dumps([checkpoint.fingerprint(tower), name, dict(sizes), prepared], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def _side(tower: Tower) -> int:
    side: int = tower.side  # type: ignore[assignment]
    return side


def _tokenizer(tower: Tower) -> str:
    tokenizer: str = tower.tokenizer  # type: ignore[assignment]
    return tokenizer


def _max_tokens(tower: Tower) -> int:
    tokens: int = tower.max_tokens  # type: ignore[assignment]
    return tokens
