"""Wrong runs end before they begin: what is said, and that nothing was read or written."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra: pip install 'mmsearch[train]'")
pytest.importorskip("onnx", reason="training needs the extra: pip install 'mmsearch[train]'")

from mmsearch.encoders import registry  # noqa: E402
from mmsearch.engine import Engine  # noqa: E402
from mmsearch.errors import UsageError  # noqa: E402
from mmsearch.training import beforehand, keeping  # noqa: E402
from mmsearch.training import run as running  # noqa: E402
from mmsearch.training.beforehand import problems  # noqa: E402
from mmsearch.training.distributed import World  # noqa: E402
from mmsearch.training.recipe import Recipe, settle  # noqa: E402
from mmsearch.training.recipes import RECIPES  # noqa: E402
from mmsearch.training.run import run  # noqa: E402
from tests.conftest import paint  # noqa: E402
from tests.small_runs import TINY, colours_with_captions, small_general_set  # noqa: E402
from tests.toy import ToyEncoder  # noqa: E402


@pytest.fixture(autouse=True)
def toy_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BUILTIN, "toy", lambda name, device, precision: ToyEncoder())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colours_with_captions(tmp_path_factory.mktemp("data"))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    return small_general_set(tmp_path / "elsewhere")


def refused(recipe: Recipe, data: Sequence[str], out: Path, line: str, **more: object) -> None:
    with pytest.raises(UsageError, match=line) as raised:
        run(recipe, data, out, cache=out / "cache", **more)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_all_that_is_wrong_is_said_at_once_before_anything_is_read(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmsearch.training.examples.read", lambda *_, **__: pytest.fail("read"))
    monkeypatch.setattr(running, "read_all", lambda *_, **__: pytest.fail("read"))
    recipe = replace(RECIPES["finetune"], model="lit", caption_split=True)
    found = problems(recipe, [str(data), "no-such", "x:also-none"], tmp_path / "m", None, processes=2)
    assert [line.split(";")[0].split(" (")[0] for line in found][:2] == [
        "no-such cannot be trained on: it is no folder, no .tar file and no collection of that name.",
        "x:also-none cannot be trained on: it is no folder, no .tar file and no collection of that name.",
    ]
    assert "There is no model 'lit'" in found[2]
    assert "takes one process" in found[3]
    assert "no use for caption_split" in found[4]
    assert len(found) == 5
    refused(
        recipe, [str(data), "no-such"], tmp_path / "m", "no-such cannot be trained on.*no model 'lit'.*caption_split"
    )
    assert not (tmp_path / "m").exists()


def test_captions_of_several_sets_are_not_divided(data: Path, tmp_path: Path) -> None:
    wrong = replace(TINY, caption_split=True, precision="fp16")
    found = problems(wrong, [str(data)] * 2, tmp_path / "m", data, device=torch.device("cpu"))
    assert [line.split(";")[0] for line in found] == [
        "precision=fp16 needs a CUDA device, and this run is on cpu",
        "--general is for models that are fine-tuned",
        "caption_split divides one set",
    ]
    assert problems(wrong, [str(data)], tmp_path / "m", None) == []
    refused(replace(wrong, precision="fp32"), [str(data), "no-such"], tmp_path / "m", "no-such cannot.*divides one set")
    assert not (tmp_path / "m").exists()


def test_a_collection_that_cannot_go_over_to_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(folder: Path) -> str:
        catalog = folder / "catalog.sqlite"
        before = catalog.read_bytes() if catalog.exists() else None
        found = problems(replace(RECIPES["finetune"], model="toy"), [], None, None, promote=folder)
        assert before == (catalog.read_bytes() if catalog.exists() else None)  # nothing is made, nor brought up to date
        return " ".join(found)

    paint(tmp_path / "pictures" / "a.png", "red", 1)
    for name in ("fit", "keys", "newer"):
        with Engine.open(tmp_path / name, model="toy") as engine:
            if name == "keys":
                engine.add("a", (tmp_path / "pictures" / "a.png").read_bytes())
            else:
                engine.index(tmp_path / "pictures")
    with closing(sqlite3.connect(tmp_path / "newer" / "catalog.sqlite")) as plain, plain:
        plain.execute("UPDATE alembic_version SET version_num = '9999'")
    for name, content in (("begun", b""), ("damaged", b"SQLite format 3\0" + b"x" * 5000), ("other", b"hello" * 99)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "catalog.sqlite").write_bytes(content)
    assert told(tmp_path / "fit") == ""
    assert told(tmp_path / "none").startswith("--promote needs a collection that is to use the new encoder; name it")
    assert "keys has none; name another with --collection" in told(tmp_path / "keys")
    assert "newer was written by a newer mmsearch (schema 9999" in told(tmp_path / "newer")
    assert "There is no collection at" in told(tmp_path / "begun")
    assert all("damaged" in told(tmp_path / name) for name in ("damaged", "other"))
    (line,) = problems(TINY, [], None, None, promote=tmp_path / "fit")
    assert line == "--promote is for models that are fine-tuned; vit trains towers of its own."
    monkeypatch.setattr(beforehand.os, "access", lambda path, how: path != tmp_path / "fit")
    assert told(tmp_path / "fit").endswith("fit cannot be written to; check its permissions.")


def test_tuning_the_towers_of_what_is_no_open_clip_model_is_one_line(data: Path, tmp_path: Path) -> None:
    from mmsearch.training.build import adapter

    keeping.keep_adapters(tmp_path / "own", ToyEncoder(), adapter(13).encoder, facts={})
    recipe = settle(RECIPES["finetune"], [f"model={tmp_path / 'own'}", "tune=full"])
    refused(recipe, [str(data)], tmp_path / "m", "tune is for models of open_clip .*, not for .*own; leave it out")
    with pytest.raises(UsageError, match=r"tune is for models of open_clip .*, not for 'lite'"):
        settle(RECIPES["finetune"], ["tune=full"])


def test_a_folder_of_someones_own_is_neither_filled_nor_cleared(data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine" / "base").mkdir(parents=True)
    (tmp_path / "mine" / "base" / "letter.txt").write_text("dear")
    refused(TINY, [str(data)], tmp_path / "mine", "holds other things than a run of ours; choose a new or empty")
    assert (tmp_path / "mine" / "base" / "letter.txt").read_text() == "dear"
    assert [one.name for one in (tmp_path / "mine").iterdir()] == ["base"]
    (tmp_path / "file").write_text("x")
    refused(TINY, [str(data)], tmp_path / "file", "file cannot be written to")
    refused(TINY, [str(data)], tmp_path / "file" / "m", "m cannot be written to")


def test_a_folder_of_another_recipe_or_a_damaged_note(data: Path, tmp_path: Path) -> None:
    (tmp_path / "m" / "run").mkdir(parents=True)
    note = tmp_path / "m" / "run" / "recipe.json"
    note.write_text('{"name": "siglip"}')
    refused(TINY, [str(data)], tmp_path / "m", "m holds a run of the recipe siglip; choose another --out for vit")
    for damaged in ('{"na', "[]", "{}"):
        note.write_text(damaged)
        refused(TINY, [str(data)], tmp_path / "m", "recipe.json is damaged; choose another --out")


def test_model_and_out_in_one_folder(data: Path, tmp_path: Path) -> None:
    from mmsearch.training.build import adapter

    keeping.keep_adapters(tmp_path / "m", ToyEncoder(), adapter(13).encoder, facts={})
    recipe = replace(RECIPES["finetune"], model=str(tmp_path / "m"))
    refused(recipe, [str(data)], tmp_path / "m", "cannot be both the model that is fine-tuned and --out")


def test_a_general_set_for_towers_and_one_that_cannot_be_read(data: Path, tmp_path: Path) -> None:
    refused(TINY, [str(data)], tmp_path / "m", "--general is for models that are fine-tuned", general=data)
    (tmp_path / "empty").mkdir()
    recipe = replace(RECIPES["finetune"], model="toy")
    refused(recipe, [str(data)], tmp_path / "m", "empty cannot be evaluated", general=tmp_path / "empty")
    assert not (tmp_path / "m" / "run" / "round-0").exists()  # before training


def test_maps_are_made_in_one_process(data: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPES["finetune"], model="toy")
    refused(recipe, [str(data)], tmp_path / "m", "takes one process", world=World(1, 2))


def test_fp16_without_a_gpu_is_said_before_reading(data: Path, tmp_path: Path) -> None:
    refused(replace(TINY, precision="fp16"), [str(data)], tmp_path / "m", "precision=fp16 needs a CUDA device")
    assert not (tmp_path / "m").exists()


def test_too_few_pairs_and_one_caption_for_all(tmp_path: Path) -> None:
    for number in range(12):
        paint(tmp_path / "few" / "images" / f"{number}.png", "red", number)
    table = tmp_path / "few" / "captions.csv"
    table.write_text("image,caption\n" + "".join(f"{n}.png,the same\n" for n in range(12)))
    recipe = replace(RECIPES["finetune"], model="toy")
    refused(recipe, [str(tmp_path / "few")], tmp_path / "m", "have the same caption, 'the same'; it takes two")
    table.write_text("image,caption\n1.png,one\n2.png,two\n")
    refused(recipe, [str(tmp_path / "few")], tmp_path / "m", "at least 10 different pictures .* have 2: 2 were found")


def test_pictures_that_are_missing_are_listed_and_left_out(data: Path, tmp_path: Path, elsewhere: Path) -> None:
    folder = tmp_path / "holes"
    folder.mkdir()
    (folder / "images").symlink_to(data / "images")
    (folder / "captions.csv").write_text((data / "captions.csv").read_text() + "lost.png,a lost thing\n")
    recipe = replace(RECIPES["finetune"], model="toy", steps=2)
    report = run(recipe, [str(folder)], tmp_path / "m", cache=tmp_path / "c", general=elsewhere)
    assert [one.path.name for one in report.left_out] == ["lost.png"]


def test_a_general_set_that_is_trained_on_is_told(data: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPES["finetune"], model="toy", steps=1)
    report = run(recipe, [str(data)], tmp_path / "m", cache=tmp_path / "c", general=data)
    assert [one for one in report.notices if one.startswith("40 of the 40 pictures of the captions of ")]
