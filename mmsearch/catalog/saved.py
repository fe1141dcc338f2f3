"""Queries that people keep under a name."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert as upsert

from mmsearch.catalog.tables import saved_query
from mmsearch.query import Query, from_json, to_json


def read_all(connection: Connection) -> list[tuple[str, Query]]:
    """(name, query), by name."""
    rows = connection.execute(select(saved_query.c.name, saved_query.c.query).order_by(saved_query.c.name))
    return [(row[0], from_json(row[1])) for row in rows]


def names(connection: Connection) -> list[str]:
    """In alphabetical order."""
    return list(connection.execute(select(saved_query.c.name).order_by(saved_query.c.name)).scalars())


def find(connection: Connection, name: str) -> Query | None:
    kept = connection.execute(select(saved_query.c.query).where(saved_query.c.name == name)).scalar()
    return None if kept is None else from_json(kept)


def put(connection: Connection, name: str, query: Query) -> None:
    """Keep a query, in place of the one that had the name."""
    kept = to_json(query)
    change = upsert(saved_query).values(name=name, query=kept)
    connection.execute(change.on_conflict_do_update(index_elements=["name"], set_={"query": kept}))


def drop(connection: Connection, name: str) -> bool:
    """Whether there was one."""
    return bool(connection.execute(delete(saved_query).where(saved_query.c.name == name)).rowcount)
