"""Recipes and what people set in them: everything that is wrong is said at once, before anything is loaded."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import typing
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra: pip install 'mmsearch[train]'")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from mmsearch.errors import MMSearchError, UsageError  # noqa: E402
from mmsearch.nn.towers import IMAGE_TOWERS, TEXT_TOWERS  # noqa: E402
from mmsearch.training import recipe as recipes  # noqa: E402
from mmsearch.training.build import build  # noqa: E402
from mmsearch.training.cache import FeatureCache  # noqa: E402
from mmsearch.training.learners import LEARNERS  # noqa: E402
from mmsearch.training.objectives import OBJECTIVES, objective_class  # noqa: E402
from mmsearch.training.parts import learner_arguments, objective_arguments  # noqa: E402
from mmsearch.training.recipe import KEYS, Learning, Recipe, own_keys, settings_of, settle  # noqa: E402
from mmsearch.training.recipes import RECIPES, recipe_named  # noqa: E402
from tests.test_learners import batch, made_by  # noqa: E402


def wrong(name: str, *given: str) -> str:
    """What is said of these settings, in one line."""
    with pytest.raises(UsageError) as caught:
        settle(RECIPES[name], given)
    told = str(caught.value)
    assert told.startswith(f"The recipe {name} cannot be run so: ") and told.endswith(".") and "\n" not in told
    return told


# --- recipes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_stands_as_it_is(name: str) -> None:
    recipe = RECIPES[name]
    assert settle(recipe, []) == recipe
    assert recipe.name == name and recipe.good_for
    assert set(recipe.options) <= set(objective_arguments(recipe.objective))


def test_all_objectives_and_learners_have_a_recipe() -> None:
    assert {one.objective for one in RECIPES.values()} == set(OBJECTIVES)
    assert {one.learner for one in RECIPES.values()} == set(LEARNERS) == set(typing.get_args(Learning))


def test_recipes_that_begin_with_another_take_its_tower() -> None:
    assert {one.pretrained for one in RECIPES.values()} - {""} == set(recipes._PRETRAINED)
    for name, (side, tower, learner) in recipes._PRETRAINED.items():
        assert getattr(RECIPES[name], side) == tower and RECIPES[name].learner == learner


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_learner_goes_with_an_objective_exactly_where_they_run_together(learner: str) -> None:
    """Momentum's and the skip-gram's outputs hold pairs too; but then `contrastive` is the learner for them."""
    made, _ = made_by(learner)
    outputs = made(batch())
    for objective in OBJECTIVES:
        kind = objective_class(objective)
        try:
            runs = bool((kind(8) if objective == "momentum" else kind())(outputs).isfinite())
        except (MMSearchError, RuntimeError, IndexError):
            runs = False
        own = LEARNERS[learner].objective
        allowed = objective == own or (not own and objective not in {kind.objective for kind in LEARNERS.values()})
        if allowed:
            assert runs, objective
        elif learner in ("masked_image", "masked_language"):
            assert not runs or objective in ("data2vec", "mae"), objective


def test_names_are_guessed() -> None:
    assert recipe_named("siglip") is RECIPES["siglip"]
    with pytest.raises(UsageError, match=r"There is no recipe 'sigclip'; did you mean siglip\?"):
        recipe_named("sigclip")


# --- what can be set --------------------------------------------------------------------------------------------------


def test_fields_options_and_sizes() -> None:
    made = settle(
        RECIPES["vit"],
        ["steps=7", "learning_rate=2e-4", "augment=strong", "caption_split=yes", "temperature=0.5", "image.depth=3",
         "image.dropout=0.5", "text.width=64", "image.patch=16"],
    )  # fmt: skip
    assert (made.steps, made.learning_rate, made.augment, made.caption_split) == (7, 2e-4, "strong", True)
    assert made.options == {"temperature": 0.5}
    assert made.image_options["depth"] == 3 and made.image_options["dropout"] == 0.5
    assert made.text_options["width"] == 64
    assert {name: value for name, value in settings_of(made).items() if name == "steps"} == {"steps": 7}


def test_sizes_are_of_the_type_that_the_tower_takes() -> None:
    made = settle(RECIPES["heads"], ["text=hugging_face:./bert", "text.weights=false", "image.side=200"])
    assert made.text_options == {"weights": False} and made.image_options == {"side": 200}


def test_another_tower_or_objective_does_not_inherit_the_sizes_of_the_last() -> None:
    assert RECIPES["vit"].image_options and RECIPES["vse"].options
    assert settle(RECIPES["vit"], ["image=lite"]).image_options == {}
    assert settle(RECIPES["vit"], ["image=perceiver", "image.latents=8"]).image_options == {"latents": 8}
    assert settle(RECIPES["vse"], ["objective=clip"]).options == {}
    assert settle(RECIPES["vse"], ["objective=vse"]).options == RECIPES["vse"].options


def test_options_hide_no_fields_nor_one_another() -> None:
    names = {one.name for one in fields(Recipe)}
    for objective in OBJECTIVES:
        assert names.isdisjoint(objective_arguments(objective)), objective
    for learner, kind in LEARNERS.items():
        own = set(learner_arguments(learner))
        assert names.isdisjoint(own), learner
        for objective in [kind.objective] if kind.objective else OBJECTIVES:
            assert own.isdisjoint(objective_arguments(objective)), learner
    for one in RECIPES.values():
        if one.pretrained:  # whatever its objective is set to; a learner of its own would hide that of the first stage
            of_first = set(learner_arguments(recipes._PRETRAINED[one.pretrained][2]))
            assert not learner_arguments(one.learner), one.name
            for objective in set(OBJECTIVES) - {kind.objective for kind in LEARNERS.values()}:
                assert of_first.isdisjoint(objective_arguments(objective)), one.name


def test_arguments_of_learners_can_be_set() -> None:
    assert learner_arguments("contrastive") == {}
    assert learner_arguments("data2vec") == {"momentum": float, "top_layers": int, "mask_ratio": float}
    made = settle(RECIPES["mae"], ["mask_ratio=0.5", "decoder_width=32", "decoder_heads=4"])
    assert made.learner_options == {"mask_ratio": 0.5, "decoder_width": 32, "decoder_heads": 4}
    assert settle(made, ["decoder_depth=1"]).learner_options == {**made.learner_options, "decoder_depth": 1}
    assert settings_of(made)["learner_options"] == made.learner_options
    made = settle(RECIPES["moco"], ["size=99", "momentum=0.9", "alpha=0"])
    assert (made.options, made.learner_options) == ({"size": 99, "alpha": 0.0}, {"momentum": 0.9})
    with pytest.raises(UsageError, match=r"no argument of the learner masked_image 'ratio'; did you mean mask_ratio\?"):
        settle(replace(RECIPES["mae"], learner_options={"ratio": 0.5}), [])


@pytest.mark.parametrize(
    ("name", "settings", "reads"),
    [
        ("mae", ["mask_ratio=0.5", "decoder_depth=1"], lambda made: (made.kept, len(made.decoder.blocks)) == (32, 1)),
        ("data2vec", ["top_layers=2", "momentum=0.5"], lambda made: (made.top_layers, made.momentum) == (2, 0.5)),
        ("simclr", ["projection_width=7"], lambda made: made.project[-1].out_features == 7),
        ("masked-language", ["mask_ratio=0.3"], lambda made: made.mask_ratio == 0.3),
    ],
)
def test_they_reach_the_learner(name: str, settings: list[str], reads: Callable[[Any], bool], tmp_path: Path) -> None:
    assert reads(build(settle(RECIPES[name], settings), FeatureCache(tmp_path), None, {}).learner)


def test_they_are_kept_for_the_stage_before() -> None:
    made = settle(RECIPES["vit-data2vec"], ["momentum=0.5", "top_layers=2", "mask_ratio=0.4", "image.depth=2"])
    assert (made.learner_options, made.options) == ({}, {})
    assert made.pretrained_options == {"momentum": 0.5, "top_layers": 2, "mask_ratio": 0.4}
    assert settings_of(made)["pretrained_options"] == made.pretrained_options
    assert settle(made, ["top_layers=1"]).pretrained_options == {**made.pretrained_options, "top_layers": 1}
    assert settle(RECIPES["vit-masked-language"], ["mask_ratio=0.001"]).pretrained_options == {"mask_ratio": 0.001}


@pytest.mark.parametrize("name", RECIPES)
def test_all_that_can_be_set_is_listed_as_it_can_be_written(name: str) -> None:
    recipe, own = RECIPES[name], own_keys(RECIPES[name])
    known = wrong(name, "zzz=1").partition("keys are: ")[2].partition(")")[0].split(", ")
    named = set(re.findall(r"[a-z_]+", " ".join(KEYS.values())))
    assert {key for key in known if key.islower() and key not in named} == {key for key in own if "." not in key}
    for side, towers in (("image", IMAGE_TOWERS), ("text", TEXT_TOWERS)):
        tower = getattr(recipe, side)
        sizes = {f"{side}.{size}" for size in towers[tower].sizes} if tower else set()
        assert sizes == {key for key in own if key.startswith(f"{side}.")}
    assert own_keys(settle(recipe, [f"{key}={value}" for key, value in own.items()])) == own


def test_what_is_listed_is_what_is_used() -> None:
    given = ["temperature=0.5", "mask_ratio=0.6", "image.depth=2", "text.width=64"]
    own = own_keys(settle(RECIPES["vit-mae"], given))
    assert [own[key] for key in ("temperature", "mask_ratio", "image.depth", "text.width")] == [0.5, 0.6, 2, 64]
    assert (own["decoder_depth"], own["image.dropout"]) == (2, 0.0)  # as the constructors have it


def test_options_are_typed_by_the_constructor() -> None:
    assert settle(RECIPES["vse"], ["negatives=sum", "margin=1"]).options == {"negatives": "sum", "margin": 1.0}
    assert settle(RECIPES["moco"], ["size=99", "alpha=0.1"]).options == {"size": 99, "alpha": 0.1}
    told = wrong("vse", "negatives=all", "margin=wide")
    assert "negatives='all': it must be one of sum, hardest" in told and "margin='wide': it must be a number" in told
    assert "size='2.5': it must be a whole number" in wrong("moco", "size=2.5")


# --- what is wrong ----------------------------------------------------------------------------------------------------


def test_all_mistakes_are_told_together() -> None:
    told = wrong(
        "vit", "stepz=3", "steps", "batch=many", "precision=fp8", "learning_rate=nan", "held_out=2", "ema=-1",
        "image.depht=3", "text.depth=two", "image.heads=5", "image_tune=lora", "caption_split=perhaps",
        "learner=momentum",
    )  # fmt: skip
    for one in (
        "there is no key 'stepz' (did you mean steps?)",
        "'steps' is not key=value",
        "batch='many': it must be a whole number",
        "precision='fp8': it must be one of fp32, bf16, fp16",
        "learning_rate='nan': it must be a number",
        "held_out must be above 0 and 0.5 at most",
        "ema must lie between 0 and 1",
        "The image tower 'vit' has no size 'depht'; did you mean depth?",
        "text.depth='two': it must be a whole number",
        "image.width 128 is not a multiple of image.heads 5",
        "image_tune='lora': it must be locked, full, last:N or lora:R",
        "caption_split='perhaps': it must be true or false",
        "learner belongs to the recipe and cannot be set",
    ):
        assert one in told, one


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("heads", "zzz=1", "there is no key 'zzz' (keys are: model, tune, image"),
        ("heads", "options=3", "options belongs to the recipe"),
        ("heads", "image_options=3", "image_options belongs to the recipe"),
        ("heads", "objective=clop", "There is no objective 'clop'; did you mean clip?"),
        ("heads", "temperature=0", "A temperature of 0.0 cannot be"),
        ("moco", "size=0", "A queue of 0 pairs cannot be"),
        ("moco", "alpha=1.5", "An alpha of 1.5 cannot be"),
        ("align", "smoothing=-0.1", "A smoothing of -0.1 cannot be"),
        ("vit", "held_out=0.6", "held_out must be above 0 and 0.5 at most"),
        ("heads", "learning_rate=inf", "learning_rate='inf': it must be a number"),
        ("heads", "temperature=nan", "temperature='nan': it must be a number"),
        ("heads", "steps=0", "steps must be above 0"),
        ("heads", "batch=1", "batch must be 2 at least"),
        ("heads", "learning_rate=1e39", "learning_rate must be 1000 at most"),
        ("heads", "clip=-1", "clip must not be negative"),
        ("heads", "warmup=1.5", "warmup must lie between 0 and 1"),
        ("heads", f"seed={2**63}", "seed must be below 2^63"),
        ("heads", "image_tune=last:0", "image_tune='last:0': it must be"),
        ("heads", "image=vitt", "There is no image tower 'vitt'; did you mean vit?"),
        ("heads", "image=timm", "The image tower 'timm' needs NAME[@FILE] behind a colon"),
        ("heads", "image.side=big", "image.side='big': it must be a whole number"),
        ("heads", "image.side=0", "image.side must be above 0"),
        ("heads", "image=open_clip:ViT-B-32", ""),
        ("vit", "image.patch=7", "image.side 64 is not a multiple of image.patch 7"),
        ("vit", "text.dropout=1", "text.dropout must lie between 0 and 1"),
        ("vit", "image.depth=4.5", "image.depth='4.5': it must be a whole number"),
        ("heads", "text=", "the recipe needs a tower: set text=NAME"),
        ("heads", "tune=full", "tune is for a model; towers have image_tune and text_tune"),
        ("heads", "second_view=true", "there is no key 'second_view'"),
        ("heads", "objective=ntxent", "the learner contrastive does not go with the objective ntxent"),
        ("simclr", "objective=clip", "the learner two_views does not go with the objective clip"),
        ("simclr", "augment=none", "two views need augment=light or strong: equal ones teach nothing"),
        ("simclr", "text=transformer", "the learner two_views trains the image tower alone: set text="),
        ("simclr", "image=", "the learner two_views trains an image tower; image_tune must not be locked"),
        ("simclr", "image_tune=locked", "image_tune must not be locked"),
        ("simclr", "image=perceiver", ""),
        ("simclr", "width=64", "one tower alone has no use for width"),
        ("mae", "caption_split=true", "one tower alone has no use for caption_split"),
        ("masked-language", "head=deep", "one tower alone has no use for head"),
        ("distil", "teacher=", "teacher and the objective distillation need each other"),
        ("heads", "teacher=lite", "teacher and the objective distillation need each other"),
        ("heads", "objective=distillation", "teacher and the objective distillation need each other"),
        ("heads", "objective=momentum", "the learner contrastive does not go with the objective momentum"),
        ("moco", "objective=clip", "the learner momentum does not go with the objective clip"),
        ("mae", "objective=clip", "the learner masked_image does not go with the objective clip"),
        ("mae", "image=perceiver", "the learner masked_image trains the image tower vit"),
        ("mae", "image=", "the learner masked_image trains the image tower vit"),
        ("mae", "image_tune=locked", "image_tune must not be locked"),
        ("mae", "text=transformer", "trains the image tower alone: set text="),
        ("mae", "text.depth=2", "text.depth: the recipe names no text tower of its own"),
        ("mae", "image.patch=64", "a picture of one patch has none to spare: set a smaller image.patch"),
        ("vit-mae", "image.patch=64", "a picture of one patch has none to spare: set a smaller image.patch"),
        ("vit", "image.patch=64", ""),
        ("data2vec", "image.depth=2", "data2vec averages the last 3 blocks of the tower: image.depth must be 3"),
        ("vit-data2vec", "image.depth=2", "image.depth must be 3 at least"),
        ("mae", "mask_ration=0.5", "there is no key 'mask_ration' (did you mean mask_ratio?)"),
        ("heads", "mask_ratio=0.5", "there is no key 'mask_ratio'"),
        ("mae", "learner_options=3", "learner_options belongs to the recipe"),
        ("mae", "mask_ratio=1.5", "mask_ratio must lie between 0 and 1"),
        ("mae", "mask_ratio=much", "mask_ratio='much': it must be a number"),
        ("mae", "mask_ratio=0.999", "mask_ratio=0.999 hides 64 of 64 patches"),
        ("data2vec", "mask_ratio=0", "mask_ratio=0.0 hides 0 of 64 patches"),
        ("mae", "decoder_heads=5", "decoder_width 96 is not a multiple of decoder_heads 5"),
        ("mae", "decoder_depth=0", "decoder_depth must be above 0"),
        ("mae", "decoder_width=9.5", "decoder_width='9.5': it must be a whole number"),
        ("data2vec", "top_layers=5", "data2vec averages the last 5 blocks of the tower: image.depth must be 5"),
        ("data2vec", "top_layers=4", ""),
        ("moco", "momentum=1.1", "momentum must lie between 0 and 1"),
        ("simclr", "projection_width=0", "projection_width must be above 0"),
        ("masked-language", "mask_ratio=-1", "mask_ratio must lie between 0 and 1"),
        ("vit-mae", "mask_ration=0.5", "there is no key 'mask_ration' (did you mean mask_ratio?)"),
        ("vit-mae", "top_layers=2", "there is no key 'top_layers'"),
        ("vit", "mask_ratio=0.5", "there is no key 'mask_ratio'"),
        ("vit-mae", "pretrained_options=3", "pretrained_options belongs to the recipe"),
        ("vit-mae", "mask_ratio=1.5", "mask_ratio must lie between 0 and 1"),
        ("vit-mae", "mask_ratio=0.999", "mask_ratio=0.999 hides 64 of 64 patches"),
        ("vit-mae", "decoder_heads=5", "decoder_width 96 is not a multiple of decoder_heads 5"),
        ("vit-data2vec", "top_layers=5", "data2vec averages the last 5 blocks of the tower: image.depth must be 5"),
        ("vit-simclr", "projection_width=x", "projection_width='x': it must be a whole number"),
        ("vit-masked-language", "mask_ratio=-1", "mask_ratio must lie between 0 and 1"),
        ("simclr", "patience=2", "patience is for recipes that are evaluated while they train"),
        ("mae", "patience=2", "patience is for recipes that are evaluated while they train"),
        ("masked-language", "text=words", "the learner masked_language trains the text tower transformer"),
        ("skipgram", "text=transformer", "the learner skipgram trains the text tower words"),
        ("skipgram", "text_tune=locked", "text_tune must not be locked"),
        ("vit-mae", "image=perceiver", "mae has trained the image tower vit"),
        ("vit-mae", "image_tune=lora:4", "image_tune must be full or last:N"),
        ("finetune", "image=vit", "a model brings its towers"),
        ("finetune", "image.depth=2", "the recipe names no image tower of its own"),
        ("finetune", "tune=full", "tune is for models of open_clip (ARCHITECTURE/TAG), not for 'lite'"),
        ("finetune", "tune=locked", "tune=locked leaves nothing to train"),
        ("finetune", "augment=light", "small maps on the vectors of a model take no teacher, no views"),
        ("finetune", "patience=3", "patience is for recipes that are evaluated while they train"),
        ("finetune", "model=", "the recipe needs a tower: set image=NAME"),
    ],
)  # fmt: skip
def test_each_mistake_has_its_words(name: str, given: str, told: str) -> None:
    if not told:
        settle(RECIPES[name], [given])
    else:
        assert told in wrong(name, given)


def test_numbers_that_programs_put_into_a_recipe_are_checked_too() -> None:
    with pytest.raises(UsageError, match="weight_decay must be a number"):
        settle(replace(RECIPES["heads"], weight_decay=math.inf), [])


def test_nothing_is_loaded() -> None:
    """Neither towers nor their weights, nor what encodes: all is said in the time of importing torch."""
    program = (
        "import sys\n"
        "from mmsearch.training.recipes import RECIPES\n"
        "from mmsearch.training.recipe import settle\n"
        "for one in RECIPES.values(): settle(one, [])\n"
        "heavy = {'open_clip', 'timm', 'transformers', 'onnxruntime', 'tensorboardX', 'PIL', 'faiss'}\n"
        "print(*(set(sys.modules) & heavy))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# --- any settings -----------------------------------------------------------------------------------------------------

_SIZES = sorted(
    {f"image.{size}" for kind in IMAGE_TOWERS.values() for size in kind.sizes}
    | {f"text.{size}" for kind in TEXT_TOWERS.values() for size in kind.sizes}
)
_KEYS = [
    *(one.name for one in fields(Recipe)), *_SIZES, "margin", "negatives", "temperature", "size", "alpha", "mask_ratio",
    "decoder_heads", "top_layers", "momentum", "projection_width", "",
]  # fmt: skip
_VALUES = st.one_of(
    st.integers(-3, 300).map(str),
    st.floats().map(str),
    st.sampled_from(
        ["", "true", "no", "none", "light", "strong", "locked", "full", "last:2", "lora:4", "bf16", "fp16", "deep",
         "lite", "vit", "perceiver", "words", "transformer", *OBJECTIVES, "ViT-B-32/x", "sum"]
    ),
    st.text(max_size=5),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(RECIPES)), st.lists(st.tuples(st.sampled_from(_KEYS), _VALUES), max_size=4))
def test_any_settings_give_a_sound_recipe_or_one_line(name: str, given: list[tuple[str, str]]) -> None:
    written = [f"{key}={value}" for key, value in given]
    try:
        made = settle(RECIPES[name], written)
    except UsageError as error:
        assert str(error).startswith(f"The recipe {name} cannot be run so: ")
        return
    assert settle(made, []) == made
    assert made.name == name and made.steps > 0 and made.batch > 1 and 0 < made.held_out < 1
    hints = typing.get_type_hints(Recipe)
    for key, value in settings_of(made).items():
        if hints[key] in (int, float, bool, str):
            assert type(value) is hints[key] or (hints[key] is float and type(value) is int), key
        assert not isinstance(value, float) or math.isfinite(value)
    for value in (
        *made.options.values(),
        *made.learner_options.values(),
        *made.pretrained_options.values(),
        *made.image_options.values(),
        *made.text_options.values(),
    ):
        assert not isinstance(value, float) or math.isfinite(value)
