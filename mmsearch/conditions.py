"""What a picture must satisfy, as an expression tree: the records that filters become before they become SQL.

Pure. `filters.py` and `expressions.py` make such trees, `catalog/where.py` turns them into SQL. The meaning is SQL's,
three-valued logic included: a picture without a camera satisfies neither `camera like 'C%'` nor `not camera like 'C%'`.
Three things are as people expect rather than as SQL has them:

- texts are compared without regard to capital letters in `=`, `in` and `<` too, not only in `like` (ASCII letters);
- a date stands for the time it names: `date = '2024-05'` is the whole month, `date <= '2024'` reaches to its end;
- `tag`, `caption` and `text` have any number of values, and are satisfied if one value does; what is negated is
  satisfied if none does: `not tag = 'x'` and `tag != 'x'` are pictures without that tag, those without any included.

What is said of a file (name, folder, path) holds for one and the same present file as the rest of the condition.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from mmsearch.errors import UsageError

Value: TypeAlias = int | float | str | datetime
Operator: TypeAlias = Literal["=", "<", "<=", ">", ">="]

# What a field is compared with. Times are local, as cameras write them.
FIELDS: dict[str, Literal["number", "text", "date"]] = {
    **dict.fromkeys(("id", "width", "height", "megapixels", "aspect"), "number"),
    **dict.fromkeys(("format", "orientation"), "text"),
    "date": "date",
    **dict.fromkeys(("year", "month", "day", "hour"), "number"),
    **dict.fromkeys(("camera", "lens"), "text"),
    **dict.fromkeys(("latitude", "longitude"), "number"),
    **dict.fromkeys(("name", "folder", "path", "tag", "caption", "text"), "text"),
}
MANY = frozenset(("tag", "caption", "text"))  # fields with any number of values
FORMATS = ("avif", "bmp", "gif", "heif", "jpeg", "jpeg2000", "png", "ppm", "psd", "tga", "tiff", "webp")
_ALSO_FORMATS = {"jpg": "jpeg", "tif": "tiff", "heic": "heif", "jp2": "jpeg2000"}
ORIENTATIONS = ("landscape", "portrait", "square")


# --- the tree -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Compare:
    """`field` stands in this relation to `value`."""

    field: str
    operator: Operator
    value: Value


@dataclass(frozen=True, slots=True)
class Between:
    """Both ends belong to it."""

    field: str
    low: Value
    high: Value


@dataclass(frozen=True, slots=True)
class OneOf:
    """`field` is one of these."""

    field: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """% stands for any characters, _ for one."""

    field: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Contains:
    """The very characters, somewhere."""

    field: str
    text: str


@dataclass(frozen=True, slots=True)
class Missing:
    """There is no value."""

    field: str


@dataclass(frozen=True, slots=True)
class Within:
    """The file lies in a folder or below it. names: absolute names of that one folder, without a slash at the end,
    since links can give it several; `as_given` is for people."""

    as_given: str
    names: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Near:
    """Taken at most this far from a place (degrees, north and east positive), on a great circle."""

    latitude: float
    longitude: float
    kilometres: float


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: Node


Node: TypeAlias = Compare | Between | OneOf | Like | Contains | Missing | Within | Near | And | Or | Not


def all_of(parts: list[Node]) -> Node:
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def any_of(parts: list[Node]) -> Node:
    return parts[0] if len(parts) == 1 else Or(tuple(parts))


# --- values -------------------------------------------------------------------------------------------------------

_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[ T](\d\d):(\d\d)(?::(\d\d))?)?)?)?", re.ASCII)
DATE_FORMS = "2024, 2024-05, 2024-05-01 or '2024-05-01 14:30'"


def span(text: str) -> tuple[datetime, datetime]:
    """A date -> the moment it begins and the one after its end: '2024-05' -> 1 May, 1 June. UsageError."""
    found = _DATE.fullmatch(text.strip())
    parts = [int(part) for part in found.groups() if part is not None] if found else []
    try:
        start = datetime(*(parts + [1, 1][len(parts) - 1 :]))  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise UsageError(f"{text!r} is no date; write {DATE_FORMS}.") from error
    try:
        if len(parts) == 1:
            return start, start.replace(year=start.year + 1)
        if len(parts) == 2:
            return start, (start + timedelta(days=31)).replace(day=1)
        return start, start + {3: timedelta(days=1), 5: timedelta(minutes=1), 6: timedelta(seconds=1)}[len(parts)]
    except (OverflowError, ValueError):  # the year 9999 has an end, too
        return start, datetime.max


def format_named(text: str) -> str:
    """`JPG` -> jpeg, as the catalog has it. UsageError lists the formats."""
    lower = text.lower()
    name = _ALSO_FORMATS.get(lower, lower)
    if name not in FORMATS:
        raise UsageError(f"There is no format {text!r}; valid are: {', '.join(FORMATS)}.")
    return name
