"""`mmsearch train` as people meet it: what it prints, how it ends, what a collection does with the model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra: pip install 'mmsearch[train]'")
pytest.importorskip("onnx", reason="training needs the extra: pip install 'mmsearch[train]'")

from mmsearch.cli.main import main  # noqa: E402
from mmsearch.encoders import registry  # noqa: E402
from mmsearch.engine import Engine  # noqa: E402
from mmsearch.training import loop  # noqa: E402
from tests.conftest import paint  # noqa: E402
from tests.terminal import at_terminal, plain_terminal, text_of  # noqa: E402
from tests.test_cli_process import environment_in, run  # noqa: E402
from tests.test_finetune import INVENTED, WordToy, captioned  # noqa: E402
from tests.toy import COLOURS  # noqa: E402

FAST = ("--set", "steps=20", "--set", "learning_rate=0.01", "--set", "model=toy", "--set", "general_weight=0")
Said = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setitem(registry.BUILTIN, "toy", lambda name, device, precision: WordToy())
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """train ... -> exit code, stdout, stderr; never a traceback."""

    def said(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["train", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert all(line.startswith("mmsearch: ") for line in err.splitlines())
        return code, out, err

    return said


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return captioned(tmp_path / "mine", each=9)


@pytest.fixture
def few(tmp_path: Path) -> Path:
    return captioned(tmp_path / "few", each=3)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A small general set that is not like the pictures at home."""
    for number, colour in enumerate(COLOURS):
        kind = ("birds", "boats", "houses", "trees")[number % 4]
        for seed in (70, 71, 72):
            paint(tmp_path / "elsewhere" / kind / f"{number}{seed}.png", colour, seed)
    return tmp_path / "elsewhere"


def tune(mine: Path, out: Path, elsewhere: Path, *more: str | Path) -> Sequence[str | Path]:
    return ["--recipe", "finetune", "--data", mine, "--out", out, "--general", elsewhere, *FAST, *more]


# --- what is printed ----------------------------------------------------------------------------------------------


def test_the_last_two_lines_say_before_and_after(mine: Path, elsewhere: Path, said: Said) -> None:
    code, out, err = said(*tune(mine, Path("m"), elsewhere))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"general: the subfolders of {elsewhere} as labels"
    assert lines[-3] == "written to m; use it with: mmsearch index --model ./m"
    assert lines[-2].startswith("before t2i R@1/R@5/R@10 ")
    assert lines[-1].startswith("after  t2i R@1/R@5/R@10 ")
    before, after = (float(line.split(",")[0].rsplit("/", 1)[1]) for line in lines[-2:])
    assert after > before
    row = next(line.split("\t") for line in out.splitlines()[::-1] if line.startswith("t2i\tR@10"))
    assert [float(value) for value in row[2:4]] == [before, after]


def test_json_keeps_its_shape(few: Path, elsewhere: Path, said: Said) -> None:
    code, out, _ = said(*tune(few, Path("m"), elsewhere, "--json"))
    made = json.loads(out)
    assert code == 0
    assert list(made) == [
        *("recipe", "out", "parameters", "steps", "best_step", "stopped_early", "pairs_a_second", "seconds"),
        *("strength", "held_out", "general", "promoted", "why", "notices", "left_out"),
    ]
    assert list(made["held_out"]) == ["about", "measures"]
    names = ["direction", "measure", "before", "after", "gained", "low", "high", "p"]
    assert all(list(one) == names for one in made["held_out"]["measures"])
    for one in made["held_out"]["measures"]:
        assert one["gained"] == pytest.approx(one["after"] - one["before"], abs=0.002)
    assert (made["promoted"], made["why"], made["left_out"], made["notices"]) == (None, None, [], [])
    assert made["parameters"] == 2 * (13 * 13 + 13)


