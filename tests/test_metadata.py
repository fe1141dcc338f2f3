"""metadata.py: EXIF, IPTC, XMP and PNG texts written into real files and read back; damage; boiler-plate."""

from __future__ import annotations

import io
import struct
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin, TiffImagePlugin

from mmsearch.captions import clean
from mmsearch.decode import decode
from mmsearch.metadata import Metadata
from mmsearch.settings import Limits

MAKE, MODEL, DATE, DESCRIPTION = 0x010F, 0x0110, 0x0132, 0x010E
EXIF, GPS = 0x8769, 0x8825
TAKEN, DIGITIZED, LENS, COMMENT = 0x9003, 0x9004, 0xA434, 0x9286


def of_file(format: str = "JPEG", **options: Any) -> Metadata:  # noqa: A002 (Pillow's word)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format, **options)
    return decode(buffer.getvalue(), target=8, limits=Limits()).metadata


def of_exif(tags: dict[int, Any]) -> Metadata:
    exif = Image.Exif()
    exif.update(tags)
    return of_file(exif=exif.tobytes())


def rational(*pairs: tuple[int, int]) -> tuple[TiffImagePlugin.IFDRational, ...]:
    return tuple(TiffImagePlugin.IFDRational(*pair) for pair in pairs)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_a_whole_record(format: str) -> None:  # noqa: A002
    exif = Image.Exif()
    exif.update({MAKE: "Canon", MODEL: "Canon EOS 5D", DESCRIPTION: "Two dogs play in the snow."})
    exif[EXIF] = {TAKEN: "2021:05:03 14:22:11", LENS: "EF 50mm f/1.8"}
    exif[GPS] = {1: "S", 2: rational((33, 1), (51, 1), (2448, 100)), 3: "E", 4: rational((151, 1), (12, 1), (36, 1))}
    if format == "HEIF":
        pillow_heif = pytest.importorskip("pillow_heif", reason="the extra heif is not installed")
        buffer = io.BytesIO()
        pillow_heif.from_pillow(Image.new("RGB", (64, 64))).save(buffer, exif=exif.tobytes())
        metadata = decode(buffer.getvalue(), target=8, limits=Limits()).metadata
    else:
        read_again = Image.Exif()  # what the TIFF writer wants
        read_again.load(exif.tobytes())
        metadata = of_file(format, exif=read_again if format == "TIFF" else exif.tobytes())
    assert metadata == Metadata(
        taken_at=datetime(2021, 5, 3, 14, 22, 11),
        camera="Canon EOS 5D",
        lens="EF 50mm f/1.8",
        latitude=pytest.approx(-33.8568),
        longitude=pytest.approx(151.21),
        descriptions=("Two dogs play in the snow.",),
    )


def test_nothing() -> None:
    for format in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"):  # noqa: A001
        assert of_file(format) == Metadata()


# --- dates


@pytest.mark.parametrize(
    ("original", "digitized", "changed", "expected"),
    [
        ("2001:02:03 04:05:06", "2002:01:01 00:00:00", "2003:01:01 00:00:00", datetime(2001, 2, 3, 4, 5, 6)),
        ("0000:00:00 00:00:00", "2002:01:01 00:00:00", "2003:01:01 00:00:00", datetime(2002, 1, 1)),
        ("    :  :     :  :  ", "", "2003:01:01 10:00:00", datetime(2003, 1, 1, 10)),
        ("2001-02-03T04:05:06+02:00", "", "", datetime(2001, 2, 3, 4, 5, 6)),
        ("2001:02:30 04:05:06", "", "", None),
        ("2001:02:03 24:00:00", "", "", None),
        ("yesterday", "", "", None),
    ],
)
def test_dates(original: str, digitized: str, changed: str, expected: datetime | None) -> None:
    assert of_exif({EXIF: {TAKEN: original, DIGITIZED: digitized}, DATE: changed}).taken_at == expected


# --- cameras


@pytest.mark.parametrize(
    ("make", "model", "expected"),
    [
        ("Canon", "Canon EOS 5D", "Canon EOS 5D"),
        ("NIKON CORPORATION", "NIKON D90", "NIKON D90"),
        ("Apple", "iPhone 12", "Apple iPhone 12"),
        ("OLYMPUS IMAGING CORP.", "E-M5", "OLYMPUS E-M5"),
        ("EASTMAN KODAK COMPANY", "KODAK DX4530", "KODAK DX4530"),
        ("FUJI PHOTO FILM CO., LTD.", "FinePix S5000", "FUJI PHOTO FILM FinePix S5000"),
        ("SAMSUNG TECHWIN CO.,LTD.", "SAMSUNG NV3", "SAMSUNG NV3"),
        ("Canon", "", "Canon"),
        ("", "DSC-T1", "DSC-T1"),
        ("  SONY \0\0", " DSC-T1  ", "SONY DSC-T1"),
        ("Co., Ltd.", "X1", "X1"),
        ("", "", None),
    ],
)
def test_cameras(make: str, model: str, expected: str | None) -> None:
    assert of_exif({MAKE: make, MODEL: model}).camera == expected


