"""Generations: whole or not at all through every failure, and no damaged byte is searched unnoticed."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsearch.errors import CollectionError, DamagedError, MMSearchError, UsageError
from mmsearch.vectors import flat, generations
from mmsearch.vectors.generations import (
    INDEXES,
    Generation,
    check_generation,
    open_generation,
    sweep,
    write_generation,
)
from mmsearch.vectors.rows import Chunk

DIMENSION = 8


@pytest.fixture(params=sorted(INDEXES))
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def rows(count: int, first_id: int = 1) -> Iterator[Chunk]:
    """Rows that tell their id: the first number of row i is i / 1024."""
    for start in range(0, count, 10):
        ids = np.arange(start, min(start + 10, count)) + first_id
        block = np.full((len(ids), DIMENSION), 0.25, np.float16)
        block[:, 0] = ids / 1024
        yield ids, block


def write(parent: Path, name: str, count: int = 25, kind: str = "flat", first_id: int = 1) -> None:
    write_generation(
        parent, name, kind, rows(count, first_id), dimension=DIMENSION, fingerprint="f00d", highest_id=first_id + 99
    )


def load(path: Path) -> Generation:
    return open_generation(path, dimension=DIMENSION, fingerprint="f00d")


def first_id(path: Path) -> int:
    """Open, check and search a generation: the first of its ids."""
    check_generation(path)
    found = load(path).index.search(np.ones((1, DIMENSION), np.float32), 1000)[1][0]
    assert len(found) == 25
    return int(found.min())


def is_damage(use: Callable[[Path], object], path: Path) -> bool:
    """Whether a use of a generation raises DamagedError (pytest.raises is too slow for thousands of bytes)."""
    try:
        use(path)
    except DamagedError as error:
        return str(path) in str(error)
    return False


def names(parent: Path) -> list[str]:
    return sorted(entry.name for entry in parent.iterdir())


def test_what_is_written_is_what_opens(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "SEGMENT_ROWS", 7)
    parent = tmp_path / "index" / "space"
    write(parent, "one", kind=kind)
    opened = load(parent / "one")
    assert (opened.path, opened.kind, opened.exact) == (parent / "one", kind, True)
    assert (opened.dimension, opened.rows, opened.highest_id, opened.fingerprint) == (DIMENSION, 25, 100, "f00d")
    query = np.zeros((1, DIMENSION), np.float32)
    query[0, 0] = 1
    scores, ids = opened.index.search(query, 3)
    assert ids.tolist() == [[25, 24, 23]]
    assert scores.tolist() == [[25 / 1024, 24 / 1024, 23 / 1024]]
    check_generation(parent / "one")
    assert names(parent) == ["one"]
    header = json.loads((parent / "one" / "generation.json").read_text())
    assert header["format"] == 1
    assert set(header["files"]) == set(names(parent / "one")) - {"generation.json"}


def test_no_rows(kind: str, tmp_path: Path) -> None:
    write(tmp_path, "none", 0, kind)
    check_generation(tmp_path / "none")
    assert load(tmp_path / "none").rows == 0


def test_one_of_the_same_name_is_replaced(tmp_path: Path) -> None:
    write(tmp_path, "one", first_id=1)
    opened = load(tmp_path / "one")
    write(tmp_path, "one", first_id=500, kind="exact")
    assert first_id(tmp_path / "one") == 500
    assert names(tmp_path) == ["one"]
    # Who opened the old one before goes on searching it.
    assert opened.index.search(np.ones((1, DIMENSION), np.float32), 1)[1].tolist() == [[25]]


def test_sweep_keeps_what_is_named(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        write(tmp_path, name)
    (tmp_path / "four.tmp-123").mkdir()
    (tmp_path / "four.tmp-123" / "ids.npy").write_bytes(b"half")
    (tmp_path / "note.txt").write_text("a person's own")
    (tmp_path / "one").rename(tmp_path / "one.old-123")  # died while it was being replaced
    (tmp_path / "two.old-99").mkdir()
    sweep(tmp_path, ["one", "two"])
    assert names(tmp_path) == ["note.txt", "one", "two"]
    assert first_id(tmp_path / "one") == 1
    sweep(tmp_path, [])
    assert names(tmp_path) == ["note.txt"]
    sweep(tmp_path / "nowhere", [])


def test_every_flipped_byte_is_damage_at_once_in_small_files(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flat, "SEGMENT_ROWS", 15)
    write(tmp_path, "one", kind=kind)
    files = sorted((tmp_path / "one").iterdir())
    assert len(files) >= 4
    for file in files:
        whole = file.read_bytes()
        for position in range(len(whole)):
            for flip in (0x01, 0x80, 0xFF):
                broken = bytearray(whole)
                broken[position] ^= flip
                file.write_bytes(broken)
                assert is_damage(load, tmp_path / "one"), (file.name, position)
                assert is_damage(check_generation, tmp_path / "one"), (file.name, position)
        file.write_bytes(whole)
    assert first_id(tmp_path / "one") == 1


def test_flipped_bytes_beyond_the_first_are_found_by_the_check(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generations, "HEAD_BYTES", 100)
    monkeypatch.setattr(generations, "READ_BYTES", 64)
    write(tmp_path, "one", kind=kind)
    load(tmp_path / "one")
    for file in sorted((tmp_path / "one").glob("*s*-*")):  # segments and rows
        whole = file.read_bytes()
        for position in range(len(whole)):
            broken = bytearray(whole)
            broken[position] ^= 0x10
            file.write_bytes(broken)
            assert is_damage(check_generation, tmp_path / "one"), (file.name, position)
        file.write_bytes(whole)
    check_generation(tmp_path / "one")


def test_missing_shorter_and_longer_files(kind: str, tmp_path: Path) -> None:
    write(tmp_path, "one", kind=kind)
    for file in sorted((tmp_path / "one").iterdir()):
        whole = file.read_bytes()
        for contents in (b"", whole[:-1], whole[: len(whole) // 2], whole + b"\0", b"something else"):
            file.write_bytes(contents)
            for use in (load, check_generation):
                with pytest.raises(DamagedError, match="rebuilds it"):
                    use(tmp_path / "one")
        file.unlink()
        for use in (load, check_generation):
            with pytest.raises(DamagedError, match=file.name):
                use(tmp_path / "one")
        file.mkdir()
        for use in (load, check_generation):
            with pytest.raises(DamagedError, match=file.name):
                use(tmp_path / "one")
        file.rmdir()
        file.write_bytes(whole)
    assert first_id(tmp_path / "one") == 1
    with pytest.raises(DamagedError, match="nowhere"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "contents", [b"\xff\xfe", b"[]", b"3", b"{}", b'{"format": 2}', b"[" * 100_000, b'{"format": 1}', b"null"]
)
def test_foreign_headers(contents: bytes, tmp_path: Path) -> None:
    write(tmp_path, "one")
    (tmp_path / "one" / "generation.json").write_bytes(contents)
    for use in (load, check_generation):
        with pytest.raises(DamagedError, match=r"generation\.json"):
            use(tmp_path / "one")


def test_a_header_that_is_sound_but_does_not_fit(tmp_path: Path) -> None:
    write(tmp_path, "one")
    path = tmp_path / "one" / "generation.json"
    header = json.loads(path.read_bytes())
    del header["checksum"]
    for key, value, message in [("kind", "hnsw", "hnsw"), ("rows", 24, "24 vectors"), ("format", 2, "format 1")]:
        changed = {**header, key: value}
        path.write_bytes(generations._dump({**changed, "checksum": generations._checksum(changed)}))
        with pytest.raises(DamagedError, match=message):
            load(tmp_path / "one")


def test_another_space_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "one")
    with pytest.raises(DamagedError, match="another model"):
        open_generation(tmp_path / "one", dimension=DIMENSION, fingerprint="beef")
    with pytest.raises(DamagedError, match="another model"):
        open_generation(tmp_path / "one", dimension=DIMENSION + 1, fingerprint="f00d")


def test_an_unknown_kind_lists_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exact, flat"):
        write(tmp_path, "one", kind="hnsw")
    assert names(tmp_path) == []


def test_rows_that_fail_leave_nothing_behind(tmp_path: Path) -> None:
    def broken() -> Iterator[Chunk]:
        yield from rows(20)
        raise KeyError("the catalog went away")

    write(tmp_path, "one")
    with pytest.raises(KeyError):
        write_generation(tmp_path, "two", "flat", broken(), dimension=DIMENSION, fingerprint="f00d", highest_id=9)
    assert names(tmp_path) == ["one"]


# --- failing disks ---------------------------------------------------------------------------------------------


class Disk:
    """Counts what is asked of the disk, and refuses the n-th request, or all from the n-th on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refuse: int, and_all_later: bool) -> None:
        import faiss

        self.asked: list[str] = []
        self.refuse, self.and_all_later = refuse, and_all_later
        for owner, name in [
            (os, "fsync"),
            (os, "rename"),
            (os, "mkdir"),
            (np, "save"),
            (faiss, "write_index"),
            (Path, "write_bytes"),
        ]:
            monkeypatch.setattr(owner, name, self._wrap(name, getattr(owner, name)))

    def _wrap(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*arguments: Any, **named: Any) -> Any:
            self.asked.append(name)
            number = len(self.asked)
            if number == self.refuse or (self.and_all_later and number > self.refuse):
                if name == "write_index":
                    raise RuntimeError("write error in FileIOWriter: No space left on device")
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*arguments, **named)

        return ask


