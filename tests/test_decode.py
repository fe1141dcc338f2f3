"""decode.py: pixels by value in every mode and format, orientation, sizes, limits, damage, silence, threads."""

from __future__ import annotations

import io
import re
import struct
import sys
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from mmsearch.decode import Decoded, decode, to_rgb
from mmsearch.errors import PictureError
from mmsearch.settings import Limits

Pixels = NDArray[np.uint8]


def open_file(data: bytes, *, target: int = 64, megapixels: float = 20) -> Decoded:
    return decode(data, target=target, limits=Limits(max_megapixels=megapixels))


def pixels(data: bytes, target: int = 64) -> Pixels:
    decoded = open_file(data, target=target)
    assert decoded.picture.mode == "RGB"
    assert type(decoded.picture) is Image.Image
    assert decoded.picture.info == {}
    return np.asarray(decoded.picture)


def saved(picture: Image.Image, format: str, **options: Any) -> bytes:  # noqa: A002 (Pillow's word)
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def heif(picture: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pytest.importorskip("pillow_heif", reason="the extra heif is not installed").from_pillow(picture).save(
        buffer, quality=-1, chroma=444, **options
    )
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: bytes) -> bytes:
    """A PNG written by hand, with whatever Pillow does not write."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + body


def scene(width: int = 60, height: int = 40) -> Image.Image:
    """Smooth, and different at every corner."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return Image.fromarray(np.stack([255 * x, 255 * y, 255 * (1 - x) * (1 - y)], axis=-1).astype(np.uint8))


def near(got: Pixels, expected: Pixels, tolerance: float) -> None:
    assert got.shape == expected.shape
    assert np.abs(got.astype(int) - expected.astype(int)).mean() <= tolerance


# --- formats: (bytes of the scene, mean error that the format may make)

ENCODED: dict[str, tuple[Any, float]] = {
    "jpeg": (lambda p: saved(p, "JPEG", quality=95, subsampling=0), 1.5),
    "jpeg progressive": (lambda p: saved(p, "JPEG", quality=95, subsampling=0, progressive=True), 1.5),
    "jpeg cmyk": (lambda p: saved(p.convert("CMYK"), "JPEG", quality=98, subsampling=0), 1.5),
    "jpeg mpo": (lambda p: saved(p, "MPO", save_all=True, append_images=[p.rotate(90)], quality=95), 3),
    "png": (lambda p: saved(p, "PNG"), 0),
    "png interlaced 16-bit": (lambda p: rgb16(p), 0),
    "webp": (lambda p: saved(p, "WEBP", lossless=True), 0),
    "bmp": (lambda p: saved(p, "BMP"), 0),
    "tiff": (lambda p: saved(p, "TIFF"), 0),
    "tiff lzw": (lambda p: saved(p, "TIFF", compression="tiff_lzw"), 0),
    "tiff cmyk": (lambda p: saved(p.convert("CMYK"), "TIFF"), 0),
    "tiff lab": (lambda p: saved(p.convert("LAB"), "TIFF"), 4),
    "tiff big": (lambda p: saved(p, "TIFF", big_tiff=True), 0),
    "jpeg2000": (lambda p: saved(p, "JPEG2000"), 0),
    "jpeg2000 codestream": (lambda p: saved(p, "JPEG2000", no_jp2=True), 0),
    "ppm": (lambda p: saved(p, "PPM"), 0),
    "tga": (lambda p: saved(p, "TGA"), 0),
    "tga rle": (lambda p: saved(p, "TGA", compression="tga_rle"), 0),
    "avif": (lambda p: saved(p, "AVIF", quality=100, subsampling="4:4:4"), 1.5),
    "heif": (lambda p: heif(p), 2),
    "psd": (lambda p: psd(p), 0),
}


def rgb16(picture: Image.Image) -> bytes:
    wide = np.asarray(picture).astype(">u2") * 257
    return png(*picture.size, 16, 2, b"".join(b"\0" + row.tobytes() for row in wide.astype(">u2")))


def psd(picture: Image.Image) -> bytes:
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, picture.height, picture.width, 8, 3)
    planes = b"".join(band.tobytes() for band in picture.split())
    return header + struct.pack(">III", 0, 0, 0) + b"\0\0" + planes


