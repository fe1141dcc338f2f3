"""What a training run found -> tables, lines and JSON for people and programs."""

from __future__ import annotations

import os
import shlex
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mmsearch.render.figures import changes_of
from mmsearch.render.table import Table
from mmsearch.render.text import count, printable
from mmsearch.training.recipe import KEYS

if TYPE_CHECKING:
    from mmsearch.judging import Measure
    from mmsearch.training.measuring import Compared
    from mmsearch.training.parts import Setting
    from mmsearch.training.promotion import Verdict
    from mmsearch.training.recipe import Recipe
    from mmsearch.training.run import Report

WIDTH = 78

Settings = Mapping[str, Mapping[str, "Setting"]]  # recipe -> key -> value


def table(compared: Compared) -> Table:
    """direction, measure, before, after, gained in points with its 95 % interval, p."""
    return changes_of(compared.before, compared.after, compared.gained, ("before", "after", "gained"))


def lines(report: Report) -> Iterator[str]:
    """What was done; the last two say before and after."""
    trained = report.trained
    early = f", stopped early at {trained.steps:,}" if trained.stopped_early else ""
    speed = f"{trained.pairs_a_second:,.0f} pairs/s" if trained.pairs_a_second else "trained before"
    yield (
        f"{report.recipe.name}: {count(report.parameters, 'parameter')}, {count(trained.best_step, 'step')}{early}, "
        f"{speed}, {report.seconds:,.0f} s in all"
    )
    if report.strength is not None:
        yield f"strength {report.strength:g} of 1, chosen on held-out pictures"
    if report.held_out is None:
        yield f"a tower for other recipes; its weights are in {printable(str(report.out / 'run'))}"
        return
    yield f"written to {printable(str(report.out))}; use it with: {use(report)}"
    yield f"before {_told(report.held_out.before)}"
    yield f"after  {_told(report.held_out.after)}"


def use(report: Report) -> str:
    """The command that encodes a collection with it."""
    out = str(report.out)
    return f"mmsearch index --model {printable(shlex.quote(out if os.sep in out else os.path.join('.', out)))}"


def _told(measures: Iterable[Measure]) -> str:
    """`t2i R@1/R@5/R@10 23.0/50.7/63.3, i2t ...`; for labels `t2i mAP 41.2`."""
    by_direction: dict[str, list[Measure]] = {}
    for one in measures:
        if one.name.startswith("R@") or one.name == "mAP":
            by_direction.setdefault(one.direction, []).append(one)
    return ", ".join(
        f"{direction} {'/'.join(one.name for one in own)} {'/'.join(f'{one.value:.1f}' for one in own)}"
        for direction, own in by_direction.items()
    )


def as_json(report: Report, verdict: Verdict | None) -> dict[str, Any]:
    """promoted: only where it was asked for."""
    trained = report.trained
    return {
        "recipe": report.recipe.name,
        "out": str(report.out),
        "parameters": report.parameters,
        "steps": trained.steps,
        "best_step": trained.best_step,
        "stopped_early": trained.stopped_early,
        "pairs_a_second": round(trained.pairs_a_second, 1),
        "seconds": round(report.seconds, 1),
        "strength": report.strength,
        "held_out": _json(report.held_out),
        "general": _json(report.general),
        "promoted": None if verdict is None else verdict.better,
        "why": None if verdict is None else verdict.why,
        "notices": list(report.notices),
        "left_out": [{"path": str(one.path), "error": one.error} for one in report.left_out],
    }


def _json(compared: Compared | None) -> dict[str, Any] | None:
    if compared is None:
        return None
    measures = [
        {
            "direction": before.direction,
            "measure": before.name,
            "before": round(before.value, 3),
            "after": round(after.value, 3),
            "gained": round(gained.value, 3),
            "low": None if gained.low is None else round(gained.low, 3),
            "high": None if gained.high is None else round(gained.high, 3),
            "p": gained.p,
        }
        for before, after, gained in zip(compared.before, compared.after, compared.gained, strict=True)
    ]
    return {"about": compared.about, "measures": measures}


def recipe_lines(recipes: Mapping[str, Recipe], own: Settings | None, width: int = WIDTH) -> Iterator[str]:
    """Each recipe: its name, what it trains, what it is good for, what can be set in it alone; what can be set in all.
    own: by recipe; None where it is not known."""
    for name, recipe in recipes.items():
        yield from _wrapped(f"{name}: {_parts(recipe)}", width, "", "    ")
        yield from _wrapped(recipe.good_for, width, "    ", "    ")
        if own and own[name]:
            told = " ".join(f"{key}={_written(value)}" for key, value in own[name].items())
            yield from _wrapped(f"--set {told}", width, "    ", "      ")
    yield ""
    yield from _wrapped("All recipes take, where they have that part (--set KEY=VALUE, once a key):", width)
    for question, keys in KEYS.items():
        yield from _wrapped(f"{question:<8}  {keys}", width, "    ", " " * 14)
    if own is None:
        yield from _wrapped("With pip install 'mmsearch[train]', what each recipe takes is listed, too.", width)


def _wrapped(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False, break_long_words=False
    )


def _written(value: Setting) -> str:
    """As --set reads it."""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _parts(recipe: Recipe) -> str:
    if recipe.tune:
        return f"the towers of {recipe.model} ({recipe.tune}), objective {recipe.objective}"
    if recipe.model:
        return f"small maps on the vectors of {recipe.model}, objective {recipe.objective}"
    towers = [
        f"{side} {name} ({how})"
        for side, name, how in (
            ("image", recipe.image, recipe.image_tune),
            ("text", recipe.text, recipe.text_tune),
        )
        if name
    ]
    return f"{', '.join(towers)}, objective {recipe.objective}"


def recipes_json(recipes: Mapping[str, Recipe], own: Settings | None) -> dict[str, Any]:
    """own: as for `recipe_lines`."""
    return {
        "recipes": [
            {
                "name": name,
                "trains": _parts(recipe),
                "good_for": recipe.good_for,
                "settings": None if own is None else dict(own[name]),
            }
            for name, recipe in recipes.items()
        ],
        "keys": KEYS,
    }
