"""Roots: which folders an index run covers, and whether what is missing from one is gone or merely away.

A root is stored with the identity of its device. That tells an unmounted disk (the folder is gone or empty, and the
device under it is another) from a folder that was moved, deleted or emptied (same device).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from mmsearch.catalog import read, write
from mmsearch.catalog.catalog import Catalog
from mmsearch.catalog.read import RootRow
from mmsearch.errors import LockError, UsageError


@dataclass(frozen=True, slots=True)
class Scope:
    """What a run looks at: a root, or only its subfolder `under` (relative, without a slash at the end)."""

    root: RootRow
    under: bytes

    @property
    def path(self) -> Path:
        return Path(os.fsdecode(self.root.path))


def check_folders(paths: Sequence[str | os.PathLike[str]]) -> list[bytes]:
    """Real absolute paths of folders to index, existing or not. UsageError for one that is a file."""
    real = []
    for path in paths:
        if not os.fspath(path):
            raise UsageError("A folder to index has no name; . is the one you are in.")
        resolved = os.path.realpath(Path(path).expanduser())
        if os.path.exists(resolved) and not os.path.isdir(resolved):
            raise UsageError(f"{path} is not a folder; name the folder that holds the pictures.")
        real.append(os.fsencode(resolved))
    return real


def real_place(path: str | os.PathLike[str]) -> Path:
    """A file or folder as an index run names it: links to folders followed, a link to a picture not. UsageError for
    what cannot be a name."""
    try:
        whole = Path(os.path.abspath(Path(path).expanduser()))
        real = Path(os.path.realpath(whole.parent)) / whole.name
        if b"\0" in os.fsencode(real):
            raise ValueError("a zero byte")
        return Path(os.path.realpath(real)) if real.is_dir() else real
    except ValueError as error:
        raise UsageError(f"{os.fspath(path)!a} cannot be the name of a file.") from error


def check_new(folders: Sequence[bytes]) -> None:
    """What a collection that has no roots yet can be made of. UsageError where `resolve` would raise it."""
    if not folders:
        raise _no_roots()
    for folder in folders:
        if not os.path.isdir(folder):
            raise _no_folder(folder)


def resolve(connection: Connection, folders: Sequence[bytes], *, add: bool = True) -> list[Scope]:
    """Folders -> scopes, adding roots that are new. Without folders: all known roots. add: else what belongs to no
    root is passed over.

    A folder inside a root is a scope of the innermost root around it. Roots inside a folder stay roots of their own,
    and are covered too: each knows its own disk.
    UsageError: no folder named and no root known, or a folder that neither exists nor was ever indexed.
    """
    if not folders:
        known = read.roots(connection)
        if not known:
            raise _no_roots()
        return [Scope(root, b"") for root in known]
    scopes: list[Scope] = []
    for folder in folders:
        known = read.roots(connection)
        around = [root for root in known if inside(folder, root.path)]
        if around:
            root = max(around, key=lambda one: len(one.path))
            scope = Scope(root, _relative(folder, root.path))
            if scope.under and not os.path.isdir(folder) and not _has_files(connection, scope):
                raise _no_folder(folder)
        elif not add:
            continue
        elif os.path.isdir(folder):
            device = device_of(folder)
            scope = Scope(RootRow(write.add_root(connection, folder, device), folder, device), b"")
        else:
            raise _no_folder(folder)
        scopes.append(scope)
        scopes += [Scope(root, b"") for root in known if root.path != folder and inside(root.path, folder)]
    return _without_overlap(scopes)


def _without_overlap(scopes: Sequence[Scope]) -> list[Scope]:
    """Each root or subfolder once, in the order named; what a wider scope covers is left out."""
    kept: list[Scope] = []
    for scope in sorted(scopes, key=lambda one: len(one.under)):
        if not any(one.root.id == scope.root.id and inside(scope.under, one.under) for one in kept):
            kept.append(scope)
    return sorted(kept, key=scopes.index)


def around(connection: Connection, folders: Sequence[bytes]) -> list[RootRow]:
    """The roots that hold these folders or lie in them; without folders, all."""
    known = read.roots(connection)
    if not folders:
        return known
    return [root for root in known if any(inside(one, root.path) or inside(root.path, one) for one in folders)]


def inner_roots(connection: Connection, root: RootRow) -> list[bytes]:
    """The relative paths of other roots inside a root: what lies there is theirs."""
    return [
        _relative(other.path, root.path)
        for other in read.roots(connection)
        if other.id != root.id and inside(other.path, root.path)
    ]


def relocate(catalog: Catalog, old: str | os.PathLike[str], new: str | os.PathLike[str]) -> int:
    """The files of root `old` now lie in the folder `new`. Returns how many files it has.

    UsageError: `old` is no root, `new` is no folder, lies in another root, or holds none of the pictures.
    LockError: a run is at work.
    """
    target = os.fsencode(os.path.realpath(Path(new).expanduser()))
    if not os.path.isdir(target):
        raise UsageError(f"{new} is not a folder; name the folder where the pictures lie now.")
    with _alone(catalog), catalog.writing() as connection:
        root = _named(connection, old)
        known = read.images_at(connection, root.id)
        if known and not any(os.path.lexists(os.path.join(target, relative)) for relative in known):
            raise UsageError(
                f"None of the {len(known)} pictures of {old} is in {new}; name the folder they lie in now."
            )
        for other in read.roots(connection):
            if other.id != root.id and inside(target, other.path):
                raise UsageError(f"{new} lies in the root {os.fsdecode(other.path)}; remove that one first.")
        write.set_root(connection, root.id, path=target, device=device_of(target))
        return read.count_files(connection).get(root.id, 0)


def remove(catalog: Catalog, path: str | os.PathLike[str]) -> int:
    """Forget a root, its files, and the images that then lie nowhere. The pictures themselves are not touched.

    Returns how many files it had. UsageError: there is no such root. LockError: a run is at work.
    """
    with _alone(catalog), catalog.writing() as connection:
        return write.drop_root(connection, _named(connection, path).id)


def drop_moved(connection: Connection) -> None:
    """Forget the roots whose folder was moved or deleted and all of whose images were found again elsewhere."""
    for root in read.roots(connection):
        if not os.path.isdir(root.path) and not is_away(root) and not read.root_has_images(connection, root.id):
            write.drop_root(connection, root.id)


def is_gone(root: RootRow, relative: bytes) -> bool:
    """Whether a file's place is gone for certain: not there, and its disk is not merely away."""
    if not root.path:
        return False  # a key is no place on a disk
    try:
        os.lstat(os.path.join(root.path, relative))
    except (FileNotFoundError, NotADirectoryError):
        return not is_away(root)
    except OSError:
        return False
    return False


