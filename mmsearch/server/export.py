"""POST /export: the originals of chosen images as one ZIP, made while it is sent: nothing is kept, nothing is packed.

Names are kept apart; what cannot be read is named in `not exported.txt`.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Generator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from mmsearch.server import shapes
from mmsearch.server.images import known
from mmsearch.server.originals import CHUNK_BYTES, ClosingResponse
from mmsearch.server.places import open_file
from mmsearch.server.problems import ProblemError
from mmsearch.server.settings import API
from mmsearch.server.state import Collection, Served

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

router = APIRouter(prefix=API, tags=["images"])


@router.post(
    "/export",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/zip": {}}, "description": "A ZIP of picture files."}},
)
async def export(order: shapes.ExportOrder, served: Collection) -> Response:
    """The files of some images as a ZIP."""
    images = list(dict.fromkeys(order.ids))
    await served.state.workers.run(lambda: [known(served, one) for one in images[:1]])
    headers = {"Content-Disposition": 'attachment; filename="pictures.zip"', "Cache-Control": "no-store"}
    chunks = _zipped(served, images)
    return ClosingResponse(chunks, chunks.close, 200, headers, "application/zip")


class _Pipe(io.RawIOBase):
    """What the archive writes, to be taken away piece by piece."""

    def __init__(self) -> None:
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer) -> int:
        before = len(self._written)
        self._written += data
        return len(self._written) - before

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken


def _zipped(served: Served, images: Sequence[int]) -> Generator[bytes]:
    pipe, names, problems = _Pipe(), set[str](), list[str]()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for image in images:
            try:
                opened = open_file(known(served, image), served.engine.roots())
            except ProblemError as error:
                problems.append(error.detail)
                continue
            with opened.file as file:
                status = os.fstat(file.fileno())
                entry = zipfile.ZipInfo(_apart(opened.place.relative, names), _moment(status.st_mtime))
                entry.file_size = status.st_size
                with archive.open(entry, "w", force_zip64=status.st_size > zipfile.ZIP64_LIMIT // 2) as out:
                    while data := file.read(CHUNK_BYTES):
                        out.write(data)
                        yield pipe.take()
        if problems:
            archive.writestr("not exported.txt", "\n".join(problems) + "\n")
    yield pipe.take()


def _apart(path: Path, taken: set[str]) -> str:
    """The file's name; with a number where another has it already. Notes what it gives."""
    text = os.fsencode(path.name).decode("utf-8", "replace")
    stem, suffix = os.path.splitext(text)
    name, number = text, 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem} ({number}){suffix}"
    taken.add(name.casefold())
    return name


def _moment(seconds: float) -> tuple[int, int, int, int, int, int]:
    """ZIP knows the years 1980 to 2107."""
    moment = datetime.fromtimestamp(min(max(seconds, 86_400 * 365 * 11), 86_400 * 365 * 130))
    return moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second
