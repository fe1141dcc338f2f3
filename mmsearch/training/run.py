"""A recipe on someone's data, from the first picture to the folder of an encoder.

In: a settled recipe, data, a folder. Out: a `Report`, and in the folder the encoder (`mmsearch index --model` opens
it), what is needed to go on after a kill, and the logs. What can be known to be wrong is said before anything is read.
"""

from __future__ import annotations

import copy
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from mmsearch.encoders.registry import load_encoder
from mmsearch.errors import UsageError
from mmsearch.nn import checkpoint
from mmsearch.nn.dual_encoder import DualEncoder
from mmsearch.nn.tuning import wise_ft
from mmsearch.settings import shipped_folder
from mmsearch.training import finetune, keeping, material
from mmsearch.training.batches import Batches
from mmsearch.training.build import Parts, build, teacher_of
from mmsearch.training.cache import FeatureCache
from mmsearch.training.distributed import World
from mmsearch.training.examples import Report as OnProgress
from mmsearch.training.examples import read
from mmsearch.training.locked import of_encoder
from mmsearch.training.loop import BEST, Trained, train
from mmsearch.training.material import Divided, Source
from mmsearch.training.measuring import Compared, compared, figures, judged
from mmsearch.training.mixing import read_all
from mmsearch.training.picture import spoken
from mmsearch.training.recipe import Recipe, settings_of
from mmsearch.training.recipes import RECIPES
from mmsearch.types import FailedFile

WATCHED = 500  # pictures of the dev side that are looked at while training


@dataclass(frozen=True, slots=True)
class Report:
    """held_out: pictures that were not trained on; None for a tower that is pre-trained alone. general: a set of
    another kind, to see what was forgotten; for models that are fine-tuned. strength: of adapters, 0 to 1."""

    recipe: Recipe
    out: Path
    trained: Trained
    parameters: int
    held_out: Compared | None = None
    general: Compared | None = None
    strength: float | None = None
    notices: tuple[str, ...] = ()
    left_out: tuple[FailedFile, ...] = ()


def run(
    recipe: Recipe,
    data: Sequence[str],
    out: Path,
    *,
    cache: Path,
    general: Path | None = None,
    device: torch.device | None = None,
    world: World | None = None,
    on_progress: OnProgress | None = None,
) -> Report:
    """general: a folder as for `mmsearch eval`; without one, the demo that ships. cache: where rows of locked towers
    are kept. Raises UsageError, ModelError, MissingExtraError, each with one line."""
    device, world = device or torch.device("cpu"), world or World()
    _check_out(out, recipe)
    if recipe.model and not recipe.tune:
        return _adapt(recipe, data, out, FeatureCache(cache, "float32"), general, on_progress)
    features = FeatureCache(cache)
    divided = material.read(data, recipe, on_progress)
    with world.one_after_another():
        parts = build(recipe, features, on_progress)
        if recipe.pretrained:
            _take_pretrained(recipe, divided, out, parts, features, device, world, on_progress)
        sides = _Sides(parts.source, divided)
    return _train_towers(recipe, divided, out, parts, sides, general, device, world, on_progress)


# --- adapters -----------------------------------------------------------------------------------------------------


def _adapt(
    recipe: Recipe,
    data: Sequence[str],
    out: Path,
    cache: FeatureCache,
    general: Path | None,
    on_progress: OnProgress | None,
) -> Report:
    base = load_encoder(recipe.model)
    sets = read_all(data, on_progress=on_progress)
    fitted = finetune.fit(recipe, base, sets, cache, out / "run", on_progress)
    source = Source(cache, of_encoder(base), True, True, on_progress=on_progress)
    untouched = copy.deepcopy(fitted.encoder)
    untouched.load_state_dict({name: torch.zeros_like(value) for name, value in untouched.state_dict().items()})
    report = Report(
        recipe, out, fitted.trained, _count(fitted.encoder), fitted.held_out,
        _general(general, source, untouched, fitted.encoder, torch.device("cpu")), fitted.strength,
        tuple(line for one in sets for line in one.supervised.notices),
        tuple(failed for one in sets for failed in one.supervised.left_out),
    )  # fmt: skip
    keeping.keep_adapters(out, base, fitted.encoder, facts=_facts(report))
    return report


# --- towers -------------------------------------------------------------------------------------------------------


class _Sides:
    """Held-out pictures as evaluation needs them; made once."""

    def __init__(self, source: Source, divided: Divided) -> None:
        self.dev = source.held_out("the dev side", divided.dev[:WATCHED]) if source.both else None
        self.test = source.held_out(divided.about, divided.test) if source.both else None


