"""A recipe on someone's data, from the first picture to the folder of an encoder.

In: a settled recipe, data, a folder. Out: a `Report`, and in the folder the encoder (`mmsearch index --model` opens
it); in `run/` below it what is needed to go on after a kill, and the logs. What can be known to be wrong is said before
anything is loaded or read (beforehand.py).
"""

from __future__ import annotations

import copy
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from mmsearch.encoders.registry import load_encoder
from mmsearch.errors import MMSearchError, UsageError
from mmsearch.nn import checkpoint
from mmsearch.nn.dual_encoder import DualEncoder
from mmsearch.nn.tuning import interpolate
from mmsearch.settings import shipped_folder
from mmsearch.training import finetune, keeping, material
from mmsearch.training.batches import Batches
from mmsearch.training.beforehand import NOTE, problems
from mmsearch.training.build import Parts, Weights, build, teacher_of
from mmsearch.training.cache import FeatureCache
from mmsearch.training.distributed import World
from mmsearch.training.examples import OnProgress, Supervised, read
from mmsearch.training.locked import of_encoder
from mmsearch.training.loop import BEST, Trained, forget, train
from mmsearch.training.material import Divided, Source
from mmsearch.training.measuring import Compared, compared, figures, judged
from mmsearch.training.mixing import read_all
from mmsearch.training.picture import Picture, spoken
from mmsearch.training.recipe import Recipe, settings_of
from mmsearch.training.recipes import RECIPES
from mmsearch.types import FailedFile

WATCHED = 500  # pictures of the dev side that are looked at while training


