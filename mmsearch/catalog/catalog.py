"""Opening a catalog: one SQLite file in WAL mode, its schema, its transactions. `read` and `write` hold the SQL.

Readers open read-only: they never migrate, write or checkpoint, and work in a folder that cannot be written.
Writers take `write.lock` for one transaction each, commit durably (synchronous=FULL) and checkpoint under it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import RLock
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool, Pool, QueuePool

from mmsearch.catalog import texts, where
from mmsearch.catalog.locks import locked
from mmsearch.catalog.tables import SCHEMA
from mmsearch.errors import CollectionError, CollectionNotFoundError, DamagedError, LockError, SchemaError

WRITE_PATIENCE_SECONDS = 60.0  # a transaction lasts milliseconds; whoever waits this long is told so


class Catalog:
    """The catalog of the collection in `folder`. Safe for several threads; each transaction has its connection."""

    def __init__(self, folder: Path, *, create: bool) -> None:
        """create: make the collection, when it is first used, if there is none, and migrate an older one; without it,
        neither.

        Raises CollectionNotFoundError, SchemaError (older or newer), DamagedError, CollectionError.
        """
        self.folder = folder
        self.path = folder / "catalog.sqlite"
        self._writer: Engine | None = None
        self._writing = RLock()
        self._reader: Engine | None = None
        self._unlocked: Engine | None = None
        self._create = create
        self._ready = False
        if self.exists:
            self._make()
        elif not create:
            raise CollectionNotFoundError(
                f"There is no collection at {folder}; make it with `mmsearch index FOLDER` or name another with -c."
            )

    @property
    def exists(self) -> bool:
        """Whether it has been made."""
        return self.path.is_file()

    # --- transactions ---------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read-only transaction that sees one state of the catalog."""
        self._make()
        with self._read_transaction() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One write transaction: committed when the block ends, rolled back when it raises."""
        self._make()
        deadline = time.monotonic() + WRITE_PATIENCE_SECONDS
        holder: list[str] = []
        with (
            self._writing,
            locked(
                self.folder / "write.lock",
                on_wait=holder.append,
                give_up=lambda: time.monotonic() > deadline,
                pause=0.003,
            ) as held,
            _translated(self.path),
        ):
            if not held:
                raise LockError(
                    f"{self.folder} has been locked for writing for {WRITE_PATIENCE_SECONDS:.0f} s by {holder[0]}; "
                    "try again when it is done."
                )
            if self._writer is None:
                self._writer = _engine(self.path, "rw", begin="BEGIN IMMEDIATE")
            with self._writer.begin() as connection:
                yield connection
                texts.refresh(connection)

    @contextmanager
    def index_run(self, on_wait: Callable[[str], None], cancelled: Callable[[], bool]) -> Iterator[bool]:
        """Hold `index.lock`; yields False when `cancelled` ended the wait for it."""
        self._make()
        with locked(self.folder / "index.lock", on_wait=on_wait, give_up=cancelled, pause=0.1) as held:
            yield held

    def close(self) -> None:
        """Close all connections. The last writer's checkpoint happens under `write.lock`."""
        with self._writing:
            if self._reader is not None:
                self._reader.dispose()
                self._reader = None
            if self._writer is not None:
                deadline = time.monotonic() + WRITE_PATIENCE_SECONDS
                with (
                    suppress(CollectionError),  # the folder may be gone; then there is nothing to tidy
                    locked(self.folder / "write.lock", give_up=lambda: time.monotonic() > deadline, pause=0.003),
                ):
                    self._writer.dispose()
                self._writer = None

    @contextmanager
    def _read_transaction(self) -> Iterator[Connection]:
        engine = self._reader_engine()
        with (
            _translated(self.path, unlocked=engine is self._unlocked),
            engine.connect() as connection,
            connection.begin(),
        ):
            yield connection

    # --- opening --------------------------------------------------------------------------------------------------

    def _reader_engine(self) -> Engine:
        """SQLite needs its -shm file even to read. Where it is not there and cannot be made, nobody is writing, and
        the file is read as it lies; asked anew for each transaction, since an owner may begin to write."""
        wal, shm = (self.path.with_name(f"catalog.sqlite-{name}") for name in ("wal", "shm"))
        opened = self._reader
        if opened is not None and shm.exists():
            return opened  # without the lock: readers do not wait for a writer of this very process
        with self._writing:
            if shm.exists() or os.access(self.folder, os.W_OK):
                if self._reader is None:
                    self._reader = _engine(self.path, "ro", begin="BEGIN")
                return self._reader
            if wal.exists() and wal.stat().st_size:
                raise CollectionError(
                    f"{self.folder} holds changes that a program left unfinished, and cannot be written here; "
                    "open it once where it can be written, with `mmsearch status`."
                )
            if self._unlocked is None:
                self._unlocked = _engine(self.path, "ro&immutable=1", begin="BEGIN", pool=NullPool)
            return self._unlocked

    def _make(self) -> None:
        """Make sure, once, that the collection is there and has the schema of this program."""
        if self._ready:
            return
        if self.exists:
            self._check_schema()
        else:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                why = "a file has that name" if self.folder.is_file() else f"{error.strerror}"
                raise CollectionError(
                    f"The collection {self.folder} cannot be made: {why}; choose another place with -c."
                ) from error
            self._migrate()
        self._ready = True

    def _check_schema(self) -> None:
        found = self._schema()
        if found == SCHEMA:
            return
        if found is None:
            raise CollectionError(f"{self.path} is no catalog of mmsearch; choose another folder with -c.")
        if not found and not self._create:
            raise CollectionNotFoundError(
                f"There is no collection at {self.folder} yet; `mmsearch index FOLDER` finishes making it."
            )
        if found > SCHEMA:
            raise SchemaError(
                f"{self.folder} was written by a newer mmsearch (schema {found}, this one reads {SCHEMA}); "
                "update mmsearch to use it."
            )
        if not self._create:
            raise SchemaError(
                f"{self.folder} was written by an older mmsearch (schema {found}, this one reads {SCHEMA}); "
                "`mmsearch index` upgrades it."
            )
        self._migrate()

    def _schema(self) -> str | None:
        """The schema's number; "" where the making was interrupted; None where another program made the file."""
        with self._read_transaction() as connection:
            exists = connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").first()
            if not exists:
                return None if connection.exec_driver_sql("SELECT 1 FROM sqlite_master").first() else ""
            row = connection.exec_driver_sql("SELECT version_num FROM alembic_version").first()
            return str(row[0]) if row else ""

    def _migrate(self) -> None:
        from mmsearch.catalog.migrate import upgrade

        with locked(self.folder / "write.lock", give_up=lambda: False, pause=0.01), _translated(self.path):
            with closing(sqlite3.connect(self.path, timeout=30)) as plain:
                plain.execute("PRAGMA journal_mode=WAL")  # kept in the file; cannot be set inside a transaction
            engine = _engine(self.path, "rw", begin="BEGIN IMMEDIATE")
            try:
                with engine.begin() as connection:
                    upgrade(connection)
                    texts.refresh(connection)
            finally:
                engine.dispose()


