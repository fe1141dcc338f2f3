"""Roots -> files: which files lie below a folder, which of them may be pictures, and their bytes.

Paths below a root are bytes (any name a file system allows), `/` between the parts. Nothing is ever written.
A folder may hold a `.mmsearchignore` with gitignore patterns; it counts for that folder and all below it.
"""
# ruff: noqa: SIM905 (suffixes read better as words)

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsearch.errors import PictureError, UsageError

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILE = b".mmsearchignore"
CATALOG_FILE = b"catalog.sqlite"
DEAD_LINK = "the link leads nowhere"

PICTURE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .mpo .png .apng .webp .gif .bmp .tif .tiff .avif .avifs .heic .heics .heif .heifs .hif "
    ".jp2 .j2k .jpf .jpx .j2c .ppm .pgm .pbm .pnm .psd .tga".split()
)
# Many raw formats begin like a TIFF whose first page is a thumbnail: reading that would index the wrong picture.
RAW_SUFFIXES = frozenset(
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl .sr2 .srf "
    ".srw .x3f".split()
)

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00\x08\x00\x00\x00", "tiff"),
    (b"MM\x00+\x00\x08\x00\x00", "tiff"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jpeg2000"),
    (b"\xff\x4f\xff\x51\x00", "jpeg2000"),
    (b"8BPS\x00\x01", "psd"),
)
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"))
HEAD_BYTES = 512
# A letter and a digit begin many texts; only the sizes after them make it a picture.
_PPM_HEADER = re.compile(rb"P[1-6]\s(?:\s|#[^\n]*\n)*\d+\s(?:\s|#[^\n]*\n)*\d+\s")


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file below a root.

    relative: path below the root. size (bytes) and mtime_ns: of what a link leads to; size is -1 for a link with a
    picture's suffix that leads nowhere. sidecar: (size, mtime_ns) of the captions `name.txt` beside `name.jpg`,
    else None. picture_suffix: the name says that this is a picture.
    """

    relative: bytes
    size: int
    mtime_ns: int
    sidecar: tuple[int, int] | None
    picture_suffix: bool


def walk(
    root: Path,
    *,
    under: bytes = b"",
    exclude: Sequence[str] = (),
    on_unreadable: Callable[[bytes, str], None],
) -> Iterator[FoundFile]:
    """All files below `root` that are not ignored, in ascending order of their relative paths as bytes.

    under: only those below this folder, with the same rules as in a walk of everything. exclude: gitignore
    patterns relative to the root; they outrank every ignore file. on_unreadable(relative, reason): a folder that
    cannot be looked into, or (reason DEAD_LINK) a link that leads nowhere and may have led to a folder; what was
    known below it must not be taken for gone.

    Left out: dot folders, AppleDouble files (`._name`), the folders that a collection keeps for itself, whatever is
    not a regular file, sidecars that belong to a picture. Links are followed, except to folders inside the root and to
    folders that were walked already. Raises OSError when the root itself cannot be listed, UsageError for a pattern in
    `exclude` that is none.
    """
    parts = [part for part in under.split(b"/") if part]
    walking = _Walk(os.fsencode(os.path.realpath(root)), parts, _excluder(exclude), on_unreadable)
    stack = [walking.folder(b"", _Rules())]
    while stack:
        found = next(stack[-1], None)
        if found is None:
            stack.pop()
        elif isinstance(found, FoundFile):
            yield found
        else:
            stack.append(found)


_Listing = list[tuple[bytes, "os.stat_result | None"]]  # name (a folder's ends with a slash), None for a dead link


class _Walk:
    """What one walk keeps from folder to folder. Folders are relative and end with a slash; the root is empty."""

    def __init__(
        self,
        root: bytes,
        under: list[bytes],
        exclude: _Rules,
        on_unreadable: Callable[[bytes, str], None],
    ) -> None:
        self.root, self.under, self.exclude, self.on_unreadable = root, under, exclude, on_unreadable
        self.seen: set[tuple[int, int]] = set()

    def folder(self, folder: bytes, rules: _Rules) -> Iterator[Any]:
        """In order: a FoundFile for each file, an iterator like this one for each folder inside."""
        try:
            if self._known(folder):
                return
            listing, rules = self._list(folder, rules)
        except OSError as error:
            if not folder:
                raise
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                self.on_unreadable(folder[:-1], reason(error))
            return
        texts = {name: status for name, status in listing if status is not None and name.lower().endswith(b".txt")}
        sidecars = {}
        for name, _ in listing:
            if _is_picture_name(name):
                stem = os.path.splitext(name)[0]
                text = next((text for text in (stem + b".txt", stem + b".TXT") if text in texts), None)
                if text is not None:
                    sidecars[name] = text
        claimed = set(sidecars.values())
        for name, status in listing:
            if name.endswith(b"/"):
                yield self.folder(folder + name, rules)
            elif status is None:
                yield FoundFile(folder + name, -1, 0, None, True)
            elif name not in claimed:
                beside = texts[sidecars[name]] if name in sidecars else None
                sidecar = None if beside is None else (beside.st_size, beside.st_mtime_ns)
                yield FoundFile(folder + name, status.st_size, status.st_mtime_ns, sidecar, _is_picture_name(name))

    def _known(self, folder: bytes) -> bool:
        """A folder that has its place elsewhere in this walk: inside the root, or walked already."""
        path = os.path.join(self.root, folder)
        if folder and os.path.islink(path[:-1]):
            real = os.path.realpath(path)
            if os.path.join(real, b"").startswith(os.path.join(self.root, b"")):
                return True
        status = os.stat(path)
        identity = (status.st_dev, status.st_ino)
        if identity in self.seen:
            return True
        self.seen.add(identity)
        return False

    def _list(self, folder: bytes, rules: _Rules) -> tuple[_Listing, _Rules]:
        """What is in a folder and not left out, sorted, and the rules that hold in it."""
        with os.scandir(os.path.join(self.root, folder)) as scan:
            entries = list(scan)
        names = {entry.name for entry in entries}
        if CATALOG_FILE in names:  # a collection lies here: its own files are none of ours, pictures beside them are
            entries = [entry for entry in entries if entry.name not in (b"index", b"thumbnails")]
        if IGNORE_FILE in names:
            rules = rules.with_file(os.path.join(self.root, folder, IGNORE_FILE), folder)
        depth = folder.count(b"/")
        only = self.under[depth] if depth < len(self.under) else None
        listing: _Listing = []
        for entry in entries:
            name = entry.name
            if name == IGNORE_FILE or name.startswith(b"._") or (only is not None and name != only):
                continue
            try:
                is_folder, status = _look(entry)
            except FileNotFoundError:
                continue
            if is_folder:
                if name.startswith(b"."):
                    continue
                name += b"/"
            elif only is not None or (status is not None and not stat.S_ISREG(status.st_mode)):
                continue
            if rules.ignore(folder + name) or self.exclude.ignore(folder + name):
                continue
            if status is None and not is_folder and not _is_picture_name(name):
                # It may have led to a folder on a disk that is away.
                if not name.startswith(b"."):
                    self.on_unreadable(folder + name, DEAD_LINK)
                continue
            listing.append((name, status))
        listing.sort(key=lambda item: item[0])
        return listing, rules


def _look(entry: os.DirEntry[bytes]) -> tuple[bool, os.stat_result | None]:
    """(is a folder, status of a file); links followed; (False, None) for a link that leads nowhere."""
    if not entry.is_symlink():
        if entry.is_dir(follow_symlinks=False):
            return True, None
        return False, entry.stat(follow_symlinks=False)
    try:
        status = entry.stat()
    except OSError:
        return False, None
    if stat.S_ISDIR(status.st_mode):
        return True, None
    return False, status


def _is_picture_name(name: bytes) -> bool:
    return os.path.splitext(name)[1].lower() in _PICTURE_SUFFIXES


_PICTURE_SUFFIXES = frozenset(suffix.encode() for suffix in PICTURE_SUFFIXES)


def _excluder(patterns: Sequence[str]) -> _Rules:
    for pattern in patterns:
        if not _is_pattern(pattern):
            raise UsageError(f"{pattern!r} is no gitignore pattern; try one like '*.tmp' or 'drafts/'.")
    return _Rules(tuple(patterns))


class _Rules:
    """The patterns that hold in a folder: those of the ignore files on the way to it, outermost first."""

    def __init__(self, lines: tuple[str, ...] = ()) -> None:
        self.lines = lines
        self.spec = _spec(lines) if lines else None

    def ignore(self, relative: bytes) -> bool:
        return self.spec is not None and bool(self.spec.check_file(os.fsdecode(relative)).include)

    def with_file(self, path: bytes, folder: bytes) -> _Rules:
        """These and those of one more ignore file. As in git, a line that is no pattern is passed over."""
        with _open_file(path) as file:
            text = os.fsdecode(file.read().removeprefix(b"\xef\xbb\xbf"))
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#") and _is_pattern(line)]
        return _Rules((*self.lines, *(_below(os.fsdecode(folder), line) for line in lines)))


def _below(folder: str, line: str) -> str:
    """A pattern that means from the root what `line` means in `folder` (which ends with a slash)."""
    body = line.removeprefix("!")
    sign = line.removesuffix(body)
    depth = "" if "/" in body.rstrip().removesuffix("/") else "**/"
    literal = re.sub(r"([^\w/])", r"\\\1", folder)
    return f"{sign}/{literal}{depth}{body.removeprefix('/')}"


def _is_pattern(line: str) -> bool:
    try:
        _spec((line,))
    except ValueError:
        return False
    return True


def _spec(lines: Sequence[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    # To pathspec `foo/**` means the folder foo too; to git only what is in it, as `foo/**/*` does to both.
    inside = {"/**": "/*", "/**/": "*/"}
    return GitIgnoreSpec.from_lines(
        [line + next((more for end, more in inside.items() if line.endswith(end)), "") for line in lines]
    )


def picture_format(head: bytes) -> str | None:
    """The format that the first bytes of a file (HEAD_BYTES are enough) announce, or None: it is not a picture we read.

    One of jpeg, png, gif, webp, bmp, tiff, avif, heif, jpeg2000, ppm, psd. TGA has no signature.
    """
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[:2] == b"BM" and head[14:18] in _BMP_HEADER_SIZES:
        return "bmp"
    if _PPM_HEADER.match(head):
        return "ppm"
    if head[4:8] == b"ftyp":
        # The general brands say nothing about the coding; the list of compatible brands does.
        size = min(max(int.from_bytes(head[:4], "big"), 12), len(head))
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, size - 3, 4))}
        if brands & _AVIF_BRANDS:
            return "avif"
        if head[8:12] in _HEIF_BRANDS:
            return "heif"
    return None


_BMP_HEADER_SIZES = frozenset(size.to_bytes(4, "little") for size in (12, 16, 40, 52, 56, 64, 108, 124))


def sniff(path: Path) -> bool:
    """Whether a file that has no picture's suffix is one by its first bytes. False when it cannot be read."""
    if path.suffix.lower() in RAW_SUFFIXES:
        return False
    try:
        with _open_file(os.fsencode(path)) as file:
            return picture_format(file.read(HEAD_BYTES)) is not None
    except OSError:
        return False


