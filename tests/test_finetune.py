"""Fine-tuning on a folder of someone's own: what is held out, how the strength is chosen, what the maps are."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra: pip install 'mmsearch[train]'")

from mmsearch import testsets  # noqa: E402
from mmsearch.encoders import registry  # noqa: E402
from mmsearch.encoders.registry import load_encoder  # noqa: E402
from mmsearch.engine import Engine  # noqa: E402
from mmsearch.errors import UsageError  # noqa: E402
from mmsearch.nn.dual_encoder import DualEncoder  # noqa: E402
from mmsearch.nn.heads import Adapter  # noqa: E402
from mmsearch.training import finetune, keeping  # noqa: E402
from mmsearch.training.build import adapter  # noqa: E402
from mmsearch.training.cache import FeatureCache  # noqa: E402
from mmsearch.training.finetune import Fitted, fit  # noqa: E402
from mmsearch.training.mixing import read_all  # noqa: E402
from mmsearch.training.objectives.anchored import Anchored  # noqa: E402
from mmsearch.training.outputs import Outputs  # noqa: E402
from mmsearch.training.picture import Picture  # noqa: E402
from mmsearch.training.recipe import Recipe  # noqa: E402
from mmsearch.training.recipes import RECIPES  # noqa: E402
from mmsearch.types import Progress  # noqa: E402
from tests.conftest import paint  # noqa: E402
from tests.toy import COLOURS, ToyEncoder  # noqa: E402

INVENTED = dict(zip(COLOURS, ("zorp", "blick", "fendle", "quax", "murn", "tiblo", "gresh", "wolp"), strict=True))
FAST = replace(RECIPES["finetune"], model="toy", steps=25, learning_rate=1e-2, general_weight=0.0)


class WordToy(ToyEncoder):
    """A toy whose texts are one direction for each word, as pictures know nothing of invented words."""

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        rows = [
            np.sum([self._word(word) for word in text.lower().split()] or [self._word("")], axis=0) for text in texts
        ]
        made = np.array(rows, np.float32).reshape(-1, 13)
        return made / np.linalg.norm(made, axis=1, keepdims=True)

    def _word(self, word: str) -> np.ndarray:
        seed = int.from_bytes(word.encode("utf-8", "replace")[:8].ljust(8, b"."))
        return np.random.default_rng(seed).normal(size=13)


@pytest.fixture(autouse=True)
def toy_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BUILTIN, "toy", lambda name, device, precision: WordToy())


def captioned(folder: Path, each: int = 7, names: str = "{:03}.png") -> Path:
    """`each` pictures of the 8 colours, with captions in invented words."""
    rows = [(colour, seed) for seed in range(each) for colour in COLOURS]
    for number, (colour, seed) in enumerate(rows):
        paint(folder / "images" / names.format(number), colour, seed)
    with (folder / "captions.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "caption"])
        writer.writerows((names.format(n), f"{INVENTED[colour]} {n}") for n, (colour, _) in enumerate(rows))
    return folder


def fitted(data: Iterable[Path | str], work: Path, recipe: Recipe = FAST) -> Fitted:
    sets = read_all([str(one) for one in data])
    return fit(recipe, load_encoder(recipe.model), sets, FeatureCache(work / "c", "float32"), work / "run", None)


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[set[str], set[str]]]:
    """(trained on, measured on) of each round, by content."""
    seen: list[tuple[set[str], set[str]]] = []
    real_batches, real_measured = finetune.Batches, finetune._Fitting.measured

    def batches(sets: Sequence[tuple[float, Sequence[Picture]]], **more: object) -> object:
        seen.append(({picture.content for _, one in sets for picture in one}, set()))
        return real_batches(sets, **more)  # type: ignore[arg-type]

    def measured(self: object, encoder: DualEncoder, held: Sequence[Picture]) -> object:
        seen[-1][1].update(picture.content for picture in held)
        return real_measured(self, encoder, held)  # type: ignore[arg-type]

    monkeypatch.setattr(finetune, "Batches", batches)
    monkeypatch.setattr(finetune._Fitting, "measured", measured)
    return seen


# --- what is held out ---------------------------------------------------------------------------------------------


def test_every_picture_is_held_out_once_and_what_is_measured_was_not_trained_on(
    tmp_path: Path, spied: list[tuple[set[str], set[str]]]
) -> None:
    made = fitted([captioned(tmp_path / "mine")], tmp_path)
    held = [content for _, measured in spied for content in measured]
    assert len(held) == len(set(held)) == 56
    assert all(not trained & measured for trained, measured in spied)
    assert all(len(trained) + len(measured) == 56 for trained, measured in spied)
    assert spied[-1] == (set(held), set())  # what is written learnt from all
    main = made.held_out.main
    assert main.low is not None
    assert main.low > 0
    assert made.strength > 0


def test_named_test_pictures_and_their_copies_are_never_trained_on(
    tmp_path: Path, spied: list[tuple[set[str], set[str]]]
) -> None:
    folder = captioned(tmp_path / "mine")
    paint(folder / "images" / "003 copy.png", "yellow", 99)
    with (folder / "captions.csv").open("a") as stream:
        stream.write("003 copy.png,a copy\n")
    (folder / "test.txt").write_text("".join(f"{n:03}.png\n" for n in range(16)))
    made = fitted([folder], tmp_path)
    named = [one for _, one in spied if len(one) == 17]  # 16 and the copy
    assert len(named) == 1
    assert all(not trained & named[0] for trained, _ in spied)
    assert len(spied) == 6  # five to choose the strength by, one that is measured and written
    assert spied[-1][1] == named[0]
    assert made.held_out.before[0].value != made.held_out.after[0].value


def test_of_very_many_pictures_one_part_is_measured_and_another_decides(
    tmp_path: Path, spied: list[tuple[set[str], set[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "MANY", 50)
    fitted([captioned(tmp_path / "mine")], tmp_path)
    (first, chooses), (second, measured), (last, nothing) = spied
    assert not chooses & measured
    assert not first & (chooses | measured)
    assert not second & measured
    assert (len(last), nothing) == (56, set())


def test_the_strength_of_a_part_is_chosen_by_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up figures: part 0 alone would like 1, the others 0.25. Part 0 gets what the others like, and they get what
    the most of the others like."""
    rounds: list[int] = []

    class Test:
        pictures = range(10)

    def measured(self: object, encoder: DualEncoder, held: Sequence[Picture]) -> object:
        rounds.append(len(rounds))
        liked = 1.0 if rounds[-1] == 0 else 0.25
        return Test(), {strength: (rounds[-1], strength, strength == liked) for strength in finetune.STRENGTHS}

    taken: list[list[tuple[int, float, bool]]] = []
    monkeypatch.setattr(finetune._Fitting, "train", lambda self, number, without: (adapter(13).encoder, number))
    monkeypatch.setattr(finetune._Fitting, "measured", measured)
    monkeypatch.setattr(finetune, "figures", lambda values: {"recall": 100.0 * values[2]})
    monkeypatch.setattr(finetune, "together", lambda folds: taken.append([values for _, values in folds]))
    monkeypatch.setattr(finetune, "compared", lambda about, before, after: None)
    made = fitted([captioned(tmp_path / "mine", each=2)], tmp_path)
    assert [value[:2] for value in taken[0]] == [(part, 0.0) for part in range(5)]
    assert [value[:2] for value in taken[1]] == [(part, 0.25) for part in range(5)]
    assert made.strength == 0.25


