"""Pseudo-terminals for tests: they answer as kitty, as one that draws sixels, or as a plain one does."""

from __future__ import annotations

import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
import unicodedata
from collections.abc import Callable, Sequence
from fcntl import ioctl
from pathlib import Path

PATIENCE_SECONDS = 60
ASKS_WHAT_IT_IS = b"\x1b[c"
ASKS_FOR_KITTY = re.compile(rb"\x1b_G[^;]*a=q[^;]*;AAAA\x1b\\")

Answer = Callable[[bytes], bytes | None]


def plain_terminal(written: bytes) -> bytes | None:
    """A terminal that knows colours: VT100 with advanced video."""
    return b"\x1b[?1;2c" if ASKS_WHAT_IT_IS in written else None


def sixel_terminal(written: bytes) -> bytes | None:
    return b"\x1b[?62;4;22c" if ASKS_WHAT_IT_IS in written else None


def kitty(written: bytes) -> bytes | None:
    said = b""
    if asked := ASKS_FOR_KITTY.search(written):
        number = re.search(rb"i=(\d+)", asked[0])
        assert number
        said += b"\x1b_Gi=" + number[1] + b";OK\x1b\\"
    if ASKS_WHAT_IT_IS in written:
        said += b"\x1b[?62;22c"
    return said or None


def silent(written: bytes) -> bytes | None:
    """A terminal that never answers."""
    return None


def at_terminal(
    command: Sequence[str | Path],
    answer: Answer,
    *,
    size: tuple[int, int] = (40, 80),
    cell: tuple[int, int] = (0, 0),
    folder: Path | None = None,
    environment: dict[str, str] | None = None,
) -> tuple[int, bytes]:
    """Run it on a terminal of that many rows and columns -> exit code, everything it wrote. cell: width and height in
    pixels, 0 where the terminal does not say."""
    parent, child = pty.openpty()
    ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", *size, size[1] * cell[0], size[0] * cell[1]))
    usual = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        command,
        env=os.environ | usual | (environment or {}),
        cwd=folder,
        stdin=child,
        stdout=child,
        stderr=child,
    )
    os.close(child)
    written, seen = b"", 0
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
        if (said := answer(written[seen:])) is not None:
            os.write(parent, said)
            seen = len(written)
    os.close(parent)
    return process.wait(PATIENCE_SECONDS), written.replace(b"\r\n", b"\n")


def text_of(written: bytes) -> str:
    """What a person reads, without pictures, colours, links and cursor movements."""
    without = re.sub(rb"\x1bP.*?\x1b\\|\x1b_G.*?\x1b\\", b"", written, flags=re.DOTALL)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\]8;[^\x1b]*\x1b\\|\x1b[78]", "", without.decode())
    return "".join(one for one in text if one not in "▀\U0010eeee" and not unicodedata.combining(one))
