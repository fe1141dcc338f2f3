"""Numbers and places that people may want to change, with their reasons. Ground: imports nothing of ours."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

DEFAULT_COLLECTION = "default"
DEFAULT_MODEL = "lite"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one picture may cost. Applied per call, never through a global of Pillow's.

    max_megapixels: 180 is where Pillow itself calls a picture a decompression bomb; 16 bytes a pixel at worst.
    max_megabytes: size of the file, or of what a URL leads to.
    private_addresses: whether the URL of a query's picture may lead to this machine or its local network.
    """

    max_megapixels: float = 180.0
    max_megabytes: float = 200.0
    private_addresses: bool = False


def data_folder() -> Path:
    """Where named collections and pulled weights live: the platform's place for a user's data."""
    import platformdirs

    return Path(platformdirs.user_data_dir("mmsearch", appauthor=False))


def collection_folder(name: str | None) -> Path:
    """Name or folder of a collection -> its folder. Without one: MMSEARCH_COLLECTION, else `default`.
    With a path separator (or `.` and `..`) it is a folder, else a name in the platform's data folder."""
    chosen = name or os.environ.get("MMSEARCH_COLLECTION") or DEFAULT_COLLECTION
    if os.sep in chosen or chosen in (".", ".."):
        return Path(chosen).expanduser().absolute()
    return data_folder() / "collections" / chosen


def shipped_folder(name: str) -> Path:
    """`migrations` or `demo`: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / f"_{name}"
    if inside.is_dir():
        return inside
    return package.parent / {"migrations": "migrations", "demo": "data/demo"}[name]