@pytest.mark.parametrize("and_all_later", [False, True])
@pytest.mark.parametrize("name", ["one", "two"])
def test_every_refusal_keeps_the_old_generation(
    kind: str, name: str, and_all_later: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flat, "SEGMENT_ROWS", 15)
    operations: list[str] = []
    for refuse in range(1, 100):
        parent = tmp_path / f"{refuse}"
        write(parent, "one", first_id=1)
        with monkeypatch.context() as patch:
            disk = Disk(patch, refuse, and_all_later)
            try:
                write(parent, name, kind=kind, first_id=500)
            except CollectionError as error:
                assert "No space left" in str(error)
                assert "\n" not in str(error)
            else:
                operations = disk.asked
        if operations:
            assert first_id(parent / name) == 500
            break
        if and_all_later and disk.asked[refuse - 2] == "rename":  # the renames before it could not be undone
            sweep(parent, ["one", name])
            assert first_id(parent / name) in (1, 500)
        else:
            assert first_id(parent / "one") == 1
            assert not (parent / "two").exists()
    assert len(operations) >= 10
    # Everything is synced before the rename, and the folder of the name after it.
    built = 4 if kind == "exact" else 2
    assert operations.count("fsync") >= built + 4
    assert operations[-2:] == ["rename", "fsync"]
    assert set(operations[operations.index("fsync") : -2]) <= {"fsync", "write_bytes", "rename"}