# --- places


def place(north: Any, latitude: Any, east: Any, longitude: Any) -> tuple[float | None, float | None]:
    tags = {1: north, 2: latitude, 3: east, 4: longitude}
    metadata = of_exif({GPS: {tag: value for tag, value in tags.items() if value is not None}})
    return metadata.latitude, metadata.longitude


def test_places() -> None:
    latitude, longitude = rational((52, 1), (31, 1), (12, 1)), rational((13, 1), (24, 1), (36, 1))
    assert place("N", latitude, "E", longitude) == pytest.approx((52.52, 13.41))
    assert place("S", latitude, "W", longitude) == pytest.approx((-52.52, -13.41))
    # Whole degrees with decimal minutes, as phones wrote them.
    assert place("N", rational((52, 1), (312, 10), (0, 1)), "E", longitude) == pytest.approx((52.52, 13.41))


@pytest.mark.parametrize(
    "latitude",
    [
        None,
        rational((52, 0), (0, 0), (0, 0)),
        rational((52, 1), (1, 0), (0, 1)),
        rational((91, 1), (0, 1), (0, 1)),
        rational((90, 1), (0, 1), (1, 1)),
    ],
)
def test_a_place_that_cannot_be_is_none(latitude: Any) -> None:
    assert place("N", latitude, "E", rational((13, 1), (24, 1), (36, 1))) == (None, None)


def test_null_island_is_a_receiver_without_a_fix() -> None:
    zero = rational((0, 1), (0, 1), (0, 1))
    assert place("N", zero, "E", zero) == (None, None)
    assert place("N", zero, "E", rational((9, 1), (0, 1), (0, 1))) == (0.0, 9.0)


# --- descriptions


def iptc(*records: tuple[int, bytes]) -> bytes:
    """A Photoshop block with IPTC records of group 2, as an APP13 segment of a JPEG."""
    data = b"".join(struct.pack(">BBBH", 0x1C, 2, number, len(text)) + text for number, text in records)
    block = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(data)) + data + b"\0" * (len(data) % 2)
    content = b"Photoshop 3.0\0" + block
    return b"\xff\xed" + struct.pack(">H", len(content) + 2) + content


def of_jpeg_with(segment: bytes) -> Metadata:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    data = buffer.getvalue()
    return decode(data[:2] + segment + data[2:], target=8, limits=Limits()).metadata


def test_iptc_captions_and_headlines() -> None:
    segment = iptc((120, "Ein Mädchen am Meer".encode()), (105, b"Sommerf\xeast"), (80, b"A Photographer"))
    assert of_jpeg_with(segment).descriptions == ("Ein Mädchen am Meer", "Sommerfêst")


def xmp(body: str) -> bytes:
    return (
        '<?xpacket begin="\ufeff"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
        f'xmlns:dc="http://purl.org/dc/elements/1.1/">{body}</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


ALTERNATIVES = (
    "<rdf:Description><dc:title><rdf:Alt><rdf:li xml:lang='x-default'>The lighthouse</rdf:li></rdf:Alt></dc:title>"
    "<dc:description><rdf:Alt><rdf:li xml:lang='x-default'>A lighthouse &amp; gulls</rdf:li>"
    "<rdf:li xml:lang='de'>Ein Leuchtturm</rdf:li></rdf:Alt></dc:description>"
    "<dc:subject><rdf:Bag><rdf:li>keyword</rdf:li></rdf:Bag></dc:subject></rdf:Description>"
)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_xmp_titles_and_descriptions(format: str) -> None:  # noqa: A002
    if format == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp(ALTERNATIVES).decode())
        options: dict[str, Any] = {"pnginfo": text}
    elif format == "TIFF":
        options = {"tiffinfo": {700: xmp(ALTERNATIVES)}}
    else:
        options = {"xmp": xmp(ALTERNATIVES)}
    expected = ("The lighthouse", "A lighthouse & gulls", "Ein Leuchtturm")
    assert of_file(format, **options).descriptions == expected


def test_xmp_as_an_attribute() -> None:
    body = '<rdf:Description dc:description="A red kite"/>'
    assert of_file(xmp=xmp(body)).descriptions == ("A red kite",)


@pytest.mark.parametrize(
    "prolog",
    [
        '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>',
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>',
    ],
)
def test_xmp_with_entities_is_not_read(prolog: str) -> None:
    hostile = prolog.encode() + xmp("<rdf:Description><dc:title>&b;&a; words</dc:title></rdf:Description>")[30:]
    assert of_file(xmp=hostile).descriptions == ()


def test_png_texts() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "Une fête")  # Latin-1 as the standard has it
    text.add_itxt("Description", "Ein Hund — 犬")
    text.add_text("Comment", "a zipped comment", zip=True)
    text.add_text("Software", "not a description")
    assert of_file("PNG", pnginfo=text).descriptions == ("Une fête", "Ein Hund — 犬", "a zipped comment")


