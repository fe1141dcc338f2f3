"""The files of the page: what is loaded at once is asked for at once, what others made is named with its licence."""

from __future__ import annotations

import asyncio
import gzip
import re
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response

import mmsearch
from mmsearch.server import page as server_page
from mmsearch.server.problems import ProblemError

PAGE = Path(mmsearch.__file__).parent / "server" / "page"
ASSETS = PAGE / "assets"


def imported(path: Path) -> set[Path]:
    """The modules that a file imports before it runs."""
    names = re.findall(r'^(?:import|export) .*?from "(\.[^"]+)";$', path.read_text("utf-8"), re.MULTILINE)
    return {(path.parent / name).resolve() for name in names}


def test_all_modules_of_the_first_view_are_asked_for_at_once() -> None:
    needed: set[Path] = set()
    waiting = [ASSETS / "app.js"]
    while waiting:
        path = waiting.pop()
        if path not in needed:
            needed.add(path)
            waiting += imported(path)
    index = (PAGE / "index.html").read_text("utf-8")
    preloaded = {(PAGE / name).resolve() for name in re.findall(r'modulepreload" href="/([^"]+)"', index)}
    assert preloaded == needed - {ASSETS / "app.js"}


def test_what_the_page_loads_is_there() -> None:
    texts = [PAGE / "index.html", *ASSETS.glob("*.js"), *ASSETS.glob("*.css")]
    named = {name for path in texts for name in re.findall(r'["(]/?(assets/[\w./-]+\.\w+)', path.read_text("utf-8"))}
    later = {
        f"assets/{name}"
        for path in ASSETS.glob("*.js")
        for name in re.findall(r'(?:import\(|from=)"\./([\w./-]+)"', path.read_text("utf-8"))
    }
    assert len(named) > 20
    assert len(later) >= 6
    assert [name for name in sorted(named | later) if not (PAGE / name).is_file()] == []


def test_vendored_files_have_a_version_and_a_licence() -> None:
    vendor = ASSETS / "vendor"
    versions = (vendor / "VERSIONS").read_text("utf-8")
    for path in vendor.iterdir():
        if path.suffix in (".js", ".css", ".json"):
            line = next(
                line for line in versions.splitlines() if path.name in line.split(" ")[0:2] or f"{path.name}," in line
            )
            package = re.search(r"([a-z-]+) \d+\.\d+\.\d+ \((?:MIT|ISC|Apache-2\.0)", line)
            assert package, line
            assert (vendor / f"{package[1]}.LICENSE").is_file()


@pytest.mark.parametrize("path", sorted(ASSETS.glob("*.js")), ids=lambda path: path.name)
def test_modules_say_what_they_are(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.startswith("// ")
    assert len(text.splitlines()) <= 400
    assert "innerHTML" not in text.replace("dangerouslySetInnerHTML=${{ __html: icons[name] }}", "")
    assert not re.search(r"https?://(?!127|\$|\\|/)", re.sub(r"https\?:|http\?s:", "", text)), "no other host"


def asset(name: str, **headers: str) -> Response:
    sent = [(key.replace("_", "-").encode(), value.encode()) for key, value in headers.items()]
    return asyncio.run(server_page.asset(name, Request({"type": "http", "method": "GET", "headers": sent})))


def test_assets_are_packed_and_sent_once() -> None:
    content = (ASSETS / "app.js").read_bytes()
    plain, packed = asset("app.js"), asset("app.js", accept_encoding="gzip, br")
    assert plain.body == content
    assert "content-encoding" not in plain.headers
    assert gzip.decompress(packed.body) == content
    assert len(packed.body) < len(content) / 2
    assert packed.headers["content-encoding"] == "gzip"
    again = asset("app.js", if_none_match=plain.headers["etag"], accept_encoding="gzip")
    assert (again.status_code, again.body) == (304, b"")


@pytest.mark.parametrize("name", ["nope.js", "", ".", "../index.html", "vendor", "/etc/passwd", "vendor/../app.js"])
def test_nothing_but_assets_is_sent(name: str) -> None:
    with pytest.raises(ProblemError, match="There is nothing"):
        asset(name)
