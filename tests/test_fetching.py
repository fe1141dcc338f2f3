"""Pictures of the web, from real servers on this machine: what is refused, what is limited, what a person is told."""

from __future__ import annotations

import gzip
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpcore2 as httpcore
import pytest

from mmsearch import fetching
from mmsearch.errors import UsageError
from mmsearch.fetching import MAX_REDIRECTS, fetch, is_public

Answer = Callable[[BaseHTTPRequestHandler], None]
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40


class Server(ThreadingHTTPServer):
    """Answers each path with a function; keeps what was asked."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []

    def url(self, path: str, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.server_port}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what these tests are about."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        self.server.answers[self.path](self)

    def log_message(self, *args: object) -> None:
        pass


def sends(body: bytes, status: int = 200, **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return answer


def redirects(location: str, status: int = 302) -> Answer:
    return sends(b"elsewhere", status, Location=location)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as one:
        threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True).start()
        yield one
        one.shutdown()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Host name -> the answers to one lookup after the other; the last one is kept. Other names do not exist."""
    known: dict[str, list[list[str]]] = {}

    def lookup(host: str, port: int, *args: object, **options: object) -> list[tuple[object, ...]]:
        try:
            answer = [str(ipaddress.ip_address(host))]
        except ValueError:
            if host not in known:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None
            answer = known[host].pop(0) if len(known[host]) > 1 else known[host][0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answer]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return known


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that connections are made to. 127.0.0.1 counts as public here; at 127.0.0.9 nobody answers."""
    seen: list[str] = []
    connect = httpcore.SyncBackend.connect_tcp

    def noted(self: httpcore.SyncBackend, host: str, port: int, *rest: object) -> httpcore.NetworkStream:
        seen.append(host)
        if host == "127.0.0.9":
            raise httpcore.ConnectError(OSError(111, "nobody there"))
        return connect(self, host, port, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", noted)
    monkeypatch.setattr(fetching, "is_public", lambda address: address in ("127.0.0.1", "127.0.0.9"))
    return seen


def reason(url: str, *, max_bytes: int = 100_000, private: bool = True, seconds: float = 5) -> str:
    """The line a person gets."""
    with pytest.raises(UsageError) as raised:
        fetch(url, max_bytes=max_bytes, private_addresses=private, timeout_seconds=seconds)
    message = str(raised.value)
    assert "\n" not in message
    return message


# --- which addresses are public -----------------------------------------------------------------------------------

NOT_PUBLIC = """
0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.255 100.100.100.200 127.0.0.1 127.255.0.1 169.254.169.254 172.16.0.1
172.31.255.255 192.0.0.1 192.0.0.9 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.19.255.255 198.51.100.1
203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
:: ::1 ::2 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:8.8.8.8 ::ffff:0:127.0.0.1
64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::8.8.8.8 100::1 2001::1 2001:2::1 2001:10::1
2001:20::1 2001:db8::1 2002:7f00:1:: 2002:0808:0808:: 3fff::1 4000::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1
fe80::1%eth0 fec0::1 ff02::1 ff0e::1
"""
PUBLIC = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 93.184.216.34 100.63.255.255 100.128.0.0 172.15.255.255 172.32.0.0 192.0.1.1
192.167.255.255 198.17.255.255 223.255.255.255
2001:4860:4860::8888 2606:4700:4700::1111 2a00:1450:4001::200e 64:ff9b::8.8.8.8
"""


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
def test_special_addresses_are_not_public(address: str) -> None:
    """Out of IANA's registries of special-purpose addresses (RFC 6890 and what came after)."""
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC.split())
def test_addresses_beside_them_are(address: str) -> None:
    assert is_public(address)


# --- where it may lead --------------------------------------------------------------------------------------------


def test_a_picture_comes_whole(server: Server) -> None:
    server.answers["/a.png"] = sends(PICTURE)
    assert fetch(server.url("/a.png"), max_bytes=len(PICTURE), private_addresses=True) == PICTURE
    ((_, headers),) = server.asked
    assert headers["Host"] == f"127.0.0.1:{server.server_port}"
    assert headers["Accept-Encoding"] == "identity"
    assert "Cookie" not in headers


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "017700000001", "localhost"])
def test_this_machine_is_refused_however_it_is_written(server: Server, host: str) -> None:
    message = reason(server.url("/a.png", host), private=False)
    assert "not a public address" in message
    assert server.asked == []


