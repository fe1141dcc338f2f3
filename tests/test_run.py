"""A recipe from pictures to folder: what is exported gives what torch gave; wrong runs end before they begin."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra: pip install 'mmsearch[train]'")
pytest.importorskip("onnx", reason="training needs the extra: pip install 'mmsearch[train]'")

from PIL import Image  # noqa: E402

from mmsearch.encoders import registry  # noqa: E402
from mmsearch.encoders.preprocess import squeeze  # noqa: E402
from mmsearch.encoders.registry import load_encoder  # noqa: E402
from mmsearch.errors import MMSearchError, UsageError  # noqa: E402
from mmsearch.nn import checkpoint  # noqa: E402
from mmsearch.nn.dual_encoder import DualEncoder  # noqa: E402
from mmsearch.training import keeping, loop, material  # noqa: E402
from mmsearch.training.build import build  # noqa: E402
from mmsearch.training.cache import FeatureCache  # noqa: E402
from mmsearch.training.recipe import settle  # noqa: E402
from mmsearch.training.recipes import RECIPES  # noqa: E402
from mmsearch.training.run import run  # noqa: E402
from mmsearch.training.tokens import Tokens  # noqa: E402
from tests.conftest import paint  # noqa: E402
from tests.small_runs import SMALL_TEXT, SMALL_VIT, TINY, colours_with_captions, small_general_set, trained  # noqa: E402
from tests.toy import ToyEncoder  # noqa: E402

TEXTS = ["a red thing", "two blue and green things far away", "x"]


@pytest.fixture(autouse=True)
def toy_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BUILTIN, "toy", lambda name, device, precision: ToyEncoder())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colours_with_captions(tmp_path_factory.mktemp("data"))


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[DualEncoder]]:
    """The encoders that were exported, as torch has them."""
    made: list[DualEncoder] = []
    real = keeping.keep_towers

    def keep(folder: Path, encoder: DualEncoder, **more: object) -> None:
        made.append(encoder)
        real(folder, encoder, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(keeping, "keep_towers", keep)
    yield made


def check_export(folder: Path, encoder: DualEncoder, data: Path, *, tokenizer: str, max_tokens: int) -> None:
    """What `load_encoder` opens gives, picture by picture and text by text, what the torch modules give."""
    opened = load_encoder(str(folder))
    pictures = [Image.open(path).convert("RGB") for path in sorted((data / "images").iterdir())[:4]]
    pixels = np.stack([squeeze(picture, opened.image_size) for picture in pictures])
    ids, mask = (torch.from_numpy(part) for part in Tokens(tokenizer, max_tokens)(TEXTS))
    with torch.inference_mode():
        images = encoder.eval().images(torch.from_numpy(pixels)).pooled.numpy()
        texts = encoder.texts(ids, mask).pooled.numpy()
    for found, wanted in (
        (opened.encode_images([opened.prepare(picture) for picture in pictures]), images),
        (opened.encode_texts(TEXTS), texts),
    ):
        assert found.shape == wanted.shape
        assert (found * wanted).sum(1).min() > 0.999
        assert np.ptp(wanted, axis=0).max() > 1e-3  # they are not all alike


# --- towers -------------------------------------------------------------------------------------------------------


def test_towers_from_nothing(data: Path, tmp_path: Path, kept: list[DualEncoder]) -> None:
    report = trained(TINY, data, tmp_path)
    assert report.held_out is not None
    assert (report.trained.steps, report.general, report.strength) == (3, None, None)
    tower = kept[0].text_tower
    check_export(tmp_path / "m", kept[0], data, tokenizer=tower.tokenizer, max_tokens=12)
    assert report.parameters == sum(p.numel() for p in kept[0].parameters())
    facts = json.loads((tmp_path / "m" / "encoder.json").read_text())["facts"]
    assert facts["training"]["recipe"]["name"] == "vit"
    after = {f"{m.direction} {m.name}": round(m.value, 2) for m in report.held_out.after}
    assert facts["held_out"]["after"] == after


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("heads", ["image=perceiver", "image.side=16", "image.patch=8", "image.width=16", "image.depth=1",
                   "image.heads=2", "image.latents=4", "text=words", "text.width=16"]),
        ("siglip", ["image=timm:test_vit", "text=hugging_face:{bert}", "text.weights=false"]),
        ("align", ["image=open_clip:mmsearch-tiny", "text=words", "text.width=16"]),
    ],
)  # fmt: skip
def test_locked_towers_read_cached_rows(
    recipe: str,
    settings: list[str],
    data: Path,
    tmp_path: Path,
    kept: list[DualEncoder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tests.test_towers import tiny_bert
    from tests.tiny_openclip import add_architectures

    add_architectures()
    given = [one.replace("{bert}", str(tiny_bert())) for one in settings]
    settled = settle(RECIPES[recipe], [*given, "steps=3", "batch=16", "width=12", "evaluate_every=3"])
    report = trained(settled, data, tmp_path)
    encoder = kept[0]
    tower = encoder.text_tower
    check_export(tmp_path / "m", encoder, data, tokenizer=tower.tokenizer, max_tokens=tower.max_tokens)
    heads = sum(p.numel() for head in (encoder.image_head, encoder.text_head) for p in head.parameters())
    assert report.parameters == heads
    shelves = {one.name for one in (tmp_path / "c").iterdir()}
    parts = build(settled, FeatureCache(tmp_path / "c"), None, {})
    assert parts.source.locked is not None
    again = build(replace(settled, seed=1), FeatureCache(tmp_path / "c"), None, {})
    assert again.source.locked is not None
    if "timm" not in settings[0]:  # other random weights, other rows
        assert again.source.locked.image_fingerprint != parts.source.locked.image_fingerprint
    assert {one.split("-")[0] for one in shelves} == {"images", "texts"}


def test_rows_of_towers_that_read_equal_weights_in_other_ways_are_apart(tmp_path: Path) -> None:
    """The number of heads shows in no weight; neither does how long the texts may be."""
    marks = []
    for heads, tokens in ((2, 12), (4, 12), (2, 8)):
        recipe = replace(
            TINY, image_tune="locked", text_tune="locked", augment="none",
            image_options={**SMALL_VIT, "heads": heads}, text_options={**SMALL_TEXT, "max_tokens": tokens},
        )  # fmt: skip
        locked = build(recipe, FeatureCache(tmp_path), None, {}).source.locked
        assert locked is not None
        marks.append((locked.image_fingerprint, locked.text_fingerprint))
    assert len({image for image, _ in marks}) == 2
    assert marks[0][0] == marks[2][0]  # of the text tower, pictures know nothing
    assert marks[0][1] != marks[2][1]


@pytest.mark.parametrize("tune", ["full", "lora:2"])
def test_a_locked_image_tower_and_a_text_tower_that_learns(
    tune: str, data: Path, tmp_path: Path, kept: list[DualEncoder]
) -> None:
    recipe = replace(TINY, image_tune="locked", text_tune=tune, augment="none", learning_rate=0.05)
    before = build(recipe, FeatureCache(tmp_path / "c"), None, {})
    trained(recipe, data, tmp_path)
    encoder = kept[0]
    check_export(tmp_path / "m", encoder, data, tokenizer=encoder.text_tower.tokenizer, max_tokens=12)
    assert before.image is not None
    assert checkpoint.fingerprint(encoder.image_tower) == checkpoint.fingerprint(before.image)
    fresh = build(replace(recipe, text_tune="full"), FeatureCache(tmp_path / "c"), None, {})
    assert fresh.text is not None
    old = fresh.text.state_dict()
    now = encoder.text_tower.state_dict()
    assert now.keys() == old.keys()  # no trace of the updates is left
    moved = {name for name, value in now.items() if not torch.equal(value, old[name])}
    assert any("weight" in name for name in moved)
    if tune != "full":
        assert not any(name.startswith(("embedding", "positions", "norm")) for name in moved)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("distil", ["teacher=toy"]), ("simclr", []), ("moco", []), ("skipgram", []), ("masked-language", [])],
)
def test_recipes_of_all_learners_run_to_their_end(name: str, settings: list[str], data: Path, tmp_path: Path) -> None:
    """What they learn is tested with the learners; here that their material reaches them. Towers are tiny ones."""
    base = RECIPES[name]
    tiny = ["steps=2", "batch=10", "precision=fp32", "piece=0", *settings]
    if base.image and base.text:
        tiny += ["width=12", "evaluate_every=2"]
    if base.image:
        tiny += ["image=vit", *(f"image.{size}={value}" for size, value in SMALL_VIT.items())]
    if name == "skipgram":
        tiny += ["text.width=16", "text.max_tokens=12"]
    elif base.text:
        tiny += ["text=transformer", *(f"text.{size}={value}" for size, value in SMALL_TEXT.items())]
    report = trained(settle(base, tiny), data, tmp_path)
    log = (tmp_path / "m" / "run" / "log.csv").read_text().splitlines()
    assert log[-1].startswith("2,")
    assert float(log[-1].split(",")[1]) > 0  # it has a loss
    if name in ("simclr", "masked-language"):
        assert report.held_out is None
        assert not (tmp_path / "m" / "encoder.json").exists()
    else:
        assert load_encoder(str(tmp_path / "m")).encode_texts(["x"]).shape == (1, 12)


def test_wise_ft_to_nothing_is_the_beginning(data: Path, tmp_path: Path) -> None:
    report = trained(replace(TINY, interpolate=0.0), data, tmp_path)
    assert report.held_out is not None
    assert {one.value for one in report.held_out.gained} == {0.0}


def test_dividing_captions_is_warned_of_once(data: Path, tmp_path: Path) -> None:
    with (data / "captions.csv").open() as stream:
        rows = list(csv.reader(stream))[1:]
    folder = tmp_path / "twice"
    folder.mkdir()
    (folder / "images").symlink_to(data / "images")
    with (folder / "captions.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["image", "caption"], *rows, *([name, f"again {text}"] for name, text in rows)])
    report = trained(replace(TINY, caption_split=True, batch=1000), folder, tmp_path)
    assert [line.split(",")[0] for line in report.notices] == [
        "Captions are divided",
        "A batch has 36 rows instead of 1",
    ]


def test_figures_of_the_dev_side_are_told(tmp_path: Path) -> None:
    for number in range(12):
        paint(tmp_path / "few" / "images" / f"{number}.png", "red", number)
    table = "image,caption\n" + "".join(f"{n}.png,thing number {n}\n" for n in range(12))
    (tmp_path / "few" / "captions.csv").write_text(table)
    assert material.read([str(tmp_path / "few")], TINY, None).notices == ()
    (tmp_path / "few" / "dev.txt").write_text("".join(f"{n}.png\n" for n in range(9)))
    divided = material.read([str(tmp_path / "few")], TINY, None)
    assert sorted(one.key for one in divided.test) == sorted(f"{n}.png" for n in range(9))
    assert [line.split("; the figures")[0] for line in divided.notices] == [
        f"The captions of {tmp_path / 'few'} have no pictures left to measure on"
    ]
    (tmp_path / "few" / "test.txt").write_text("11.png\n")
    divided = material.read([str(tmp_path / "few")], TINY, None)
    assert ([one.key for one in divided.test], divided.notices) == (["11.png"], ())


def test_what_the_cache_had_to_mend_is_told(data: Path, tmp_path: Path) -> None:
    recipe = replace(TINY, image_tune="locked", text_tune="locked", augment="none", steps=1)
    trained(recipe, data, tmp_path)
    shard = next(path for path in sorted((tmp_path / "c").rglob("*")) if path.is_file() and path.stat().st_size > 500)
    shard.write_bytes(shard.read_bytes()[:-100])
    report = trained(recipe, data, tmp_path)
    assert [line for line in report.notices if "damaged files of the cache" in line] != []
    assert len(report.notices) == len(set(report.notices))


# --- open_clip ----------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_clip(tmp_path: Path) -> str:
    from tests.tiny_openclip import write_checkpoint

    (tmp_path / "weights").mkdir()
    return f"mmsearch-tiny/{write_checkpoint(tmp_path / 'weights')[1]}"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    return small_general_set(tmp_path / "elsewhere")


@pytest.mark.parametrize("tune", ["lora:4", "full", "last:1"])
def test_towers_of_open_clip_are_tuned_and_exported(
    tune: str, tiny_clip: str, data: Path, tmp_path: Path, kept: list[DualEncoder], elsewhere: Path
) -> None:
    recipe = replace(RECIPES["finetune"], model=tiny_clip, tune=tune, steps=2, batch=8, learning_rate=1e-3)
    report = run(recipe, [str(data)], tmp_path / "m", cache=tmp_path / "c", general=elsewhere)
    assert report.general is not None
    tower = kept[0].text_tower
    check_export(tmp_path / "m", kept[0], data, tokenizer=tower.tokenizer, max_tokens=16)
    from mmsearch.nn.towers import image_tower

    old = image_tower(f"open_clip:{tiny_clip}").state_dict()
    now = kept[0].image_tower.state_dict()
    assert now.keys() == old.keys()
    moved = {name for name in now if not torch.equal(now[name], old[name])}
    assert moved
    if tune == "last:1":
        assert not any("resblocks.0" in name or "conv1" in name for name in moved)
    if tune == "lora:4":
        assert not any("norm" in name or "ln_" in name or "embedding" in name for name in moved)


def test_small_maps_on_open_clip_by_default(tiny_clip: str, data: Path, tmp_path: Path, elsewhere: Path) -> None:
    recipe = replace(RECIPES["finetune"], model=tiny_clip, steps=5, learning_rate=1e-2)
    report = run(recipe, [str(data)], tmp_path / "m", cache=tmp_path / "c", general=elsewhere)
    base, made = load_encoder(tiny_clip), load_encoder(str(tmp_path / "m"))
    manifest = json.loads((tmp_path / "m" / "encoder.json").read_text())
    assert manifest["base"] == base.space.name
    assert manifest["base"].startswith("mmsearch-tiny//")  # found from every folder
    assert report.strength == manifest["facts"]["training"]["strength"]
    with np.load(tmp_path / "m" / "adapter.npz") as parts:
        rows = base.encode_texts(TEXTS)
        wanted = rows @ (np.eye(24) + parts["text_matrix"]) + parts["text_shift"]
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(made.encode_texts(TEXTS), wanted, atol=1e-5)


# --- fine-tuned again ---------------------------------------------------------------------------------------------


def test_the_written_maps_are_the_trained_ones_and_can_be_fine_tuned_again(
    data: Path, tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[DualEncoder] = []
    real = keeping.keep_adapters

    def keep(folder: Path, base: object, encoder: DualEncoder, **more: object) -> None:
        fitted.append(encoder)
        real(folder, base, encoder, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(keeping, "keep_adapters", keep)
    recipe = replace(RECIPES["finetune"], model="toy", steps=15, learning_rate=1e-2, general_weight=0.0)
    pictures = [Image.open(path).convert("RGB") for path in sorted((data / "images").iterdir())[:5]]
    model = "toy"
    for number, name in enumerate(("first", "second")):
        run(replace(recipe, model=model), [str(data)], tmp_path / name, cache=tmp_path / "c", general=elsewhere)
        below, made = load_encoder(model), load_encoder(str(tmp_path / name))
        prepared = [below.prepare(picture) for picture in pictures]
        with torch.inference_mode():
            images = fitted[number].images(torch.from_numpy(below.encode_images(prepared))).pooled
            texts = fitted[number].texts(torch.from_numpy(below.encode_texts(TEXTS))).pooled
        np.testing.assert_allclose(made.encode_images(prepared), images, atol=1e-5)
        np.testing.assert_allclose(made.encode_texts(TEXTS), texts, atol=1e-5)
        model = str(tmp_path / name)
    before = made.encode_texts(TEXTS)
    (tmp_path / "first").rename(tmp_path / "gone")  # the second has its own copy
    assert {one.name for one in (tmp_path / "second" / "base").iterdir()} == {"encoder.json", "adapter.npz"}
    np.testing.assert_array_equal(load_encoder(model).encode_texts(TEXTS), before)


def test_the_base_is_copied_without_what_else_lies_there(data: Path, tmp_path: Path) -> None:
    """On `lite`, the shipped folder: the copy is the encoder, licences included, whatever its folder also holds."""
    from mmsearch.encoders.lite import FOLDER
    from mmsearch.training.build import adapter

    keeping.keep_adapters(tmp_path / "m", load_encoder("lite"), adapter(384).encoder, facts={})
    names = {one.name for one in (tmp_path / "m" / "base").iterdir()}
    assert names == {path.name for path in FOLDER.iterdir()} - {"MODEL_CARD.md"}
    assert all((tmp_path / "m" / "base" / name).read_bytes() == (FOLDER / name).read_bytes() for name in names)
    lite, made = load_encoder("lite"), load_encoder(str(tmp_path / "m"))
    np.testing.assert_allclose(made.encode_texts(TEXTS), lite.encode_texts(TEXTS), atol=1e-6)


# --- ends of all kinds --------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_encoder_that_was_there(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(TINY, data, tmp_path)
    before = load_encoder(str(tmp_path / "m")).encode_texts(TEXTS)
    real = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        if self.name == "text.onnx":
            raise OSError(28, "No space left on device", str(self))
        return real(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        MMSearchError, match=r"cannot be written to .*No space left.*Make room, and run the same"
    ) as raised:
        trained(replace(TINY, learning_rate=0.1), data, tmp_path)
    assert "\n" not in str(raised.value)
    monkeypatch.undo()
    assert not (tmp_path / "m" / ".new").exists()
    np.testing.assert_array_equal(load_encoder(str(tmp_path / "m")).encode_texts(TEXTS), before)


@pytest.mark.parametrize("recipe", ["vit", "vit-mae", "interpolated", "stopped early"])
def test_where_the_disk_refuses_the_encoder_nothing_is_trained_again(
    recipe: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled = {
        "vit": TINY,
        "vit-mae": replace(TINY, name="vit-mae", pretrained="mae"),
        "interpolated": replace(TINY, interpolate=0.5, ema=0.9),
        "stopped early": replace(TINY, steps=9, evaluate_every=1, patience=1, learning_rate=1e-9),
    }[recipe]
    whole = run(settled, [str(data)], tmp_path / "whole", cache=tmp_path / "c")
    real = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        if self.name == "image.onnx":
            raise OSError(28, "No space left on device", str(self))
        return real(self, content)

    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_bytes", full)
        for _ in range(2):  # there is still no room
            with pytest.raises(MMSearchError, match=r"No space left.*run the same.* again. The training is done and"):
                trained(settled, data, tmp_path)
            assert (tmp_path / "m" / "run" / "checkpoint.safetensors").stat().st_size < 10_000  # it keeps no one out
            disk.setattr(loop, "backward", lambda *_, **__: pytest.fail("trained"))
        assert not (tmp_path / "m" / "encoder.json").exists()
        with pytest.raises(UsageError, match=r"belongs to a run of another recipe .*learning_rate was"):
            trained(replace(settled, learning_rate=0.5), data, tmp_path)
    with monkeypatch.context() as training:
        training.setattr(loop, "backward", lambda *_, **__: pytest.fail("trained"))
        report = trained(settled, data, tmp_path)
    for name in ("image.onnx", "text.onnx"):
        assert (tmp_path / "m" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert report.held_out == whole.held_out
    assert replace(report.trained, pairs_a_second=0, seconds=0) == replace(whole.trained, pairs_a_second=0, seconds=0)
    assert report.trained.stopped_early is (recipe == "stopped early")
    logs = [(tmp_path / name / "run" / "log.csv").read_text().splitlines() for name in ("m", "whole")]
    assert [row.split(",")[0] for row in logs[0]] == [row.split(",")[0] for row in logs[1]]
    assert not (tmp_path / "m" / "run" / "checkpoint.safetensors").exists()
    assert trained(replace(settled, steps=1), data, tmp_path).trained.steps == 1  # what is done begins anew


@pytest.mark.parametrize("step", [1, 5])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(step: int, data: Path, tmp_path: Path) -> None:
    recipe = replace(TINY, steps=6, checkpoint_every=2, ema=0.9)

    def stop(progress: object) -> None:
        if progress.stage == "training" and progress.done == step:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(recipe, [str(data)], tmp_path / "stopped", cache=tmp_path / "c", on_progress=stop)
    ends = []
    for out in (tmp_path / "stopped", tmp_path / "whole"):
        run(recipe, [str(data)], out, cache=tmp_path / "c")
        ends.append(checkpoint.load(out / "run" / "best.safetensors")[0])
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert (tmp_path / "stopped" / "image.onnx").read_bytes() == (tmp_path / "whole" / "image.onnx").read_bytes()
