"""How long `mmsearch query` takes from a cold shell, beside a process that only imports the libraries it needs.

The goal: under 0.8 s at 100,000 vectors where the bare imports take 0.5 s; at most 1.5 times them.
"Cold" means a new process; the files are in the page cache, as after any earlier query.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from common import Child, alternate, child, parser, spread, table, write_report

TEXT = "a red sports car"
LIBRARIES = ("numpy", "sqlalchemy", "typer", "faiss", "onnxruntime", "tokenizers")
BARE_IMPORTS = "import onnxruntime, faiss, sqlalchemy, tokenizers, typer"
QUERY, IMPORTS, PYTHON = "`mmsearch query`", "bare imports", "Python alone"
GOAL = 1.5


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--vectors", type=int, default=100_000, help="vectors in the collection")
    options.add_argument("--rounds", type=int, default=15, help="processes of each kind")
    args = options.parse_args()
    if args.quick:
        args.vectors, args.rounds = 500, 1
    program = shutil.which("mmsearch", path=str(Path(sys.executable).parent))
    if program is None:
        raise SystemExit("mmsearch is not installed beside this Python; install the project first.")
    with tempfile.TemporaryDirectory() as folder:
        collection = Path(folder) / "collection"
        child([sys.executable, __file__, "--fill", str(collection), args.model, str(args.vectors)])
        commands = {
            QUERY: [program, "query", TEXT, "-c", str(collection)],
            IMPORTS: [sys.executable, "-c", BARE_IMPORTS],
            PYTHON: [sys.executable, "-c", "pass"],
        }
        runs: dict[str, list[Child]] = {name: [] for name in commands}

        def contestant(name: str) -> Callable[[], float]:
            def run() -> float:
                runs[name].append(child(commands[name]))
                return runs[name][-1].seconds

            return run

        for command in commands.values():  # byte code and page cache
            child(command)
        seconds = alternate({name: contestant(name) for name in commands}, args.rounds)
        steps = [
            json.loads(child([sys.executable, __file__, "--steps", str(collection), args.model]).output)
            for _ in range(args.rounds)
        ]
    ratios = [query / bare for query, bare in zip(seconds[QUERY], seconds[IMPORTS], strict=True)]
    rows = [
        [name, *spread(seconds[name], 1000), f"{statistics.median(run.cpu_seconds for run in runs[name]) * 1000:,.0f}"]
        for name in commands
    ]
    verdict = "met" if statistics.median(ratios) <= GOAL else "missed"
    write_report(
        args,
        f"A cold query over {args.vectors:,} vectors",
        [
            f"{args.rounds} processes of each kind, in turns. Milliseconds.",
            table(["process", "least", "median", "greatest", "processor time, median"], rows),
            f"The query takes {statistics.median(ratios):.2f} times the bare imports (median of the rounds' ratios; "
            f"goal {GOAL}: {verdict}).",
            "## What it is spent on",
            f"The same work step by step in one thread, in {args.rounds} other processes. In the command the "
            "checksums of the index are compared on a second thread while the model loads, so that the sum here is "
            "more than the command takes.",
            table(
                ["step", "least", "median", "greatest"],
                [[name, *spread([step[name] for step in steps], 1000, 1)] for name in steps[0]],
            ),
        ],
        ["numpy", "faiss-cpu", "onnxruntime", "sqlalchemy", "tokenizers", "typer"],
    )


def fill(folder: Path, model: str, count: int) -> None:
    """A collection of random vectors, with its vector index built."""
    import numpy as np

    from mmsearch import Engine
    from mmsearch.encoders.registry import load_encoder

    encoder = load_encoder(model)
    rows = np.random.default_rng(0).standard_normal((count, encoder.space.dimension), np.float32)
    with Engine.open(folder, model=encoder) as engine:
        engine.add_vectors([f"photo/{number:07}" for number in range(count)], rows)
        engine.index()


def steps(folder: Path, model: str) -> dict[str, float]:
    """Step -> seconds, in the order a query takes them."""
    import importlib

    found: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        found[name] = time.perf_counter() - started

    for library in LIBRARIES:
        with timed(f"import {library}"):
            importlib.import_module(library)
    with timed("import of our own modules, and what else they need"):
        importlib.import_module("mmsearch.cli.app")
        from mmsearch import Engine, Term
        from mmsearch.encoders.registry import load_encoder
    with timed("open the collection"):
        engine = Engine.open(folder, create=False)
    with timed("load the text tower"):
        encoder = load_encoder(model)
        vector = encoder.encode_texts([TEXT])[0]
    with timed("encode the text, again"):
        encoder.encode_texts([TEXT])
    with timed("first search: open and check the index, scan, SQL"):
        engine.search(Term(vector=vector))
    with timed("the same search again: scan and SQL"):
        engine.search(Term(vector=vector))
    with timed("close"):
        engine.close()
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fill"]:
        fill(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    elif sys.argv[1:2] == ["--steps"]:
        print(json.dumps(steps(Path(sys.argv[2]), sys.argv[3])))
    else:
        main()
