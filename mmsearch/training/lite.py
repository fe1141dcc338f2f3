"""The recipe of the built-in encoder `lite`, top to bottom. One command rebuilds the weights:

    python -m mmsearch.training.lite --data DIR --out mmsearch/encoders/weights/lite

In: DIR (or MMSEARCH_DATA) with `flickr8k.tar` and `demo/`; the Debian packages openclipart-png,
tuxpaint-stamps-default, fonts-noto-color-emoji, wordnet-base; the PyPI packages of the extra `train`.
Out: the directory of an encoder (see export.py). About forty-five minutes on two cores; choices were made on Flickr8k
dev, on held-out drawings and on held-out nouns. Nothing of `demo`, Flickr8k dev and test, or the evaluation sets is
trained on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmsearch.encoders.pairs import KnownPairs, Numbers
from mmsearch.encoders.trained import TrainedEncoder
from mmsearch.errors import MMSearchError, UsageError
from mmsearch.metrics import recall_at, retrieval_ranks
from mmsearch.nn.features import unit
from mmsearch.nn.towers.lite import CLASSES, IMAGE_SIDE, IMAGE_WIDTH, LiteTextTower
from mmsearch.training import sources
from mmsearch.training.export import add_pairs, join, quantise_convolutions, store_as_int8, to_onnx, write_encoder
from mmsearch.training.features import Words, pixels
from mmsearch.training.folded import FoldedTower
from mmsearch.training.heads import ImageSide, TextSide, image_input, main_directions, text_input
from mmsearch.training.knowledge import sayings
from mmsearch.training.sources import Example
from mmsearch.training.tuning import Material, Model, Pairs, Recipe, settle, train
from mmsearch.training.views import views_of
from mmsearch.training.wordnet import nouns
from mmsearch.wording import prompts

log = logging.getLogger(__name__)

DRAWING_TEMPLATES = ("{}", "a {}", "a drawing of a {}", "a picture of {}")
AFTERWARDS = (
    "kept_width",
    "used_weight",
    "settling_steps",
    "settling_rate",
    "known",
)  # the towers do not depend on these
KNOWN_EVERY = 2  # so many photographs give one known pair: all would not fit, and say no more
RANGES = 384  # pictures that the ranges of the int8 tower are measured on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=os.environ.get("MMSEARCH_DATA"), help="folder of prepared data")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the encoder to")
    parser.add_argument("--work", type=Path, help="folder for what is computed once, so that a second run is fast")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("name the folder of the data with --data DIR or MMSEARCH_DATA")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    with tempfile.TemporaryDirectory() as scratch:
        work = arguments.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        try:
            build(Path(arguments.data), arguments.out, work, Recipe())
        except MMSearchError as error:
            parser.exit(2, f"{error}\n")


def build(data: Path, out: Path, work: Path, recipe: Recipe) -> None:
    """The whole way: sources, views, heads, towers, int8, files."""
    if not (data / "demo").is_dir():
        raise UsageError(f"Training needs demo/, which is not in {data}; name its folder with --data.")
    photographs = sources.flickr8k(data)
    drawings = sources.openclipart(data / "demo") + sources.stamps() + sources.emoji()
    log.info("drawings: %s", sources.describe(drawings))
    known = [drawing for drawing in drawings if not sources.held_out(drawing)]
    held_out = [drawing for drawing in drawings if sources.held_out(drawing)]
    words = Words()
    material = read(photographs["train"], known, recipe, words, work)
    model = tuned(material, recipe, words, work)
    settle(model, material, recipe, words)
    narrow(model, photographs["train"][::6] + known[::6], recipe, words)
    chosen_on = {"flickr8k dev": photographs["dev"], "drawings held out": held_out}
    figures = {name: measure(model, examples, words) for name, examples in chosen_on.items()}
    log.info("%s", figures)
    some = photographs["train"][:: 6000 * 4 // (3 * RANGES)] + known[:: len(known) * 4 // RANGES]
    write(out, model, some, {"recipe": asdict(recipe), "choice": figures})
    remember(out, photographs["train"][::KNOWN_EVERY] + known, recipe.known)
    encoder = TrainedEncoder(out)
    log.info("as written: %s", {name: recalls(*vectors(encoder, one), one) for name, one in chosen_on.items()})


def tuned(material: Material, recipe: Recipe, words: Words, work: Path) -> Model:
    """The model with tuned towers, from `work` where this recipe was run before."""
    numbers = {name: value for name, value in asdict(recipe).items() if name not in AFTERWARDS}
    digest = hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()[:16]
    path = work / f"tuned-{digest}.pt"
    if not path.exists():
        torch.save(train(material, recipe, words).state_dict(), path)
    model = Model(material.names, recipe)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def read(photographs: list[Example], drawings: list[Example], recipe: Recipe, words: Words, work: Path) -> Material:
    """Views of all pictures, and what the classes mean in words."""
    image_tower, text_tower = FoldedTower(), LiteTextTower()

    def states(texts: list[str]) -> Tensor:
        return words.quickly(text_tower, texts)

    names, descriptions = sources.imagenet_classes()
    said = [states([prompts(name)[number] for name in names]) for number in range(len(prompts("")))]
    return Material(
        Pairs(views_of(image_tower, photographs, recipe.photograph_views, work), [e.texts for e in photographs]),
        Pairs(
            views_of(image_tower, drawings, recipe.drawing_views, work),
            [tuple(t.format(text) for text in e.texts for t in DRAWING_TEMPLATES) for e in drawings],
        ),
        sayings(names, descriptions, nouns(sources.imagenet_offsets()), states),
        torch.stack([unit(one) for one in said]).mean(0),
    )


@torch.no_grad()
def narrow(model: Model, examples: list[Example], recipe: Recipe, words: Words) -> None:
    """The heads keep the directions in which these pictures and their texts vary most; concepts weigh as in use."""
    pooled, _ = seen(model.image_tower, examples)
    states = words.quickly(model.text_tower, [text for example in examples for text in example.texts[:2]])
    rows = torch.cat((model.image_head(image_input(pooled)), model.text_head(text_input(states))))
    directions = main_directions(rows, recipe.kept_width)
    model.image_head.narrow(directions)
    model.text_head.narrow(directions)
    model.weight = recipe.used_weight


@torch.no_grad()
def seen(tower: FoldedTower, examples: list[Example]) -> tuple[Tensor, Tensor]:
    """Pooled features (n, 1280) and logits (n, 1000), in float32."""
    batches = [examples[i : i + 64] for i in range(0, len(examples), 64)]
    made = [tower(torch.from_numpy(pixels(batch))) for batch in batches]
    return torch.cat([pooled for pooled, _ in made]), torch.cat([logits for _, logits in made])


@torch.no_grad()
def measure(model: Model, examples: list[Example], words: Words) -> dict[str, list[float]]:
    """Recall at 1, 5, 10 in percent, both ways."""
    images = model.images(*seen(model.image_tower, examples))
    texts = model.texts(words.quickly(model.text_tower, [text for example in examples for text in example.texts]))
    return recalls(images.numpy(), texts.numpy(), examples)


def vectors(encoder: TrainedEncoder, examples: list[Example]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of the pictures, and of all of their texts."""
    parts = [examples[start : start + 64] for start in range(0, len(examples), 64)]
    images = [encoder.encode_images([encoder.prepare(example.open()) for example in part]) for part in parts]
    return np.concatenate(images), encoder.encode_texts([text for example in examples for text in example.texts])


