"""Which images may be answers at all: conditions on places, dates, cameras, sizes, tags, decided before the search.

In: `Filters`, field by field, or the small language of `where`. Out: one expression tree, which
`catalog/where.py` turns into SQL expressions; no text of a user ever becomes SQL.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from mmsearch.conditions import (
    Compare,
    Contains,
    Missing,
    Near,
    Node,
    Not,
    OneOf,
    Within,
    all_of,
    any_of,
    format_named,
    span,
)
from mmsearch.errors import UsageError
from mmsearch.expressions import parse

__all__ = ["Filters", "Having", "Node", "Orientation", "parse", "parse_date", "parse_near"]

Orientation = Literal["landscape", "portrait", "square"]
Having = Literal["caption", "gps", "date", "tag", "text"]

_HAS: dict[Having, tuple[str, ...]] = {"gps": ("latitude", "longitude")}  # where it is not a field of that name
MAX_TEXT = 1000  # characters of one value; SQLite refuses patterns of 50,000
MAX_VALUES = 100  # of one filter; SQLite refuses expressions of 1,000 levels, and each `or` is one
MAX_DEGREES = {"latitude": 90, "longitude": 180}


@dataclass(frozen=True, slots=True)
class Filters:
    """An image must satisfy all of these; it has a value to satisfy a condition on that value.

    inside: folders, relative to the working directory where they are not absolute; in one of them, or below.
    after: taken at this time or later; before: earlier than this (local time, as cameras write it).
    camera: maker or model contains one of these words, in small or capital letters. near: latitude and longitude in
    degrees, and a distance in kilometres. min_width, min_height: pixels, upright. format: JPEG, PNG, ... one of them.
    tags: all of them. has: all of them. where: an expression, as in "width >= 1920 and camera like 'Canon%'".

    Raises UsageError, which names the filter, for values that cannot be.
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

    def __post_init__(self) -> None:
        for name in ("inside", "camera", "format", "tags", "has"):
            object.__setattr__(self, name, _several(name, getattr(self, name)))
        object.__setattr__(self, "inside", tuple(map(_absolute, self.inside)))
        for name in ("after", "before"):
            moment = getattr(self, name)
            if moment is not None and not isinstance(moment, datetime):
                raise UsageError(f"The filter {name} is {moment!r}; it must be a datetime.")
            if moment is not None:  # cameras know no zones: the clock time counts
                object.__setattr__(self, name, moment.replace(tzinfo=None))
        if self.after is not None and self.before is not None and self.after >= self.before:
            raise UsageError(
                f"Nothing is taken after {self.after} and before {self.before}; was it meant the other way?"
            )
        if self.near is not None:
            object.__setattr__(self, "near", _place("near", self.near))
        for name in ("min_width", "min_height"):
            pixels = getattr(self, name)
            if pixels is not None and (type(pixels) is not int or not 0 < pixels < 2**31):
                raise UsageError(f"The filter {name} is {pixels!r}; it must be a number of pixels, at least 1.")
        _check_known("orientation", self.orientation, get_args(Orientation))
        for what in self.has:
            _check_known("has", what, get_args(Having))
        for name in self.format:
            format_named(name)
        if self.where is not None:
            if not isinstance(self.where, str):
                raise UsageError(f"The filter where is {self.where!r}; it must be an expression, as text.")
            parse(self.where)

    def __bool__(self) -> bool:
        return any(getattr(self, one.name) not in ((), None) for one in fields(self))

    def tree(self) -> Node | None:
        """All of it as one expression; None without filters. Looks at the disk where folders may be links."""
        parts: list[Node] = []
        if self.inside:
            parts.append(any_of([Within(str(folder), _names_of(folder)) for folder in self.inside]))
        if self.after is not None:
            parts.append(Compare("date", ">=", self.after))
        if self.before is not None:
            parts.append(Compare("date", "<", self.before))
        if self.camera:
            parts.append(any_of([Contains("camera", word) for word in self.camera]))
        if self.near is not None:
            parts.append(Near(*self.near))
        if self.min_width is not None:
            parts.append(Compare("width", ">=", self.min_width))
        if self.min_height is not None:
            parts.append(Compare("height", ">=", self.min_height))
        if self.orientation is not None:
            parts.append(Compare("orientation", "=", self.orientation))
        if self.format:
            parts.append(OneOf("format", tuple(map(format_named, self.format))))
        parts += [Compare("tag", "=", name) for name in self.tags]
        parts += [Not(Missing(field)) for what in self.has for field in _HAS.get(what, (what,))]
        if self.where is not None:
            parts.append(parse(self.where))
        return all_of(parts) if parts else None

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
        if not isinstance(kept, Mapping):
            raise UsageError('Filters are a JSON object, as in {"camera": ["Canon"]}.')
        known = {one.name for one in fields(cls)}
        unknown = sorted(map(str, set(kept) - known))
        if unknown:
            raise UsageError(f"There is no filter {', '.join(unknown)}; valid are: {', '.join(sorted(known))}.")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()
        }
        for name in ("after", "before"):
            if values.get(name) is not None:
                values[name] = _moment(name, values[name])
        return cls(**values)


