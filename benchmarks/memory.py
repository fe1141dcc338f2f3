"""How much memory an index run takes at its peak, and whether that grows with the number of pictures.

The goal: under 1 GB, and flat from 1,000 to 100,000 pictures. Each run is a process of its own; its peak is the most
it had resident at once, shared libraries and mapped files included.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from common import child, own_peak_mib, parser, table, write_report

GOAL_MIB = 1e9 / 2**20


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 50_000], help="small pictures")
    options.add_argument("--large", type=int, default=200, help="pictures of 12 megapixels, for one more run")
    args = options.parse_args()
    size = (4000, 3000)
    if args.quick:
        args.counts, args.large, size = [20, 60], 2, (800, 600)
    from pictures import photographs, small_pictures

    rows: list[list[str]] = []
    peaks: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "small", Path(folder) / "large"
        photographs(large, args.large, *size)
        runs = [(f"{count:,} of 320 x 240 pixels", small, count) for count in sorted(args.counts)]
        there = 0
        for title, pictures, count in [*runs, (f"{args.large:,} of {size[0]} x {size[1]} pixels", large, args.large)]:
            if pictures == small:
                small_pictures(small, count - there, first=there)
                there = count
            collection = Path(folder) / f"collection-{len(rows)}"
            command = [sys.executable, __file__, "--run", str(pictures), str(collection), args.model]
            found = json.loads(child(command).output)
            assert found["new"] == count, found
            peaks.append(found["peak"])
            cells = (found["before"], found["peak"], found["peak"] - found["before"], found["rate"])
            rows.append([title, *(f"{cell:,.0f}" for cell in cells)])
    write_report(
        args,
        "Memory of an index run",
        [
            table(["pictures", "MiB before", "MiB at the peak", "more", "pictures a second"], rows),
            f"Before: after the encoder's first picture. Highest peak {max(peaks):,.0f} MiB (goal {GOAL_MIB:,.0f}: "
            f"{'met' if max(peaks) < GOAL_MIB else 'missed'}). From {min(args.counts):,} to {max(args.counts):,} small "
            f"pictures it grows by {peaks[-2] - peaks[0]:,.0f} MiB; the vectors of the largest run, which a "
            "generation maps, and its list of files are part of that.",
        ],
        ["numpy", "pillow", "onnxruntime", "faiss-cpu", "sqlalchemy"],
    )


def run(pictures: Path, collection: Path, model: str) -> dict[str, float]:
    """Index in this process; MiB before and at the peak."""
    from PIL import Image

    from mmsearch import Engine
    from mmsearch.encoders.registry import load_encoder

    encoder = load_encoder(model)
    encoder.encode_images([encoder.prepare(Image.new("RGB", (640, 480)))])
    before = own_peak_mib()
    with Engine.open(collection, model=encoder) as engine:
        report = engine.index(pictures)
    return {"before": before, "peak": own_peak_mib(), "new": report.new, "rate": report.images_per_second}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        print(json.dumps(run(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])))
    else:
        main()
