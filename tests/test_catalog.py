"""Opening a catalog: schema, migrations, locks, damage."""

from __future__ import annotations

import errno
import fcntl
import re
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from mmsearch import Engine, errors
from mmsearch.catalog import catalog as opening
from mmsearch.catalog import read, write
from mmsearch.catalog.catalog import Catalog
from mmsearch.catalog.tables import SCHEMA, metadata
from mmsearch.settings import shipped_folder
from tests.toy import ToyEncoder


def made(folder: Path) -> Catalog:
    """A collection is made when it is first used."""
    catalog = Catalog(folder, create=True)
    with catalog.reading():
        return catalog


def test_migrations_make_what_the_tables_say(tmp_path: Path) -> None:
    with made(tmp_path / "c").reading() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    of_sqlite = re.compile(r"'(image|caption)_fts(_data|_idx|_content|_docsize|_config)?'")
    assert [one for one in differences if not of_sqlite.search(str(one))] == []


def test_the_newest_migration_is_the_schema() -> None:
    names = sorted(path.name for path in (shipped_folder("migrations") / "versions").glob("*.py"))
    assert names[-1].startswith(f"{SCHEMA}_")


def test_wal_foreign_keys_and_durable_commits(tmp_path: Path) -> None:
    catalog = made(tmp_path / "c")
    with catalog.writing() as connection:
        pragmas = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "foreign_keys", "synchronous")
        ]
    assert pragmas == ["wal", 1, 2]
    catalog.close()
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["catalog.sqlite", "write.lock"]


def test_readers_cannot_write(tmp_path: Path) -> None:
    catalog = made(tmp_path / "c")
    with pytest.raises(errors.CollectionError, match="readonly"), catalog.reading() as connection:
        connection.exec_driver_sql("DELETE FROM root")


def test_opening_imports_no_alembic(tmp_path: Path) -> None:
    made(tmp_path / "c").close()
    program = (
        "import sys; from pathlib import Path; from mmsearch.catalog.catalog import Catalog; "
        f"Catalog(Path({str(tmp_path / 'c')!r}), create=True).reading().__enter__(); print('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"


def test_a_collection_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(errors.CollectionNotFoundError, match="mmsearch index"):
        Catalog(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()


def test_opening_alone_makes_nothing(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "c", model=ToyEncoder()) as engine:
        for folders in ([], [tmp_path / "nowhere"]):
            with pytest.raises(errors.UsageError):
                engine.index(folders)
    with Engine.open(tmp_path / "c", model="no such model") as engine, pytest.raises(errors.UnknownModelError):
        engine.index(tmp_path)
    assert not (tmp_path / "c").exists()


def test_a_place_where_none_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.CollectionError, match="cannot be made"):
        made(tmp_path / "file" / "c")


def set_schema(folder: Path, value: str) -> None:
    with sqlite3.connect(folder / "catalog.sqlite") as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (value,))
    connection.close()


def test_a_newer_collection_is_left_alone(tmp_path: Path) -> None:
    made(tmp_path).close()
    set_schema(tmp_path, "9999")
    before = (tmp_path / "catalog.sqlite").read_bytes()
    for create in (True, False):
        with pytest.raises(errors.SchemaError, match="newer mmsearch"):
            Catalog(tmp_path, create=create)
    assert (tmp_path / "catalog.sqlite").read_bytes() == before


def test_an_older_collection_is_upgraded_by_writers_only(tmp_path: Path) -> None:
    # The oldest state there can be: a file without a schema, as a kill during the making leaves it.
    sqlite3.connect(tmp_path / "catalog.sqlite").executescript(
        "PRAGMA journal_mode=WAL; CREATE TABLE x (y); DROP TABLE x"
    )
    with pytest.raises(errors.CollectionNotFoundError, match="finishes making it"):
        Catalog(tmp_path, create=False)
    made(tmp_path).close()
    Catalog(tmp_path, create=False).close()


def test_an_older_schema_is_not_read(tmp_path: Path) -> None:
    made(tmp_path).close()
    set_schema(tmp_path, "0000")
    with pytest.raises(errors.SchemaError, match="`mmsearch index` upgrades it"):
        Catalog(tmp_path, create=False)


def test_the_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "catalog.sqlite").executescript("CREATE TABLE a (b)")
    before = (tmp_path / "catalog.sqlite").read_bytes()
    for create in (True, False):
        with pytest.raises(errors.CollectionError, match="no catalog of mmsearch"):
            Catalog(tmp_path, create=create)
    assert (tmp_path / "catalog.sqlite").read_bytes() == before