@pytest.mark.parametrize("name", ENCODED)
def test_formats_keep_their_colours(name: str) -> None:
    make, tolerance = ENCODED[name]
    decoded = open_file(make(scene()))
    near(np.asarray(decoded.picture), np.asarray(scene()), tolerance)
    assert (decoded.width, decoded.height, decoded.format) == (60, 40, name.split()[0])


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_first_frame_of_several(format: str) -> None:  # noqa: A002 (Pillow's word)
    red, blue = (Image.new("RGB", (32, 16), colour) for colour in ("red", "blue"))
    data = saved(red, format, save_all=True, append_images=[blue, red])
    near(pixels(data), np.asarray(red), 3)


# --- modes


def test_transparent_parts_become_white() -> None:
    half = np.zeros((2, 3, 4), np.uint8)
    half[..., 0] = 200
    half[:, 1, 3], half[:, 2, 3] = 128, 255
    expected = np.array([[255, 255, 255], [227, 127, 127], [200, 0, 0]], np.uint8)
    for format in ("PNG", "TIFF", "TGA", "WEBP"):  # noqa: A001
        options = {"lossless": True, "exact": True} if format == "WEBP" else {}
        near(pixels(saved(Image.fromarray(half), format, **options))[0], expected, 0.5)


def test_transparency_of_grey_and_palette() -> None:
    grey = Image.new("LA", (2, 1))
    grey.putpixel((0, 0), (50, 0))
    grey.putpixel((1, 0), (50, 255))
    assert pixels(saved(grey, "PNG"))[0].tolist() == [[255] * 3, [50] * 3]
    palette = chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0]))
    rows = b"\0\0\1"
    # One alpha a colour, shorter than the palette; then one transparent colour.
    assert pixels(png(2, 1, 8, 3, rows, palette, chunk(b"tRNS", b"\x80")))[0].tolist() == [[255, 127, 127], [0, 255, 0]]
    assert pixels(png(2, 1, 8, 3, rows, palette, chunk(b"tRNS", b"\xff\0")))[0].tolist() == [[255, 0, 0], [255] * 3]
    gif = Image.new("P", (2, 1))
    gif.putpalette([255, 0, 0, 0, 0, 255])
    gif.putpixel((1, 0), 1)
    assert pixels(saved(gif, "GIF", transparency=0))[0].tolist() == [[255] * 3, [0, 0, 255]]


@pytest.mark.parametrize(
    ("depth", "colour", "row", "key", "expected"),
    [
        (1, 0, b"\x40", b"\0\0", [[255] * 3, [255] * 3]),
        (1, 0, b"\x40", b"\0\1", [[0] * 3, [255] * 3]),
        (8, 0, b"\x0a\xc8", b"\0\x0a", [[255] * 3, [200] * 3]),
        (16, 0, struct.pack(">2H", 1000, 40000), struct.pack(">H", 1000), [[255] * 3, [156] * 3]),
        (8, 2, bytes([10, 20, 30, 255, 0, 0]), bytes([0, 10, 0, 20, 0, 30]), [[255] * 3, [255, 0, 0]]),
        (
            16,
            2,
            struct.pack(">6H", 999, 2999, 39, 65535, 0, 0),
            struct.pack(">3H", 999, 2999, 39),
            [[255] * 3, [255, 0, 0]],
        ),
    ],
)
def test_a_transparent_colour_of_a_png(depth: int, colour: int, row: bytes, key: bytes, expected: list[Any]) -> None:
    assert pixels(png(2, 1, depth, colour, b"\0" + row, chunk(b"tRNS", key)))[0].tolist() == expected


RAMP = np.linspace(0, 65535, 20 * 30).reshape(20, 30)


@pytest.mark.parametrize(
    ("values", "format"),
    [
        (RAMP.astype("<u2"), "PNG"),
        (RAMP.astype("<u2"), "TIFF"),
        (RAMP.astype(">u2"), "TIFF"),
        (RAMP.astype("<u2"), "PPM"),
        (RAMP.astype("<u2"), "JPEG2000"),
        (RAMP.astype("<i4"), "TIFF"),
        ((RAMP * 1000).astype("<i4"), "TIFF"),
        ((RAMP - 30_000).astype("<i4"), "TIFF"),
        ((RAMP / 257).astype("<i4"), "TIFF"),
        (RAMP.astype("<f4"), "TIFF"),
        ((RAMP / 65535 * 2 - 1).astype("<f4"), "TIFF"),
    ],
)
def test_deep_greys_keep_their_gradation(values: NDArray[Any], format: str) -> None:  # noqa: A002
    got = pixels(saved(Image.fromarray(values), format))
    assert (got[..., 0] == got[..., 1]).all()
    assert (got[..., 0] == got[..., 2]).all()
    assert np.abs(got[..., 0] - RAMP / 257).max() <= 1.01


