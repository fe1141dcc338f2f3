"""The recipe of the built-in encoder `lite`, top to bottom. One command rebuilds the weights:

    python -m mmsearch.training.lite --data DIR --out mmsearch/encoders/weights/lite

In: DIR (or MMSEARCH_DATA) with `flickr8k.tar` and `demo/`; the Debian packages openclipart-png,
tuxpaint-stamps-default, fonts-noto-color-emoji; the PyPI packages of the extra `train`.
Out: the directory of an encoder (see export.py). About ten minutes on two cores; choices were made on Flickr8k dev and
on held-out drawings. Nothing of `demo`, Flickr8k dev and test, or the evaluation sets is trained on.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from onnx import ModelProto
from tokenizers import Tokenizer
from torch import Tensor

from mmsearch.errors import MMSearchError, UsageError
from mmsearch.metrics import recall_at, retrieval_ranks
from mmsearch.training import sources
from mmsearch.training.export import join, quantise_convolutions, store_as_int8, to_onnx, write_encoder
from mmsearch.training.features import image_features, pixels, text_features
from mmsearch.training.frozen import (
    CLASSES,
    IMAGE_SIDE,
    IMAGE_WIDTH,
    TEXT_WIDTH,
    ImageBackbone,
    TextBackbone,
    text_package,
)
from mmsearch.training.heads import (
    Concepts,
    Head,
    ImageSide,
    TextSide,
    beside,
    image_input,
    main_directions,
    text_input,
    unit,
)
from mmsearch.training.objectives.infonce import InfoNCE
from mmsearch.training.sources import Example

log = logging.getLogger(__name__)

MAX_TOKENS = 64
CLASS_TEMPLATES = (
    "a photo of a {}", "{}", "a picture of a {}", "there is a {} here", "a {} outdoors", "a close-up of a {}",
)  # fmt: skip
DRAWING_TEMPLATES = ("{}", "a {}", "a drawing of a {}", "a picture of {}")
CALIBRATION = 256  # pictures that the ranges of the int8 tower are measured on


@dataclass(frozen=True, slots=True)
class Recipe:
    """The numbers of one training. Each was chosen on Flickr8k dev and held-out drawings.

    seeds: so many pairs of heads are trained. head_width: of one head in training; kept_width of all together remain,
    in the directions that vary most. concept_width: of the concept part, which follows them in a vector.
    concept_weight: its weight in the product.
    batch: photographs a step. drawings: drawings a step, with drawing_weight in the loss. class_weight: of the
    classifier's rows and of photographs with their class as text. sure: how probable such a class has to be.
    """

    seeds: int = 2
    steps: int = 200
    batch: int = 1000
    drawings: int = 700
    learning_rate: float = 1e-3
    weight_decay: float = 0.5
    head_width: int = 384
    kept_width: int = 224
    concept_width: int = 160
    concept_weight: float = 0.3
    class_weight: float = 0.5
    drawing_weight: float = 0.33
    sure: float = 0.25


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pictures as features, and for each the variants of its text: texts[i] are rows of `states`."""

    views: Tensor  # (views, n, 1280): as they are, and mirrored where training reads them
    logits: Tensor  # (n, 1000)
    states: Tensor  # (t, 384)
    texts: list[list[int]]

    def pick(self, which: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """For pictures (m,) one view and one text each -> pooled features (m, 1280), MiniLM states (m, 384)."""
        view = torch.randint(len(self.views), (len(which),), generator=generator)
        draw = torch.rand(len(which), generator=generator)
        rows = [self.texts[i] for i in which.tolist()]
        chosen = [own[int(d * len(own))] for own, d in zip(rows, draw.tolist(), strict=True)]
        return self.views[view, which], self.states[chosen]


@dataclass(frozen=True, slots=True)
class Material:
    """All that training reads. class_rows (1000, 1280): the classifier's weights, looking like pooled features.
    class_states (templates, 1000, 384); the last one is of descriptions."""

    photographs: Pairs
    drawings: Pairs
    class_rows: Tensor
    class_states: Tensor
    photographs_dev: Pairs
    drawings_dev: Pairs

    @property
    def names(self) -> Tensor:
        """(1000, 384): MiniLM's idea of each class, the mean over plain templates."""
        states = unit(self.class_states[: len(CLASS_TEMPLATES)])
        return states.mean(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=os.environ.get("MMSEARCH_DATA"), help="folder of prepared data")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the encoder to")
    parser.add_argument("--work", type=Path, help="folder for cached features; kept, so that a second run is fast")
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
    """The whole way: sources, frozen towers, features, heads, files."""
    if not (data / "demo").is_dir():
        raise UsageError(f"Training needs demo/, which is not in {data}; name its folder with --data.")
    photographs = sources.flickr8k(data)
    drawings = sources.openclipart(data / "demo") + sources.stamps() + sources.emoji()
    log.info("drawings: %s", sources.describe(drawings))
    image_tower, text_tower = frozen_towers(photographs["train"], drawings)
    material = read(image_tower, text_tower, photographs, drawings, work)
    image_side, text_side = train(material, recipe)
    figures = measure(image_side, text_side, material)
    log.info("%s", figures)
    write(out, image_tower, text_tower, image_side, text_side, {"recipe": asdict(recipe), "choice": figures})


def frozen_towers(photographs: list[Example], drawings: list[Example]) -> tuple[ModelProto, ModelProto]:
    """The pretrained towers as they ship: convolutions in int8, large matrices stored as int8."""
    log.info("int8: measuring ranges on %d pictures", CALIBRATION)
    some = photographs[:: len(photographs) * 4 // (3 * CALIBRATION)] + drawings[:: len(drawings) * 4 // CALIBRATION]
    empty = torch.zeros(2, IMAGE_SIDE, IMAGE_SIDE, 3, dtype=torch.uint8)
    image = to_onnx(ImageBackbone(), [empty], ["pixels"], ["pooled", "logits"])
    tokens = torch.ones(2, 7, dtype=torch.int64)
    text = to_onnx(TextBackbone(), [tokens, tokens], ["ids", "mask"], ["state"], tokens=True)
    return store_as_int8(quantise_convolutions(image, pixels(some))), store_as_int8(text)


def read(
    image_tower: ModelProto,
    text_tower: ModelProto,
    photographs: dict[str, list[Example]],
    drawings: list[Example],
    work: Path,
) -> Material:
    """Run the frozen towers over everything, or take what `work` holds from before."""
    tokenizer = trimmed_tokenizer()

    def states(texts: list[str]) -> Tensor:
        return text_features(text_tower, tokenizer, texts, work)

    def pairs(examples: list[Example], templates: tuple[str, ...] = ("{}",), mirror: bool = False) -> Pairs:
        log.info("features of %d pictures", len(examples))
        written = [[t.format(text) for text in e.texts for t in templates] for e in examples]
        unique = {text: row for row, text in enumerate(dict.fromkeys(text for own in written for text in own))}
        views = [image_features(image_tower, examples, work, mirrored) for mirrored in (False, True)[: 1 + mirror]]
        pooled = torch.stack([view[0] for view in views])
        return Pairs(pooled, views[0][1], states(list(unique)), [[unique[text] for text in own] for own in written])

    names, descriptions = sources.imagenet_classes()
    rows = ImageBackbone().class_rows()
    return Material(
        photographs=pairs(photographs["train"], mirror=True),
        drawings=pairs([e for e in drawings if not sources.held_out(e)], DRAWING_TEMPLATES, mirror=True),
        class_rows=(rows - rows.mean(0)) / rows.std(0),
        class_states=torch.stack(
            [states([t.format(n) for n in names]) for t in CLASS_TEMPLATES] + [states(descriptions)]
        ),
        photographs_dev=pairs(photographs["dev"]),
        drawings_dev=pairs([e for e in drawings if sources.held_out(e)]),
    )


def train(material: Material, recipe: Recipe) -> tuple[ImageSide, TextSide]:
    """Both sides: heads from several seeds beside each other, narrowed together, and the concepts."""
    pairs = [train_heads(material, recipe, seed) for seed in range(recipe.seeds)]
    image_head, text_head = beside([pair[0] for pair in pairs]), beside([pair[1] for pair in pairs])
    with torch.no_grad():
        seen = [image_head(image_input(known.views[0])) for known in (material.photographs, material.drawings)]
        said = [text_head(text_input(known.states)) for known in (material.photographs, material.drawings)]
    directions = main_directions(torch.cat(seen + said), recipe.kept_width)
    image_head.narrow(directions)
    text_head.narrow(directions)
    concepts = Concepts(material.names, recipe.concept_width)
    weight = recipe.concept_weight
    return ImageSide(image_head, concepts, weight).eval(), TextSide(text_head, concepts, weight).eval()


def train_heads(material: Material, recipe: Recipe, seed: int) -> tuple[Head, Head]:
    """One pair of heads, on frozen features; a minute on two cores. The result is a running average of the weights."""
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(1000 + seed)
    image_head, text_head = Head(IMAGE_WIDTH, recipe.head_width), Head(TEXT_WIDTH, recipe.head_width)
    objective = InfoNCE()
    parameters = [*image_head.parameters(), *text_head.parameters()]
    groups: list[dict[str, Any]] = [
        {"params": parameters, "weight_decay": recipe.weight_decay},
        {"params": objective.parameters()},
    ]
    optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate, weight_decay=0)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, recipe.steps, pct_start=0.1)
    average = [p.detach().clone() for p in parameters]

    photographs, drawings = material.photographs, material.drawings
    row_inputs = unit(material.class_rows) * IMAGE_WIDTH**0.5
    probability, seen = photographs.logits.softmax(-1).max(1)
    sure = (probability > recipe.sure).nonzero()[:, 0]

    for step in range(recipe.steps):
        which = _some(len(photographs.texts), recipe.batch, draw)
        pooled, states = photographs.pick(which, draw)
        looks, texts = _run(image_head, image_input(pooled)), _run(text_head, text_input(states))
        loss = objective(looks, texts, torch.eye(len(which)))

        if step % 2 == 0:  # what the classifier believes each class looks like
            inputs = row_inputs + 0.1 * torch.randn(row_inputs.shape, generator=draw)
            classes = torch.arange(len(row_inputs))
        else:  # photographs that it is sure about
            which = sure[_some(len(sure), 500, draw)]
            inputs, classes = image_input(photographs.views[0, which]), seen[which]
        template = torch.randint(len(material.class_states), (len(classes),), generator=draw)
        looks, texts = _run(image_head, inputs), _run(text_head, text_input(material.class_states[template, classes]))
        same = (classes[:, None] == classes[None]).float()
        loss = loss + recipe.class_weight * objective(looks, texts, same)

        which = _some(len(drawings.texts), recipe.drawings, draw)
        pooled, states = drawings.pick(which, draw)
        looks, texts = _run(image_head, image_input(pooled)), _run(text_head, text_input(states))
        loss = loss + recipe.drawing_weight * objective(looks, texts, _same_words(states))

        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        plan.step()
        with torch.no_grad():
            for mean, parameter in zip(average, parameters, strict=True):
                mean.lerp_(parameter, 1 - min(0.98, (1 + step) / (10 + step)))
        if step % 50 == 49:
            log.info("step %d of %d, loss %.3f", step + 1, recipe.steps, loss.item())

    with torch.no_grad():
        for mean, parameter in zip(average, parameters, strict=True):
            parameter.copy_(mean)
    return image_head.eval(), text_head.eval()


