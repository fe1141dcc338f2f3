"""The literature's own protocol on Flickr8k, for comparison, and the honest figure beside it.

Published: captions divided at random 80/20 (so that pictures lie on both sides), batches of 32, symmetric contrastive
loss, mean validation loss after three epochs: 0.3891 (ResNet-18, BERT, projection), 0.3743 (with cross-attention).
Here: the recipes `heads` (locked lite towers, deep heads) and `lit` (the text tower trained, too) under that protocol,
and once more with pictures divided instead of captions. In: --data (or MMSEARCH_DATA) with flickr8k.tar.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from common import parser, table, write_report
from recipes import flickr8k

from mmsearch.settings import shipped_folder
from mmsearch.training import material
from mmsearch.training.batches import Batches
from mmsearch.training.build import build
from mmsearch.training.cache import FeatureCache
from mmsearch.training.loop import train
from mmsearch.training.recipe import Recipe
from mmsearch.training.recipes import RECIPES

EPOCHS, BATCH = 3, 32
MODELS = {
    "`heads`: lite towers, locked; deep heads": replace(
        RECIPES["heads"], learning_rate=1e-3, weight_decay=0.01, dropout=0.1, ema=0.99
    ),
    "`lit`: the same, and the text tower learns": replace(
        RECIPES["lit"], learning_rate=2e-4, weight_decay=0.01, dropout=0.1, ema=0.99
    ),
}


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--data", type=Path, default=os.environ.get("MMSEARCH_DATA"), help="folder of the data")
    options.add_argument("--work", type=Path, help="folder for features; kept")
    args = options.parse_args()
    if args.data is None and not args.quick:
        options.error("name the folder of the data with --data DIR or MMSEARCH_DATA")
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or Path(scratch)
        folder = shipped_folder("demo") if args.quick else flickr8k(args.data, work)
        rows = [
            ["ResNet-18, BERT, projection (published)", "captions", "0.3891"],
            ["the same with cross-attention (published)", "captions", "0.3743"],
        ]
        for split in ("captions", "pictures"):
            if split == "captions" and args.quick:
                continue  # one caption a picture cannot be divided
            for name, recipe in MODELS.items():
                loss = validation_loss(recipe, folder, work, by_caption=split == "captions")
                rows.append([name, split, f"{loss:.4f}"])
    write_report(
        args,
        "The literature's protocol on Flickr8k",
        [
            f"Mean symmetric contrastive loss over validation batches of {BATCH} after {EPOCHS} epochs of batches of "
            f"{BATCH}. Where captions are divided, almost every validation picture was trained on with its other "
            "captions; only the figure with divided pictures says how good a model is on new ones. The published "
            "figures are quoted, not measured here.",
            table(["model", "divided", "validation loss"], rows),
        ],
        packages=("torch", "numpy"),
    )


def validation_loss(recipe: Recipe, folder: Path, work: Path, by_caption: bool) -> float:
    """Each row of an epoch is a caption, as there; so pictures come up as often as they have captions."""
    recipe = replace(recipe, batch=BATCH, caption_split=by_caption, precision="fp32", clip=0.0)
    sides = material.read([str(folder)], recipe, None)
    captions = sum(len(picture.captions) for picture in sides.pictures)
    recipe = replace(recipe, steps=EPOCHS * captions // BATCH, checkpoint_every=10**9)
    parts = build(recipe, FeatureCache(work / "features"), None, {})
    with _batches(recipe, sides.pictures, parts.source) as batches, tempfile.TemporaryDirectory() as run:
        train(parts.learner, parts.objective, batches.batch, recipe, Path(run))
    return _mean_loss(recipe, sides.dev, parts)


def _batches(recipe: Recipe, pictures: list, source: material.Source) -> Batches:  # type: ignore[type-arg]
    return Batches(
        [(1.0, pictures)],
        size=recipe.batch,
        seed=recipe.seed,
        images=source.train_images(pictures, recipe),
        texts=source.train_texts(pictures),
    )


@torch.no_grad()
def _mean_loss(recipe: Recipe, pictures, parts) -> float:  # type: ignore[no-untyped-def]
    """Five rounds, so that each validation caption is met about once; equal pictures count as right, as in training."""
    parts.learner.eval()
    parts.objective.eval()
    with _batches(recipe, list(pictures), parts.source) as batches:
        losses = [float(parts.objective(parts.learner(batches.batch(step)))) for step in range(5 * batches.per_epoch)]
    return sum(losses) / len(losses)


if __name__ == "__main__":
    main()
