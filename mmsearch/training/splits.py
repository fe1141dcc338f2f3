"""Which pictures are trained on and which are held out.

In: one or several sets. Out: the sides of each. A picture's side is decided by a hash of its content and the seed, so
that neither the order nor the number of the other pictures matters; copies of a picture (equal names but for what
copying programs append) stay together. Sides that a set brings along in dev.txt and test.txt are kept. train.txt only
says what is on neither: where one of the two is missing, that side is taken from what train.txt names, too.

Dividing captions instead, as parts of the literature do, leaves every picture on both sides: what is then measured is
also what was learnt by heart (`by_caption`).

Pictures about which nothing is said cannot be measured on: all of them may be pre-trained on, but for copies of what is
held out.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from mmsearch.errors import UsageError
from mmsearch.training.examples import Supervised
from mmsearch.training.picture import Picture

LEAST_HELD_OUT = 20  # pictures, or a quarter of a small set: R@10 among fewer says nothing
MOST_COPIES = 8
_HELD_OUT = ("dev", "test")
ONE_SET = "caption_split divides one set; name one --data."
CAPTIONS_HELD_OUT = 0.2  # the share of the literature's caption-level split


@dataclass(frozen=True, slots=True)
class Sides:
    """train: learned from. dev: watched while training, and chosen by. test: measured once, at the end; may be empty.
    silent: pre-trained on. notices: lines worth showing."""

    train: tuple[Picture, ...]
    dev: tuple[Picture, ...]
    test: tuple[Picture, ...]
    notices: tuple[str, ...] = ()
    silent: tuple[Picture, ...] = ()


def by_picture(
    sets: Sequence[Supervised], *, dev: float = 0.1, test: float = 0.1, seed: int = 0, measured: bool = True
) -> list[Sides]:
    """The sides of each set; what is held out in one set is trained on in none. dev, test: shares, 0 to 0.5.
    measured: whether something must be held out.

    Where a set brings a dev.txt or test.txt, that side is its own; what it does not name is divided.
    Raises UsageError for shares that leave nothing, and for a set of which nothing is left to train on.
    """
    if not (0 <= dev <= 0.5 and 0 <= test <= 0.5 and dev + test <= 0.5):
        raise UsageError(f"The shares held out, {dev:g} and {test:g}, must be from 0 to 0.5, and together at most 0.5.")
    divided = [_divide(one.pictures, dev, test, seed) for one in sets]
    tested = {picture.content for sides in divided for picture in sides.test}
    held = tested | {picture.content for sides in divided for picture in sides.dev}
    held |= {picture.content for one in sets for picture in one.silent if picture.split in _HELD_OUT}
    copies = held.union(*(_copies(one, held) for one in sets))
    spoken_of = {picture.content for one in sets for picture in one.pictures}
    made = []
    for one, sides in zip(sets, divided, strict=True):
        train = tuple(picture for picture in sides.train if picture.content not in held)
        watched = tuple(picture for picture in sides.dev if picture.content not in tested)
        silent = _each_once(one.silent, copies | spoken_of)
        notices = []
        if lost := len(sides.train) - len(train):
            notices.append(f"{lost:,} pictures of {one.about} are held out in another set, and not trained on.")
        if lost := len({picture.content for picture in one.silent if picture.split not in _HELD_OUT} & copies):
            about = f"{one.about[:1].upper()}{one.about[1:]}"
            notices.append(f"{about}: {lost:,} without a text are copies of held-out pictures, and not trained on.")
        enough = train and (watched or not dev) if one.pictures and measured else train or silent
        if not enough:
            count = len({picture.content for picture in (*one.pictures, *one.silent)})
            raise UsageError(
                f"The {count:,} pictures of {one.about} cannot be divided: "
                f"{len(train) + len(silent):,} are left to train on, {len(watched):,} to choose by, "
                f"{len(sides.test):,} to measure on; add pictures, or name others in dev.txt and test.txt."
            )
        made.append(Sides(train, watched, sides.test, tuple(notices), silent))
    return made


def by_caption(whole: Supervised, *, seed: int = 0) -> Sides:
    """A fifth of the captions held out, by a hash of each with its picture; pictures lie on both sides."""
    train: list[Picture] = []
    dev: list[Picture] = []
    for picture in whole.pictures:
        held = [_place(seed, picture.content, text) < CAPTIONS_HELD_OUT for text in picture.captions]
        parts = [
            tuple(t for t, out in zip(picture.captions, held, strict=True) if out is side) for side in (False, True)
        ]
        train += [replace(picture, captions=parts[0])] if parts[0] else []
        dev += [replace(picture, captions=parts[1])] if parts[1] else []
    if not train or not dev:
        raise UsageError(f"{whole.about[:1].upper()}{whole.about[1:]} cannot be divided by caption: too few captions.")
    seen = len({picture.content for picture in train} & {picture.content for picture in dev})
    warning = (
        f"Captions are divided, not pictures: {seen:,} of {len(dev):,} held-out pictures are trained on with other "
        "captions, so the figures are better than those of new pictures would be."
    )
    copies = _copies(whole, {picture.content for picture in dev})
    return Sides(tuple(train), tuple(dev), (), (warning,), _each_once(whole.silent, copies))


def _copies(whole: Supervised, held: Collection[str]) -> set[str]:
    """Contents of a set that are held out, or have the name of one that is, but for what makes copies differ."""
    return {
        picture.content
        for family in _families((*whole.pictures, *whole.silent))
        if any(picture.content in held for picture in family)
        for picture in family
    }


def _each_once(pictures: Sequence[Picture], without: Collection[str]) -> tuple[Picture, ...]:
    """without: contents."""
    return tuple({picture.content: picture for picture in pictures if picture.content not in without}.values())


def _divide(pictures: Sequence[Picture], dev: float, test: float, seed: int) -> Sides:
    """dev.txt and test.txt hold as they are, and copies of what they name go along; the rest is divided by hash."""
    named = {picture.split for picture in pictures}
    on: dict[str, set[str]] = {"dev": set(), "test": set()}  # contents
    free: list[tuple[float, list[str]]] = []
    for family in _families(pictures):
        sides = {picture.split for picture in family if picture.split in on}
        if sides:
            careful = "test" if "test" in sides else "dev"
            for picture in family:
                on[picture.split if picture.split in on else careful].add(picture.content)
        else:
            contents = sorted(picture.content for picture in family)
            free.append((_place(seed, contents[0]), contents))
    waiting = deque(sorted(free))
    count = sum(len(contents) for _, contents in free)
    until, spare = 0.0, count // 2  # at least half is trained on
    for side, share in (("dev", dev), ("test", test)):
        if side in named or not share:
            continue
        until += share
        least = min(LEAST_HELD_OUT, count // 4)
        while waiting and (waiting[0][0] < until or len(on[side]) < least) and len(waiting[0][1]) <= spare:
            contents = waiting.popleft()[1]
            on[side].update(contents)
            spare -= len(contents)
    held = on["dev"] | on["test"]
    return Sides(
        tuple(picture for picture in pictures if picture.content not in held),
        tuple(picture for picture in pictures if picture.content in on["dev"]),
        tuple(picture for picture in pictures if picture.content in on["test"]),
    )


def _families(pictures: Sequence[Picture]) -> list[list[Picture]]:
    """Pictures whose names differ only in what programs append to copies. More than MOST_COPIES are a series: whole
    folders are renamed to `holiday (1).jpg`, `holiday (2).jpg`, ..."""
    families: dict[str, list[Picture]] = {}
    for picture in pictures:
        families.setdefault(picture.name, []).append(picture)
    return [
        part
        for family in families.values()
        for part in ([family] if len(family) <= MOST_COPIES else [[one] for one in family])
    ]


def _place(seed: int, *parts: str) -> float:
    """0 to 1, as good as random."""
    text = "\0".join((str(seed), *parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8]) / 2**64


def folds(pictures: Sequence[Picture], count: int, *, seed: int = 0) -> list[list[Picture]]:
    """`count` parts of about the same size, by a hash of the content; copies of a picture lie in one part."""
    families = sorted(_families(pictures), key=lambda family: _place(seed, min(picture.content for picture in family)))
    parts: list[list[Picture]] = [[] for _ in range(count)]
    for family in families:
        min(parts, key=len).extend(family)
    return parts