def test_equal_parts_and_the_weaker_of_two_strengths_that_help_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    class Test:
        def __init__(self, count: int) -> None:
            self.pictures = range(count)

    recalls = {0.0: 10.0, 0.25: 30.0, 0.5: 30.0, 0.75: 20.0, 1.0: 0.0}
    monkeypatch.setattr(finetune, "figures", lambda values: {"recall": values})
    assert finetune._best([(Test(5), recalls)]) == 0.25
    other = {0.0: 0.0, 0.25: 0.0, 0.5: 0.0, 0.75: 100.0, 1.0: 0.0}
    assert finetune._best([(Test(5), recalls), (Test(1), other)]) == 0.75  # (20 * 5 + 100) / 6 = 33.3 > 25
    assert finetune._best([(Test(20), recalls), (Test(1), other)]) == 0.25  # 500 < 600


def test_too_few_labels_for_parts_are_one_line(tmp_path: Path) -> None:
    for n in range(12):
        paint(tmp_path / "mine" / "images" / f"{n}.png", "red", n)
    (tmp_path / "mine" / "labels.csv").write_text(
        "image,label\n11.png,dog\n" + "".join(f"{n}.png,cat\n" for n in range(11))
    )
    with pytest.raises(UsageError, match=r"cannot be divided into parts that have two labels each; add") as raised:
        fitted([tmp_path / "mine"], tmp_path)
    assert "\n" not in str(raised.value)


