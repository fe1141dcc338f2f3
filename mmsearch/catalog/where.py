"""A tree of conditions -> an SQL expression on image, file and root. User's texts are bound parameters, never SQL.

    condition   the expression, for a query that joins image, file (present ones) and root: one row a file
    check       whether the tags and folders that it names are there at all, so that a typo does not look like
                "nothing found"
    register    the functions that it calls, which SQLite lacks; for each new connection

File names are bytes that need not be UTF-8. SQLite compares texts byte by byte, so they are cast and never decoded.
"""

from __future__ import annotations

import difflib
import math
import operator
import os
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, assert_never

from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
    Text,
    and_,
    case,
    cast,
    exists,
    extract,
    func,
    literal,
    not_,
    null,
    or_,
    select,
)

from mmsearch.catalog.tables import caption, file, image, image_tag, picture_text, root, tag
from mmsearch.conditions import (
    FIELDS,
    MANY,
    And,
    Between,
    Compare,
    Contains,
    Like,
    Missing,
    Near,
    Node,
    Not,
    OneOf,
    Or,
    Value,
    Within,
)
from mmsearch.errors import UsageError

EARTH_KILOMETRES = 6371.0088  # mean radius (IUGG)
_NAMES_SHOWN = 8

_RELATIONS: dict[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def condition(node: Node) -> ColumnElement[bool]:
    """The SQL expression; unknown (null) where a value that it asks for is not there."""
    match node:
        case And(parts):
            return and_(*map(condition, parts))
        case Or(parts):
            return or_(*map(condition, parts))
        case Not(part):
            return not_(condition(part))
        case Within(names=names):
            return or_(*map(_within, names))
        case Near():
            return _near(node)
        case Missing(field):
            return not_(_one_of_many(field, None)) if field in MANY else _column(field).is_(None)
        case Compare() | Between() | OneOf() | Like() | Contains():
            return _one_of_many(node.field, node) if node.field in MANY else _holds(node, _column(node.field))
        case _:
            assert_never(node)


# --- values -------------------------------------------------------------------------------------------------------


def _column(field: str) -> ColumnElement[Any]:
    """What a field with one value is in SQL; texts in small letters."""
    match field:
        case "megapixels":
            return image.c.width * image.c.height / 1e6
        case "aspect":
            return image.c.width / image.c.height
        case "orientation":
            upright = ((image.c.width > image.c.height, "landscape"), (image.c.width < image.c.height, "portrait"))
            return case(*upright, (image.c.width == image.c.height, "square"))
        case "date":
            return image.c.taken_at
        case "year" | "month" | "day" | "hour":
            return extract(field, image.c.taken_at)
        case "name":
            return func.lower(cast(func.file_name(file.c.relative), Text))
        case "folder":
            return func.lower(cast(func.folder_name(file.c.relative), Text))
        case "path":
            return func.lower(case((root.c.path != b"", _path()), else_=null()))
        case _:
            column: ColumnElement[Any] = image.c[field]
            return func.lower(column) if FIELDS[field] == "text" else column


def _one_of_many(field: str, node: Compare | Between | OneOf | Like | Contains | None) -> ColumnElement[bool]:
    """Whether a tag, a caption or a text inside the picture satisfies the node; without one, whether there is any."""
    if field == "tag":
        found = exists().where(image_tag.c.image == image.c.id)
        if node is not None:  # which tags is asked once, and not again for each image
            found = found.where(image_tag.c.tag.in_(select(tag.c.id).where(_holds(node, func.lower(tag.c.name)))))
        return found.correlate(image)
    if field == "caption":
        text, found = caption.c.text, exists().where(caption.c.image == image.c.id)
    else:
        text = picture_text.c.text
        found = exists().where(picture_text.c.image == image.c.id, text != "")
    return (found if node is None else found.where(_holds(node, func.lower(text)))).correlate(image)


def _holds(node: Compare | Between | OneOf | Like | Contains, column: ColumnElement[Any]) -> ColumnElement[bool]:
    match node:
        case Compare(_, relation, value):
            return _RELATIONS[relation](column, _bound(value))
        case Between(_, low, high):
            return column.between(_bound(low), _bound(high))
        case OneOf(_, values):
            return column.in_(list(map(_bound, values)))
        case Like(_, pattern):
            return column.like(_bound(pattern))
        case Contains(_, text):
            for special in "\\%_":
                text = text.replace(special, "\\" + special)
            return column.like(_bound(f"%{text}%"), escape="\\")


def _bound(value: Value) -> Any:
    """A parameter; texts in small letters (ASCII), and those that stand for file names that are no UTF-8 as bytes."""
    if not isinstance(value, str):
        return value
    small = value.translate(_SMALL)
    if small.isascii():
        return literal(small, Text)
    try:
        return _as_text(small.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:  # other lone surrogates are in no name
        return _as_text(small.encode("utf-8", "surrogatepass"))


def _as_text(data: bytes) -> ColumnElement[str]:
    return cast(literal(data, LargeBinary), Text)


_SMALL = {capital: capital + 32 for capital in range(ord("A"), ord("Z") + 1)}


# --- places -------------------------------------------------------------------------------------------------------


def _path() -> ColumnElement[str]:
    """The absolute path of a file, as it is. A key is no place on a disk and begins with a slash here, too."""
    return func.rtrim(cast(root.c.path, Text), "/") + "/" + cast(file.c.relative, Text)


def _within(folder: bytes) -> ColumnElement[bool]:
    """folder: without a slash at the end. All that begins with `folder/`."""
    start = _as_text(folder + b"/")
    return and_(root.c.path != b"", func.substr(_path(), 1, func.length(start)) == start)


def _near(node: Near) -> ColumnElement[bool]:
    """A box around the circle spares most images the exact distance."""
    south, north, west, east = bounding_box(node.latitude, node.longitude, node.kilometres)
    parts: list[ColumnElement[bool]] = [image.c.latitude.between(south, north)]
    if west > east:  # over the date line
        parts.append(or_(image.c.longitude >= west, image.c.longitude <= east))
    else:
        parts.append(image.c.longitude.between(west, east))
    here = (image.c.latitude, image.c.longitude, node.latitude, node.longitude)
    return and_(*parts, func.great_circle_km(*here) <= node.kilometres)


def bounding_box(latitude: float, longitude: float, kilometres: float) -> tuple[float, float, float, float]:
    """South, north, west, east in degrees of a box that holds the circle; west > east where it crosses the date line.
    A little wider than needed, so that rounding leaves nothing out."""
    angle = kilometres / EARTH_KILOMETRES * (1 + 1e-9) + 1e-9
    up = math.degrees(angle)
    south, north = latitude - up, latitude + up
    if south <= -90 or north >= 90:  # all meridians meet in a pole
        return max(south, -90.0), min(north, 90.0), -180.0, 180.0
    aside = math.degrees(math.asin(min(1.0, math.sin(angle) / math.cos(math.radians(latitude))))) + 1e-7
    west, east = longitude - aside, longitude + aside
    if west <= -180 and east >= 180:
        return south, north, -180.0, 180.0
    return south, north, west + 360 if west < -180 else west, east - 360 if east > 180 else east


def great_circle_km(
    latitude: float | None, longitude: float | None, other_latitude: float, other_longitude: float
) -> float | None:
    """Kilometres between two places in degrees (haversine, on a sphere: wrong by at most 0.6 %); None where one is
    not known."""
    if latitude is None or longitude is None:
        return None
    first, second = math.radians(latitude), math.radians(other_latitude)
    half_up, half_aside = (second - first) / 2, math.radians(other_longitude - longitude) / 2
    part = math.sin(half_up) ** 2 + math.cos(first) * math.cos(second) * math.sin(half_aside) ** 2
    return 2 * EARTH_KILOMETRES * math.asin(min(1.0, math.sqrt(part)))


def register(connection: sqlite3.Connection) -> None:
    """Make the functions of this module known to a new connection."""
    connection.create_function("great_circle_km", 4, great_circle_km, deterministic=True)
    connection.create_function("file_name", 1, lambda relative: relative.rpartition(b"/")[2], deterministic=True)
    connection.create_function("folder_name", 1, lambda relative: relative.rpartition(b"/")[0], deterministic=True)


# --- typos --------------------------------------------------------------------------------------------------------


def check(connection: Connection, node: Node) -> None:
    """UsageError for a tag that no image has (but where it is unwanted) and a folder of which nothing is known."""
    for part, wanted in _leaves(node, wanted=True):
        match part:
            case Within():
                _check_folder(connection, part)
            case Compare("tag", "=", str() as name) if wanted:
                _check_tag(connection, name)
            case OneOf("tag", values) if wanted:
                for value in values:
                    _check_tag(connection, str(value))
            case _:
                pass


def _leaves(node: Node, *, wanted: bool) -> Iterator[tuple[Node, bool]]:
    """The conditions themselves, and whether each is wanted or stands below a `not`."""
    match node:
        case And(parts) | Or(parts):
            for part in parts:
                yield from _leaves(part, wanted=wanted)
        case Not(part):
            yield from _leaves(part, wanted=not wanted)
        case _:
            yield node, wanted


def _check_tag(connection: Connection, name: str) -> None:
    given = exists().where(image_tag.c.tag == tag.c.id)
    if connection.execute(select(tag.c.id).where(given, func.lower(tag.c.name) == _bound(name)).limit(1)).first():
        return
    known = {row[0].lower(): row[0] for row in connection.execute(select(tag.c.name).where(given).order_by(tag.c.name))}
    if not known:
        raise UsageError(f"No picture has the tag {name!r}; none has any tag yet. `mmsearch tag` gives them some.")
    near = difflib.get_close_matches(name.lower(), known, 3)
    if near:
        raise UsageError(f"No picture has the tag {name!r}; did you mean {' or '.join(known[one] for one in near)}?")
    raise UsageError(f"No picture has the tag {name!r}; there are: {_some(list(known.values()))}.")


def _check_folder(connection: Connection, node: Within) -> None:
    query = select(root.c.id, root.c.path).where(root.c.path != b"").order_by(root.c.id)
    places = [(row[0], row[1]) for row in connection.execute(query)]
    if any(_holds_file(connection, identity, path, name) for identity, path in places for name in node.names):
        return
    shown = _some([os.fsdecode(path) for _, path in places])
    has = f"it has those of: {shown}" if shown else "it has no folders yet"
    raise UsageError(f"The collection knows no picture in {node.as_given}; {has}. `mmsearch index FOLDER` adds more.")


def _holds_file(connection: Connection, root_id: int, path: bytes, folder: bytes) -> bool:
    """Whether a root has a file, whatever its state, in a folder (no slash at the end). Asked for each search, so it
    goes through the index on relative paths."""
    start, wanted = path.rstrip(b"/") + b"/", folder + b"/"
    query = select(file.c.id).where(file.c.root == root_id).limit(1)
    if wanted.startswith(start) and wanted != start:  # b"0" follows b"/"
        below = wanted[len(start) : -1]
        query = query.where(file.c.relative > below + b"/", file.c.relative < below + b"0")
    elif not start.startswith(wanted):
        return False
    return connection.execute(query).first() is not None


def _some(names: list[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
