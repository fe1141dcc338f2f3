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
    import torch
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

    see, read = _Run(image_tower, ("pixels",), [(2, side, side, 3)]), _Run(text_tower, ("ids", "mask"), [(2, 7)] * 2)

    def images(prepared: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        return see(np.stack(list(prepared)))  # (n, side, side, 3)

    def texts(said: Sequence[str]) -> NDArray[np.float32]:
        order = sorted(range(len(said)), key=lambda one: len(said[one]))  # like lengths together: little padding
        parts = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        rows = np.concatenate([read(*split([said[one] for one in part])) for part in parts])
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


class _Run:
    """A tower's pooled rows by ONNX Runtime, which is several times as fast as torch on a CPU; on a GPU by torch. Made
    when it is first used."""

    def __init__(self, tower: nn.Module, names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> None:
        self._tower, self._names, self._shapes = tower, names, shapes
        self._session: Any = None

    def __call__(self, *arrays: NDArray[Any]) -> NDArray[np.float32]:
        device = next((one.device for one in self._tower.parameters()), None)
        if device is not None and device.type != "cpu":
            return _by_torch(self._tower, device, arrays)
        if self._session is None:
            self._session = self._exported()
        given = dict(zip(self._names, map(np.ascontiguousarray, arrays), strict=True))
        rows: NDArray[np.float32] = self._session.run(None, given)[0]
        return rows

    def _exported(self) -> Any:
        import torch
        from onnxruntime import InferenceSession, SessionOptions

        from mmsearch.training.export import to_onnx

        kind = torch.uint8 if self._names == ("pixels",) else torch.int64
        examples = [torch.ones(shape, dtype=kind) for shape in self._shapes]
        mode = self._tower.training
        try:
            model = to_onnx(_pooled_of(self._tower), examples, self._names, ["pooled"], tokens=len(examples) > 1)
        finally:
            self._tower.train(mode)
        options = SessionOptions()
        options.intra_op_num_threads = 0 if self._names == ("pixels",) else 1  # a second thread slows short texts down
        return InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _pooled_of(tower: nn.Module) -> nn.Module:
    from torch import nn

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = tower

        def forward(self, *inputs: Tensor) -> Tensor:
            rows: Tensor = self.tower(*inputs).pooled
            return rows

    return Pooled()


def _by_torch(tower: nn.Module, device: torch.device, arrays: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """The tower stays in the mode it was in."""
    import torch

    was_training = tower.training
    tower.eval()
    try:
        with torch.inference_mode():
            given = [torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays]
            rows: NDArray[np.float32] = tower(*given).pooled.float().cpu().numpy()
    finally:
        tower.train(was_training)
    return rows


def _mark(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
