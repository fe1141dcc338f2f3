"""The doctor: each thing that can be wrong is a finding with its remedy, never a crash; nothing is changed."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import sqlite3
import sys
import tomllib
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mmsearch import Engine, checkup, installation
from mmsearch.checkup import check
from mmsearch.cli.main import main
from mmsearch.encoders import lite
from mmsearch.installation import Extra
from mmsearch.types import Finding
from tests.conftest import paint
from tests.toy import ToyEncoder

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """`main` answers SIGTERM in its own way."""
    import signal

    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def folder(tmp_path: Path, images: Path) -> Path:
    """A sound collection of ten pictures, made by the toy encoder."""
    with Engine.open(tmp_path / "c", model=ToyEncoder()) as engine:
        engine.index(images)
    return tmp_path / "c"


def wrong(folder: Path, area: str, *, toy: bool = True) -> list[tuple[str, str, str]]:
    """(state, message, remedy) of what is not in order in an area."""
    found = check(folder, ToyEncoder() if toy else None)
    return [(one.state, one.message, one.remedy or "") for one in found if one.area == area and one.state != "ok"]


def run_sql(folder: Path, *statements: str) -> None:
    with sqlite3.connect(folder / "catalog.sqlite") as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


# --- the collection -----------------------------------------------------------------------------------------------


def test_a_sound_collection(folder: Path) -> None:
    before = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    with Engine.open(folder, model=ToyEncoder(), create=False) as engine:
        found = engine.check()
    assert [one for one in found if one.state != "ok"] == []
    assert list(dict.fromkeys(one.area for one in found)) == [
        *("collection", "index", "disk", "model", "extras", "versions")
    ]
    messages = [one.message for one in found]
    assert f"{folder} (pictures: 10, captions: 0, folders: 1)" in messages
    assert "toy, images: 10 vectors; newer than its flat index: 0, deleted since: 0" in messages
    assert any("`mmsearch verify`" in one for one in messages)
    assert "toy, which queries use, encodes texts" in "".join(messages)
    changed = [path.name for path, data in before.items() if path.read_bytes() != data]
    assert changed in ([], ["write.lock"])  # which says who held it last


def test_no_collection_yet(tmp_path: Path) -> None:
    found = check(tmp_path / "none")
    assert wrong(tmp_path / "none", "collection") == [
        (
            "warning",
            f"There is no collection at {tmp_path}/none",
            "make it with `mmsearch index FOLDER` or name another with -c",
        )
    ]
    assert all(one.state != "problem" for one in found)
    assert {one.area for one in found} == {"collection", "disk", "model", "extras", "versions"}
    assert not (tmp_path / "none").exists()


def test_an_empty_collection(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "c", model=ToyEncoder()) as engine:
        engine.add_vectors(["a"], np.ones((1, 3)), space="own")
        engine.remove(["a"])
    assert wrong(tmp_path / "c", "collection") == [
        ("warning", "it holds no pictures", "`mmsearch index FOLDER` adds some")
    ]


def test_folders_files_and_pictures(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (images / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    other = paint(tmp_path / "other" / "red.png", "red", 5).parent
    with Engine.open(tmp_path / "c", model=ToyEncoder()) as engine:
        engine.index([images, other])
        (images / "red.png").unlink()
        engine.index()
    other.rename(tmp_path / "elsewhere")
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != os.fsencode(images) and allowed(path, mode))
    assert wrong(tmp_path / "c", "collection") == [
        ("warning", f"the folder {images} cannot be read", "change its permissions"),
        (
            "warning",
            f"the folder {other} is away; files there: 1",
            f"mount its disk, or: mmsearch roots relocate {other} NEW_FOLDER",
        ),
        ("warning", "files that could not be indexed: 1", "`mmsearch status` lists them with the reasons"),
        (
            "warning",
            "files that are gone, or were left out at the last run: 1",
            "`mmsearch index --prune` forgets them",
        ),
    ]


@pytest.mark.parametrize(
    ("number", "message", "remedy"),
    [
        ("9999", "was written by a newer mmsearch (schema 9999, this one reads ", "update mmsearch to use it"),
        ("0000", "was written by an older mmsearch (schema 0000, this one reads ", "`mmsearch index` upgrades it"),
    ],
)
def test_other_schemas(folder: Path, number: str, message: str, remedy: str) -> None:
    run_sql(folder, f"UPDATE alembic_version SET version_num = '{number}'")
    (found,) = wrong(folder, "collection")
    assert (found[0], found[2]) == ("problem", remedy)
    assert message in found[1]


@pytest.mark.parametrize("damage", ["garbage", "pages", "table", "another"])
def test_damaged_catalogs(folder: Path, damage: str) -> None:
    path = folder / "catalog.sqlite"
    if damage == "garbage":
        path.write_bytes(b"not a database at all, but long enough to look like one" * 40)
    elif damage == "pages":
        data = bytearray(path.read_bytes())
        for place in range(4096, len(data), 4096):
            data[place : place + 40] = b"\xff" * 40
        path.write_bytes(data)
    elif damage == "table":
        run_sql(folder, "DROP TABLE caption")
    else:
        path.unlink()
        sqlite3.connect(path).executescript("CREATE TABLE a (b)")
    (found,) = wrong(folder, "collection")
    assert found[0] == "problem"
    assert found[2]
    assert "\n" not in found[1]
    assert all(one.state != "problem" for one in check(folder) if one.area != "collection")


# --- the disk -----------------------------------------------------------------------------------------------------

Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.mark.parametrize(("free", "state"), [(100, "problem"), (10_000, "warning"), (10**9, None)])
def test_room_for_a_new_index(folder: Path, free: int, state: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """10 vectors of 13 numbers of 2 bytes take 260 bytes."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, free))
    found = wrong(folder, "disk")
    assert [one[0] for one in found] == ([state] if state else [])
    assert not found or (found[0][1].endswith("a new index takes 0.0 MB") and "free some space" in found[0][2])


