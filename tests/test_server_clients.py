"""Clients that are slow, broken or many: they cost themselves alone."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx2 as httpx
import pytest

from mmsearch import Engine
from tests.conftest import paint
from tests.serving import V1, Running, serving
from tests.toy import ToyEncoder


@pytest.fixture
def indexed(engine: Engine, images: Path) -> Engine:
    engine.index(images)
    return engine


@pytest.fixture
def hasty(indexed: Engine) -> Iterator[Running]:
    """A server of little patience."""
    with serving(indexed, stall_seconds=0.3, request_seconds=5.0) as running:
        yield running


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def in_progress(server: Running) -> int:
    return int(server.state.metrics.going._value.get())


def ends(connection: socket.socket) -> bytes:
    """What comes until the server cuts the connection."""
    received = b""
    with suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += data
    return received


def is_open(path: Path) -> bool:
    """Whether this process has a file open, where the system tells."""
    files = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    return str(path) in [os.path.realpath(f"/proc/self/fd/{one}") for one in files]


@pytest.mark.parametrize("sent", [b"", b"GET", b"GET /api/v1/health HTTP/1.1\r\nHost: local", b"\r\n"])
def test_half_a_head_is_cut(hasty: Running, sent: bytes) -> None:
    with hasty.connect() as connection:
        connection.sendall(sent)
        answer = ends(connection)
        assert answer.startswith(b"HTTP/1.1 400") if sent == b"\r\n" else answer == b""
        assert in_progress(hasty) == 0


def test_half_a_head_after_a_whole_request_is_cut(hasty: Running) -> None:
    with hasty.connect() as connection:
        connection.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /api/v1/hea")
        assert ends(connection).count(b"HTTP/1.1 200") == 1


def test_a_head_that_drips_is_cut(hasty: Running) -> None:
    with hasty.connect() as connection:
        started = time.monotonic()
        try:
            for byte in b"GET /api/v1/health HTTP/1.1\r\nX-Long: " + b"x" * 10_000:
                connection.sendall(bytes([byte]))
                time.sleep(0.01)
        except (BrokenPipeError, ConnectionResetError):
            pass
        else:
            pytest.fail("nothing was cut")
        assert time.monotonic() - started < 30


def test_half_a_body_is_answered(hasty: Running) -> None:
    with hasty.connect() as connection:
        connection.sendall(
            b"POST /api/v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b'Content-Length: 100\r\n\r\n{"terms": ['
        )
        answer = ends(connection)
    assert answer.startswith(b"HTTP/1.1 408") and b"problem+json" in answer and b"connection: close" in answer.lower()


def test_a_client_that_leaves_in_the_middle_of_a_body(hasty: Running, caplog: pytest.LogCaptureFixture) -> None:
    for path in ("search", "uploads"):
        connection = hasty.connect()
        connection.sendall(
            f"POST /api/v1/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf".encode()
        )
        connection.close()
    wait_until(lambda: in_progress(hasty) == 0)
    assert hasty.http.get(f"{V1}/health").status_code == 200
    assert [one for one in caplog.records if one.levelno >= 40] == []


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),  # TLS
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"POST /api/v1/search HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_not_http(hasty: Running, request_bytes: bytes) -> None:
    with hasty.connect() as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(request_bytes)
        answer = ends(connection)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 408")), answer[:100]
    assert hasty.http.get(f"{V1}/health").status_code == 200


def test_a_client_that_reads_nothing_is_cut(engine: Engine, tmp_path: Path) -> None:
    """Of a large answer: an original of 30 MB, and a ZIP of it."""
    path = paint(tmp_path / "images" / "red.png", "red")
    with path.open("ab") as file:
        file.write(os.urandom(30_000_000))  # after the picture's end
    engine.index(tmp_path / "images")
    with serving(engine, stall_seconds=0.3) as server:
        body = b'{"ids": [1]}'
        for request in (
            b"GET /api/v1/images/1/original HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"POST /api/v1/export HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body),
        ):
            with socket.socket() as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.connect(("127.0.0.1", server.port))
                connection.sendall(request)
                wait_until(lambda: in_progress(server) == 1)
                wait_until(lambda: in_progress(server) == 0)  # though this end stays open and reads nothing
        assert not is_open(path)
        assert len(server.http.get(f"{V1}/images/1/original").content) == path.stat().st_size


def test_clients_that_leave_while_they_are_answered(engine: Engine, tmp_path: Path) -> None:
    path = paint(tmp_path / "images" / "red.png", "red")
    with path.open("ab") as file:
        file.write(os.urandom(30_000_000))
    engine.index(tmp_path / "images")
    with serving(engine) as server:
        for request in (b"GET /api/v1/images/1/original", b"GET /api/v1/map", b"GET /api/v1/search?q=red"):
            for reset in (False, True):
                connection = server.connect()
                connection.sendall(request + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
                if reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                else:
                    connection.recv(10)
                connection.close()
        wait_until(lambda: in_progress(server) == 0)
        assert not is_open(path)
        assert server.http.get(f"{V1}/health").status_code == 200


def test_a_client_that_leaves_a_stream_of_events(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def waits(self: Engine, *_: object, **__: object) -> object:
        release.wait(30)
        raise ZeroDivisionError

    with Engine.open(tmp_path / "collection", model=ToyEncoder()) as engine:
        engine.index(images)
        monkeypatch.setattr(Engine, "index", waits)
        with serving(engine) as server:
            run = server.http.post(f"{V1}/runs", json={"kind": "index"}).json()["id"]
            with server.http.stream("GET", f"{V1}/runs/{run}/events") as answer:
                parts = answer.iter_text()
                assert next(parts).startswith("event: progress")
                assert in_progress(server) == 1
            wait_until(lambda: in_progress(server) == 0)
            release.set()


def test_comments_keep_a_quiet_stream_open(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def waits(self: Engine, *_: object, **__: object) -> object:
        release.wait(30)
        raise ZeroDivisionError

    monkeypatch.setattr("mmsearch.server.run_endpoints.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("mmsearch.server.run_endpoints.COMMENT_SECONDS", 0.05)
    with Engine.open(tmp_path / "collection", model=ToyEncoder()) as engine:
        engine.index(images)
        monkeypatch.setattr(Engine, "index", waits)
        with serving(engine) as server:
            run = server.http.post(f"{V1}/runs", json={"kind": "index"}).json()["id"]
            text = ""
            with server.http.stream("GET", f"{V1}/runs/{run}/events") as answer:
                for part in answer.iter_text():
                    text += part
                    if text.count(": still here\n\n") == 2:
                        release.set()
            assert "event: end\ndata: " in text


def test_64_clients_at_once(indexed: Engine) -> None:
    """Each with a connection of its own, searches and pictures mixed; answers are those of a single client."""
    colours = ("red", "green", "blue", "yellow", "black", "white", "purple", "orange")
    with serving(indexed, workers=8) as server:
        alone = {one: [hit["id"] for hit in search(server.http, one)] for one in colours}
        image = alone["red"][0]
        original = server.http.get(f"{V1}/images/{image}/original").content
        barrier = threading.Barrier(64)

        def client(number: int) -> int:
            with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as http:
                barrier.wait(60)
                for turn in range(4):
                    colour = colours[(number + turn) % len(colours)]
                    assert [hit["id"] for hit in search(http, colour)] == alone[colour]
                    assert http.get(f"{V1}/images/{image}/original").content == original
                    assert http.get(f"{V1}/images/{alone[colour][0]}/thumbnail?size=160").status_code == 200
            return number

        with ThreadPoolExecutor(64) as pool:
            assert list(pool.map(client, range(64))) == list(range(64))
        assert in_progress(server) == 0


def search(http: httpx.Client, text: str) -> list[dict[str, int]]:
    answer = http.post(f"{V1}/search", json={"terms": [{"text": text}], "k": 5})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, int]] = json.loads(answer.content)["hits"]
    return found


def test_too_many_waiting_requests_are_told_so(indexed: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    release, busy = threading.Event(), threading.Event()

    def waits(self: Engine) -> dict[str, int]:
        busy.set()
        release.wait(30)
        return {}

    monkeypatch.setattr(Engine, "tags", waits)
    monkeypatch.setattr("mmsearch.server.workers.MOST_WAITING", 2)
    with serving(indexed, workers=1) as server, ThreadPoolExecutor(8) as pool:

        def ask() -> int:
            return httpx.get(f"{server.url}{V1}/tags", timeout=60, trust_env=False).status_code

        first = pool.submit(ask)
        assert busy.wait(30)
        more = [pool.submit(ask) for _ in range(6)]
        wait_until(lambda: sum(one.done() for one in more) == 4)
        assert sorted(one.result() for one in more if one.done()) == [503] * 4
        release.set()
        assert [one.result() for one in (first, *more)].count(200) == 3
