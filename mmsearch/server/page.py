"""The page: one HTML file at /, what belongs to it below /assets/. Without a build step; without third parties.

The browser asks for some thirty small files before the first picture shows: they are kept in memory, packed once, and
read again only when they change. They are asked for again at each visit, which costs an answer without a body: an
upgrade never meets parts of the page before it.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter, FastAPI, Request, Response

from mmsearch.server.problems import ProblemError
from mmsearch.server.replies import unchanged

FOLDER = Path(__file__).parent / "page"
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "font-src 'self'",
        "manifest-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
_SMALL = 500  # bytes: packed, these gain nothing

router = APIRouter(include_in_schema=False)


class _Kept(NamedTuple):
    """A file of the page: its bytes, packed too; packed is None where that does not pay."""

    etag: str
    media_type: str
    plain: bytes
    packed: bytes | None


@router.get("/")
async def page(request: Request) -> Response:
    return _answer(FOLDER / "index.html", request)


@router.get("/assets/{name:path}")
async def asset(name: str, request: Request) -> Response:
    path = _assets().get(name)
    if path is None or not path.is_file():
        raise ProblemError(404, f"There is nothing at /assets/{name[:80]}.")
    return _answer(path, request)


def add_to(app: FastAPI) -> None:
    app.include_router(router)


@lru_cache(maxsize=1)
def _assets() -> dict[str, Path]:
    """The name of each file -> the file: what is not listed here cannot be asked for, whatever a name looks like."""
    folder = FOLDER / "assets"
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def _answer(path: Path, request: Request) -> Response:
    kept = _kept(path, path.stat().st_mtime_ns)
    headers = {"ETag": kept.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if unchanged(request, kept.etag):
        return Response(status_code=304, headers=headers)
    if kept.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(kept.packed, media_type=kept.media_type, headers=headers | {"Content-Encoding": "gzip"})
    return Response(kept.plain, media_type=kept.media_type, headers=headers)


@lru_cache(maxsize=256)
def _kept(path: Path, mtime_ns: int) -> _Kept:  # noqa: ARG001 - a file that changed is read again
    plain = path.read_bytes()
    media_type = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "text/plain"
    packed = gzip.compress(plain, 9, mtime=0)
    pays = len(plain) > _SMALL and len(packed) < len(plain)
    return _Kept(f'"{hashlib.sha256(plain).hexdigest()[:32]}"', media_type, plain, packed if pays else None)
