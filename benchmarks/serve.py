"""How quickly `mmsearch serve` answers over HTTP, what its page weighs, when it shows pictures, and memory under load.

The goals, on two cores with the built-in encoder: a text search over 100,000 images p50 under 25 ms and p99 under
80 ms; 60 searches a second with 16 clients; the first row of the gallery visible 300 ms after the page was asked for,
on loopback; under 200 kB before pictures; flat memory over an hour's worth of requests.

Everything runs on this machine, against 127.0.0.1: the server in a process of its own, the clients, which share the
cores with it, in this one. Vectors are random; texts are encoded by the server, and no two of a turn are the same. The
page is opened by Chromium through Playwright; without them that part is left out.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common import parser, percentile, spread, table, write_report

P50, P99, RATE, FIRST_ROW, WEIGHT = 0.025, 0.080, 60.0, 0.300, 200_000
FLAT = 1.05  # memory at the end of the load, as a share of that after its first tenth
K = 10
BUSY_HOUR = 3600  # requests: one a second for an hour
WARM_UP = 20
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
KINDS = ("red", "small", "lonely", "beautiful old wooden", "broken", "shiny", "blue", "painted", "tall", "quiet")
NOUNS = ("car", "dog", "beach", "mountain", "guitar", "penguin", "castle", "strawberry", "lighthouse", "bicycle")
PLACES = ("at night", "in the rain", "by the sea", "in a street", "on a table", "under a tree", "in winter", "at home")
TEXTS = [f"a {kind} {noun} {place}" for kind in KINDS for noun in NOUNS for place in PLACES]

# When every picture of the first row is there and decoded, and the frame that shows it has begun.
FIRST_ROW_SHOWN = """
const look = () => {
    const tiles = [...document.querySelectorAll(".tile")].filter(one => one.querySelector("img"));
    const top = Math.min(...tiles.map(one => one.getBoundingClientRect().top));
    const row = tiles.filter(one => Math.abs(one.getBoundingClientRect().top - top) < 2);
    const there = row.every(one => { const img = one.querySelector("img"); return img.complete && img.naturalWidth; });
    if (row.length && there) window.firstRow = performance.now(); else requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""
PAGE_WEIGHT = """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
    .filter(one => !/\\/(thumbnail|original)/.test(one.name)).map(one => one.transferSize).reduce((a, b) => a + b, 0)"""


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--count", type=int, default=100_000, help="images that are searched")
    options.add_argument("--seconds", type=float, default=20.0, help="how long searches are measured, each way")
    options.add_argument("--clients", type=int, default=16, help="at the same time")
    options.add_argument("--load", type=float, default=180.0, help="seconds of mixed requests, for memory")
    options.add_argument("--pictures", type=int, default=300, help="photographs in the collection that is looked at")
    options.add_argument("--visits", type=int, default=10, help="how often the page is opened")
    args = options.parse_args()
    if args.quick:
        args.count, args.seconds, args.clients, args.load, args.pictures, args.visits = 2_000, 0.5, 4, 2.0, 12, 2
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        collection = Path(folder) / "vectors"
        make_vectors(collection, args.count, args.model)
        with serve(collection) as server:
            parts += searches(server, args)
            parts += memory(server, args)
        parts += page(Path(folder), args)
    packages = ["fastapi", "uvicorn", "onnxruntime", "faiss-cpu", "sqlalchemy", "playwright"]
    write_report(args, "Searching over HTTP", parts, packages)


# --- searches -----------------------------------------------------------------------------------------------------


def searches(server: Server, args: Any) -> list[str]:
    """One client, then several at once."""
    turn(server, search, clients=1, seconds=0.0, first=0, least=WARM_UP)
    alone = turn(server, search, clients=1, seconds=args.seconds, first=WARM_UP)
    started = time.perf_counter()
    together = turn(server, search, clients=args.clients, seconds=args.seconds, first=len(TEXTS) // 2)
    rate = len(together) / (time.perf_counter() - started)
    cells = [
        [
            f"{clients} client{'s' * (clients > 1)}",
            f"{len(times):,}",
            f"{percentile(times, 50) * 1000:.1f}",
            f"{percentile(times, 99) * 1000:.1f}",
            f"{max(times) * 1000:.1f}",
            f"{per_second:,.0f}",
        ]
        for clients, times, per_second in (
            (1, alone, len(alone) / sum(alone)),
            (args.clients, together, rate),
        )
    ]
    p50, p99 = percentile(alone, 50), percentile(alone, 99)
    return [
        f"## Text searches over {args.count:,} images, k = {K}",
        table(["at the same time", "searches", "p50, ms", "p99, ms", "longest, ms", "searches a second"], cells),
        f"One client: p50 {p50 * 1000:.1f} ms (goal {P50 * 1000:.0f}: {verdict(p50 < P50)}), p99 {p99 * 1000:.1f} ms "
        f"(goal {P99 * 1000:.0f}: {verdict(p99 < P99)}). {args.clients} clients: {rate:,.0f} searches a second (goal "
        f"{RATE:.0f}: {verdict(rate >= RATE)}). Measured at the client, from the request to the last byte of the "
        "answer, on a connection that is kept.",
    ]


def turn(
    server: Server, ask: Callable[[Connection, int], None], *, clients: int, seconds: float, first: int, least: int = 1
) -> list[float]:
    """Seconds of each request; clients ask one after the other, for so long and at least so often."""
    times: list[list[float]] = [[] for _ in range(clients)]
    wrong: list[BaseException] = []
    until = time.perf_counter() + seconds

    def work(number: int) -> None:
        try:
            with connected(server) as connection:
                for step in itertools.count():
                    started = time.perf_counter()
                    if step >= least and started > until:
                        return
                    ask(connection, first + number + step * clients)
                    times[number].append(time.perf_counter() - started)
        except BaseException as error:  # noqa: BLE001 - told to whoever waits
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]
    return [one for some in times for one in some]


# --- memory -------------------------------------------------------------------------------------------------------


def memory(server: Server, args: Any) -> list[str]:
    """Mixed requests by several clients, and how much memory the server has resident meanwhile."""
    with connected(server) as connection:
        ids = [hit["id"] for hit in connection.get("/images?k=100&sort=name")["hits"]]
    asks: list[tuple[float, Callable[[Connection, int], None]]] = [
        (0.6, search),
        (0.1, lambda connection, number: connection.get(f"/images?k=60&offset={number % 40 * 50}&sort=name")),
        (0.1, lambda connection, number: connection.get(f"/images/{ids[number % len(ids)]}")),
        (0.1, lambda connection, number: connection.get(f"/images/{ids[number % len(ids)]}/similar?k={K}")),
        (0.1, lambda connection, number: connection.post("/facets", {"filters": {"where": f"id > {number % 50}"}})),
    ]

    def mixed(connection: Connection, number: int) -> None:
        [ask] = random.Random(number).choices([one for _, one in asks], [share for share, _ in asks])
        ask(connection, number)

    samples: list[float] = []
    over = threading.Event()

    def sample() -> None:
        while not over.wait(args.load / 100):
            samples.append(server.resident_mib())

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        times = turn(server, mixed, clients=args.clients, seconds=args.load, first=0)
    finally:
        over.set()
        sampler.join()
    samples.append(server.resident_mib())
    tenth = max(1, len(samples) // 10)
    early, late = statistics.median(samples[tenth : 2 * tenth + 1]), statistics.median(samples[-tenth:])
    return [
        "## Memory under load",
        table(
            ["", "MiB resident"],
            [
                ["after the first tenth", f"{early:,.0f}"],
                ["in the middle", f"{samples[len(samples) // 2]:,.0f}"],
                ["in the last tenth", f"{late:,.0f}"],
                ["most", f"{max(samples):,.0f}"],
            ],
        ),
        f"{len(times):,} requests in {args.load:,.0f} s by {args.clients} clients: searches, lists, details, "
        f"neighbours, facets; {len(times) / BUSY_HOUR:.1f} times what a person asks in an hour, once a second. "
        f"From the first tenth to the last it grows by {late / early - 1:.1%} (goal at most {FLAT - 1:.0%}: "
        f"{verdict(late <= early * FLAT)}).",
    ]


# --- the page -----------------------------------------------------------------------------------------------------


def page(folder: Path, args: Any) -> list[str]:
    """When the first row of pictures is visible, and what is sent before them. Each visit by a browser that remembers
    nothing; thumbnails are made at the first."""
    where = next(filter(None, map(shutil.which, NAMES)), None)
    if where is None or not find_spec("playwright"):
        return ["## The page", "Left out: there is no Chromium here, or no playwright."]
    from pictures import photographs
    from playwright.sync_api import sync_playwright

    photographs(folder / "pictures", args.pictures, 1600, 1200)
    run("index", str(folder / "pictures"), "-c", str(folder / "album"), "--model", args.model)
    found: list[tuple[float, float]] = []
    with serve(folder / "album") as server, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=where, args=["--no-sandbox", "--disable-dev-shm-usage"])
        for _ in range(args.visits + 1):
            context = browser.new_context(viewport={"width": 1280, "height": 800})
            visited = context.new_page()
            visited.add_init_script(FIRST_ROW_SHOWN)
            visited.goto(f"http://127.0.0.1:{server.port}/")
            visited.wait_for_function("() => window.firstRow !== undefined")
            found.append((visited.evaluate("() => window.firstRow") / 1000, float(visited.evaluate(PAGE_WEIGHT))))
            context.close()
        browser.close()
    first, *later = (seconds for seconds, _ in found)
    weight = max(weight for _, weight in found)
    median = statistics.median(later)
    return [
        "## The page",
        table(
            ["first row of pictures visible after, ms", "least", "median", "greatest"],
            [
                ["the first visit, thumbnails made for it", *[f"{first * 1000:.0f}"] * 3],
                [f"{len(later)} visits after it", *spread(later, 1000)],
            ],
        ),
        f"{args.pictures:,} photographs of 1600 x 1200 pixels; 1280 x 800 window, nothing in the browser's cache. "
        f"Median {median * 1000:.0f} ms (goal {FIRST_ROW * 1000:.0f}: {verdict(median < FIRST_ROW)}). Before pictures "
        f"the page weighs {weight / 1000:,.0f} kB as sent, its first answers included (goal {WEIGHT / 1000:.0f}: "
        f"{verdict(weight < WEIGHT)}).",
    ]


def verdict(met: bool) -> str:
    return "met" if met else "missed"


# --- collection, server, client -----------------------------------------------------------------------------------


def make_vectors(collection: Path, count: int, model: str) -> None:
    """A collection of images known by their vectors alone, in the space of the model; by a process of its own, so that
    the clients here stay small."""
    program = (
        "import sys, numpy as np; from mmsearch import Engine; from mmsearch.encoders.registry import load_encoder\n"
        "folder, count, encoder = sys.argv[1], int(sys.argv[2]), load_encoder(sys.argv[3])\n"
        "rng, dimension = np.random.default_rng(1), encoder.space.dimension\n"
        "with Engine.open(folder, model=encoder) as engine:\n"
        "    for first in range(0, count, 10_000):\n"
        "        keys = [f'picture {number}.jpg' for number in range(first, min(first + 10_000, count))]\n"
        "        rows = rng.standard_normal((len(keys), dimension), np.float32)\n"
        "        engine.add_vectors(keys, rows * np.arange(1, dimension + 1, dtype=np.float32) ** -0.5)\n"
        "    engine.index()\n"
    )
    subprocess.run([sys.executable, "-c", program, f"{collection}/", str(count), model], check=True)


def run(*arguments: str) -> None:
    subprocess.run(command(*arguments), check=True, stdout=subprocess.DEVNULL)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "import sys; from mmsearch.cli.main import main; sys.exit(main())", *arguments]


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs in a process of its own."""

    port: int
    process: int

    def resident_mib(self) -> float:
        try:
            lines = Path(f"/proc/{self.process}/status").read_text().splitlines()
            return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
        except OSError:  # macOS
            command = ["ps", "-o", "rss=", "-p", str(self.process)]
            return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 1024


@contextmanager
def serve(collection: Path) -> Iterator[Server]:
    """`mmsearch serve` on a free port of 127.0.0.1, without a limit of requests a second."""
    options = ("serve", "-c", str(collection), "--port", "0", "--rate", "0")
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command(*options), stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
            if found is None:
                process.wait()
                log.seek(0)
                raise SystemExit(f"the server did not start: {log.read()[-1000:]}")
            server = Server(int(found[1]), process.pid)
            wait_until_ready(server)
            yield server
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            with connected(server) as connection:
                connection.get("/ready")
                return
        except (OSError, RuntimeError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


class Connection:
    """One kept connection; answers are read whole and understood."""

    def __init__(self, server: Server) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

    def get(self, path: str) -> Any:
        return self._answer("GET", path, None)

    def post(self, path: str, body: object) -> Any:
        return self._answer("POST", path, json.dumps(body))

    def close(self) -> None:
        self._http.close()

    def _answer(self, method: str, path: str, body: str | None) -> Any:
        headers = {} if body is None else {"Content-Type": "application/json"}
        self._http.request(method, f"/api/v1{path}", body, headers)
        answer = self._http.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:300]!r}")
        return json.loads(content)


@contextmanager
def connected(server: Server) -> Iterator[Connection]:
    connection = Connection(server)
    try:
        yield connection
    finally:
        connection.close()


def search(connection: Connection, number: int) -> None:
    found = connection.post("/search", {"terms": [{"text": TEXTS[number * 7 % len(TEXTS)]}], "k": K})
    assert len(found["hits"]) == K


if __name__ == "__main__":
    main()
