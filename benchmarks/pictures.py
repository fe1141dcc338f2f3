"""Pictures for the benchmarks, made on the spot: as costly to decode as photographs, and each with its own bytes.

Their detail falls off towards the fine, as that of photographs does, so that a JPEG decoder has as much to do.
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

BASES = 3  # scenes that the pictures are cut from
MARGIN = 256  # pixels by which a scene is larger than a picture cut from it
DECAY, GRAIN = 0.7, 5.0  # such that a 12-megapixel JPEG comes to about 3 MB, a 0.8-megapixel one to about 0.2 MB


def photographs(folder: Path, count: int, width: int, height: int, *, quality: int = 90) -> list[Path]:
    """Write `count` JPEGs of `width` x `height` pixels, 500 a subfolder; their paths."""
    scenes = [_scene(width + MARGIN, height + MARGIN, seed) for seed in range(min(BASES, count))]

    def write(number: int) -> Path:
        rng = np.random.default_rng(number)
        left, top = (int(value) for value in rng.integers(0, MARGIN, 2))
        cut = scenes[number % len(scenes)].crop((left, top, left + width, top + height))
        path = folder / f"{number // 500:03}" / f"photo-{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cut.save(path, quality=quality)
        return path

    with ThreadPoolExecutor() as pool:
        return list(pool.map(write, range(count)))


def small_pictures(folder: Path, count: int, *, first: int = 0, width: int = 320, height: int = 240) -> Path:
    """Write `count` small JPEGs quickly, 1,000 a subfolder: a few pictures, each with a number in a JPEG comment, so
    that every file is another content. `first`: the number of the first one."""
    encoded = []
    for seed in range(16):
        stream = io.BytesIO()
        _scene(width, height, seed).save(stream, "JPEG", quality=85)
        encoded.append(stream.getvalue())
    for number in range(first, first + count):
        path = folder / f"{number // 1000:04}" / f"{number:07}.jpg"
        if number % 1000 == 0 or number == first:
            path.parent.mkdir(parents=True, exist_ok=True)
        data = encoded[number % len(encoded)]
        path.write_bytes(data[:2] + b"\xff\xfe\x00\x0a" + number.to_bytes(8, "big") + data[2:])
    return folder


def _scene(width: int, height: int, seed: int) -> Image.Image:
    """Noise of all sizes, coarse to fine, nearly the same in all colours, and the grain of a sensor."""
    rng = np.random.default_rng(seed)
    total = GRAIN * rng.standard_normal((height, width, 1), np.float32).repeat(3, axis=2)  # (height, width, 3)
    cells, amplitude = 3, 70.0
    while cells < max(width, height):
        across, down = cells + 1, max(2, cells * height // width + 1)
        coarse = Image.fromarray(rng.standard_normal((down, across), np.float32))
        fine = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
        tint = 1 + 0.2 * rng.standard_normal(3).astype(np.float32)
        total += (amplitude * tint) * fine[:, :, None]
        cells, amplitude = cells * 2, amplitude * DECAY
    return Image.fromarray(np.clip(total + 120, 0, 255).astype(np.uint8))
