"""Every recipe of `mmsearch train`, under one small budget, on one set: what each reaches, beside its untrained self.

In: --data (or MMSEARCH_DATA) with flickr8k.tar (224-pixel copies); its official splits. Out: the table. All recipes see
the same 6,000 photographs for the steps that they name (`mmsearch train --list`); those on locked towers read cached
features. Rows are kept in --work as they are made, so that a long run can be broken off and gone on with.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import parser, table, write_report

from mmsearch.settings import shipped_folder
from mmsearch.training.recipe import Recipe
from mmsearch.training.recipes import RECIPES
from mmsearch.training.run import run

QUICK = ("heads", "vit")
WAYS = ("t2i", "i2t")
RECALLS = ("R@1", "R@5", "R@10")
FROM_NOTHING = ("vit", "perceiver")  # fewer steps, to stay within minutes


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--data", type=Path, default=os.environ.get("MMSEARCH_DATA"), help="folder of the data")
    options.add_argument("--work", type=Path, help="folder for features and finished rows; kept")
    options.add_argument("--only", nargs="*", help="these recipes alone")
    args = options.parse_args()
    if args.data is None and not args.quick:
        options.error("name the folder of the data with --data DIR or MMSEARCH_DATA")
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        folder = shipped_folder("demo") if args.quick else flickr8k(args.data, work)
        rows = [row for recipe in wanted(args) if (row := measured(recipe, folder, work))]
    write_report(
        args,
        "What each recipe reaches",
        [
            "Flickr8k test, 1,000 photographs with five sentences each (224-pixel copies), in percent, with 95 % "
            "intervals. Chance is 0.1/0.5/1.0 for text to image. *Untrained* is the same model before its first step: "
            "for `finetune` that is the encoder that it starts from, for all others random heads or towers. Towers "
            "from nothing were given 80 steps, so that each row takes minutes.",
            recall_table(rows, "t2i", "Text to image"),
            recall_table(rows, "i2t", "Image to text"),
            cost_table(rows),
            "What they are good for\n\n"
            + "\n".join(f"- `{row['name']}`: {RECIPES[row['name']].good_for}." for row in rows),
        ],
        packages=("torch", "numpy", "onnxruntime"),
    )


def wanted(args: argparse.Namespace) -> Iterable[Recipe]:
    """Towers that are pre-trained alone have no row: they are part of the recipe that goes on from them."""
    of_others = {recipe.pretrained for recipe in RECIPES.values()}
    for name, recipe in RECIPES.items():
        if name in of_others or recipe.model not in ("", "lite"):  # part of another row; weights that must be fetched
            continue
        if args.quick and name in QUICK:
            yield replace(recipe, steps=2, batch=16, evaluate_every=2)
        elif not args.quick and (args.only is None or name in args.only):
            whole = recipe.image_tune == "full" and recipe.image in FROM_NOTHING
            yield replace(recipe, steps=80, evaluate_every=80, ema=0.9) if whole else recipe


def measured(recipe: Recipe, folder: Path, work: Path) -> dict[str, Any]:
    """One row, made now or before."""
    kept = work / "rows" / f"{recipe.name}.json"
    if kept.is_file():
        row: dict[str, Any] = json.loads(kept.read_text("utf-8"))
        return row
    started = time.perf_counter()
    report = run(recipe, [str(folder)], work / "runs" / recipe.name, cache=work / "features")
    assert report.held_out is not None
    row = {
        "name": recipe.name,
        "objective": recipe.objective,
        "parameters": report.parameters,
        "steps": recipe.steps,
        "batch": recipe.batch,
        "pairs_a_second": report.trained.pairs_a_second,
        "seconds": report.trained.seconds,
        "all_seconds": time.perf_counter() - started,
    }
    for name, measures in (("before", report.held_out.before), ("after", report.held_out.after)):
        row[name] = {f"{one.direction} {one.name}": [one.value, one.low, one.high] for one in measures}
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(row), "utf-8")
    print(recipe.name, row["after"]["t2i R@10"], f"{row['all_seconds']:.0f} s", file=sys.stderr, flush=True)
    return row


def recall_table(rows: Sequence[dict[str, Any]], way: str, title: str) -> str:
    cells = [
        [
            f"`{row['name']}`",
            "/".join(f"{row['before'][f'{way} {recall}'][0]:.1f}" for recall in RECALLS),
            *(interval(*row["after"][f"{way} {recall}"]) for recall in RECALLS),
        ]
        for row in rows
    ]
    return f"{title}\n\n" + table(["recipe", "untrained R@1/5/10", *RECALLS], cells)


def interval(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.1f}" if low is None else f"{value:.1f} ({low:.1f} to {high:.1f})"


def cost_table(rows: Sequence[dict[str, Any]]) -> str:
    cells = [
        [
            f"`{row['name']}`", row["objective"], f"{row['parameters']:,}", f"{row['steps']} x {row['batch']}",
            f"{row['pairs_a_second']:,.0f}", f"{row['seconds']:,.0f}", f"{row['all_seconds']:,.0f}",
        ]
        for row in rows
    ]  # fmt: skip
    columns = ["recipe", "objective", "parameters trained", "steps x rows", "pairs/s", "seconds", "with all else"]
    return (
        "What it costs. *With all else*: reading, features that were not cached yet, pre-training, both measurements, "
        "and writing the encoder.\n\n" + table(columns, cells)
    )


def flickr8k(data: Path, work: Path) -> Path:
    """The archive as a folder that `mmsearch eval` reads."""
    folder = work / "flickr8k"
    if not (folder / "captions.csv").is_file():
        with tarfile.open(data / "flickr8k.tar") as tar:
            tar.extractall(work, filter="data")
    return folder


if __name__ == "__main__":
    main()