def _engine(path: Path, mode: str, *, begin: str, pool: type[Pool] = QueuePool) -> Engine:
    uri = f"file:{quote(os.fsencode(path))}?mode={mode}"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(uri, uri=True, timeout=30, check_same_thread=False, isolation_level=None)

    # The one used last is used next: it keeps what filters allow (read.allowed_ids).
    sizes = {"pool_size": 8, "max_overflow": 56, "pool_use_lifo": True} if pool is QueuePool else {}
    engine = create_engine("sqlite://", creator=connect, poolclass=pool, **sizes)

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=FULL")
        where.register(connection)

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


@contextmanager
def _translated(path: Path, *, unlocked: bool = False) -> Iterator[None]:
    """SQLite's errors as ours, at this one boundary. unlocked: another program may have changed the file meanwhile."""
    try:
        yield
    except (DatabaseError, sqlite3.DatabaseError) as error:
        cause = error.orig if isinstance(error, DatabaseError) else error
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        if unlocked and code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise CollectionError(f"{path} seems to be written at this moment; try again.") from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise DamagedError(
                f"{path} is damaged ({cause}); restore it from a backup, or remove the collection and index again."
            ) from error
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            raise CollectionError(f"{path} cannot be opened or written ({cause}); check its permissions.") from error
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise CollectionError(f"{path} cannot be used: {cause}; check the disk and its free space.") from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL):
            raise LockError(
                f"{path} stayed locked by another program ({cause}); try again, and keep collections on a local disk."
            ) from error
        raise
