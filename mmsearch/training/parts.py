"""The parts of a recipe, each by itself: what can be set in its objective, its learner and its towers, and what is
wrong with what was set.

In: a part's name, and what was set in it. Out: names and types; mistakes, one line each. Weights are not loaded.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

from mmsearch.errors import MMSearchError, UsageError
from mmsearch.nn.towers import Kind, check_tower
from mmsearch.training.learners import learner_class
from mmsearch.training.names import unknown

Setting = int | float | str | bool


def objective_arguments(objective: str) -> dict[str, Any]:
    """What can be set in an objective: name -> type. Raises UsageError for an unknown objective."""
    from mmsearch.training.objectives import objective_class

    constructor = objective_class(objective).__init__
    hints = typing.get_type_hints(constructor)
    names = [name for name in inspect.signature(constructor).parameters if name not in ("self", "width")]
    return {name: hints[name] for name in names}


def learner_arguments(learner: str) -> dict[str, Any]:
    """What can be set in a learner: name -> type."""
    constructor = learner_class(learner).__init__
    hints = typing.get_type_hints(constructor)
    return {name: hints[name] for name in list(inspect.signature(constructor).parameters)[2:]}


def usual(part: type[Any]) -> dict[str, Setting]:
    """What an objective or a learner takes where nothing is set: name -> value."""
    parameters = inspect.signature(part.__init__).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not one.empty}


def of_objective(objective: str, options: Mapping[str, Setting]) -> Iterable[str]:
    """What it says when it is made, of nothing: on torch's device `meta`."""
    import torch

    from mmsearch.training.objectives import objective_class

    try:
        kind = objective_class(objective)
        sizes: dict[str, Any] = {"width": 1} if "width" in inspect.signature(kind.__init__).parameters else {}
        with torch.device("meta"):
            kind(**options, **sizes)
    except MMSearchError as error:
        yield str(error).rstrip(".")


def of_learner(learner: str, options: Mapping[str, Setting]) -> Iterable[str]:
    """Shares and counts; what depends on its tower is seen where both are known."""
    kinds = learner_arguments(learner)
    for name, value in options.items():
        if name not in kinds:
            yield str(unknown(f"argument of the learner {learner}", name, kinds)).rstrip(".")
        elif kinds[name] is float and not 0 <= float(value) <= 1:
            yield f"{name} must lie between 0 and 1"
        elif kinds[name] is int and int(value) < 1:
            yield f"{name} must be above 0"
    if learner == "masked_image":
        usual = inspect.signature(learner_class(learner).__init__).parameters
        width, heads = (options.get(name, usual[name].default) for name in ("decoder_width", "decoder_heads"))
        if heads > 0 and width % heads:
            yield f"decoder_width {width} is not a multiple of decoder_heads {heads}"


def of_tower(side: str, name: str, sizes: Mapping[str, Setting]) -> Iterable[str]:
    """What is wrong with a tower's name, and with each of its sizes; nothing where there is no tower."""
    if not name:
        return
    try:
        kind, _ = check_tower(side, name, {})
    except UsageError as error:
        yield str(error).rstrip(".")
        return
    for size, value in sizes.items():
        try:
            check_tower(side, name, {size: value})
        except UsageError as error:
            yield str(error).rstrip(".")
            continue
        if size == "dropout" and not 0 <= float(value) < 1:
            yield f"{side}.dropout must lie between 0 and 1"
        elif kind.sizes[size] is int and int(value) < 1:
            yield f"{side}.{size} must be above 0"
    for part, whole in (("heads", "width"), ("patch", "side")):
        if part in kind.sizes:
            few, many = (in_use(kind, sizes, one) for one in (part, whole))
            if isinstance(few, int) and isinstance(many, int) and few > 0 and many % few:
                yield f"{side}.{whole} {many} is not a multiple of {side}.{part} {few}"


def in_use(kind: Kind, sizes: Mapping[str, Setting], size: str) -> Any:
    """What was set, else what the tower takes by itself."""
    module, _, made = kind.place.partition(":")
    return sizes.get(size, inspect.signature(getattr(import_module(module), made)).parameters[size].default)