def test_a_place_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder and allowed(path, mode))
    message = f"{folder} cannot be written: a collection there can be searched, but not made or changed"
    assert wrong(folder, "disk") == [("warning", message, "change its permissions, or index as the user who owns it")]


def test_a_file_system_that_cannot_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    (found,) = wrong(folder, "disk")
    assert found[0] == "problem"
    assert "cannot lock files" in found[1]
    assert found[2] == "put the collection on a local disk (-c FOLDER)"


def test_network_file_systems(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spaced = tmp_path / "a share"
    spaced.mkdir()
    listed = str(tmp_path).replace(" ", "\\040")
    (tmp_path / "mounts").write_text(
        "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
        f"36 22 0:32 / {listed} rw shared:1 - tmpfs tmpfs rw\n"
        f"37 36 0:33 / {listed}/a\\040share rw shared:2 - nfs4 server:/share rw\n"
    )
    monkeypatch.setattr(checkup, "MOUNTS", tmp_path / "mounts")
    assert wrong(folder, "disk") == []
    (found,) = wrong(spaced / "c", "disk")
    assert found[:2] == ("warning", f"{spaced} is on a network file system (nfs4); databases can be damaged there")
    monkeypatch.setattr(checkup, "MOUNTS", tmp_path / "no such file")
    assert wrong(spaced / "c", "disk") == []


def test_the_folder_for_collections_with_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "data_folder", lambda: tmp_path / "data" / "mmsearch")
    (tmp_path / "data" / "mmsearch" / "collections" / "x").mkdir(parents=True)
    (tmp_path / "data" / "mmsearch" / "collections" / "x" / "catalog.sqlite").touch()
    assert [one.message for one in installation.data()] == [
        f"collections with a name are kept in {tmp_path}/data/mmsearch (now: 1)"
    ]
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert [(one.state, "cannot be written" in one.message) for one in installation.data()] == [("warning", True)]


# --- the index ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["cut", "header", "gone", "foreign"])
def test_damaged_indexes(folder: Path, damage: str) -> None:
    generation = next((folder / "index" / "1").glob("images-*"))
    if damage == "cut":
        largest = max(generation.iterdir(), key=lambda path: path.stat().st_size)
        largest.write_bytes(largest.read_bytes()[:-1])
    elif damage == "header":
        (generation / "generation.json").write_text("{}")
    elif damage == "gone":
        shutil.rmtree(generation)
    else:
        run_sql(folder, "UPDATE space SET fingerprint = 'other'")
    ((state_, message, remedy),) = wrong(folder, "index")
    assert (state_, remedy) == ("problem", "`mmsearch index` rebuilds it from the catalog")
    assert message.startswith(f"The vector index {generation} cannot be used: ")


