"""Verification: it finds what is wrong, and nothing else, also while others write."""

from __future__ import annotations

import shutil
import sqlite3
import zlib
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest

from mmsearch import Engine, SearchResult, verifying
from mmsearch.encoders import lite
from mmsearch.searching import search
from mmsearch.vectors import generations
from tests.conftest import paint
from tests.toy import ToyEncoder


def change(engine: Engine, statement: str, *values: object) -> None:
    """Write into the catalog behind everybody's back."""
    connection = sqlite3.connect(engine.folder / "catalog.sqlite")
    with connection:
        connection.execute(statement, values)
    connection.close()


def test_it_counts_what_it_compared(engine: Engine, images: Path) -> None:
    (images / "red.txt").write_text("a red wall")
    engine.index(images)
    found = engine.verify()
    assert (found.sound, found.checked_vectors, found.checked_files, found.problems) == (True, 12, 10, ())


def test_a_probe_that_is_removed_meanwhile_is_no_problem(
    engine: Engine, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.index(images)

    def late(*arguments: Any) -> SearchResult:
        if engine.status().roots:
            engine.remove_root(images)
        return search(*arguments)

    monkeypatch.setattr(verifying, "search", late)
    assert engine.verify().problems == ()
    assert engine.status().images == 0


@pytest.mark.parametrize(("failures", "problems"), [(verifying.ATTEMPTS - 1, 0), (verifying.ATTEMPTS, 1)])
def test_a_probe_must_fail_again(engine: Engine, monkeypatch: pytest.MonkeyPatch, failures: int, problems: int) -> None:
    engine.add_vectors(["a"], np.ones((1, 3)), space="own")
    calls = 0

    def faulty(*arguments: Any) -> SearchResult:
        nonlocal calls
        calls += 1
        return SearchResult("own", True, ()) if calls <= failures else search(*arguments)

    monkeypatch.setattr(verifying, "search", faulty)
    found = engine.verify().problems
    assert len(found) == problems
    assert all("does not find itself in the index of own (images)" in line for line in found)


def test_an_index_that_is_replaced_meanwhile_is_no_problem(
    engine: Engine, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.index(images)
    folder = engine.folder / "index" / "1"
    old = next(folder.iterdir())
    opened = generations.open_generation

    def late(path: Path, **facts: Any) -> generations.Generation:
        if old.exists():
            monkeypatch.setattr(generations, "open_generation", opened)
            for number in range(20):
                paint(images / f"{number}.png", "green", number + 1)
            engine.index()
            shutil.rmtree(old)
        return opened(path, **facts)

    monkeypatch.setattr(generations, "open_generation", late)
    found = engine.verify()
    assert found.problems == ()
    assert not old.exists()


def test_an_index_that_is_damaged_or_of_other_vectors(engine: Engine, images: Path) -> None:
    engine.index(images)
    row = np.zeros(13, "<f2")
    row[0] = 1
    change(engine, "UPDATE vector SET data = ?, crc = ? WHERE id = 3", row.tobytes(), zlib.crc32(row.tobytes()))
    assert ["holds other vectors than the catalog" in line for line in engine.verify().problems] == [True]
    change(engine, "DELETE FROM vector WHERE id = 3")
    assert engine.verify().sound  # what was deleted since may be in the index
    segment = next((engine.folder / "index" / "1").glob("*/segment-*.faiss"))
    data = bytearray(segment.read_bytes())
    data[-9] ^= 1
    segment.write_bytes(data)
    assert ["checksum" in line or "damaged" in line for line in engine.verify().problems] == [True]


def test_vectors_that_cannot_be_right(engine: Engine, images: Path) -> None:
    engine.index(images)
    short = b"\0" * 8
    change(engine, "UPDATE vector SET data = ?, crc = ? WHERE id = 3", short, zlib.crc32(short))
    assert ["(ids 3)" in line for line in engine.verify().problems] == [True]


def test_a_vector_that_points_nowhere(engine: Engine) -> None:
    engine.add_vectors(["a", "b"], np.ones((2, 3)), space="own")
    zero = b"\0" * 6
    change(engine, "UPDATE vector SET data = ?, crc = ? WHERE id = 2", zero, zlib.crc32(zero))
    assert ["1 stored vectors are zero and point nowhere (ids 2)" in line for line in engine.verify().problems] == [
        True
    ]


def test_it_is_sound_while_others_write(tmp_path: Path, images: Path) -> None:
    done = Event()

    def write() -> None:
        with Engine.open(tmp_path / "c", model=ToyEncoder()) as other:
            for number in range(60):
                key = f"key {number % 7}"
                other.add(key, np.full((4, 4, 3), number, np.uint8), {"caption": f"text {number}"})
                if number % 3 == 0:
                    other.remove([f"key {(number + 3) % 7}"])
                if number % 10 == 0:
                    other.index()
        done.set()

    with Engine.open(tmp_path / "c", model=ToyEncoder()) as engine:
        engine.index(images)
        writer = Thread(target=write)
        writer.start()
        problems: list[str] = []
        while not done.is_set() and writer.is_alive():
            problems += engine.verify().problems
        writer.join()
        assert done.is_set()
        assert problems == []
        assert engine.verify().sound


def test_damaged_weights_are_a_problem(engine: Engine, tmp_path: Path) -> None:
    shutil.copytree(lite.FOLDER, tmp_path / "model")
    with Engine.open(tmp_path / "c", model=str(tmp_path / "model")) as mine:
        assert mine.verify().sound
        path = tmp_path / "model" / "tokenizer.json"
        data = bytearray(path.read_bytes())
        data[100] ^= 1
        path.write_bytes(data)
        assert "tokenizer.json is damaged" in mine.verify().problems[0]
