"""Which picture shows what was asked for, as far as its captions say: labelled pairs without a labeller.

In: pictures with several captions each. Out: `Asked`: a query as people type it (a word, a phrase, a sentence), and for
each picture whether it is right, wrong, or left open. Captions say what they mention, and never everything that can be
seen; so a picture is only wrong where nothing near to what was asked for is mentioned (things.txt says what is near).
Of the pictures that look most like a query, one in two that are left open are right, and hardly one in ten of the wrong
ones (looked through: 36 of each, Flickr8k dev).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RIGHT, WRONG, OPEN = 1, 0, -1
SURE = 3  # captions of one picture that must mention a thing before it counts as there at all


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


QUALITIES = _set(
    "black white brown red blue yellow green pink orange purple small big large little young old wet wooden striped"
)
ACTIONS = _set(
    """jumping running climbing sleeping eating kissing smiling singing fishing skating wrestling swimming dancing
    surfing skiing sitting standing playing walking riding"""
)
# Forms of things that name no thing by themselves.
_NO_THINGS = _set("grassy snowy rocky sandy run runs jump jumps climb climbs swim swims sleep eat eats race")
_BETWEEN = _set("on in with wearing near through over")
_EMPTY = _set(
    """a an the of in on at with and is are to from into over under by for his her its their two three some it as up
    down out through while against near next top front behind around off other another one who that there has have be
    being very"""
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A query. kind: word, phrase, sentence, absent. labels: (n,) of RIGHT, WRONG, OPEN, one a picture. there: (n,)
    bool, the pictures that show it beyond doubt."""

    text: str
    kind: str
    labels: NDArray[np.int8]
    there: NDArray[np.bool_]


