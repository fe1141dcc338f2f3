"""/uploads: pictures that clients send to search with. Decoded under the limits of files when they arrive, and kept as
the bytes that came, which is smaller (upload_store.py)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from starlette.datastructures import UploadFile

from mmsearch.decode import decode
from mmsearch.errors import PictureError, UsageError
from mmsearch.server import answers, shapes
from mmsearch.server.replies import reply, unchanged
from mmsearch.server.settings import API
from mmsearch.server.state import Shared, State
from mmsearch.server.thumbnails import MEDIA_TYPE, thumbnail

router = APIRouter(prefix=API, tags=["uploads"])

_DECODED_TO = 256  # enough to see that all of it can be decoded
_PICTURE = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "required": True,
    "content": {
        "image/*": _PICTURE,
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"picture": _PICTURE["schema"]},
                "required": ["picture"],
            }
        },
    },
}


@router.post("/uploads", response_model=answers.Upload, openapi_extra={"requestBody": _BODY})
async def upload(request: Request, state: Shared) -> Response:
    """Send a picture to search with, as the body itself or as the field `picture` of a form."""
    data = await _content(request)
    return await state.workers.run(lambda: _kept(state, data))


@router.get(
    "/uploads/{upload}/thumbnail",
    response_class=Response,
    responses={200: {"content": {MEDIA_TYPE: {}}}, 304: {"description": "It has not changed."}},
)
async def upload_thumbnail(
    upload: Annotated[shapes.UploadId, Path()], state: Shared, request: Request, size: shapes.ThumbnailSize = 320
) -> Response:
    """The picture in small, upright."""

    def job() -> Response:
        data = state.uploads.get(upload)
        headers = {"ETag": f'"{upload}-{size}"', "Cache-Control": "private, max-age=86400"}
        if unchanged(request, headers["ETag"]):
            return Response(status_code=304, headers=headers)
        decoded = decode(data, target=size, limits=state.settings.limits)
        return Response(thumbnail(decoded.picture, size), headers=headers, media_type=MEDIA_TYPE)

    return await state.workers.run(job)


async def _content(request: Request) -> bytes:
    if not request.headers.get("content-type", "").startswith("multipart/"):
        return await request.body()
    async with request.form(max_files=1, max_fields=4) as form:
        picture = form.get("picture")
        if not isinstance(picture, UploadFile):
            raise UsageError("The form has no picture; send it as the file of the field `picture`.")
        return await picture.read()


def _kept(state: State, data: bytes) -> Response:
    try:
        decoded = decode(data, target=_DECODED_TO, limits=state.settings.limits)
    except PictureError as error:
        raise UsageError(f"Cannot use the picture: {error}.") from error
    return reply({"id": state.uploads.put(data), "width": decoded.width, "height": decoded.height})