@pytest.mark.parametrize("host", ["[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[fe80::1]", "169.254.169.254"])
def test_special_addresses_are_refused_before_anything_is_sent(host: str) -> None:
    assert "not a public address" in reason(f"http://{host}/latest/meta-data", private=False)


def test_a_name_that_leads_inside_is_refused(server: Server, names: dict[str, list[list[str]]]) -> None:
    names["inside.test"] = [["127.0.0.1"]]
    message = reason(server.url("/a.png", "inside.test"), private=False)
    assert "inside.test is 127.0.0.1, which is not a public address" in message
    assert server.asked == []


def test_the_address_that_was_checked_is_the_one_connected_to(
    server: Server, names: dict[str, list[list[str]]], reached: list[str]
) -> None:
    """DNS rebinding: a second lookup would lead elsewhere."""
    server.answers["/a.png"] = sends(PICTURE)
    names["pictures.test"] = [["127.0.0.1"], ["127.0.0.2"]]
    assert fetch(server.url("/a.png", "pictures.test"), max_bytes=100_000) == PICTURE
    assert reached == ["127.0.0.1"]
    assert names["pictures.test"] == [["127.0.0.2"]]  # asked once
    assert server.asked[0][1]["Host"] == f"pictures.test:{server.server_port}"


def test_only_the_public_ones_of_several_addresses_are_tried(
    server: Server, names: dict[str, list[list[str]]], reached: list[str]
) -> None:
    server.answers["/a.png"] = sends(PICTURE)
    names["pictures.test"] = [["10.0.0.1", "127.0.0.9", "127.0.0.1", "::1"]]
    assert fetch(server.url("/a.png", "pictures.test"), max_bytes=100_000) == PICTURE
    assert reached == ["127.0.0.9", "127.0.0.1"]


def test_a_redirect_inside_is_refused(server: Server, names: dict[str, list[list[str]]], reached: list[str]) -> None:
    names |= {"pictures.test": [["127.0.0.1"]], "inside.test": [["127.0.0.2"]]}
    server.answers["/a.png"] = redirects(server.url("/secret", "inside.test"))
    message = reason(server.url("/a.png", "pictures.test"), private=False)
    assert "inside.test is 127.0.0.2, which is not a public address" in message
    assert "it led to http://inside.test" in message
    assert reached == ["127.0.0.1"]


def test_a_redirect_to_the_same_name_is_looked_up_and_checked_again(
    server: Server, names: dict[str, list[list[str]]], reached: list[str]
) -> None:
    names["pictures.test"] = [["127.0.0.1"], ["127.0.0.2"]]
    server.answers["/a.png"] = redirects("/b.png")
    server.answers["/b.png"] = sends(PICTURE)
    assert "127.0.0.2" in reason(server.url("/a.png", "pictures.test"), private=False)
    assert reached == ["127.0.0.1"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(server: Server, status: int) -> None:
    server.answers["/a/b.png"] = redirects("../c.png?x=1#part", status)
    server.answers["/c.png?x=1"] = sends(PICTURE)
    assert fetch(server.url("/a/b.png"), max_bytes=100_000, private_addresses=True) == PICTURE


def test_redirects_end(server: Server) -> None:
    for number in range(MAX_REDIRECTS):
        server.answers[f"/{number}"] = redirects(f"/{number + 1}")
    server.answers[f"/{MAX_REDIRECTS}"] = sends(PICTURE)
    assert fetch(server.url("/0"), max_bytes=100_000, private_addresses=True) == PICTURE
    server.answers["/round"] = redirects("/round")
    assert f"redirected more than {MAX_REDIRECTS} times" in reason(server.url("/round"))


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("file:///etc/passwd", "only http:// and https://"),
        ("ftp://example.org/a.png", "only http:// and https://"),
        ("//me:secret@example.org/", "user name or a password"),
        ("http://[::1", "no address"),
    ],
)
def test_redirects_to_what_is_never_fetched(server: Server, location: str, said: str) -> None:
    server.answers["/a.png"] = redirects(location)
    message = reason(server.url("/a.png"))
    assert said in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("file:///etc/passwd", "only http:// and https://"),
        ("ftp://example.org/a.png", "only http:// and https://"),
        ("http:///a.png", "names no host"),
        ("http://", "names no host"),
        ("http://example.org:port/", "no address"),
        ("http://example.org:99999/", "no address"),
        ("http://[::1/", "no address"),
        ("http://a..b/", "no address"),
        ("http://no\0name/", "no host"),
        ("http://nothing.test/a.png", "there is no host nothing.test, or no network"),
    ],
)
def test_addresses_that_are_none(names: dict[str, list[list[str]]], url: str, said: str) -> None:
    assert said in reason(url)


