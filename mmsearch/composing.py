"""Terms -> one vector that looks for all of them, and the part that each term has in it.

The vector is a sum of terms, so a hit's score is a sum of the terms' shares. Each kind of term (texts, pictures,
vectors) is added up by weight and brought to unit length by itself, then divided by how far the scores of its kind
usually spread over pictures: scores of pictures spread several times as far as those of texts, and would drown them.
Feedback is added at the end (feedback.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders import together
from mmsearch.encoders.protocol import Encoder
from mmsearch.errors import PictureError, UsageError
from mmsearch.feedback import rocchio
from mmsearch.query import Query, Term
from mmsearch.relevance import Calibration, Direction
from mmsearch.settings import Limits

if TYPE_CHECKING:
    from PIL import Image

FULL_SIZE = 1 << 31  # a target that no picture is much larger than


@dataclass(frozen=True, slots=True)
class Composed:
    """vector: (d,) float32, unit length. parts: (terms, d) float64, which add up to it; names: one for each part, and
    wanted: whether its weight is above zero.
    asks: what asks, for the calibration: texts, or pictures where there is no text that is wanted; nothing where all is
    unwanted, of which no probability is known."""

    vector: NDArray[np.float32]
    parts: NDArray[np.float64]
    names: tuple[str, ...]
    wanted: NDArray[np.bool_]
    asks: Literal["t", "i"] | None

    @property
    def wanted_alone(self) -> NDArray[np.float32] | None:
        """(d,) unit length: the vector without what is unwanted; None where nothing is."""
        if self.wanted.all():
            return None
        alone = self.parts[self.wanted].sum(0)
        return np.asarray(alone / np.linalg.norm(alone), np.float32)

    def direction(self, find: str) -> Direction | None:
        if self.asks is None:
            return None
        found = "i" if find == "images" else "t"
        return {"ti": "t2i", "tt": "t2t", "ii": "i2i", "it": "i2t"}[self.asks + found]  # type: ignore[return-value]


def images_named(query: Query) -> list[int]:
    """The ids of stored images whose vectors `compose` needs."""
    terms = [term.image for term in query.terms if term.image is not None and term.part is None]
    return [*terms, *query.more, *query.less]


def compose(
    query: Query,
    dimension: int,
    *,
    encoder: Encoder | None,
    stored: Mapping[int, NDArray[np.floating]],
    files: Callable[[int], Path],
    calibration: Calibration | None,
    limits: Limits,
) -> Composed:
    """The vector of a query in a space of this dimension.

    encoder: needed where terms are texts or pictures. stored: image -> its vector, for `images_named`.
    files: image -> a file of it, for parts of images. calibration: knows how far scores spread.
    Raises UsageError (a picture that cannot be read, an image without a vector, terms that cancel each other out).
    """
    rows = _rows(query.terms, dimension, encoder=encoder, stored=stored, files=files, limits=limits)
    kinds = [_kind(term) for term in query.terms]
    largest = max((_mean_weight(query.terms, kinds, kind) for kind in kinds), default=1.0)
    parts = np.zeros((len(query.terms), dimension))
    for kind in dict.fromkeys(kinds):
        mine = [number for number, one in enumerate(kinds) if one == kind]
        weighted = np.array([query.terms[number].weight for number in mine])[:, None] * rows[mine]
        length = np.linalg.norm(weighted.sum(0))
        if length < 1e-6:
            raise UsageError(f"The {kind} of this query cancel each other out; leave some away.")
        gain = _mean_weight(query.terms, kinds, kind) / largest / _spread(calibration, kind)
        parts[mine] = weighted / length * gain
    if query.more or query.less:
        good, bad = (np.array([stored[one] for one in ids]).reshape(-1, dimension) for ids in (query.more, query.less))
        parts = np.concatenate([parts, rocchio(good, bad) / _spread(calibration, "pictures")])
    total = np.linalg.norm(parts.sum(0))
    if total < 1e-6:
        raise UsageError("The terms of this query cancel each other out; leave some away.")
    names = [*map(str, query.terms), *(f"more #{one}" for one in query.more), *(f"less #{one}" for one in query.less)]
    wanted = [term for term in query.terms if term.weight > 0]
    parts /= total
    return Composed(
        vector=parts.sum(0).astype(np.float32),
        parts=parts,
        names=tuple(names),
        wanted=np.array(
            [*(term.weight > 0 for term in query.terms), *(True for _ in query.more), *(False for _ in query.less)]
        ),
        asks="t" if any(term.text is not None for term in wanted) else "i" if wanted or query.more else None,
    )


def _kind(term: Term) -> str:
    if term.vector is not None:
        return "vectors"
    return "texts" if term.text is not None else "pictures"


def _mean_weight(terms: Sequence[Term], kinds: Sequence[str], kind: str) -> float:
    return float(np.mean([abs(term.weight) for term, one in zip(terms, kinds, strict=True) if one == kind]))


def _spread(calibration: Calibration | None, kind: str) -> float:
    return 1.0 if calibration is None else calibration.spread("texts" if kind == "texts" else "pictures")


def _rows(
    terms: Sequence[Term],
    dimension: int,
    *,
    encoder: Encoder | None,
    stored: Mapping[int, NDArray[np.floating]],
    files: Callable[[int], Path],
    limits: Limits,
) -> NDArray[np.float64]:
    """(terms, dimension), unit rows, in the order of the terms."""
    rows = np.zeros((len(terms), dimension))
    texts = [number for number, term in enumerate(terms) if term.text is not None]
    pictures = [number for number, term in enumerate(terms) if term.picture is not None or term.part is not None]
    for number, term in enumerate(terms):
        if term.vector is not None:
            rows[number] = _given(term.vector, dimension)
        elif term.image is not None and term.part is None:
            rows[number] = stored[term.image]
    if texts or pictures:
        assert encoder is not None
        if texts:
            rows[texts] = together.encode_texts(encoder, [terms[number].text or "" for number in texts])
        if pictures:
            opened = [_picture_of(terms[number], files, encoder.image_size, limits) for number in pictures]
            rows[pictures] = encoder.encode_images([encoder.prepare(picture) for picture in opened])
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _given(vector: NDArray[np.floating], dimension: int) -> NDArray[np.float64]:
    wide = np.asarray(vector, np.float64)
    if wide.shape != (dimension,) or not np.isfinite(wide).all():
        raise UsageError(f"A query vector has the shape {wide.shape}; this space needs {dimension} finite numbers.")
    if not wide.any():
        raise UsageError("The query vector is zero; it points nowhere.")
    return np.asarray(wide / np.abs(wide).max())  # the square of a very large or small number would overflow or vanish


# --- pictures -----------------------------------------------------------------------------------------------------


def _picture_of(term: Term, files: Callable[[int], Path], target: int, limits: Limits) -> Image.Image:
    """The picture of a term, or the part of it that is wanted: RGB, upright."""
    picture = files(term.image) if term.image is not None else term.picture
    assert picture is not None
    if term.part is not None:
        target = FULL_SIZE
    if not term.is_url:
        return open_picture(picture, target, limits, part=term.part)
    from mmsearch.fetching import fetch

    most = int(limits.max_megabytes * 1e6)
    content = fetch(str(picture), max_bytes=most, private_addresses=limits.private_addresses)
    return open_picture(content, target, limits, name=str(picture), part=term.part)


def open_picture(
    picture: str | Path | bytes | Image.Image | NDArray[np.uint8],
    target: int,
    limits: Limits,
    *,
    name: str | None = None,
    part: tuple[float, float, float, float] | None = None,
) -> Image.Image:
    """Whatever a term may name as a picture -> RGB, upright. UsageError names the picture and the reason."""
    from PIL import Image

    from mmsearch import files
    from mmsearch.decode import decode, to_rgb

    if name is None:
        name = str(picture) if isinstance(picture, str | Path) else "the picture"
    try:
        if isinstance(picture, str | Path):
            picture = files.read(Path(picture).expanduser(), limits.max_megabytes)[0]
        if isinstance(picture, bytes):
            opened = decode(picture, target=target, limits=limits).picture
        elif isinstance(picture, Image.Image):
            opened = to_rgb(picture, target=target)
        else:
            opened = to_rgb(_from_array(picture), target=target)
    except PictureError as error:
        raise UsageError(f"Cannot use {name}: {error}.") from error
    return opened if part is None else _cut(opened, part, name)


def _cut(picture: Image.Image, part: tuple[float, float, float, float], name: str) -> Image.Image:
    """x, y, width, height: pixels, or shares of the size where none is above 1."""
    x, y, width, height = part
    if max(part) <= 1:
        x, width, y, height = x * picture.width, width * picture.width, y * picture.height, height * picture.height
    left, top, right, bottom = round(x), round(y), round(x + width), round(y + height)
    if left >= picture.width or top >= picture.height:
        size = f"{picture.width} x {picture.height} pixels"
        raise UsageError(f"The part {x:g},{y:g},{width:g},{height:g} lies outside {name}, which has {size}.")
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    return picture.crop((left, top, min(right, picture.width), min(bottom, picture.height)))


def _from_array(pixels: NDArray[np.uint8]) -> Image.Image:
    from PIL import Image

    array = np.asarray(pixels)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise PictureError(
            "an array must be uint8 of shape (height, width), (height, width, 3) or (height, width, 4), "
            f"not {array.dtype} {array.shape}"
        )
    if not array.size:
        raise PictureError("the array is empty")
    return Image.fromarray(array)
