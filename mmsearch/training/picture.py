"""One picture of a training set, and what is said about it.

Words meet in numbers: pictures, captions and labels that are equal anywhere, in another set or in another process,
have the same number (see `groups` in outputs.py).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mmsearch import files
from mmsearch.captions import clean
from mmsearch.decode import decode
from mmsearch.settings import Limits
from mmsearch.wording import prompts

if TYPE_CHECKING:
    from PIL import Image

Side = Literal["train", "dev", "test"]

# What a recipe learns from: pictures about which something is said; before that also others, to pre-train on; or all
# pictures alike, whatever is said.
Wanted = Literal["words", "both", "pictures"]

PROMPTS = 3  # sentences beside the bare label: "a photo of an apple"

# What programs append to the name of a copy: `a (1).jpg`, `a copy 2.jpg`, `a-edited.jpg`, `a-1024x768.jpg`, `a@2x.png`.
_COPY = re.compile(
    r"(?:\s*\(\d+\)|[\s_-]+(?:copy|edited|edit|small|large|thumb|thumbnail)(?:[\s_-]*\d+)?|[\s_-]\d+x\d+|@\dx)+$"
)


@dataclass(frozen=True, slots=True)
class Picture:
    """key: its name in its set, `/` between the parts. place: where it lies, for messages.
    content: sha256 of its bytes, in hex; "" while it was not read. read: its bytes; raises PictureError.
    captions: as people wrote them. labels: names of what it shows. split: the side that its set put it on."""

    key: str
    place: Path
    content: str
    read: Callable[[], bytes] = field(repr=False, compare=False)
    captions: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    split: Side | None = None

    def open(self, side: int) -> Image.Image:
        """RGB, upright; reduced to a short side of 2 to 4 times `side` where it is larger. Raises PictureError."""
        return decode(self.read(), target=side, limits=Limits()).picture

    @property
    def name(self) -> str:
        """The key without what makes copies of one picture differ: `a/b (1).JPG` -> `a/b`."""
        stem = re.sub(r"\.[a-z0-9]{1,5}$", "", self.key.lower())
        return _COPY.sub("", stem) or stem

    @property
    def said(self) -> tuple[tuple[str, str], ...]:
        """Each (text, label) that training may draw; "" where there is no label. Without captions, labels speak."""
        if self.captions:
            return tuple((text, label) for text in self.captions for label in self.labels or ("",))
        return tuple((text, label) for label in self.labels for text in label_texts(label))


def file_bytes(path: Path) -> bytes:
    """What lies at a path. Raises PictureError."""
    return files.read(path, Limits().max_megabytes)[0]


@lru_cache(maxsize=10_000)
def label_texts(label: str) -> tuple[str, ...]:
    """`apple` -> "apple", "a photo of an apple", ..."""
    return (label, *prompts(label)[:PROMPTS])


def spoken(pictures: Sequence[Picture]) -> list[str]:
    """All that is said about these pictures, each text once, in the order of the pictures."""
    return list(dict.fromkeys(text for picture in pictures for text, _ in picture.said))


def plain(text: str) -> str:
    """Without capitals and punctuation, so that `A dog.` is `a dog`."""
    low = clean(text).casefold()
    return " ".join(re.sub(r"[^\w\s]+", " ", low).split()) or low


def number(text: str) -> int:
    """A text -> 0 to 2^63 - 1, the same everywhere; -1 for none. Two texts share one with a chance of 2^-63."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8]) >> 1 if text else -1
