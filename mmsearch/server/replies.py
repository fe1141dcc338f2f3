"""Answers in JSON, in the shapes of `render.json`, and how pictures and paths are named in them.

JSON is written as `render.json` does, ASCII only, since names of files need not be text.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from mmsearch.server.state import Served

_GZIP_ABOVE = 8_000  # bytes


def reply(data: Any, request: Request | None = None, *, status: int = 200) -> Response:
    """request: compress the answer where it is large and whoever asked can read that."""
    return packed(to_bytes(data), request, status=status)


def to_bytes(data: Any) -> bytes:
    return json.dumps(data, allow_nan=False, separators=(",", ":")).encode()


def packed(body: bytes, request: Request | None, *, status: int = 200) -> Response:
    """An answer that is JSON already."""
    headers = {}
    if request is not None and len(body) > _GZIP_ABOVE and "gzip" in request.headers.get("accept-encoding", ""):
        body = gzip.compress(body, 4)
        headers = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    return Response(body, status, headers, "application/json")


def unchanged(request: Request, etag: str) -> bool:
    """Whether who asks has this version already (If-None-Match)."""
    known = request.headers.get("if-none-match")
    return known is not None and any(one.strip().removeprefix("W/") in (etag, "*") for one in known.split(","))


def shown(hits: list[dict[str, Any]], served: Served) -> list[dict[str, Any]]:
    """Hits in JSON, each with the name that it is shown by, and its paths as they may be seen."""
    for hit in [one for head in hits for one in (head, *head["folded"])]:
        path = hit["path"]
        hit["name"] = os.path.basename(path) if path is not None else hit["key"] or f"#{hit['id']}"
    return seen(hits, served)


def seen(found: list[dict[str, Any]], served: Served) -> list[dict[str, Any]]:
    """`path` and `paths` as they are on this machine; for others, below the name of their root."""
    if not served.state.settings.loopback:
        roots = served.engine.roots()
        for one in [one for head in found for one in (head, *head.get("folded", ()))]:
            if one.get("path") is not None:
                one["path"] = below_root(one["path"], roots)
            one["paths"] = [below_root(path, roots) for path in one.get("paths", ())]
    return found


def below_root(path: str, roots: Iterable[Path]) -> str:
    """`/home/ann/Pictures/2024/a.jpg` -> `Pictures/2024/a.jpg`."""
    around = [root for root in roots if path.startswith(os.path.join(root, ""))]
    if not around:
        return os.path.basename(path)
    root = max(around, key=lambda one: len(str(one)))
    return os.path.join(root.name or "root", os.path.relpath(path, root))
