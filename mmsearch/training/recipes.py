"""The recipes that `mmsearch train --recipe` knows, one entry each. All numbers can be changed with `--set`.

Those on locked `lite` towers read cached features and take a minute on two cores; those that train towers from scratch
take longer and stay behind: they are here for larger sets, for machines with a GPU, and to compare objectives.
"""

from __future__ import annotations

from dataclasses import replace

from mmsearch.training.names import unknown
from mmsearch.training.recipe import Recipe

_HEADS = Recipe(
    image="lite",
    image_tune="locked",
    text="lite",
    text_tune="locked",
    head="deep",
    width=384,
    steps=200,
    batch=1000,
    learning_rate=1e-3,
    weight_decay=0.5,
    ema=0.98,
    precision="bf16",
    evaluate_every=50,
)
_SCRATCH = Recipe(
    image="vit",
    image_options={"side": 64, "patch": 8, "width": 128, "depth": 4, "heads": 4},
    text="transformer",
    text_options={"width": 128, "depth": 2, "heads": 4},
    width=128,
    steps=120,
    batch=128,
    learning_rate=5e-4,
    warmup=0.25,
    weight_decay=0.2,
    augment="light",
    ema=0.98,
    precision="bf16",
    evaluate_every=60,
)


def _recipes(*made: Recipe) -> dict[str, Recipe]:
    return {one.name: one for one in made}


RECIPES: dict[str, Recipe] = _recipes(
    Recipe(
        name="finetune",
        good_for="your own pictures: fits an encoder (model=lite, or one of open_clip's) to captions, folder names or "
        "tags, in minutes on two cores",
        model="lite",
        steps=100,
        batch=500,
        learning_rate=1e-3,
        weight_decay=0.5,
        general_weight=20.0,
    ),
    Recipe(
        name="finetune-towers",
        good_for="thousands of pictures of your own and a GPU: low-rank changes of one of open_clip's models, mixed "
        "half and half with what it was, so that it does not forget",
        model="ViT-B-32/laion2b_s34b_b79k",
        tune="lora:8",
        interpolate=0.5,
        steps=300,
        batch=256,
        piece=32,
        learning_rate=2e-4,
        precision="bf16",
        evaluate_every=50,
        patience=3,
    ),
    replace(
        _HEADS,
        name="heads",
        good_for="the plain choice for new pairs: CLIP's loss on locked towers, large batches from cached features",
    ),
    replace(
        _HEADS,
        name="siglip",
        good_for="many processes or small batches: each pair is judged alone, so the batch size matters less",
        objective="siglip",
    ),
    replace(
        _HEADS,
        name="align",
        good_for="noisy captions from the web: smoothed targets forgive pairs that do not belong together",
        objective="align",
    ),
    replace(
        _HEADS,
        name="unicl",
        good_for="labels instead of captions: all pictures of one label belong to all its texts",
        objective="unicl",
    ),
    replace(
        _HEADS,
        name="vse",
        good_for="ranking by the hardest negative alone: for clean captions and small batches; in large ones the "
        "hardest negative is often as right",
        objective="vse",
        options={"negatives": "hardest"},
        batch=128,
        steps=600,
        learning_rate=2e-4,
    ),
    replace(
        _HEADS,
        name="vse-sum",
        good_for="triplets with all negatives: the steady beginning that the hardest negative lacks",
        objective="vse",
        options={"negatives": "sum"},
        learning_rate=5e-4,
    ),
    replace(
        _HEADS,
        name="devise",
        good_for="history: one direction only, so image to text falls behind",
        objective="devise",
        learning_rate=5e-4,
    ),
    replace(
        _HEADS,
        name="moco",
        good_for="small batches: a queue of earlier keys and the model's own average as teacher for captions that fit "
        "several pictures",
        learner="momentum",
        objective="momentum",
        batch=500,
    ),
    replace(
        _HEADS,
        name="distil",
        good_for="a small model from a larger one: learns how the teacher's vectors lie to one another",
        objective="distillation",
        teacher="lite",
    ),
    replace(
        _HEADS,
        name="lit",
        good_for="more pairs and more time than `heads`: the image tower stays, the text tower learns to read it; "
        "in its first hundred steps it is behind",
        text_tune="full",
        steps=100,
        batch=128,
        learning_rate=1e-4,
        weight_decay=0.1,
    ),
    replace(
        _HEADS,
        name="lora",
        good_for="the same with few numbers to learn: rank-8 changes of the text tower",
        text_tune="lora:8",
        steps=100,
        batch=128,
        learning_rate=5e-4,
        weight_decay=0.1,
    ),
    replace(
        _SCRATCH,
        name="vit",
        good_for="many pairs and a GPU: our own ViT and text transformer from nothing",
    ),
    replace(
        _SCRATCH,
        name="perceiver",
        good_for="large or odd inputs: few latents read many patches; from nothing",
        image="perceiver",
        image_options={"side": 64, "patch": 8, "width": 128, "depth": 2, "heads": 4},
    ),
    replace(
        _SCRATCH,
        name="simclr",
        good_for="what pictures alone teach, no texts needed: two views of one picture find each other; `vit-simclr` "
        "goes on from it",
        text="",
        learner="two_views",
        objective="ntxent",
        augment="strong",
    ),
    replace(
        _SCRATCH,
        name="mae",
        good_for="what pictures alone teach, no texts needed: the image tower paints what was hidden; `vit-mae` goes "
        "on from it",
        text="",
        learner="masked_image",
        objective="mae",
    ),
    replace(
        _SCRATCH,
        name="data2vec",
        good_for="what pictures alone teach, no texts needed: hidden patches are predicted as the model's own average "
        "sees them",
        text="",
        learner="data2vec",
        objective="data2vec",
    ),
    replace(
        _SCRATCH,
        name="masked-language",
        good_for="what texts alone teach: the text tower fills in hidden words",
        image="",
        learner="masked_language",
        objective="masked_language",
    ),
    replace(
        _SCRATCH,
        name="vit-mae",
        good_for="few pairs and many pictures: `vit` from the image tower that `mae` pre-trained on all of them, those "
        "without a text too",
        pretrained="mae",
    ),
    replace(
        _SCRATCH,
        name="vit-simclr",
        good_for="as `vit-mae`, from `simclr`",
        pretrained="simclr",
    ),
    replace(
        _SCRATCH,
        name="vit-data2vec",
        good_for="as `vit-mae`, from `data2vec`",
        pretrained="data2vec",
    ),
    replace(
        _SCRATCH,
        name="vit-masked-language",
        good_for="few pairs and many texts: `vit` from the text tower that `masked-language` pre-trained",
        pretrained="masked-language",
    ),
    replace(
        _HEADS,
        name="skipgram",
        good_for="words one by one: word vectors that are grounded in pictures, fast and simple",
        text="words",
        text_tune="full",
        learner="skipgram",
        objective="skipgram",
        batch=256,
        steps=100,
    ),
)  # fmt: skip


def recipe_named(name: str) -> Recipe:
    """Raises UsageError that lists the valid names."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]
