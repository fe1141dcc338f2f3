"""Text inside pictures: what is read when, what a failure costs, and the real reader where it is installed."""

from __future__ import annotations

import builtins
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

import mmsearch
from mmsearch import Engine, reading_text
from mmsearch.catalog import texts
from mmsearch.cli.main import main
from mmsearch.errors import MissingExtraError, ModelError, PictureError
from mmsearch.reading_text import RapidReader
from mmsearch.settings import Limits
from mmsearch.types import IndexReport, Progress
from tests.conftest import paint
from tests.toy import ToyEncoder


class FakeReader:
    """Reads the mean colour, and counts."""

    def __init__(self, name: str = "fake 1", *, fails: Callable[[Image.Image], bool] = lambda _: False) -> None:
        self.name, self.fails = name, fails
        self.sizes: list[tuple[int, int]] = []

    def read_text(self, picture: Image.Image) -> str:
        assert picture.mode == "RGB"
        if self.fails(picture):
            raise PictureError("it is too beautiful")
        self.sizes.append(picture.size)
        red, green, blue = np.asarray(picture).reshape(-1, 3).mean(0)
        return "reddish" if red > green + 50 and red > blue + 50 else ""


def stored(engine: Engine) -> dict[str, tuple[str, str]]:
    """File name -> (text, reader)."""
    query = """SELECT file.relative, picture_text.text, picture_text.read_by FROM picture_text
               JOIN file ON file.image = picture_text.image"""
    with engine._catalog.reading() as connection:
        return {Path(r[0].decode()).name: (r[1], r[2]) for r in connection.exec_driver_sql(query)}


def found_by(engine: Engine, word: str) -> int:
    with engine._catalog.reading() as connection:
        return len(texts.ranked(connection, "images", f"inside: {word}", None, 100))


def test_pictures_are_read_once(engine: Engine, images: Path) -> None:
    reader = FakeReader()
    report = engine.index(images, ocr=reader)
    assert len(reader.sizes) == 10
    assert report.texts == 3 + 1  # orange is reddish, too
    assert stored(engine)["red.png"] == ("reddish", "fake 1")
    assert stored(engine)["blue.png"] == ("", "fake 1")
    assert found_by(engine, "reddish") == 4
    paint(images / "new.png", "red", 50)
    assert engine.index(ocr=reader).texts == 1
    assert len(reader.sizes) == 11
    assert engine.index().texts == 0
    other = FakeReader("fake 2")
    engine.index(ocr=other)
    assert len(other.sizes) == 11
    assert {name for _, name in stored(engine).values()} == {"fake 2"}


def test_a_failing_picture_costs_only_itself(engine: Engine, images: Path) -> None:
    reader = FakeReader(fails=lambda picture: np.asarray(picture)[..., 2].mean() > 200)  # blue and white
    report = engine.index(images, ocr=reader)
    assert stored(engine)["blue.png"] == ("", "fake 1")
    assert stored(engine)["red.png"] == ("reddish", "fake 1")
    assert len(stored(engine)) == 10
    (notice,) = report.notices
    assert notice.startswith("The text inside 2 pictures could not be read, such as ")
    assert "it is too beautiful" in notice
    assert engine.index(ocr=reader).notices == []


