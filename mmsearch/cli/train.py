"""`mmsearch train`: fit an encoder to one's own pictures, or train one."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmsearch.cli import options
from mmsearch.cli.console import on_terminal, say, show_json, show_table, warn
from mmsearch.cli.exits import Exit
from mmsearch.cli.progress import progress_shown
from mmsearch.errors import MissingExtraError, ModelError, UsageError
from mmsearch.render.text import printable

if TYPE_CHECKING:
    from mmsearch.training.recipe import Recipe
    from mmsearch.training.run import Report

EXAMPLES = """\b
Examples:
  mmsearch train --list
  mmsearch train --recipe finetune --data ./mine --out ./m
  mmsearch train --recipe finetune --data trips \\
    --out ./m --promote
  mmsearch train --recipe siglip --data ./a \\
    --data 0.5:./b --out ./m --set steps=400
  mmsearch index --model ./m
"""
ALLOWED_LOSS = 2.0
LEFT_OUT_SHOWN = 10


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
            "weight may stand before each (0.5:DIR). Recipes that learn from pictures alone, or begin so (vit-mae), "
            "take pictures without a text, too.",
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
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a number of the recipe, its objective, its learner or its towers: steps=400, margin=0.1, "
            "mask_ratio=0.6, image.depth=4; --list names all keys.",
        ),
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
    explain: Annotated[
        bool, typer.Option("--list", help="Explain the recipes, with all that --set takes, and end.")
    ] = False,
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
    if explain:
        _explain(as_json)
        return Exit.DONE
    try:
        with _the_extra():
            target = _promoted_collection(collection, data or []) if promote else None
            settled = _settled(recipe, data, out, settings or [], general, device, target)
            assert data and out
            report = _run(settled, data, out, general, cache, device)
    except KeyboardInterrupt:
        warn("stopped; the same command goes on from there.")
        return Exit.INTERRUPTED
    if report is None:
        return Exit.DONE
    return _show(report, allow_loss, target, as_json)


@contextmanager
def _the_extra() -> Iterator[None]:
    """What is missing of it is named."""
    try:
        yield
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "mmsearch"):
            raise
        raise MissingExtraError(f"Training needs {package}; install it with: pip install 'mmsearch[train]'") from error


def _settled(
    recipe: str | None,
    data: list[str] | None,
    out: Path | None,
    settings: list[str],
    general: Path | None,
    device: str,
    promote: Path | None,
) -> Recipe:
    """promote: the collection that is to use the encoder. Raises UsageError with all that is wrong."""
    from mmsearch.encoders.openclip import choose_device
    from mmsearch.encoders.registry import check_device
    from mmsearch.training.beforehand import problems
    from mmsearch.training.recipe import tried
    from mmsearch.training.recipes import recipe_named

    given = (("--recipe", recipe), ("--data", data), ("--out", out))
    missing = [name for name, value in given if not value]
    wrong = [f"{' and '.join(missing)} must be given; `mmsearch train --list` explains recipes."] if missing else []
    settled, where = None, None
    try:
        if recipe:
            settled, told = tried(recipe_named(recipe), settings)
            wrong += [told] if told else []
    except UsageError as error:
        wrong.append(str(error))
    try:
        check_device(device)
        with suppress(ModelError):  # one that is not here is no mistake in writing; it is told when it is used
            where = choose_device(device)
    except UsageError as error:
        wrong.append(str(error))
    wrong += problems(settled, data or [], out, general, device=where, promote=promote)
    if wrong or settled is None:
        raise UsageError(" ".join(wrong))
    return settled


def _promoted_collection(collection: str | None, data: list[str]) -> Path:
    """Where the collection should be that is to use the new encoder: the one named, else the one that is trained on,
    else the usual one."""
    from mmsearch.settings import collection_folder
    from mmsearch.training.beforehand import is_collection
    from mmsearch.training.mixing import weighted

    usual = collection_folder(collection)
    if collection is not None:
        return usual
    places = []
    for one in data:
        with suppress(UsageError):  # it is told with all that is wrong
            source = weighted(one)[1]
            places.append(path if (path := Path(source).expanduser()).exists() else collection_folder(source))
    of_data = [place for place in places if is_collection(place)]
    return of_data[0] if len(of_data) == 1 else usual


def _run(
    recipe: Recipe, data: list[str], out: Path, general: Path | None, cache: Path | None, device: str
) -> Report | None:
    """None in the other processes of a shared training: one speaks."""
    from mmsearch.encoders.openclip import choose_device
    from mmsearch.settings import data_folder
    from mmsearch.training.distributed import joined_world
    from mmsearch.training.run import run

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


def _show(report: Report, allow_loss: float, target: Path | None, as_json: bool) -> Exit:
    from mmsearch.render import training as told
    from mmsearch.training.promotion import verdict

    for failure in report.left_out[:LEFT_OUT_SHOWN]:
        warn(f"left out: {printable(str(failure.path))}: {failure.error}")
    if len(report.left_out) > LEFT_OUT_SHOWN:
        warn(f"and {len(report.left_out) - LEFT_OUT_SHOWN:,} more pictures left out.")
    for notice in report.notices:
        warn(notice)
    for title, compared in (("general", report.general), ("held out", report.held_out)):
        if compared is not None and not as_json:
            say(f"{title}: {printable(compared.about)}")
            show_table(told.table(compared))
    found = verdict(report, allow_loss) if target else None
    if found and target and found.better and not _promoted(report, target):
        return Exit.INTERRUPTED
    if as_json:
        show_json(told.as_json(report, found))
    else:
        if found:
            say(f"{'promoted' if found.better else 'not promoted'}: {printable(found.why)}")
        for line in told.lines(report):
            say(line)
    return Exit.NOT_PROMOTED if found and not found.better else Exit.DONE


def _promoted(report: Report, collection: Path) -> bool:
    """Encode the collection with it; False where that was interrupted: until it is whole, the old one serves."""
    from mmsearch.engine import Engine
    from mmsearch.render.training import use

    try:
        with (
            Engine.open(collection, model=str(report.out.absolute()), create=False) as engine,
            progress_shown() as on_progress,
        ):
            failed = engine.index(on_progress=on_progress).failed
    except KeyboardInterrupt:
        warn(f"stopped while the collection was encoded; this goes on: {use(report)} -c {shlex.quote(str(collection))}")
        return False
    if failed:
        warn(f"{failed:,} pictures of the collection could not be encoded; `mmsearch status` lists them.")
    return True


def _explain(as_json: bool) -> None:
    from mmsearch.render import training as told
    from mmsearch.training.recipe import own_keys
    from mmsearch.training.recipes import RECIPES

    try:
        own = {name: own_keys(recipe) for name, recipe in RECIPES.items()}
    except ImportError:  # without the extra, recipes are explained all the same
        own = None
    if as_json:
        show_json(told.recipes_json(RECIPES, own))
    else:
        width = shutil.get_terminal_size().columns if on_terminal() else told.WIDTH
        for line in told.recipe_lines(RECIPES, own, min(width, told.WIDTH)):
            say(line)
