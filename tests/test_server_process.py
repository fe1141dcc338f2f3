"""`mmsearch serve` as a process: what it says, how it ends, what it refuses, and that a kill damages nothing."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest

from mmsearch import Engine
from mmsearch.cli.main import main
from tests.conftest import paint
from tests.serving import V1
from tests.test_cli_process import command, environment_in

PATIENCE_SECONDS = 60
Refuse = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a collection of the built-in encoder."""
    home = tmp_path_factory.mktemp("serve")
    for colour in ("red", "green", "blue"):
        paint(home / "images" / f"{colour}.png", colour)
    with Engine.open(home / "collection") as engine:
        engine.index(home / "images")
    return home


@contextmanager
def started(home: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server that listens, and its address as it said it."""
    with (home / "stderr.txt").open("wb") as stderr:  # a pipe that nobody reads would stop it
        process = subprocess.Popen(
            command("serve", "--port", "0", *arguments),
            env=environment_in(home),
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        found = re.search(r"http://\S+", line)
        assert found, line
        yield process, found[0].rstrip("/")
    finally:
        process.kill()
        process.communicate()


def test_it_says_where_it_is_and_answers(home: Path) -> None:
    with started(home) as (_, address):
        assert address.startswith("http://127.0.0.1:")
        assert httpx.get(f"{address}{V1}/ready", timeout=60, trust_env=False).json() == {"status": "ready"}
        found = httpx.get(f"{address}{V1}/search?q=red&k=1", timeout=60, trust_env=False).json()
        assert found["space"] == "lite"
        assert found["hits"][0]["probability"] is not None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_streams_and_requests_open(home: Path, number: signal.Signals, code: int) -> None:
    with started(home) as (process, address):
        host, port = address.removeprefix("http://").split(":")
        with (
            httpx.Client(base_url=address, timeout=60, trust_env=False) as http,
            socket.create_connection((host, int(port))) as half,
        ):
            half.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: loc")
            # A run that waits for another process's index run is a stream without an end.
            with Engine.open(home / "collection") as engine, engine._catalog.index_run(print, lambda: False):
                run = http.post(f"{V1}/runs", json={"kind": "index"}).json()["id"]
                with http.stream("GET", f"{V1}/runs/{run}/events") as stream:
                    parts = stream.iter_text()
                    assert next(parts).startswith("event: progress")
                    process.send_signal(number)
                    list(parts)  # it is ended, not left open
                    assert process.wait(PATIENCE_SECONDS) == code
        said = (home / "stderr.txt").read_text()
        assert "Traceback" not in said


def test_requests_are_logged_as_json_and_without_their_text(home: Path) -> None:
    with started(home) as (process, address):
        httpx.get(f"{address}{V1}/search?q=secret", timeout=60, trust_env=False)
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_SECONDS)
        lines = [json.loads(line) for line in (home / "stderr.txt").read_text().splitlines()]
    assert [(one["method"], one["path"], one["status"]) for one in lines] == [("GET", f"{V1}/search", 200)]
    assert "secret" not in str(lines)


def test_others_need_the_token_that_it_shows(home: Path) -> None:
    with started(home, "--host", "0.0.0.0") as (process, address):
        base, _, token = address.partition("/?token=")
        port = base.rpartition(":")[2]
        local = f"http://127.0.0.1:{port}"
        assert len(token) >= 32
        assert httpx.get(f"{local}{V1}/status", trust_env=False).status_code == 401
        bearer = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"{local}{V1}/status", headers=bearer, timeout=60, trust_env=False).status_code == 200
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_SECONDS)
        assert "others can reach this address" in (home / "stderr.txt").read_text()


def test_a_token_of_ones_own_is_not_shown(home: Path) -> None:
    with started(home, "--token", "a token of my own") as (_, address):
        assert "token" not in address
        assert httpx.get(f"{address}{V1}/status", trust_env=False).status_code == 401


def test_several_collections(home: Path) -> None:
    with Engine.open(home / "other") as engine:
        engine.index(home / "images")
    with started(home, "-c", str(home / "other"), "-c", str(home / "collection")) as (_, address):
        found = httpx.get(f"{address}{V1}/collections", timeout=60, trust_env=False).json()
        assert [(one["name"], one["current"]) for one in found] == [("other", True), ("collection", False)]


@pytest.fixture
def refuse(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Refuse]:
    """`mmsearch serve` in this process, for what it does not begin: its exit code and its one line."""
    monkeypatch.setenv("MMSEARCH_COLLECTION", str(home / "collection"))
    before = signal.getsignal(signal.SIGTERM)

    def refused(*arguments: str) -> tuple[int, str]:
        code = main(["serve", *arguments])
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1
        return code, err.removeprefix("mmsearch: ").removesuffix("\n")

    yield refused
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--host", "no such host"], 2, "There is no host"),
        (["--host", "192.0.2.1", "--token", "a token of my own"], 2, "cannot be listened on"),
        (["--port", "70000"], 2, "70000"),
        (["-c", "./nothing"], 4, "There is no collection"),
        (["--token", "short"], 2, "A token has 12 characters"),
        (["--cors", "*"], 2, "is no origin"),
        (["--allow-host", "a:1"], 2, "is no name of a host"),
    ],
)
def test_what_cannot_be_served_is_one_line(refuse: Refuse, arguments: list[str], code: int, said: str) -> None:
    found = refuse(*arguments)
    assert found[0] == code and said in found[1], found


def test_a_port_in_use(refuse: Refuse) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, said = refuse("--port", str(taken.getsockname()[1]))
    assert code == 2 and "is in use; choose another with --port" in said


def test_two_collections_of_one_name(refuse: Refuse, home: Path) -> None:
    code, said = refuse("-c", f"{home}/collection", "-c", f"{home}/images/../collection")
    assert code == 2 and "Two collections" in said


@pytest.mark.parametrize("name", ["fastapi", "uvicorn", "limits", "prometheus_client"])
def test_without_the_extra_it_says_which(refuse: Refuse, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for module in [one for one in sys.modules if one.startswith("mmsearch.server")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    assert refuse() == (4, f"Serving needs {name}, which is not installed: install mmsearch[serve].")


def test_a_kill_leaves_the_collection_sound(tmp_path: Path) -> None:
    paint(tmp_path / "images" / "first.png", "red")
    with Engine.open(tmp_path / "collection") as engine:
        engine.index(tmp_path / "images")
    for number in range(60):
        paint(tmp_path / "images" / f"{number}.png", "green", number)
    with started(tmp_path) as (process, address):
        with httpx.Client(base_url=address, timeout=60, trust_env=False) as http:
            http.post(f"{V1}/runs", json={"kind": "index"})
            http.put(f"{V1}/saved/mine", json={"terms": [{"text": "red"}]})
            deadline = time.monotonic() + PATIENCE_SECONDS
            while http.get(f"{V1}/collections").json()[0]["images"] < 2:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            http.get(f"{V1}/images/1/thumbnail")
        process.kill()
        process.wait(PATIENCE_SECONDS)
    with Engine.open(tmp_path / "collection") as engine:
        assert engine.verify().sound
        assert list(engine.saved_queries()) == ["mine"]
        before = engine.status().images
        report = engine.index()
        assert (report.new, engine.status().images) == (61 - before, 61)
        assert engine.verify().sound