def test_large_pictures_are_read_at_a_bounded_size(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    Image.new("RGB", (5000, 2400), "red").save(tmp_path / "p" / "large.png")
    paint(tmp_path / "p" / "small.png", "red", size=(200, 90))
    reader = FakeReader()
    engine.index(tmp_path / "p", ocr=reader)
    assert sorted(reader.sizes) == [(200, 90), (1600, 768)]


def test_what_is_away_or_changed_is_read_later(engine: Engine, images: Path) -> None:
    engine.index(images)
    (images / "red.png").rename(images.parent / "red.png")
    paint(images / "blue.png", "green", 4)
    engine.add("key", (images / "green.png").read_bytes() + b"\0")  # has no file of its own
    reader = FakeReader()
    catalog = engine._catalog
    result = reading_text.read_waiting(catalog, reader, Limits(), lambda _: None, Event())
    assert (result.read, result.failures) == (8, [])
    assert set(stored(engine)) == {path.name for path in images.rglob("*.*")} - {"blue.png"}
    (images.parent / "red.png").rename(images / "red.png")
    engine.index(ocr=reader)
    assert stored(engine)["red.png"][0] == "reddish"


def test_progress_and_stopping(engine: Engine, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_text, "IMAGES_PER_COMMIT", 4)
    stop = Event()
    seen: list[int] = []

    def on_progress(progress: Progress) -> None:
        if progress.stage == "reading":
            assert progress.total == 10
            seen.append(progress.done)
            if progress.done == 6:
                stop.set()

    report = engine.index(images, ocr=FakeReader(), on_progress=on_progress, cancel=stop)
    assert report.cancelled
    assert seen == [1, 2, 3, 4, 5, 6]
    assert len(stored(engine)) == 6
    assert engine.status().spaces[0].current  # the run itself was whole before
    reader = FakeReader()
    engine.index(ocr=reader)
    assert len(reader.sizes) == 4


def test_killed_and_started_again(images: Path, tmp_path: Path) -> None:
    program = f"""
import os, signal
from mmsearch import Engine, reading_text
from tests.test_reading_text import FakeReader
from tests.toy import ToyEncoder
reading_text.IMAGES_PER_COMMIT = 4
def on_progress(progress):
    if progress.stage == "reading" and progress.done == 7:
        os.kill(os.getpid(), signal.SIGKILL)
with Engine.open({str(tmp_path / "c")!r}, model=ToyEncoder()) as engine:
    engine.index({str(images)!r}, ocr=FakeReader(), on_progress=on_progress)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=Path(mmsearch.__file__).parents[1], check=False)
    assert done.returncode == -9
    reader = FakeReader()
    with Engine.open(tmp_path / "c", model=ToyEncoder()) as engine:
        assert len(stored(engine)) == 4
        engine.index(ocr=reader)
        assert len(reader.sizes) == 6
        with Engine.open(tmp_path / "fresh", model=ToyEncoder()) as fresh:
            fresh.index(images, ocr=FakeReader())
            assert stored(engine) == stored(fresh)


def test_an_image_removed_meanwhile_is_passed_over(engine: Engine, images: Path) -> None:
    engine.index(images)

    def remove(picture: Image.Image) -> bool:
        if picture.size == (40, 30) and not reader.sizes:
            for path in images.glob("*.png"):
                path.unlink()
            with Engine.open(engine.folder, model=ToyEncoder()) as other:
                other.index(prune=True)
        return False

    reader = FakeReader(fails=remove)
    reading_text.read_waiting(engine._catalog, reader, Limits(), lambda _: None, Event())
    assert set(stored(engine)) <= {"red one.jpg", "red two.webp"}
    assert engine.verify().sound


def test_without_the_extra_nothing_is_begun(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "rapidocr":
            raise ImportError("No module named 'rapidocr'")
        return real(name, *arguments, **options)

    monkeypatch.delitem(sys.modules, "rapidocr", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"mmsearch\[ocr\]"):
        RapidReader()
    assert main(["index", str(images), "--ocr", "-c", str(tmp_path / "c")]) == 4
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "mmsearch[ocr]" in err
    assert not (tmp_path / "c").exists()


def test_the_report_says_in_how_many_there_was_text() -> None:
    from mmsearch.render import json, report

    done = IndexReport("toy", new=3, texts=2)
    assert "3 new, 0 unchanged, text in 2 pictures;" in report.index_report(done)
    assert json.index_report(done)["texts"] == 2


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("Hello", True),
        ("4711", True),
        ("A", False),
        ("O -", False),
        ("a b c", False),
        ("B2", True),
        ("東", True),
        ("***", False),
    ],
)
def test_what_keywords_could_find(line: str, kept: bool) -> None:
    assert reading_text._is_word(line) is kept


# --- the real reader ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rapid() -> RapidReader:
    pytest.importorskip("rapidocr", reason="needs the extra ocr")
    return RapidReader()


def draw(*lines: str, size: tuple[int, int] = (700, 300), angle: int = 0) -> Image.Image:
    picture = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        pen.text((40, 40 + 70 * number), line, "black", font=ImageFont.load_default(40))
    return picture.rotate(angle, expand=True, fillcolor="white")


def no_network(*_: object) -> None:
    raise AssertionError("the reader used the network")


def test_real_text_is_read_without_network(rapid: RapidReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    assert rapid.read_text(draw("Harbour festival", "Saturday 14 June")).splitlines() == [
        "Harbour festival",
        "Saturday 14 June",
    ]
    assert set(rapid.read_text(draw("Harbour festival", "Saturday 14 June", angle=180)).splitlines()) == {
        "Harbour festival",
        "Saturday 14 June",
    }


@pytest.mark.parametrize("size", [(1, 1), (1600, 2), (3, 700), (40, 30)])
def test_pictures_without_text(rapid: RapidReader, size: tuple[int, int]) -> None:
    assert rapid.read_text(Image.new("RGB", size, "green")) == ""


def test_strips_are_read_without_being_blown_up(rapid: RapidReader, monkeypatch: pytest.MonkeyPatch) -> None:
    strip = Image.new("RGB", (60, 1600), "white")
    strip.paste(draw("Up and away", size=(600, 120)).crop((0, 30, 600, 90)).rotate(90, expand=True), (0, 400))
    seen: list[tuple[int, ...]] = []
    engine = rapid._engine
    monkeypatch.setattr(rapid, "_engine", lambda pixels: (seen.append(pixels.shape), engine(pixels))[1])
    assert rapid.read_text(strip) == "Up and away"
    assert seen == [(1600, 400, 3)]


def test_the_reader_is_silent(rapid: RapidReader, capfd: pytest.CaptureFixture[str]) -> None:
    rapid.read_text(Image.new("RGB", (60, 60)))
    assert capfd.readouterr() == ("", "")


def test_a_trouble_of_the_reader_is_the_pictures(rapid: RapidReader, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(_: object) -> None:
        raise RuntimeError("inside")

    monkeypatch.setattr(rapid, "_engine", breaks)
    with pytest.raises(PictureError, match="RapidOCR cannot read it"):
        rapid.read_text(draw("x"))


def test_models_that_are_not_there_are_not_fetched(rapid: RapidReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reading_text.MODELS, "Rec", "another.onnx")
    with pytest.raises(ModelError, match=r"does not bring the model another\.onnx along"):
        RapidReader()


def test_index_ocr_on_the_command_line(rapid: RapidReader, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, collection = tmp_path / "images", tmp_path / "c"
    folder.mkdir()
    draw("Lost: a grey parrot").save(folder / "poster.png")
    paint(folder / "plain.png", "green", size=(60, 60))
    assert main(["index", str(folder), "--ocr", "-c", str(collection)]) == 0
    out, err = capsys.readouterr()
    assert "2 new, 0 unchanged, text in 1 picture;" in out
    assert err == ""
    assert main(["query", "parrot", "--keywords", "--paths", "-c", str(collection)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(folder / "poster.png")]
