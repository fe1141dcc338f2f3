"""What a recipe learns from and is measured on: pictures read, divided, and as rows where a tower is locked.

In: what people wrote after `--data`, a recipe. Out: the sides, sources of images and texts for `Batches` and `HeldOut`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mmsearch.errors import UsageError
from mmsearch.training.cache import FeatureCache
from mmsearch.training.examples import OnProgress
from mmsearch.training.held_out import HeldOut, asked
from mmsearch.training.locked import Locked
from mmsearch.training.mixing import Weighted, read_all
from mmsearch.training.picture import Picture, spoken
from mmsearch.training.pixels import Pixels
from mmsearch.training.recipe import Recipe
from mmsearch.training.rows import Rows
from mmsearch.training.splits import ONE_SET, Sides, by_caption, by_picture
from mmsearch.training.tokens import Tokens
from mmsearch.types import FailedFile


@dataclass(frozen=True, slots=True)
class Divided:
    """train: (weight, pictures) of each set; silent: of each set those about which nothing is said. dev: watched while
    training; test: measured before and after; both of all sets together. about, notices, left_out: for people."""

    train: tuple[tuple[float, tuple[Picture, ...]], ...]
    dev: tuple[Picture, ...]
    test: tuple[Picture, ...]
    about: str
    notices: tuple[str, ...] = ()
    left_out: tuple[FailedFile, ...] = ()
    silent: tuple[tuple[Picture, ...], ...] = ()

    @property
    def pictures(self) -> list[Picture]:
        """All that is trained on and about which something is said."""
        return [picture for _, one in self.train for picture in one]

    def sets(self, recipe: Recipe) -> list[tuple[float, tuple[Picture, ...]]]:
        """What this recipe, or the one that it begins with, trains on: (weight, pictures) of each set that has some."""
        silent = self.silent if recipe.pictures_alone else [()] * len(self.train)
        made = [(weight, (*own, *more)) for (weight, own), more in zip(self.train, silent, strict=True)]
        return [(weight, pictures) for weight, pictures in made if pictures]


def read(data: Sequence[str], recipe: Recipe, on_progress: OnProgress | None) -> Divided:
    """Raises UsageError with all that is wrong with the sets."""
    sets = read_all(data, wanted=recipe.wanted, on_progress=on_progress)
    supervised = [one.supervised for one in sets]
    if not recipe.pictures_alone and not any(one.pictures for one in supervised):
        raise UsageError(
            f"Nothing, or too little, is said about {'; '.join(one.about for one in supervised)}: {recipe.name} learns "
            f"from texts as well. Bring captions or labels along, or choose the recipe {recipe.pretrained}."
        )
    sides = _sides(sets, recipe)
    noticed = [one.notices for one in supervised] + [one.notices for one in sides]
    if silent := len({picture.content for one in sides for picture in one.silent}):
        noticed.append((f"{silent:,} pictures without a text took part in pre-training.",))
    if not (recipe.caption_split or recipe.pictures_alone):  # that has no test side, and a warning of its own
        flattered = [one.about for one, side in zip(supervised, sides, strict=True) if side.dev and not side.test]
        noticed.append(tuple(map(_flattered, flattered)))
    return Divided(
        tuple((one.weight, side.train) for one, side in zip(sets, sides, strict=True)),
        _all(side.dev for side in sides),
        _all(side.test or side.dev for side in sides),
        "; ".join(one.about for one in supervised if one.pictures),
        tuple(line for lines in noticed for line in lines),
        tuple(failed for one in supervised for failed in one.left_out),
        tuple(one.silent for one in sides),
    )


def _sides(sets: Sequence[Weighted], recipe: Recipe) -> list[Sides]:
    if recipe.caption_split:
        if len(sets) > 1:
            raise UsageError(ONE_SET)
        return [by_caption(sets[0].supervised, seed=recipe.seed)]
    half = recipe.held_out / 2
    return by_picture(
        [one.supervised for one in sets], dev=half, test=half, seed=recipe.seed, measured=not recipe.pictures_alone
    )


def _flattered(about: str) -> str:
    return (
        f"{about[:1].upper()}{about[1:]} have no pictures left to measure on; the figures are of those by which the "
        "best step is chosen, and better than those of new pictures would be. Add pictures, or name some in test.txt."
    )


def _all(parts: object) -> tuple[Picture, ...]:
    """Each content once."""
    found = {picture.content: picture for part in parts for picture in part}  # type: ignore[attr-defined]
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class Source:
    """How pictures and texts reach the learner. locked: what gives cached rows; None where both towers are trained.
    cached_images, cached_texts: which of both come from it. side, tokenizer, max_tokens: of the towers that are
    trained. views: whether mirrored pictures are rows, too."""

    cache: FeatureCache
    locked: Locked | None = None
    cached_images: bool = False
    cached_texts: bool = False
    side: int = 0
    tokenizer: str = ""
    max_tokens: int = 0
    views: bool = False
    on_progress: OnProgress | None = field(default=None, compare=False)

    @property
    def both(self) -> bool:
        """Whether there are pictures and texts: what trains one tower alone cannot be asked anything."""
        return bool(self.cached_images or self.side) and bool(self.cached_texts or self.tokenizer)

    def train_images(self, pictures: Sequence[Picture], recipe: Recipe) -> Pixels | Sequence[Rows] | None:
        if self.cached_images and self.locked:
            names = ("plain", "mirrored") if self.views else ("plain",)
            return [
                self.cache.images(self.locked, pictures, view, on_progress=self.on_progress)  # type: ignore[arg-type]
                for view in names
            ]
        return Pixels(pictures, self.side, recipe.augment) if self.side else None

    def train_texts(self, pictures: Sequence[Picture]) -> Tokens | Rows | None:
        if self.cached_texts and self.locked:
            return self.cache.texts(self.locked, spoken(pictures), on_progress=self.on_progress)
        return Tokens(self.tokenizer, self.max_tokens) if self.tokenizer else None

    def held_out(self, about: str, pictures: Sequence[Picture]) -> HeldOut:
        """Raises UsageError where there is nothing to ask."""
        test = asked(about, pictures)
        images: Pixels | Rows
        if self.cached_images and self.locked:
            images = self.cache.images(self.locked, pictures, on_progress=self.on_progress)
        else:
            images = Pixels(pictures, self.side)
        texts: Tokens | Rows
        if self.cached_texts and self.locked:
            texts = self.cache.texts(self.locked, test.texts, on_progress=self.on_progress)
        else:
            texts = Tokens(self.tokenizer, self.max_tokens)
        return HeldOut(test, images, texts)