def recalls(images: NDArray[np.float32], texts: NDArray[np.float32], examples: list[Example]) -> dict[str, list[float]]:
    owners = np.array(owners_of(examples))
    ranks = retrieval_ranks(images, texts, owners)
    return {way: [round(recall_at(r, k), 1) for k in (1, 5, 10)] for way, r in zip(("t2i", "i2t"), ranks, strict=True)}


def owners_of(examples: list[Example]) -> list[int]:
    """Of each text, the number of its picture."""
    return [number for number, example in enumerate(examples) for _ in example.texts]


def remember(out: Path, examples: list[Example], numbers: Numbers) -> None:
    """Give the encoder in `out` these pairs (encoders/pairs.py); of several texts of a picture, their mean."""
    images, texts = vectors(TrainedEncoder(out), examples)
    sums = np.zeros_like(images)
    np.add.at(sums, owners_of(examples), texts)
    add_pairs(out, KnownPairs.of(images, sums, numbers))


class _Texts(nn.Module):
    """ids, mask (n, tokens) -> (n, dimension) unit length."""

    def __init__(self, tower: LiteTextTower, side: TextSide) -> None:
        super().__init__()
        self.tower, self.side = tower, side

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        made: Tensor = self.side(self.tower(ids, mask).pooled)
        return made


def write(out: Path, model: Model, some: list[Example], facts: dict[str, object]) -> None:
    """Both towers with their heads as ONNX: convolutions in int8, their ranges measured on `some` pictures, large
    matrices stored as int8."""
    log.info("int8: measuring ranges on %d pictures", len(some))
    empty = torch.zeros(2, IMAGE_SIDE, IMAGE_SIDE, 3, dtype=torch.uint8)
    tower = to_onnx(model.image_tower, [empty], ["pixels"], ["pooled", "logits"])
    tower = store_as_int8(quantise_convolutions(tower, pixels(some)))
    image_side = ImageSide(model.image_head, model.concepts, model.weight)
    inputs = [torch.zeros(2, IMAGE_WIDTH), torch.zeros(2, CLASSES)]
    tokens = torch.ones(2, 7, dtype=torch.int64)
    text_side = TextSide(model.text_head, model.said, model.weight)
    text = to_onnx(_Texts(model.text_tower, text_side), [tokens, tokens], ["ids", "mask"], ["vector"], tokens=True)
    write_encoder(
        out,
        name="lite",
        image=join(tower, store_as_int8(to_onnx(image_side, inputs, ["pooled", "logits"], ["vector"]))),
        text=store_as_int8(text),
        tokenizer=model.text_tower.tokenizer,
        image_size=IMAGE_SIDE,
        max_tokens=model.text_tower.max_tokens,
        facts={"licences": sources.LICENCES, "training": facts},
    )
    log.info("written: %s", {path.name: path.stat().st_size for path in sorted(out.iterdir())})


if __name__ == "__main__":
    main()