def test_passwords_are_neither_sent_nor_shown() -> None:
    message = reason("https://me:secret@example.org/a.png?at=x@y")
    assert "user name or a password" in message
    assert message.startswith("https://example.org/a.png?at=x@y cannot be fetched")


def test_what_people_paste_is_encoded(server: Server, names: dict[str, list[list[str]]]) -> None:
    names["xn--bcher-kva.test"] = [["127.0.0.1"]]
    server.answers["/sch%C3%B6n%20%20da/50%25.png?q=%C3%A9&b=/"] = sends(PICTURE)
    url = server.url("/schön%20 da/50%25.png?q=é&b=/#part", "BÜCHER.test", "HTTP")
    assert fetch(url, max_bytes=100_000, private_addresses=True) == PICTURE


def test_proxies_of_the_environment_do_not_count(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server.answers["/a.png"] = sends(PICTURE)
    assert fetch(server.url("/a.png"), max_bytes=100_000, private_addresses=True) == PICTURE


# --- how much, how long -------------------------------------------------------------------------------------------


def test_a_stated_size_above_the_limit_is_refused_at_once(server: Server) -> None:
    server.answers["/a.png"] = sends(b"", Content_Length="3000000")
    assert "larger than 2 MB" in reason(server.url("/a.png"), max_bytes=2_000_000)


def test_exactly_the_limit_is_fine_and_one_byte_more_is_not(server: Server) -> None:
    server.answers["/a.png"] = sends(PICTURE)
    assert "larger" in reason(server.url("/a.png"), max_bytes=len(PICTURE) - 1)
    assert fetch(server.url("/a.png"), max_bytes=len(PICTURE), private_addresses=True) == PICTURE


def test_an_endless_answer_ends_at_the_limit(server: Server) -> None:
    sent = 0

    def endless(request: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        request.send_response(200)
        request.end_headers()
        while True:
            sent += request.wfile.write(bytes(10_000))

    server.answers["/a.png"] = endless
    assert "larger than 0.1 MB" in reason(server.url("/a.png"), max_bytes=100_000)
    assert sent < 50_000_000  # no more than sockets hold


def test_compressed_answers_are_refused(server: Server) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    server.answers["/a.png"] = sends(bomb, Content_Encoding="gzip", Content_Length=str(len(bomb)))
    assert "compressed" in reason(server.url("/a.png"))


def test_an_answer_shorter_than_it_states_is_not_a_picture(server: Server) -> None:
    server.answers["/a.png"] = sends(PICTURE, Content_Length=str(len(PICTURE) + 1))
    assert "broke off" in reason(server.url("/a.png"))


def drips(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(b".")
        time.sleep(0.05)


def drips_headers(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while True:
        request.wfile.write(b".")
        time.sleep(0.05)


def says_wait(request: BaseHTTPRequestHandler) -> None:
    while True:
        request.wfile.write(b"HTTP/1.1 102 Processing\r\n\r\n")
        time.sleep(0.05)


@pytest.mark.parametrize("answer", [drips, drips_headers, says_wait])
def test_the_time_is_limited_as_a_whole(server: Server, answer: Answer) -> None:
    server.answers["/a.png"] = answer
    start = time.monotonic()
    assert "within 0.3 seconds" in reason(server.url("/a.png"), seconds=0.3)
    assert time.monotonic() - start < 2


def test_redirects_share_one_limit_of_time(server: Server) -> None:
    def slow(request: BaseHTTPRequestHandler) -> None:
        time.sleep(0.15)
        redirects("/a.png")(request)

    server.answers["/a.png"] = slow
    assert "within 0.4 seconds" in reason(server.url("/a.png"), seconds=0.4)
    assert len(server.asked) <= 3


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_says_nothing(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "within 0.2 seconds" in reason(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/", seconds=0.2)


def test_a_lookup_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()

    def slow(*args: object, **options: object) -> list[object]:
        done.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    assert "within 0.2 seconds" in reason("http://slow.test/", seconds=0.2)
    done.set()


# --- what else goes wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "said"),
    [(404, "no such picture (HTTP 404)"), (410, "HTTP 410"), (401, "HTTP 401"), (500, "HTTP 500"), (304, "HTTP 304")],
)
def test_http_errors(server: Server, status: int, said: str) -> None:
    server.answers["/a.png"] = sends(b"", status)
    assert said in reason(server.url("/a.png"))


def test_a_web_page_is_not_a_picture(server: Server) -> None:
    server.answers["/a"] = sends(b"<!doctype html>", Content_Type="Text/HTML; charset=utf-8")
    assert "it is a web page; give the address of the picture itself" in reason(server.url("/a"))


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert "takes no connections" in reason(f"http://127.0.0.1:{port}/")


def test_what_is_not_http(server: Server) -> None:
    def greets(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"SSH-2.0-OpenSSH\r\n")

    server.answers["/a.png"] = greets
    assert "broke off, or the answer is not HTTP" in reason(server.url("/a.png"))


# --- secure connections -------------------------------------------------------------------------------------------

# Made for these tests, for the name pictures.test, valid until 2126; worth nothing elsewhere.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgfN40pQUb1HwsEwny
KOkrUqachya8v2Pa+G0jp7nVR2ahRANCAARao+HOBJn6YoiR3iM+XtBBjyd3A3p/
VCwfUiQajPMmT/QUUG59F685J0Vv7bKA1OKq0TVc+A6IHU0mfWeYsgY/
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBoDCCAUegAwIBAgIUduoYeFIgfppPpB7HbWppaLCLAPEwCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNcGljdHVyZXMudGVzdDAgFw0yNjExMjExMDQxMjdaGA8yMTI2
MTAyODEwNDEyN1owGDEWMBQGA1UEAwwNcGljdHVyZXMudGVzdDBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABFqj4c4EmfpiiJHeIz5e0EGPJ3cDen9ULB9SJBqM8yZP
9BRQbn0XrzknRW/tsoDU4qrRNVz4DogdTSZ9Z5iyBj+jbTBrMB0GA1UdDgQWBBSl
FYveUG/vgJ1gK8scwvGuyGtRkzAfBgNVHSMEGDAWgBSlFYveUG/vgJ1gK8scwvGu
yGtRkzAYBgNVHREEETAPgg1waWN0dXJlcy50ZXN0MA8GA1UdEwEB/wQFMAMBAf8w
CgYIKoZIzj0EAwIDRwAwRAIgWFxJDRRUmNVkKCeyV6BB6yms8QQh+QhKMT7K6toA
J6gCICXJ8CQTetfrqGYzRtFAGp+6kQL9hawawfURe67G8lni
-----END CERTIFICATE-----
"""


@pytest.fixture
def secure(server: Server, tmp_path: Path, names: dict[str, list[list[str]]]) -> Path:
    """The server speaks TLS from now on; the file of its certificate."""
    file = tmp_path / "certificate.pem"
    file.write_text(CERTIFICATE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.answers["/a.png"] = sends(PICTURE)
    names |= {"pictures.test": [["127.0.0.1"]], "other.test": [["127.0.0.1"]]}
    return file


def test_certificates_are_checked(server: Server, secure: Path) -> None:
    message = reason(server.url("/a.png", "pictures.test", "https"))
    assert "certificate cannot be trusted (self-signed certificate)" in message
    assert server.asked == []


def test_certificates_are_for_the_name_and_not_the_address(
    server: Server, secure: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(secure))
    url = server.url("/a.png", "pictures.test", "https")
    assert fetch(url, max_bytes=100_000, private_addresses=True) == PICTURE
    assert "certificate cannot be trusted" in reason(server.url("/a.png", "other.test", "https"))
    assert "certificate cannot be trusted" in reason(server.url("/a.png", scheme="https"))


def test_a_server_without_tls(server: Server) -> None:
    assert "may not speak https" in reason(server.url("/a.png", scheme="https"))