def test_sixteen_bits_are_not_stretched() -> None:
    """A dark 16-bit picture stays dark: its scale is known."""
    assert pixels(saved(Image.fromarray((RAMP / 4).astype("<u2")), "PNG")).max() == 63


def test_floats_with_holes() -> None:
    values = RAMP.astype("<f4")
    values[0, 0], values[0, 1], values[19, 29] = np.nan, -np.inf, np.inf
    got = pixels(saved(Image.fromarray(values), "TIFF"))[..., 0]
    assert got[0, 0] == got[0, 1] == 0
    assert got[19, 29] == 255
    rest = RAMP.ravel()[2:-1]
    assert np.abs(got.ravel()[2:-1] - 255 * (rest - rest.min()) / (rest.max() - rest.min())).max() <= 0.51
    assert pixels(saved(Image.fromarray(np.full((4, 4), np.nan, "<f4")), "TIFF")).max() == 0
    assert pixels(saved(Image.fromarray(np.full((4, 4), 0.5, "<f4")), "TIFF")).max() == 0


def test_black_and_white_and_grey_and_palette() -> None:
    grey = scene().convert("L")
    for format in ("PNG", "TIFF", "BMP", "PPM"):  # noqa: A001
        assert (pixels(saved(grey, format)) == np.asarray(grey)[..., None]).all()
        assert (pixels(saved(grey.convert("1"), format)) == np.asarray(grey.convert("1"))[..., None] * 255).all()
    for format in ("PNG", "GIF", "BMP", "TIFF"):  # noqa: A001
        paletted = scene().convert("P")
        assert (pixels(saved(paletted, format)) == np.asarray(paletted.convert("RGB"))).all()


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F"]
)
def test_pictures_that_applications_hand_over(mode: str) -> None:
    through = {"La": "LA", "RGBa": "RGBA", "PA": "P"}.get(mode)
    source = Image.new("RGB", (12, 8), (204, 102, 51))
    given = (source.convert(through) if through else source).convert(mode)
    before = given.copy()
    got = to_rgb(given, target=64)
    assert given.tobytes() == before.tobytes()
    assert got.mode == "RGB"
    assert got is not given
    if mode not in ("1", "F"):
        expected = source if given.mode not in ("L", "LA", "La", "I") else source.convert("L").convert("RGB")
        near(np.asarray(got), np.asarray(expected), 2)


# --- orientation


def turned(upright: Pixels, orientation: int) -> Pixels:
    """What the file stores, by the words of the EXIF standard: which visual side row 0 and column 0 are."""
    row_0, column_0 = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    stored = upright if row_0 in ("top", "bottom") else upright.swapaxes(0, 1)
    if row_0 in ("bottom", "right"):
        stored = stored[::-1]
    if column_0 in ("bottom", "right"):
        stored = stored[:, ::-1]
    return np.ascontiguousarray(stored)


def oriented(name: str, picture: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    if name.startswith("tiff"):
        compression = "tiff_lzw" if name == "tiff lzw" else None
        return saved(picture, "TIFF", tiffinfo={0x0112: orientation}, compression=compression)
    if name == "heif":
        return heif(picture, exif=exif.tobytes())
    options = {"jpeg": {"quality": 95, "subsampling": 0}, "webp": {"lossless": True}, "avif": {"quality": 95}}
    return saved(picture, name.upper(), exif=exif, **options.get(name, {}))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "tiff", "tiff lzw", "avif", "heif"])
def test_every_orientation_comes_out_upright(name: str, orientation: int) -> None:
    upright = np.asarray(scene())
    decoded = open_file(oriented(name, Image.fromarray(turned(upright, orientation)), orientation))
    near(np.asarray(decoded.picture), upright, 3)
    assert (decoded.width, decoded.height) == (60, 40)


@pytest.mark.parametrize("orientation", [6, 8])
def test_orientation_of_reduced_pictures(orientation: int) -> None:
    upright = np.asarray(scene(900, 600))
    for name in ("jpeg", "png"):
        decoded = open_file(oriented(name, Image.fromarray(turned(upright, orientation)), orientation), target=32)
        assert (decoded.width, decoded.height) == (900, 600)
        small = np.asarray(Image.fromarray(upright).resize(decoded.picture.size, Image.Resampling.BOX))
        near(np.asarray(decoded.picture), small, 2)