def test_pictures_numbered_by_a_file_manager_are_no_copies(tmp_path: Path) -> None:
    """`holiday (1).jpg` to `holiday (56).jpg` is how whole folders are renamed at once."""
    folder = captioned(tmp_path / "mine", names="holiday ({}).png")
    parts = finetune._parts("mine", read_all([str(folder)])[0].supervised.pictures, 0)
    assert [len(part) for part in parts] == [12, 11, 11, 11, 11]


# --- supervision of all kinds --------------------------------------------------------------------------------------


def gains(made: Fitted) -> dict[str, float]:
    return {f"{one.direction} {one.name}": one.value for one in made.held_out.gained}


def test_labels_folder_names_and_mixed_sets_with_weights(tmp_path: Path) -> None:
    for number, colour in enumerate(COLOURS):
        for seed in range(6):
            paint(tmp_path / "kinds" / INVENTED[colour] / f"{number}-{seed}.png", colour, 50 + seed)
    alone = fitted([tmp_path / "kinds"], tmp_path)
    assert gains(alone)["t2i mAP"] > 20
    main = alone.held_out.main  # eight labels are too few for an interval, 48 pictures are enough
    assert (main.direction, main.name, alone.held_out.asked.low) == ("i2i", "mAP", None)
    assert (main.low, main.high) == (0.0, 0.0)  # of one colour, they had found one another before
    mine = captioned(tmp_path / "mine", each=4)
    mixed = fitted([mine, f"0.25:{tmp_path / 'kinds'}"], tmp_path)
    assert mixed.held_out.about == f"the captions of {mine}; the subfolders of {tmp_path / 'kinds'} as labels"
    assert mixed.held_out.main.name == "R@10"
    assert gains(mixed)["t2i R@10"] > 10