def test_an_index_that_lags_behind(folder: Path) -> None:
    with Engine.open(folder, model=ToyEncoder()) as engine:
        engine.add_vectors(["new"], np.ones((1, 13)))
        assert wrong(folder, "index") == []  # a tenth is scanned without a thought
        engine.add_vectors(["newer"], -np.ones((1, 13)))
    anew = "`mmsearch index` builds it anew, and searches become quicker"
    assert wrong(folder, "index") == [
        ("warning", "toy, images: 12 vectors; newer than its flat index: 2, deleted since: 0", anew)
    ]
    run_sql(folder, "DELETE FROM vector WHERE id <= 3", "DELETE FROM vector WHERE id > 10")
    assert wrong(folder, "index") == [
        ("warning", "toy, images: 7 vectors; newer than its flat index: 0, deleted since: 3", anew)
    ]


def test_a_model_that_is_not_complete(folder: Path) -> None:
    run_sql(folder, "UPDATE space SET state = 'building', current = 0", "DELETE FROM vector WHERE id IN (1, 2)")
    assert wrong(folder, "index") == [
        (
            "warning",
            "no model's vectors are complete yet, so there is nothing to search",
            "`mmsearch index` goes on where it stopped",
        ),
        (
            "warning",
            "toy: not complete yet; pictures to encode: 2",
            "`mmsearch index --model toy` goes on where it stopped",
        ),
    ]


# --- models -------------------------------------------------------------------------------------------------------


def test_a_model_that_is_not_here(folder: Path) -> None:
    ((state_, message, remedy),) = wrong(folder, "model", toy=False)
    assert state_ == "problem"
    assert message.startswith("There is no model 'toy'")
    assert remedy == "`mmsearch models` lists them"
    run_sql(folder, "UPDATE space SET current = 0")
    assert [one[0] for one in wrong(folder, "model", toy=False)] == ["warning"]  # no query needs it


def test_vectors_of_other_weights_and_of_an_application(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "c") as engine:
        engine.add("x", np.zeros((20, 20, 3), np.uint8))
        engine.add_vectors(["x"], np.ones((1, 3)), space="own")
    assert wrong(tmp_path / "c", "model") == []
    assert "own: its vectors come from an application, and are searched by it" in [
        one.message for one in check(tmp_path / "c")
    ]
    run_sql(tmp_path / "c", "UPDATE space SET fingerprint = 'other' WHERE encoder = 'lite'")
    assert wrong(tmp_path / "c", "model") == [
        (
            "problem",
            "lite: the vectors were made by other weights than the ones here",
            "`mmsearch index --model lite` encodes the pictures again",
        )
    ]


def test_damaged_and_missing_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(lite.FOLDER, tmp_path / "lite")
    monkeypatch.setattr(lite, "FOLDER", tmp_path / "lite")
    weights = tmp_path / "lite" / "text.onnx"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    ((state_, message, remedy),) = wrong(tmp_path / "none", "model")
    assert (state_, remedy) == ("problem", "install mmsearch again, or copy the model's folder anew")
    assert "text.onnx is damaged: its checksum is not the one in encoder.json" in message
    weights.unlink()
    ((state_, message, _),) = wrong(tmp_path / "none", "model")
    assert (state_, "text.onnx is missing" in message) == ("problem", True)


def test_an_encoder_that_gives_no_vectors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyEncoder, "encode_texts", lambda *_: np.full((1, 13), np.nan, np.float32))
    ((state_, message, _),) = wrong(folder, "model")
    assert (state_, message) == ("problem", "toy: a text became no vector of 13 numbers and unit length")

    def broken(*_: object) -> None:
        raise ImportError("libonnx.so: cannot open shared object file")

    monkeypatch.setattr(ToyEncoder, "encode_texts", broken)
    assert wrong(folder, "model") == [("problem", "libonnx.so: cannot open shared object file", "")]


# --- the installation ---------------------------------------------------------------------------------------------


def test_the_extras_are_those_that_can_be_installed() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    declared = {}
    for extra, packages in project["optional-dependencies"].items():
        if extra not in ("all", "dev"):
            names = {line.split(">")[0] for line in packages}
            declared[extra] = {name for name in names if not name.startswith("mmsearch[")}
    assert {name: set(extra.packages) for name, extra in installation.EXTRAS.items()} == declared
    assert set(installation.LIBRARIES) <= {line.split(">")[0] for line in project["dependencies"]}


