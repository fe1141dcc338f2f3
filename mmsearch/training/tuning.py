"""How the built-in encoder is trained: heads on resting towers, then heads and towers together, then the heads again.

In: `Material`. Out: a `Model`. Towers that are tuned below untrained heads forget (Kumar et al. 2022, arXiv
2202.10054).

What a step adds up: photographs and their captions; drawings and their names; what words mean in terms of the
classifier's classes; and that the image tower goes on to classify as it did, which keeps what it knows of things that
no caption here mentions (Li & Hoiem 2016, arXiv 1606.09282). The result is a running average of the weights.

Why this is not loop.py: each step has three sources of pairs with a loss each, and the classifier to keep, on maps that
were cached in the middle of the image tower, at learning rates that differ from layer to layer. There, a step is one
`Batch` of pairs with one objective and one rate, which is all that the recipes for other models need.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmsearch.encoders.pairs import Numbers
from mmsearch.nn.features import unit
from mmsearch.nn.towers.lite import IMAGE_WIDTH, TEXT_WIDTH, LiteTextTower
from mmsearch.training.features import Words
from mmsearch.training.folded import FoldedTower
from mmsearch.training.heads import Concepts, Head, SaidConcepts, image_input, joined, text_input
from mmsearch.training.knowledge import Sayings
from mmsearch.training.learners.average import follow, untrained_copy
from mmsearch.training.objectives.infonce import InfoNCE, one_way
from mmsearch.training.views import Views

log = logging.getLogger(__name__)

AT_ONCE = 64  # maps in the image tower: more are new memory every time, and that takes as long as the arithmetic


@dataclass(frozen=True, slots=True)
class Recipe:
    """The numbers of one training. Each was chosen on Flickr8k dev and held-out drawings.

    head_width: of a head in training; kept_width of it remain, in the directions that vary most. concept_width: of the
    concept part, which follows them in a vector. concept_weight: its weight in the product while training; used_weight:
    its weight in use.
    photograph_views, drawing_views: how many of each picture.
    head_*: while the towers rest. batch, drawings, sayings: of each so many a step.
    settling_*: of the heads, after the towers were tuned. known: of the known pairs in use (encoders/pairs.py).
    *_rate: learning rates; each layer of the text tower learns text_decay times as fast as the one above it.
    drawing_weight, saying_weight, class_weight: in the loss; the last one of classifying as before.
    """

    head_width: int = 384
    kept_width: int = 222
    concept_width: int = 160
    concept_weight: float = 0.3
    used_weight: float = 0.75
    photograph_views: int = 4
    drawing_views: int = 3
    head_steps: int = 250
    head_batch: int = 1000
    head_drawings: int = 600
    head_sayings: int = 600
    head_rate: float = 1e-3
    head_weight_decay: float = 0.5
    steps: int = 260
    batch: int = 256
    drawings: int = 96
    sayings: int = 128
    image_rate: float = 3e-4
    text_rate: float = 1e-4
    text_decay: float = 0.8
    last_rate: float = 5e-4
    weight_decay: float = 0.05
    drawing_weight: float = 0.5
    saying_weight: float = 0.5
    class_weight: float = 1.0
    average: float = 0.985
    settling_steps: int = 80
    settling_rate: float = 3e-4
    known: Numbers = field(default_factory=Numbers)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pictures in several views, and what is written about each."""

    views: Views
    texts: list[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Material:
    """All that training reads. names (1000, 384): MiniLM's idea of each class."""

    photographs: Pairs
    drawings: Pairs
    sayings: Sayings
    names: Tensor


@dataclass(frozen=True, slots=True)
class Step:
    """What one step looks at: pictures of a view each, a text of each, and sayings with their classes (s, 1000)."""

    photographs: Tensor
    photograph_view: int
    drawings: Tensor
    drawing_view: int
    captions: list[str]
    drawn: list[str]
    said: list[str]
    meant: Tensor

    @property
    def texts(self) -> list[str]:
        return [*self.captions, *self.drawn, *self.said]


class Model(nn.Module):
    """Both towers, a head on each, and the concepts on both sides. Owns the temperatures, too."""

    def __init__(self, names: Tensor, recipe: Recipe) -> None:
        super().__init__()
        self.image_tower = FoldedTower()
        with torch.random.fork_rng([]):  # its own weights replace what it draws: the heads start as if it drew nothing
            self.text_tower = LiteTextTower().requires_grad_(False)
        self.image_head, self.text_head = Head(IMAGE_WIDTH, recipe.head_width), Head(TEXT_WIDTH, recipe.head_width)
        self.concepts = Concepts(names, recipe.concept_width)
        self.said = SaidConcepts(self.concepts)
        self.pairs, self.meanings = InfoNCE(), InfoNCE()
        rows = self.image_tower.classifier.weight
        rows = (rows - rows.mean(0)) / rows.std(0)
        self.register_buffer("class_inputs", unit(rows) * IMAGE_WIDTH**0.5)
        self.weight = recipe.concept_weight

    def images(self, pooled: Tensor, logits: Tensor) -> Tensor:
        return joined(_quick(self.image_head, image_input(pooled)), self.concepts.of_images(logits), self.weight)

    def texts(self, states: Tensor) -> Tensor:
        return joined(_quick(self.text_head, text_input(states)), _quick(self.said, states), self.weight)

    def heads(self) -> nn.ModuleList:
        return nn.ModuleList([self.image_head, self.text_head, self.said])


def _quick(module: nn.Module, x: Tensor) -> Tensor:
    """Multiplied in bfloat16: up to four times as fast, and the noise is far below dropout's."""
    with torch.autocast("cpu", torch.bfloat16):
        rows: Tensor = module(x).float()
    return rows


def train(material: Material, recipe: Recipe, words: Words) -> Model:
    """The whole training; half an hour on two cores, nearly all of it `tune`."""
    torch.manual_seed(recipe.seed)
    model = Model(material.names, recipe)
    train_heads(model, material, recipe, words)
    return tune(model, material, recipe, words)


@torch.no_grad()
def settle(model: Model, material: Material, recipe: Recipe, words: Words) -> None:
    """The heads alone once more, on what the tuned towers say. What sayings mean is asked of the head without the
    concepts, which answer it so well that the head had no reason to learn it."""

    def resting(pairs: Pairs) -> Pairs:
        whole = torch.arange(len(pairs.texts))
        with torch.autocast("cpu", torch.bfloat16):
            parts = [model.image_tower.pooled(pairs.views.pick(0, some)) for some in torch.split(whole, AT_ONCE)]
            pooled = torch.cat(parts)
        views = Views(pairs.views.maps[:1], [pooled], [model.image_tower.classifier(pooled)])
        return Pairs(views, [texts[:2] for texts in pairs.texts])

    rested = replace(material, photographs=resting(material.photographs), drawings=resting(material.drawings))
    numbers = replace(recipe, head_steps=recipe.settling_steps, head_rate=recipe.settling_rate)
    with torch.enable_grad():
        train_heads(model, rested, numbers, words, alone=True)


def train_heads(model: Model, material: Material, recipe: Recipe, words: Words, alone: bool = False) -> None:
    """The heads alone, on what the resting towers say. alone: sayings are asked of the head without the concepts."""
    draw, chance = torch.Generator().manual_seed(recipe.seed + 1), random.Random(recipe.seed)
    heads, photographs, drawings = model.heads(), material.photographs, material.drawings
    said, meant = material.sayings.draw(8000, chance)
    written = [text for pairs in (photographs, drawings) for own in pairs.texts for text in own]
    texts = list(dict.fromkeys([*written, *said]))
    states = dict(zip(texts, words.quickly(model.text_tower, texts), strict=True))
    groups: list[dict[str, Any]] = [
        {"params": heads.parameters(), "weight_decay": recipe.head_weight_decay},
        {"params": [*model.pairs.parameters(), *model.meanings.parameters()]},
    ]
    optimiser = torch.optim.AdamW(groups, lr=recipe.head_rate, weight_decay=0)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.head_rate, recipe.head_steps, pct_start=0.1)
    average = untrained_copy(heads)
    model.train()
    for number in range(recipe.head_steps):
        some = torch.randperm(len(said), generator=draw)[: recipe.head_sayings]
        step = _draw(material, recipe.head_batch, recipe.head_drawings, draw, chance)
        step = replace(step, said=[said[i] for i in some.tolist()], meant=meant[some])
        pooled, logits = (
            torch.cat(
                (of_photographs[step.photograph_view][step.photographs], of_drawings[step.drawing_view][step.drawings])
            )
            for of_photographs, of_drawings in (
                (photographs.views.pooled, drawings.views.pooled),
                (photographs.views.logits, drawings.views.logits),
            )
        )
        said_states = torch.stack([states[text] for text in step.texts])
        loss = _loss(model, step, pooled, logits, said_states, recipe, draw, alone)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        plan.step()
        follow(average, heads, min(0.98, (1 + number) / (10 + number)))
        if number % 50 == 49:
            log.info("heads: step %d of %d, loss %.3f", number + 1, recipe.head_steps, loss.item())
    heads.load_state_dict(average.state_dict())
    model.eval()


