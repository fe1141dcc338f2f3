"""An open file -> an answer: whole, one range of it (RFC 9110), or nothing but its headers where it has not changed.

Several ranges at once are answered with the whole, as the standard allows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from mmsearch.server.problems import problem
from mmsearch.server.replies import unchanged

CHUNK_BYTES = 1 << 18
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class ClosingResponse(StreamingResponse):
    """Closes what it is sent from, also where the client goes away in the middle, or before."""

    def __init__(
        self, chunks: Iterator[bytes], close: Callable[[], None], status: int, headers: Mapping[str, str], kind: str
    ) -> None:
        super().__init__(chunks, status, headers, kind)
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._close()


def file_response(file: BinaryIO, request: Request, media_type: str, headers: Mapping[str, str]) -> Response:
    """headers: an ETag among them. The file is closed when the answer has gone, or the client has."""
    size = os.fstat(file.fileno()).st_size
    etag = headers["ETag"]
    headers = {**headers, "Accept-Ranges": "bytes"}
    if unchanged(request, etag):
        file.close()
        return Response(status_code=304, headers=headers)
    first, last, status = 0, size - 1, 200
    if request.headers.get("if-range", etag) == etag and (wanted := _RANGE.fullmatch(request.headers.get("range", ""))):
        span = _span(wanted[1], wanted[2], size)
        if span is None:
            file.close()
            detail = f"There is no such range: the file has {size} bytes."
            return problem(416, detail, headers={"Content-Range": f"bytes */{size}"})
        (first, last), status = span, 206
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    headers["Content-Length"] = str(last - first + 1)
    return ClosingResponse(_chunks(file, first, last - first + 1), file.close, status, headers, media_type)


def _span(first: str, last: str, size: int) -> tuple[int, int] | None:
    """First and last byte, both in; None for a range that the file does not have."""
    if not first:
        length = min(int(last or 0), size)
        return (size - length, size - 1) if length else None
    begin, end = int(first), min(int(last), size - 1) if last else size - 1
    return (begin, end) if begin <= end else None


def _chunks(file: BinaryIO, first: int, length: int) -> Iterator[bytes]:
    file.seek(first)
    while length and (data := file.read(min(length, CHUNK_BYTES))):
        length -= len(data)
        yield data
