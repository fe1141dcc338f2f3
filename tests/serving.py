"""A real server on a thread of the test's process, and raw connections for clients that misbehave."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import httpx2 as httpx

from mmsearch import Engine
from mmsearch.server.observing import configure_logs
from mmsearch.server.running import listen, make_server
from mmsearch.server.settings import ServerSettings
from mmsearch.server.state import State

V1 = "/api/v1"


@dataclass(frozen=True, slots=True)
class Running:
    """A server, and a client of it."""

    port: int
    http: httpx.Client
    state: State

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        """A plain connection."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.settimeout(30)
        return connection

    def raw(self, request: bytes) -> bytes:
        """All that the server answers to these bytes until it closes; send `Connection: close`."""
        with self.connect() as connection:
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(65536), b""))


@contextmanager
def serving(engines: Engine | Mapping[str, Engine], **settings: object) -> Iterator[Running]:
    """A server for one engine, or for several by name; without limits of rate unless asked for."""
    named = {"pictures": engines} if isinstance(engines, Engine) else engines
    chosen = replace(ServerSettings(port=0, rate=0, workers=8), **settings)  # type: ignore[arg-type]
    listening = listen(chosen)
    port = listening.getsockname()[1]
    server = make_server(named, chosen)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline
            time.sleep(0.005)
        headers = {"Authorization": f"Bearer {chosen.token}"} if chosen.token else {}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30, trust_env=False) as http:
            yield Running(port, http, server.config.app.state.server)  # type: ignore[union-attr]
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@contextmanager
def configured_logs(*, as_json: bool) -> Iterator[None]:
    """Logs as in a process that does nothing but serve."""
    loggers = [logging.getLogger(f"mmsearch.server{name}") for name in ("", ".requests")]
    loggers += [logging.getLogger(name) for name in ("uvicorn", "asyncio")]
    before = [(one.handlers, one.propagate, one.level) for one in loggers]
    try:
        configure_logs(as_json=as_json)
        yield
    finally:
        for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)


def problem(answer: httpx.Response, status: int) -> str:
    """The one line of an error, once its shape is checked."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) >= {"type", "title", "status", "detail"}
    assert body["status"] == status
    assert "\n" not in body["detail"] and "Traceback" not in answer.text
    return str(body["detail"])