def test_tags_of_a_collection(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for colour in list(COLOURS)[:4]:
        for seed in range(5):
            paint(folder / f"{colour}{seed}.png", colour, seed)
    with Engine.open(tmp_path / "collection", model=ToyEncoder("plain")) as engine:
        engine.index(folder)
        for colour in list(COLOURS)[:4]:
            engine.add_tags([folder / f"{colour}{seed}.png" for seed in range(5)], [INVENTED[colour]])
    made = fitted([tmp_path / "collection"], tmp_path)
    assert made.held_out.about.startswith("the tags of the collection")
    assert gains(made)["t2i mAP"] > 20


# --- the maps -----------------------------------------------------------------------------------------------------


def test_no_interpolation_is_the_encoder_itself(tmp_path: Path) -> None:
    folder = captioned(tmp_path / "mine", each=4)
    made = fitted([folder], tmp_path, replace(FAST, interpolate=0.0, steps=3))
    assert made.strength == 0
    assert all(not value.any() for value in made.encoder.state_dict().values())
    assert gains(made) == dict.fromkeys(gains(made), 0.0)
    keeping.keep_adapters(tmp_path / "m", load_encoder("toy"), made.encoder, facts={})
    texts = ["zorp 1", "something else"]
    before, after = (load_encoder(name).encode_texts(texts) for name in ("toy", str(tmp_path / "m")))
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_half_the_strength_is_half_the_map() -> None:
    encoder = adapter(13).encoder
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_()
    half = finetune.with_strength(encoder, 0.5).state_dict()
    for name, value in encoder.state_dict().items():
        np.testing.assert_allclose(half[name], value * 0.5, atol=1e-7)


def test_anchors_hold_the_maps_back_where_nothing_is_to_be_learnt(tmp_path: Path) -> None:
    folder = captioned(tmp_path / "mine", each=4)
    texts = ["a lighthouse", "a cup of coffee", "two dogs"]
    moved = []
    for weight in (0.0, 5.0, 100.0):
        made = fitted([folder], tmp_path / str(weight), replace(FAST, general_weight=weight))
        whole = _trained_whole(tmp_path / str(weight) / "run")
        rows = torch.from_numpy(load_encoder("toy").encode_texts(texts))
        with torch.no_grad():
            moved.append(float((whole.texts(rows).pooled - rows).norm(dim=1).mean()))
        assert made.trained.steps == 25
    assert moved[0] > 1.3 * moved[1] > 1.3 * moved[2]


def _trained_whole(folder: Path) -> DualEncoder:
    """The maps of the last round, at full strength."""
    from mmsearch.nn import checkpoint

    learner = adapter(13)
    tensors, _ = checkpoint.load(folder / "round-5" / "best.safetensors")
    learner.load_state_dict(tensors)
    return learner.encoder.eval()


def test_the_price_of_moving_anchors_by_hand() -> None:
    """One anchor (1, 0); the map adds (0, 1): it comes to lie at 45 degrees, 2 - 2 cos 45 away (squared)."""
    head = Adapter(2)
    with torch.no_grad():
        head.line.bias.copy_(torch.tensor([0.0, 1.0]))

    class Seven(torch.nn.Module):
        def forward(self, outputs: Outputs) -> torch.Tensor:
            return torch.tensor(7.0)

    objective = Anchored(Seven(), [head, Adapter(2)], torch.tensor([[1.0, 0.0]]), weight=3.0)
    assert objective(Outputs()).item() == pytest.approx(7 + 3 * (2 - 2 * 0.5**0.5), abs=1e-5)
    assert list(objective.parameters()) == []  # the maps are the learner's own
    objective(Outputs()).backward()
    assert head.line.bias.grad is not None
    assert float(head.line.bias.grad[1]) > 0  # downhill leads back


def test_progress_counts_all_rounds_as_one(tmp_path: Path) -> None:
    sets = read_all([str(captioned(tmp_path / "mine", each=4))])
    seen: list[Progress] = []
    recipe = replace(FAST, steps=4)
    fit(recipe, load_encoder("toy"), sets, FeatureCache(tmp_path / "c", "float32"), tmp_path / "run", seen.append)
    training = [(one.done, one.total) for one in seen if one.stage == "training"]
    assert training == [(done, 24) for done in range(1, 25)]


def test_the_set_stays_what_the_evaluation_reads(tmp_path: Path) -> None:
    """Figures before are those of `mmsearch eval`'s own set, where one part is the whole test."""
    folder = captioned(tmp_path / "mine")
    (folder / "test.txt").write_text("".join(f"{n:03}.png\n" for n in range(24)))
    made = fitted([folder], tmp_path, replace(FAST, steps=2))
    from PIL import Image

    from mmsearch import judging

    test, _ = testsets.from_folder(folder, folder / "test.txt")
    toy = load_encoder("toy")
    images = toy.encode_images([toy.prepare(Image.open(path).convert("RGB")) for path in test.pictures])
    plain = judging.measures(judging.judge(test, images, toy.encode_texts(test.texts)))
    assert [round(one.value, 6) for one in plain] == [round(one.value, 6) for one in made.held_out.before]