def _train_towers(
    recipe: Recipe, divided: Divided, out: Path, parts: Parts, sides: _Sides, general: Path | None,
    device: torch.device, world: World, on_progress: OnProgress | None,
) -> Report:  # fmt: skip
    learner, test, dev = parts.learner.to(device), sides.test, sides.dev
    start = copy.deepcopy(learner.state_dict())
    first = copy.deepcopy(learner.encoder) if test and recipe.model else None
    before = judged(learner.encoder, test, device) if test and world.rank == 0 else ()
    with world.one_after_another():
        batches = _batches(recipe, divided, parts.source, world)
    with batches:
        trained = train(
            learner, parts.objective, batches.batch, recipe, out / "run",
            score=(lambda one: figures(judged(one.encoder, dev, device))) if dev else None,
            device=device, world=world, on_progress=on_progress,
        )  # fmt: skip
    if recipe.interpolate < 1:
        learner.load_state_dict(wise_ft(start, learner.state_dict(), recipe.interpolate))
    parameters = sum(one.numel() for one in learner.parameters() if one.requires_grad)
    if world.rank or test is None:
        return Report(recipe, out, trained, parameters, notices=_notices(divided, batches), left_out=divided.left_out)
    after = judged(learner.encoder, test, device)
    report = Report(
        recipe, out, trained, parameters, compared(divided.about, before, after),
        _general(general, parts.source, first, learner.encoder, device) if first else None,
        notices=_notices(divided, batches), left_out=divided.left_out,
    )  # fmt: skip
    source = parts.source
    keeping.keep_towers(
        out, parts.whole_encoder(),
        side=source.side, tokenizer=source.tokenizer, max_tokens=source.max_tokens, facts=_facts(report),
    )  # fmt: skip
    return report


def _batches(recipe: Recipe, divided: Divided, source: Source, world: World) -> Batches:
    pictures = divided.pictures
    teacher = teacher_of(recipe)
    return Batches(
        divided.train,
        size=recipe.batch,
        seed=recipe.seed,
        images=source.train_images(pictures, recipe),
        texts=source.train_texts(pictures),
        second=recipe.second_view,
        teacher_images=source.cache.images(teacher, pictures, on_progress=source.on_progress) if teacher else None,
        teacher_texts=source.cache.texts(teacher, spoken(pictures), on_progress=source.on_progress)
        if teacher
        else None,
        rank=world.rank,
        world=world.size,
    )


def _take_pretrained(
    recipe: Recipe, divided: Divided, out: Path, parts: Parts, cache: FeatureCache,
    device: torch.device, world: World, on_progress: OnProgress | None,
) -> None:  # fmt: skip
    """Pre-train a tower on the same pictures, or take it from an earlier run in this folder, and begin with it."""
    before = RECIPES[recipe.pretrained]
    options = recipe.image_options if before.image else recipe.text_options
    name = "image_options" if before.image else "text_options"
    before = replace(before, steps=recipe.steps, batch=recipe.batch, seed=recipe.seed, **{name: options})  # type: ignore[arg-type]
    folder = out / before.name
    mine = build(before, cache, on_progress)
    made = folder / "run" / BEST
    tensors, facts = checkpoint.load(made) if made.is_file() else ({}, {})
    if facts.get("recipe") == json.loads(json.dumps(settings_of(before))):
        mine.learner.load_state_dict(tensors)
    else:
        _train_towers(before, divided, folder, mine, _Sides(mine.source, divided), None, device, world, on_progress)
    tower = parts.image if before.image else parts.text
    pretrained = mine.image if before.image else mine.text
    assert tower is not None and pretrained is not None
    tower.load_state_dict(pretrained.state_dict())


# --- all ----------------------------------------------------------------------------------------------------------


def _general(
    folder: Path | None, source: Source, before: DualEncoder, after: DualEncoder, device: torch.device
) -> Compared:
    """On pictures of another kind: what was gained at home should not be lost elsewhere."""
    supervised = read(folder or shipped_folder("demo"))
    about = supervised.about if folder else "the demo"
    side = source.held_out(about, supervised.pictures)
    return compared(about, judged(before, side, device), judged(after, side, device))


def _notices(divided: Divided, batches: Batches) -> tuple[str, ...]:
    return (*divided.notices, *batches.notices)


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _facts(report: Report) -> dict[str, Any]:
    """What the manifest remembers: how it was made, and how good it is."""

    def told(one: Compared) -> dict[str, Any]:
        return {
            "pictures": one.about,
            "before": {f"{m.direction} {m.name}": round(m.value, 2) for m in one.before},
            "after": {f"{m.direction} {m.name}": round(m.value, 2) for m in one.after},
        }

    facts: dict[str, Any] = {
        "summary": f"trained by the recipe {report.recipe.name}",
        "made": f"{datetime.now(UTC):%Y-%m-%d}",
        "with": f"torch {torch.__version__}, {os.cpu_count()} cores, {platform.machine()}",
        "training": {"recipe": settings_of(report.recipe), "steps": report.trained.best_step},
    }
    if report.strength is not None:
        facts["training"]["strength"] = report.strength
    facts |= {name: told(one) for name, one in (("held_out", report.held_out), ("general", report.general)) if one}
    return facts


def _check_out(out: Path, recipe: Recipe) -> None:
    """Raises UsageError where the folder cannot be used, before anything long begins."""
    try:
        (out / "run").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out} cannot be written to ({error.strerror}); choose another --out.") from error
    if not os.access(out, os.W_OK):
        raise UsageError(f"{out} cannot be written to; choose another --out.")
    note = out / "run" / "recipe.json"
    if note.is_file():
        name = json.loads(note.read_text("utf-8")).get("name")
        if name != recipe.name:
            raise UsageError(f"{out} holds a run of the recipe {name}; choose another --out for {recipe.name}.")
    note.write_text(json.dumps(settings_of(recipe), indent=2) + "\n", "utf-8")