def test_windows_tags_and_user_comments() -> None:
    windows = {0x9C9B: "Der Berg\0".encode("utf-16-le"), 0x9C9C: "im Schnee".encode("utf-16-le")}
    comments = [
        (b"ASCII\0\0\0a plain comment\0\0\0", "a plain comment"),
        (b"UNICODE\0" + "ein Käfer".encode("utf-16-le"), "ein Käfer"),
        (b"UNICODE\0" + "ein Käfer".encode("utf-16-be"), "ein Käfer"),
        (b"\0\0\0\0\0\0\0\0binary \x01\x02", None),
        (b"ASCII\0\0\0" + b" " * 20, None),
        (b"AS", None),
    ]
    assert of_exif(windows).descriptions == ("Der Berg", "im Schnee")
    for comment, expected in comments:
        assert of_exif({EXIF: {COMMENT: comment}}).descriptions == ((expected,) if expected else ())


def test_utf_8_in_a_field_that_should_be_ascii() -> None:
    assert of_exif({DESCRIPTION: "Übermut".encode()}).descriptions == ("Übermut",)
    assert of_exif({DESCRIPTION: b"\xdcbermut"}).descriptions == ("Übermut",)


@pytest.mark.parametrize(
    "text",
    [
        "OLYMPUS DIGITAL CAMERA         ",
        "SONY DSC",
        "MINOLTA DIGITAL CAMERA",
        "KONICA MINOLTA DIGITAL CAMERA",
        "SAMSUNG",
        "Digital StillCamera",
        "DCIM\\100MEDIA\\DJI_0042.JPG",
        "default",
        "Exif_JPEG_PICTURE",
        "Created with GIMP",
        "Created with The GIMP",
        "CREATOR: gd-jpeg v1.0 (using IJG JPEG v62), quality = 90",
        "IMG_1234.JPG",
        "oznorCO",
        "cof",
        "   ",
        "???",
        "-",
        "12 / 34",
    ],
)
def test_boiler_plate_is_no_description(text: str) -> None:
    assert of_exif({DESCRIPTION: text}).descriptions == ()


@pytest.mark.parametrize(
    "text",
    [
        "A SONY DSC camera on a table",
        "Samsung building in Seoul",
        "犬と猫",
        "cofee on the table",
        "An image of a dog",
        "Picture of the year",
        "default settings screen",
        "Dcimmeria castle",
    ],
)
def test_descriptions_that_look_like_it(text: str) -> None:
    assert of_exif({DESCRIPTION: text.encode()}).descriptions == (text,)


def test_descriptions_are_cleaned_cut_and_not_repeated() -> None:
    exif = Image.Exif()
    exif[DESCRIPTION] = "  A\tdog\x07\r\n barks  "
    exif[0x9C9B] = "A dog barks".encode("utf-16-le")
    exif[0x9C9C] = ("long words " * 1000).encode("utf-16-le")
    first, second = of_file(exif=exif.tobytes()).descriptions
    assert first == "A dog barks"
    assert second == ("long words " * 1000)[:2000].strip()


# --- damage


def test_tags_of_the_wrong_type() -> None:
    """Every text a number, every number a text, the inner directories inside each other."""
    entries = [(DESCRIPTION, 3), (MAKE, 4), (MODEL, 12), (DATE, 1), (EXIF, 4), (GPS, 4), (0x9C9B, 3)]
    inner = [(1, 3), (2, 2), (4, 3), (TAKEN, 3), (COMMENT, 4), (LENS, 3)]
    data = b"Exif\0\0II*\0\x08\0\0\0"
    for tags in (entries, inner):
        data += struct.pack("<H", len(tags))
        data += b"".join(struct.pack("<HHII", tag, kind, 1, 98) for tag, kind in tags) + bytes(4)
    assert of_file(exif=data) == Metadata()


@settings(deadline=None, max_examples=150)
@given(st.integers(12, 400), st.binary(min_size=1, max_size=12))
def test_damaged_exif_gives_what_is_left(at: int, damage: bytes) -> None:
    exif = Image.Exif()
    exif.update({MAKE: "Canon", MODEL: "EOS", DESCRIPTION: "Two dogs"})
    exif[EXIF] = {TAKEN: "2021:05:03 14:22:11", LENS: "EF"}
    exif[GPS] = {1: "N", 2: rational((3, 1), (5, 1), (2, 1)), 3: "E", 4: rational((1, 1), (1, 1), (3, 1))}
    whole = exif.tobytes()
    data = whole[: at % len(whole)] + damage + whole[at % len(whole) + len(damage) :]
    metadata = of_file(exif=data)
    assert metadata.latitude is None or -90 <= metadata.latitude <= 90
    assert metadata.longitude is None or -180 <= metadata.longitude <= 180
    assert all(text == clean(text) for text in metadata.descriptions)
