"""An encoder that people can check by eye: pictures become their mean colour, texts the colours they name.

A package as others would write one: with this folder on the path, `--model colour` works. COLOUR_SECONDS is what a
picture takes, so that tests can interrupt a run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmsearch.encoders.protocol import Space

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}


class ColourEncoder:
    """Called as every factory of the entry-point group is: name, device, precision."""

    space = Space("colour", "colour-1", 3)
    image_size = 8
    batch_size = 4

    def __init__(self, name: str, device: str, precision: str) -> None:
        self.seconds = float(os.environ.get("COLOUR_SECONDS", "0"))

    def prepare(self, picture: Image.Image) -> NDArray[Any]:
        return np.asarray(picture.resize((1, 1), Image.Resampling.BOX), dtype=np.float32).reshape(3) + 1

    def encode_images(self, prepared: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        time.sleep(self.seconds * len(prepared))
        rows = np.array(prepared, dtype=np.float32).reshape(-1, 3)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = [np.sum([COLOURS.get(word, (1, 1, 1)) for word in text.split()], axis=0) for text in texts]
        array = np.array(rows, dtype=np.float32).reshape(-1, 3)
        return array / np.linalg.norm(array, axis=1, keepdims=True)
