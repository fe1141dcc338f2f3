"""What training made -> a folder that `mmsearch index --model` opens.

In: an encoder from pixels and tokens to vectors, or adapters and the encoder below them. Out: the folder. It is written
beside and renamed into place, so that a folder is whole or not there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmsearch.encoders import lite
from mmsearch.encoders.adapted import BASE, WEIGHTS, AdaptedEncoder, write_adapted
from mmsearch.encoders.protocol import Encoder
from mmsearch.encoders.trained import CALIBRATION, FILES, MANIFEST, PAIRS, TrainedEncoder
from mmsearch.errors import MMSearchError
from mmsearch.nn.dual_encoder import DualEncoder
from mmsearch.nn.heads import Adapter
from mmsearch.training.export import store_as_int8, to_onnx, write_encoder

OWN = (MANIFEST, *FILES, PAIRS, CALIBRATION, WEIGHTS, BASE, "LICENCES")


class _Images(nn.Module):
    def __init__(self, encoder: DualEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor:
        vectors = self.encoder.images(pixels).pooled
        assert vectors is not None
        return vectors


class _Texts(nn.Module):
    def __init__(self, encoder: DualEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        vectors = self.encoder.texts(ids, mask).pooled
        assert vectors is not None
        return vectors


def keep_towers(
    folder: Path, encoder: DualEncoder, *, side: int, tokenizer: str, max_tokens: int, facts: dict[str, Any]
) -> None:
    """Both towers as ONNX. Large matrices are stored as int8 (see export.py)."""
    empty = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    tokens = torch.ones(2, 7, dtype=torch.int64)
    encoder = encoder.cpu().float().eval()

    def write(beside: Path) -> None:
        write_encoder(
            beside,
            name=folder.name,
            image=store_as_int8(to_onnx(_Images(encoder), [empty], ["pixels"], ["vector"])),
            text=store_as_int8(to_onnx(_Texts(encoder), [tokens, tokens], ["ids", "mask"], ["vector"], tokens=True)),
            tokenizer=tokenizer,
            image_size=side,
            max_tokens=max_tokens,
            facts=facts,
        )

    _whole_or_not(folder, write)


def keep_adapters(folder: Path, base: Encoder, encoder: DualEncoder, *, facts: dict[str, Any]) -> None:
    """The adapters, and a copy of the encoder below where that is a folder of ours."""
    parts: dict[str, Any] = {}
    for side, head in (("image", encoder.image_head), ("text", encoder.text_head)):
        assert isinstance(head, Adapter)
        parts[f"{side}_matrix"] = np.ascontiguousarray(head.line.weight.detach().cpu().numpy().T)
        parts[f"{side}_shift"] = head.line.bias.detach().cpu().numpy()

    def write(beside: Path) -> None:
        below = base.space.name
        if isinstance(base, TrainedEncoder | AdaptedEncoder):
            _copy(lite.FOLDER if below == lite.NAME else Path(below), beside / BASE)
            below = BASE
        write_adapted(beside, base=below, base_fingerprint=base.space.fingerprint, parts=parts, facts=facts)

    _whole_or_not(folder, write)


def _copy(encoder: Path, into: Path) -> None:
    """What makes up an encoder; nothing else that lies in its folder."""
    into.mkdir(parents=True)
    for name in OWN:
        if (encoder / name).is_dir():
            _copy(encoder / name, into / name)
        elif (encoder / name).is_file():
            shutil.copyfile(encoder / name, into / name)


def _whole_or_not(folder: Path, write: Callable[[Path], None]) -> None:
    """An encoder that was there before gives way only when the new one is whole; other files of the folder stay.
    Raises MMSearchError where the disk does not take it."""
    beside = folder / ".new"
    shutil.rmtree(beside, ignore_errors=True)  # of a run that was killed
    try:
        write(beside)
        (folder / MANIFEST).unlink(missing_ok=True)
        for name in OWN:
            old = folder / name
            if old.is_dir():
                shutil.rmtree(old)
            else:
                old.unlink(missing_ok=True)
        for made in sorted(beside.iterdir(), key=lambda path: path.name == MANIFEST):  # the manifest last
            os.replace(made, folder / made.name)
    except OSError as error:
        raise MMSearchError(
            f"The encoder cannot be written to {folder} ({error.strerror or error}). Make room, and run the same "
            "command again."
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
