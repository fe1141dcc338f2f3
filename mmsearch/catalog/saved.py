"""Queries that people keep under a name."""

from __future__ import annotations

import json
from contextlib import suppress

from sqlalchemy import Connection, Text, delete, select, type_coerce
from sqlalchemy.dialects.sqlite import insert as upsert

from mmsearch.catalog.tables import saved_query
from mmsearch.errors import UsageError
from mmsearch.query import Query, from_json, to_json


def read_all(connection: Connection) -> list[tuple[str, Query]]:
    """(name, query), by name; without those that this version cannot read."""
    found = []
    for name in names(connection):
        with suppress(UsageError):
            query = find(connection, name)
            if query is not None:
                found.append((name, query))
    return found


def names(connection: Connection) -> list[str]:
    """In alphabetical order."""
    return list(connection.execute(select(saved_query.c.name).order_by(saved_query.c.name)).scalars())


def find(connection: Connection, name: str) -> Query | None:
    """UsageError where this version cannot read it."""
    query = select(type_coerce(saved_query.c.query, Text)).where(saved_query.c.name == name)
    kept = connection.execute(query).scalar()
    if kept is None:
        return None
    try:
        return from_json(json.loads(kept))
    except (ValueError, UsageError) as error:
        why = str(error).rstrip(".")
        raise UsageError(
            f"The saved query {name!r} cannot be read ({why}); was it written by a newer mmsearch? "
            f"`mmsearch saved remove {name}` forgets it."
        ) from error


def put(connection: Connection, name: str, query: Query) -> None:
    """Keep a query, in place of the one that had the name."""
    kept = to_json(query)
    change = upsert(saved_query).values(name=name, query=kept)
    connection.execute(change.on_conflict_do_update(index_elements=["name"], set_={"query": kept}))


def drop(connection: Connection, name: str) -> bool:
    """Whether there was one."""
    return bool(connection.execute(delete(saved_query).where(saved_query.c.name == name)).rowcount)
