"""Random views of a picture, for training.

In: an RGB picture of any size, a strength, a random generator. Out: (side, side, 3) uint8, as `squeeze` gives it
without any of this. The draws come from the generator alone, so a view is a function of its seed.

    light     crops of at least 60 % of the area, mirrored or not, colours a little different: what is said stays true
    strong    SimCLR's views: crops from 20 %, strong colours, greyscale, blur (Chen et al. 2020, arXiv 2002.05709;
              crops from 20 % as in MoCo v3, for small pictures lose too much below)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from mmsearch.encoders.preprocess import squeeze

Strength = Literal["none", "light", "strong"]

ASPECT = (3 / 4, 4 / 3)  # width to height of a crop, relative to the picture's own


@dataclass(frozen=True, slots=True)
class _Views:
    """area: least share of a crop. colour: how far brightness, contrast and saturation may go from 1; hue: from 0, as
    a share of the circle. The others are probabilities."""

    area: float
    colour: float
    hue: float
    jitter: float
    grey: float
    blur: float


_STRENGTHS = {
    "light": _Views(area=0.6, colour=0.2, hue=0.0, jitter=0.5, grey=0.0, blur=0.0),
    "strong": _Views(area=0.2, colour=0.4, hue=0.1, jitter=0.8, grey=0.2, blur=0.5),
}


def view(picture: Image.Image, side: int, strength: Strength, chance: np.random.Generator) -> NDArray[np.uint8]:
    """One random view (side, side, 3)."""
    if strength == "none":
        return squeeze(picture, side)
    how = _STRENGTHS[strength]
    made = picture.resize((side, side), Image.Resampling.BICUBIC, box=crop(picture.size, how.area, chance))
    if chance.random() < 0.5:
        made = ImageOps.mirror(made)
    if chance.random() < how.jitter:
        made = _jittered(made, how, chance)
    if chance.random() < how.grey:
        made = ImageOps.grayscale(made).convert("RGB")
    if chance.random() < how.blur:
        made = made.filter(ImageFilter.GaussianBlur(side / 224 * float(chance.uniform(0.1, 2.0))))
    return np.asarray(made)


def crop(size: tuple[int, int], area: float, chance: np.random.Generator) -> tuple[float, float, float, float]:
    """left, top, right, bottom in pixels: a random part of at least this share of the area, inside the picture."""
    width, height = size
    share = float(chance.uniform(area, 1.0))
    aspect = math.exp(float(chance.uniform(math.log(ASPECT[0]), math.log(ASPECT[1]))))
    wide, high = math.sqrt(share * aspect), math.sqrt(share / aspect)
    wide, high = (1.0, share) if wide > 1 else (share, 1.0) if high > 1 else (wide, high)
    left, top = float(chance.uniform(0, 1 - wide)), float(chance.uniform(0, 1 - high))
    # Rounding must not step over the edge: Pillow refuses such a box.
    return left * width, top * height, min((left + wide) * width, width), min((top + high) * height, height)


def _jittered(picture: Image.Image, how: _Views, chance: np.random.Generator) -> Image.Image:
    """Brightness, contrast, saturation and hue, in a random order."""
    factors = chance.uniform(1 - how.colour, 1 + how.colour, 3).tolist()
    turn = float(chance.uniform(-how.hue, how.hue))
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for number in chance.permutation(4).tolist():
        if number < 3:
            picture = enhancers[number](picture).enhance(factors[number])
        elif how.hue:
            hue, saturation, value = picture.convert("HSV").split()
            turned = hue.point([(one + round(turn * 256)) % 256 for one in range(256)])  # a circle of 256 steps
            picture = Image.merge("HSV", (turned, saturation, value)).convert("RGB")
    return picture
