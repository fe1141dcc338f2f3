"""`serve --watch`: what changes in the folders is found over HTTP, by events and by looks."""

from __future__ import annotations

import io
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from mmsearch import Engine, following
from mmsearch.errors import CollectionError
from mmsearch.server import watches
from tests.conftest import paint
from tests.serving import V1, Running, configured_logs, problem, serving
from tests.test_server_process import PATIENCE_SECONDS, started
from tests.test_watching import WAYS, wait_until
from tests.toy import ToyEncoder

MANY = 150


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("LOOK_SECONDS", 0.05), ("SETTLE_SECONDS", 0.05), ("LOOK_SHARE", 0.5)):
        monkeypatch.setattr(following, name, seconds)
    monkeypatch.setattr(watches, "AGAIN_SECONDS", 0.05)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A root with one picture, indexed."""
    paint(tmp_path / "images" / "first.png", "red")
    with Engine.open(tmp_path / "collection", model=ToyEncoder()) as engine:
        engine.index(tmp_path / "images")
    return tmp_path / "images"


@pytest.fixture
def engine(folder: Path) -> Iterator[Engine]:
    with Engine.open(folder.parent / "collection", model=ToyEncoder()) as engine:
        yield engine


def names(http: httpx.Client) -> set[str]:
    return {hit["name"] for hit in http.get(f"{V1}/search?q=red&k=500").json()["hits"]}


def runs(http: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = http.get(f"{V1}/runs").json()
    return found


def told(http: httpx.Client, count: str) -> int:
    """By all runs that have ended."""
    return sum(run["report"][count] for run in runs(http) if run["report"])


def watching(server: Running) -> str | None:
    found: str | None = server.http.get(f"{V1}/status").json()["watching"]
    return found


@pytest.mark.parametrize("poll", WAYS)
def test_what_changes_is_found(engine: Engine, folder: Path, poll: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mmsearch.server.watching")
    with serving(engine, watch=True, poll=poll) as server:
        wait_until(lambda: watching(server) == ("polling" if poll else "events"), "a collection that is followed")
        paint(folder / "second.png", "red", 2)
        (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        wait_until(lambda: names(server.http) == {"first.png", "second.png"}, "a new picture")
        (folder / "first.png").unlink()
        wait_until(lambda: names(server.http) == {"second.png"}, "a picture that is gone")
        wait_until(lambda: told(server.http, "missing") == 1, "the end of the last run")
        seen = runs(server.http)
        assert {(run["kind"], run["collection"], run["state"]) for run in seen} == {("index", "pictures", "done")}
        assert told(server.http, "new") == 1
        assert all(run["started_at"] <= run["ended_at"] for run in seen)
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith(f"following {folder} by {'polling (as asked)' if poll else 'events'}")
    assert sum("1 new" in line for line in said) == 1
    assert sum("broken.png" in line for line in said) == 1  # once, though it fails in each run


def test_without_the_option_nothing_is_followed(engine: Engine) -> None:
    with serving(engine) as server:
        assert watching(server) is None
        assert not [one for one in threading.enumerate() if one.name.startswith("mmsearch-watch")]


def test_several_collections_each_follow_their_own(engine: Engine, folder: Path, tmp_path: Path) -> None:
    paint(tmp_path / "other images" / "a.png", "red", 3)
    with Engine.open(tmp_path / "other", model=ToyEncoder()) as other:
        other.index(tmp_path / "other images")
        with serving({"one": engine, "two": other}, watch=True, poll=True) as server:
            paint(tmp_path / "other images" / "b.png", "red", 4)
            paint(folder / "c.png", "red", 5)
            wait_until(lambda: [one.count() for one in (engine, other)] == [2, 2], "both")
            wait_until(lambda: {run["collection"] for run in runs(server.http)} == {"one", "two"}, "runs of both")


def test_a_run_at_work_is_seen_waited_for_and_ended_with_the_server(
    engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of its pictures, which the encoder takes only one by one and when it is let."""
    going, entered = threading.Event(), threading.Event()
    monkeypatch.setattr(ToyEncoder, "batch_size", 1)
    real = ToyEncoder.encode_images

    def slow(self: ToyEncoder, prepared: Any) -> Any:
        if engine.count() >= 2:
            entered.set()
            going.wait(PATIENCE_SECONDS)
        return real(self, prepared)

    monkeypatch.setattr(ToyEncoder, "encode_images", slow)
    with serving(engine, watch=True, poll=True) as server:
        wait_until(lambda: watching(server), "a collection that is followed")
        for number in range(MANY):
            paint(folder / f"{number}.png", "red", number)
        assert entered.wait(PATIENCE_SECONDS)
        wait_until(lambda: runs(server.http), "the run of the watch")
        run = runs(server.http)[0]
        assert (run["kind"], run["state"], run["stage"]) == ("index", "running", "encoding")
        assert "--watch" in problem(server.http.delete(f"{V1}/runs/{run['id']}"), 409)
        asked = server.http.post(f"{V1}/runs", json={"kind": "index"}).json()["id"]
        wait_until(lambda: server.http.get(f"{V1}/runs/{asked}").json()["stage"] == "waiting", "a run that waits")
        threading.Timer(0.5, going.set).start()
    states = [one.state for one in server.state.runs.all()]
    assert states == ["cancelled", "cancelled"]
    assert not [one for one in threading.enumerate() if one.name.startswith("mmsearch-watch")]
    assert 2 <= engine.count() < MANY
    assert engine.verify().sound


def test_where_following_fails_it_begins_again(
    engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    away = CollectionError("its disk\nis away")
    errors: list[Exception] = [away, away, ValueError("x")]
    real = Engine.watch

    def watch(self: Engine, **options: Any) -> None:
        if errors:
            raise errors.pop(0)
        real(self, **options)

    monkeypatch.setattr(Engine, "watch", watch)
    with serving(engine, watch=True, poll=True) as server:
        paint(folder / "second.png", "red", 2)
        wait_until(lambda: names(server.http) == {"first.png", "second.png"}, "a new picture")
    said = [record.getMessage() for record in caplog.records if record.name == "mmsearch.server.watching"]
    assert said == ["its disk is away", "following pictures failed"]


def test_an_error_is_one_line_for_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with configured_logs(as_json=False):
        try:
            raise ValueError("a\nb")
        except ValueError:
            logging.getLogger("mmsearch.server").exception("run 1 of index failed")
        logging.getLogger("mmsearch.server.requests").info("request")
        logging.getLogger("mmsearch.server.watching").info("following nothing")
    assert stream.getvalue().splitlines() == [
        "mmsearch: run 1 of index failed: ValueError: a b (please report it; MMSEARCH_DEBUG=1 shows where it was)",
        "mmsearch: following nothing",
    ]


def test_the_command_follows_and_a_signal_ends_it_in_the_middle_of_a_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLOUR_SECONDS", "0.05")
    way = ["--no-poll"] if find_spec("watchfiles") else []
    with (
        started(tmp_path, "--model", "colour", "--watch", *way) as (process, address),
        httpx.Client(base_url=address, timeout=60, trust_env=False) as http,
    ):
        paint(folder / "second.png", "red", 2)
        wait_until(lambda: http.get(f"{V1}/collections").json()[0]["images"] == 2, "a new picture")
        for one in range(MANY):
            paint(folder / f"{one}.png", "red", one)
        wait_until(lambda: http.get(f"{V1}/collections").json()[0]["images"] > 2, "a run at work")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 143
    said = (tmp_path / "stderr.txt").read_text()
    assert f"following {folder} by" in said and "1 new" in said
    assert "Traceback" not in said
