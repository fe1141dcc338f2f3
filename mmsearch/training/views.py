"""Several views of each picture, as the image tower's first stages see them; computed once and cached.

In: examples, a `FoldedTower` that is not tuned yet. Out: `Views`. View 0 is the picture as it is used; the others are
cropped a little, mirrored or not, with slightly different colours (augment.py), each a function of the picture's key
and the view's number.
"""

from __future__ import annotations

import hashlib
import logging
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmsearch.nn.towers.lite import IMAGE_SIDE
from mmsearch.training import augment
from mmsearch.training.folded import FoldedTower
from mmsearch.training.sources import Example

log = logging.getLogger(__name__)

BATCH = 64


@dataclass(frozen=True, slots=True)
class Views:
    """Of n pictures, for each view: maps (n, 17, 17, 88) bfloat16, on disk until they are read; and what the untuned
    tower makes of them, pooled (n, 1280) and logits (n, 1000)."""

    maps: list[Tensor]
    pooled: list[Tensor]
    logits: list[Tensor]

    def __len__(self) -> int:
        return len(self.maps)

    def pick(self, view: int, which: Tensor) -> Tensor:
        """(m,) pictures -> (m, 88, 17, 17)"""
        return self.maps[view][which].permute(0, 3, 1, 2)


def views_of(tower: FoldedTower, examples: list[Example], count: int, cache: Path) -> Views:
    """`count` views of each picture."""
    made = [_view(tower, examples, number, cache) for number in range(count)]
    return Views([one["maps"] for one in made], [one["pooled"] for one in made], [one["logits"] for one in made])


@torch.no_grad()
def _view(tower: FoldedTower, examples: list[Example], number: int, cache: Path) -> dict[str, Tensor]:
    keys = hashlib.sha256("\0".join(example.key for example in examples).encode()).hexdigest()[:16]
    path = cache / f"view-{keys}-{number}.pt"
    if not path.exists():
        maps, pooled = [], []
        chunks = [examples[i : i + BATCH] for i in range(0, len(examples), BATCH)]
        with ThreadPoolExecutor(1) as ahead, torch.autocast("cpu", torch.bfloat16):
            coming = ahead.submit(_pixels, chunks[0], number)
            for place in range(len(chunks)):
                pixels = torch.from_numpy(coming.result())
                if place + 1 < len(chunks):
                    coming = ahead.submit(_pixels, chunks[place + 1], number)
                seen = tower.maps(pixels)
                maps.append(seen.bfloat16().permute(0, 2, 3, 1).contiguous())
                pooled.append(tower.pooled(seen))
        whole = torch.cat(pooled)
        torch.save({"maps": torch.cat(maps), "pooled": whole, "logits": tower.classifier(whole)}, path)
        log.info("view %d of %d pictures", number, len(examples))
    stored: dict[str, Tensor] = torch.load(path, mmap=True, weights_only=True)
    return stored


def _pixels(examples: list[Example], number: int) -> NDArray[np.uint8]:
    """(n, 260, 260, 3)"""
    strength: augment.Strength = "light" if number else "none"
    chances = [np.random.default_rng((number, zlib.crc32(example.key.encode()))) for example in examples]
    made = [augment.view(example.open(), IMAGE_SIDE, strength, c) for example, c in zip(examples, chances, strict=True)]
    return np.stack(made)