def run_script(script: str, *arguments: Path) -> str:
    """Run a script in a process of its own, with this module's helpers at hand."""
    helpers = (
        "import os, resource, signal, sys\nfrom pathlib import Path\nimport importlib.util as u\n"
        + textwrap.dedent(
            f"""
        spec = u.spec_from_file_location("helpers", {__file__!r})
        helpers = u.module_from_spec(spec)
        sys.modules["helpers"] = helpers
        spec.loader.exec_module(helpers)
        """
        )
    )
    command = [sys.executable, "-c", helpers + textwrap.dedent(script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_dying_at_any_moment_keeps_the_old_generation(tmp_path: Path) -> None:
    """Real processes that end, without any cleaning up, at the n-th request to the disk."""
    script = """
        import numpy, faiss
        faiss.omp_set_num_threads(1)
        for replaced in ("one", "two"):
            for moment in range(1, 100):
                parent = Path(sys.argv[1], f"{replaced}-{moment}")
                helpers.write(parent, "one", first_id=1)
                child = os.fork()
                if not child:
                    left = moment
                    def deadly(original):
                        def ask(*arguments, **named):
                            global left
                            left -= 1
                            if not left:
                                os._exit(9)
                            return original(*arguments, **named)
                        return ask
                    for owner, name in [(os, "fsync"), (os, "rename"), (os, "mkdir"), (os, "rmdir"), (os, "unlink"),
                                        (numpy, "save"), (faiss, "write_index"), (Path, "write_bytes")]:
                        setattr(owner, name, deadly(getattr(owner, name)))
                    helpers.write(parent, replaced, first_id=500)
                    os._exit(0)
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                assert status in (0, 9), status
                helpers.sweep(parent, ["one"])
                assert helpers.names(parent) == ["one"], helpers.names(parent)
                found = helpers.first_id(parent / "one")
                assert found == 1 or (replaced == "one" and found == 500), found
                if status == 0:
                    break
            print(replaced, moment)
    """
    lines = dict(line.split() for line in run_script(script, tmp_path).splitlines())
    assert int(lines["one"]) > int(lines["two"]) > 9


def test_a_full_disk_at_any_byte(tmp_path: Path) -> None:
    """The system itself refuses to let any file grow beyond n bytes, for many n."""
    script = """
        helpers.write(Path(sys.argv[1]), "one", first_id=1)
        largest = max(f.stat().st_size for f in Path(sys.argv[1], "one").iterdir())
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        refused = 0
        for kind in ("flat", "exact"):
            for limit in [*range(0, largest, 17), largest - 1]:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
                try:
                    helpers.write(Path(sys.argv[1]), "one", kind=kind, first_id=500)
                except helpers.CollectionError:
                    refused += 1
                else:
                    assert False, limit
                finally:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
                assert helpers.names(Path(sys.argv[1])) == ["one"]
                assert helpers.first_id(Path(sys.argv[1], "one")) == 1
        print(refused)
    """
    assert int(run_script(script, tmp_path)) > 30


def test_a_rows_file_that_was_cut_while_writing_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAISS does not report that the last buffered bytes failed to reach the disk."""
    import faiss

    original = faiss.write_index

    def lossy(index: Any, path: str) -> None:
        original(index, path)
        os.truncate(path, os.path.getsize(path) - 90)

    monkeypatch.setattr(faiss, "write_index", lossy)
    with pytest.raises(CollectionError, match="full"):
        write(tmp_path, "one")
    assert names(tmp_path) == []


def test_every_error_is_ours(tmp_path: Path) -> None:
    write(tmp_path, "one")
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CollectionError, match="could not be written"):
        write(tmp_path / "file", "one")
    with pytest.raises(MMSearchError):
        load(tmp_path / "file")
