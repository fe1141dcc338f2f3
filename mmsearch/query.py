"""What was asked: a query has terms, and finds images or captions. Pure data; `searching` answers it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsearch.errors import UsageError
from mmsearch.types import Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One part of a query: exactly one of

    text: words or a sentence.
    picture: a path, the bytes of a picture file, a Pillow picture, or an array (height, width, 3) uint8.
    vector: (dimension,) floats in the space that is searched; any length but zero.
    """

    text: str | None = None
    picture: str | Path | bytes | Image.Image | NDArray[np.uint8] | None = None
    vector: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        given = sum(part is not None for part in (self.text, self.picture, self.vector))
        if given != 1:
            raise UsageError(f"A term is one text, one picture or one vector; this one has {given} of them.")
        if self.text is not None and not self.text.strip():
            raise UsageError('The query text is empty; say what to look for, as in "a red sports car".')


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """Terms that are looked for together. Texts are averaged, pictures are averaged, and the two averages weigh
    the same. find: `images`, or `captions` for image-to-text and text-to-text. k: how many hits at most."""

    terms: tuple[Term, ...]
    find: Kind = "images"
    k: int = 10

    def __post_init__(self) -> None:
        if not self.terms:
            raise UsageError('A query needs at least one text or picture, as in "a red sports car".')
        if self.find not in ("images", "captions"):
            raise UsageError(f"Cannot find {self.find!r}; valid are: images, captions.")
        if self.k < 1:
            raise UsageError(f"k is {self.k}; it must be at least 1.")
