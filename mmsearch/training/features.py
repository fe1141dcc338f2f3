"""What the frozen towers say about pictures and texts, computed once and cached.

In: examples or texts, an ONNX tower. Out: torch tensors. The towers are the very files that ship (int8), so that the
heads learn on what they will see.
"""

from __future__ import annotations

import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from tokenizers import Tokenizer
from torch import Tensor

from mmsearch.encoders.preprocess import squeeze
from mmsearch.training.frozen import CLASSES, IMAGE_SIDE, IMAGE_WIDTH, TEXT_WIDTH
from mmsearch.training.sources import Example

log = logging.getLogger(__name__)

BATCH = 32


def pixels(examples: list[Example], mirrored: bool = False) -> NDArray[np.uint8]:
    """(n, 260, 260, 3) uint8, prepared as in use; mirrored: left and right exchanged."""
    made = np.stack([squeeze(example.open(), IMAGE_SIDE) for example in examples])
    return np.ascontiguousarray(made[:, :, ::-1]) if mirrored else made


def image_features(
    tower: ModelProto, examples: list[Example], cache: Path, mirrored: bool = False
) -> tuple[Tensor, Tensor]:
    """Pooled features (n, 1280) and class logits (n, 1000) of n pictures."""
    content = tower.SerializeToString()
    keys = [f"{example.key}{' mirrored' * mirrored}".encode() for example in examples]
    path = cache / f"image-{_digest(content, *keys)}.npz"
    if not path.exists():
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        pooled = np.empty((len(examples), IMAGE_WIDTH), np.float32)
        logits = np.empty((len(examples), CLASSES), np.float32)
        chunks = [examples[i : i + BATCH] for i in range(0, len(examples), BATCH)]
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(pixels, chunks[0], mirrored)
            for number, chunk in enumerate(chunks):
                ready, rows = coming.result(), slice(number * BATCH, number * BATCH + len(chunk))
                if number + 1 < len(chunks):
                    coming = ahead.submit(pixels, chunks[number + 1], mirrored)
                pooled[rows], logits[rows] = session.run(None, {"pixels": ready})
                if number % 50 == 49:
                    log.info("%d of %d pictures", rows.stop, len(examples))
        np.savez(path, pooled=pooled, logits=logits)
    with np.load(path) as stored:
        return torch.from_numpy(stored["pooled"]), torch.from_numpy(stored["logits"])


def text_features(tower: ModelProto, tokenizer: Tokenizer, texts: list[str], cache: Path) -> Tensor:
    """MiniLM's mean states (n, 384) of n texts. tokenizer: cuts at its own length, does not pad."""
    content = tower.SerializeToString()
    path = cache / f"text-{_digest(content, *(text.encode() for text in texts))}.npy"
    if not path.exists():
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        tokens = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
        states = np.empty((len(texts), TEXT_WIDTH), np.float32)
        order = np.argsort([len(ids) for ids in tokens], kind="stable")
        for number, start in enumerate(range(0, len(order), BATCH)):
            which = order[start : start + BATCH]
            ids = np.zeros((len(which), len(tokens[which[-1]])), np.int64)
            mask = np.zeros_like(ids)
            for row, i in enumerate(which):
                ids[row, : len(tokens[i])], mask[row, : len(tokens[i])] = tokens[i], 1
            states[which] = session.run(None, {"ids": ids, "mask": mask})[0]
            if number % 250 == 249:
                log.info("%d of %d texts", start, len(texts))
        np.save(path, states)
    return torch.from_numpy(np.load(path))


def _digest(*parts: bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()[:16]
