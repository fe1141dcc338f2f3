"""An encoder that does as little as one can, for measuring all the rest of an index run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmsearch.encoders.protocol import Space


class IdleEncoder:
    """Its vectors say nothing about a picture. `pictures` counts those it was given."""

    space = Space("idle", "idle", 384)
    image_size = 4
    batch_size = 32

    def __init__(self) -> None:
        self.pictures = 0
        self._row = np.full(self.space.dimension, self.space.dimension**-0.5, np.float32)

    def prepare(self, picture: Image.Image) -> NDArray[np.float32]:  # noqa: ARG002 - the picture does not matter
        return self._row

    def encode_images(self, prepared: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        self.pictures += len(prepared)
        return np.tile(self._row, (len(prepared), 1))

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.tile(self._row, (len(texts), 1))