def test_extras_here_missing_and_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "breaks_when_imported.py").write_text("raise OSError('libheif.so.1: no such file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    broken = {"numpy": "breaks_when_imported"}
    monkeypatch.setattr(
        installation,
        "EXTRAS",
        {
            "here": Extra("numbers", {"numpy": "numpy"}, light=True),
            "missing": Extra("wonders", {"numpy": "numpy", "no-such-package": "no_such_module"}),
            "broken": Extra("pictures", broken, light=True),
            "heavy": Extra("models", broken),
            "hollow": Extra("nothing", {"numpy": "no_such_module"}),
        },
    )
    number = np.__version__
    problem = "breaks_when_imported cannot be imported (OSError: libheif.so.1: no such file)"
    assert list(installation.extras()) == [
        Finding("extras", "ok", f"here: numbers (numpy {number})"),
        Finding("extras", "ok", "missing: not installed; wonders", "pip install 'mmsearch[missing]'"),
        Finding(
            "extras", "warning", f"broken: installed, but {problem}", "pip install 'mmsearch[broken]' --force-reinstall"
        ),
        Finding("extras", "ok", f"heavy: models (numpy {number})"),
        Finding(
            "extras",
            "warning",
            "hollow: installed, but its module no_such_module is not there",
            "pip install 'mmsearch[hollow]' --force-reinstall",
        ),
    ]


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    first, sqlite, libraries = installation.versions()
    assert first.message.startswith("mmsearch ")
    assert f"Python {sys.version.split()[0]}" in first.message
    old = sqlite3.sqlite_version_info < (3, 51, 3)
    assert sqlite.message.startswith(f"SQLite {sqlite3.sqlite_version}")
    assert ("mmsearch lets one write" in sqlite.message) is old
    assert f"numpy {np.__version__}" in libraries.message

    monkeypatch.setattr(installation, "LIBRARIES", {"numpy": "no_such_module", "no-such-package": "numpy"})
    found = [(one.state, one.message, one.remedy) for one in installation.versions()][2:4]
    assert found == [
        (
            "problem",
            "numpy: no_such_module cannot be imported (ModuleNotFoundError: No module named 'no_such_module')",
            installation.REINSTALL,
        ),
        ("problem", "no-such-package, which every search needs, is not installed", installation.REINSTALL),
    ]


def test_a_sqlite_without_full_text(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare(sqlite3.Connection):
        def execute(self, *_: object) -> sqlite3.Cursor:  # type: ignore[override]
            raise sqlite3.OperationalError("no such module: fts5")

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path: connect(path, factory=Bare))
    found = list(installation.versions())[1]
    assert (found.state, "has no full-text search" in found.message, "python.org" in str(found.remedy)) == (
        *("problem", True),
        True,
    )


# --- the command --------------------------------------------------------------------------------------------------


def test_the_command_in_words(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "-c", str(folder)]) == 4  # nobody here knows the toy encoder
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[:2] == ["Collection", f"  {folder} (pictures: 10, captions: 0, folders: 1)"]
    at = next(number for number, line in enumerate(lines) if line.startswith("X There is no model 'toy'"))
    assert lines[at + 1] == "    -> `mmsearch models` lists them"
    assert lines[-1] == "1 problem (X), 0 warnings (!)."
    assert [line for line in lines if line in ("Collection", "Disk", "Index", "Model", "Extras", "Versions")] == [
        *("Collection", "Index", "Disk", "Model", "Extras", "Versions")
    ]


def test_the_command_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Engine.open(tmp_path / "c") as engine:
        engine.add("x", np.zeros((20, 20, 3), np.uint8))
    assert main(["doctor", "--json", "-c", str(tmp_path / "c")]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert list(shown) == ["sound", "findings"]
    assert shown["sound"] is True
    assert list(shown["findings"][0]) == ["area", "state", "message", "remedy"]
    assert all(one["state"] == "ok" for one in shown["findings"] if one["area"] != "extras")
    with Engine.open(tmp_path / "c") as engine:
        engine.verify()
    assert main(["doctor", "--json", "-c", str(tmp_path / "none")]) == 0
    assert not (tmp_path / "none").exists()


def test_the_command_where_a_library_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mmsearch.checkup", None)  # as if faiss, say, could not be imported
    monkeypatch.setattr(installation, "LIBRARIES", {"faiss-cpu": "no_such_module"})
    assert main(["doctor", "-c", str(tmp_path / "c")]) == 4
    out, err = capsys.readouterr()
    assert "X faiss-cpu: no_such_module cannot be imported" in out
    assert err == ""
