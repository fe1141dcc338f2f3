"""Which images may be answers at all: conditions on places, dates, cameras, sizes, tags, decided before the search.

In: `Filters`, field by field, or the small language of `where`. Out: one expression tree, which
`catalog/where.py` turns into SQL expressions; no text of a user ever becomes SQL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from mmsearch.errors import UsageError

Orientation = Literal["landscape", "portrait", "square"]
Having = Literal["caption", "gps", "date", "tag", "text"]


@dataclass(frozen=True, slots=True)
class Filters:
    """An image must satisfy all of these; it has a value to satisfy a condition on that value.

    inside: folders; in one of them, or below. after: taken at this time or later; before: earlier than this.
    camera: maker or model contains one of these words, in small or capital letters. near: latitude and longitude in
    degrees, and a distance in kilometres. min_width, min_height: pixels, upright. format: JPEG, PNG, ... one of them.
    tags: all of them. has: all of them. where: an expression, as in "width >= 1920 and camera like 'Canon%'".
    """

    inside: tuple[Path, ...] = ()
    after: datetime | None = None
    before: datetime | None = None
    camera: tuple[str, ...] = ()
    near: tuple[float, float, float] | None = None
    min_width: int | None = None
    min_height: int | None = None
    orientation: Orientation | None = None
    format: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    has: tuple[Having, ...] = ()
    where: str | None = None

    def __bool__(self) -> bool:
        return any(getattr(self, one.name) not in ((), None) for one in fields(self))

    def to_json(self) -> dict[str, Any]:
        """The fields that are set, in plain JSON values."""
        kept = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if value in ((), None):
                continue
            if isinstance(value, datetime):
                value = value.isoformat()
            elif isinstance(value, tuple):
                value = [str(part) if isinstance(part, Path) else part for part in value]
            kept[one.name] = value
        return kept

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Filters:
        """What `to_json` gave -> the filters. UsageError for keys and values that are not known."""
        known = {one.name for one in fields(cls)}
        unknown = sorted(set(kept) - known)
        if unknown:
            raise UsageError(f"There is no filter {', '.join(unknown)}; valid are: {', '.join(sorted(known))}.")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()
        }
        for name in ("after", "before"):
            if name in values:
                values[name] = datetime.fromisoformat(values[name])
        if "inside" in values:
            values["inside"] = tuple(map(Path, values["inside"]))
        return cls(**values)