def is_away(root: RootRow) -> bool:
    """Whether the disk of a root seems not to be mounted: the folder, or what is nearest above it, is on a device
    other than the one that was stored."""
    there = root.path
    while not os.path.exists(there):
        there = os.path.dirname(there)
    return root.device is None or device_of(there) != root.device


def device_of(folder: bytes) -> str | None:
    """What the system calls the device of a folder; None where it does not say."""
    try:
        return str(os.stat(folder).st_dev)
    except OSError:
        return None


@contextmanager
def _alone(catalog: Catalog) -> Iterator[None]:
    """No index run may be at work on roots that change under it."""
    holder: list[str] = []
    with catalog.index_run(holder.append, cancelled=lambda: True) as held:
        if not held:
            raise LockError(f"{holder[0]} is indexing this collection; try again when it is done.")
        yield


def _named(connection: Connection, path: str | os.PathLike[str]) -> RootRow:
    wanted = {os.fsencode(os.path.realpath(Path(path).expanduser())), os.fsencode(Path(path).expanduser().absolute())}
    known = read.roots(connection)
    for root in known:
        if root.path in wanted:
            return root
    names = ", ".join(os.fsdecode(root.path) for root in known) or "none"
    raise UsageError(f"{path} is not a root of this collection; its roots are: {names}.")


def names(known: Sequence[RootRow]) -> dict[int, str]:
    """root -> what people call it: the name of the folder, or its whole path where another one has that name."""
    short = {root.id: os.fsdecode(os.path.basename(root.path.rstrip(b"/"))) for root in known}
    several = [name for name in short.values() if list(short.values()).count(name) > 1 or not name]
    return {root.id: os.fsdecode(root.path) if short[root.id] in several else short[root.id] for root in known}


def inside(path: bytes, folder: bytes) -> bool:
    """Whether `path` is `folder` or lies below it. Every path lies below b"" and b"/"."""
    return path == folder or not folder or path.startswith(folder.rstrip(b"/") + b"/")


def _relative(path: bytes, folder: bytes) -> bytes:
    return path[len(folder.rstrip(b"/")) :].lstrip(b"/")


def _has_files(connection: Connection, scope: Scope) -> bool:
    return bool(read.files_below(connection, scope.root.id, scope.under, space_id=0))


def _no_roots() -> UsageError:
    return UsageError("This collection has no folders yet; name one, as in `mmsearch index ./images`.")


def _no_folder(folder: bytes) -> UsageError:
    return UsageError(f"There is no folder {os.fsdecode(folder)}; check the spelling, or mount its disk.")
