"""A small encoder for tests: pictures and colour words share a space of colours on a 2 x 2 grid. No weights."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmsearch.encoders.protocol import Space

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 180, 40),
    "blue": (30, 40, 220),
    "yellow": (230, 220, 40),
    "black": (10, 10, 10),
    "white": (245, 245, 245),
    "purple": (130, 20, 150),
    "orange": (240, 140, 20),
}


class ToyEncoder:
    """2 x 2 mean colours, centred: 12 numbers and a constant. `seconds` of work for each picture."""

    image_size = 16
    batch_size = 4

    def __init__(self, name: str = "toy", *, seconds: float = 0.0) -> None:
        self.space = Space(name, f"fingerprint of {name}", 13)
        self.seconds = seconds
        self.pictures = 0
        self.texts = 0

    def prepare(self, picture: Image.Image) -> NDArray[Any]:
        return np.asarray(picture.resize((16, 16), Image.Resampling.BOX), np.float32)

    def encode_images(self, prepared: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        self.pictures += len(prepared)
        time.sleep(self.seconds * len(prepared))
        rows = [_row(one) for one in prepared]
        return np.stack(rows) if rows else np.empty((0, 13), np.float32)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.texts += len(texts)
        rows = []
        for text in texts:
            named = [COLOURS[word] for word in text.lower().split() if word in COLOURS] or [(128, 128, 128)]
            colour = np.mean(np.array(named, np.float32), axis=0)
            # Every text is a little different, as sentences are.
            colour = colour + np.array([sum(map(ord, text)) % 5, len(text) % 7, 0], np.float32)
            rows.append(_row(np.broadcast_to(colour, (16, 16, 3))))
        return np.stack(rows) if rows else np.empty((0, 13), np.float32)


def _row(pixels: NDArray[Any]) -> NDArray[np.float32]:
    grid = np.asarray(pixels, np.float32).reshape(2, 8, 2, 8, 3).mean((1, 3)).reshape(12)
    row = np.concatenate([(grid - 128) / 128, [0.1]]).astype(np.float32)
    return np.asarray(row / np.linalg.norm(row), np.float32)
