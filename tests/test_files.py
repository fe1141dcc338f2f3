"""files.py: the walk against a slow walk and against git, links, odd names, sniffing, reading."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from mmsearch.errors import PictureError, UsageError
from mmsearch.files import DEAD_LINK, FoundFile, picture_format, read, sniff, walk


def touch(root: Path, *names: str | bytes, content: bytes = b"x") -> None:
    for name in names:
        path = Path(os.fsdecode(os.path.join(os.fsencode(root), os.fsencode(name))))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def unexpected(relative: bytes, why: str) -> None:
    raise AssertionError(f"{relative!r} was called unreadable: {why}")


def found(root: Path, **options: object) -> list[FoundFile]:
    return list(walk(root, **{"on_unreadable": unexpected, **options}))  # type: ignore[arg-type]


def names(root: Path, **options: object) -> list[bytes]:
    return [file.relative for file in found(root, **options)]


def test_files_come_in_the_order_of_their_whole_path(tmp_path: Path) -> None:
    touch(tmp_path, "a/z.jpg", "a.jpg", "a-b/c.jpg", "a0.jpg", "b.jpg", "a/b/c.jpg", "a/b.jpg", b"\xff\xfe/\x80.jpg")
    got = names(tmp_path)
    everything = [
        os.path.relpath(os.path.join(os.fsencode(folder), os.fsencode(name)), os.fsencode(tmp_path))
        for folder, _, files in os.walk(tmp_path)
        for name in files
    ]
    assert got == sorted(everything)
    assert b"\xff\xfe/\x80.jpg" in got


def test_a_file_is_described_by_its_status(tmp_path: Path) -> None:
    touch(tmp_path, "a.JPG", content=b"12345")
    touch(tmp_path, "b.bin")
    os.utime(tmp_path / "a.JPG", ns=(5, 1_234_567_890_123_456_789))
    status = (tmp_path / "b.bin").stat()
    assert found(tmp_path) == [
        FoundFile(b"a.JPG", 5, 1_234_567_890_123_456_789, None, True),
        FoundFile(b"b.bin", 1, status.st_mtime_ns, None, False),
    ]


def test_sidecars_belong_to_their_pictures(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.png", "b.txt", "c.JPEG", "d.bin", "d.txt", "e/a.jpg")
    touch(tmp_path, "a.txt", "c.TXT", content=b"A dog.\n")
    os.utime(tmp_path / "a.txt", ns=(0, 77))
    by_name = {file.relative: file for file in found(tmp_path)}
    assert sorted(by_name) == [b"a.jpg", b"a.png", b"b.txt", b"c.JPEG", b"d.bin", b"d.txt", b"e/a.jpg"]
    assert by_name[b"a.jpg"].sidecar == by_name[b"a.png"].sidecar == (7, 77)
    assert by_name[b"c.JPEG"].sidecar == (7, (tmp_path / "c.TXT").stat().st_mtime_ns)
    assert by_name[b"e/a.jpg"].sidecar is None
    assert by_name[b"b.txt"].sidecar is None


def test_an_ignored_sidecar_is_none(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.txt")
    assert [file.sidecar for file in found(tmp_path, exclude=["*.txt"])] == [None]


def test_what_is_left_out(tmp_path: Path) -> None:
    touch(tmp_path, ".hidden/a.jpg", "._b.jpg", ".dot.jpg", "c.jpg", "inner/catalog.sqlite", "inner/deep/d.jpg")
    touch(tmp_path, ".mmsearchignore", content=b"")
    os.mkfifo(tmp_path / "fifo.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        old = Path.cwd()
        os.chdir(tmp_path)  # the path of a socket may only be short
        try:
            server.bind("socket.jpg")
        finally:
            os.chdir(old)
        assert [name for name in names(tmp_path) if name.endswith(b".jpg")] == [
            b".dot.jpg",
            b"c.jpg",
            b"inner/deep/d.jpg",  # pictures beside a collection are pictures
        ]


def test_a_root_that_is_a_collection_keeps_its_pictures(tmp_path: Path) -> None:
    touch(tmp_path, "catalog.sqlite", "a.jpg", "index/lite/x.jpg", "thumbnails/t.jpg", "sub/b.jpg")
    assert names(tmp_path) == [b"a.jpg", b"catalog.sqlite", b"sub/b.jpg"]


def test_a_root_that_is_away_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        names(tmp_path / "away")
    touch(tmp_path, "a.jpg")
    with pytest.raises(NotADirectoryError):
        names(tmp_path / "a.jpg")


# --- links


def test_links_to_files_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "root/keep.jpg", "outside.jpg", content=b"1234")
    (tmp_path / "root/link.jpg").symlink_to(tmp_path / "outside.jpg")
    (tmp_path / "root/other.jpg").symlink_to("keep.jpg")
    assert [(file.relative, file.size) for file in found(tmp_path / "root")] == [
        (b"keep.jpg", 4),
        (b"link.jpg", 4),
        (b"other.jpg", 4),
    ]


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "self.png").symlink_to("self.png")
    (tmp_path / "disk").symlink_to("/nonexistent/photos")
    (tmp_path / ".lock").symlink_to("127.0.1.1:4711")
    away: list[tuple[bytes, str]] = []
    got = found(tmp_path, on_unreadable=lambda relative, why: away.append((relative, why)))
    assert got == [FoundFile(b"gone.jpg", -1, 0, None, True), FoundFile(b"self.png", -1, 0, None, True)]
    assert away == [(b"disk", DEAD_LINK)]


def test_links_to_folders(tmp_path: Path) -> None:
    touch(tmp_path, "root/a/1.jpg", "out/2.jpg", "out/deep/3.jpg")
    for link, target in {
        "root/b_inside": "root/a",  # inside the root: has its own place
        "root/c_loop": "root",
        "root/d_out": "out",
        "root/e_again": "out",  # walked already
        "root/f_parent": ".",  # holds the root, and what was walked
        "out/back": "root/a",
        "out/self": "out",
    }.items():
        (tmp_path / link).symlink_to(tmp_path / target)
    assert names(tmp_path / "root") == [b"a/1.jpg", b"d_out/2.jpg", b"d_out/deep/3.jpg"]


def test_a_root_that_is_a_link(tmp_path: Path) -> None:
    touch(tmp_path, "real/a/1.jpg")
    (tmp_path / "real/loop").symlink_to(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    assert names(tmp_path / "link") == [b"a/1.jpg"]


# --- what cannot be read


def failing_scandir(monkeypatch: pytest.MonkeyPatch, ending: bytes, number: int) -> None:
    real = os.scandir

    def scandir(path: bytes) -> object:
        if path.rstrip(b"/").endswith(ending):
            raise OSError(number, os.strerror(number))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg", "c/3.jpg")
    failing_scandir(monkeypatch, b"/b", errno.EACCES)
    away: list[tuple[bytes, str]] = []
    assert names(tmp_path, on_unreadable=lambda *told: away.append(told)) == [b"a/1.jpg", b"c/3.jpg"]
    assert away == [(b"b", "permission to read it is denied")]
    failing_scandir(monkeypatch, b"/c", errno.EIO)
    away.clear()
    assert names(tmp_path, on_unreadable=lambda *told: away.append(told)) == [b"a/1.jpg"]
    assert away[1] == (b"c", "it cannot be read: input/output error")


def test_a_folder_that_vanished_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    failing_scandir(monkeypatch, b"/b", errno.ENOENT)
    assert names(tmp_path) == [b"a/1.jpg"]


def test_a_root_that_cannot_be_listed_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_scandir(monkeypatch, os.fsencode(tmp_path.name), errno.EACCES)
    with pytest.raises(PermissionError):
        names(tmp_path)


def test_permissions_of_the_system(tmp_path: Path) -> None:
    touch(tmp_path, "closed/1.jpg", "listed/2.jpg", "open/3.jpg", "open/4.jpg")
    away: list[bytes] = []
    try:
        (tmp_path / "closed").chmod(0)
        (tmp_path / "listed").chmod(0o444)
        (tmp_path / "open/4.jpg").chmod(0)
        if os.access(tmp_path / "closed", os.R_OK):
            pytest.skip("this user may read everything")
        got = names(tmp_path, on_unreadable=lambda relative, _: away.append(relative))
        with pytest.raises(PictureError, match="permission to read it is denied"):
            read(tmp_path / "open/4.jpg", 1.0)
    finally:
        (tmp_path / "closed").chmod(0o755)
        (tmp_path / "listed").chmod(0o755)
    assert got == [b"open/3.jpg", b"open/4.jpg"]
    assert away == [b"closed", b"listed"]


# --- ignore rules


def git_says(root: Path) -> list[bytes]:
    """An independent reading of the same rules."""
    subprocess.run(["git", "init", "-q", str(root)], check=True, capture_output=True)
    command = ["git", "-C", str(root), "ls-files", "-o", "-z", "--exclude-per-directory=.mmsearchignore"]
    listed = subprocess.run(command, check=True, capture_output=True).stdout.split(b"\0")
    shutil.rmtree(root / ".git")
    return sorted(name for name in listed if name and not name.endswith(b".mmsearchignore"))


PATTERNS = [
    "a",
    "a/",
    "/a",
    "!a/",
    "a/b",
    "foo/**",
    "!foo/keep.jpg",
    "*.jpg",
    "!keep.jpg",
    "!*.jpg",
    "/foo/*",
    "*",
    "!*/",
    "b/x.jpg",
    "\\#c",
    "#c",
    "[xy].*",
    "?",
    "f*/",
    "/*/x.jpg",
    "a/**/b",
    "**/a/**",
    "a/**/",
    "!/foo/keep.jpg",
]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the judge and is not installed")
@pytest.mark.parametrize("seed", range(40))
def test_ignore_files_mean_what_they_mean_to_git(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    folders = [tmp_path]
    for _ in range(8):
        folders.append(draw.choice(folders) / draw.choice(["a", "b", "foo", "w[x]"]))
        folders[-1].mkdir(exist_ok=True)
    for folder in folders:
        touch(folder, *draw.sample(["x.jpg", "y.tmp", "keep.jpg", "#c", "q"], 3))
    for folder in draw.sample(folders, 2):
        (folder / ".mmsearchignore").write_text("\n".join(draw.sample(PATTERNS, draw.randint(1, 3))) + "\n")
    assert names(tmp_path) == git_says(tmp_path)


def test_nested_ignore_files_and_negation(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.tmp", "in/b.tmp", "in/c.jpg", "in/deep/d.tmp", "out/e.jpg", "build/f.jpg", "x/build")
    touch(tmp_path, ".mmsearchignore", content="\ufeff# comment\r\n*.tmp\r\n/out\r\nbuild/\r\n\r\n".encode())
    touch(tmp_path, "in/.mmsearchignore", content=b"!b.tmp\nc.*\n")
    assert names(tmp_path) == [b"a.jpg", b"in/b.tmp", b"x/build"]


def test_ignore_files_in_any_encoding_and_with_nonsense(tmp_path: Path) -> None:
    touch(tmp_path, b"\xe9.jpg", "b.jpg", "c.jpg")
    touch(tmp_path, ".mmsearchignore", content=b"\xe9.jpg\n!\nc.jpg\n")
    assert names(tmp_path) == [b"b.jpg"]


def test_exclude_outranks_the_ignore_files(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "drafts/b.jpg", "c/drafts/d.jpg", "c/e.tif")
    touch(tmp_path, ".mmsearchignore", content=b"!*.tif\n")
    assert names(tmp_path, exclude=["drafts/", "*.tif"]) == [b"a.jpg"]
    assert names(tmp_path, exclude=["/drafts/"]) == [b"a.jpg", b"c/drafts/d.jpg", b"c/e.tif"]
    with pytest.raises(UsageError, match="no gitignore pattern"):
        names(tmp_path, exclude=["!"])


# --- a part of a root


def test_a_part_is_what_a_whole_walk_says_of_it(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/b/2.jpg", "a/b/3.tmp", "ab/4.jpg", "a/b/c/5.jpg", ".dot/6.jpg", "no/7.jpg")
    touch(tmp_path, "inner/catalog.sqlite", "inner/8.jpg")
    touch(tmp_path, ".mmsearchignore", content=b"*.tmp\nno\n")
    touch(tmp_path, "a/.mmsearchignore", content=b"/b/c\n")
    (tmp_path / "loop").symlink_to(tmp_path / "a")
    whole = found(tmp_path)
    for under in (b"", b"a", b"a/", b"a/b", b"a/b/c", b"ab", b".dot", b"no", b"inner", b"loop", b"a/1.jpg", b"gone"):
        prefix = under.rstrip(b"/") + b"/" if under else b""
        assert found(tmp_path, under=under) == [file for file in whole if file.relative.startswith(prefix)], under
    assert names(tmp_path, under=b"a/b") == [b"a/b/2.jpg"]


# --- first bytes

HEADS = {
    b"\xff\xd8\xff\xe0\x00\x10JFIF": "jpeg",
    b"\x89PNG\r\n\x1a\n\x00\x00": "png",
    b"GIF89a": "gif",
    b"RIFF\x00\x00\x00\x00WEBPVP8 ": "webp",
    b"BM\x00\x00\x00\x00\x00\x00\x00\x00\x36\x00\x00\x00\x28\x00\x00\x00": "bmp",
    b"MM\x00*": "tiff",
    b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00": "avif",
    b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1avif": "avif",
    b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic": "heif",
    b"\x00\x00\x00\x14ftypisom\x00\x00\x00\x00mp42": None,  # a film
    b"P6\n3 2\n255\n": "ppm",
    b"P1\n# Created by GIMP version 2.10.36 PNM plug-in\n24 7\n0 1": "ppm",
    b"P": None,
    b"P1 is the first task.": None,
    b"P3 2024\nmeeting": None,
    b"PK\x03\x04": None,
    b"BMW is a car maker": None,
    b"%PDF-1.7": None,
    b"%!PS-Adobe-3.0 EPSF": None,
    b"RIFF\x00\x00\x00\x00WAVE": None,
    b"": None,
}


@pytest.mark.parametrize(("head", "expected"), HEADS.items())
def test_first_bytes(head: bytes, expected: str | None, tmp_path: Path) -> None:
    assert picture_format(head) == expected
    (tmp_path / "unknown").write_bytes(head)
    assert sniff(tmp_path / "unknown") is (expected is not None)


def test_sniff_of_what_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert not sniff(tmp_path / "fifo")
    assert not sniff(tmp_path)
    assert not sniff(tmp_path / "gone")


def test_raw_photographs_are_not_taken_for_tiff(tmp_path: Path) -> None:
    touch(tmp_path, "a.NEF", "a.tiffish", content=b"II*\x00\x08\x00\x00\x00")
    assert not sniff(tmp_path / "a.NEF")
    assert sniff(tmp_path / "a.tiffish")


# --- reading


def test_read_gives_bytes_digest_size_and_time(tmp_path: Path) -> None:
    content = random.Random(0).randbytes(3_000_000)
    touch(tmp_path, b"\xff.jpg", content=content)
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg"))
    assert read(path, 3.0) == (content, hashlib.sha256(content).digest(), 3_000_000, path.stat().st_mtime_ns)


def test_read_says_why_not_and_not_where(tmp_path: Path) -> None:
    touch(tmp_path, "empty.jpg", content=b"")
    touch(tmp_path, "large.jpg", content=b"x" * 1_000_001)
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    for name, why in {
        "empty.jpg": "the file is empty",
        "large.jpg": "the file has 1.0 MB; the limit is 1 MB a picture",
        "gone.jpg": "it is not there",
        "fifo.jpg": "it cannot be read: it is not a regular file",
        "loop.jpg": "it cannot be read: too many levels of symbolic links",
        ".": "it is a folder, not a file",
    }.items():
        with pytest.raises(PictureError) as caught:
            read(tmp_path / name, 1.0)
        assert str(caught.value) == why


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing
    with pytest.raises(PictureError, match=r"1,099,511\.6 MB; the limit is 200 MB"):
        read(tmp_path / "sparse.jpg", 200.0)


@pytest.mark.parametrize("change", ["longer", "shorter", "touched"])
def test_a_file_that_changes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"12345")
    real, calls = os.fstat, []

    def fstat(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        calls.append(status)
        if len(calls) == 2:  # once to see that it is a file, once before reading
            if change == "longer":
                path.write_bytes(b"123456")
            elif change == "shorter":
                path.write_bytes(b"1")
            else:
                os.utime(path, ns=(1, 1))
        return status

    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(PictureError, match="changed while it was read; it will be read again by the next run"):
        read(path, 1.0)