@dataclass(frozen=True, slots=True)
class Report:
    """held_out: pictures that were not trained on; None for a tower that is pre-trained alone. general: a set of
    another kind, to see what was forgotten; for models that are fine-tuned. strength: of adapters, 0 to 1.
    seconds: of the whole run, reading and measuring included."""

    recipe: Recipe
    out: Path
    trained: Trained
    parameters: int
    seconds: float
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
    are kept. Raises UsageError, ModelError, MissingExtraError, CollectionError, each with one line; MMSearchError where
    the disk is full."""
    began = time.monotonic()
    device, world = device or torch.device("cpu"), world or World()
    if wrong := problems(recipe, data, out, general, processes=world.size, device=device):
        raise UsageError(" ".join(wrong))
    _begin(out, recipe, world)
    elsewhere = _elsewhere(general, on_progress) if recipe.model else None
    features = FeatureCache(cache, "float32" if recipe.model else "float16")
    if elsewhere and not recipe.tune:
        report = _adapt(recipe, data, out, features, elsewhere, device, on_progress)
    else:
        divided = material.read(data, recipe, on_progress)
        begin_with = _pretrained(recipe, divided, out, features, device, world, on_progress)
        parts = build(recipe, features, on_progress, begin_with)
        report = _train_towers(recipe, divided, out, parts, elsewhere, device, world, on_progress)
    notices = tuple(dict.fromkeys((*report.notices, *features.notices)))
    return replace(report, seconds=time.monotonic() - began, notices=notices)


# --- adapters -----------------------------------------------------------------------------------------------------


def _adapt(
    recipe: Recipe, data: Sequence[str], out: Path, cache: FeatureCache, elsewhere: Supervised, device: torch.device,
    on_progress: OnProgress | None,
) -> Report:  # fmt: skip
    base = load_encoder(recipe.model, device="auto" if str(device) in ("cuda", "mps") else str(device))
    sets = read_all(data, on_progress=on_progress)
    fitted = finetune.fit(recipe, base, sets, cache, out / "run", on_progress, keep_checkpoints=True)
    source = Source(cache, of_encoder(base), True, True, on_progress=on_progress)
    untouched = finetune.with_strength(fitted.encoder, 0.0)
    report = Report(
        recipe, out, fitted.trained, _count(fitted.encoder.parameters()), 0.0, fitted.held_out,
        _general(elsewhere, source, untouched, fitted.encoder, torch.device("cpu")), fitted.strength,
        (*(line for one in sets for line in one.supervised.notices),
         *_trained_on(elsewhere, [picture for one in sets for picture in one.supervised.pictures])),
        tuple(failed for one in sets for failed in one.supervised.left_out),
    )  # fmt: skip
    _export(lambda: keeping.keep_adapters(out, base, fitted.encoder, facts=_facts(report)))
    finetune.forget_rounds(out / "run")
    return report


# --- towers -------------------------------------------------------------------------------------------------------


def _train_towers(
    recipe: Recipe, divided: Divided, out: Path, parts: Parts, elsewhere: Supervised | None, device: torch.device,
    world: World, on_progress: OnProgress | None,
) -> Report:  # fmt: skip
    learner, source = parts.learner.to(device), parts.source
    start = copy.deepcopy(learner.state_dict()) if recipe.interpolate < 1 else None
    untouched = copy.deepcopy(learner.encoder) if elsewhere else None
    with world.one_after_another():
        dev, test = (
            (source.held_out("the dev side", _watched(divided.dev)), source.held_out(divided.about, divided.test))
            if source.both
            else (None, None)
        )
        batches = _batches(recipe, divided, source, world)
    with batches:
        before = judged(learner.encoder, test, device) if test and world.rank == 0 else ()
        trained = train(
            learner, parts.objective, batches.batch, recipe, out / "run", data=batches.mark,
            score=(lambda one: figures(judged(one.encoder, dev, device))) if dev else None,
            device=device, world=world, keep_checkpoint=test is not None, on_progress=on_progress,
        )  # fmt: skip
    if start is not None:
        interpolate(learner, start, recipe.interpolate)
    report = Report(
        recipe, out, trained, _count(one for one in learner.parameters() if one.requires_grad), 0.0,
        notices=(*divided.notices, *batches.notices), left_out=divided.left_out,
    )  # fmt: skip
    if world.rank or test is None:
        return report
    after = judged(learner.encoder, test, device)
    report = replace(
        report,
        held_out=compared(divided.about, before, after),
        general=_general(elsewhere, source, untouched, learner.encoder, device) if elsewhere and untouched else None,
        notices=(*report.notices, *(_trained_on(elsewhere, divided.pictures) if elsewhere else ())),
    )
    _export(
        lambda: keeping.keep_towers(
            out, parts.whole_encoder(),
            side=source.side, tokenizer=source.tokenizer, max_tokens=source.max_tokens, facts=_facts(report),
        )
    )  # fmt: skip
    forget(out / "run")
    return report


def _watched(pictures: Sequence[Picture]) -> list[Picture]:
    """WATCHED at the most, of all kinds."""
    return sorted(pictures, key=lambda picture: picture.content)[:WATCHED]


def _batches(recipe: Recipe, divided: Divided, source: Source, world: World) -> Batches:
    sets = divided.sets(recipe)
    pictures = [picture for _, one in sets for picture in one]
    teacher = teacher_of(recipe)
    return Batches(
        sets,
        size=recipe.batch,
        seed=recipe.seed,
        images=source.train_images(pictures, recipe),
        texts=source.train_texts(pictures),
        second=recipe.learner == "two_views",
        teacher_images=source.cache.images(teacher, pictures, on_progress=source.on_progress) if teacher else None,
        teacher_texts=source.cache.texts(teacher, spoken(pictures), on_progress=source.on_progress)
        if teacher
        else None,
        rank=world.rank,
        world=world.size,
    )


def _pretrained(
    recipe: Recipe, divided: Divided, out: Path, cache: FeatureCache, device: torch.device, world: World,
    on_progress: OnProgress | None,
) -> Weights:  # fmt: skip
    """Side -> the weights of a tower that was pre-trained on the same pictures, now or by an earlier run in this
    folder; nothing for recipes that begin without one."""
    if not recipe.pretrained:
        return {}
    before = RECIPES[recipe.pretrained]
    first = replace(
        before, steps=recipe.steps, batch=recipe.batch, seed=recipe.seed, precision=recipe.precision,
        learner_options={**before.learner_options, **recipe.pretrained_options},
    )  # fmt: skip
    if first.image:
        first = replace(first, image_options=recipe.image_options)
    else:
        first = replace(first, text_options=recipe.text_options)
    folder = out / "run" / first.name
    parts = build(first, cache, on_progress, {})
    made = folder / "run" / BEST
    tensors, facts = checkpoint.load(made) if made.is_file() else ({}, {})
    with _batches(first, divided, parts.source, world) as batches:
        mark = batches.mark
    if (facts.get("recipe"), facts.get("data")) == (json.loads(json.dumps(settings_of(first))), mark):
        parts.learner.load_state_dict(tensors)
    else:
        _train_towers(first, divided, folder, parts, None, device, world, on_progress)
    side, tower = ("image", parts.image) if first.image else ("text", parts.text)
    assert tower is not None
    return {side: tower.cpu().state_dict()}


# --- all ----------------------------------------------------------------------------------------------------------


def _begin(out: Path, recipe: Recipe, world: World) -> None:
    """Make the folder and note what it is for. Raises MMSearchError."""
    if world.rank:
        return
    note = out / "run" / NOTE
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        beside = note.with_suffix(".part")
        beside.write_text(json.dumps(settings_of(recipe), indent=2) + "\n", "utf-8")
        os.replace(beside, note)
    except OSError as error:
        raise MMSearchError(f"{out} cannot be written to ({error.strerror}); choose another --out.") from error


def _export(write: Callable[[], None]) -> None:
    """Where the encoder cannot be written, its training lies in checkpoints, and it is said."""
    try:
        write()
    except MMSearchError as error:
        raise MMSearchError(f"{error} The training is done and kept; what comes after it is done again.") from error


def _elsewhere(general: Path | None, on_progress: OnProgress | None) -> Supervised:
    """Read before anything is trained, so that what is wrong with it is known."""
    if general:
        return read(general, on_progress=on_progress)
    return replace(read(shipped_folder("demo"), on_progress=on_progress), about="the demo")


def _general(
    elsewhere: Supervised, source: Source, before: DualEncoder, after: DualEncoder, device: torch.device
) -> Compared:
    """On pictures of another kind: what was gained at home should not be lost elsewhere."""
    side = source.held_out(elsewhere.about, elsewhere.pictures)
    return compared(elsewhere.about, judged(before, side, device), judged(after, side, device))


def _trained_on(elsewhere: Supervised, pictures: Iterable[Picture]) -> Iterator[str]:
    """A notice where the general set cannot show what was forgotten."""
    known = {picture.content for picture in pictures}
    if same := sum(picture.content in known for picture in elsewhere.pictures):
        yield (
            f"{same:,} of the {len(elsewhere.pictures):,} pictures of {elsewhere.about} are among those of --data, so "
            "they show less of what was forgotten; name others with --general."
        )


def _count(parameters: Iterable[torch.nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


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
