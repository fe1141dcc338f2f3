"""/images: a page of them, what is known about one, its thumbnail and its original."""

from __future__ import annotations

import mimetypes
import os
from typing import Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from mmsearch import query as queries
from mmsearch.server import answers, shapes
from mmsearch.server.originals import file_response
from mmsearch.server.places import open_file
from mmsearch.server.problems import ProblemError
from mmsearch.server.replies import below_root, reply, unchanged
from mmsearch.server.search import ImageId, K, Offset, answer
from mmsearch.server.settings import API
from mmsearch.server.state import Collection, Served
from mmsearch.server.thumbnails import MEDIA_TYPE
from mmsearch.types import ImageDetails

router = APIRouter(prefix=API, tags=["images"])

_FOREVER = "private, max-age=31536000, immutable"
# What a browser shows and never runs; everything else is only offered to be saved.
_SHOWN = {name: f"image/{name}" for name in ("jpeg", "png", "gif", "webp", "avif", "bmp")}


@router.get("/images", response_model=answers.Found)
async def images(served: Collection, k: K = 50, offset: Offset = 0, sort: Literal["date", "name"] = "date") -> Response:
    """A page of all images, the newest first, or by name."""
    return await served.state.workers.run(lambda: answer(served, queries.Query(k=k, offset=offset, sort=sort)))


@router.get("/images/{image}", response_model=answers.Image)
async def image(image: ImageId, served: Collection) -> Response:
    """All that is known about one image."""
    return await served.state.workers.run(lambda: reply(_as_json(known(served, image), served)))


@router.get("/images/{image}/captions", response_model=list[answers.CaptionOfImage])
async def captions(image: ImageId, served: Collection) -> Response:
    """The captions of one image."""
    return await served.state.workers.run(lambda: reply(_as_json(known(served, image), served)["captions"]))


@router.get(
    "/images/{image}/thumbnail",
    response_class=Response,
    responses={200: {"content": {MEDIA_TYPE: {}}}, 304: {"description": "It has not changed."}},
)
async def thumbnail(
    image: ImageId,
    served: Collection,
    request: Request,
    size: shapes.ThumbnailSize = 320,
) -> Response:
    """The picture in small, upright."""

    def job() -> Response:
        details = known(served, image)
        etag = f'"{details.sha256}-{size}"'
        headers = {"ETag": etag, "Cache-Control": _FOREVER}
        if unchanged(request, etag):
            return Response(status_code=304, headers=headers)
        made = served.state.thumbnails.get(
            served.engine.folder, details.sha256, size, lambda: _content(details, served)
        )
        return Response(made, headers=headers, media_type=MEDIA_TYPE)

    return await served.state.workers.run(job)


@router.get(
    "/images/{image}/original",
    response_class=Response,
    responses={
        200: {"content": {"image/*": {}}},
        206: {"description": "The range that was asked for."},
        304: {"description": "It has not changed."},
        416: {"description": "There is no such range."},
    },
)
async def original(image: ImageId, served: Collection, request: Request) -> Response:
    """The picture file itself, whole or a range of it."""

    def job() -> Response:
        details = known(served, image)
        opened = open_file(details, served.engine.roots())
        name = opened.place.relative.name
        kind = _SHOWN.get(details.format or "")
        manner = "inline" if kind else "attachment"
        headers = {
            "ETag": f'"{details.sha256}"',
            "Cache-Control": "private, no-cache",
            "Content-Disposition": f"{manner}; filename*=UTF-8''{quote(os.fsencode(name))}",
        }
        guessed = mimetypes.guess_type(f"x.{details.format}")[0] or "application/octet-stream"
        return file_response(opened.file, request, kind or guessed, headers)

    return await served.state.workers.run(job)


def known(served: Served, image: int) -> ImageDetails:
    found = served.engine.image(image)
    if found is None:
        raise ProblemError(404, f"There is no image #{image} in this collection.")
    return found


def _content(details: ImageDetails, served: Served) -> bytes:
    opened = open_file(details, served.engine.roots())
    with opened.file:
        return opened.file.read()


def _as_json(details: ImageDetails, served: Served) -> dict[str, Any]:
    local = served.state.settings.loopback
    roots = served.engine.roots()
    taken = details.taken_at
    return {
        "id": details.id,
        "sha256": details.sha256,
        "width": details.width,
        "height": details.height,
        "format": details.format,
        "taken_at": None if taken is None else taken.isoformat(),
        "camera": details.camera,
        "lens": details.lens,
        "latitude": details.latitude,
        "longitude": details.longitude,
        "size_bytes": details.files[0].size_bytes if details.files else None,
        "files": [
            {
                "path": str(one.path) if local else below_root(str(one.path), roots),
                "name": one.relative.name,
                "present": one.present,
            }
            for one in details.files
        ],
        "captions": [{"text": one.text, "source": one.source} for one in details.captions],
        "tags": [{"name": one.name, "by": one.by, "probability": one.probability} for one in details.tags],
        "text": details.text,
        "key": details.key,
    }
