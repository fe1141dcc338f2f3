"""Texts that people type -> FTS5 expressions. Pure. Every word is quoted: nothing a person types is an operator.

A word that the index would split (`IMG_1234`, `sea-side`) becomes a phrase; a text in double quotes is one, too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmsearch.errors import UsageError

# English words that say nothing about a picture; left out where others remain.
STOP_WORDS = frozenset(
    (
        *("a", "an", "and", "are", "at", "be", "by", "for", "from", "has", "he", "her", "his", "i", "in", "is", "it"),
        *("its", "me", "my", "near", "of", "on", "or", "our", "she", "that", "the", "their", "them", "there", "they"),
        *("this", "to", "under", "was", "we", "were", "which", "who", "with", "you", "your"),
    )
)

_PIECE = re.compile(r'"([^"]*)"?|(\S+)')


def phrases(text: str) -> list[str]:
    """The words and quoted phrases of a text that hold a letter or digit; without stop words, unless all are."""
    pieces = [phrase or word for phrase, word in _PIECE.findall(text)]
    said = [piece for piece in pieces if any(sign.isalnum() for sign in piece)]
    return [piece for piece in said if piece.lower().strip(".,;:!?") not in STOP_WORDS] or said


def expression(wanted: Sequence[str], unwanted: Sequence[str] = (), *, every: bool) -> str:
    """An FTS5 expression for texts. every: whether all their words must be there, or any. UsageError without words."""
    found = list(dict.fromkeys(phrase for text in wanted for phrase in phrases(text)))
    if not found:
        raise UsageError(f"{' '.join(wanted)!r} has no word to look for.")
    joined = (" AND " if every else " OR ").join(map(_quoted, found))
    out = list(dict.fromkeys(phrase for text in unwanted for phrase in phrases(text)))
    return f"({joined}) NOT ({' OR '.join(map(_quoted, out))})" if out else joined


def _quoted(phrase: str) -> str:
    text = phrase.encode("utf-8", "replace").decode()  # half a character, as in a name that is no UTF-8, is no word
    return '"' + text.replace("\0", " ").replace('"', '""') + '"'