def read(path: Path, max_megabytes: float) -> tuple[bytes, bytes, int, int]:
    """(bytes, their sha256 as 32 bytes, size in bytes, mtime_ns) of a picture file.

    Raises PictureError, in one line that leaves out the path: unreadable, gone, no regular file, empty, larger than
    `max_megabytes` (noticed before reading), or changed while it was read.
    """
    try:
        with _open_file(os.fsencode(path)) as file:
            before = os.fstat(file.fileno())
            if before.st_size > max_megabytes * 1e6:
                raise PictureError(
                    f"the file has {before.st_size / 1e6:,.1f} MB; the limit is {max_megabytes:g} MB a picture"
                )
            data = file.read(before.st_size + 1)
            after = os.fstat(file.fileno())
    except OSError as error:
        raise PictureError(reason(error)) from error
    if len(data) != after.st_size or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise PictureError("the file changed while it was read; it will be read again by the next run")
    if not data:
        raise PictureError("the file is empty")
    return data, hashlib.sha256(data).digest(), after.st_size, after.st_mtime_ns


def reason(error: OSError) -> str:
    """What went wrong with a file, in one line without its path."""
    if isinstance(error, PermissionError):
        return "permission to read it is denied"
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    if isinstance(error, IsADirectoryError):
        return "it is a folder, not a file"
    return f"it cannot be read: {(error.strerror or str(error)).lower()}"


def _open_file(path: bytes) -> Any:
    """A regular file, opened for unbuffered reading. Raises OSError. Never waits for a FIFO's writer."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(path)
        if not stat.S_ISREG(mode):
            raise OSError("it is not a regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
