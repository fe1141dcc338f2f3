"""What a training run is made of: one typed, named configuration.

In: a recipe's name and `key=value` settings, as `mmsearch train --set` gives them. Out: a `Recipe`, or one error that
lists everything that is wrong with the settings, before anything is loaded.

A key is a field of `Recipe`, an argument of the recipe's objective (`margin=0.2`) or learner (`mask_ratio=0.6`; also of
the one that trained a tower before), or a size of one of its own towers (`image.depth=4`, `text.width=128`).
"""

from __future__ import annotations

import difflib
import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from mmsearch.errors import MMSearchError, UsageError
from mmsearch.nn.towers import IMAGE_TOWERS, check_tower
from mmsearch.training.learners import LEARNERS, learner_class
from mmsearch.training.objectives import objective_class
from mmsearch.training.parts import (
    Setting,
    in_use,
    learner_arguments,
    objective_arguments,
    of_learner,
    of_objective,
    of_tower,
    usual,
)  # fmt: skip

if TYPE_CHECKING:
    from mmsearch.training.picture import Wanted

Learning = Literal["contrastive", "momentum", "two_views", "masked_image", "data2vec", "masked_language", "skipgram"]


# What all recipes take, where they have that part, by the question it answers; `mmsearch train --list` prints it.
KEYS = {
    "what": "model: an encoder to start from (lite, ARCHITECTURE/TAG); its towers stay as they are and small maps on "
    "its vectors are trained, or with tune its towers. Without a model: image and text, towers by name.",
    "how far": "tune (both), image_tune, text_tune: locked, last:N, lora:R, full. interpolate: share of the trained "
    "weights in the end, the rest are those it began with (WiSE-FT). general_weight: the price of moving what should "
    "stay, where small maps are trained.",
    "space": "width of the vectors; head: linear (CLIP), deep (on locked towers), the latter with dropout.",
    "learning": "objective; teacher: an encoder to distil.",
    "data": "augment: none, light, strong; caption_split: the literature's leaking split; held_out: share of the "
    "pictures that is kept for the figures, where the data brings no dev.txt or test.txt.",
    "steps": "steps; batch rows a step, piece of them held in memory at once (0: all), accumulate steps before one "
    "update. learning_rate, its warmup share of the steps, then cosine; weight_decay; clip: largest gradient norm; "
    "ema: how slowly the averaged weights follow (0: none); precision fp32, bf16, fp16.",
    "watching": "evaluate_every steps on the dev side, patience: evaluations without a better recall before it stops "
    "(0: never), checkpoint_every steps. seed.",
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """name, good_for: for people. What can be set is explained in KEYS; the rest belongs to the recipe:

    image_options, text_options    sizes of its towers (nn/towers)
    learner, objective             each with its options; those of the objective are `options`
    pretrained                     the recipe that trained one of its towers before; pretrained_options: of its learner
    """

    name: str = ""
    good_for: str = ""

    model: str = ""
    tune: str = ""
    image: str = ""
    image_tune: str = "full"
    image_options: Mapping[str, Setting] = field(default_factory=dict)
    text: str = ""
    text_tune: str = "full"
    text_options: Mapping[str, Setting] = field(default_factory=dict)
    pretrained: str = ""
    pretrained_options: Mapping[str, Setting] = field(default_factory=dict)
    width: int = 256
    head: Literal["linear", "deep"] = "linear"
    dropout: float = 0.5

    learner: Learning = "contrastive"
    learner_options: Mapping[str, Setting] = field(default_factory=dict)
    objective: str = "clip"
    options: Mapping[str, Setting] = field(default_factory=dict)
    teacher: str = ""

    augment: Literal["none", "light", "strong"] = "none"
    caption_split: bool = False
    held_out: float = 0.2

    steps: int = 200
    batch: int = 256
    piece: int = 0
    accumulate: int = 1
    learning_rate: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.1
    clip: float = 1.0
    ema: float = 0.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    interpolate: float = 1.0
    general_weight: float = 0.0

    evaluate_every: int = 50
    patience: int = 0
    checkpoint_every: int = 100
    seed: int = 0

    @property
    def pictures_alone(self) -> bool:
        """Whether it reads no texts, so that nothing need be said about its pictures."""
        return LEARNERS[self.learner].side == "image"

    @property
    def wanted(self) -> Wanted:
        """Which pictures it learns from, the recipe that it begins with included."""
        if self.pictures_alone:
            return "pictures"
        return "both" if self.pretrained and _PRETRAINED[self.pretrained][0] == "image" else "words"


_FIXED = (
    "name", "good_for", "image_options", "text_options", "options", "learner", "learner_options", "pretrained",
    "pretrained_options",
)  # fmt: skip
_POSITIVE = ("width", "steps", "batch", "accumulate", "learning_rate", "evaluate_every", "checkpoint_every")
_SHARES = ("warmup", "ema", "interpolate", "dropout")
_MODEST = ("learning_rate", "weight_decay")  # beyond, the arithmetic of a step overflows
_NOT_NEGATIVE = ("piece", "weight_decay", "clip", "patience", "seed", "general_weight")

# Of no use to learners that train one tower alone: there is no shared space, and nothing is evaluated.
_FOR_BOTH = ("width", "head", "dropout", "evaluate_every", "caption_split")
# Recipes that others begin with: the tower that they leave behind, and their learner.
_PRETRAINED = {
    "simclr": ("image", "vit", "two_views"),
    "mae": ("image", "vit", "masked_image"),
    "data2vec": ("image", "vit", "data2vec"),
    "masked-language": ("text", "transformer", "masked_language"),
}


def settle(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """The recipe with `key=value` settings. Loads nothing. UsageError that lists all that is wrong."""
    made, wrong = tried(recipe, settings)
    if wrong:
        raise UsageError(wrong)
    return made


def tried(recipe: Recipe, settings: Sequence[str]) -> tuple[Recipe, str]:
    """As `settle`: the recipe with those settings that can be read, so that more can be said about it, and what is
    wrong; "" where nothing is."""
    wrong: list[str] = []
    hints = typing.get_type_hints(Recipe)
    own: dict[str, Setting] = {}
    others: dict[str, str] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            wrong.append(f"{setting!r} is not key=value")
        elif key in _FIXED:
            wrong.append(f"{key} belongs to the recipe and cannot be set; choose another recipe")
        elif key in hints:
            _read(key, text, hints[key], own, wrong)
        else:
            others[key] = text
    for part, options in (("objective", "options"), ("image", "image_options"), ("text", "text_options")):
        if own.get(part, getattr(recipe, part)) != getattr(recipe, part):  # what was set for another one goes with it
            recipe = replace(recipe, **{options: {}})  # type: ignore[arg-type]
    made = _with_options(replace(recipe, **own), others, wrong)  # type: ignore[arg-type]
    wrong += [*_impossible(made), *_contradictions(made)]
    if LEARNERS[made.learner].side and (idle := [key for key in own if key in _FOR_BOTH]):
        wrong.append(f"one tower alone has no use for {', '.join(idle)}")
    return made, f"The recipe {recipe.name} cannot be run so: {'; '.join(wrong)}." if wrong else ""


def own_keys(recipe: Recipe) -> dict[str, Setting]:
    """What can be set in this recipe beside KEYS, and what it is: of its objective, its learner, the one before, its
    towers."""
    made: dict[str, Setting] = {**usual(objective_class(recipe.objective)), **recipe.options}
    made |= {**usual(learner_class(recipe.learner)), **recipe.learner_options}
    if recipe.pretrained:
        made |= {**usual(learner_class(_PRETRAINED[recipe.pretrained][2])), **recipe.pretrained_options}
    towers = (("image", recipe.image, recipe.image_options), ("text", recipe.text, recipe.text_options))
    for side, tower, sizes in towers:
        if tower:
            kind, _ = check_tower(side, tower, {})
            made |= {f"{side}.{size}": in_use(kind, sizes, size) for size in kind.sizes}
    return made


def _with_options(recipe: Recipe, settings: Mapping[str, str], wrong: list[str]) -> Recipe:
    """Settings that are no fields: arguments of objective and learners, sizes of towers. An unknown objective is told
    later."""
    try:
        arguments = objective_arguments(recipe.objective)
    except MMSearchError:
        arguments = {}
    of_learner = learner_arguments(recipe.learner)
    of_first = learner_arguments(_PRETRAINED[recipe.pretrained][2]) if recipe.pretrained else {}
    options: dict[str, dict[str, Setting]] = {
        "": dict(recipe.options), "learner": dict(recipe.learner_options), "first": dict(recipe.pretrained_options),
        "image": dict(recipe.image_options), "text": dict(recipe.text_options),
    }  # fmt: skip
    for key, text in settings.items():
        side, dot, size = key.partition(".")
        if dot and side in ("image", "text"):
            _read_size(side, getattr(recipe, side), size, text, options[side], wrong)
        elif key in arguments:
            _read(key, text, arguments[key], options[""], wrong)
        elif key in of_learner:
            _read(key, text, of_learner[key], options["learner"], wrong)
        elif key in of_first:
            _read(key, text, of_first[key], options["first"], wrong)
        else:
            own = (name for name in typing.get_type_hints(Recipe) if name not in _FIXED)
            known = [*own, *arguments, *of_learner, *of_first]
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"keys are: {', '.join(known)}, image.SIZE, text.SIZE"
            wrong.append(f"there is no key {key!r} ({hint})")
    return replace(
        recipe, options=options[""], learner_options=options["learner"], pretrained_options=options["first"],
        image_options=options["image"], text_options=options["text"],
    )  # fmt: skip


def _read_size(side: str, tower: str, size: str, text: str, into: dict[str, Setting], wrong: list[str]) -> None:
    """A tower that is not there, or unknown, is told later; here its sizes alone."""
    if not tower:
        wrong.append(f"{side}.{size}: the recipe names no {side} tower of its own")
        return
    try:
        kind, _ = check_tower(side, tower, {})
    except UsageError:
        return
    if size in kind.sizes:
        _read(f"{side}.{size}", text, kind.sizes[size], into, wrong)
    else:
        into[size] = text


def _read(key: str, text: str, kind: Any, into: dict[str, Setting], wrong: list[str]) -> None:
    """Text -> a value of this kind. The last part of the key is its name."""
    choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    words = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
    try:
        value = text if choices else words[text.lower()] if kind is bool else kind(text)
        if (choices and text not in choices) or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError
    except (ValueError, KeyError):
        plain = {bool: "true or false", int: "a whole number", float: "a number"}
        wrong.append(f"{key}={text!r}: it must be {'one of ' + ', '.join(choices) if choices else plain[kind]}")
    else:
        into[key.rpartition(".")[2]] = value


def _impossible(recipe: Recipe) -> list[str]:
    """Values that cannot be, each by itself."""
    numbers = {one.name: getattr(recipe, one.name) for one in fields(recipe) if one.type in ("int", "float")}
    wrong = [f"{name} must be a number" for name, value in numbers.items() if not math.isfinite(value)]
    wrong += [f"{name} must be above 0" for name in _POSITIVE if numbers[name] <= 0]
    wrong += [f"{name} must lie between 0 and 1" for name in _SHARES if not 0 <= numbers[name] <= 1]
    wrong += [f"{name} must not be negative" for name in _NOT_NEGATIVE if numbers[name] < 0]
    if not 0 < recipe.held_out <= 0.5:
        wrong.append("held_out must be above 0 and 0.5 at most: half of the pictures are needed to learn from")
    wrong += [f"{name} must be 1000 at most" for name in _MODEST if 1000 < numbers[name] < math.inf]
    if recipe.seed >= 2**63:
        wrong.append("seed must be below 2^63")
    if recipe.batch == 1:
        wrong.append("batch must be 2 at least: a row alone has nothing to be told from")
    for name in ("tune", "image_tune", "text_tune"):
        how, colon, number = getattr(recipe, name).partition(":")
        counted = how in ("last", "lora") and number.isdecimal() and int(number) > 0
        if not (counted or (not colon and how in ("locked", "full")) or (name == "tune" and not how)):
            wrong.append(f"{name}={getattr(recipe, name)!r}: it must be locked, full, last:N or lora:R")
    return [
        *wrong,
        *of_objective(recipe.objective, recipe.options),
        *of_learner(recipe.learner, recipe.learner_options),
        *(of_learner(_PRETRAINED[recipe.pretrained][2], recipe.pretrained_options) if recipe.pretrained else ()),
        *of_tower("image", recipe.image, recipe.image_options),
        *of_tower("text", recipe.text, recipe.text_options),
    ]


def _contradictions(recipe: Recipe) -> list[str]:
    """Fields that do not go together."""
    wrong = [*_of_model(recipe)] if recipe.model else [*_of_towers(recipe)]
    own = LEARNERS[recipe.learner].objective
    if recipe.objective != own and (own or any(recipe.objective == kind.objective for kind in LEARNERS.values())):
        wrong.append(f"the learner {recipe.learner} does not go with the objective {recipe.objective}")
    adapters = bool(recipe.model) and not recipe.tune
    if recipe.learner == "two_views" and recipe.augment == "none":
        wrong.append("two views need augment=light or strong: equal ones teach nothing")
    if bool(recipe.teacher) != (recipe.objective == "distillation"):
        wrong.append("teacher and the objective distillation need each other")
    if adapters and (recipe.teacher or recipe.augment != "none" or recipe.learner != "contrastive"):
        wrong.append("small maps on the vectors of a model take no teacher, no views and no momentum; set tune=full")
    if recipe.patience and (adapters or LEARNERS[recipe.learner].side):
        wrong.append("patience is for recipes that are evaluated while they train; this one is not")
    return wrong


def _of_model(recipe: Recipe) -> Iterable[str]:
    if recipe.image or recipe.text or recipe.pretrained:
        yield "a model brings its towers: leave image and text empty, or set model="
    if recipe.tune and "/" not in recipe.model:
        yield f"tune is for models of open_clip (ARCHITECTURE/TAG), not for {recipe.model!r}"
    if recipe.tune == "locked":
        yield "tune=locked leaves nothing to train"
    if LEARNERS[recipe.learner].side or recipe.learner == "skipgram":
        yield f"the learner {recipe.learner} trains towers of our own, no model"


def _of_towers(recipe: Recipe) -> Iterable[str]:
    towers = {"image": recipe.image, "text": recipe.text}
    hows = {"image": recipe.image_tune, "text": recipe.text_tune}
    if recipe.tune:
        yield "tune is for a model; towers have image_tune and text_tune"
    if side := LEARNERS[recipe.learner].side:
        kind = LEARNERS[recipe.learner].tower
        (other,) = towers.keys() - {side}
        if towers[other]:
            yield f"the learner {recipe.learner} trains the {side} tower alone: set {other}="
        named = towers[side] == kind if kind else bool(towers[side])
        if not named or hows[side] == "locked":
            what = f"the {side} tower {kind}" if kind else f"an {side} tower"
            yield f"the learner {recipe.learner} trains {what}; {side}_tune must not be locked"
    else:
        yield from (f"the recipe needs a tower: set {side}=NAME" for side, name in towers.items() if not name)
    if recipe.image == "vit":
        yield from _of_hiding(recipe)
    if recipe.learner == "skipgram" and (recipe.text != "words" or recipe.text_tune == "locked"):
        yield "the learner skipgram trains the text tower words; text_tune must not be locked"
    if recipe.pretrained:
        side, kind, _ = _PRETRAINED[recipe.pretrained]
        if towers[side] != kind or hows[side].partition(":")[0] not in ("full", "last"):
            yield f"{recipe.pretrained} has trained the {side} tower {kind}; {side}_tune must be full or last:N"


def _of_hiding(recipe: Recipe) -> Iterable[str]:
    """What learners that hide patches of a `vit` need of it, now or in the recipe that this one begins with."""
    from mmsearch.training.learners.data2vec import TOP_LAYERS
    from mmsearch.training.learners.hiding import how_many

    learners = {recipe.learner, *(_PRETRAINED[recipe.pretrained][2:] if recipe.pretrained else ())}
    if not learners & {"masked_image", "data2vec"}:
        return
    options = {**recipe.learner_options, **recipe.pretrained_options}
    side, patch, depth = (in_use(IMAGE_TOWERS["vit"], recipe.image_options, one) for one in ("side", "patch", "depth"))
    if side == patch:
        yield "patches are hidden, and a picture of one patch has none to spare: set a smaller image.patch"
    ratio = float(options.get("mask_ratio", -1))
    if 0 <= ratio <= 1 and side > patch > 0 and not side % patch:
        try:
            how_many((side // patch) ** 2, ratio)
        except UsageError as error:
            yield str(error).rstrip(".")
    layers = options.get("top_layers", TOP_LAYERS)
    if "data2vec" in learners and isinstance(depth, int) and depth < int(layers):
        yield f"data2vec averages the last {layers} blocks of the tower: image.depth must be {layers} at least"


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """What a checkpoint remembers, as JSON: a run only goes on with the recipe that it began with."""
    made = {one.name: getattr(recipe, one.name) for one in fields(recipe) if one.name != "good_for"}
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in made.items()}