def tune(model: Model, material: Material, recipe: Recipe, words: Words) -> Model:
    """Heads and towers together; changes `model`."""
    draw, chance = torch.Generator().manual_seed(recipe.seed + 2), random.Random(recipe.seed + 1)
    image, heads = model.image_tower.tune(), model.heads()
    layers = [list(block.parameters()) for block in model.text_tower.blocks.requires_grad_()]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in image if p.ndim > 1], "lr": recipe.image_rate, "weight_decay": recipe.weight_decay},
        {"params": [p for p in image if p.ndim == 1], "lr": recipe.image_rate},
        {"params": heads.parameters(), "lr": recipe.last_rate, "weight_decay": recipe.head_weight_decay / 2},
        {"params": [*model.pairs.parameters(), *model.meanings.parameters()], "lr": recipe.last_rate},
    ]
    for depth, layer in enumerate(reversed(layers)):
        rate = recipe.text_rate * recipe.text_decay**depth
        groups.append({"params": layer, "lr": rate, "weight_decay": recipe.weight_decay})
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0)
    plan = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, [group["lr"] for group in groups], recipe.steps,
        pct_start=0.1, cycle_momentum=False, div_factor=10, final_div_factor=20,
    )  # fmt: skip
    tuned = nn.ModuleList([model.image_tower.last, model.text_tower.blocks, *heads])
    average = untrained_copy(tuned)
    photographs, drawings = material.photographs.views, material.drawings.views
    model.train()
    start = time.monotonic()
    for number in range(recipe.steps):
        step = _draw(material, recipe.batch, recipe.drawings, draw, chance)
        said, meant = material.sayings.draw(recipe.sayings, chance)
        step = replace(step, said=said, meant=meant)
        maps = torch.cat((photographs.pick(step.photograph_view, step.photographs),
                          drawings.pick(step.drawing_view, step.drawings)))  # fmt: skip
        before = torch.cat((photographs.logits[step.photograph_view][step.photographs],
                            drawings.logits[step.drawing_view][step.drawings]))  # fmt: skip
        # The fused attention goes back slowly in bfloat16 on a CPU: 1.6 s for 128 texts there and back, and 1.1 s so.
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            pooled = torch.cat([model.image_tower.pooled(some) for some in torch.split(maps, AT_ONCE)])
            states = words.states(model.text_tower, step.texts).float()
        logits = model.image_tower.classifier(pooled)
        loss = _loss(model, step, pooled, logits, states, recipe, draw)
        kept = F.kl_div(logits.log_softmax(1), before.softmax(1), reduction="batchmean")
        optimiser.zero_grad()
        (loss + recipe.class_weight * kept).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        plan.step()
        follow(average, tuned, min(recipe.average, (1 + number) / (10 + number)))
        if number % 10 == 9:
            taken = time.monotonic() - start
            log.info("step %d of %d, loss %.3f, %.0f s", number + 1, recipe.steps, loss.item(), taken)
    tuned.load_state_dict(average.state_dict())
    return model.eval()


