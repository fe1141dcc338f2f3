"""The client gives what the engine gives, for every kind of query, and raises what it raises."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsearch import Engine, Filters, Query, Term, errors
from mmsearch.client import Client
from mmsearch.errors import CollectionError, CollectionNotFoundError, SpaceNotFoundError, UsageError
from mmsearch.query import to_json
from mmsearch.types import GivenTag, Hit, Progress, SearchResult, SourcedCaption
from tests.conftest import paint
from tests.serving import Running, serving
from tests.toy import ToyEncoder

TOKEN = "a token that is long enough"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("client") / "images"
    for number, colour in enumerate(("red", "green", "blue", "yellow", "black", "white")):
        paint(folder / f"{colour}.png", colour, size=(40 + number, 30))
        (folder / f"{colour}.txt").write_text(f"a {colour} field\nsomething {colour}")
    paint(folder / "more" / "red one.jpg", "red", 1)
    (folder / "more" / "copy.png").write_bytes((folder / "red.png").read_bytes())
    return folder


@pytest.fixture(scope="module")
def collection(folder: Path) -> Iterator[Engine]:
    with Engine.open(folder.parent / "collection", model=ToyEncoder()) as engine:
        engine.index(folder)
        engine.add("shop/1", Image.new("RGB", (50, 20), "purple"), {"taken_at": datetime(2024, 5, 1, 12)})
        engine.add_tags([1, 2], ["field"])
        yield engine


@pytest.fixture(scope="module")
def server(collection: Engine) -> Iterator[Running]:
    with serving(collection) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[Client]:
    with Client(server.url) as opened:
        yield opened


def same(one: SearchResult, other: SearchResult) -> None:
    """But for the rounding of figures in JSON."""
    assert (one.space, one.exact, one.notice, one.relevant, one.calibration, len(one)) == (
        *(other.space, other.exact, other.notice, other.relevant, other.calibration, len(other)),
    )
    for mine, theirs in zip(one, other, strict=True):
        same_hit(mine, theirs)


def same_hit(one: Hit, other: Hit) -> None:
    for name in ("rank", "id", "sha256", "path", "paths", "key", "caption", "taken_at", "width", "height"):
        assert getattr(one, name) == getattr(other, name), name
    assert one.score == pytest.approx(other.score, abs=1e-6)
    assert one.probability == (None if other.probability is None else pytest.approx(other.probability, abs=1e-4))
    assert [share.term for share in one.shares] == [share.term for share in other.shares]
    assert [share.score for share in one.shares] == pytest.approx([share.score for share in other.shares], abs=1e-6)
    for mine, theirs in zip(one.folded, other.folded, strict=True):
        same_hit(mine, theirs)


PIXELS = np.random.default_rng(3).integers(0, 255, (30, 40, 3), np.uint8)
QUERIES: list[Callable[[Path], str | Term | Query]] = [
    lambda folder: "red",
    lambda folder: "ein grünes Feld ☃",
    lambda folder: Term(text="red", weight=-2),
    lambda folder: Term(image=3),
    lambda folder: Term(picture=folder / "red.png"),
    lambda folder: Term(picture=str(folder / "blue.png")),
    lambda folder: Term(picture=(folder / "more" / "red one.jpg").read_bytes()),
    lambda folder: Term(picture=Image.open(folder / "green.png")),
    lambda folder: Term(picture=PIXELS),
    lambda folder: Term(picture=folder / "red.png", part=(5, 5, 20, 20)),
    lambda folder: Term(picture=folder / "red.png", part=(0.1, 0.1, 0.5, 0.5)),
    lambda folder: Query((Term(text="red", weight=2), Term(picture=folder / "blue.png"), Term(text="dark", weight=-1))),
    lambda folder: Query((Term(text="field"),), k=3, offset=2),
    lambda folder: Query((Term(text="red"),), find="captions"),
    lambda folder: Query((Term(text="field"),), match="keywords"),
    lambda folder: Query((Term(text="red field"),), match="hybrid"),
    lambda folder: Query((Term(text="red"),), match="joint"),
    lambda folder: Query((Term(text="red"),), more=(1,), less=(2, 3)),
    lambda folder: Query((Term(text="red"),), unique=True),
    lambda folder: Query((Term(text="red"),), diverse=0.5),
    lambda folder: Query(sort="name"),
    lambda folder: Query(sort="date", k=4),
    lambda folder: Query(filters=Filters(inside=(folder / "more",))),
    lambda folder: Query(
        (Term(text="red"),),
        filters=Filters(
            after=datetime(2024, 1, 1),
            before=datetime(2030, 1, 1, 12, 30),
            where="width >= 10",
            min_width=20,
            min_height=10,
            orientation="landscape",
        ),
    ),
    lambda folder: Query((Term(text="red"),), filters=Filters(tags=("field",), has=("caption",), format=("png",))),
]


@pytest.mark.parametrize("number", range(len(QUERIES)))
def test_every_kind_of_query(client: Client, collection: Engine, folder: Path, number: int) -> None:
    query = QUERIES[number](folder)
    same(client.search(query), collection.search(query))


def test_k_and_find_outrank_those_of_a_query(client: Client, collection: Engine) -> None:
    query = Query((Term(text="red"),), k=2)
    same(client.search(query, k=4, find="captions"), collection.search(query, k=4, find="captions"))


@pytest.mark.parametrize(
    "ask",
    [
        lambda one: one.search(" "),
        lambda one: one.search(Term(image=999)),
        lambda one: one.search(Term(picture=Path("/no/such.png"))),
        lambda one: one.search(Term(picture=b"no picture")),
        lambda one: one.search(Query((Term(text="x"),), filters=Filters(tags=("nowhere",)))),
        lambda one: one.search(Query((Term(text="x"),), min_probability=0.5)),
        lambda one: one.search(3),
        lambda one: one.why(999, "red"),
        lambda one: one.describe(999),
        lambda one: one.describe(1, k=0),
        lambda one: one.saved_query("nope"),
        lambda one: one.forget_query("nope"),
    ],
)
def test_errors_are_those_of_the_engine(client: Client, collection: Engine, ask: Callable[[object], object]) -> None:
    with pytest.raises(UsageError):
        ask(collection)
    with pytest.raises(UsageError) as raised:
        ask(client)
    assert len(str(raised.value)) > 15 and "\n" not in str(raised.value)


def test_classes_of_errors_come_through(client: Client, collection: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (errors.DamagedError, errors.LockError, errors.MissingExtraError, SpaceNotFoundError):

        def fails(self: Engine, kind: type[Exception] = kind) -> None:
            raise kind("This is why.")

        monkeypatch.setattr(Engine, "status", fails)
        with pytest.raises(kind, match=r"^This is why\.$"):
            client.status()


def test_why_and_describe(client: Client, collection: Engine, folder: Path) -> None:
    query = Query((Term(text="red"),), filters=Filters(format=("jpeg",)))
    for image in (1, 2, 8):
        mine, theirs = client.why(image, query), collection.why(image, query)
        assert (mine.state, mine.id, mine.answers, mine.filtered_by) == (
            *(theirs.state, theirs.id, theirs.answers, theirs.filtered_by),
        )
    for picture in (1, folder / "red.png", PIXELS):
        told, known = client.describe(picture, k=3), collection.describe(picture, k=3)  # type: ignore[arg-type]
        assert [hit.caption for hit in told.captions] == [hit.caption for hit in known.captions]
        assert [one.label for one in told.labels] == [one.label for one in known.labels]
        assert (told.space, told.calibration) == (known.space, known.calibration)


def test_saved_queries(client: Client, collection: Engine, folder: Path) -> None:
    query = Query(
        (Term(text="red", weight=2), Term(image=3, part=(0, 0, 1, 1))), k=7, more=(1,), filters=Filters(has=("tag",))
    )
    client.save_query("my / reds ☃", query)
    assert (
        to_json(client.saved_query("my / reds ☃")) == to_json(collection.saved_query("my / reds ☃")) == to_json(query)
    )
    assert list(client.saved_queries()) == ["my / reds ☃"]
    client.forget_query("my / reds ☃")
    assert client.saved_queries() == {}
    with pytest.raises(UsageError, match="cannot be kept"):
        client.save_query("x", Term(picture=folder / "red.png"))


def test_images(client: Client, collection: Engine, folder: Path) -> None:
    hit = client.search("blue", k=1).hits[0]
    assert client.original(hit.id) == (folder / "blue.png").read_bytes()
    assert client.thumbnail(hit.id, 160)[8:12] == b"WEBP"
    assert set(client.captions(hit.id)) == {
        SourcedCaption("a blue field", "sidecar"),
        SourcedCaption("something blue", "sidecar"),
    }
    assert GivenTag("x/y", "person", None) in client.add_tags(hit.id, "x/y")
    assert client.tags() == collection.tags() == {"field": 2, "x/y": 1}
    assert GivenTag("x/y", "person", None) not in client.remove_tag(hit.id, "x/y")


def test_status(client: Client, collection: Engine) -> None:
    assert client.status() == collection.status()


def test_index_with_progress(tmp_path: Path, images: Path) -> None:
    with Engine.open(tmp_path / "collection", model=ToyEncoder(seconds=0.02)) as engine:
        engine.index(images)
        for number in range(30):
            paint(images / "new" / f"{number}.png", "green", 100 + number)
        (images / "broken.jpg").write_bytes(b"nothing")
        seen: list[Progress] = []
        with serving(engine) as server, Client(server.url) as client:
            report = client.index(str(images / "new"), on_progress=seen.append)
            assert (report.new, report.failed, report.cancelled) == (30, 0, False)
            assert seen and {one.stage for one in seen} <= {
                "scanning",
                "encoding",
                "captions",
                "building",
                "calibrating",
            }
            assert client.index().failed == 1
            assert client.status().failed == engine.status().failed
            with pytest.raises(UsageError, match="mmsearch index FOLDER"):
                client.index("/etc")


def test_index_can_be_cancelled(tmp_path: Path, images: Path) -> None:
    with Engine.open(tmp_path / "collection", model=ToyEncoder(seconds=0.2)) as engine:
        paint(images / "first" / "a.png", "green")
        engine.index(images / "first")
        with serving(engine) as server, Client(server.url) as client:
            for number in range(100):
                paint(images / "first" / f"{number}.png", "green", 100 + number)
            cancel = threading.Event()
            report = client.index(cancel=cancel, on_progress=lambda one: cancel.set() if one.done else None)
            assert report.cancelled
            assert 1 < engine.status().images < 100


def test_a_token_and_a_collection(collection: Engine, tmp_path: Path, images: Path) -> None:
    with Engine.open(tmp_path / "other", model=ToyEncoder()) as other:
        other.index(images / "more")
        with serving({"first": collection, "second": other}, token=TOKEN) as server:
            with Client(server.url, TOKEN) as client:
                assert client.status().images == collection.status().images
            with Client(server.url, TOKEN, "second") as client:
                same(client.search("red"), other.search("red"))
            with (
                Client(server.url, TOKEN, "third") as client,
                pytest.raises(UsageError, match="there are: first, second"),
            ):
                client.status()
            with Client(server.url) as client, pytest.raises(UsageError, match="token is needed"):
                client.status()


def test_pictures_are_sent_once_and_again_when_they_are_forgotten(
    client: Client, server: Running, folder: Path
) -> None:
    term = Term(picture=folder / "red.png")
    first = client.search(term)

    def uploads() -> int:
        counts = server.http.get("/metrics").text.splitlines()
        return sum(
            int(float(one.split()[-1]))
            for one in counts
            if one.startswith("mmsearch_requests_total") and "uploads" in one
        )

    before = uploads()
    same(client.search(term), first)
    assert uploads() == before
    server.state.uploads._kept.clear()
    same(client.search(term), first)
    assert uploads() == before + 1


def test_threads_share_a_client(client: Client, collection: Engine) -> None:
    expected = {colour: [hit.id for hit in collection.search(colour)] for colour in ("red", "green", "blue", "white")}
    asked = [*expected] * 25
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda colour: [hit.id for hit in client.search(colour)], asked))
    assert found == [expected[colour] for colour in asked]


def test_servers_that_are_none() -> None:
    for url in ("127.0.0.1:8765", "ftp://x", "", "http://"):
        with pytest.raises(UsageError, match="address of a server"):
            Client(url)
    with Client("http://127.0.0.1:9") as client, pytest.raises(CollectionError, match="is it running"):
        client.search("red")


def test_what_is_not_this_kind_of_server(server: Running) -> None:
    with Client(f"{server.url}/elsewhere") as client, pytest.raises(UsageError, match="nothing at"):
        client.search("red")


def test_a_collection_that_goes_away(tmp_path: Path, images: Path) -> None:
    with Engine.open(tmp_path / "collection", model=ToyEncoder()) as engine:
        engine.index(images)
        with serving(engine) as server, Client(server.url) as client:
            client.search("red")
            (tmp_path / "collection").rename(tmp_path / "gone")
            with pytest.raises(CollectionNotFoundError, match="not there any more"):
                client.search("red")
            (tmp_path / "gone").rename(tmp_path / "collection")
            assert client.search("red").hits


def test_vectors_are_not_sent(client: Client) -> None:
    with pytest.raises(UsageError, match="Engine alone"):
        client.search(Term(vector=np.ones(13)))


def test_the_client_needs_no_extra() -> None:
    heavy = "fastapi uvicorn pydantic torch faiss onnxruntime sqlalchemy PIL"
    program = f"import sys; import mmsearch.client; print([name for name in {heavy.split()} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
