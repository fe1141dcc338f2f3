"""Towers that are pre-trained first: on which pictures, and that what was learnt is taken over."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra: pip install 'mmsearch[train]'")
pytest.importorskip("onnx", reason="training needs the extra: pip install 'mmsearch[train]'")

from mmsearch.cli.main import main  # noqa: E402
from mmsearch.errors import UsageError  # noqa: E402
from mmsearch.nn import checkpoint  # noqa: E402
from mmsearch.training import material  # noqa: E402
from mmsearch.training import run as running  # noqa: E402
from mmsearch.training.batches import Batches  # noqa: E402
from mmsearch.training.cache import FeatureCache  # noqa: E402
from mmsearch.training.recipe import Recipe, settle  # noqa: E402
from mmsearch.training.recipes import RECIPES  # noqa: E402
from tests.conftest import paint  # noqa: E402
from tests.small_runs import SMALL_VIT, TINY, colours_with_captions, trained  # noqa: E402
from tests.test_training_examples import captioned  # noqa: E402
from tests.test_training_silent import mute  # noqa: E402


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colours_with_captions(tmp_path_factory.mktemp("data"))


def test_a_tower_that_was_pretrained_is_taken_over_and_used_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(TINY, name="vit-mae", pretrained="mae")
    given: list[dict[str, torch.Tensor]] = []
    real = running.build

    def spy(recipe: Recipe, cache: FeatureCache, on_progress: object, begin_with: object) -> object:
        parts = real(recipe, cache, None, begin_with)  # type: ignore[arg-type]
        if recipe.name == "vit-mae":
            given.append({name: value.clone() for name, value in parts.image.state_dict().items()})  # type: ignore[union-attr]
        return parts

    monkeypatch.setattr(running, "build", spy)
    trained(recipe, data, tmp_path)
    made = tmp_path / "m" / "run" / "mae" / "run" / "best.safetensors"
    learnt, _ = checkpoint.load(made)
    for name, value in given[0].items():
        assert torch.equal(value, learnt[f"tower.{name}"]), name
    random = real(TINY, FeatureCache(tmp_path / "c"), None, {}).image
    assert random is not None
    assert not torch.equal(random.state_dict()["class_token"], given[0]["class_token"])
    written = made.stat().st_mtime_ns
    trained(recipe, data, tmp_path)
    assert made.stat().st_mtime_ns == written
    assert all(torch.equal(value, given[1][name]) for name, value in given[0].items())
    trained(replace(recipe, steps=2), data, tmp_path)  # other numbers: it is made anew
    assert made.stat().st_mtime_ns != written
    written = made.stat().st_mtime_ns
    other = tmp_path / "other"
    shutil.copytree(data, other)
    (other / "images" / "00.png").unlink()
    trained(replace(recipe, steps=2), other, tmp_path)  # other pictures, too
    assert made.stat().st_mtime_ns != written
    assert all(torch.equal(given[-1][name], checkpoint.load(made)[0][f"tower.{name}"]) for name in given[0])


@pytest.mark.parametrize(
    ("name", "settings", "reads"),
    [
        ("vit-mae", ["mask_ratio=0.5", "decoder_depth=1"], lambda one: (one.kept, len(one.decoder.blocks)) == (2, 1)),
        ("vit-data2vec", ["top_layers=1", "momentum=0.5"], lambda made: (made.momentum, made.top_layers) == (0.5, 1)),
        ("vit-simclr", ["projection_width=7"], lambda made: made.project[-1].out_features == 7),
        ("vit-masked-language", ["mask_ratio=0.3"], lambda made: made.mask_ratio == 0.3),
    ],
)
def test_what_is_set_in_the_first_learner_reaches_it(
    name: str, settings: list[str], reads: Callable[[Any], bool], data: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    learners: dict[str, list[Any]] = {}
    real = running.build

    def spy(recipe: Recipe, *more: Any) -> Any:
        parts = real(recipe, *more)
        learners.setdefault(recipe.name, []).append(parts.learner)
        return parts

    monkeypatch.setattr(running, "build", spy)
    first = name.removeprefix("vit-")
    tiny = replace(TINY, name=name, pretrained=first)
    trained(settle(tiny, settings[:1]), data, tmp_path)
    made = tmp_path / "m" / "run" / first / "run" / "best.safetensors"
    written = made.stat().st_mtime_ns
    trained(settle(tiny, settings), data, tmp_path)
    assert reads(learners[first][-1])
    assert checkpoint.load(made)[1]["recipe"]["learner_options"] == settle(tiny, settings).pretrained_options
    assert (made.stat().st_mtime_ns == written) is (len(settings) == 1)  # other options: it is made anew


# --- pictures about which nothing is said ---------------------------------------------------------------------------

SMALL = [f"--set=image.{size}={value}" for size, value in {**SMALL_VIT, "depth": 3}.items()]
OF_TEXT = [f"--set=text.{size}={value}" for size, value in {"width": 16, "depth": 1, "heads": 2}.items()]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The keys of the pictures of each stage, as batches are made of them."""
    made: list[list[str]] = []

    def batches(sets: object, **more: object) -> Batches:
        made.append([picture.key for _, one in sets for picture in one])  # type: ignore[attr-defined]
        return Batches(sets, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(running, "Batches", batches)
    return made


@pytest.mark.parametrize("first", ["mae", "data2vec", "simclr"])
def test_the_first_stage_sees_pictures_without_a_text_and_the_second_does_not(
    first: str, tmp_path: Path, seen: list[list[str]], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    captioned(tmp_path / "data")
    silent = {f"more/{path.name}" for path in mute(tmp_path / "data" / "more", 30)}
    few = ["--set=steps=2", "--set=batch=64", "--set=precision=fp32", *SMALL]
    into = ["--data", str(tmp_path / "data"), "--out"]
    assert main(["train", "--recipe", f"vit-{first}", *into, str(tmp_path / "m"), *few, *OF_TEXT]) == 0
    out, err = capsys.readouterr()
    assert "after  t2i R@1/R@5/R@10" in out
    assert "mmsearch: 30 pictures without a text took part in pre-training.\n" in err
    *stages, last = seen
    assert {len(last)} == {6}  # of 12 pictures a quarter each is watched and measured
    assert stages and all(set(stage) == {*last, *silent} and len(stage) == 36 for stage in stages)
    log = (tmp_path / "m" / "run" / first / "run" / "log.csv").read_text().splitlines()
    assert float(log[-1].split(",")[1]) > 0

    seen.clear()
    assert main(["train", "--recipe", first, *into, str(tmp_path / "alone"), *few]) == 0
    assert [sorted(stage) for stage in seen] == [sorted(stages[0])]  # the same pictures are held out
    seen.clear()
    capsys.readouterr()
    assert main(["train", "--recipe", "vit", *into, str(tmp_path / "v"), *few, *OF_TEXT]) == 0
    assert [set(stage) for stage in seen] == [set(last)]
    assert "without a text" not in capsys.readouterr().err


def test_sets_without_words_have_their_weight_in_the_first_stage_alone(data: Path, tmp_path: Path) -> None:
    mute(tmp_path / "more", 25)
    both = [str(data), f"3:{tmp_path / 'more'}"]
    divided = material.read(both, RECIPES["vit-mae"], None)
    ((weight, own),) = divided.sets(RECIPES["vit-mae"])
    assert (weight, own) == (1.0, divided.train[0][1])
    assert [(weight, len(one)) for weight, one in divided.sets(RECIPES["mae"])] == [(1.0, len(own)), (3.0, 25)]
    assert divided.about == f"the captions of {data}"
    with Batches(divided.sets(RECIPES["mae"]), size=20, seed=0) as batches:
        silent = [(batches.batch(step).groups[:, 1] == -1).sum() for step in range(4)]
    assert silent == [15] * 4  # three of four rows
    with pytest.raises(UsageError, match="more cannot be evaluated"):
        material.read(both, RECIPES["vit"], None)


def test_words_are_needed_after_pretraining(tmp_path: Path) -> None:
    mute(tmp_path / "more", 12)
    with pytest.raises(UsageError, match=r"is said about the pictures of .*more: vit-mae learns .* recipe mae"):
        material.read([str(tmp_path / "more")], RECIPES["vit-mae"], None)
    alone = material.read([str(tmp_path / "more")], RECIPES["mae"], None)
    assert (len(alone.silent[0]), alone.train, alone.dev, alone.test) == (12, ((1.0, ()),), (), ())
    assert alone.notices == ("12 pictures without a text took part in pre-training.",)


def test_more_pictures_without_a_text_pretrain_anew(tmp_path: Path) -> None:
    captioned(tmp_path / "data")
    mute(tmp_path / "data" / "more", 10)
    recipe = replace(TINY, name="vit-mae", pretrained="mae")
    made = tmp_path / "m" / "run" / "mae" / "run" / "best.safetensors"
    times = []
    for number in range(3):
        if number == 2:
            paint(tmp_path / "data" / "more" / "new.png", "red", 999)
        trained(recipe, tmp_path / "data", tmp_path)
        times.append(made.stat().st_mtime_ns)
    assert times[0] == times[1] < times[2]


def test_recipes_say_which_pictures_they_want() -> None:
    wanted = {name: recipe.wanted for name, recipe in RECIPES.items()}
    assert {name for name, one in wanted.items() if one == "pictures"} == {"mae", "data2vec", "simclr"}
    assert {name for name, one in wanted.items() if one == "both"} == {"vit-mae", "vit-data2vec", "vit-simclr"}
    assert settle(RECIPES["simclr"], ["image=perceiver"]).wanted == "pictures"
