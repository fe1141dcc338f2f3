"""What fine-tuning on a few hundred pictures of one's own gains, and what it costs elsewhere.

In: --data (or MMSEARCH_DATA) with clothing.tar and caltech101.tar (never trained on by `lite`). Out: for each set a
folder of 500 pictures, once with a sentence each (`a photo of a dress`), and the figures of
`mmsearch train --recipe finetune`: each picture held out once, with intervals; the demo as the general set.
And how well a small ViT from scratch learns to tell ten kinds of clothes apart (recipe `vit`, labels). Quick mode
paints its own pictures.
"""

from __future__ import annotations

import csv
import os
import random
import shutil
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import parser, table, write_report
from PIL import Image, ImageColor

from mmsearch.training.measuring import Compared
from mmsearch.training.recipes import RECIPES
from mmsearch.training.run import Report, run

PICTURES = 500
COLOURS = ("red", "green", "blue", "yellow", "black", "white", "orange", "purple", "pink", "brown", "gray", "cyan")
SETS = ("clothing", "caltech101")
PLAIN_NAMES = {"Faces_easy": "human face", "longsleeve": "long-sleeved shirt", "outwear": "jacket"}


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--data", type=Path, default=os.environ.get("MMSEARCH_DATA"), help="folder of the data")
    args = options.parse_args()
    if args.data is None and not args.quick:
        options.error("name the folder of the data with --data DIR or MMSEARCH_DATA")
    sizes = (60,) if args.quick else (100, PICTURES)
    finetune = replace(RECIPES["finetune"], steps=20) if args.quick else RECIPES["finetune"]
    found: list[tuple[str, int, Report]] = []
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        for name in SETS[: 1 if args.quick else None]:
            if args.quick:
                painted(work / name, sizes[0])
            else:
                with tarfile.open(args.data / f"{name}.tar") as tar:
                    tar.extractall(work, filter="data")
            for size in sizes:
                folder = captioned(work / name, work / f"{name}-{size}", size)
                out = work / f"model-{name}-{size}"
                found.append((name, size, run(finetune, [str(folder)], out, cache=work / "features")))
        recipe = replace(RECIPES["vit"], objective="unicl", steps=2 if args.quick else 120, patience=0)
        labels = run(recipe, [str(work / "clothing")], work / "vit", cache=work / "features")
    write_report(
        args,
        "Fine-tuning on a few hundred pictures",
        [
            "`finetune` starts from `lite`. Held-out pictures are looked for within their fifth of the set, so figures "
            "of different sizes cannot be compared with one another; before and after can. Intervals are 95 %.",
            table(
                ["set", "pictures", "t2i R@10 before", "after", "gained", "demo R@10 gained", "strength", "seconds"],
                [row(*one) for one in found],
            ),
            "A ViT from scratch (recipe `vit`, objective `unicl`, 64 pixels), trained on the labels of `clothing`. mAP "
            "of the ten labels on held-out pictures; a tower that had learnt nothing stays where it began.",
            table(["direction", "mAP before", "after", "gained"], label_rows(labels.held_out)),
        ],
        packages=("torch", "numpy", "onnxruntime"),
    )


def row(name: str, size: int, report: Report) -> list[Any]:
    assert report.held_out is not None
    assert report.general is not None
    before, after = (
        next(one.value for one in measures if (one.direction, one.name) == ("t2i", "R@10"))
        for measures in (report.held_out.before, report.held_out.after)
    )
    gained, general = report.held_out.main, report.general.main
    reach = "" if gained.low is None else f" ({gained.low:+.1f} to {gained.high:+.1f})"
    return [
        name, size, f"{before:.1f}", f"{after:.1f}", f"{gained.value:+.1f}{reach}", f"{general.value:+.1f}",
        f"{report.strength:g}", f"{report.seconds:.0f}",
    ]  # fmt: skip


def label_rows(compared: Compared | None) -> list[list[str]]:
    assert compared is not None
    rows = zip(compared.before, compared.after, compared.gained, strict=True)
    return [
        [before.direction, f"{before.value:.1f}", f"{after.value:.1f}", f"{gained.value:+.1f}"]
        for before, after, gained in rows
        if before.name == "mAP"
    ]


def painted(folder: Path, count: int) -> None:
    """Much noise on one of COLOURS each, labelled by its name."""
    (folder / "images").mkdir(parents=True)
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "label"])
        for number in range(count):
            noise = np.random.default_rng(number).normal(0, 200, (48, 64, 3))
            name = COLOURS[number % len(COLOURS)]
            pixels = np.clip(ImageColor.getrgb(name) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
            writer.writerow([f"{number}.png", name])


def captioned(source: Path, folder: Path, size: int) -> Path:
    """A folder of `size` pictures with one sentence each."""
    with (source / "labels.csv").open(encoding="utf-8", newline="") as stream:
        rows = [(line["image"], line["label"]) for line in csv.DictReader(stream)]
    random.Random(0).shuffle(rows)
    (folder / "images").mkdir(parents=True)
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "caption"])
        for number, (image, label) in enumerate(rows[:size]):
            name = f"{number}{Path(image).suffix}"
            shutil.copyfile(source / "images" / image, folder / "images" / name)
            writer.writerow([name, f"a photo of a {PLAIN_NAMES.get(label, label.replace('_', ' ').lower())}"])
    return folder


if __name__ == "__main__":
    main()
