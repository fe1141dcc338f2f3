"""`--preview` and `--open`: pictures on pseudo-terminals that answer as kitty, a sixel terminal or a plain one does."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsearch.cli import seeing
from mmsearch.errors import UsageError
from mmsearch.types import Hit, SearchResult
from tests.conftest import paint
from tests.terminal import Answer, at_terminal, kitty, plain_terminal, silent, sixel_terminal, text_of
from tests.toy import COLOURS

# Runs `preview` on pictures that are given by path, with the share of them that is relevant.
PROGRAM = """
import sys, warnings
from pathlib import Path
warnings.simplefilter("error")
warnings.filterwarnings("ignore", "Image.Image.getdata", DeprecationWarning)  # textual-image 0.12, for Python 3.11
import os
from textual_image import _terminal
ask = _terminal.capture_terminal_response
def patiently(start_marker, end_marker, timeout=None):  # a busy machine must not decide what is drawn
    kind = "sixel" if start_marker == "\\x1b[?" else "kitty"
    return ask(start_marker, end_marker, 30 if kind in os.environ["ANSWERS"] else timeout)
_terminal.capture_terminal_response = patiently
from mmsearch.cli import seeing
from mmsearch.errors import MMSearchError
from mmsearch.types import Hit, SearchResult
paths = [Path(one) for one in sys.argv[2:]]
hits = tuple(Hit(n, n, str(n), path, (path,), None, None, 0.5 - n / 10, 1 - n * 0.3) for n, path in enumerate(paths, 1))
try:
    seeing.check_terminal()
    seeing.preview(SearchResult("lite", True, hits, relevant=int(sys.argv[1])))
except MMSearchError as error:
    sys.exit(f"mmsearch: {error}")
"""


def preview(
    paths: Sequence[Path],
    answer: Answer,
    *,
    relevant: int = 0,
    size: tuple[int, int] = (40, 80),
    cell: tuple[int, int] = (0, 0),
    folder: Path | None = None,
    environment: dict[str, str] | None = None,
) -> tuple[int, bytes]:
    """These pictures, previewed on such a terminal -> exit code, everything that was written."""
    command = [sys.executable, "-c", PROGRAM, str(relevant), *paths]
    answers = {kitty: "kitty sixel", sixel_terminal: "sixel", plain_terminal: "sixel"}.get(answer, "")
    environment = {"ANSWERS": answers, **(environment or {})}
    return at_terminal(command, answer, size=size, cell=cell, folder=folder, environment=environment)


@pytest.fixture
def painted(tmp_path: Path) -> list[Path]:
    return [paint(tmp_path / "pictures" / f"{name}.png", name, size=(60, 40)) for name in ("red", "blue")]


def lines_of(written: bytes) -> list[str]:
    return [line.rstrip() for line in text_of(written).splitlines() if line.strip()]


def test_half_blocks_where_there_is_nothing_better(painted: list[Path]) -> None:
    code, written = preview(painted, plain_terminal, relevant=1)
    assert code == 0
    drawn, after = written.split(b"less likely from here on")
    for part, colour in ((drawn, "red"), (after, "blue")):
        pixels = re.findall(rb"38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m\xe2\x96\x80", part)
        # 16 rows of 48 columns: 60 x 40 pixels, where a cell is twice as high as it is wide
        assert len(pixels) == 16 * 48
        mean = np.array(pixels, float).reshape(-1, 2, 3).mean((0, 1))
        assert np.abs(mean - COLOURS[colour]).max() < 4
    assert len(re.findall(rb"\xe2\x96\x80", written)) == 2 * 16 * 48


def test_sixel(painted: list[Path]) -> None:
    code, written = preview(painted, sixel_terminal, cell=(10, 20))
    assert code == 0
    pictures = re.findall(rb'\x1bP[0-9;]*q"1;1;(\d+);(\d+)(.*?)\x1b\\', written, re.DOTALL)
    assert [(int(width), int(height)) for width, height, _ in pictures] == [(480, 320)] * 2
    for (_, _, data), colour in zip(pictures, ("red", "blue"), strict=True):
        palette = np.array(re.findall(rb"#\d+;2;(\d+);(\d+);(\d+)", data), float) * 2.55
        assert np.abs(palette.mean(0) - COLOURS[colour]).max() < 25
    assert "\N{UPPER HALF BLOCK}".encode() not in written


def test_kitty(painted: list[Path]) -> None:
    code, written = preview(painted, kitty, cell=(10, 20))
    assert code == 0
    sent: dict[bytes, bytes] = {}
    for settings, payload in re.findall(rb"\x1b_G([^;\x1b]*);([^\x1b]*)\x1b\\", written):
        values = dict(one.split(b"=") for one in settings.split(b","))
        if values.get(b"f") == b"100":
            sent[values[b"i"]] = sent.get(values[b"i"], b"") + payload
    assert len(sent) == 2
    for data, colour in zip(sent.values(), ("red", "blue"), strict=True):
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert picture.size == (480, 320)
        assert np.abs(np.asarray(picture.convert("RGB"), float).mean((0, 1)) - COLOURS[colour]).max() < 4


@pytest.mark.parametrize("terminal", [plain_terminal, sixel_terminal, kitty])
def test_each_picture_has_its_line_beneath(painted: list[Path], terminal: Answer) -> None:
    code, written = preview(painted, terminal, relevant=1, cell=(10, 20), folder=painted[0].parent.parent)
    assert code == 0
    first, line, second, last = lines_of(written)
    assert first.split() == ["1", "70%", "0.400", "#1", "pictures/red.png"]
    assert "─ less likely from here on ─" in line
    assert second.split() == ["2", "40%", "0.300", "#2", "pictures/blue.png"]
    assert last == "1 relevant of 2 shown"
    assert painted[0].as_uri().encode() in written  # a link
    picture = re.search(rb"\x1bP|\x1b_G[^;]*f=100|\xe2\x96\x80", written)
    assert picture
    assert picture.start() < written.index(b"red.png") < written.index(b"blue.png")


def test_a_terminal_that_does_not_answer_gets_half_blocks(painted: list[Path]) -> None:
    code, written = preview(painted[:1], silent)
    assert code == 0
    assert "\N{UPPER HALF BLOCK}".encode() in written
    assert "Traceback" not in text_of(written)


@pytest.mark.parametrize("size", [(40, 20), (5, 80), (3, 8)])
def test_small_terminals(painted: list[Path], size: tuple[int, int]) -> None:
    code, written = preview(painted, plain_terminal, size=size)
    assert code == 0
    rows = [line.count("▀") for line in written.decode().splitlines() if "▀" in line]
    assert 0 < max(rows) <= size[1]
    assert len(rows) <= 2 * max(1, size[0] - 2)
    assert "".join(str(painted[1]).split()) in "".join(text_of(written).split())  # folded, never cut off


def test_pictures_that_cannot_be_shown_say_why(painted: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(painted[0].read_bytes()[:100])
    code, written = preview([tmp_path / "gone.png", tmp_path / "broken.png", painted[0]], plain_terminal)
    assert code == 0
    lines = lines_of(written)
    assert "(cannot be shown: it is not there)" in lines
    assert "(cannot be shown: the PNG is truncated)" in lines
    assert "▀".encode() in written


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"NO_COLOR": "1"}, "needs colours, and NO_COLOR forbids them"),
        ({"TERM": "dumb"}, "TERM says that this one has none"),
        ({"TERM": ""}, "TERM says that this one has none"),
    ],
)
def test_terminals_without_colours(painted: list[Path], environment: dict[str, str], said: str) -> None:
    code, written = preview(painted, plain_terminal, environment=environment)
    assert code == 1
    assert said in text_of(written)
    assert "--html FILE writes a page with the pictures" in text_of(written)
    assert len(lines_of(written)) == 1
    assert b"\x1b" not in written


def test_a_terminal_without_a_size(painted: list[Path]) -> None:
    code, written = preview(painted, plain_terminal, size=(0, 0))
    assert code == 1
    assert "needs to know how large the terminal is" in text_of(written)


def test_a_pipe_is_no_terminal(painted: list[Path]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "0", *painted],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "ANSWERS": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "--preview shows pictures in a terminal, and this is a pipe or a file" in done.stderr


# --- opening them in a browser ------------------------------------------------------------------------------------


@pytest.fixture
def answers(painted: list[Path]) -> SearchResult:
    return SearchResult("lite", True, (Hit(1, 1, "1", painted[0], (painted[0],), None, None, 0.5),))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What the browser is asked to open."""
    seen: list[str] = []
    monkeypatch.setenv("DISPLAY", ":7")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(webbrowser, "open", lambda url: not seen.append(url))
    return seen


