"""The bytes of a picture file -> an upright RGB picture of useful size, and what the file says about itself.

Every quirk of a format lives here. The content decides what a file is, never its name. What is looked at: JPEG, PNG,
WebP, GIF, BMP, TIFF, AVIF, HEIC (extra `heif`), JPEG 2000, PPM, PSD, TGA; of animations and files with several
pages the first picture. Colour profiles are not applied: CMYK is converted plainly.

Safe on several threads, and silent: nothing global of Pillow's is changed.
"""

from __future__ import annotations

import io
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    PsdImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from mmsearch.captions import clean
from mmsearch.errors import PictureError
from mmsearch.files import HEAD_BYTES, picture_format
from mmsearch.metadata import Metadata, read_metadata
from mmsearch.settings import Limits

ORIENTATION = 0x0112
# The encoder resizes what it gets; halving down to twice its size before costs little and changes little.
OVERSAMPLING = 2
# A side above this many target sizes makes no picture better and would make a queue of panoramas large.
LONGEST_SIDE = 32

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """picture: RGB, upright, reduced where the original is much larger than asked for. width, height: pixels of the
    original, upright. format: `jpeg`, `png`, ... metadata: what the file says about itself."""

    picture: Image.Image
    width: int
    height: int
    format: str
    metadata: Metadata


def decode(data: bytes, *, target: int, limits: Limits) -> Decoded:
    """Decode the bytes of one picture file.

    target: the side in pixels that the encoder reads; a picture that is much larger comes back with a short side of
    2 to 4 times that. limits: the megapixels count as the file states them, before anything is decoded. Raises
    PictureError: one line without the path. Metadata that cannot be read is left out and never fails a picture.
    """
    if not data:
        raise PictureError("the file is empty")
    name = picture_format(data[:HEAD_BYTES]) or ("tga" if _looks_like_tga(data) else None)
    if name is None:
        raise PictureError("not a picture that can be read: its first bytes are those of no known format")
    with _as_picture_error(_LABELS[name], cut_short=_is_cut_short(name, data)), _quiet():
        picture = _opened(name, data)
        _check_size(picture.size, limits)
        width, height = picture.size
        if name == "jpeg":
            picture.draft("RGB", (OVERSAMPLING * target, OVERSAMPLING * target))
        picture.load()
        orientation = _orientation(picture)
        rgb = _finished(picture, target, orientation)
        metadata = read_metadata(picture)
    if orientation >= 5:
        width, height = height, width
    return Decoded(rgb, width, height, name, metadata)


def to_rgb(picture: Image.Image, *, target: int) -> Image.Image:
    """A picture that an application hands over, made ready as `decode` does it: RGB, upright by its EXIF
    orientation, transparent parts on white, reduced where it is much larger than `target` pixels.

    The picture itself is left as it is. Raises PictureError when its pixels cannot be read.
    """
    with _as_picture_error(picture.format or "picture"), _quiet():
        picture.load()
        return _finished(picture, target, _orientation(picture))


def _opened(name: str, data: bytes) -> ImageFile.ImageFile:
    """The plugins are called directly: `Image.open` would ask what the application registered, and warn."""
    if name == "heif":
        try:
            from pillow_heif import HeifImageFile
        except ImportError as error:
            raise PictureError("HEIC pictures need an extra: install mmsearch[heif]") from error
        plugin: type[ImageFile.ImageFile] = HeifImageFile
        return plugin(io.BytesIO(data))
    return _PLUGINS[name](io.BytesIO(data))


_PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "avif": AvifImagePlugin.AvifImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "jpeg": JpegImagePlugin.JpegImageFile,
    "jpeg2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "png": PngImagePlugin.PngImageFile,
    "ppm": PpmImagePlugin.PpmImageFile,
    "psd": PsdImagePlugin.PsdImageFile,
    "tga": TgaImagePlugin.TgaImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
}
_LABELS = {name: name.upper() for name in (*_PLUGINS, "heif")} | {"webp": "WebP", "jpeg2000": "JPEG 2000"}


def _looks_like_tga(data: bytes) -> bool:
    """TGA has no signature; its 18 header bytes leave little choice."""
    if len(data) <= 18 or data[1] > 1 or data[2] not in (1, 2, 3, 9, 10, 11) or data[16] not in (8, 16, 24, 32):
        return False
    has_size = any(data[12:14]) and any(data[14:16])
    return has_size and (data[1] == 1 or not any(data[3:8]))


def _is_cut_short(name: str, data: bytes) -> bool:
    """Whether the header promises more bytes than there are, in formats whose plugin does not say so itself."""
    if name == "webp":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if name == "tiff":
        return int.from_bytes(data[4:8], "little" if data[:1] == b"I" else "big") + 2 > len(data)
    return False


