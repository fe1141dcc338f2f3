"""What the tests of the page share: an album with dates, cameras, places and copies, a server over it in a process of
its own, and Debian's Chromium, whose every complaint is kept."""

from __future__ import annotations

import base64
import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import ExifTags, Image

from mmsearch import Engine

DEMO = Path(__file__).parent.parent / "data" / "demo"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FOLDERS = {  # folder -> camera, (latitude, longitude) around which pictures were taken, first day
    "Travels/Iceland": ("Canon EOS R6", (64.15, -21.94), datetime(2023, 6, 3, 9)),
    "Travels/Japan": ("Canon EOS R6", (35.01, 135.77), datetime(2024, 4, 10, 14)),
    "Home": ("Apple iPhone 15", (48.14, 11.58), datetime(2024, 9, 1, 18)),
    "Scans": (None, None, None),
}
PATIENCE_SECONDS = 90  # nothing waits so long, but on a machine that is busy with other things


def chromium() -> str | None:
    """Where a Chromium of the system lies."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def make_album(folder: Path, *, many: int = 1000) -> Path:
    """The demo's pictures in folders, as a person would have them: dates, cameras and places inside, captions beside,
    one copied, one shrunk, one broken."""
    with (DEMO / "captions.csv").open(encoding="utf-8") as table:
        captions = {row["image"]: row["caption"] for row in csv.DictReader(table)}
    sources = sorted((DEMO / "images").iterdir(), key=lambda path: (path.name[::-1], path.name))
    photographs = [path for path in sources if path.name.startswith("photo")]
    drawings = [path for path in sources if path not in photographs]
    for number, source in enumerate([*photographs, *drawings][:many]):
        place = list(FOLDERS)[number % len(FOLDERS)]
        target = folder / place / f"{source.stem.split('_', 1)[1] if source in photographs else source.stem}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        _photograph(source, target, number, *FOLDERS[place])
        target.with_suffix(".txt").write_text(captions[source.name], encoding="utf-8")
    first = next((folder / "Home").glob("*.jpg"))
    (folder / "Scans").mkdir(exist_ok=True)
    shutil.copy(first, folder / "Scans" / f"copy of {first.name}")
    with Image.open(first) as picture:
        picture.resize((picture.width * 2 // 3, picture.height * 2 // 3)).save(folder / "Scans" / f"small {first.name}")
    (folder / "Scans" / "broken.jpg").write_bytes(first.read_bytes()[:400])
    return folder


def _photograph(
    source: Path,
    target: Path,
    number: int,
    camera: str | None,
    place: tuple[float, float] | None,
    day: datetime | None,
) -> None:
    with Image.open(source) as opened:
        picture = (
            opened.convert("RGBA") if "transparency" in opened.info or "A" in opened.mode else opened.convert("RGB")
        )
    if picture.mode == "RGBA":
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    exif = Image.Exif()
    if camera is not None and place is not None and day is not None:
        exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = camera.split(" ", 1)
        taken = day + timedelta(days=number * 3, minutes=number * 17)
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = taken.strftime("%Y:%m:%d %H:%M:%S")
        latitude, longitude = place[0] + (number % 5) * 0.09, place[1] + (number % 7) * 0.07
        gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
        gps[ExifTags.GPS.GPSLatitudeRef], gps[ExifTags.GPS.GPSLatitude] = "N", (latitude, 0.0, 0.0)
        gps[ExifTags.GPS.GPSLongitudeRef] = "E" if longitude > 0 else "W"
        gps[ExifTags.GPS.GPSLongitude] = (abs(longitude), 0.0, 0.0)
    picture.save(target, quality=88, exif=exif)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "import sys; from mmsearch.cli.main import main; sys.exit(main())", *arguments]


@contextmanager
def serve(collection: Path, *options: str) -> Iterator[str]:
    """`mmsearch serve` on a free port; gives its address."""
    process = subprocess.Popen(
        command("serve", "-c", str(collection), "--port", "0", *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    said: list[str] = []
    found: list[str] = []
    ready = threading.Event()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if not found and (address := re.search(r"http://(?:127\.0\.0\.1|localhost):\d+", line)):
                found.append(address[0])
                ready.set()
        ready.set()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        assert ready.wait(PATIENCE_SECONDS) and found, f"the server did not start: {''.join(said)}"
        yield found[0]
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        listener.join(10)
        assert process.stdout is not None
        process.stdout.close()


@dataclass
class Complaints:
    """What a browser has to say against a page: errors in its console, refusals of its policy, requests elsewhere."""

    own: str
    found: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()

    def listen(self, page: Any) -> None:
        page.on("console", lambda message: self._said(message))
        page.on("pageerror", lambda error: self._failed(str(error)))
        page.on("request", lambda request: self._asked(request.url))

    def _said(self, message: Any) -> None:
        expected = (*self.expected, "GL Driver Message")  # what software that paints says of its own slowness
        if message.type in ("error", "warning") and not any(one in message.text for one in expected):
            self.found.append(f"{message.type}: {message.text} ({message.location.get('url', '')})")

    def _failed(self, error: str) -> None:
        if not any(one in error for one in self.expected):
            self.found.append(f"error: {error}")

    def _asked(self, url: str) -> None:
        if not url.startswith((self.own, "data:", "blob:")):
            self.found.append(f"a request to {url}")


# --- what tests ask of the page -----------------------------------------------------------------------------------


def settled(page: Any) -> None:
    """Until the answers to what was asked last are there."""
    page.wait_for_function(
        "() => { const main = document.querySelector('#main');"
        " return main && main.getAttribute('aria-busy') === 'false' && !document.querySelector('.stale'); }"
    )


def says(page: Any, text: str, where: str = ".count") -> None:
    """Until it stands there."""
    page.wait_for_function(
        "([where, text]) => [...document.querySelectorAll(where)].some(one => one.innerText.includes(text))",
        arg=[where, text],
    )


def shown(page: Any) -> list[int]:
    """The ids of the pictures on show, in their order."""
    settled(page)
    tiles = page.locator(".tile").evaluate_all("all => all.map(one => [+one.dataset.at, +one.dataset.id])")
    return [picture for _, picture in sorted(tiles)]


def asked(page: Any) -> dict[str, list[str]]:
    """What the address says."""
    return parse_qs(urlsplit(page.url).query)


def post(page: Any, path: str, body: dict[str, Any]) -> Any:
    """What the API says by itself, without the page."""
    answer = page.request.post(f"{origin(page)}/api/v1{path}", data=body)
    assert answer.ok, answer.text()
    return answer.json()


def origin(page: Any) -> str:
    parts = urlsplit(page.url)
    return f"{parts.scheme}://{parts.netloc}"


def drop(page: Any, picture: Path) -> None:
    """A file dropped on the page, as from a file manager."""
    page.evaluate(
        """([name, type, content]) => {
            const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], name, { type }));
            for (const kind of ["dragenter", "dragover", "drop"])
                document.body.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
        }""",
        [picture.name, "image/jpeg", base64.b64encode(picture.read_bytes()).decode()],
    )


def screenshot(page: Any, name: str) -> None:
    """Kept where $MMSEARCH_SCREENSHOTS says, for people to look at; nowhere without it."""
    folder = os.environ.get("MMSEARCH_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png")


# --- fixtures -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def page_collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection of the album, indexed by the command as people do, with some tags."""
    folder = tmp_path_factory.mktemp("page")
    album = make_album(folder / "album")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        command("index", "-c", str(folder / "collection"), str(album)), capture_output=True, text=True, env=environment
    )
    assert "1 failed" in run.stdout + run.stderr, run.stderr
    with Engine.open(folder / "collection") as engine:
        engine.add_tags([hit.id for hit in engine.search("a bird", k=3)], ["bird"])
        engine.add_tags([hit.id for hit in engine.search("a red car", k=4)], ["vehicle", "red"])
    return folder / "collection"