# --- as people write it -------------------------------------------------------------------------------------------


def parse_date(text: str) -> datetime:
    """`2024`, `2024-05`, `2024-05-01` or `2024-05-01 14:30` -> the moment it begins. UsageError."""
    return span(text)[0]


def parse_near(text: str) -> tuple[float, float, float]:
    """`48.1,11.5,20` -> latitude and longitude in degrees, kilometres. UsageError."""
    try:
        latitude, longitude, kilometres = map(float, text.split(","))
    except ValueError as error:
        raise UsageError(
            f"{text!r} is no place; write latitude,longitude,kilometres, as in 48.1,11.5,20 (south and west negative)."
        ) from error
    return _place(repr(text), (latitude, longitude, kilometres))


# --- what may come in ---------------------------------------------------------------------------------------------


def _several(name: str, value: Any) -> tuple[Any, ...]:
    """A tuple of texts (for folders, of paths too), none of them empty."""
    kinds = (str, os.PathLike) if name == "inside" else (str,)
    if not isinstance(value, tuple | list):
        raise UsageError(f"The filter {name} is {value!r}; it must be a tuple, as in ({value!r},).")
    for one in value:
        if not isinstance(one, kinds) or not str(one).strip() or "\0" in str(one):
            raise UsageError(f"The filter {name} has {one!r}; it must be a text that is not empty.")
        if len(str(one)) > MAX_TEXT:
            raise UsageError(
                f"The filter {name} has a value of {len(str(one)):,} characters; at most {MAX_TEXT:,} are read."
            )
    if len(value) > MAX_VALUES:
        raise UsageError(f"The filter {name} has {len(value):,} values; at most {MAX_VALUES} are read.")
    return tuple(value)


def _absolute(folder: str | os.PathLike[str]) -> Path:
    try:
        path = Path(folder).expanduser().absolute()
    except RuntimeError as error:  # ~someone
        raise UsageError(f"There is no folder {folder}: nobody here has that name.") from error
    if len(path.parts) > MAX_VALUES:
        raise UsageError(f"The folder {str(path)[:60]}… is more than {MAX_VALUES} folders deep; name one above it.")
    return path


def _names_of(folder: Path) -> tuple[bytes, ...]:
    """The absolute names that a folder may have in the catalog, which knows folders as they are and not by the links
    that lead to them, but goes through links inside of them. Without a slash at the end; `/` is b""."""
    plain = os.path.normpath(folder)
    names = {os.path.realpath(folder): None, plain: None}
    end = len(plain)
    while (end := plain.rfind(os.sep, 0, end)) > 0:
        names[os.path.realpath(plain[:end]) + plain[end:]] = None
    return tuple(os.fsencode(name).rstrip(b"/") for name in names)


def _place(shown: str, place: Any) -> tuple[float, float, float]:
    what = f"The filter {shown}" if shown == "near" else shown
    if not isinstance(place, tuple | list) or len(place) != 3 or not all(type(one) in (int, float) for one in place):
        raise UsageError(f"{what} is {place!r}; it must be latitude, longitude, kilometres.")
    for (name, most), degrees in zip(MAX_DEGREES.items(), place[:2], strict=True):
        if not -most <= degrees <= most:
            raise UsageError(f"{what}: the {name} {degrees:g} is not from -{most} to {most} degrees.")
    if not 0 < place[2] < math.inf:
        raise UsageError(f"{what}: the distance {place[2]:g} is not a number of kilometres above 0.")
    return float(place[0]), float(place[1]), float(place[2])


def _check_known(name: str, value: Any, valid: tuple[str, ...]) -> None:
    if value is not None and value not in valid:
        raise UsageError(f"The filter {name} is {value!r}; valid are: {', '.join(valid)}.")


def _moment(name: str, value: Any) -> datetime:
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"The filter {name} is {value!r}; it must be a date, as in 2024-05-01.") from error
