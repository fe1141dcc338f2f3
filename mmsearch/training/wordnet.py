"""WordNet's nouns, as a classifier of ImageNet's 1,000 classes sees them.

In: the Debian package wordnet-base (WordNet 3.0: Fellbaum 1998), and where in it the classes are: ImageNet's classes
are its nouns. Out: `Noun`s, with the classes that are kinds of each ("fruit": fig, lemon, ...) or, where no class is,
the nearest relatives among the classes (a gerenuk's are three other antelopes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mmsearch.errors import UsageError

WORDNET = Path("/usr/share/wordnet")

# WordNet's own files of nouns: animals, artefacts, body, food, objects, people, plants. Things can be seen.
_SEEN = frozenset({5, 6, 8, 13, 17, 18, 20})
# Of these, a thing that ImageNet lacks looks like its relatives there; people and plants, of which it has few, do not.
_RELATED = frozenset({5, 6, 13})
MOST_KINDS = 400  # a noun with more kinds says nothing about how it looks ("artefact")
MOST_RELATIVES = 30
USUAL = 3  # a name stands for one of its first meanings, which are the most frequent ones


@dataclass(frozen=True, slots=True)
class Noun:
    """names: of which this is the usual meaning among things that can be seen. classes: indices. kinds: whether the
    classes are kinds of it, else they are its relatives."""

    offset: int
    names: tuple[str, ...]
    definition: str
    classes: tuple[int, ...]
    kinds: bool


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of WordNet's data. above: offsets of what it is a kind of."""

    file: int
    names: tuple[str, ...]
    above: tuple[int, ...]
    definition: str


def nouns(classes: Sequence[int]) -> list[Noun]:
    """classes: the offset of each class. Raises UsageError where the Debian package is missing."""
    if not (WORDNET / "data.noun").is_file():
        raise UsageError(
            f"Training needs the Debian package wordnet-base ({WORDNET} is empty): apt-get install wordnet-base"
        )
    entries, meanings = _entries(), _meanings()

    @cache
    def upwards(offset: int) -> frozenset[int]:
        return frozenset({offset}).union(*(upwards(one) for one in entries[offset].above))

    kinds: dict[int, set[int]] = {}
    for number, offset in enumerate(classes):
        for one in upwards(offset):
            kinds.setdefault(one, set()).add(number)

    found = []
    for offset, entry in entries.items():
        own = kinds.get(offset)
        related = own or (_relatives(offset, entries, kinds) if entry.file in _RELATED else None)
        names = tuple(name for name in entry.names if _is_usual(meanings.get(name, [offset]), offset, entries))
        if related and names and len(related) <= (MOST_KINDS if own else MOST_RELATIVES):
            found.append(Noun(offset, names, entry.definition, tuple(sorted(related)), own is not None))
    return found


def _relatives(offset: int, entries: dict[int, _Entry], kinds: dict[int, set[int]]) -> set[int] | None:
    """The classes below the nearest thing above that has some: the fewest, where there are several such things."""
    layer = entries[offset].above
    while layer:
        near = [kinds[one] for one in layer if one in kinds]
        if near:
            visible = [kinds[one] for one in layer if one in kinds and entries[one].file in _RELATED]
            return min(visible, key=len, default=None)
        layer = tuple(one for below in layer for one in entries[below].above)
    return None


def _is_usual(meanings: list[int], offset: int, entries: dict[int, _Entry]) -> bool:
    seen = [one for one in meanings if entries[one].file in _SEEN]
    return seen[:1] == [offset] and meanings.index(offset) < USUAL


def _entries() -> dict[int, _Entry]:
    """By offset. A line: offset, file, "n", how many names (hexadecimal), name and number of each, how many pointers,
    sign, offset, part of speech and numbers of each, a bar, the definition and examples."""
    entries = {}
    for line in _lines("data.noun"):
        facts, _, gloss = line.partition(" | ")
        words = facts.split(" ")
        count = int(words[3], 16)
        pointers = words[5 + 2 * count :]
        above = [
            int(pointers[i + 1]) for i in range(0, len(pointers) - 3, 4)
            if pointers[i] in ("@", "@i") and pointers[i + 2] == "n"
        ]  # fmt: skip
        names = tuple(word.replace("_", " ") for word in words[4 : 4 + 2 * count : 2] if word[:1].islower())
        entries[int(words[0])] = _Entry(int(words[1]), names, tuple(above), gloss.split(";")[0].strip())
    return entries


def _meanings() -> dict[str, list[int]]:
    """Offsets of each name's meanings, the most frequent first."""
    meanings = {}
    for line in _lines("index.noun"):
        words = line.split()
        meanings[words[0].replace("_", " ")] = [int(word) for word in words[-int(words[2]) :]]
    return meanings


def _lines(file: str) -> list[str]:
    """Without the licence at the top, whose lines begin with two spaces."""
    return [line for line in (WORDNET / file).read_text("utf-8").splitlines() if not line.startswith("  ")]
