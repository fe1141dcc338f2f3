"""How a picture becomes what a trained image tower reads, in training as in use.

In: an RGB Pillow picture of any size. Out: (side, side, 3) uint8. Everything after that (normalisation, the tower)
lies inside the ONNX graph, so that prepared pictures stay small: 203 kB at 260 pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

PREPROCESSING: dict[str, Any] = {"colour": "rgb", "resize": "squeeze", "filter": "bicubic", "dtype": "uint8"}


def squeeze(picture: Image.Image, side: int) -> NDArray[np.uint8]:
    """The whole picture on a square; the proportions give way, nothing is cut off (side, side, 3)."""
    from PIL import Image

    if picture.mode != "RGB":
        picture = picture.convert("RGB")
    if picture.size != (side, side):
        picture = picture.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(picture)
