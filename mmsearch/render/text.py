"""Words and numbers for people."""

from __future__ import annotations

import re

# Control characters, line separators, direction overrides and the surrogates that stand for bytes that are no UTF-8:
# file names and captions come from strangers and must not move the cursor or fail to print.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""One line that is safe on any terminal: unsafe characters become escapes (`\n`, `\x1b`, `\xff`)."""
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # os.fsdecode's stand-in for the byte 0x80 to 0xff
        return f"\\x{code - 0xDC00:02x}"
    return ascii(match[0])[1:-1]


def count(number: int, one: str, many: str = "") -> str:
    """count(1, "file") -> "1 file"; count(1200, "file") -> "1,200 files"; `many` where an s is not enough."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def file_size(size: int) -> str:
    """file_size(2_345_678) -> "2.3 MB"; file_size(9_688) -> "9.7 kB"."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
