"""Real processes: signals, pipes, terminals, what is imported, shell completion. Never a traceback."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from fcntl import ioctl
from pathlib import Path

import pytest
from PIL import Image

import mmsearch

PLUGIN = Path(__file__).parent / "plugin"
MAIN = "import sys; from mmsearch.cli.main import main; sys.exit(main())"
PATIENCE_SECONDS = 30


def command(*arguments: str | Path | bytes) -> list[str | Path | bytes]:
    return [sys.executable, "-c", MAIN, *arguments]


def environment_in(folder: Path) -> dict[str, str]:
    """The variables of this process without those that change what is tested; everything is written below `folder`."""
    ours = ("MMSEARCH_", "PYTHON", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    path = [str(Path(mmsearch.__file__).parents[1]), str(PLUGIN)]
    return kept | {
        "PYTHONPATH": os.pathsep.join(path),
        "XDG_DATA_HOME": str(folder / "data"),
        "HOME": str(folder),
        "MMSEARCH_COLLECTION": str(folder / "collection"),
        "TMPDIR": str(folder),
        "OMP_NUM_THREADS": "1",
        "TERM": "xterm-256color",
    }


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return environment_in(tmp_path)


def run(
    arguments: Sequence[str | Path | bytes], environment: dict[str, str], folder: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command(*arguments), env=environment, cwd=folder, capture_output=True, timeout=PATIENCE_SECONDS, check=False
    )


def many_pictures(folder: Path, number: int) -> Path:
    """Small pictures, all different, each with a caption."""
    folder.mkdir()
    for n in range(number):
        Image.new("RGB", (8, 8), (n % 256, n // 256, 99)).save(folder / f"{n:04}.png")
        (folder / f"{n:04}.txt").write_text(f"number {n}")
    return folder


LONG_NAME = "a long name " * 8 + ".png"


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder that is indexed, and the environment in which its collection is the usual one. Not to be changed."""
    base = tmp_path_factory.mktemp("indexed")
    folder = many_pictures(base / "pictures", 8)
    (folder / "0003.png").rename(folder / LONG_NAME)
    assert run(["index", folder, "--model", "colour"], environment_in(base)).returncode == 0
    return folder, environment_in(base)


# --- signals ------------------------------------------------------------------------------------------------------