def _check_size(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    megapixels = width * height / 1e6
    if megapixels > limits.max_megapixels:
        raise PictureError(
            f"{width} x {height} pixels are {megapixels:,.1f} megapixels; the limit is "
            f"{limits.max_megapixels:g} megapixels a picture"
        )
    if width < 1 or height < 1:
        raise PictureError(f"it states a size of {width} x {height} pixels")


def _orientation(picture: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none that can be read. HEIF, AVIF and TIFF come out right too:
    their plugins either turn the picture and say 1, or say what is still to be done."""
    try:
        value = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # noqa: BLE001 (damaged EXIF, in one of a dozen ways, must not cost the picture)
        return 1
    return value if value in _TRANSPOSE else 1


def _finished(picture: Image.Image, target: int, orientation: int) -> Image.Image:
    rgb = _shrunk(_opaque(picture), target)
    if rgb.mode != "RGB" or rgb is picture:
        # A copy where nothing else was done: what a plugin returns keeps the bytes of the file alive.
        rgb = rgb.convert("RGB")
    if orientation in _TRANSPOSE:
        rgb = rgb.transpose(_TRANSPOSE[orientation])
    rgb.info = {}
    return rgb


def _shrunk(picture: Image.Image, target: int) -> Image.Image:
    """Averaged over whole blocks down to a short side of at least OVERSAMPLING x target; smaller ones as they are."""
    short, long = sorted(picture.size)
    factor = min(max(short // (OVERSAMPLING * target), long // (LONGEST_SIDE * target)), short)
    return picture.reduce(factor) if factor > 1 else picture


def _opaque(picture: Image.Image) -> Image.Image:
    """A picture in any mode -> L, RGB, CMYK or YCbCr; what is transparent becomes white."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        values = np.asarray(picture)
        grey = _to_bytes(values)
        if isinstance(picture.info.get("transparency"), int):
            grey[values == picture.info["transparency"]] = 255
        return Image.fromarray(grey)
    if picture.has_transparency_data:
        key = picture.info.get("transparency")
        if picture.mode == "RGB" and isinstance(key, tuple) and max(key) > 0xFF:
            # Of 16-bit colours Pillow keeps the upper halves, but leaves the transparent one as it was.
            picture = picture.copy()
            picture.info["transparency"] = tuple(value >> 8 for value in key)
        picture = picture.convert(_STRAIGHT.get(picture.mode, picture.mode)).convert("RGBA")
        white = Image.new("RGB", picture.size, "white")
        white.paste(picture, mask=picture.getchannel("A"))
        return white
    if picture.mode in ("L", "RGB", "CMYK", "YCbCr"):
        return picture
    return picture.convert("L" if picture.mode == "1" else "RGB")


_STRAIGHT = {"La": "LA", "RGBa": "RGBA"}  # from colours already multiplied by alpha


def _to_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey values of 16 or 32 bits, integer or float, (height, width) -> the same as uint8.

    16 bits keep their scale (65,535 is white), and so do 32-bit integers that fit in 8 or 16 bits. Everything else
    has no agreed scale: the least finite value becomes black, the greatest white, NaN black.
    """
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return (values >> 8).astype(np.uint8)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if values.dtype.kind == "i" and low >= 0 and high <= 0xFFFF:
        return (values if high <= 0xFF else values >> 8).astype(np.uint8)
    spread = (high - low) or 1.0
    scaled = np.nan_to_num((values.astype(np.float64) - low) / spread, nan=0.0, posinf=1.0, neginf=0.0)
    return np.rint(scaled * 255).astype(np.uint8)


@contextmanager
def _as_picture_error(label: str, *, cut_short: bool = False) -> Iterator[None]:
    """Pillow's plugins raise nearly every built-in exception on bytes that they did not expect."""
    try:
        yield
    except PictureError:
        raise
    except MemoryError as error:
        raise PictureError(f"there is not enough memory to decode this {label}") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"the {label} has more pixels than Pillow decodes of this format") from error
    except Exception as error:
        text = clean(str(error))[:200]
        if cut_short or isinstance(error, EOFError) or _CUT_SHORT.search(text):
            raise PictureError(f"the {label} is truncated") from error
        raise PictureError(f"the {label} is damaged: {text or type(error).__name__}") from error


_CUT_SHORT = re.compile("truncated|end of file|not enough|insufficient|no more images", re.IGNORECASE)

_this_thread = threading.local()
_filter_lock = threading.Lock()


class _OnlyWhileDecoding(type):
    def __subclasscheck__(cls, subclass: type) -> bool:
        return getattr(_this_thread, "decoding", False)


class _WarningWhileDecoding(Warning, metaclass=_OnlyWhileDecoding):
    """Every warning counts as one of these, but only on a thread that is inside `_quiet`."""


class _OnlyOutsideDecoding(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 (all are alike)
        return not getattr(_this_thread, "decoding", False)


_log_filter = _OnlyOutsideDecoding()


@contextmanager
def _quiet() -> Iterator[None]:
    """Pillow warns about damaged metadata and large sizes, to stderr or as an exception, and logs one more case.
    `catch_warnings` swaps state of the whole process and is not safe on threads; these filters stay, and match only
    on a thread that is decoding."""
    with _filter_lock:
        if not any(category is _WarningWhileDecoding for _, _, category, _, _ in warnings.filters):
            warnings.simplefilter("ignore", _WarningWhileDecoding)
        logging.getLogger("PIL.TiffImagePlugin").addFilter(_log_filter)
    _this_thread.decoding = True
    try:
        yield
    finally:
        _this_thread.decoding = False
