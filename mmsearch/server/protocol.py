"""HTTP/1.1 that does not wait for ever: a connection that brings no whole request head, or takes nothing of its answer,
is cut. uvicorn limits only the pause between requests."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol


class PatientProtocol(H11Protocol):
    """patience_seconds: how long, for the whole process."""

    patience_seconds: ClassVar[float] = 30.0
    _head: asyncio.TimerHandle
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head = self._later()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head.cancel()
        super().connection_lost(exc)  # which resumes writing

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:  # a head came whole, and is being answered
            self._head.cancel()

    def on_response_complete(self) -> None:
        self._head.cancel()
        self._head = self._later()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self._later()

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
        super().resume_writing()

    def _later(self) -> asyncio.TimerHandle:
        return self.loop.call_later(self.patience_seconds, self.transport.abort)