def read_things() -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    """word -> (its forms, what leaves it open)."""
    things = {}
    for line in Path(__file__).with_name("things.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            own, _, near = line.partition("|")
            forms = own.split()
            things[forms[0]] = frozenset(forms), frozenset(near.split())
    return things


def words_of(text: str) -> list[str]:
    """The words that say something, each once, in order."""
    return [word for word in dict.fromkeys(re.findall(r"[a-z]+", text.lower())) if word not in _EMPTY]


class Mentions:
    """What the captions of n pictures mention. captions: the sentences of each picture."""

    def __init__(self, captions: Sequence[Sequence[str]]) -> None:
        self.captions = captions
        self.things = read_things()
        self.nouns = frozenset(form for own, _ in self.things.values() for form in own)
        self._by_caption = [[frozenset(re.findall(r"[a-z]+", text.lower())) for text in texts] for texts in captions]
        self._pictures: dict[str, set[int]] = {}  # word -> pictures with a caption that has it
        for picture, sets in enumerate(self._by_caption):
            for word in frozenset().union(*sets):
                self._pictures.setdefault(word, set()).add(picture)

    def __len__(self) -> int:
        return len(self.captions)

    def words(self) -> list[Asked]:
        """Every thing that at least SURE captions of some picture mention."""
        asked = [self._asked(word, "word", [own], [own | near]) for word, (own, near) in self.things.items()]
        return [one for one in asked if one.there.any()]

    def phrases(self, most: int, seed: int = 0) -> list[Asked]:
        """Quality and thing (`a red shirt`), thing and action, two things and what is between them, as captions have
        them; each is beyond doubt in some picture."""
        found = {phrase for texts in self.captions for text in texts for phrase in self._phrases_in(text)}
        shuffled = sorted(found)
        random.Random(seed).shuffle(shuffled)
        asked: dict[tuple[str, ...], Asked] = {}
        for text in shuffled:
            words = words_of(text)
            one = self._asked(text, "phrase", *self._wanted(words))
            if one.there.any():
                asked.setdefault(tuple(sorted(words)), one)
            if len(asked) == most:
                break
        return list(asked.values())

    def sentences(self, most: int, seed: int = 0) -> list[Asked]:
        """One caption of each of so many pictures. Right: its own picture, and others with all of its things and
        qualities; wrong: most of its things are not mentioned."""
        chance = random.Random(seed)
        asked = []
        for picture in chance.sample(range(len(self)), len(self)):
            text = chance.choice(self.captions[picture])
            words = [word for word in words_of(text) if word in self.nouns or word in QUALITIES]
            if len(words) < 2 or not self._things_in(words):
                continue
            one = self._asked(text.strip(" ."), "sentence", *self._wanted(words), share_open=0.6)
            one.labels[picture], one.there[picture] = RIGHT, True
            asked.append(one)
            if len(asked) == most:
                break
        return asked

    def absent(self, texts: Iterable[str]) -> list[Asked]:
        """Of these texts, those of which no picture has all words, in whatever caption and however near."""
        found = []
        for text in texts:
            one = self._asked(text, "absent", *self._wanted(words_of(text)))
            if not (one.labels != WRONG).any():
                found.append(one)
        return found

    def shown(self, least: int) -> NDArray[np.bool_]:
        """(n, things): mentioned by at least so many captions of the picture."""
        rows = np.zeros((len(self), len(self.things)), bool)
        for column, (own, _) in enumerate(self.things.values()):
            for picture in self._having(own):
                rows[picture, column] = sum(bool(own & one) for one in self._by_caption[picture]) >= least
        return rows

    def near(self) -> NDArray[np.bool_]:
        """(n, things): mentioned, or something near to it."""
        rows = np.zeros((len(self), len(self.things)), bool)
        for column, (own, near) in enumerate(self.things.values()):
            rows[list(self._having(own | near)), column] = True
        return rows

    # --- one query ------------------------------------------------------------------------------------------------

    def _asked(
        self,
        text: str,
        kind: str,
        exact: Sequence[frozenset[str]],
        near: Sequence[frozenset[str]],
        *,
        share_open: float = 1.0,
    ) -> Asked:
        """exact: for each word its forms; a picture is right where one caption has all of them. near: for each thing
        what leaves it open; open where this share of them is mentioned."""
        labels = np.zeros(len(self), np.int8)
        there = np.zeros(len(self), bool)
        hinted = np.zeros(len(self))
        for forms in near:
            hinted[list(self._having(forms))] += 1
        labels[hinted >= share_open * len(near) - 1e-9] = OPEN
        for picture in set.intersection(*(self._having(forms) for forms in exact)):
            mentioned = sum(all(forms & one for forms in exact) for one in self._by_caption[picture])
            if mentioned:
                labels[picture], there[picture] = RIGHT, mentioned >= SURE
        if kind == "sentence":  # no second caption says exactly the same: what all of them together say counts
            labels[list(set.intersection(*(self._having(forms) for forms in exact)))] = RIGHT
        return Asked(text, kind, labels, there)

    def _wanted(self, words: Sequence[str]) -> tuple[list[frozenset[str]], list[frozenset[str]]]:
        """-> forms of each word; for each thing among them (each word where there is none) what leaves it open."""
        things = self._things_in(words) or words
        return [self._forms(word) for word in words], [self._near(word) for word in things]

    def _things_in(self, words: Sequence[str]) -> list[str]:
        return [word for word in words if word in self.nouns and word not in ACTIONS and word not in QUALITIES]

    def _forms(self, word: str) -> frozenset[str]:
        own = self.things[word][0] if word in self.things else frozenset()
        return own | {word, f"{word}s", f"{word}es", word.removesuffix("s")}

    def _near(self, word: str) -> frozenset[str]:
        wide = [own | near for own, near in self.things.values() if word in own]
        return self._forms(word).union(*wide)

    def _having(self, words: Iterable[str]) -> set[int]:
        return set().union(*(self._pictures.get(word, ()) for word in words))

    def _phrases_in(self, text: str) -> list[str]:
        words = re.findall(r"[a-z]+", text.lower())
        things = [word in self.nouns and word not in ACTIONS | QUALITIES | _NO_THINGS for word in words]
        ends = [thing and not after for thing, after in zip(things, [*things[1:], False], strict=True)]
        found = []
        for i in range(len(words) - 1):
            if (ends[i + 1] and words[i] in QUALITIES) or (things[i] and words[i + 1] in ACTIONS):
                found.append(" ".join(words[i : i + 2]))
            if things[i] and words[i + 1] in _BETWEEN:
                end = i + 3 if words[i + 2 : i + 3] in (["a"], ["the"]) else i + 2
                if end < len(words) and ends[end]:
                    found.append(" ".join(words[i : end + 1]))
        return found
