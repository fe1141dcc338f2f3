"""What the benchmarks share: arguments, fair rounds, processes measured from outside, reports. Standard library only,
so that the memory and the start of a process that imports it stay those of what is measured."""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def parser(description: str) -> argparse.ArgumentParser:
    """Arguments that every benchmark takes."""
    made = argparse.ArgumentParser(
        description=description.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    made.add_argument("--model", default="lite", help="name or folder of the encoder")
    made.add_argument("--quick", action="store_true", help="a few seconds, to see that it works; figures mean nothing")
    made.add_argument("--report", type=Path, help="where to write it; else beside the script, with --quick to stdout")
    return made


# --- measuring --------------------------------------------------------------------------------------------------


def alternate(contestants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Let contestants measure themselves in turn, each round beginning with another one, so that what else goes on
    on the machine meets all of them. -> name: one value a round."""
    names = list(contestants)
    values: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for place in range(len(names)):
            name = names[(number + place) % len(names)]
            values[name].append(contestants[name]())
    return values


@dataclass(frozen=True, slots=True)
class Child:
    """A process that has ended: wall time, processor time of all its threads, what it printed."""

    seconds: float
    cpu_seconds: float
    output: str


def child(command: Sequence[str]) -> Child:
    """Run a process to its end. Its byte code may be cached, whatever this process was told."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    if process.returncode:
        raise SystemExit(f"{shlex.join(command[:3])} ... ended with exit code {process.returncode}")
    return Child(seconds, usage.ru_utime + usage.ru_stime, output)


def own_peak_mib() -> float:
    """The most memory this process has had resident so far, in MiB, mapped files included."""
    try:
        # Not getrusage: its figure begins with what the parent had when it started this process.
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest value at or above this share of all."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


# --- reporting --------------------------------------------------------------------------------------------------


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown; the first column to the left, the others to the right."""
    lines = [columns, ["---", *("---:" for _ in columns[1:])], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def spread(values: Sequence[float], unit: float = 1.0, digits: int = 0) -> list[str]:
    """Least, median and greatest, each multiplied by `unit`: three cells of a table."""
    found = (min(values), statistics.median(values), max(values))
    return [f"{value * unit:,.{digits}f}" for value in found]


def write_report(args: argparse.Namespace, title: str, parts: Sequence[str], packages: Sequence[str]) -> None:
    """The report beside the script, or where it was asked for. packages: those whose versions matter."""
    script = Path(sys.argv[0])
    words = [f"benchmarks/{script.name}", *(Path(word).name if os.sep in word else word for word in sys.argv[1:])]
    head = [
        f"# {title}",
        f"`python {shlex.join(words)}` on {datetime.now(UTC):%Y-%m-%d}.",
        machine(),
        ", ".join(f"{name} {_version(name)}" for name in ("mmsearch", *packages)) + ".",
    ]
    if args.quick:
        head.append("**Quick mode: these figures mean nothing.**")
    text = "\n\n".join([*head, *parts]) + "\n"
    if args.report is None and args.quick:
        sys.stdout.write(text)
        return
    path = args.report or script.with_suffix(".md")
    path.write_text(text, "utf-8")
    print(f"wrote {path}", file=sys.stderr)


def machine() -> str:
    """One line: processor, cores, memory, system, Python, and how busy it was; no names."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores of {_processor()}, {memory:.0f} GiB of memory, {platform.system()}, "
        f"Python {platform.python_version()}. Load before: {_LOAD_BEFORE:.1f}."
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


_LOAD_BEFORE = os.getloadavg()[0]
