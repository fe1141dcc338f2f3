"""What the endpoints answer, each answer checked against the schema; several collections; metrics, logs, readiness."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
from PIL import Image

from mmsearch import Engine, Query, Term
from mmsearch.render import json as as_json
from tests.conftest import paint
from tests.serving import V1, Running, configured_logs, problem, serving
from tests.toy import ToyEncoder


class Checked:
    """Calls that hold each answer against the schema of its endpoint, without a key too many."""

    def __init__(self, server: Running) -> None:
        self.server = server
        self.schema = server.http.get("/openapi.json").json()
        for shape in self.schema["components"]["schemas"].values():
            if shape.get("type") == "object":
                shape.setdefault("additionalProperties", False)
                shape["required"] = list(shape.get("properties", {})) if "additionalProperties" in shape else []

    def __call__(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        answer = self.server.http.request(method, f"{V1}{path}", **options)
        assert answer.status_code == status, answer.text
        template = next(one for one in self.schema["paths"] if _fits(one, f"{V1}{path}".partition("?")[0]))
        described = self.schema["paths"][template][method.lower()]["responses"][str(status)]
        if status == 204:
            return None
        shape = described["content"]["application/json"]["schema"]
        jsonschema_rs.validate({**shape, "components": self.schema["components"]}, answer.json())
        return answer.json()


def _fits(template: str, path: str) -> bool:
    parts, asked = template.split("/"), path.split("/")
    return len(parts) == len(asked) and all(
        one == other or one.startswith("{") for one, other in zip(parts, asked, strict=True)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api") / "images"
    for colour in ("red", "green", "blue", "yellow", "black"):
        paint(folder / f"{colour}.png", colour)
    (folder / "red.txt").write_text("a red field\na field in red")
    exif = Image.Exif()
    exif[0x0110], exif[0x0132] = "Box 1", "2024:05:01 12:30:00"
    gps = {1: "N", 2: (48.0, 6.0, 0.0), 3: "E", 4: (11.0, 30.0, 0.0)}
    exif[0x8825] = gps  # type: ignore[assignment]
    noise = np.random.default_rng(5).integers(0, 60, (30, 40, 3), np.uint8)
    (folder / "trip").mkdir()
    Image.fromarray(noise + np.array([190, 0, 0], np.uint8)).save(folder / "trip" / "a.jpg", exif=exif)
    (folder / "broken.jpg").write_bytes(b"nothing")
    return folder


@pytest.fixture(scope="module")
def opened(folder: Path) -> Iterator[Engine]:
    with Engine.open(folder.parent / "collection", model=ToyEncoder()) as engine:
        engine.index(folder)
        yield engine


@pytest.fixture(scope="module")
def server(opened: Engine) -> Iterator[Running]:
    with serving(opened) as running:
        yield running


@pytest.fixture
def call(server: Running) -> Checked:
    return Checked(server)


def test_search_is_what_the_engine_finds(call: Checked, opened: Engine) -> None:
    query = Query((Term(text="red", weight=2), Term(text="dark", weight=-1)), k=4)
    body = {"terms": [{"text": "red", "weight": 2}, {"text": "dark", "weight": -1}], "k": 4}
    found = call("POST", "/search", json=body)
    expected = as_json.search_result(opened.search(query))
    for hit in found["hits"]:
        assert hit.pop("name") == Path(hit["path"]).name
    assert {name: found[name] for name in expected} == expected
    assert found["total"] == 6 and found["seconds"] > 0
    again = call("GET", "/search?q=red&k=2&offset=1&sort=name&where=width+>=+10")
    assert [hit["rank"] for hit in again["hits"]] == [2, 3]
    assert again["total"] == 6


def test_totals_are_of_the_filters(call: Checked, folder: Path) -> None:
    body = {"terms": [{"text": "red"}], "k": 1, "filters": {"inside": [str(folder / "trip")]}}
    found = call("POST", "/search", json=body)
    assert (len(found["hits"]), found["total"]) == (1, 1)
    listed = call("POST", "/search", json={"filters": {"has": ["gps"]}})
    assert [hit["name"] for hit in listed["hits"]] == ["a.jpg"]


def test_pages_of_images(call: Checked) -> None:
    by_name = [call("GET", f"/images?k=2&offset={offset}&sort=name")["hits"] for offset in (0, 2, 4, 6)]
    assert [hit["name"] for page in by_name for hit in page] == [
        *("a.jpg", "black.png", "blue.png", "green.png", "red.png", "yellow.png"),
    ]
    assert call("GET", "/images")["hits"][0]["name"] == "a.jpg"  # the only one with a date


def image_named(call: Checked, name: str) -> int:
    return next(int(hit["id"]) for hit in call("GET", "/images?k=100")["hits"] if hit["name"] == name)


def test_all_about_an_image(call: Checked, folder: Path) -> None:
    found = call("GET", f"/images/{image_named(call, 'a.jpg')}")
    assert found["files"] == [{"path": str(folder / "trip" / "a.jpg"), "name": "a.jpg", "present": True}]
    assert (found["camera"], found["taken_at"], found["format"]) == ("Box 1", "2024-05-01T12:30:00", "jpeg")
    assert (found["latitude"], found["longitude"]) == pytest.approx((48.1, 11.5))
    assert (found["width"], found["height"]) == (40, 30)
    assert found["size_bytes"] == (folder / "trip" / "a.jpg").stat().st_size
    captions = call("GET", f"/images/{image_named(call, 'red.png')}/captions")
    assert [one["text"] for one in captions] == ["a red field", "a field in red"]


def test_similar_and_why(call: Checked) -> None:
    red = image_named(call, "red.png")
    similar = call("GET", f"/images/{red}/similar?k=3")["hits"]
    assert [similar[0]["id"], len(similar)] == [red, 3]
    found = call("POST", "/why", json={"image": red, "query": {"terms": [{"text": "red"}]}})
    assert (found["state"], found["hit"]["id"], found["hit"]["name"]) == ("found", red, "red.png")
    assert [one["term"] for one in found["hit"]["shares"]] == ["red"]
    filtered = {"terms": [{"text": "red"}], "filters": {"has": ["gps"]}}
    out = call("POST", "/why", json={"image": red, "query": filtered})
    assert (out["state"], out["filtered_by"]) == ("filtered", ["has"])


def test_uploads_are_pictures_to_search_with(call: Checked, folder: Path) -> None:
    data = (folder / "blue.png").read_bytes()
    sent = call("POST", "/uploads", content=data, headers={"Content-Type": "image/png"})
    assert (sent["width"], sent["height"]) == (40, 30)
    form = call("POST", "/uploads", files={"picture": ("my.png", data, "image/png")})
    assert form == sent
    found = call("POST", "/search", json={"terms": [{"upload": sent["id"]}], "k": 1})
    assert found["hits"][0]["name"] == "blue.png"
    part = {"upload": sent["id"], "part": [0, 0, 0.5, 0.5]}
    assert call("POST", "/search", json={"terms": [part], "k": 1})["hits"][0]["name"] == "blue.png"
    described = call("POST", "/describe", json={"upload": sent["id"], "k": 2})
    assert (len(described["captions"]), len(described["labels"])) == (2, 2)
    thumbnail = call.server.http.get(f"{V1}/uploads/{sent['id']}/thumbnail?size=320")
    assert thumbnail.headers["content-type"] == "image/webp"
    known = {"If-None-Match": thumbnail.headers["etag"]}
    assert call.server.http.get(f"{V1}/uploads/{sent['id']}/thumbnail", headers=known).status_code == 304
    both = {"upload": sent["id"], "picture": "http://x.test/a.png"}
    problem(call.server.http.post(f"{V1}/search", json={"terms": [both]}), 400)
    unknown = call.server.http.post(f"{V1}/search", json={"terms": [{"upload": "0" * 64}]})
    assert "send the picture again" in problem(unknown, 404)


def test_tags_by_people(call: Checked, opened: Engine) -> None:
    red = image_named(call, "red.png")
    given = call("POST", f"/images/{red}/tags", json={"names": ["field", "ä ☃"]})
    assert [(one["name"], one["by"]) for one in given] == [("field", "person"), ("ä ☃", "person")]
    assert call("GET", "/tags") == [{"name": "field", "images": 1}, {"name": "ä ☃", "images": 1}]
    assert [hit["id"] for hit in call("POST", "/search", json={"filters": {"tags": ["field"]}})["hits"]] == [red]
    call("DELETE", f"/images/{red}/tags/ä ☃")
    assert [one["name"] for one in call("DELETE", f"/images/{red}/tags/field")] == []
    problem(call.server.http.post(f"{V1}/images/999/tags", json={"names": ["x"]}), 404)


def test_saved_queries(call: Checked, opened: Engine) -> None:
    body = {"terms": [{"text": "red", "weight": 2.0}], "k": 20, "filters": {"has": ["gps"]}}
    assert call("PUT", "/saved/trips", json=body) == {"name": "trips", "query": body}
    assert call("GET", "/saved") == [call("GET", "/saved/trips")]
    assert opened.saved_query("trips").k == 20
    assert "there are: trips" in problem(call.server.http.get(f"{V1}/saved/other"), 404)
    call("DELETE", "/saved/trips", 204)
    problem(call.server.http.delete(f"{V1}/saved/trips"), 404)
    sent = call("POST", "/uploads", content=picture())
    kept = call.server.http.put(f"{V1}/saved/x", json={"terms": [{"upload": sent["id"]}]})
    assert "can be kept" in problem(kept, 400)


def picture() -> bytes:
    import io

    out = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(out, "PNG")
    return out.getvalue()


def test_duplicates_and_facets(call: Checked, folder: Path) -> None:
    found = call("POST", "/duplicates", json={"tiers": ["exact", "near", "semantic"], "similarity": 0.9})
    assert {group["tier"] for group in found["groups"]} <= {"exact", "near", "semantic"} and found["groups"]
    facets = call("POST", "/facets", json={})
    assert facets["total"] == 6
    assert facets["dates"] == [{"month": "2024-05", "count": 1}]
    assert [one["path"] for one in facets["folders"]] == ["images", "images/trip"]
    assert facets["cameras"] == [{"name": "Box 1", "count": 1}]
    assert facets["places"]["count"] == 1 and facets["places"]["points"][0][2] == image_named(call, "a.jpg")
    assert facets["without"] == {"date": 5, "place": 5, "camera": 5}
    inside = {"filters": {"inside": [facets["folders"][1]["prefix"]]}}
    assert call("POST", "/facets", json=inside)["total"] == 1


def test_status_and_collections(call: Checked, opened: Engine) -> None:
    status = call("GET", "/status")
    assert {name: status[name] for name in as_json.status(opened.status())} == as_json.status(opened.status())
    assert (status["encoder"], status["watching"], status["files"]) == ("toy", None, [7])
    assert call("GET", "/collections") == [{"name": "pictures", "images": 6, "current": True}]
    call.server.state.watching["pictures"] = "polling"
    assert call("GET", "/status")["watching"] == "polling"
    call.server.state.watching.clear()


def test_the_map_is_computed_once(call: Checked) -> None:
    first = call("GET", "/map")
    if first["state"] == "computing":
        events(call.server, first["run"])
    found = call("GET", "/map")
    assert (found["state"], len(found["ids"])) == ("ready", 6)
    assert len(found["x"]) == len(found["y"]) == 6 and all(0 <= one <= 1 for one in [*found["x"], *found["y"]])
    runs = [one for one in call("GET", "/runs") if one["kind"] == "map"]
    assert len(runs) == 1
    assert call("GET", "/map") == found


def test_a_map_that_fails_is_not_begun_again_and_again(
    call: Checked, tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmsearch.errors import ModelError

    def broken(self: Engine, *, build: bool = True, **_: object) -> None:
        if build:
            raise ModelError("It cannot be computed.")

    with Engine.open(tmp_path / "collection", model=ToyEncoder()) as engine:
        with serving(engine) as empty:
            assert Checked(empty)("GET", "/collections")[0]["images"] == 0
        engine.index(images)
        monkeypatch.setattr(Engine, "map", broken)
        with serving(engine) as server:
            ask = Checked(server)
            events(server, ask("GET", "/map")["run"])
            found = ask("GET", "/map")
            assert (found["state"], found["message"]) == ("none", "It cannot be computed.")
            assert len(ask("GET", "/runs")) == 1


# --- runs -----------------------------------------------------------------------------------------------------------


def events(server: Running, run: int) -> list[tuple[str, dict[str, Any]]]:
    """(event, run) of all that a run's stream tells, up to its end."""
    with server.http.stream("GET", f"{V1}/runs/{run}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = "".join(answer.iter_text())
    blocks = [block.split("\n") for block in text.split("\n\n") if block and not block.startswith(":")]
    return [(one[0].removeprefix("event: "), json.loads(one[1].removeprefix("data: "))) for one in blocks]


def test_an_index_run_as_it_goes(tmp_path: Path, images: Path) -> None:
    with Engine.open(tmp_path / "collection", model=ToyEncoder(seconds=0.1)) as engine:
        paint(images / "first" / "a.png", "green")
        engine.index(images / "first")
        for number in range(20):
            paint(images / "first" / f"{number}.png", "green", 100 + number)
        with serving(engine) as server:
            call = Checked(server)
            started = call("POST", "/runs", 202, json={"kind": "index", "folders": [str(images / "first")]})
            told = events(server, started["id"])
            assert [one for one, _ in told[:-1]] == ["progress"] * (len(told) - 1) and told[-1][0] == "end"
            done = [run["done"] for _, run in told if run["stage"] == "encoding"]
            assert len(set(done)) > 2 and done == sorted(done)
            last = told[-1][1]
            assert (last["state"], last["report"]["new"], last["error"]) == ("done", 20, None)
            assert call("GET", f"/runs/{started['id']}") == last
            assert events(server, started["id"]) == [("end", last)]  # whoever comes late
            assert call("GET", "/collections")[0]["images"] == 21


def test_searching_while_indexing(tmp_path: Path, images: Path) -> None:
    with Engine.open(tmp_path / "collection", model=ToyEncoder(seconds=0.05)) as engine:
        engine.index(images)
        for number in range(40):
            paint(images / "new" / f"{number}.png", "green", 100 + number)
        with serving(engine) as server:
            call = Checked(server)
            run = call("POST", "/runs", 202, json={"kind": "index"})["id"]
            totals = []
            while call("GET", f"/runs/{run}")["state"] in ("waiting", "running"):
                found = call("POST", "/search", json={"terms": [{"text": "green"}], "k": 100})
                assert len(found["hits"]) >= 10
                totals.append(found["total"])
            assert totals == sorted(totals) and totals[0] < 50
            assert call("POST", "/search", json={"terms": [{"text": "green"}], "k": 100})["total"] == 50


def test_runs_wait_for_each_other_and_can_be_cancelled(tmp_path: Path, images: Path) -> None:
    with Engine.open(tmp_path / "collection", model=ToyEncoder(seconds=0.3)) as engine:
        paint(images / "first" / "a.png", "green")
        engine.index(images / "first")
        for number in range(60):
            paint(images / "first" / f"{number}.png", "green", 100 + number)
        with serving(engine) as server:
            call = Checked(server)
            first, second = (call("POST", "/runs", 202, json={"kind": "index"})["id"] for _ in range(2))
            assert call("GET", f"/runs/{second}")["state"] == "waiting"
            assert call("DELETE", f"/runs/{second}")["state"] == "cancelled"
            assert [one["id"] for one in call("GET", "/runs")] == [second, first]
            call("DELETE", f"/runs/{first}")
            last = events(server, first)[-1][1]
            assert last["state"] == "cancelled" and last["report"]["new"] < 60
            problem(server.http.get(f"{V1}/runs/99"), 404)


def test_runs_that_fail_say_why(server: Running, call: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmsearch.errors import LockError

    def fails(self: Engine, *_: object, **__: object) -> None:
        raise LockError("Somebody has it.")

    def breaks(self: Engine, *_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    for kind, method, raised, said in (
        ("index", fails, "LockError", "Somebody has it."),
        ("index", breaks, None, "Something went wrong in the server; its log says what."),
    ):
        monkeypatch.setattr(Engine, kind, method)
        run = call("POST", "/runs", 202, json={"kind": kind})["id"]
        last = events(server, run)[-1][1]
        assert (last["state"], last["message"], last["error"]) == ("failed", said, raised)


def test_evaluate_and_tag_are_runs(call: Checked, opened: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    run = call("POST", "/runs", 202, json={"kind": "evaluate"})["id"]
    last = events(call.server, run)[-1][1]
    assert last["state"] == "failed" and last["error"] == "UsageError"  # too few captions for a test set
    run = call("POST", "/runs", 202, json={"kind": "tag", "labels": ["red", "blue"]})["id"]
    last = events(call.server, run)[-1][1]
    assert last["error"] == "ModelError" or last["report"]["labels"] == 2


def test_too_many_runs_are_refused(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def waits(self: Engine, *_: object, **__: object) -> None:
        release.wait(30)
        raise ZeroDivisionError

    monkeypatch.setattr("mmsearch.server.runs.MOST_WAITING", 3)
    monkeypatch.setattr(Engine, "index", waits)
    with Engine.open(tmp_path / "collection", model=ToyEncoder()) as engine:
        engine.add("x", Image.new("RGB", (30, 20), "red"))
        monkeypatch.setattr("mmsearch.server.run_endpoints._inside_roots", lambda *_: [])
        with serving(engine) as server:
            answers = [server.http.post(f"{V1}/runs", json={"kind": "index"}) for _ in range(6)]
            assert "waiting already" in problem(answers[-1], 503)
            release.set()


# --- several collections, health, metrics, logs -----------------------------------------------------------------------


def test_several_collections(opened: Engine, tmp_path: Path, images: Path) -> None:
    with Engine.open(tmp_path / "other", model=ToyEncoder()) as other:
        other.index(images / "more")
        with serving({"first": opened, "second": other}) as server:
            call = Checked(server)
            assert [(one["name"], one["images"], one["current"]) for one in call("GET", "/collections")] == [
                ("first", 6, True),
                ("second", 2, False),
            ]
            for name, images_there in ((None, 6), ("first", 6), ("second", 2)):
                chosen = {} if name is None else {"collection": name}
                assert call("GET", "/status", params=chosen)["images"] == images_there
            said = problem(server.http.get(f"{V1}/status", params={"collection": "third"}), 404)
            assert "first, second" in said


def test_readiness(tmp_path: Path, images: Path) -> None:
    toy = ToyEncoder()
    with Engine.open(tmp_path / "collection", model=toy) as engine:
        engine.index(images)
        with serving(engine) as server:
            assert server.http.get(f"{V1}/health").json() == {"status": "ok"}
            assert server.http.get(f"{V1}/ready").json() == {"status": "ready"}
            assert toy.texts  # the model was really asked
            (tmp_path / "collection").rename(tmp_path / "gone")
            assert "not ready" in problem(server.http.get(f"{V1}/ready"), 503)
            assert server.http.get(f"{V1}/health").status_code == 200
            (tmp_path / "gone").rename(tmp_path / "collection")
            assert server.http.get(f"{V1}/ready").status_code == 200


def test_metrics(server: Running) -> None:
    for _ in range(3):
        server.http.get(f"{V1}/images/1")
    server.http.get(f"{V1}/images/999999")
    server.http.get("/nope?q=secret")
    text = server.http.get("/metrics").text
    assert 'mmsearch_requests_total{method="GET",route="/api/v1/images/{image}",status="404"}' in text
    assert 'mmsearch_request_seconds_bucket{le="0.05",method="GET",route="/api/v1/images/{image}"}' in text
    assert 'mmsearch_images{collection="pictures"} 6.0' in text
    assert "mmsearch_requests_in_progress 1.0" in text
    assert 'route="other",status="404"' in text
    assert "secret" not in text and '/images/1"' not in text


def test_logs_are_lines_of_json(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    with configured_logs(as_json=True):
        server.http.get(f"{V1}/search", params={"q": "a secret"})
        server.http.get("/")
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    first = lines[0]
    assert (first["method"], first["path"], first["status"], first["route"]) == (
        *("GET", f"{V1}/search", 200, "/api/v1/search"),
    )
    assert first["ms"] > 0 and first["client"] == "127.0.0.1" and first["level"] == "INFO"
    assert datetime.fromisoformat(first["timestamp"]).tzinfo is not None
    assert "secret" not in json.dumps(lines)


def test_the_schema_has_examples_and_names_every_problem(call: Checked) -> None:
    assert call.schema["components"]["schemas"]["QueryShape"]["examples"]
    for path, operations in call.schema["paths"].items():
        for method, operation in operations.items():
            assert operation["description"], (method, path)
            for status in ("4XX", "5XX"):
                assert list(operation["responses"][status]["content"]) == ["application/problem+json"]