def committed(collection: Path) -> int:
    """How many vectors a run has committed so far."""
    try:
        with sqlite3.connect(f"file:{collection}/catalog.sqlite?mode=ro", uri=True) as connection:
            return int(connection.execute("select count(*) from vector").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def start_slow_index(tmp_path: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """An index run of some seconds that has committed its first batches."""
    folder = many_pictures(tmp_path / "many", 120)
    process = subprocess.Popen(
        command("index", folder, "--model", "colour", "--json"),
        env={"COLOUR_SECONDS": "0.05"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    while committed(tmp_path / "collection") < 8:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_index_run_keeps_what_it_did(
    number: int, code: int, tmp_path: Path, environment: dict[str, str]
) -> None:
    process = start_slow_index(tmp_path, environment)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == code, err
    assert b"Traceback" not in err
    assert b"mmsearch: stopping after the pictures at hand" in err
    assert b"what was indexed is kept" in err
    new = json.loads(out)["new"]
    status = json.loads(run(["status", "--json"], environment).stdout)
    assert 0 < status["images"] == new < 120
    assert run(["verify"], environment).returncode == 0
    rest = json.loads(run(["index", "--json"], environment).stdout)
    assert (rest["new"], rest["unchanged"]) == (120 - new, new)


def test_a_second_interrupt_ends_at_once(tmp_path: Path, environment: dict[str, str]) -> None:
    process = start_slow_index(tmp_path, environment | {"COLOUR_SECONDS": "0.3"})
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)  # well within the batch at hand
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert err.endswith(b"mmsearch: stopped at once.\n")
    assert run(["verify"], environment).returncode == 0


def test_an_interrupt_while_the_program_starts(environment: dict[str, str]) -> None:
    code = """
import builtins, os, signal, sys
from mmsearch.cli.main import main
real = builtins.__import__
def interrupted(name, *rest):
    if name == "typer":
        os.kill(os.getpid(), signal.SIGINT)
    return real(name, *rest)
builtins.__import__ = interrupted
sys.exit(main(["status"]))
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"mmsearch: stopped.\n")


# --- pipes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["query", "red", "-0"], ["status"]])
def test_a_reader_that_goes_away_is_no_error(arguments: list[str], indexed: tuple[Path, dict[str, str]]) -> None:
    environment = indexed[1]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        command(*arguments),
        env=environment,
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_one_line(indexed: tuple[Path, dict[str, str]]) -> None:
    environment = indexed[1]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command("query", "red", "--json"), env=environment, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 4
    assert done.stderr.startswith(b"mmsearch: No space left on device")
    assert done.stderr.count(b"\n") == 1


def test_an_ascii_terminal_does_not_break_output(tmp_path: Path, environment: dict[str, str]) -> None:
    folder = many_pictures(tmp_path / "caf\u00e9", 1)
    ascii_only = environment | {"PYTHONIOENCODING": "ascii"}
    assert run(["index", folder, "--model", "colour"], ascii_only).returncode == 0
    done = run(["query", "red"], ascii_only)
    assert done.returncode == 0
    assert b"caf?" in done.stdout


@pytest.mark.skipif(sys.platform == "darwin", reason="file names are UTF-8 on macOS")
def test_names_that_are_no_utf8_on_the_command_line(tmp_path: Path, environment: dict[str, str]) -> None:
    folder = many_pictures(tmp_path / "plain", 2).rename(tmp_path / os.fsdecode(b"caf\xe9"))
    raw = os.fsencode(folder)
    assert run([b"index", raw, "--model", "colour"], environment).returncode == 0
    done = run(["query", "red", "--like", raw + b"/0001.png", "-k", "1", "--paths"], environment)
    assert (done.returncode, done.stdout) == (0, raw + b"/0001.png\n")
    assert run([b"query", b"caf\xe9"], environment).returncode in (0, 2)
    missing = run(["index", raw + b"-gone"], environment)
    assert missing.returncode == 2
    assert rb"caf\xe9-gone" in missing.stderr


# --- terminals ----------------------------------------------------------------------------------------------------


def on_terminal(
    arguments: Sequence[str | Path], environment: dict[str, str], columns: int, folder: Path | None = None
) -> tuple[int, str]:
    """Run with stdout and stderr on a terminal of that width -> exit code, everything written."""
    parent, child = pty.openpty()
    ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(command(*arguments), env=environment, cwd=folder, stdout=child, stderr=child)
    os.close(child)
    written = b""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if not select.select([parent], [], [], 0.1)[0]:
            continue
        try:
            piece = os.read(parent, 65536)
        except OSError:  # Linux says so when the other side is closed
            break
        if not piece:
            break
        written += piece
    os.close(parent)
    return process.wait(PATIENCE_SECONDS), written.decode()


def plain(text: str) -> str:
    """Without colours, links and cursor movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\]8;[^\x1b]*\x1b\\", "", text).replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize("columns", [60, 200])
def test_query_on_a_terminal(columns: int, indexed: tuple[Path, dict[str, str]]) -> None:
    folder, environment = indexed
    code, written = on_terminal(["query", "red"], environment, columns, folder)
    assert code == 0
    lines = plain(written).splitlines()
    assert lines[0].split() == ["rank", "score", "id", "file"]
    assert max(map(len, lines)) <= columns
    assert "0007.png" in plain(written)
    assert "".join(LONG_NAME.split()) in "".join(plain(written).split())  # folded, never cut off
    assert f"{(folder / '0007.png').as_uri()}" in written  # a link


def test_words_without_quotes_get_a_hint_on_a_terminal(indexed: tuple[Path, dict[str, str]]) -> None:
    _, environment = indexed
    _, written = on_terminal(["query", "a", "red", "car"], environment, 80)
    assert "answers to 3 texts together; quotes make them one sentence" in plain(written)
    assert run(["query", "a", "red", "car"], environment).stderr == b""


def test_no_color_and_dumb_terminals(indexed: tuple[Path, dict[str, str]]) -> None:
    environment = indexed[1]
    _, written = on_terminal(["query", "red"], environment | {"TERM": "dumb"}, 80)
    assert "\x1b" not in written
    code, written = on_terminal(["index"], environment | {"TERM": "dumb"}, 80)
    assert code == 0
    assert "\x1b" not in written


def test_progress_on_a_terminal_only(tmp_path: Path, environment: dict[str, str]) -> None:
    folder = many_pictures(tmp_path / "many", 40)
    slow = environment | {"COLOUR_SECONDS": "0.05"}
    code, written = on_terminal(["index", folder, "--model", "colour"], slow, 60)
    assert code == 0
    frames = [line for line in plain(written).splitlines() if "/40" in line]
    assert any(re.search(r"pictures .*\d+/40 +\d+/s +\d*:?\d\d:\d\d", line) for line in frames), frames
    assert max(map(len, frames)) <= 60
    last = plain(written).splitlines()[-2:]
    assert last[0].startswith("40 new, 0 unchanged, 40 captions; ")
    assert last[1] == 'Now try: mmsearch query "a red sports car"'
    assert run(["index", folder], environment).stderr == b""


def test_an_error_on_a_terminal_has_no_frame(environment: dict[str, str]) -> None:
    code, written = on_terminal(["query", "--zzz"], environment, 60)
    assert (code, plain(written)) == (2, "mmsearch: No such option: --zzz. Try: mmsearch query --help\n")


# --- what a query costs -------------------------------------------------------------------------------------------


def test_a_query_through_a_pipe_imports_nothing_it_does_not_need(indexed: tuple[Path, dict[str, str]]) -> None:
    environment = indexed[1]
    code = (
        "import sys; from mmsearch.cli.main import main; code = main(['query', 'red'])\n"
        "loaded = {name.split('.')[0] for name in sys.modules} | set(sys.modules)\n"
        "heavy = {'torch', 'open_clip', 'rich', 'alembic', 'transformers', 'sqlalchemy.orm', 'mmsearch.indexing'}\n"
        "print(sorted(heavy & loaded), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"[]\n")


def test_the_shell_completes_commands_and_options(environment: dict[str, str]) -> None:
    def completed(words: str) -> set[str]:
        asking = {"_MMSEARCH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        return set(run([], environment | asking).stdout.decode().split())

    assert completed("mmsearch qu") == {"query"}
    assert completed("mmsearch roots re") == {"remove", "relocate"}
    assert "--captions" in completed("mmsearch index --c")
    assert completed("mmsearch query --find ") == {"images", "captions"}