def _run(head: Head, x: Tensor) -> Tensor:
    """The head's rows, multiplied in bfloat16: up to four times as fast, and the noise is far below dropout's."""
    with torch.autocast("cpu", torch.bfloat16):
        rows: Tensor = head(x).float()
    return rows


def _some(n: int, most: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(n, generator=generator)[:most]


def _same_words(states: Tensor) -> Tensor:
    """(n, 384) -> (n, n): 1 where two texts say nearly the same, as two drawings of a bus do."""
    states = unit(states)
    return (states @ states.T > 0.97).float()


@torch.no_grad()
def measure(image_side: ImageSide, text_side: TextSide, material: Material) -> dict[str, dict[str, list[float]]]:
    """Recall at 1, 5, 10 in percent, on what choices are made on."""
    figures = {}
    for name, pairs in (("flickr8k dev", material.photographs_dev), ("drawings held out", material.drawings_dev)):
        images = image_side(pairs.views[0], pairs.logits).numpy()
        owners = torch.tensor([i for i, own in enumerate(pairs.texts) for _ in own])
        texts = text_side(pairs.states)[[row for own in pairs.texts for row in own]].numpy()
        t2i, i2t = retrieval_ranks(images, texts, owners.numpy())
        figures[name] = {
            way: [round(recall_at(ranks, k), 1) for k in (1, 5, 10)] for way, ranks in (("t2i", t2i), ("i2t", i2t))
        }
    return figures


def trimmed_tokenizer() -> Tokenizer:
    """MiniLM's own tokenizer, cut at MAX_TOKENS, without padding."""
    tokenizer = Tokenizer.from_file(str(text_package() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


def write(
    out: Path,
    image_tower: ModelProto,
    text_tower: ModelProto,
    image_side: ImageSide,
    text_side: TextSide,
    facts: dict[str, object],
) -> None:
    """Join towers and heads, and write the directory."""
    pooled, logits, state = torch.zeros(2, IMAGE_WIDTH), torch.zeros(2, CLASSES), torch.zeros(2, TEXT_WIDTH)
    image_head = store_as_int8(to_onnx(image_side, [pooled, logits], ["pooled", "logits"], ["vector"]))
    text_head = store_as_int8(to_onnx(text_side, [state], ["state"], ["vector"]))
    write_encoder(
        out,
        name="lite",
        image=join(image_tower, image_head),
        text=join(text_tower, text_head),
        tokenizer=trimmed_tokenizer().to_str(),
        image_size=IMAGE_SIDE,
        max_tokens=MAX_TOKENS,
        facts={"licences": sources.LICENCES, "training": facts},
    )
    log.info("written: %s", {path.name: path.stat().st_size for path in sorted(out.iterdir())})


if __name__ == "__main__":
    main()
