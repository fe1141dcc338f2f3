"""Real processes: killed at random moments, two at once, one indexing while others search."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsearch import Engine
from mmsearch.errors import LockError
from tests.conftest import paint
from tests.state import state
from tests.toy import COLOURS, ToyEncoder

PICTURES = 100
REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with copies, captions and a broken file among its pictures."""
    folder = tmp_path_factory.mktemp("library")
    for number in range(PICTURES):
        colour = list(COLOURS)[number % len(COLOURS)]
        path = paint(folder / f"part {number % 3}" / f"{number:03}.png", colour, number)
        if number % 7 == 0:
            path.with_suffix(".txt").write_text(f"a {colour} picture, number {number}\n")
        if number % 11 == 0:
            shutil.copy(path, folder / f"copy of {number:03}.png")
    (folder / "part 1" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    return folder


@pytest.fixture(scope="module")
def undisturbed(library: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    collection = tmp_path_factory.mktemp("undisturbed")
    with Engine.open(collection, model=ToyEncoder()) as engine:
        engine.index(library)
    return state(collection)


def start(collection: Path, library: Path, *gate: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.index_in_process", str(collection), str(library), *map(str, gate)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)


def committed(collection: Path) -> int:
    """How many pictures a reader sees now."""
    with Engine.open(collection, model=ToyEncoder(), create=False) as engine:
        return engine.status().images


def read_until(process: subprocess.Popen[str], word: str) -> str:
    """The first line that begins with a word."""
    assert process.stdout is not None
    return next(line for line in process.stdout if line.startswith(word))


def kill_when(process: subprocess.Popen[str], batches: int, delay: float) -> None:
    """SIGKILL `delay` seconds after the run has spoken of its n-th batch."""
    assert process.stdout is not None
    for line in process.stdout:
        batches -= line.startswith("encoding")
        if batches <= 0:
            break
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_killed_at_twenty_moments(library: Path, undisturbed: dict[str, list[object]], tmp_path: Path) -> None:
    chance = random.Random(8)
    between = 0
    for number in range(20):
        collection = tmp_path / str(number)
        kill_when(start(collection, library), chance.randint(1, PICTURES // 4 - 3), chance.uniform(0, 0.03))
        between += 0 < committed(collection) < PICTURES
        with Engine.open(collection, model=ToyEncoder()) as engine:
            engine.index(library)
            assert engine.verify().sound
        assert state(collection) == undisturbed
        shutil.rmtree(collection)
    assert between >= 15


def test_killed_while_files_were_renamed_and_edited(library: Path, tmp_path: Path) -> None:
    """Swapped names, a series that moved up, edits, files that went: whatever order they come in, nothing is lost."""
    folder, start_state = tmp_path / "library", tmp_path / "before"
    shutil.copytree(library, folder)
    with Engine.open(start_state, model=ToyEncoder()) as engine:
        engine.index(folder)
    series = sorted((folder / "part 0").glob("*.png"))
    for path in reversed(series):
        path.rename(path.with_name(f"{int(path.stem) + 3:03}.png"))
    swapped = sorted((folder / "part 1").glob("*.png"))
    for first, second in zip(swapped[::2], swapped[1::2], strict=False):
        first.rename(folder / "x")
        second.rename(first)
        (folder / "x").rename(second)
    for number, path in enumerate(sorted((folder / "part 2").glob("*.png"))):
        paint(path, list(COLOURS)[number % 8], 500 + number)
    for path in sorted(folder.glob("copy of 0[0-4]*.png")):
        path.unlink()
    ends = []
    chance = random.Random(10)
    for kills in (0, 1, 2, 3):
        collection = tmp_path / str(kills)
        shutil.copytree(start_state, collection)
        for _ in range(kills):
            kill_when(start(collection, folder), chance.randint(1, 3), chance.uniform(0, 0.02))
        with Engine.open(collection, model=ToyEncoder()) as engine:
            engine.index(folder)
            assert engine.verify().sound
        ends.append(state(collection))
    assert ends[1] == ends[0]
    assert ends[2] == ends[0]
    assert ends[3] == ends[0]
    with Engine.open(tmp_path / "fresh", model=ToyEncoder()) as engine:
        engine.index(folder)
    present = [row for row in ends[0]["files"] if row[5] != "missing"]
    assert present == state(tmp_path / "fresh")["files"]


def test_killed_again_and_again_two_at_once(
    library: Path, undisturbed: dict[str, list[object]], tmp_path: Path
) -> None:
    chance = random.Random(9)
    collection = tmp_path / "collection"
    between = 0
    for _ in range(5):
        first = start(collection, library)
        assert first.stdout is not None
        first.stdout.readline()  # it holds the collection; the second waits, and goes on where the first is killed
        second = start(collection, library)
        kill_when(first, chance.randint(1, 2), chance.uniform(0, 0.01))
        kill_when(second, chance.randint(1, 2), chance.uniform(0, 0.01))
        between += 0 < committed(collection) < PICTURES
    assert between >= 4
    with Engine.open(collection, model=ToyEncoder()) as engine:
        engine.index(library)
        assert engine.verify().sound
    assert state(collection) == undisturbed


def test_two_runs_at_once_the_second_waits_and_says_for_whom(
    library: Path, undisturbed: dict[str, list[object]], tmp_path: Path
) -> None:
    collection = tmp_path / "collection"
    gate = tmp_path / "gate"
    first = start(collection, library, gate)
    read_until(first, "encoding")
    second = start(collection, library)
    assert f"process {first.pid} on " in read_until(second, "waiting")
    with (
        Engine.open(collection, model=ToyEncoder()) as engine,
        pytest.raises(LockError, match=f"process {first.pid} on"),
    ):
        engine.remove_root(library)
    gate.touch()
    first.communicate()
    said, _ = second.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert said.splitlines()[-1] == f"0 {PICTURES + 10}"  # nothing left to do for the second
    assert state(collection) == undisturbed


def test_searching_while_another_process_indexes(library: Path, tmp_path: Path) -> None:
    collection, gate = tmp_path / "collection", tmp_path / "gate"
    process = start(collection, library, gate)
    read_until(process, "encoding")
    with Engine.open(collection, model=ToyEncoder(), create=False) as engine:
        seen = [len(engine.search("red", k=1000))]
        assert 0 < seen[0] < PICTURES
        gate.touch()
        while process.poll() is None:
            hits = engine.search("red", k=1000).hits
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
            assert len({hit.sha256 for hit in hits}) == len(hits)
            seen.append(len(hits))
        process.communicate()
        assert seen == sorted(seen)
        assert len(engine.search("red", k=1000)) == PICTURES


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs POSIX users")
def test_a_folder_that_cannot_be_written_can_be_searched(tmp_path: Path) -> None:
    paint(tmp_path / "images" / "red.png", "red")
    paint(tmp_path / "images" / "blue.png", "blue")
    with Engine.open(tmp_path / "c", model=ToyEncoder()) as engine:
        engine.index(tmp_path / "images")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    for path in (tmp_path / "c").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (tmp_path / "c").chmod(0o555)
    program = f"""
import os, sys
from mmsearch import Engine
from mmsearch.errors import LockError
from mmsearch.errors import MMSearchError
from tests.toy import ToyEncoder
import numpy, mmsearch.adding
with Engine.open({str(tmp_path / "c")!r}, model=ToyEncoder(), create=False) as engine:
    engine.search("red"), engine.verify()  # imports everything, while the interpreter's own files can be read
if os.getuid() == 0:
    os.setuid(65534)
assert not os.access({str(tmp_path / "c")!r}, os.W_OK)
with Engine.open({str(tmp_path / "c")!r}, model=ToyEncoder(), create=False) as engine:
    print(engine.search("red", k=1).hits[0].path.name, engine.verify().problems)
    try:
        engine.add("key", numpy.zeros((5, 5, 3), numpy.uint8))
    except MMSearchError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY)
    (tmp_path / "c").chmod(0o755)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "red.png ()"
    assert "cannot be written" in second


def test_a_run_and_an_application_write_at_once(library: Path, tmp_path: Path) -> None:
    collection, gate = tmp_path / "collection", tmp_path / "gate"
    process = start(collection, library, gate)
    read_until(process, "encoding")
    with Engine.open(collection, model=ToyEncoder()) as engine:
        keys = []
        while process.poll() is None:
            pixels = np.random.default_rng(len(keys)).integers(0, 255, (8, 8, 3), dtype=np.uint8)
            keys.append(f"key {len(keys)}")
            engine.add(keys[-1], Image.fromarray(pixels))
            gate.touch()
        process.communicate()
        assert process.returncode == 0
        assert engine.status().images == PICTURES + len(keys)
        assert engine.remove(keys) == len(keys)
        assert engine.status().images == PICTURES
        assert engine.verify().sound
