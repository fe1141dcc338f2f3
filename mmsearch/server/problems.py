"""Every error -> application/problem+json (RFC 9457): `type`, `title`, `status`, and `detail`: one clear line.

`type` names the class of our errors, as in `urn:mmsearch:UsageError`, so that the client raises the same again. The
only place that picks status codes for them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from mmsearch.errors import LockError, MissingExtraError, MMSearchError, PictureError, UsageError

TYPE = "urn:mmsearch:"
MEDIA_TYPE = "application/problem+json"
INTERNAL = "Something went wrong in the server; its log says what."
_VALUE_SHOWN = 200


class ProblemError(Exception):
    """An answer that is a problem of HTTP itself. detail: one clear line."""

    def __init__(self, status: int, detail: str, *, retry_after: int | None = None, **headers: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)


def problem(
    status: int, detail: str, *, kind: str = "about:blank", headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """The answer itself."""
    body = {"type": kind, "title": HTTPStatus(status).phrase, "status": status, "detail": " ".join(detail.split())}
    return Response(json.dumps({**body, **more}), status, headers, MEDIA_TYPE)


def of_error(error: MMSearchError) -> Response:
    """One of our own errors. What the caller can mend is 400; what the server's owner can, 503."""
    status, headers = 503, {}
    if isinstance(error, UsageError | PictureError):
        status = 400
    elif isinstance(error, MissingExtraError):
        status = 501
    elif isinstance(error, LockError):
        headers["Retry-After"] = "5"
    return problem(status, str(error), kind=TYPE + type(error).__name__, headers=headers)


def add_to(app: FastAPI) -> None:
    @app.exception_handler(MMSearchError)
    async def ours(_: Request, error: MMSearchError) -> Response:
        return of_error(error)

    @app.exception_handler(ProblemError)
    async def of_http(_: Request, error: ProblemError) -> Response:
        return problem(error.status, error.detail, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        errors = [{"loc": [str(one) for one in each["loc"]], "msg": each["msg"]} for each in error.errors()]
        first = errors[0]
        where = ".".join(first["loc"])
        return problem(422, f"{where}: {first['msg']}"[:_VALUE_SHOWN], errors=errors[:20])

    @app.exception_handler(HTTPException)
    async def by_framework(request: Request, error: HTTPException) -> Response:
        detail = {
            404: f"There is nothing at {request.url.path[:_VALUE_SHOWN]}.",
            405: f"{request.method} is not for {request.url.path[:_VALUE_SHOWN]}.",
        }.get(error.status_code, str(error.detail))
        return problem(error.status_code, detail, headers=error.headers)
