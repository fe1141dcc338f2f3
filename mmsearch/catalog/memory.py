"""What was read once and holds for as long as nobody changes the catalog: kept with the connection that read it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from sqlalchemy import Connection

_T = TypeVar("_T")


def remember(connection: Connection, name: str, key: Hashable, make: Callable[[], _T], most: int) -> _T:
    """What `make` gives, or gave for this key since the catalog was last changed. most: so many keys are kept of this
    name, those that were asked for last."""
    version = connection.exec_driver_sql("PRAGMA data_version").scalar()
    state, kept = connection.info.get(name, (None, None))
    if state != version or kept is None:
        kept = OrderedDict[Hashable, Any]()
        connection.info[name] = version, kept
    if key not in kept:
        kept[key] = make()
        while len(kept) > most:
            kept.popitem(last=False)
    kept.move_to_end(key)
    found: _T = kept[key]
    return found
