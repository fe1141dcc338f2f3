"""`mmsearch train`: fit an encoder to one's own pictures, or train one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmsearch.cli import options
from mmsearch.cli.console import say, show_json, show_table, warn
from mmsearch.cli.exits import Exit
from mmsearch.cli.progress import progress_shown
from mmsearch.errors import MissingExtraError, UsageError
from mmsearch.render.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mmsearch.training.recipe import Recipe
    from mmsearch.training.run import Report

EXAMPLES = """\b
Examples:
  mmsearch train --list
  mmsearch train --recipe finetune --data ./mine --out ./my-model
  mmsearch train --recipe finetune --data trips --out ./my-model --promote
  mmsearch train --recipe siglip --data ./a --data 0.5:./b --out ./m --set steps=400
  mmsearch index --model ./my-model
"""
ALLOWED_LOSS = 2.0


def add_to(app: typer.Typer) -> None:
    app.command("train", short_help="Fit an encoder to your pictures, or train one.", epilog=EXAMPLES)(train)


def train(
    recipe: Annotated[
        str | None, typer.Option("--recipe", metavar="NAME", help="What to train and how; --list explains them.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="A folder as for `mmsearch eval`, webdataset shards (.tar), or a collection. Several are mixed, a "
            "weight may stand before each (0.5:DIR).",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            file_okay=False,
            help="Where the encoder goes. After a kill, the same command goes on from there.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a number of the recipe: steps=400, image.depth=4."),
    ] = None,
    general: Annotated[
        Path | None,
        typer.Option(
            "--general",
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="For finetune: other pictures, on which the model should stay as good. Without it: the demo.",
        ),
    ] = None,
    promote: Annotated[
        bool,
        typer.Option(
            "--promote",
            help="If the model is better on held-out pictures and no worse in general, encode the collection with it.",
        ),
    ] = False,
    allow_loss: Annotated[
        float,
        typer.Option("--allow-loss", metavar="POINTS", min=0, help="How much may be lost in general (R@10, points)."),
    ] = ALLOWED_LOSS,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", metavar="DIR", file_okay=False, help="Where rows of locked towers are kept."),
    ] = None,
    explain: Annotated[bool, typer.Option("--list", help="Explain the recipes and end.")] = False,
    device: options.Device = "auto",
    as_json: options.AsJson = False,
    collection: options.Collection = None,
) -> Exit:
    """Train an encoder by a recipe, and say how good it was before and after, on pictures that it has not seen.

    `finetune` fits `lite` (or, with --set model=ARCHITECTURE/TAG, a larger model) to your captions, folder names or
    tags, in minutes on two cores. Nothing of yours is changed; the encoder is a folder, used by `mmsearch index
    --model DIR`. With --promote, the collection is encoded with it if it is better (exit code 5 if it is not).

    Several GPUs, or several processes: torchrun --nproc-per-node N --no-python mmsearch
    train ...
    """
    try:
        from mmsearch.training.recipe import settle
        from mmsearch.training.recipes import RECIPES, recipe_named
    except ImportError as error:
        raise _missing(error) from error
    if explain:
        _explain(RECIPES, as_json)
        return Exit.DONE
    wanted = recipe_named(recipe) if recipe else None
    wrong = [
        f"{name} is missing" for name, given in (("--recipe", recipe), ("--data", data), ("--out", out)) if not given
    ]
    if wrong or wanted is None or out is None or not data:
        raise UsageError(f"{', '.join(wrong)}; `mmsearch train --list` explains recipes.")
    settled = settle(wanted, settings or [])
    target = _promoted_collection(collection, data) if promote else None
    report = _run(settled, data, out, general, cache, device)
    if report is None:
        return Exit.DONE
    return _show(report, promote, allow_loss, target, as_json)


def _run(
    recipe: Recipe, data: list[str], out: Path, general: Path | None, cache: Path | None, device: str
) -> Report | None:
    """None in the other processes of a shared training: one speaks."""
    try:
        from mmsearch.encoders.openclip import choose_device
        from mmsearch.training.distributed import joined_world
        from mmsearch.training.run import run
    except ImportError as error:
        raise _missing(error) from error
    from mmsearch.settings import data_folder

    if device == "auto" and os.environ.get("LOCAL_RANK") and choose_device("auto").type == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    where = choose_device(device)
    with joined_world(where) as world, progress_shown() as on_progress:
        report = run(
            recipe, data, out,
            cache=cache or data_folder() / "features", general=general, device=where, world=world,
            on_progress=on_progress if world.rank == 0 else None,
        )  # fmt: skip
    return report if world.rank == 0 else None


def _show(report: Report, promote: bool, allow_loss: float, target: str | None, as_json: bool) -> Exit:
    from mmsearch.render import training as told
    from mmsearch.training.promotion import verdict

    for failure in report.left_out[:10]:
        warn(f"left out: {printable(str(failure.path))}: {failure.error}")
    if len(report.left_out) > 10:
        warn(f"and {len(report.left_out) - 10:,} more pictures left out.")
    for notice in report.notices:
        warn(notice)
    found = verdict(report, allow_loss)
    code = Exit.DONE
    if promote and found.better:
        _promote(report.out, target)
    elif promote:
        code = Exit.NOT_PROMOTED
    if as_json:
        show_json(told.as_json(report, found if promote else None))
        return code
    for title, compared in (("general", report.general), ("held out", report.held_out)):
        if compared is not None:
            say(f"{title}: {printable(compared.about)}")
            show_table(told.table(compared))
    if promote:
        say(f"{'promoted' if found.better else 'not promoted'}: {found.why}")
    for line in told.lines(report):
        say(line)
    return code


def _promoted_collection(collection: str | None, data: list[str]) -> str | None:
    """The collection that is to use the new encoder: the one named, or the one that is trained on. UsageError where
    there is none, before anything long begins."""
    from mmsearch.settings import collection_folder

    for name in (collection, data[0] if len(data) == 1 else None, None):
        if (name or collection is None) and (collection_folder(name) / "catalog.sqlite").is_file():
            return name
    raise UsageError("--promote needs a collection that is to use the new encoder; name it with --collection.")


def _promote(out: Path, collection: str | None) -> None:
    from mmsearch.engine import Engine

    with (
        Engine.open(collection, model=str(out.absolute()), create=False) as engine,
        progress_shown() as on_progress,
    ):
        engine.index(on_progress=on_progress)


def _explain(recipes: Mapping[str, Recipe], as_json: bool) -> None:
    from mmsearch.render import training as told

    if as_json:
        show_json(told.recipes_json(recipes))
    else:
        for line in told.recipe_lines(recipes):
            say(line)


def _missing(error: ImportError) -> MissingExtraError:
    return MissingExtraError(f"Training needs {error.name}; install it with: pip install 'mmsearch[train]'")