def test_a_page_is_written_and_opened(
    answers: SearchResult,
    opened: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    seeing.write_gallery(Path("a b.html"), answers, "red")
    seeing.open_gallery(answers, "red", Path("a b.html"))
    assert opened == [(tmp_path / "a b.html").as_uri()]
    assert "red.png" in (tmp_path / "a b.html").read_text()
    out, err = capsys.readouterr()
    assert (out, err) == ("", "mmsearch: the answers are in a b.html.\n")


def test_a_page_of_the_moment_is_for_one_person(answers: SearchResult, opened: list[str], tmp_path: Path) -> None:
    seeing.open_gallery(answers, "red", None)
    seeing.open_gallery(answers, "blue", None)
    assert len(set(opened)) == 1
    page = Path(opened[0].removeprefix("file://"))
    assert '<h1 dir="auto">blue</h1>' in page.read_text()
    assert page.parent.stat().st_mode & 0o077 == 0
    assert os.listdir(page.parent) == [page.name]


@pytest.mark.parametrize("how", ["no screen", "no browser"])
def test_without_a_browser_a_line_says_where_the_page_is(
    how: str,
    answers: SearchResult,
    opened: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if how == "no screen":
        monkeypatch.setattr(sys, "platform", "linux")
        for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
            monkeypatch.delenv(name, raising=False)
    else:
        monkeypatch.setattr(webbrowser, "open", lambda url: False)
    seeing.open_gallery(answers, "red", None)
    assert opened == []
    place = re.fullmatch(
        r"mmsearch: there is no browser to open here; the answers are in (.*)\.\n", capsys.readouterr().err
    )
    assert place
    assert "red.png" in Path(place[1]).read_text()


def test_a_cache_that_cannot_be_made(
    answers: SearchResult, opened: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="say where with --html FILE"):
        seeing.open_gallery(answers, "red", None)