def test_list_explains_each_recipe(said: Said) -> None:
    code, out, _ = said("--list")
    assert code == 0
    assert "finetune: small maps on the vectors of lite, objective " in out
    assert "\n    --set margin=0.2 negatives=hardest image.side=260 text.max_tokens=64\n" in out
    assert max(map(len, out.splitlines())) <= 78
    told = json.loads(said("--list", "--json")[1])
    listed, recipes = told["recipes"], out.partition("\n\n")[0].splitlines()
    assert [one["name"] for one in listed] == [line.split(":")[0] for line in recipes if line[:1] != " "]
    assert all(one["trains"] and one["good_for"] and one["settings"]["temperature"] for one in listed[:2])
    assert "\n    what      model: an encoder " in out and told["keys"]["what"].startswith("model: an encoder ")


def test_list_fits_a_narrow_terminal(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmsearch.cli.train.on_terminal", lambda: True)
    for columns, widest in (("44", 44), ("200", 78)):
        monkeypatch.setenv("COLUMNS", columns)
        assert widest - 4 <= max(map(len, said("--list")[1].splitlines())) <= widest


def test_what_was_left_out_is_listed_once_and_not_all_of_it(few: Path, elsewhere: Path, said: Said) -> None:
    with (few / "captions.csv").open("a") as stream:
        stream.writelines(f"lost{n}.png,a lost thing\n" for n in range(12))
    code, _, err = said(*tune(few, Path("m"), elsewhere, "--set", "steps=2"))
    assert code == 0
    assert err.count("mmsearch: left out: ") == 10
    assert err.endswith("mmsearch: and 2 more pictures left out.\n")


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "--recipe and --data and --out must be given; `mmsearch train --list` explains recipes."),
        (("--recipe", "finetun"), "--data and --out must be given; .* no recipe 'finetun'; did you mean finetune"),
        (
            ("--recipe", "finetune", "--data", "nowhere", "--out", "m", "--set", "stesp=3", "--set", "batch=x"),
            "batch='x': it must be a whole number; there is no key 'stesp' .*mean steps.* nowhere cannot be trained on",
        ),
        (("--recipe", "finetune", "--data", ".", "--out", "m", "--device", "gpu"), "There is no device 'gpu'"),
        (
            ("--recipe", "finetune", "--set", "tune=full"),  # once
            "^((?!tune is).)*tune is for models of open_clip .*, not for 'lite'((?!tune is).)*$",
        ),
        (("--recipe", "siglip", "--data", ".", "--out", "m", "--promote"), "--promote is for models that are"),
        (("--recipe", "finetune", "--data", ".", "--out", "m", "--promote"), "--promote needs a collection"),
        (
            ("--recipe", "vit", "--data", "nowhere", "--data", "none", "--out", "m", "--device", "cpu", "--promote",
             "--set", "caption_split=yes", "--set", "precision=fp16", "--set", "stesp=3"),
            "mean steps.*nowhere cannot.*none cannot.*precision=fp16 needs.*divides one set.*fine-tuned; vit.*"
            "needs a collection",
        ),
        (("--promote", "--collection", "none", "--set", "x=1"), "--recipe and .* must be given.*needs a collection"),
        (
            ("--recipe", "finetune", "--data", "0.5:", "--out", "m", "--set", "stesp=3", "--promote"),
            "mean steps.*--promote needs a collection",
        ),
        (("--recipe", "finetune", "--data", ".", "--out", "m", "--general", "none"), "'none' does not exist"),
        (("--recipe", "finetune", "--data", ".", "--out", "m", "--set", "model=lit"), "no model 'lit'; did you mean"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_before_anything_is_read(arguments: Sequence[str], line: str, said: Said) -> None:
    import re

    code, out, err = said(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert re.search(line, err), err
    assert not Path("m").exists()


def test_a_collection_that_is_named_and_missing_is_not_replaced_by_another(tmp_path: Path, said: Said) -> None:
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "catalog.sqlite").touch()
    arguments = ["--recipe", "finetune", "--data", "./trained", "--out", "m", "--promote", "--collection", "other"]
    code, _, err = said(*arguments)
    assert code == 2
    assert err == (
        "mmsearch: --promote needs a collection that is to use the new encoder; name it with --collection.\n"
    )


@pytest.mark.parametrize("arguments", [["--recipe", "finetune", "--data", ".", "--out", "m"], ["--list"]])
def test_without_torch_the_extra_is_named_and_recipes_are_explained(arguments: list[str], tmp_path: Path) -> None:
    program = "import sys; sys.modules['torch'] = None; from mmsearch.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "train", *arguments],
        env=environment_in(tmp_path), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if arguments == ["--list"]:
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("finetune: ") and "--set temperature" not in done.stdout
        assert done.stdout.endswith("With pip install 'mmsearch[train]', what each recipe takes is listed, too.\n")
    else:
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr == "mmsearch: Training needs torch; install it with: pip install 'mmsearch[train]'\n"


# --- how it ends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [3, 50])
def test_ctrl_c_says_that_the_same_command_goes_on_and_it_does(
    step: int, few: Path, elsewhere: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    real = loop.backward

    def interrupted(*arguments: Any, **more: Any) -> float:
        nonlocal calls
        calls += 1
        if calls == step:
            raise KeyboardInterrupt
        return real(*arguments, **more)

    command = tune(few, Path("m"), elsewhere, "--json")
    monkeypatch.setattr(loop, "backward", interrupted)
    code, out, err = said(*command)
    assert (code, out) == (130, "")
    assert err == "mmsearch: stopped; the same command goes on from there.\n"
    assert not Path("m/encoder.json").exists()
    code, out, err = said(*command)
    assert (code, err) == (0, "")
    undisturbed = json.loads(said(*tune(few, Path("other"), elsewhere, "--json"))[1])
    assert json.loads(out)["held_out"] == undisturbed["held_out"]
    with np.load("m/adapter.npz") as one, np.load("other/adapter.npz") as two:
        assert all(np.array_equal(one[name], two[name]) for name in one)


def test_a_full_disk_is_one_line_and_nothing_is_trained_again(
    few: Path, elsewhere: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    undisturbed = json.loads(said(*tune(few, Path("other"), elsewhere, "--json"))[1])
    command = tune(few, Path("m"), elsewhere, "--json")
    with monkeypatch.context() as disk:
        disk.setattr(np, "savez", full)
        code, out, err = said(*command)
    assert (code, out) == (4, "")
    assert err == (
        "mmsearch: The encoder cannot be written to m (No space left on device). Make room, and run the same command "
        "again. The training is done and kept; what comes after it is done again.\n"
    )
    with monkeypatch.context() as training:
        training.setattr(loop, "backward", lambda *_, **__: pytest.fail("trained"))
        code, out, err = said(*command)
    assert (code, err) == (0, "")
    assert json.loads(out)["held_out"] == undisturbed["held_out"]
    with np.load("m/adapter.npz") as one, np.load("other/adapter.npz") as two:
        assert all(np.array_equal(one[name], two[name]) for name in one)
    assert list(Path("m").rglob("checkpoint.safetensors")) == []  # what is done begins anew
    assert said(*tune(few, Path("m"), elsewhere, "--set", "steps=2"))[0] == 0


def test_names_that_are_no_utf8(tmp_path: Path, elsewhere: Path, said: Said) -> None:
    for number, colour in enumerate(list(COLOURS)[:4]):
        for seed in range(5):
            name = os.fsdecode(f"{INVENTED[colour]}".encode() + b"\xe9")
            paint(tmp_path / os.fsdecode(b"caf\xe9") / name / f"{number}{seed}.png", colour, seed)
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    code, out, _ = said(*tune(folder, Path(os.fsdecode(b"m\xe9")), elsewhere, "--set", "steps=2"))
    assert code == 0
    assert r"caf\xe9" in out
    assert r"written to m\xe9; use it with: mmsearch index --model './m\xe9'" in out
    made = json.loads(said(*tune(folder, Path(os.fsdecode(b"m\xe9")), elsewhere, "--set", "steps=2", "--json"))[1])
    assert os.fsencode(made["out"]) == b"m\xe9"


# --- promotion ----------------------------------------------------------------------------------------------------


@pytest.fixture
def collection(mine: Path, tmp_path: Path) -> Path:
    with Engine.open(tmp_path / "collection", model="toy") as engine:
        engine.index(mine / "images", captions=mine / "captions.csv")
    return tmp_path / "collection"


def space(collection: Path) -> str:
    with Engine.open(collection) as engine:
        assert engine.search("zorp 0", k=3).hits
        return engine.search("zorp 0").space


def test_a_better_model_is_promoted_and_queries_use_it(collection: Path, elsewhere: Path, said: Said) -> None:
    code, out, err = said(*tune(collection, Path("m"), elsewhere, "--promote", "--allow-loss", "100"))
    assert (code, err) == (0, "")
    told = next(line for line in out.splitlines() if line.startswith("promoted: "))
    assert told.startswith("promoted: t2i R@10 of held-out pictures +")
    assert out.splitlines()[-1].startswith("after  ")
    assert space(collection) == str(Path("m").absolute())


@pytest.mark.parametrize("why", ["no rise", "too much lost"])
def test_a_model_that_is_no_better_leaves_the_collection_alone(
    why: str, collection: Path, elsewhere: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmsearch.training.measuring import Compared

    if why == "no rise":
        more: tuple[str, ...] = ("--set", "interpolate=0", "--set", "steps=2")
        line = r"not promoted: t2i R@10 of held-out pictures +0.0 points, 95 % interval from +0.0"
    else:
        real = Compared.asked.fget  # type: ignore[attr-defined]

        def worse(self: Compared) -> Any:
            from dataclasses import replace

            found = real(self)
            return replace(found, value=-2.1) if "elsewhere" in self.about else found

        monkeypatch.setattr(Compared, "asked", property(worse))
        more, line = (), "-2.1 points, more than the 2 that may be lost"
    before = (collection / "catalog.sqlite").read_bytes()
    code, out, err = said(*tune(collection, Path("m"), elsewhere, "--promote", *more))
    assert (code, err) == (5, "")
    assert line in out
    assert (collection / "catalog.sqlite").read_bytes() == before
    assert space(collection) == "toy"


# --- real processes -----------------------------------------------------------------------------------------------


def test_train_index_query_on_a_narrow_terminal(mine: Path, elsewhere: Path, tmp_path: Path) -> None:
    """The plugin's colours, as `model=colour`: a real encoder of three numbers, in processes of its own."""
    environment = environment_in(tmp_path)
    settings = [part for one in ("model=colour", "steps=20", "general_weight=0") for part in ("--set", one)]
    command = [sys.executable, "-c", "import sys; from mmsearch.cli.main import main; sys.exit(main())", "train"]
    options = ["--recipe", "finetune", "--data", mine, "--out", "m", "--general", elsewhere, *settings]
    code, written = at_terminal(
        [*command, *options], plain_terminal, size=(40, 60), folder=tmp_path, environment=environment
    )
    shown = text_of(written)
    assert code == 0, shown
    assert "training" in shown
    assert "/120" in shown  # six rounds of 20 steps, with a time left
    assert "Traceback" not in shown
    lines = shown.splitlines()
    assert lines[-2].startswith("before ")
    assert lines[-1].startswith("after ")
    assert run(["index", mine / "images", "--model", "./m"], environment, tmp_path).returncode == 0
    found = run(["query", "zorp", "--json"], environment, tmp_path)
    assert found.returncode == 0
    assert json.loads(found.stdout)["space"] == str(tmp_path / "m")
