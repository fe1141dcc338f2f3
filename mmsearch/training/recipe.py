"""What a training run is made of: one typed, named configuration.

In: a recipe's name and `key=value` settings, as `mmsearch train --set` gives them. Out: a `Recipe`, or one error that
lists everything that is wrong with the settings, before anything is loaded.

A key is a field of `Recipe`, an argument of the recipe's objective (`margin=0.2`), or a size of one of its own towers
(`image.depth=4`, `text.width=128`).
"""

from __future__ import annotations

import difflib
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from mmsearch.errors import MMSearchError, UsageError

Setting = int | float | str | bool
Learning = Literal["contrastive", "momentum", "masked_image", "data2vec", "masked_language", "skipgram"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """name, good_for: for people. The fields by the question they answer:

    what      model: an encoder to start from (`lite`, ARCHITECTURE/TAG); its towers stay as they are and small maps
              on its vectors are trained, or with tune its towers. Without a model: image and text name towers
              (see nn/towers), pretrained names the recipe that trained one of them before.
    how far   tune (both), image_tune, text_tune: locked, last:N, lora:R, full. interpolate: share of the trained
              weights in the end, the rest are those it began with (WiSE-FT).
    space     width of the vectors; head: linear (CLIP), deep (on locked towers).
    learning  learner, objective and its options; teacher: an encoder to distil.
    data      augment: none, light, strong; caption_split: the literature's leaking split; held_out: share of the
              pictures that is kept for the figures, where the data brings no dev.txt or test.txt.
    steps     batch rows a step, piece of them held in memory at once (0: all), accumulate steps before one update.
              learning_rate, its warmup share of the steps, then cosine; weight_decay; clip: largest gradient norm;
              ema: how slowly the averaged weights follow (0: none); precision fp32, bf16, fp16.
    watching  evaluate_every steps on the dev side, patience: evaluations without a better recall before it stops
              (0: never), checkpoint_every steps. seed.
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
    width: int = 256
    head: Literal["linear", "deep"] = "linear"

    learner: Learning = "contrastive"
    objective: str = "clip"
    options: Mapping[str, Setting] = field(default_factory=dict)
    teacher: str = ""

    augment: Literal["none", "light", "strong"] = "none"
    second_view: bool = False
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


_FIXED = ("name", "good_for", "image_options", "text_options", "options", "learner", "pretrained")
_POSITIVE = ("width", "steps", "batch", "accumulate", "learning_rate", "evaluate_every", "checkpoint_every")
_SHARES = ("warmup", "ema", "interpolate")
_NOT_NEGATIVE = ("piece", "weight_decay", "clip", "patience", "seed", "general_weight")


def settle(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """The recipe with `key=value` settings. UsageError that lists all that is wrong."""
    wrong: list[str] = []
    values: dict[str, Setting] = {}
    hints = typing.get_type_hints(Recipe)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            wrong.append(f"{setting!r} is not key=value")
        elif key in hints and key not in _FIXED:
            _read(key, text, hints[key], values, wrong)
        else:
            values[key] = text
    own = {key: value for key, value in values.items() if key in hints}
    made = replace(recipe, **own)  # type: ignore[arg-type]
    made = _with_options(made, {key: str(value) for key, value in values.items() if key not in own}, wrong)
    wrong += _contradictions(made)
    if wrong:
        raise UsageError(f"The recipe {recipe.name} cannot be run so: {'; '.join(wrong)}.")
    return made


def objective_arguments(objective: str) -> dict[str, Any]:
    """What can be set in an objective: name -> type. Raises UsageError for an unknown objective."""
    from mmsearch.training.objectives import objective_class

    constructor = objective_class(objective).__init__
    hints = typing.get_type_hints(constructor)
    names = [name for name in inspect.signature(constructor).parameters if name not in ("self", "width")]
    return {name: hints[name] for name in names}


def _with_options(recipe: Recipe, settings: Mapping[str, str], wrong: list[str]) -> Recipe:
    """Settings that are no fields: arguments of the objective, sizes of towers."""
    try:
        arguments = objective_arguments(recipe.objective)
    except MMSearchError as error:
        wrong.append(str(error).rstrip("."))
        arguments = {}
    options: dict[str, dict[str, Setting]] = {
        "": dict(recipe.options), "image": dict(recipe.image_options), "text": dict(recipe.text_options)
    }  # fmt: skip
    for key, text in settings.items():
        side, dot, name = key.partition(".")
        if dot and side in ("image", "text"):
            options[side][name] = _plain(text)
        elif key in arguments:
            _read(key, text, arguments[key], options[""], wrong)
        else:
            known = [*(name for name in typing.get_type_hints(Recipe) if name not in _FIXED), *arguments]
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"keys are: {', '.join(known)}"
            wrong.append(f"there is no key {key!r} ({hint})")
    kept = {name: value for name, value in options[""].items() if name in arguments}
    return replace(recipe, options=kept, image_options=options["image"], text_options=options["text"])


def _read(key: str, text: str, kind: Any, into: dict[str, Setting], wrong: list[str]) -> None:
    choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    if isinstance(kind, types.UnionType):  # a number or nothing: read the number
        kind = next(one for one in typing.get_args(kind) if one is not type(None))
    try:
        if choices:
            if text not in choices:
                raise ValueError
            into[key] = text
        elif kind is bool:
            into[key] = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}[text.lower()]
        else:
            into[key] = kind(text)
    except (ValueError, KeyError):
        needed = "one of " + ", ".join(choices) if choices else {bool: "true or false", int: "a whole number"}.get(
            kind, "a number")  # fmt: skip
        wrong.append(f"{key}={text}: it must be {needed}")


def _plain(text: str) -> Setting:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _contradictions(recipe: Recipe) -> list[str]:
    """Values that cannot be, and fields that do not go together."""
    wrong = [f"{name} must be above 0" for name in _POSITIVE if not getattr(recipe, name) > 0]
    wrong += [f"{name} must lie between 0 and 1" for name in _SHARES if not 0 <= getattr(recipe, name) <= 1]
    wrong += [f"{name} must not be negative" for name in _NOT_NEGATIVE if getattr(recipe, name) < 0]
    if not 0 < recipe.held_out < 1:
        wrong.append("held_out must lie between 0 and 1")
    for name in ("tune", "image_tune", "text_tune"):
        how, colon, number = getattr(recipe, name).partition(":")
        counted = how in ("last", "lora") and number.isdigit() and int(number) > 0
        if not (counted or (not colon and how in ("locked", "full")) or (name == "tune" and not how)):
            wrong.append(f"{name}={getattr(recipe, name)}: it must be locked, full, last:N or lora:R")
    if recipe.tune and not recipe.model:
        wrong.append("tune is for a model; towers have image_tune and text_tune")
    if recipe.batch < 2:
        wrong.append("batch must be 2 at least: a row alone has nothing to be told from")
    return wrong


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """What a checkpoint remembers, as JSON: a run only goes on with the recipe that it began with."""
    made = {one.name: getattr(recipe, one.name) for one in fields(recipe) if one.name != "good_for"}
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in made.items()}
