"""The server is safe by default: hosts, tokens, origins, sizes, rates, paths, links, addresses, headers."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
from PIL import Image

from mmsearch import Engine
from mmsearch.errors import UsageError
from mmsearch.server.settings import ServerSettings
from mmsearch.settings import Limits
from tests.conftest import paint
from tests.serving import V1, Running, problem, serving
from tests.toy import ToyEncoder

TOKEN = "a token that is long enough"


@pytest.fixture
def indexed(engine: Engine, images: Path) -> Engine:
    engine.index(images)
    return engine


@pytest.fixture
def server(indexed: Engine) -> Iterator[Running]:
    with serving(indexed) as running:
        yield running


# --- hosts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8765", "[::1]:99", "LocalHost:1"])
def test_our_own_names_are_answered(server: Running, host: str) -> None:
    assert server.http.get(f"{V1}/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:80",
        "localhost@evil.example",
        "localhost:x",
        "127.0.0.2",
        "[::2]",
        "",
        "localhost/",
        "nas.local",
    ],
)
def test_a_foreign_host_is_refused(server: Running, host: str) -> None:
    answer = server.http.get(f"{V1}/status", headers={"Host": host})
    assert "not called" in problem(answer, 400)


def test_two_hosts_are_refused(server: Running) -> None:
    answer = server.raw(b"GET /api/v1/status HTTP/1.0\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")


def test_no_host_is_refused(server: Running) -> None:
    answer = server.raw(b"GET /api/v1/status HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400") and b"problem+json" in answer


def test_a_host_can_be_allowed_and_all_addresses_have_those_that_are_reached(indexed: Engine) -> None:
    with serving(indexed, host="0.0.0.0", token=TOKEN, allow_hosts=("nas.local",)) as server:
        for host in ("nas.local:8765", "localhost", "127.0.0.1"):
            assert server.http.get(f"{V1}/status", headers={"Host": host}).status_code == 200
        for host in ("10.1.2.3", "0.0.0.0", "evil.example"):
            problem(server.http.get(f"{V1}/status", headers={"Host": host}), 400)


# --- tokens -------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(indexed: Engine) -> Iterator[Running]:
    with serving(indexed, token=TOKEN) as running:
        running.http.headers.pop("Authorization")
        yield running


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer \xff\xfe"},
        {"Cookie": f"mmsearch_token={TOKEN}"},
        {"Cookie": "mmsearch_token="},
    ],
)
def test_without_the_token_there_is_nothing(guarded: Running, headers: dict[str, str]) -> None:
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    for path in (f"{V1}/status", f"{V1}/images/1/original", "/openapi.json", "/metrics", "/nope"):
        answer = guarded.http.get(path, headers=raw)  # type: ignore[arg-type]
        assert "token is needed" in problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
    problem(guarded.http.post(f"{V1}/search?token={TOKEN}", json={"terms": [{"text": "red"}]}), 401)


def test_whoever_watches_over_it_needs_none(guarded: Running) -> None:
    for path in ("health", "ready"):
        assert guarded.http.get(f"{V1}/{path}").status_code == 200


def test_the_page_itself_opens_to_ask_for_it(guarded: Running) -> None:
    assert guarded.http.get("/").status_code == 200
    for path in ("/assets/nope.js", "/assets/../api/v1/status", "/assets/%2e%2e/api/v1/status"):
        answer = guarded.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 404")


def test_the_token_opens(guarded: Running) -> None:
    answer = guarded.http.get(f"{V1}/status", headers={"Authorization": f"bearer {TOKEN}"})
    assert answer.status_code == 200


def test_a_browser_brings_it_once(guarded: Running) -> None:
    problem(guarded.http.get("/", params={"token": "wrong"}), 401)
    problem(guarded.http.get(f"{V1}/status", params={"token": TOKEN}), 401)
    answer = guarded.http.get("/", params={"token": TOKEN, "q": "a beach"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/?q=a+beach")
    cookie = answer.headers["set-cookie"]
    assert TOKEN not in cookie
    for word in ("HttpOnly", "SameSite=strict", "Path=/"):
        assert word in cookie
    assert guarded.http.get(f"{V1}/status").status_code == 200  # the client keeps cookies


def test_tokens_are_compared_in_constant_time(guarded: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    import hmac

    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def noted(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    problem(guarded.http.get(f"{V1}/status", headers={"Authorization": "Bearer x"}), 401)
    assert (b"x", TOKEN.encode()) in compared


# --- origins ------------------------------------------------------------------------------------------------------

CROSS = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Origin": "http://127.0.0.1.evil.example"},
        {"Origin": "file://127.0.0.1"},
        CROSS,
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_elsewhere_change_nothing(server: Running, headers: dict[str, str]) -> None:
    image = server.http.get(f"{V1}/images").json()["hits"][0]["id"]
    calls: list[tuple[str, str, object]] = [
        ("PUT", f"{V1}/saved/mine", {"terms": [{"text": "red"}]}),
        ("POST", f"{V1}/images/{image}/tags", {"names": ["evil"]}),
        ("POST", f"{V1}/runs", {"kind": "index"}),
    ]
    for method, path, body in calls:
        problem(server.http.request(method, path, json=body, headers=headers), 403)
    assert server.http.get(f"{V1}/saved").json() == []
    assert server.http.get(f"{V1}/tags").json() == []
    assert server.http.get(f"{V1}/runs").json() == []


def test_pages_elsewhere_do_not_show_our_pictures(server: Running) -> None:
    image = server.http.get(f"{V1}/images").json()["hits"][0]["id"]
    problem(server.http.get(f"{V1}/images/{image}/thumbnail", headers=CROSS), 403)
    linked = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert server.http.get("/", headers=linked).status_code == 200
    answer = server.http.get(f"{V1}/images/{image}/thumbnail")
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_our_own_page_may(server: Running) -> None:
    own = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
    assert server.http.put(f"{V1}/saved/mine", json={"terms": [{"text": "red"}]}, headers=own).status_code == 200


def test_cors_is_off_unless_it_is_named(indexed: Engine) -> None:
    ask = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    with serving(indexed) as server:
        for answer in (server.http.options(f"{V1}/search", headers=ask), server.http.get(f"{V1}/status", headers=ask)):
            assert not [name for name in answer.headers if name.startswith("access-control")]
    with serving(indexed, cors=("https://app.example",), token=TOKEN) as server:
        answer = server.http.options(f"{V1}/search", headers=ask)
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        named = {"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"}
        found = server.http.post(f"{V1}/search", json={"terms": [{"text": "red"}]}, headers=named)
        assert (found.status_code, found.headers["access-control-allow-origin"]) == (200, "https://app.example")
        other = {**ask, "Origin": "https://evil.example"}
        assert "access-control-allow-origin" not in server.http.options(f"{V1}/search", headers=other).headers
        problem(server.http.post(f"{V1}/search", json={"terms": [{"text": "red"}]}, headers=other), 403)


# --- size, pixels, rate ---------------------------------------------------------------------------------------------


def test_bodies_have_an_end_stated_or_not(indexed: Engine) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield b" " * 10_000

    with serving(indexed, max_body_megabytes=0.05, max_upload_megabytes=0.1) as server:
        for path, limit in ((f"{V1}/search", "0.05"), (f"{V1}/facets", "0.05"), (f"{V1}/uploads", "0.1")):
            stated = server.http.post(path, content=b" " * 200_000, headers={"Content-Type": "application/json"})
            assert f"larger than {limit} MB" in problem(stated, 413)
            assert stated.headers["connection"] == "close"
            with server.connect() as connection:  # a client that goes on sending, as httpx would not
                connection.sendall(
                    f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                    "Transfer-Encoding: chunked\r\n\r\n".encode()
                )
                connection.sendall(b"".join(b"2710\r\n" + chunk + b"\r\n" for chunk in list(endless())[:11]))
                answer = connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 413") and b"problem+json" in answer
        assert server.http.get(f"{V1}/health").status_code == 200


def test_uploads_have_as_many_pixels_as_files(indexed: Engine) -> None:
    with serving(indexed, limits=Limits(max_megapixels=0.01)) as server:
        small, large = (picture_bytes((side, side)) for side in (100, 101))
        assert server.http.post(f"{V1}/uploads", content=small).status_code == 200
        said = problem(server.http.post(f"{V1}/uploads", content=large), 400)
        assert "megapixels" in said
        form = server.http.post(f"{V1}/uploads", files={"picture": ("a.png", large)})
        assert problem(form, 400) == said


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"<svg/>", b"\x89PNG\r\n\x1a\n" + bytes(50), os.urandom(2000)])
def test_what_is_no_picture_is_no_upload(server: Running, content: bytes) -> None:
    assert "Cannot use the picture" in problem(server.http.post(f"{V1}/uploads", content=content), 400)


def test_forms_without_a_picture(server: Running) -> None:
    for form in ({"files": {"other": ("a.png", picture_bytes())}}, {"files": {"x": (None, "y")}}):
        problem(server.http.post(f"{V1}/uploads", **form), 400)  # type: ignore[arg-type]
    broken = server.http.post(f"{V1}/uploads", content=b"nonsense", headers={"Content-Type": "multipart/form-data"})
    problem(broken, 400)


def test_uploads_are_forgotten_before_memory_is_full(indexed: Engine) -> None:
    pictures = [picture_bytes(seed=seed) for seed in range(4)]
    with serving(indexed, uploads_megabytes=2.5 * len(pictures[0]) / 1e6) as server:
        ids = [server.http.post(f"{V1}/uploads", content=one).json()["id"] for one in pictures[:2]]
        assert server.http.get(f"{V1}/uploads/{ids[0]}/thumbnail").status_code == 200  # used last
        ids += [server.http.post(f"{V1}/uploads", content=one).json()["id"] for one in pictures[2:3]]
        states = [server.http.get(f"{V1}/uploads/{one}/thumbnail").status_code for one in ids]
        assert states == [200, 404, 200]
        gone = server.http.post(f"{V1}/search", json={"terms": [{"upload": ids[1]}]})
        assert "send the picture again" in problem(gone, 404)


def test_a_client_has_a_rate(indexed: Engine) -> None:
    with serving(indexed, rate=5) as server:
        answers = [server.http.get(f"{V1}/health") for _ in range(40)]
        refused = [one for one in answers if one.status_code == 429]
        assert refused and "5 requests a second" in problem(refused[0], 429)
        assert refused[0].headers["retry-after"] == "1"
        assert sum(one.status_code == 200 for one in answers) >= 5


def test_a_request_has_its_time(indexed: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    release = threading.Event()
    monkeypatch.setattr(Engine, "tags", lambda self: release.wait(30) and {})
    with serving(indexed, request_seconds=0.2, workers=2) as server:
        assert "longer than 0.2 seconds" in problem(server.http.get(f"{V1}/tags"), 503)
        assert server.http.get(f"{V1}/collections").status_code == 200
        release.set()


# --- paths --------------------------------------------------------------------------------------------------------

CLIMBS = [
    "../../../../etc/passwd",
    "..%2f..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "..%252f..%252f..%252fetc%252fpasswd",
    "%252e%252e%252fetc%252fpasswd",
    "..%5c..%5c..%5cetc%5cpasswd",
    "%00",
    "1%00",
    "1%00.png",
    "..%00/etc/passwd",
    "%2fetc%2fpasswd",
    "//etc/passwd",
    "1/../../../../etc/passwd",
    "%c0%ae%c0%ae%c0%afetc%c0%afpasswd",
    "-1",
    "1e3",
    "0x1",
    "99999999999999999999999",
    "１",  # a digit, but not of ASCII
]
PLACES = [
    "/api/v1/images/{}",
    "/api/v1/images/{}/thumbnail",
    "/api/v1/images/{}/original",
    "/api/v1/images/{}/captions",
    "/api/v1/images/{}/similar",
    "/api/v1/images/{}/describe",
    "/api/v1/uploads/{}/thumbnail",
    "/api/v1/saved/{}",
    "/api/v1/runs/{}",
    "/api/v1/runs/{}/events",
    "/assets/{}",
    "/{}",
]


@pytest.mark.parametrize("place", PLACES)
def test_no_path_leads_to_a_file(server: Running, place: str) -> None:
    for climb in CLIMBS:
        target = place.format(climb).encode("utf-8")
        answer = server.raw(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        status = int(answer.split(b" ", 2)[1])
        assert status in (400, 404, 422) or (place == "/api/v1/images/{}" and status == 404), (target, answer[:200])
        assert b"root:" not in answer
        assert b"Traceback" not in answer


@pytest.mark.parametrize("path", ["tags/..%2f..%2fetc", "tags/%00", "tags/a%2fb"])
def test_tags_are_no_paths(server: Running, path: str) -> None:
    assert " tag " in problem(server.http.delete(f"{V1}/images/1/{path}"), 400)


def test_queries_name_no_files(server: Running, images: Path) -> None:
    for picture in (str(images / "red.png"), "/etc/passwd", f"file://{images}/red.png", "ftp://x/y", "data:image/png,"):
        assert "picture" in problem(server.http.post(f"{V1}/search", json={"terms": [{"picture": picture}]}), 422)
        body = {"image": 1, "query": {"terms": [{"picture": picture}]}}
        problem(server.http.post(f"{V1}/why", json=body), 422)
        problem(server.http.put(f"{V1}/saved/x", json={"terms": [{"picture": picture}]}), 422)


def test_runs_read_only_what_is_indexed(server: Running, images: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "images-beside").mkdir()
    (images / "link").symlink_to(tmp_path / "other")
    for folder in ("/etc", str(tmp_path / "other"), f"{images}/..", str(tmp_path / "images-beside"), f"{images}/link"):
        said = problem(server.http.post(f"{V1}/runs", json={"kind": "index", "folders": [folder]}), 400)
        assert "mmsearch index FOLDER" in said
    labels = server.http.post(f"{V1}/runs", json={"kind": "tag", "labels": "/etc/passwd"})
    problem(labels, 422)
    assert "no vectors of" in problem(server.http.post(f"{V1}/runs", json={"kind": "evaluate", "rival": "/etc"}), 400)


# --- links and files that change --------------------------------------------------------------------------------------


def image_named(server: Running, name: str) -> int:
    hits = server.http.get(f"{V1}/images", params={"k": 100}).json()["hits"]
    return next(int(hit["id"]) for hit in hits if hit["name"] == name)


def refused(server: Running, image: int) -> str:
    said = {problem(server.http.get(f"{V1}/images/{image}/{what}?size=160"), 404) for what in ("original", "thumbnail")}
    assert len(said) == 1
    return said.pop()


def test_a_file_replaced_by_a_link_out_is_not_served(server: Running, images: Path, tmp_path: Path) -> None:
    image = image_named(server, "red.png")
    secret = paint(tmp_path / "secret.png", "blue", 9)
    (images / "red.png").unlink()
    (images / "red.png").symlink_to(secret)
    assert "outside of the indexed folders" in refused(server, image)


def test_a_folder_replaced_by_a_link_out_is_not_served(server: Running, images: Path, tmp_path: Path) -> None:
    image = image_named(server, "red one.jpg")
    (images / "more").rename(tmp_path / "elsewhere")
    (images / "more").symlink_to(tmp_path / "elsewhere")
    assert "outside of the indexed folders" in refused(server, image)


def test_a_link_that_was_indexed_is_found_but_not_served(engine: Engine, images: Path, tmp_path: Path) -> None:
    paint(tmp_path / "outside" / "lilac.png", "purple", 3)
    (images / "lilac.png").symlink_to(tmp_path / "outside" / "lilac.png")
    (images / "inner.png").symlink_to(images / "red.png")
    engine.index(images)
    with serving(engine) as server:
        assert "outside of the indexed folders" in refused(server, image_named(server, "lilac.png"))
        inner = image_named(server, "inner.png")  # the same content as red.png, so the same image
        assert server.http.get(f"{V1}/images/{inner}/original").content == (images / "red.png").read_bytes()


@pytest.mark.parametrize("change", ["content", "time", "fifo", "folder", "gone"])
def test_a_file_that_is_not_what_was_indexed_is_not_served(server: Running, images: Path, change: str) -> None:
    image, path = image_named(server, "red.png"), images / "red.png"
    status = path.stat()
    path.unlink()
    if change == "content":
        path.write_bytes(b"root:x:0:0" + bytes(100))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "time":
        paint(path, "red")
        os.utime(path, ns=(1, 1))
    elif change == "fifo":
        os.mkfifo(path)
    elif change == "folder":
        path.mkdir()
    assert {"content": "changed", "time": "changed"}.get(change, "gone") in refused(server, image)


def test_links_that_are_swapped_while_a_file_is_opened(tmp_path: Path) -> None:
    """Between looking and opening, a folder becomes a link: the walk does not follow it."""
    from mmsearch.server.places import _walked

    paint(tmp_path / "root" / "a" / "red.png", "red")
    (tmp_path / "root" / "b").symlink_to(tmp_path / "root" / "a")
    (tmp_path / "root" / "a" / "link.png").symlink_to("red.png")
    with _walked(str(tmp_path / "root"), ["a", "red.png"]) as file:
        assert file.read(4) == b"\x89PNG"
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for parts in (["b", "red.png"], ["a", "link.png"], ["a", "nope.png"], ["a"]):
        with pytest.raises(OSError):
            _walked(str(tmp_path / "root"), parts)
    if before:
        assert len(os.listdir("/proc/self/fd")) == before


# --- what a browser may run ------------------------------------------------------------------------------------------


def test_headers_of_every_answer(server: Running) -> None:
    image = image_named(server, "red.png")
    for path in ("/", f"{V1}/status", f"{V1}/images/{image}/original", "/nope", f"{V1}/images/x", "/assets/nope.js"):
        headers = server.http.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert "unsafe" not in headers["content-security-policy"]
    answer = server.http.get(f"{V1}/status", headers={"Host": "evil.example"})
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_only_plain_pictures_are_shown_inline(engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (30, 40, 3), np.uint8))
    for suffix in ("png", "jpg", "gif", "webp", "bmp", "tiff", "ppm", "tga", "jp2"):
        picture.rotate(len(suffix)).resize((40, 30 + ord(suffix[0]) % 20)).save(folder / f"a.{suffix}")
    # A JPEG that is a web page as well, and a GIF that says so in its name
    (folder / "page.html.jpg").write_bytes((folder / "a.jpg").read_bytes() + b"<script>alert(1)</script>")
    (folder / "page.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    engine.index(folder)
    with serving(engine) as server:
        seen = {}
        for hit in server.http.get(f"{V1}/images", params={"k": 100}).json()["hits"]:
            headers = server.http.get(f"{V1}/images/{hit['id']}/original").headers
            manner = headers["content-disposition"].split(";")[0]
            seen[hit["name"]] = (headers["content-type"], manner)
            assert headers["content-type"].split("/")[0] == "image" or manner == "attachment"
    inline = {name for name, (_, manner) in seen.items() if manner == "inline"}
    assert inline == {"a.png", "a.jpg", "a.gif", "a.webp", "a.bmp", "page.html.jpg"}
    assert seen["page.html.jpg"][0] == "image/jpeg"
    assert "page.svg" not in seen


# --- picture URLs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.png",
        "http://localhost/a.png",
        "http://[::1]/a.png",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/",
        "http://0x7f000001/",
        "http://2130706433/",
        "http://[::ffff:127.0.0.1]/",
    ],
)
def test_picture_urls_lead_nowhere_inside(server: Running, url: str) -> None:
    said = problem(server.http.post(f"{V1}/search", json={"terms": [{"picture": url}]}), 400)
    assert "not a public address" in said or "no host" in said


def test_a_name_that_is_public_first_and_private_then(
    server: Running, monkeypatch: pytest.MonkeyPatch, inside: Callable[[], list[str]]
) -> None:
    """DNS rebinding: each answer is checked, and the address that was checked is the one that is connected to."""
    answers = [["93.184.215.14"], ["127.0.0.1"]]
    asked = []
    lookup = socket.getaddrinfo

    def rebinding(host: object, port: object, *rest: object, **named: object) -> object:
        if host != "rebind.test":
            return lookup(host, port, *rest, **named)  # type: ignore[arg-type]
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in answers[min(len(asked), 2) - 1]]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    body = {"terms": [{"picture": "http://rebind.test/a.png"}]}
    first = problem(server.http.post(f"{V1}/search", json=body), 400)
    assert "cannot be fetched" in first  # the public address, which tests cannot reach
    second = problem(server.http.post(f"{V1}/search", json=body), 400)
    assert "rebind.test is 127.0.0.1, which is not a public address" in second
    assert inside() == []


def test_a_redirect_inside_is_refused(
    server: Running, monkeypatch: pytest.MonkeyPatch, inside: Callable[[], list[str]]
) -> None:
    import mmsearch.fetching as fetching

    port = server.port
    monkeypatch.setattr(fetching, "is_public", lambda address: address == "127.0.0.1" and not inside())
    # `pictures.test` counts as public until it was reached once; it redirects to what is not.
    lookup = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, port, *rest, **named: lookup(
            "127.0.0.1" if host == "pictures.test" else host, port, *rest, **named
        ),
    )
    address = inside.port  # type: ignore[attr-defined]
    body = {"terms": [{"picture": f"http://pictures.test:{address}/to/{port}"}]}
    said = problem(server.http.post(f"{V1}/search", json=body), 400)
    assert "not a public address" in said
    assert inside() == [f"/to/{port}"]


@pytest.fixture
def inside() -> Iterator[Callable[[], list[str]]]:
    """A server of this machine that redirects `/to/PORT` to that port; gives the paths it was asked for."""
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.path.rpartition('/')[2]}/api/v1/status")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def asked() -> list[str]:
        return paths

    asked.port = listening.server_port  # type: ignore[attr-defined]
    yield asked
    listening.shutdown()
    thread.join()
    listening.server_close()


# --- unexpected errors ------------------------------------------------------------------------------------------------


def test_a_bug_is_one_line_for_clients_and_a_traceback_in_the_log(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Engine) -> dict[str, int]:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(Engine, "tags", broken)
    answer = server.http.get(f"{V1}/tags")
    assert problem(answer, 500) == "Something went wrong in the server; its log says what."
    assert "secret" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    [record] = [one for one in caplog.records if one.name == "mmsearch.server"]
    assert record.exc_info is not None and record.exc_info[0] is ZeroDivisionError
    assert server.http.get(f"{V1}/status").status_code == 200


def test_what_is_not_there_and_what_is_not_for_that(server: Running) -> None:
    problem(server.http.get("/api/v2/status"), 404)
    problem(server.http.delete(f"{V1}/status"), 405)
    problem(server.http.post(f"{V1}/search", content=b"{", headers={"Content-Type": "application/json"}), 422)
    problem(server.http.get(f"{V1}/status", params={"collection": "nope"}), 404)
    answer = server.http.post(f"{V1}/search", json={"terms": [{"text": "x"}], "k": 501, "nope": 1})
    problem(answer, 422)
    assert {".".join(one["loc"]) for one in answer.json()["errors"]} == {"body.k", "body.nope"}


def test_defaults_are_the_safe_ones() -> None:
    settings = ServerSettings()
    assert (settings.host, settings.loopback, settings.cors, settings.allow_hosts) == ("127.0.0.1", True, (), ())
    assert settings.rate and not settings.limits.private_addresses
    assert not ServerSettings(host="nas.local", token=TOKEN).loopback
    assert ServerSettings(host="::1").loopback and ServerSettings(host="localhost").loopback


@pytest.mark.parametrize(
    "unsafe",
    [
        {"host": "0.0.0.0"},
        {"host": "::"},
        {"host": ""},
        {"host": "nas.local"},
        {"host": "127.evil.example"},
        {"token": ""},
        {"token": "short"},
        {"token": "a token with ümlauts"},
        {"token": "a token with\na line break"},
        {"cors": ("*",)},
        {"cors": ("null",)},
        {"cors": ("https://app.example/",)},
        {"allow_hosts": ("*",)},
        {"allow_hosts": ("nas.local:80",)},
        {"allow_hosts": ("",)},
    ],
)
def test_what_would_not_be_safe_cannot_be_told(unsafe: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ServerSettings(**unsafe)


def picture_bytes(size: tuple[int, int] = (64, 48), seed: int = 0) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def test_others_see_no_absolute_paths(tmp_path: Path, images: Path) -> None:
    with Engine.open(tmp_path / "collection", model=ToyEncoder()) as engine:
        engine.index(images)
        (images / "broken.jpg").write_bytes(b"nothing")
        engine.index(images)
        with serving(engine, host="0.0.0.0", token=TOKEN) as server:
            hits = server.http.get(f"{V1}/search", params={"q": "red", "k": 100}).json()["hits"]
            assert {hit["path"] for hit in hits} >= {"images/red.png", "images/more/red one.jpg"}
            calls = [
                server.http.get(f"{V1}/status"),
                server.http.get(f"{V1}/images/{hits[0]['id']}"),
                server.http.get(f"{V1}/images/{hits[0]['id']}/similar"),
                server.http.post(f"{V1}/duplicates", json={"tiers": ["exact", "near", "semantic"]}),
                server.http.post(f"{V1}/why", json={"image": hits[0]["id"], "query": {"terms": [{"text": "red"}]}}),
                server.http.post(f"{V1}/runs", json={"kind": "index"}),
            ]
            server.http.get(f"{V1}/runs/1/events")
            calls.append(server.http.get(f"{V1}/runs/1"))
            for answer in calls:
                assert answer.status_code in (200, 202), answer.text
                assert str(tmp_path) not in answer.text
            (tmp_path / "collection").rename(tmp_path / "gone")
            assert str(tmp_path) not in problem(httpx.get(f"{server.url}{V1}/ready", trust_env=False), 503)
