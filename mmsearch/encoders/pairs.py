"""The last step of an encoder: what pairs of a picture and its text that are known already say about a new vector.

In: unit-length rows (m, d) of the towers, and n known pairs as the same towers see them (`pairs.npz`). Out: unit-length
rows (m, d + 2).

neighbours  A picture moves a little towards the texts of the known pictures that look like it, a text towards the
            pictures of the known texts that say nearly the same. Few pairs teach towers only coarsely what belongs
            together; the pairs themselves know more (a cache of them beside a model: Zhang et al. 2022,
            arXiv 2207.09519).
hubs        Some pictures lie near every text, and some texts near every picture; they come up where others belong. How
            near a vector lies to the known other side as a whole, h, is taken off all of its scores (Bogolin et al.
            2022, arXiv 2112.12777; Chowdhury et al. 2024, arXiv 2410.24114). The product does that by itself: a picture
            ends in the two numbers (-h / text_end, image_end), a text in (text_end, -h / image_end).

Known to have helped, and by how much: the built-in encoder's MODEL_CARD.md. Only NumPy is needed here.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]

ENDS = 2  # numbers that a vector gets at its end


@dataclass(frozen=True, slots=True)
class Numbers:
    """share: how far a vector moves. sharpness: how much more near pairs say than far ones: exp(sharpness * cosine).
    hub_share: how much of h is taken off; h = log(mean(exp(hub_sharpness * cosine))) / hub_sharpness, less its mean
    over the known pictures (image_hub) or texts (text_hub). image_end, text_end: as above; a large text_end and a small
    image_end leave what pictures are to one another nearly as it was."""

    share: float = 0.15
    sharpness: float = 25.0
    hub_share: float = 0.8
    hub_sharpness: float = 15.0
    image_end: float = 0.2
    text_end: float = 0.7
    image_hub: float = 0.0
    text_hub: float = 0.0


class KnownPairs:
    """images, texts: (n, d), row i of one belongs to row i of the other. Stored in eight bits a number."""

    def __init__(self, images: Rows, texts: Rows, numbers: Numbers) -> None:
        self.images, self.texts, self.numbers = images, texts, numbers

    @classmethod
    def of(cls, images: Rows, texts: Rows, numbers: Numbers) -> KnownPairs:
        """images, texts: (n, d), brought to unit length; rounded as they will be stored."""
        images, texts = (_whole(*_in_bytes(_unit(rows))) for rows in (images, texts))
        made = cls(images, texts, numbers)
        image_hub = made._hub(made._moved(images, images, texts), texts).mean()
        text_hub = made._hub(made._moved(texts, texts, images), images).mean()
        return cls(images, texts, replace(numbers, image_hub=float(image_hub), text_hub=float(text_hub)))

    @classmethod
    def read(cls, content: bytes) -> KnownPairs:
        """What `to_bytes` made. Raises ValueError."""
        try:
            with np.load(io.BytesIO(content)) as stored:
                images, texts = (_whole(stored[side], stored[f"{side}_scale"]) for side in ("images", "texts"))
                numbers = Numbers(**{name: float(stored[name]) for name in asdict(Numbers())})
        except (OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(str(error)) from error
        if images.ndim != 2 or images.shape != texts.shape or not len(images):
            raise ValueError(f"{images.shape} pictures and {texts.shape} texts are no pairs")
        return cls(images, texts, numbers)

    def to_bytes(self) -> bytes:
        stored: dict[str, Any] = {name: np.float32(value) for name, value in asdict(self.numbers).items()}
        for side, rows in (("images", self.images), ("texts", self.texts)):
            stored[side], stored[f"{side}_scale"] = _in_bytes(rows)
        stream = io.BytesIO()
        np.savez(stream, **stored)
        return stream.getvalue()

    @property
    def width(self) -> int:
        """d, of the towers' vectors."""
        return int(self.images.shape[1])

    def of_images(self, rows: Rows) -> Rows:
        """(m, d) -> (m, d + 2)"""
        moved = self._moved(rows, self.images, self.texts)
        hub = self._hub(moved, self.texts) - self.numbers.image_hub
        return _ended(moved, -self.numbers.hub_share * hub / self.numbers.text_end, self.numbers.image_end)

    def of_texts(self, rows: Rows) -> Rows:
        """(m, d) -> (m, d + 2)"""
        moved = self._moved(rows, self.texts, self.images)
        hub = self._hub(moved, self.images) - self.numbers.text_hub
        return _ended(moved, self.numbers.text_end, -self.numbers.hub_share * hub / self.numbers.image_end)

    def _moved(self, rows: Rows, like: Rows, theirs: Rows) -> Rows:
        near = np.exp(self.numbers.sharpness * (rows @ like.T))  # (m, n)
        return _unit(rows + self.numbers.share * _unit(near @ theirs))

    def _hub(self, rows: Rows, others: Rows) -> NDArray[np.float32]:
        sharpness = self.numbers.hub_sharpness
        hub: NDArray[np.float32] = np.log(np.exp(sharpness * (rows @ others.T)).mean(axis=1)) / sharpness
        return hub


def _ended(rows: Rows, *ends: NDArray[np.float32] | float) -> Rows:
    return _unit(np.column_stack((rows, *(np.broadcast_to(np.float32(end), len(rows)) for end in ends))))


def _unit(rows: Rows) -> Rows:
    made: Rows = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
    return made


def _in_bytes(rows: Rows) -> tuple[NDArray[np.int8], Rows]:
    """Rows as whole numbers, and the scale of each: the largest number of a row becomes 127."""
    scale = np.abs(rows).max(axis=1, keepdims=True).clip(1e-12).astype(np.float32) / 127
    return np.round(rows / scale).astype(np.int8), scale


def _whole(stored: NDArray[np.int8], scale: Rows) -> Rows:
    return np.asarray(stored * scale, np.float32)
