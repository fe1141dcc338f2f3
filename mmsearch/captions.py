"""Texts that people wrote beside their pictures -> captions: sidecars, CSV, Kaggle's captions.txt, JSON lines.

A table (`read_table`) is one of these; the first line decides:

    {"image": "a.jpg", "caption": "A dog."}      JSON lines: one object a line. The name is under image, image_name,
                                                 file_name or filename; the text, or a list of texts, under caption,
                                                 captions or text
    a.jpg#0<TAB>A dog.                           the original Flickr8k.token.txt
    image,caption                                CSV with a header (Kaggle's captions.txt is that too): columns named
                                                 as above, in any order, further ones ignored; comma, semicolon or tab

Files are UTF-8 (with or without a byte order mark) or UTF-16 with one; what is neither is read as Windows-1252.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmsearch.errors import PictureError, UsageError

IMAGE_COLUMNS = ("image", "image_name", "file_name", "filename")
CAPTION_COLUMNS = ("caption", "captions", "text")
MAX_SIDECAR_BYTES = 1_000_000

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")
_TOKEN_LINE = re.compile(r"^(?P<image>[^\t]+)#\d+\t(?P<caption>.*)$")


def clean(text: str) -> str:
    """One line: white space collapsed, control characters gone, Unicode composed (NFC)."""
    shown = _CONTROL.sub("", " ".join(text.split()))
    return unicodedata.normalize("NFC", " ".join(shown.split()))


def read_sidecar(path: Path) -> list[str]:
    """The captions of one picture, one a line; repeated and empty lines left out.

    [] when the file is gone, is no text, or has more than 1 MB (then it is a document, not captions). Raises
    PictureError when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIDECAR_BYTES + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise PictureError(f"its captions in {path.name} cannot be read: {why}") from error
    if len(data) > MAX_SIDECAR_BYTES:
        return []
    text = _decoded(data)
    if "\0" in text:
        return []
    return list(dict.fromkeys(caption for line in text.splitlines() if (caption := clean(line))))


def read_table(path: Path) -> list[tuple[str, str]]:
    """(image name, caption) of each row of a caption file, in its order; rows with an empty caption left out.

    Raises UsageError, with the line number and what is expected there.
    """
    try:
        text = _decoded(path.read_bytes())
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UsageError(f"The captions in {path} cannot be read: {why}.") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UsageError(f"{path}, line {line}: a zero byte; expected is text in UTF-8.")
    first = next((line for line in text.split("\n") if line.strip()), "").strip()
    if first.startswith("{"):
        rows = _json_rows(path, text)
    elif _TOKEN_LINE.match(first):
        rows = _token_rows(path, text)
    else:
        rows = _csv_rows(path, text, first)
    return [(image, caption) for image, raw in rows if (caption := clean(raw))]


def _json_rows(path: Path, text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _wrong(path, number, 'no JSON; expected is {"image": "a.jpg", "caption": "A dog."}') from error
        if not isinstance(record, dict):
            raise _wrong(path, number, 'no JSON object; expected is {"image": "a.jpg", "caption": "A dog."}')
        image = _field(record, IMAGE_COLUMNS)
        given = _field(record, CAPTION_COLUMNS)
        if not isinstance(image, str) or not image.strip():
            raise _wrong(path, number, f"no image name; expected is a text under {_names(IMAGE_COLUMNS)}")
        captions = given if isinstance(given, list) else [given]
        for caption in captions:
            if not isinstance(caption, str):
                expected = f"a text or a list of texts under {_names(CAPTION_COLUMNS)}"
                raise _wrong(path, number, f"no caption; expected is {expected}")
            yield image.strip(), caption


def _token_rows(path: Path, text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        match = _TOKEN_LINE.match(line)
        if match is None:
            raise _wrong(path, number, "no caption; expected is name.jpg#0, a tab, and the caption, as in line 1")
        yield match["image"].strip(), match["caption"]


def _csv_rows(path: Path, text: str, first: str) -> Iterator[tuple[str, str]]:
    delimiter, header = _header(path, first)
    image_at = next(header.index(name) for name in IMAGE_COLUMNS if name in header)
    caption_at = next(header.index(name) for name in CAPTION_COLUMNS if name in header)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header_seen, last_line = False, 0
    while True:
        number = last_line + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _wrong(path, number, f"no row that can be read ({error}); is a quotation mark missing?") from error
        last_line = reader.line_num
        if not any(field.strip() for field in row):
            continue
        if not header_seen:
            header_seen = True
            continue
        if len(row) <= max(image_at, caption_at):
            raise _wrong(path, number, f"{len(row)} columns; expected are {len(header)}, as in the header")
        if not row[image_at].strip():
            raise _wrong(path, number, f"no image name in the column {header[image_at]!r}")
        # A sentence in the last column whose commas were not quoted: nothing else can be meant.
        caption = delimiter.join(row[caption_at:]) if caption_at == len(header) - 1 else row[caption_at]
        yield row[image_at].strip(), caption


def _header(path: Path, line: str) -> tuple[str, list[str]]:
    """(delimiter, column names) of the first delimiter under which the header has both columns."""
    for delimiter in (",", ";", "\t"):
        names = [name.strip().strip('"').lower() for name in line.split(delimiter)]
        if set(names) & set(IMAGE_COLUMNS) and set(names) & set(CAPTION_COLUMNS):
            return delimiter, names
    raise UsageError(
        f"{path}, line 1: no caption file that is known; expected is a CSV header such as image,caption, "
        'or JSON lines such as {"image": "a.jpg", "caption": "A dog."}.'
    )


def _field(record: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((record[name] for name in names if name in record), None)


def _names(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _wrong(path: Path, line: int, what: str) -> UsageError:
    return UsageError(f"{path}, line {line}: {what}.")


def _decoded(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")
