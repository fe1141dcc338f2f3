"""Tensors and facts in one file that is whole or not there: safetensors, written beside and renamed.

In: tensors by name, facts as JSON. Out: a file that every program of the field reads (facts are its metadata), and
that is checked against its digest when it is loaded. No pickles.
(format: github.com/huggingface/safetensors)
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmsearch.errors import MMSearchError, WeightsMismatchError, WeightsNotFoundError

FORMAT = "mmsearch-checkpoint-1"
_CHUNK = 1 << 24  # bytes written at once: 16 MiB


def save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """facts: what JSON can hold. A file that was there stays whole until the new one is on the disk.
    Raises MMSearchError where it cannot be written; nothing is left behind then; after a kill,
    a part that the next `save` replaces."""
    from safetensors.torch import save as packed

    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    places = Counter(tensor.untyped_storage().data_ptr() for tensor in ready.values())
    for name, tensor in ready.items():
        if places[tensor.untyped_storage().data_ptr()] > 1:  # the format has no word for tensors that share memory
            ready[name] = tensor.clone()
    told = json.dumps(facts, sort_keys=True)
    content = packed(ready, {"format": FORMAT, "facts": told, "digest": _digest(ready, told)})
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("wb") as file:
                for start in range(0, len(content), _CHUNK):
                    file.write(content[start : start + _CHUNK])
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise MMSearchError(
            f"{path} cannot be written ({error.strerror or error}); what lies there is whole. "
            "Make room or name another folder, and go on from there."
        ) from error


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """-> the tensors and the facts. Raises WeightsNotFoundError, WeightsMismatchError."""
    from safetensors import SafetensorError
    from safetensors.torch import load as unpacked

    if not path.is_file():
        raise WeightsNotFoundError(f"{path} is not there; name a checkpoint that training has written.")
    try:
        content = path.read_bytes()  # safetensors opens no path that is not UTF-8
        tensors = unpacked(content)
        written = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]]).get("__metadata__", {})
    except (SafetensorError, OSError, ValueError, struct.error) as error:
        raise WeightsMismatchError(f"{path} is damaged or no checkpoint ({' '.join(str(error).split())}).") from error
    if written.get("format") != FORMAT:
        raise WeightsMismatchError(f"{path} was not written by mmsearch's training; name one of its checkpoints.")
    if written.get("digest") != _digest(tensors, written.get("facts", "")):
        raise WeightsMismatchError(f"{path} is damaged: its contents contradict its checksum; use an earlier one.")
    facts: dict[str, Any] = json.loads(written["facts"])
    return tensors, facts


def fingerprint(module: nn.Module) -> str:
    """sha256 over the names, types, shapes and bytes of all weights and statistics, as hex."""
    return _digest(module.state_dict(), "")


def _digest(tensors: Mapping[str, Tensor], told: str) -> str:
    digest = hashlib.sha256(told.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    """So that the new name outlasts a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
