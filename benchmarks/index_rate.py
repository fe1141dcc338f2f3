"""How fast an index run is, beside the ceiling of the machine: all cores busy with nothing but decoding and encoding.

The goal: at least 85 % of the ceiling. If one picture takes D seconds to decode with all cores at it and E seconds to
encode, each measured alone, no run can do better than 1 / (D + E) pictures a second. Decoding is measured as plain
Pillow calls, not as our own code, so that the ceiling does not hide what our code costs.
"""

from __future__ import annotations

import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common import alternate, parser, spread, table, write_report
from idle import IdleEncoder
from numpy.typing import NDArray
from pictures import photographs
from PIL import Image

from mmsearch import Engine, Limits, files
from mmsearch.encoders.protocol import Encoder
from mmsearch.encoders.registry import load_encoder

GOAL = 0.85
INDEX, WALK, DECODE, ENCODE, REST = "index run", "walk and hash", "decode", "encode", "commit and the rest"
CEILING = "ceiling: decode + encode"

HOW = (
    "Each stage is measured alone: walking and hashing on one core; decoding with plain Pillow calls on all cores; "
    "encoding pictures that were prepared beforehand; committing and the rest as an index run with an encoder that "
    "does nothing, on as many pictures of 8 x 8 pixels."
)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--large", type=int, default=300, help="pictures of 12 megapixels")
    options.add_argument("--small", type=int, default=1500, help="pictures of 0.8 megapixels")
    options.add_argument("--rounds", type=int, default=5, help="how often each is measured, in turns")
    args = options.parse_args()
    sets = [("12 megapixels", args.large, (4000, 3000)), ("0.8 megapixels", args.small, (1024, 768))]
    if args.quick:
        args.rounds, sets = 1, [("0.1 megapixels", 24, (400, 300))]
    encoder = load_encoder(args.model)
    parts: list[str] = []
    for title, count, size in sets:
        with tempfile.TemporaryDirectory() as folder:
            paths = photographs(Path(folder) / "pictures", count, *size)
            parts += report(title, Path(folder), paths, encoder, args.rounds)
    parts.append(HOW)
    packages = ["numpy", "pillow", "onnxruntime", "faiss-cpu", "sqlalchemy"]
    write_report(args, f"Index rate with {Path(encoder.space.name).name}", parts, packages)


def report(title: str, folder: Path, paths: Sequence[Path], encoder: Encoder, rounds: int) -> list[str]:
    """Measure one set of pictures; the parts of the report about it."""
    wall, cpu = measure(folder, paths, encoder, rounds)
    for values in (wall, cpu):
        values[CEILING] = [sum(pair) for pair in zip(values[DECODE], values[ENCODE], strict=True)]
    best = (min(wall[DECODE]) + min(wall[ENCODE])) / min(wall[INDEX])
    least, median, greatest = spread(shares(wall[CEILING], wall[INDEX]), 100)
    by_cpu = statistics.median(shares(cpu[CEILING], cpu[INDEX]))
    return [
        heading(title, paths),
        stages_table(wall, cpu, len(paths)),
        f"The index run reaches **{best:.0%} of the ceiling** (the best round of each; goal {GOAL:.0%}: "
        f"{'met' if best >= GOAL else 'missed'}), {min(wall[ENCODE]) / min(wall[INDEX]):.0%} of encoding alone. Within "
        f"the rounds it is {least} to {greatest} %, median {median} %, and {by_cpu:.0%} by processor time, which other "
        "work on the machine touches least.",
    ]


def measure(
    folder: Path, paths: Sequence[Path], encoder: Encoder, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Index pictures, and do each stage alone, in turns. -> stage: seconds, and seconds of processor, one a round."""
    contents = [path.read_bytes() for path in paths]
    pictures, tiny = paths[0].parents[1], folder / "tiny"
    prepared = decoded(contents, encoder)
    tiny.mkdir()
    for number in range(len(paths)):
        Image.new("RGB", (8, 8), (number % 256, number // 256, 0)).save(tiny / f"{number:06}.png")
    jobs: dict[str, Callable[[], object]] = {
        INDEX: lambda: index(pictures, len(paths), encoder),
        WALK: lambda: hashed(pictures),
        DECODE: lambda: decoded(contents, encoder),
        ENCODE: lambda: encode(prepared, encoder),
        REST: lambda: index(tiny, len(paths), IdleEncoder()),
    }
    cpu: dict[str, list[float]] = {name: [] for name in jobs}

    def contestant(name: str) -> Callable[[], float]:
        def run() -> float:
            started, worked = time.perf_counter(), time.process_time()
            jobs[name]()
            cpu[name].append(time.process_time() - worked)
            return time.perf_counter() - started

        return run

    encode(prepared, encoder)  # the tower is loaded, and has met its batches
    return alternate({name: contestant(name) for name in jobs}, rounds), cpu


def heading(title: str, paths: Sequence[Path]) -> str:
    megabytes = sum(path.stat().st_size for path in paths) / len(paths) / 1e6
    return f"## {len(paths):,} pictures of {title}, {megabytes:.1f} MB each"


def stages_table(wall: Mapping[str, Sequence[float]], cpu: Mapping[str, Sequence[float]], count: int) -> str:
    rows = [
        [
            name,
            *spread([count / value for value in wall[name]], 1, 1),
            *(f"{statistics.median(one[name]) / count * 1000:,.2f}" for one in (wall, cpu)),
        ]
        for name in wall
    ]
    return table(["pictures a second", "least", "median", "greatest", "ms a picture", "ms of processor"], rows)


def shares(part: Sequence[float], whole: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(part, whole, strict=True)]


def hashed(pictures: Path) -> None:
    """Every file below a folder, found and read and hashed as an index run does it."""
    for found in files.walk(pictures, on_unreadable=lambda *_: None):
        files.read(pictures / os.fsdecode(found.relative), Limits().max_megabytes)


def index(pictures: Path, count: int, encoder: Encoder) -> None:
    """An index run into a new collection."""
    with tempfile.TemporaryDirectory() as folder, Engine.open(Path(folder) / "collection", model=encoder) as engine:
        found = engine.index(pictures)
    assert (found.new, found.failed) == (count, 0), found


def encode(prepared: Sequence[NDArray[Any]], encoder: Encoder) -> None:
    for start in range(0, len(prepared), encoder.batch_size):
        encoder.encode_images(prepared[start : start + encoder.batch_size])


def decoded(contents: Sequence[bytes], encoder: Encoder) -> list[NDArray[Any]]:
    """Every picture, from its bytes to what the encoder takes, on all cores, by Pillow's own means."""
    side = encoder.image_size

    def decode(data: bytes) -> NDArray[Any]:
        picture = Image.open(io.BytesIO(data))
        picture.draft("RGB", (2 * side, 2 * side))
        picture.load()
        return encoder.prepare(picture)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(decode, contents))


if __name__ == "__main__":
    main()