def test_orientation_of_pictures_handed_over() -> None:
    upright = np.asarray(scene())
    opened = Image.open(io.BytesIO(oriented("png", Image.fromarray(turned(upright, 6)), 6)))
    near(np.asarray(to_rgb(opened, target=64)), upright, 0)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_is_none(value: int) -> None:
    near(pixels(oriented("png", scene(), value)), np.asarray(scene()), 0)


# --- size


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("size", [(900, 600), (600, 900), (129, 128), (500, 70), (2000, 128)])
def test_large_pictures_come_back_reduced(format: str, size: tuple[int, int]) -> None:  # noqa: A002
    decoded = open_file(saved(scene(*size), format), target=32)
    short = min(decoded.picture.size)
    assert (decoded.width, decoded.height) == size
    assert min(64, min(size)) <= short < 128
    assert abs(decoded.picture.width / decoded.picture.height - size[0] / size[1]) < 0.05 * size[0] / size[1]


def test_reduction_is_the_mean_over_blocks() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 512, 3), dtype=np.uint8)
    got = pixels(saved(Image.fromarray(noise), "PNG"), target=32)
    blocks = noise.reshape(64, 4, 128, 4, 3).mean(axis=(1, 3))
    assert np.abs(got - blocks).max() <= 1


def test_what_the_encoder_sees_is_nearly_what_a_full_decode_gives() -> None:
    data = saved(scene(2000, 1500), "JPEG", quality=90)
    size = (64, 64)
    full = np.asarray(Image.open(io.BytesIO(data)).resize(size, Image.Resampling.BICUBIC), float)
    ours = np.asarray(open_file(data).picture.resize(size, Image.Resampling.BICUBIC), float)
    assert 10 * np.log10(255**2 / ((full - ours) ** 2).mean()) > 45


@pytest.mark.parametrize("size", [(1, 10_000), (10_000, 1), (1, 1), (2, 3), (70_000, 3)])
def test_extreme_shapes(size: tuple[int, int]) -> None:
    decoded = open_file(saved(Image.new("RGB", size, (10, 200, 30)), "PNG"))
    assert (decoded.width, decoded.height) == size
    assert min(decoded.picture.size) >= 1
    assert max(decoded.picture.size) < 2 * 32 * 64 or min(decoded.picture.size) == 1
    assert np.asarray(decoded.picture).reshape(-1, 3).mean(axis=0).tolist() == [10, 200, 30]


# --- limits


def test_the_pixel_limit_is_that_of_the_call() -> None:
    data = saved(Image.new("L", (1000, 800)), "PNG")
    assert open_file(data, megapixels=0.8).width == 1000
    with pytest.raises(PictureError, match=r"1000 x 800 pixels are 0\.8 megapixels; the limit is 0\.7 megapixels"):
        open_file(data, megapixels=0.7)


def test_the_limit_counts_before_anything_is_decoded() -> None:
    """A header that promises 40 gigapixels, with nothing behind it."""
    data = png(200_000, 200_000, 8, 2, b"")
    with pytest.raises(PictureError, match=r"200000 x 200000 pixels are 40,000\.0 megapixels; the limit is 180"):
        decode(data, target=64, limits=Limits())


def test_pictures_above_pillows_own_warning_are_silent() -> None:
    """100 megapixels: Pillow would warn, which is an error in these tests."""
    before = Image.MAX_IMAGE_PIXELS
    rows = (b"\0" + b"\xff" * 1250) * 10_000
    decoded = decode(png(10_000, 10_000, 1, 0, rows), target=64, limits=Limits())
    assert (decoded.width, decoded.picture.size) == (10_000, (129, 129))
    assert np.asarray(decoded.picture).min() == 255
    assert before == Image.MAX_IMAGE_PIXELS


def test_bombs_of_text() -> None:
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9))
    with pytest.raises(PictureError, match=r"^the PNG is damaged: Decompressed data too large"):
        open_file(png(1, 1, 8, 0, b"\0\0", bomb))