@pytest.mark.parametrize("contents", [b"", b"not a database at all, but long enough to look like one" * 40])
def test_a_file_that_is_no_catalog(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "catalog.sqlite").write_bytes(contents)
    with pytest.raises(errors.CollectionError) as caught:
        Catalog(tmp_path, create=False)
    assert "\n" not in str(caught.value)


def test_a_damaged_catalog_is_found_out(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "c", model=ToyEncoder()) as engine:
        keys = [f"key {number}" for number in range(200)]
        engine.add_vectors(keys, np.random.default_rng(0).normal(size=(200, 64)).astype(np.float32), space="own")
        assert engine.verify().sound
    path = tmp_path / "c" / "catalog.sqlite"
    with sqlite3.connect(path) as connection:
        row = connection.execute("SELECT id, data FROM vector WHERE id = 77").fetchone()
        flipped = bytes([row[1][0] ^ 1]) + row[1][1:]
        connection.execute("UPDATE vector SET data = ? WHERE id = 77", (flipped,))
    connection.close()
    with Engine.open(tmp_path / "c", create=False) as engine:
        assert "1 stored vectors contradict their checksum (ids 77)" in engine.verify().problems[0]
    data = bytearray(path.read_bytes())
    for place in range(8192, len(data), 4096):
        data[place : place + 40] = b"\xff" * 40
    path.write_bytes(data)
    with pytest.raises(errors.DamagedError, match="backup"), Engine.open(tmp_path / "c", create=False) as engine:
        problems = engine.verify().problems
        raise errors.DamagedError(problems[0]) if problems else AssertionError("not noticed")


def test_a_file_system_that_cannot_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(errors.LockError, match=r"cannot lock files .* local disk"):
        made(tmp_path / "c")


def test_a_writer_that_waits_too_long_says_for_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "WRITE_PATIENCE_SECONDS", 0.05)
    first, second = made(tmp_path), made(tmp_path)
    with first.writing(), pytest.raises(errors.LockError, match=r"by process \d+ on "), second.writing():
        raise AssertionError("two writers at once")


def test_a_transaction_that_raises_leaves_nothing(tmp_path: Path) -> None:
    catalog = made(tmp_path)
    with pytest.raises(ZeroDivisionError), catalog.writing() as connection:
        write.add_root(connection, b"/somewhere", None)
        raise ZeroDivisionError
    with catalog.reading() as connection:
        assert read.roots(connection) == []


def test_vector_ids_are_never_used_again(tmp_path: Path) -> None:
    catalog = made(tmp_path)
    with catalog.writing() as connection:
        space = write.add_space(connection, "x", "x", 2, "ready")
        row = np.array([1, 0], np.float32)
        write.put_vectors(connection, space, "images", [(1, row), (2, row)])
        assert read.newest_vector(connection, space, "images") == 2
        write.replace_vectors(connection, space, [(2, row)])
        assert read.newest_vector(connection, space, "images") == 3
        write.put_vectors(connection, space, "images", [(1, -row)])
        ids, rows = next(read.rows_above(connection, space, "images", 0, 2))
    assert (ids.tolist(), rows.tolist()) == ([1, 3], [[1, 0], [1, 0]])  # what is there stays


def test_the_word_index_follows_the_captions(tmp_path: Path) -> None:
    catalog = made(tmp_path)

    def matches(word: str) -> list[str]:
        with catalog.reading() as connection:
            join = "caption JOIN caption_fts ON caption_fts.rowid = caption.id"
            query = f"SELECT caption.text FROM {join} WHERE caption_fts MATCH ?"
            return [row[0] for row in connection.exec_driver_sql(query, (word,))]

    with catalog.writing() as connection:
        connection.exec_driver_sql("INSERT INTO image (id, sha256) VALUES (1, x'00')")
        connection.exec_driver_sql("INSERT INTO caption (id, image, text, source) VALUES (1, 1, 'a red kite', 'given')")
    assert matches("kite") == ["a red kite"]
    with catalog.writing() as connection:
        connection.exec_driver_sql("UPDATE caption SET text = 'a blue boat'")
    assert (matches("kite"), matches("boat")) == ([], ["a blue boat"])
    with catalog.writing() as connection:
        write.drop_captions(connection, [1])
    assert matches("boat") == []


def test_readers_do_not_wait_for_a_writer_of_their_own_process(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "collection", create=True)
    with catalog.writing():
        pass
    with catalog.reading():
        pass
    with catalog.writing(), ThreadPoolExecutor(1) as pool:

        def read() -> int:
            with catalog.reading() as connection:
                return int(connection.exec_driver_sql("SELECT count(*) FROM image").scalar_one())

        assert pool.submit(read).result(timeout=30) == 0
    catalog.close()
