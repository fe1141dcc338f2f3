"""Towers that are not trained, as the feature cache sees them (LiT's locked tower, a teacher, an encoder to build on).

In: an `Encoder`, or two nn towers. Out: `Locked`: what to do to a picture, then to many; and what makes the rows what
they are, as a fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders.preprocess import PREPROCESSING, squeeze
from mmsearch.encoders.protocol import Encoder

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

BATCH = 32


@dataclass(frozen=True, slots=True)
class Locked:
    """name: for messages. image_fingerprint, text_fingerprint: equal ones make equal rows. side: in pixels, of what
    `prepare` gives. images: prepared pictures -> (n, w) float32. texts: the same. batch: pictures at once."""

    name: str
    image_fingerprint: str
    text_fingerprint: str
    side: int
    prepare: Callable[[Image.Image], NDArray[Any]]
    images: Callable[[Sequence[NDArray[Any]]], NDArray[np.float32]]
    texts: Callable[[Sequence[str]], NDArray[np.float32]]
    batch: int = BATCH


def of_encoder(encoder: Encoder) -> Locked:
    """Rows of unit length, in the encoder's space."""
    mark = encoder.space.fingerprint
    return Locked(
        encoder.space.name,
        mark,
        mark,
        encoder.image_size,
        encoder.prepare,
        encoder.encode_images,
        encoder.encode_texts,
        encoder.batch_size,
    )


def of_towers(
    name: str, image_tower: nn.Module, text_tower: nn.Module, *, side: int, tokenizer: str, max_tokens: int,
    fingerprint: str,
) -> Locked:  # fmt: skip
    """The pooled rows of nn towers (see nn/towers/tower.py), as in use: without dropout. fingerprint: of the weights
    of both."""
    from mmsearch.training.tokens import Tokens

    split = Tokens(tokenizer, max_tokens)

    def images(prepared: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        return _pooled(image_tower, np.stack(list(prepared)))  # (n, side, side, 3)

    def texts(said: Sequence[str]) -> NDArray[np.float32]:
        order = sorted(range(len(said)), key=lambda one: len(said[one]))  # like lengths together: little padding
        parts = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        rows = np.concatenate([_pooled(text_tower, *split([said[one] for one in part])) for part in parts])
        made = np.empty_like(rows)
        made[order] = rows
        return made

    return Locked(
        name,
        _mark(fingerprint, side, PREPROCESSING),
        _mark(fingerprint, tokenizer, max_tokens),
        side,
        lambda picture: squeeze(picture, side),
        images,
        texts,
    )


def _pooled(tower: nn.Module, *arrays: NDArray[Any]) -> NDArray[np.float32]:
    """The tower stays in the mode it was in."""
    import torch

    was_training = tower.training
    tower.eval()
    try:
        with torch.inference_mode():
            device = next((one.device for one in tower.parameters()), torch.device("cpu"))
            given = [torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays]
            pooled: Tensor = tower(*given).pooled
            rows: NDArray[np.float32] = pooled.float().cpu().numpy()
    finally:
        tower.train(was_training)
    return rows


def _mark(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
