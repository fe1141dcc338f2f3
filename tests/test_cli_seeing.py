"""`--html`, `--open`, `--preview` and pictures of the web through the real command line, on pictures of the demo."""

from __future__ import annotations

import re
import shutil
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mmsearch.cli.main import main
from mmsearch.settings import shipped_folder
from tests.terminal import at_terminal, sixel_terminal, text_of
from tests.test_gallery import Page

PENGUIN = "clip_060.jpg"
SHOWN = (PENGUIN, "clip_003.jpg", "clip_012.jpg", "clip_016.webp", "clip_045.jpg", "photo_coffee.jpg")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures/ and an indexed collection c/."""
    world = tmp_path_factory.mktemp("world")
    (world / "pictures").mkdir()
    for name in SHOWN:
        shutil.copy(shipped_folder("demo") / "images" / name, world / "pictures")
    assert main(["index", str(world / "pictures"), "-c", str(world / "c")]) == 0
    return world


@pytest.fixture
def run(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("MMSEARCH_COLLECTION", str(world / "c"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(arguments))
        return code, *capsys.readouterr()

    return run


def test_html(run: Run, world: Path) -> None:
    code, out, err = run("query", "a penguin", "--not", "coffee", "-k", "4", "--html", "a b.html")
    assert (code, out) == (0, "")
    assert "mmsearch: the answers are in a b.html.\n" in err
    page = Page(Path("a b.html").read_text("utf-8"))
    assert page.texts("h1") == ["a penguin, not coffee"]
    assert len(page.texts("p", "name")) == len(page.pictures()) == 4
    assert page.texts("p", "name")[0] == PENGUIN
    assert page.all("a", "picture")[0][0]["href"] == (world / "pictures" / PENGUIN).as_uri()
    assert page.texts("th")[:2] == ["a penguin", "not coffee"]
    assert run("query", "coffee", "--html", "a b.html")[0] == 0  # a page of ours may be replaced


def test_html_beside_other_output(run: Run) -> None:
    code, out, _ = run("query", "penguin", "-k", "1", "--paths", "--html", "x.html")
    assert (code, Path(out.rstrip("\n")).name) == (0, PENGUIN)
    assert Path("x.html").exists()


def test_html_replaces_nothing_else(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.html").write_text("<!doctype html><title>mine</title>")
    code, out, err = run("query", "penguin", "--html", "mine.html")
    assert (code, out) == (2, "")
    assert err == (
        "mmsearch: mine.html is there already and is no page of answers, so it is left alone; choose another name.\n"
    )
    assert (tmp_path / "mine.html").read_text() == "<!doctype html><title>mine</title>"
    assert run("query", "penguin", "--html", "no folder/x.html")[0] == 2


def test_open(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setenv("DISPLAY", ":7")
    monkeypatch.setattr(webbrowser, "open", lambda url: not opened.append(url))
    assert run("query", "penguin", "-k", "2", "--open")[:2] == (0, "")
    assert run("query", "penguin", "-k", "2", "--html", "x.html", "--open")[:2] == (0, "")
    assert opened[1] == (tmp_path / "x.html").as_uri()
    assert PENGUIN in Path(opened[0].removeprefix("file://")).read_text("utf-8")


def test_preview_needs_a_terminal(run: Run) -> None:
    code, out, err = run("query", "penguin", "--preview")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "--preview shows pictures in a terminal, and this is a pipe or a file" in err


def test_preview(world: Path) -> None:
    program = "import sys; from mmsearch.cli.main import main; sys.exit(main(sys.argv[1:]))"
    asking = ["query", "penguin", "-k", "2", "--preview", "-c", str(world / "c")]
    code, written = at_terminal([sys.executable, "-c", program, *asking], sixel_terminal, cell=(10, 20), folder=world)
    assert code == 0
    # Half blocks where the machine was too busy for the answer to come in time; test_pictures tells them apart.
    assert len(re.findall(rb'\x1bP[0-9;]*q"1;1;\d+;\d+', written)) == 2 or "▀".encode() in written
    lines = [line.split() for line in text_of(written).splitlines() if "pictures/" in line]
    assert [line[0] for line in lines] == ["1", "2"]
    assert lines[0][-1] == f"pictures/{PENGUIN}"


# --- pictures of the web ------------------------------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def web(world: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(world / "pictures"))) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_picture_of_the_web_finds_itself(run: Run, web: str) -> None:
    code, out, _ = run("query", "--like", f"{web}/{PENGUIN}", "--allow-private", "-k", "1", "--paths")
    assert (code, Path(out.rstrip("\n")).name) == (0, PENGUIN)


@pytest.mark.parametrize(
    ("place", "options", "said"),
    [
        (f"/{PENGUIN}", (), "127.0.0.1 is not a public address (`--allow-private` allows others)"),
        ("/gone.jpg", ("--allow-private",), "there is no such picture (HTTP 404)"),
        ("/", ("--allow-private",), "it is a web page; give the address of the picture itself"),
    ],
)
def test_pictures_of_the_web_that_cannot_be_used(
    run: Run, web: str, place: str, options: tuple[str, ...], said: str
) -> None:
    code, out, err = run("query", "--like", f"{web}{place}", *options)
    assert (code, out) == (2, "")
    assert err == f"mmsearch: {web}{place} cannot be fetched: {said}.\n"
