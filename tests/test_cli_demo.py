"""The demo, with the encoder that ships: every query it shows has an answer that a person accepts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mmsearch
from mmsearch.cli import demo
from mmsearch.cli.main import main

# What a person accepts in the first place; judged by looking at the pictures.
ACCEPTED = {
    "a red sports car": {"clip_001.jpg", "clip_003.jpg"},
    "guitar": {"clip_080.jpg", "clip_081.jpg"},
    "a cup of coffee": {"clip_045.jpg", "photo_coffee.jpg"},
    "penguin": {"clip_060.jpg"},
    "killer whale": {"clip_061.webp"},
    "someone riding a bicycle": {"clip_012.jpg"},
    "strawberry": {"clip_035.jpg", "clip_036.jpg"},
    "a photographer with his camera": {"photo_camera.jpg"},
    "a hot air balloon": {"clip_016.webp"},
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `mmsearch demo` prints; also checks that it cleans up behind itself."""
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from mmsearch.cli.main import main; sys.exit(main(['demo']))"],
        env=os.environ | {"PYTHONPATH": str(Path(mmsearch.__file__).parents[1]), "TMPDIR": str(folder)},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert list(folder.iterdir()) == []
    return done.stdout.decode()


def answers(shown: str) -> dict[str, list[str]]:
    """File names by query, best first."""
    found: dict[str, list[str]] = {}
    query = ""
    for line in shown.splitlines():
        if asked := re.match(r'mmsearch query "(.+)"$', line):
            query = asked[1]
        elif answer := re.match(r" +\d+ +-?\d\.\d{3} +(\S+)", line):
            found.setdefault(query, []).append(answer[1])
    return found


def test_the_red_sports_car_comes_first(shown: str) -> None:
    first, *_ = answers(shown).items()
    assert first[0] == "a red sports car"
    assert set(first[1][:2]) == {"clip_001.jpg", "clip_003.jpg"}


def test_every_query_has_an_answer_that_a_person_accepts(shown: str) -> None:
    found = answers(shown)
    assert len(found) >= 8
    assert set(found) == set(ACCEPTED)
    assert {query: names[0] for query, names in found.items() if names[0] not in ACCEPTED[query]} == {}
    assert sum(len(query.split()) == 1 for query in found) >= 2  # single words
    first = [names[0] for names in found.values()]
    assert any(name.startswith("clip_") for name in first)  # drawings
    assert any(name.startswith("photo_") for name in first)  # photographs


def test_it_says_where_the_pictures_are_what_they_show_and_what_to_type_next(shown: str) -> None:
    assert re.search(r"^104 pictures indexed in [\d.]+ s: /.*/images$", shown, re.MULTILINE)
    assert re.search(r"clip_003.jpg +a red sports car$", shown, re.MULTILINE)
    assert "the search never sees them" in shown
    ending = shown.split("Now your own pictures:")[1]
    assert "\n  mmsearch index ~/Pictures\n" in ending
    assert max(map(len, demo.NEXT.splitlines())) <= 100


@pytest.mark.parametrize(
    ("number", "ending"), [(signal.SIGINT, (130, b"mmsearch: stopped.\n")), (signal.SIGTERM, (143, b""))]
)
def test_an_interrupted_demo_leaves_nothing_behind(number: int, ending: tuple[int, bytes], tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from mmsearch.cli.main import main; sys.exit(main(['demo']))"],
        env=os.environ | {"PYTHONPATH": str(Path(mmsearch.__file__).parents[1]), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("mmsearch-demo-*/catalog.sqlite")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == ending
    assert list(tmp_path.iterdir()) == []


def test_the_demo_needs_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "shipped_folder", lambda _: tmp_path / "nowhere")
    assert main(["demo"]) == 4
    assert capsys.readouterr().err.startswith("mmsearch: ")