@pytest.fixture(scope="session")
def page_server(page_collection: Path) -> Iterator[str]:
    if chromium() is None:
        pytest.skip("there is no Chromium here; on Debian, `apt-get install chromium` brings it")
    with serve(page_collection, "--rate", "0") as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium of the system, driven by Playwright; one for all tests of a file, whose loop ends with it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the extra dev brings playwright")
    where = chromium()
    if where is None:
        pytest.skip("there is no Chromium here; on Debian, `apt-get install chromium` brings it")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=where, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def contexts(browser: Any) -> dict[str, Any]:
    """Kinds of visitors -> what their browser remembers: tests of a file load pictures once."""
    return {}


@pytest.fixture
def visit(browser: Any, page_server: str, contexts: dict[str, Any]) -> Iterator[Callable[..., Any]]:
    """visit(path, server=..., expected=..., **context) -> a page, whose complaints fail the test at its end.
    expected: parts of complaints that the test provokes."""
    pages: list[Any] = []
    heard: list[Complaints] = []

    def go(path: str = "/", *, server: str = page_server, expected: tuple[str, ...] = (), **options: Any) -> Any:
        options = {"viewport": {"width": 1280, "height": 800}} | options
        kind = repr(sorted(options.items()))
        if kind not in contexts:
            contexts[kind] = browser.new_context(**options)
            contexts[kind].set_default_timeout(PATIENCE_SECONDS * 1000)
        page = contexts[kind].new_page()
        pages.append(page)
        complaints = Complaints(server, expected=expected)
        complaints.listen(page)
        heard.append(complaints)
        page.goto(server + path)
        return page

    yield go
    for page in pages:
        page.close()
    found = [line for complaints in heard for line in complaints.found]
    if found:
        pytest.fail("the browser complains: " + "; ".join(found))