# --- damage


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_truncated_files(name: str, kept: float) -> None:
    data = ENCODED[name][0](scene(120, 80))
    if name == "jpeg mpo":
        data = data[: len(data) // 2]  # cut within the first of its two pictures, which is the one that counts
    with pytest.raises(PictureError, match=r"^the [A-Z][A-Za-z0-9 ]+ is (truncated|damaged: .+)$") as caught:
        open_file(data[: int(len(data) * kept)])
    if name.split()[0] in ("jpeg", "png", "webp", "bmp", "ppm", "tga"):
        assert str(caught.value).endswith("is truncated")


def test_empty_and_foreign_files() -> None:
    with pytest.raises(PictureError, match=r"^the file is empty$"):
        open_file(b"")
    foreign = (
        b"\0" * 1000,
        b"<html>",
        b"%PDF-1.4\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"\xd7\xcd\xc6\x9a",
        b"P",
    )
    for data in foreign:
        with pytest.raises(PictureError, match=r"^not a picture that can be read: "):
            open_file(data)


def test_heif_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(PictureError, match=r"install mmsearch\[heif\]"):
        open_file(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic")


FUZZED = {name: make(scene(24, 16)) for name, (make, _) in ENCODED.items() if name != "heif"}


@settings(deadline=None, max_examples=400)
@given(
    st.sampled_from(sorted(FUZZED)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    st.booleans(),
)
def test_damaged_files_give_a_picture_or_one_line(name: str, flips: list[tuple[float, int]], in_head: bool) -> None:
    data = bytearray(FUZZED[name])
    for where, value in flips:
        data[int(where * min(len(data), 128 if in_head else len(data)))] = value
    try:
        decoded = open_file(bytes(data), target=8, megapixels=1)
    except PictureError as error:
        assert "\n" not in str(error)
        assert 10 < len(str(error)) < 300
    else:
        assert decoded.picture.mode == "RGB"
        assert min(decoded.picture.size) >= 1


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200), st.sampled_from([data[:24] for data in FUZZED.values()]))
def test_garbage_after_a_good_beginning(garbage: bytes, head: bytes) -> None:
    with pytest.raises(PictureError):
        open_file(head[:12] + garbage, target=8, megapixels=1)


def with_garbage_exif(length: int = 60) -> bytes:
    data = saved(scene(), "JPEG")
    garbage = b"Exif\0\0II*\0\x08\0\0\0" + b"\x09\0" + bytes(range(1, length))
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(garbage) + 2) + garbage + data[2:]


def test_damaged_metadata_do_not_cost_the_picture() -> None:
    near(pixels(with_garbage_exif()), pixels(saved(scene(), "JPEG")), 0)
    for exif in (b"Exif\0\0nonsense", b"", b"Exif\0\0MM\0*\xff\xff\xff\xff"):
        near(pixels(saved(scene(), "PNG", exif=exif)), np.asarray(scene()), 0)
        near(pixels(saved(scene(), "WEBP", lossless=True, exif=exif)), np.asarray(scene()), 0)


# --- silence and threads


def test_warnings_of_others_are_not_swallowed() -> None:
    """While one thread decodes what makes Pillow warn, another one's warnings still count."""
    noisy = with_garbage_exif()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.warns(UserWarning, match=re.escape("orrupt EXIF")):
            Image.open(io.BytesIO(noisy)).getexif()
    stop = threading.Event()

    def work() -> int:
        count = 0
        while not stop.is_set():
            open_file(noisy)
            count += 1
        return count

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(work) for _ in range(2)]
        try:
            for _ in range(200):
                with pytest.raises(UserWarning, match="of the application"):
                    warnings.warn("of the application", UserWarning, stacklevel=1)
        finally:
            stop.set()
        assert all(job.result() > 0 for job in jobs)
    with pytest.raises(DeprecationWarning):
        warnings.warn("after decoding", DeprecationWarning, stacklevel=1)


def test_what_pillow_logs_stays_with_us(caplog: pytest.LogCaptureFixture) -> None:
    entries = [(256, 3, 8), (257, 3, 8), (259, 3, 1), (262, 3, 2), (273, 4, 8), (277, 3, 65_535)]
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    data += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries) + bytes(4)
    with pytest.raises(SyntaxError):
        TiffImagePlugin.TiffImageFile(io.BytesIO(data))
    assert len(caplog.records) == 1
    with pytest.raises(PictureError, match="samples per pixel"):
        open_file(data)
    assert len(caplog.records) == 1


def test_threads_give_what_one_thread_gives() -> None:
    files = [make(scene(300 + 20 * index, 200)) for index, (make, _) in enumerate(ENCODED.values()) if make is not None]
    alone = [pixels(data, target=32).tobytes() for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: pixels(data, target=32).tobytes(), files * 4))
    assert together == alone * 4
