"""A new model without a gap: while one process indexes with it, others query; nobody fails, and no answer mixes spaces.

Two encoders of different dimensions disagree about every colour, so that an answer tells which of them gave it: the
first one finds red for "red", the second one takes red for blue.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import mmsearch
from mmsearch import Engine
from tests.conftest import paint

PICTURES = 24  # of each colour
PATIENCE_SECONDS = 60
FOUND = {"first": "red", "second": "blue"}
PLUGIN = """
import os, time
import numpy as np
from mmsearch.encoders.protocol import Space

class Pair:
    image_size = 8
    batch_size = 4

    def __init__(self, name, device, precision):
        self.space = Space(name, f"pair-{name}", {"first": 3, "second": 4}[name])

    def rows(self, colours):
        rows = np.zeros((len(colours), self.space.dimension), np.float32)
        rows[:, :3] = np.reshape(colours, (-1, 3)).astype(np.float32) + 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def prepare(self, picture):
        return np.asarray(picture.resize((1, 1)), np.float32).reshape(3)

    def encode_images(self, prepared):
        time.sleep(float(os.environ.get("PAIR_SECONDS", "0")) * len(prepared))
        return self.rows(prepared)

    def encode_texts(self, texts):
        red, blue = (255, 0, 0), (0, 0, 255)
        return self.rows([red if self.space.name == "first" else blue for _ in texts])
"""


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The two encoders as an installed package, here and for processes that are started with these variables."""
    place = tmp_path / "plugin"
    facts = place / "encoder_pair-1.0.dist-info"
    facts.mkdir(parents=True)
    (place / "encoder_pair.py").write_text(PLUGIN)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: encoder-pair\nVersion: 1.0\n")
    names = "".join(f"{name} = encoder_pair:Pair\n" for name in FOUND)
    (facts / "entry_points.txt").write_text(f"[mmsearch.encoders]\n{names}")
    monkeypatch.syspath_prepend(place)
    importlib.invalidate_caches()
    path = os.pathsep.join([str(Path(mmsearch.__file__).parents[1]), str(place)])
    yield os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    sys.modules.pop("encoder_pair", None)


def start(environment: dict[str, str], *arguments: str | Path) -> subprocess.Popen[str]:
    program = "import sys; from mmsearch.cli.main import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_queries_go_on_while_a_new_model_takes_over(tmp_path: Path, environment: dict[str, str]) -> None:
    for number in range(PICTURES):
        for colour in ("red", "blue"):
            paint(tmp_path / "images" / f"{colour} {number}.png", colour, number)
    collection = tmp_path / "collection"
    with Engine.open(collection, model="first") as engine:
        engine.index(tmp_path / "images")

    answers: list[str] = []  # which space, of every query of the engine that stays open
    failures: list[object] = []
    done = threading.Event()

    def ask() -> None:
        try:
            with Engine.open(collection, create=False) as engine:
                while not done.is_set():
                    result = engine.search("red", k=PICTURES)
                    answers.append(result.space)
                    time.sleep(0.005)  # the processes need the cores, too
                    names = {hit.path.name.split()[0] for hit in result if hit.path}
                    if len(result) != PICTURES or names != {FOUND[result.space]}:
                        failures.append((result.space, len(result), names))
        except Exception as error:  # noqa: BLE001 - told on the main thread
            failures.append(error)

    def ask_in_a_process() -> str:
        process = start(environment, "query", "red", "--json", "-k", str(PICTURES), "-c", collection)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        assert (process.returncode, err) == (0, "")
        result = json.loads(out)
        names = {Path(hit["path"]).name.split()[0] for hit in result["hits"]}
        assert (len(result["hits"]), names) == (PICTURES, {FOUND[result["space"]]})
        return str(result["space"])

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        run = start(environment | {"PAIR_SECONDS": "0.04"}, "index", "--model", "second", "-c", collection)
        during = []
        while run.poll() is None:
            during.append(ask_in_a_process())
        assert run.returncode == 0, run.communicate()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while answers[-1:] != ["second"] and not failures and time.monotonic() < deadline:
            time.sleep(0.01)
        after = ask_in_a_process()
    finally:
        done.set()
        asking.join(PATIENCE_SECONDS)
        run.communicate()
    assert failures == []
    assert during[0] == "first"
    assert during == sorted(during)  # once it has switched, it does not go back
    assert after == "second"
    assert answers == sorted(answers)
    assert set(answers) == {"first", "second"}


def test_a_new_model_that_is_killed_half_way_changes_nothing(tmp_path: Path, environment: dict[str, str]) -> None:
    for number in range(PICTURES):
        paint(tmp_path / "images" / f"red {number}.png", "red", number)
        paint(tmp_path / "images" / f"blue {number}.png", "blue", number)
    collection = tmp_path / "collection"
    with Engine.open(collection, model="first") as engine:
        engine.index(tmp_path / "images")
    run = start(environment | {"PAIR_SECONDS": "0.05"}, "index", "--model", "second", "-c", collection)
    with Engine.open(collection) as engine:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not [one for one in engine.status().spaces if one.encoder == "second" and one.images]:
            assert time.monotonic() < deadline
            assert run.poll() is None, run.communicate()
            time.sleep(0.01)
        run.kill()
        run.communicate()
        assert engine.search("red", k=1).space == "first"
        made = engine.compare("first", "second", k=5)
        assert 0 < made.new.encoded < made.new.images == 2 * PICTURES
        engine.index()  # with the model that queries use, so nothing of the new one is added
        assert engine.search("red", k=1).space == "first"
    with Engine.open(collection, model="second") as engine:
        assert engine.index().unchanged == 2 * PICTURES
    with Engine.open(collection) as engine:
        assert engine.search("red", k=1).space == "second"
