"""mmsearch: finds pictures by meaning. The public door; everything else may change between versions.

    from mmsearch import Engine

    with Engine.open("my-collection") as engine:
        engine.index("images")
        for hit in engine.search("a red sports car"):
            print(hit.score, hit.path)

Importing this package imports nothing heavy: each name is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmsearch import errors
    from mmsearch.engine import Engine
    from mmsearch.filters import Filters
    from mmsearch.query import Query, Term
    from mmsearch.settings import Limits
    from mmsearch.types import Hit, IndexReport, Progress, SearchResult, Share, Status, Verification

__all__ = [
    "Engine",
    "Filters",
    "Hit",
    "IndexReport",
    "Limits",
    "Progress",
    "Query",
    "SearchResult",
    "Share",
    "Status",
    "Term",
    "Verification",
    "__version__",
    "errors",
]

__version__ = "0.1.0"

_HOMES = {
    "Engine": "engine",
    "Filters": "filters",
    "Hit": "types",
    "IndexReport": "types",
    "Limits": "settings",
    "Progress": "types",
    "Query": "query",
    "SearchResult": "types",
    "Share": "types",
    "Status": "types",
    "Term": "query",
    "Verification": "types",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "errors":
        return import_module("mmsearch.errors")
    if name in _HOMES:
        return getattr(import_module(f"mmsearch.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'mmsearch' has no attribute {name!r}")
