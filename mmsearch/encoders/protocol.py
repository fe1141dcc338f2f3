"""What every encoder offers: one image tower and one text tower that share a space.

In: pictures (RGB, upright) and texts. Out: unit-length float32 rows of one dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


@dataclass(frozen=True, slots=True)
class Space:
    """What an encoder defines. Vectors belong to exactly one space and never mix across fingerprints.

    name: how people ask for the encoder (`lite`, `ViT-B-32/laion2b_s34b_b79k`, a folder).
    fingerprint: hex digest over the weights and the preprocessing; equal means interchangeable vectors.
    dimension: length of a vector.
    """

    name: str
    fingerprint: str
    dimension: int


class Encoder(Protocol):
    """An encoder. Order is kept; an empty list gives shape (0, dimension); nothing depends on what else is
    in the batch: at float32 a batch equals its single items to 1e-5. Towers load separately, on first use;
    all methods may be called from several threads.
    """

    @property
    def space(self) -> Space: ...

    @property
    def image_size(self) -> int:
        """Side in pixels of the square that the image tower reads; decoding aims at twice this."""

    @property
    def batch_size(self) -> int:
        """How many pictures an index run should hand over at once."""

    def prepare(self, picture: Image.Image) -> NDArray[Any]:
        """RGB picture of any size -> the array one picture becomes. Cheap; runs on the decode threads."""

    def encode_images(self, prepared: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """n prepared pictures -> (n, dimension) float32, unit length."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """n texts -> (n, dimension) float32, unit length. Texts longer than the tower reads are cut."""
