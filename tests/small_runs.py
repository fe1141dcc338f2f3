"""Recipes and data that are trained in a second (see test_run.py, test_beforehand.py, test_pretraining.py)."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

from mmsearch.training.recipe import Recipe
from mmsearch.training.recipes import RECIPES
from mmsearch.training.run import Report, run
from tests.conftest import paint
from tests.toy import COLOURS

SMALL_VIT = {"side": 16, "patch": 8, "width": 16, "depth": 1, "heads": 2}
SMALL_TEXT = {"width": 16, "depth": 1, "heads": 2, "max_tokens": 12}
TINY = replace(
    RECIPES["vit"], image_options=SMALL_VIT, text_options=SMALL_TEXT, width=12, steps=3, batch=12, evaluate_every=2,
    precision="fp32", ema=0.0,
)  # fmt: skip


def colours_with_captions(folder: Path) -> Path:
    """40 pictures of 8 colours with captions."""
    rows = [(colour, seed) for seed in range(5) for colour in COLOURS]
    for number, (colour, seed) in enumerate(rows):
        paint(folder / "images" / f"{number:02}.png", colour, seed)
    with (folder / "captions.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "caption"])
        writer.writerows((f"{n:02}.png", f"a {colour} thing, number {n}") for n, (colour, _) in enumerate(rows))
    return folder


def small_general_set(folder: Path) -> Path:
    for number, colour in enumerate(COLOURS):
        paint(folder / "images" / f"{number}.png", colour, 70, (20, 20))
        paint(folder / "images" / f"{number}b.png", colour, 71, (20, 20))
    lines = [f"{n}{more}.png,some {colour}{more}\n" for n, colour in enumerate(COLOURS) for more in ("", "b")]
    (folder / "captions.csv").write_text("image,caption\n" + "".join(lines))
    return folder


def trained(recipe: Recipe, data: Path, work: Path) -> Report:
    return run(recipe, [str(data)], work / "m", cache=work / "c")