def _loss(
    model: Model,
    step: Step,
    pooled: Tensor,
    logits: Tensor,
    states: Tensor,
    recipe: Recipe,
    draw: torch.Generator,
    alone: bool = False,
) -> Tensor:
    """pooled, logits: of photographs, then drawings. states: of captions, names of drawings, sayings."""
    cut = len(step.photographs), len(step.photographs) + len(step.drawings)
    images, texts = model.images(pooled, logits), model.texts(states)
    loss: Tensor = model.pairs(images[: cut[0]], texts[: cut[0]], torch.eye(cut[0]))
    alike = _alike(states[cut[0] : cut[1]].detach())
    loss = loss + recipe.drawing_weight * model.pairs(images[cut[0] :], texts[cut[0] : cut[1]], alike)
    return loss + recipe.saying_weight * _meanings(model, states[cut[1] :], step.meant, draw, alone)


def _meanings(model: Model, states: Tensor, meant: Tensor, draw: torch.Generator, alone: bool) -> Tensor:
    """Sayings find their classes among all, both as what the image head makes of the classifier's weights, which look
    like pooled features, and among the concepts alone; each class that is meant finds its sayings."""
    inputs = model.get_buffer("class_inputs")
    looks = _quick(model.image_head, inputs + 0.1 * torch.randn(inputs.shape, generator=draw))
    concepts = unit(model.concepts.get_buffer("classes"))
    texts = _quick(model.text_head, text_input(states)) if alone else model.texts(states)
    classes = looks if alone else joined(looks, concepts, model.weight)
    logits = model.meanings.scale.exp().clamp(max=100) * texts @ classes.T  # (s, 1000)
    hit = meant.sum(0) > 0
    among_concepts = 15 * _quick(model.said, states) @ concepts.T
    back = one_way(logits.T[hit], (meant.T[hit] > 0).float())
    return one_way(logits, meant) + 0.5 * back + 0.5 * one_way(among_concepts, meant)


def _alike(states: Tensor) -> Tensor:
    """(n, 384) -> (n, n): 1 where two texts say nearly the same, as two drawings of a bus do."""
    states = unit(states)
    return (states @ states.T > 0.97).float()


def _draw(material: Material, photographs: int, drawings: int, draw: torch.Generator, chance: random.Random) -> Step:
    """Random pictures, one view for all, one text for each; without sayings."""
    which = torch.randperm(len(material.photographs.texts), generator=draw)[:photographs]
    drawn = torch.randperm(len(material.drawings.texts), generator=draw)[:drawings]
    return Step(
        which, chance.randrange(len(material.photographs.views)), drawn, chance.randrange(len(material.drawings.views)),
        [chance.choice(material.photographs.texts[i]) for i in which.tolist()],
        [chance.choice(material.drawings.texts[i]) for i in drawn.tolist()],
        [], torch.empty(0),
    )  # fmt: skip
