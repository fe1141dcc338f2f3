"""How long an index run takes when nothing has changed.

The goal: 100,000 files in under 5 s, nothing decoded. The first run uses an encoder that does nothing, since encoding
has no part in the second one. Each second run is a process of its own; the files' attributes are in the page cache.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from common import alternate, child, parser, spread, table, write_report

GOAL_SECONDS = 5.0
RUN, PROCESS, LISTING = "`Engine.index`", "the whole process", "`os.walk` and `os.stat` alone"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--counts", type=int, nargs="+", default=[50_000, 100_000], help="files")
    options.add_argument("--rounds", type=int, default=5, help="second runs for each count")
    args = options.parse_args()
    if args.quick:
        args.counts, args.rounds = [50, 100], 1
    from pictures import small_pictures

    parts = []
    there = 0
    with tempfile.TemporaryDirectory() as folder:
        pictures, collection = Path(folder) / "pictures", Path(folder) / "collection"
        for count in args.counts:
            small_pictures(pictures, count - there, first=there, width=48, height=32)
            command = [sys.executable, __file__, "--run", str(pictures), str(collection)]
            first = json.loads(child(command).output)
            assert first["new"] == count - there, first
            there = count
            inside: list[float] = []

            def second(command: list[str] = command, count: int = count, inside: list[float] = inside) -> float:
                ended = child(command)
                found = json.loads(ended.output)
                assert (found["unchanged"], found["new"], found["encoded"]) == (count, 0, 0), found
                inside.append(found["seconds"])
                return ended.seconds

            seconds = alternate({PROCESS: second, LISTING: lambda: listing(pictures)}, args.rounds)
            median = statistics.median(inside)
            rows = [[name, *spread(values, 1, 2)] for name, values in [(RUN, inside), *seconds.items()]]
            allowed = GOAL_SECONDS * count / 100_000
            parts += [
                f"## {count:,} files",
                table(["seconds", "least", "median", "greatest"], rows),
                f"{median / count * 1e6:,.0f} microseconds a file; goal {allowed:g} s: "
                f"{'met' if median < allowed else 'missed'}. The first run took {first['seconds']:,.0f} s, "
                f"{first['seconds'] / first['new'] * 1000:.1f} ms a file with nothing to encode.",
            ]
    write_report(args, "A second run when nothing has changed", parts, ["pillow", "sqlalchemy"])


def listing(folder: Path) -> float:
    """Seconds to learn the size and time of every file, as plainly as can be."""
    started = time.perf_counter()
    for place, _, names in os.walk(folder):
        for name in names:
            os.stat(f"{place}/{name}")
    return time.perf_counter() - started


def run(pictures: Path, collection: Path) -> dict[str, float]:
    """Index in this process."""
    from idle import IdleEncoder

    from mmsearch import Engine

    encoder = IdleEncoder()
    with Engine.open(collection, model=encoder) as engine:
        started = time.perf_counter()
        report = engine.index(pictures)
        seconds = time.perf_counter() - started
    counts = {"new": report.new, "unchanged": report.unchanged, "encoded": encoder.pictures}
    return {"seconds": seconds, **counts}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        print(json.dumps(run(Path(sys.argv[2]), Path(sys.argv[3]))))
    else:
        main()
