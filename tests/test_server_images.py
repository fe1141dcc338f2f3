"""Thumbnails and originals: upright, cached, with ETags and ranges; exports as a ZIP."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from mmsearch import Engine
from mmsearch.server.thumbnails import Thumbnails
from mmsearch.settings import Limits
from tests.conftest import paint
from tests.serving import V1, Running, problem, serving


@pytest.fixture
def server(engine: Engine, images: Path) -> Iterator[Running]:
    engine.index(images)
    with serving(engine) as running:
        yield running


def image_named(server: Running, name: str) -> int:
    hits = server.http.get(f"{V1}/images", params={"k": 100}).json()["hits"]
    return next(int(hit["id"]) for hit in hits if hit["name"] == name)


# --- thumbnails -----------------------------------------------------------------------------------------------------


def test_thumbnails_are_upright_and_as_large_as_asked(engine: Engine, tmp_path: Path) -> None:
    wide = Image.new("RGB", (1200, 800), "red")
    wide.paste("blue", (0, 0, 1200, 200))  # blue is above; turned by the camera, it is at the left of the file
    exif = Image.Exif()
    exif[0x0112] = 6
    folder = tmp_path / "images"
    folder.mkdir()
    wide.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", exif=exif, quality=95)
    Image.new("RGB", (50, 2000), "green").save(folder / "tall.png")
    Image.new("RGB", (40, 30), "white").save(folder / "small.png")
    engine.index(folder)
    with serving(engine) as server:

        def shown(name: str, size: int) -> Image.Image:
            answer = server.http.get(f"{V1}/images/{image_named(server, name)}/thumbnail", params={"size": size})
            assert answer.headers["content-type"] == "image/webp"
            return Image.open(io.BytesIO(answer.content)).convert("RGB")

        turned = shown("turned.jpg", 160)
        assert turned.size == (240, 160)
        above, below = turned.getpixel((120, 10)), turned.getpixel((120, 150))
        assert above[2] > 200 > 60 > above[0] and below[0] > 200 > 60 > below[2]  # type: ignore[index]
        assert shown("tall.png", 320).size == (24, 960)  # the longer side has an end, too
        assert shown("small.png", 640).size == (40, 30)  # nothing is made larger
        assert server.http.get(f"{V1}/images/1/thumbnail", params={"size": 100}).status_code == 422


def test_thumbnails_are_kept_and_have_an_etag(server: Running, engine: Engine, images: Path) -> None:
    image = image_named(server, "red.png")
    first = server.http.get(f"{V1}/images/{image}/thumbnail")
    etag = first.headers["etag"]
    assert etag.startswith('"') and "immutable" in first.headers["cache-control"]
    [kept] = (engine.folder / "thumbnails").rglob("*.webp")
    assert kept.read_bytes() == first.content
    (images / "red.png").rename(images / "elsewhere.dat")  # the original is not read again
    again = server.http.get(f"{V1}/images/{image}/thumbnail")
    assert again.content == first.content
    for known in (etag, f'"x", {etag}', f"W/{etag}", "*"):
        unchanged = server.http.get(f"{V1}/images/{image}/thumbnail", headers={"If-None-Match": known})
        assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", etag)
    other = server.http.get(f"{V1}/images/{image}/thumbnail", headers={"If-None-Match": '"x"'})
    assert other.status_code == 200
    smaller = server.http.get(f"{V1}/images/{image}/thumbnail?size=640", headers={"If-None-Match": etag})
    assert smaller.status_code == 404  # another size is another thing, and its file is gone
    kept.unlink()
    assert "gone" in problem(server.http.get(f"{V1}/images/{image}/thumbnail"), 404)


def test_a_folder_that_cannot_be_written_costs_memory_alone(tmp_path: Path) -> None:
    picture = paint(tmp_path / "red.png", "red", size=(300, 200)).read_bytes()
    (tmp_path / "collection").mkdir()
    (tmp_path / "collection" / "thumbnails").write_text("in the way")
    thumbnails = Thumbnails(Limits())
    read = []

    def content() -> bytes:
        read.append(1)
        return picture

    first = thumbnails.get(tmp_path / "collection", "ab" * 32, 160, content)
    assert thumbnails.get(tmp_path / "collection", "ab" * 32, 160, content) == first
    assert len(read) == 1


def test_memory_of_thumbnails_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = paint(tmp_path / "red.png", "red", size=(300, 200)).read_bytes()
    (tmp_path / "thumbnails").write_text("in the way")
    thumbnails = Thumbnails(Limits())
    size = len(thumbnails.get(tmp_path, "00" * 32, 160, lambda: picture))
    monkeypatch.setattr("mmsearch.server.thumbnails.MEMORY_BYTES", 3 * size)
    for number in range(1, 10):
        thumbnails.get(tmp_path, f"{number:02x}" * 32, 160, lambda: picture)
    assert [key[0][:2] for key in thumbnails._memory] == ["07", "08", "09"]
    assert thumbnails._bytes == 3 * size


def test_a_picture_that_broke_since_is_said_so(engine: Engine, tmp_path: Path) -> None:
    path = paint(tmp_path / "images" / "red.png", "red", size=(200, 100))
    engine.index(tmp_path / "images")
    status = path.stat()
    path.write_bytes(path.read_bytes()[:8].ljust(status.st_size, b"?"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a failing disk would leave it
    with serving(engine) as server:
        assert "PNG" in problem(server.http.get(f"{V1}/images/1/thumbnail"), 400)


def test_what_has_no_file(engine: Engine) -> None:
    image = engine.add("shop/1", Image.new("RGB", (50, 20), "red"))
    with serving(engine) as server:
        for what in ("original", "thumbnail"):
            assert "by key" in problem(server.http.get(f"{V1}/images/{image}/{what}"), 404)
        assert server.http.get(f"{V1}/images/{image}").json()["key"] == "shop/1"
        assert server.http.get(f"{V1}/images").json()["hits"][0]["name"] == "shop/1"
        assert "no image #99" in problem(server.http.get(f"{V1}/images/99/original"), 404)


# --- originals ------------------------------------------------------------------------------------------------------


def test_originals_are_the_file(server: Running, images: Path) -> None:
    for name, kind in (("red.png", "image/png"), ("red one.jpg", "image/jpeg"), ("red two.webp", "image/webp")):
        answer = server.http.get(f"{V1}/images/{image_named(server, name)}/original")
        [path] = images.rglob(name)
        assert answer.content == path.read_bytes()
        assert answer.headers["content-type"] == kind
        assert answer.headers["content-length"] == str(path.stat().st_size)
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["content-disposition"] == f"inline; filename*=UTF-8''{name.replace(' ', '%20')}"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=0-9", slice(0, 10)),
        ("bytes=5-", slice(5, None)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=10-99999999", slice(10, None)),
        ("bytes=-99999999", slice(0, None)),
    ],
)
def test_ranges(server: Running, images: Path, asked: str, expected: slice) -> None:
    data = (images / "red.png").read_bytes()
    answer = server.http.get(f"{V1}/images/{image_named(server, 'red.png')}/original", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, data[expected])
    first = expected.indices(len(data))[0]
    last = first + len(answer.content) - 1
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(data)}"
    assert answer.headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=9-3", "bytes=-0", "bytes=-"])
def test_ranges_that_are_not_there(server: Running, images: Path, asked: str) -> None:
    size = (images / "red.png").stat().st_size
    answer = server.http.get(f"{V1}/images/{image_named(server, 'red.png')}/original", headers={"Range": asked})
    assert "no such range" in problem(answer, 416)
    assert answer.headers["content-range"] == f"bytes */{size}"


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "bytes=x-y", "lines=1-2", "bytes=" + "9" * 30 + "-"])
def test_ranges_that_are_not_understood_give_the_whole(server: Running, images: Path, asked: str) -> None:
    answer = server.http.get(f"{V1}/images/{image_named(server, 'red.png')}/original", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, (images / "red.png").read_bytes())


def test_what_has_not_changed_is_not_sent_again(server: Running, images: Path) -> None:
    url = f"{V1}/images/{image_named(server, 'red.png')}/original"
    etag = server.http.get(url).headers["etag"]
    unchanged = server.http.get(url, headers={"If-None-Match": etag})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    part = {"Range": "bytes=0-3"}
    assert server.http.get(url, headers={**part, "If-Range": etag}).status_code == 206
    assert server.http.get(url, headers={**part, "If-Range": '"another"'}).status_code == 200


def test_files_are_closed(server: Running) -> None:
    url = f"{V1}/images/{image_named(server, 'red.png')}/original"
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    for headers in ({}, {"Range": "bytes=0-3"}, {"Range": "bytes=9999999-"}, {"If-None-Match": "*"}):
        for _ in range(5):
            server.http.get(url, headers=headers)
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) <= before + 1


# --- export ---------------------------------------------------------------------------------------------------------


def test_an_export_has_the_files_under_names_of_their_own(engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for number, name in enumerate(("a/x.png", "b/x.png", "c/X.png", "ä ☃.png", "gone.png")):
        paint(folder / name, "red", number)
    engine.index(folder)
    (folder / "gone.png").unlink()
    with serving(engine) as server:
        hits = server.http.get(f"{V1}/images").json()["hits"]
        ids = [hit["id"] for hit in sorted(hits, key=lambda hit: hit["path"])]
        answer = server.http.post(f"{V1}/export", json={"ids": [*ids, ids[0]]})
        assert answer.headers["content-type"] == "application/zip"
        assert "attachment" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["x.png", "x (2).png", "X (3).png", "ä ☃.png", "not exported.txt"]
        assert archive.read("x (2).png") == (folder / "b" / "x.png").read_bytes()
        assert b"gone" in archive.read("not exported.txt")


def test_exports_that_cannot_be(server: Running) -> None:
    assert "no image #99" in problem(server.http.post(f"{V1}/export", json={"ids": [99]}), 404)
    problem(server.http.post(f"{V1}/export", json={"ids": []}), 422)
    problem(server.http.post(f"{V1}/export", json={"ids": list(range(2001))}), 422)
