"""What the owner of a server can see: metrics for Prometheus at /metrics, and a line of JSON for each request.

Requests are counted by route, not by address, so that there are few series and no search text is in them; the log has
the path without its query, for the same reason.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmsearch.server.metrics import Metrics
from mmsearch.server.state import Shared

_log = logging.getLogger("mmsearch.server.requests")

_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")

router = APIRouter(tags=["state"])


class Observer:
    """Outermost, so that it sees what the guard refuses, too."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 499  # the client went away before there was an answer

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        begun = time.perf_counter()
        with self.metrics.going.track_inprogress():
            try:
                await self.app(scope, receive, noted)
            finally:
                self._note(scope, status, time.perf_counter() - begun)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = getattr(scope.get("route"), "path", None) or "other"
        self.metrics.requests.labels(method, route, str(status)).inc()
        self.metrics.seconds.labels(method, route).observe(seconds)
        client = scope["client"][0] if scope.get("client") else None
        _log.info(
            "request",
            extra={
                "method": scope["method"],
                "path": scope["path"],
                "route": route,
                "status": status,
                "ms": round(seconds * 1e3, 2),
                "client": client,
            },
        )


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(state: Shared) -> Response:
    """Figures for Prometheus."""

    def job() -> bytes:
        for name, engine in state.engines.items():
            state.metrics.images.labels(name).set(engine.count())
        return generate_latest(state.metrics.registry)

    return Response(await state.workers.run(job), media_type=CONTENT_TYPE_LATEST)


def configure_logs(*, as_json: bool) -> None:
    """For a process that does nothing but serve: JSON lines on stderr, with every request; or, for a person at a
    terminal, one line each of all but the requests."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_json_formatter() if as_json else _OneLine("mmsearch: %(message)s"))
    for name, level in (
        ("mmsearch.server", logging.INFO),
        ("uvicorn", logging.WARNING),
        ("asyncio", logging.ERROR),
    ):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    _log.setLevel(logging.INFO if as_json else logging.WARNING)


class _OneLine(logging.Formatter):
    """For a person at a terminal: what failed; where, for those who ask."""

    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[1] if record.exc_info else None
        if error is None or os.environ.get("MMSEARCH_DEBUG"):
            return super().format(record)
        what = " ".join(f"{record.getMessage()}: {type(error).__name__}: {error}".split())
        return f"mmsearch: {what} (please report it; MMSEARCH_DEBUG=1 shows where it was)"


def _json_formatter() -> Any:
    from pythonjsonlogger.json import JsonFormatter

    return JsonFormatter(
        "%(message)s",
        timestamp=True,
        rename_fields={"levelname": "level"},
        reserved_attrs=[
            "args",
            "created",
            "exc_text",
            "filename",
            "funcName",
            "levelno",
            "lineno",
            "module",
            "msecs",
            "msg",
            "name",
            "pathname",
            "process",
            "processName",
            "relativeCreated",
            "stack_info",
            "thread",
            "threadName",
            "taskName",
            "color_message",
        ],
    )
