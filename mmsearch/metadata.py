"""What a picture file says about itself -> date, camera, lens, place, descriptions.

Sources: EXIF, IPTC (caption and headline), XMP (dc:title, dc:description), the text chunks of PNG. Metadata are
written by thousands of programs and damaged by as many: each source that cannot be read is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from xml.etree import ElementTree

from PIL import Image, ImageFile, IptcImagePlugin
from PIL.ExifTags import GPS, IFD, Base

from mmsearch.captions import clean

MAX_DESCRIPTION_CHARACTERS = 2_000
MAX_XMP_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Metadata:
    """taken_at: local time without a zone, as the camera wrote it. camera: maker and model. latitude, longitude:
    degrees, north and east positive. descriptions: texts that people wrote into the file, none twice."""

    taken_at: datetime | None = None
    camera: str | None = None
    lens: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    descriptions: tuple[str, ...] = ()


def read_metadata(picture: Image.Image) -> Metadata:
    """The metadata of a picture that a plugin of Pillow has loaded. Never raises."""
    exif: dict[int, Any] = dict(_or_nothing(lambda: picture.getexif().items()))
    detail: dict[int, Any] = dict(_or_nothing(lambda: picture.getexif().get_ifd(IFD.Exif).items()))
    place: dict[int, Any] = dict(_or_nothing(lambda: picture.getexif().get_ifd(IFD.GPSInfo).items()))
    latitude = _degrees(place.get(GPS.GPSLatitude), place.get(GPS.GPSLatitudeRef), "S", 90)
    longitude = _degrees(place.get(GPS.GPSLongitude), place.get(GPS.GPSLongitudeRef), "W", 180)
    if latitude is None or longitude is None or latitude == longitude == 0:
        latitude = longitude = None
    descriptions = (
        *_or_nothing(lambda: _exif_texts(exif, detail)),
        *_or_nothing(lambda: _iptc_texts(picture)),
        *_or_nothing(lambda: _xmp_texts(picture.info)),
        *_or_nothing(lambda: _png_texts(picture)),
    )
    return Metadata(
        taken_at=_taken_at(
            detail.get(Base.DateTimeOriginal), detail.get(Base.DateTimeDigitized), exif.get(Base.DateTime)
        ),
        camera=_camera(_text(exif.get(Base.Make)), _text(exif.get(Base.Model))),
        lens=_text(detail.get(Base.LensModel)) or None,
        latitude=latitude,
        longitude=longitude,
        descriptions=tuple(dict.fromkeys(text for raw in descriptions if (text := _description(raw)))),
    )


def _or_nothing(read: Callable[[], Any]) -> list[Any]:
    """What `read` gives, as a list; empty when this source cannot be read."""
    try:
        return list(read())
    except Exception:  # noqa: BLE001 (damaged metadata raise anything, and must not cost the picture)
        return []


def _text(value: Any) -> str:
    """A text tag, cleaned. Pillow reads them as Latin-1; most programs write UTF-8."""
    if isinstance(value, tuple) and value and isinstance(value[0], str):
        value = value[0]
    if isinstance(value, str):
        try:
            value = value.encode("latin-1")
        except UnicodeEncodeError:
            return clean(value)
    if not isinstance(value, bytes):
        return ""
    return clean(_decoded(value.split(b"\0")[0]))


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="ignore")


def _taken_at(*candidates: Any) -> datetime | None:
    """The first that is a date. EXIF writes `2021:05:03 14:22:11`; a camera whose clock was not set, zeros."""
    for candidate in candidates:
        found = _DATE.match(_text(candidate))
        if found:
            try:
                return datetime(*(int(part) for part in found.groups()))  # type: ignore[arg-type]
            except ValueError:
                continue
    return None


_DATE = re.compile(r"([12]\d{3})[:\-/.](\d\d)[:\-/.](\d\d)[ T](\d\d):(\d\d):(\d\d)")


def _camera(make: str, model: str) -> str | None:
    """`Canon` + `Canon EOS 5D` -> `Canon EOS 5D`; `NIKON CORPORATION` + `NIKON D90` -> `NIKON D90`."""
    make = _COMPANY.sub("", make).strip(" ,.")
    if not make or not model:
        return make or model or None
    if model.lower().startswith(make.lower()) or model.split()[0].lower() in make.lower().split():
        return model
    return f"{make} {model}"


_COMPANY = re.compile(
    r"(,|\b(corporation|corp|company|co|ltd|inc|gmbh|imaging|optical|electronics|camera ag)\b\.?)(?=[\s,.]|$)", re.I
)


def _degrees(value: Any, reference: Any, negative: str, limit: int) -> float | None:
    """(degrees, minutes, seconds) as rationals -> degrees; None where a part is missing, infinite or too large."""
    try:
        parts = [float(part) for part in value]
        degrees = float(sum(part / 60.0**power for power, part in enumerate(parts)))
        letter = _text(reference).upper()[:1]
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    if not 1 <= len(parts) <= 3 or not 0 <= degrees <= limit:
        return None
    return round(-degrees if letter == negative else degrees, 7)


def _exif_texts(exif: dict[int, Any], detail: dict[int, Any]) -> Iterator[str]:
    yield _text(exif.get(Base.ImageDescription))
    for tag in (Base.XPTitle, Base.XPSubject, Base.XPComment):
        value = exif.get(tag)
        if isinstance(value, tuple):
            value = bytes(value)
        if isinstance(value, bytes):
            yield value.decode("utf-16-le", errors="ignore").split("\0")[0]
    comment = detail.get(Base.UserComment)
    if isinstance(comment, bytes):
        charset, text = comment[:8], comment[8:]
        if charset == b"ASCII\0\0\0":
            yield _text(text)
        elif charset == b"UNICODE\0":
            # The standard leaves the byte order open; text in Latin letters shows it by its zero bytes.
            order = "utf-16-be" if text[:1] == b"\0" else "utf-16-le"
            yield text.decode(order, errors="ignore").split("\0")[0]


def _iptc_texts(picture: Image.Image) -> Iterator[str]:
    if not isinstance(picture, ImageFile.ImageFile):
        return
    records = IptcImagePlugin.getiptcinfo(picture) or {}
    for key in ((2, 120), (2, 105)):
        values = records.get(key, [])
        for value in values if isinstance(values, list) else [values]:
            yield _decoded(value)


def _xmp_texts(info: dict[Any, Any]) -> Iterator[str]:
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp") or b""
    if isinstance(xmp, str):
        xmp = xmp.encode()
    # XMP declares no document type; one that does (entity bombs, external entities) is not read.
    if len(xmp) > MAX_XMP_BYTES or _DUBLIN_CORE.encode() not in xmp or b"<!" in xmp or b"\0" in xmp.rstrip(b"\0"):
        return
    for element in ElementTree.fromstring(xmp.strip(b"\0 \r\n\t")).iter():  # noqa: S314 (see above)
        for name in ("title", "description"):
            if element.tag == f"{{{_DUBLIN_CORE}}}{name}":
                yield from (item.text or "" for item in element.iter() if item.text)
            yield element.get(f"{{{_DUBLIN_CORE}}}{name}", "")


_DUBLIN_CORE = "http://purl.org/dc/elements/1.1/"


def _png_texts(picture: Image.Image) -> Iterator[str]:
    if picture.format == "PNG":
        for key in ("Title", "Description", "Comment"):
            value = picture.info.get(key)
            yield _text(value)


def _description(raw: str) -> str:
    """Cleaned and cut to size; empty for what cameras and programs write by themselves."""
    text = clean(raw)[:MAX_DESCRIPTION_CHARACTERS].strip()
    if not re.search(r"[^\W\d_]{2}", text) or _BOILERPLATE.fullmatch(text) or _FILE_NAME.fullmatch(text):
        return ""
    return text


_BOILERPLATE = re.compile(
    r"((olympus|minolta|konica minolta|kodak|samsung|sony|casio|panasonic|ricoh|pentax|fujifilm|jenoptik|polaroid)"
    r"\s+(digital|dsc|dsh|dvc)\b.{0,20}"
    r"|(sony|samsung|default|untitled|image|picture|photo|dcim(\W.*)?|digital still ?camera|exif.?jpeg.?picture)"
    r"|(ascii|binary)?\s*(created|made|edited|processed) (with|by|using) \S.{0,40}"
    r"|creator: gd-jpeg.*|optimized by jpegmini.*|file written by adobe.*|lead technologies.*|processed by .{0,40}"
    r"|(oz)?(cof|mde|dav|hdr|rhdr|sdr|ptr|nor|bty|edf|rpt|srh|tmp|fbt)\w{0,5}|\?+)",
    re.I,
)
_FILE_NAME = re.compile(r"\S+\.(jpe?g|png|gif|tiff?|webp|heic|bmp|dng|raw|psd|svg)", re.I)
