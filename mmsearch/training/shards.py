"""Webdataset shards: tar files in which members of one base name are one picture and what is said about it.

    000/cat.jpg       the picture
    000/cat.txt       captions, one a line
    000/cat.json      {"caption": text or list of texts, "label": name or list of names}
    000/cat.cls       its label

In: tar files, not compressed. Out: pictures that are read from their place in the file when they are needed; the
index of each file is read once. (https://github.com/webdataset/webdataset)
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmsearch.captions import CAPTION_COLUMNS, clean
from mmsearch.errors import PictureError, UsageError
from mmsearch.files import PICTURE_SUFFIXES, reason
from mmsearch.testsets import as_words
from mmsearch.training.picture import Picture
from mmsearch.types import FailedFile

_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_LABEL_KEYS = ("label", "labels", "class", "cls")

Spot = tuple[int, int]  # where the bytes of a member begin in the file, and how many there are


def pictures_of(shards: Sequence[Path]) -> tuple[list[Picture], list[FailedFile]]:
    """-> pictures, in the order of the files; and what cannot be used. Pictures themselves are not read here.

    UsageError: files are compressed, no tar files, or cannot be read; it names all of them.
    """
    pictures: list[Picture] = []
    left_out: list[FailedFile] = []
    wrong: list[str] = []
    for shard in shards:
        try:
            index = _index(shard, left_out)
        except UsageError as error:
            wrong.append(str(error))
            continue
        for base, members in index.items():
            suffix = next((one for one in sorted(members) if f".{one}" in PICTURE_SUFFIXES), None)
            if suffix is None:
                left_out.append(FailedFile(shard / base, "no picture stands beside it in the shard"))
                continue
            place = shard / f"{base}.{suffix}"
            try:
                captions, labels = _words(shard, members)
            except PictureError as error:
                left_out.append(FailedFile(place, str(error)))
                continue
            key = f"{shard.stem}/{base}.{suffix}"
            pictures.append(Picture(key, place, "", partial(_bytes, shard, members[suffix]), captions, labels))
    if wrong:
        raise UsageError(" ".join(wrong))
    return pictures, left_out


def _index(shard: Path, left_out: list[FailedFile]) -> dict[str, dict[str, Spot]]:
    """base name -> suffix in small letters -> where. A file that ends too early gives what lies before that."""
    try:
        size = shard.stat().st_size
        with shard.open("rb") as stream:
            head = stream.read(6)
    except OSError as error:
        raise UsageError(f"The shard {shard} cannot be used: {reason(error)}.") from error
    kind = next((name for magic, name in _COMPRESSED.items() if head.startswith(magic)), None)
    if kind:
        raise UsageError(
            f"The shard {shard} is compressed ({kind}), so single pictures cannot be reached; unpack it to a plain tar."
        )
    found: dict[str, dict[str, Spot]] = {}
    whole = True
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                folder, slash, file = member.name.rpartition("/")
                base, dot, suffix = file.partition(".")  # webdataset's rule: the base name ends at the first dot
                if not member.isfile() or not base or not dot:
                    continue
                if member.offset_data + member.size > size:
                    whole = False
                    continue
                found.setdefault(f"{folder}{slash}{base}", {})[suffix.lower()] = member.offset_data, member.size
    except (tarfile.TarError, OSError) as error:
        if not found:
            raise UsageError(f"The shard {shard} is no tar file that can be read: {error}.") from error
        whole = False
    if not whole:
        left_out.append(FailedFile(shard, "it is truncated; what lies before its end is used"))
    return found


def _words(shard: Path, members: dict[str, Spot]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Captions and labels. Raises PictureError where the JSON is none."""
    captions: list[str] = []
    labels: list[str] = []
    if "txt" in members:
        captions += _bytes(shard, members["txt"]).decode("utf-8-sig", "replace").splitlines()
    if "cls" in members:
        labels += _bytes(shard, members["cls"]).decode("utf-8-sig", "replace").splitlines()
    if "json" in members:
        try:
            told = json.loads(_bytes(shard, members["json"]))
        except (ValueError, RecursionError) as error:
            raise PictureError(f"its JSON in the shard cannot be read: {error}") from error
        if not isinstance(told, dict):
            raise PictureError('its JSON in the shard is no object; expected is {"caption": "A dog."}')
        captions += _texts(told, CAPTION_COLUMNS)
        labels += _texts(told, _LABEL_KEYS)
    said = dict.fromkeys(filter(None, map(clean, captions)))
    shown = dict.fromkeys(as_words(label) for label in labels if label.strip())
    return tuple(said), tuple(shown)


def _texts(told: dict[str, Any], keys: Sequence[str]) -> list[str]:
    """The texts (or numbers) under the first of these keys that is there."""
    given = next((told[key] for key in keys if key in told), None)
    values = given if isinstance(given, list) else [given]
    return [str(value) for value in values if isinstance(value, str | int) and not isinstance(value, bool)]


def _bytes(shard: Path, spot: Spot) -> bytes:
    """Raises PictureError."""
    start, size = spot
    try:
        with shard.open("rb") as stream:
            stream.seek(start)
            data = stream.read(size)
    except OSError as error:
        raise PictureError(reason(error)) from error
    if len(data) < size:
        raise PictureError("the shard ends before it")
    return data
