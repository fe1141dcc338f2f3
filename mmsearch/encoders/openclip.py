"""Encoders of open_clip: any of its architectures, with published weights or a local checkpoint. Extra: `clip`.

In: RGB pictures and texts. Out: unit-length float32 rows. What open_clip's own transform, tokenizer, `encode_image`
and `encode_text` give, on the best device that is there; tests compare the values.
(open_clip: Ilharco et al. 2021, github.com/mlfoundations/open_clip)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mmsearch.encoders.openclip_files import resolve
from mmsearch.encoders.openclip_library import quiet
from mmsearch.encoders.openclip_model import load_model, load_tokenizer
from mmsearch.encoders.protocol import Space
from mmsearch.errors import ModelError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
# No token of the vocabularies is longer; one endless word would otherwise keep the tokenizer busy for minutes.
_LONGEST_TOKEN = 32


class OpenClipEncoder:
    """An `Encoder` (see protocol.py). The model is loaded when it is first used, once for all threads.

    name: `ARCHITECTURE/TAG` or `ARCHITECTURE/FILE`. device: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N, mps.
    precision: auto (bf16 or fp16 on CUDA, whichever it is made for, else fp32), fp32, bf16, fp16. Below fp32, products
    are computed in the shorter type (autocast) and vectors keep a cosine of at least 0.999 to those of fp32; so
    precision and device are no part of the fingerprint.

    Raises UnknownModelError, WeightsNotFoundError, ModelError; on first use WeightsMismatchError.
    """

    def __init__(self, name: str, *, device: str = "auto", precision: str = "auto") -> None:
        self._source = resolve(name)
        self._device = choose_device(device)
        self._precision = choose_precision(precision, self._device)
        self._limit = self.batch_size
        self._lock = threading.RLock()
        self._space: Space | None = None
        self._model: Any = None
        self._tokenizer: Any = None

    @property
    def space(self) -> Space:
        """The first look reads the whole weights file, for its fingerprint."""
        with self._lock:
            if self._space is None:
                self._space = Space(self._source.name, self._source.fingerprint(), self._source.config["embed_dim"])
            return self._space

    @property
    def image_size(self) -> int:
        side: int = self._source.preprocessing["size"]
        return side

    @property
    def batch_size(self) -> int:
        return 256 if self._device.type == "cuda" else 32

    def prepare(self, picture: Image.Image) -> NDArray[np.uint8]:
        """RGB picture of any size -> (side, side, 3) uint8: what open_clip's transform holds before it normalises.
        The values are normalised on the device."""
        rgb = picture if picture.mode == "RGB" else picture.convert("RGB")
        return cut_to_square(rgb, self._source.preprocessing)

    def encode_images(self, prepared: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """n arrays from `prepare` -> (n, dimension) float32, unit length."""
        return self._in_batches(prepared, self._encode_images)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """n texts -> (n, dimension) float32, unit length. Texts longer than the tower's context are cut."""
        return self._in_batches(texts, self._encode_texts)

    def _encode_images(self, model: Any, batch: Sequence[NDArray[Any]]) -> torch.Tensor:
        mean = torch.tensor(self._source.preprocessing["mean"], device=self._device).view(3, 1, 1)
        std = torch.tensor(self._source.preprocessing["std"], device=self._device).view(3, 1, 1)
        pixels = torch.from_numpy(np.stack(batch)).to(self._device)  # (m, side, side, 3) uint8
        pixels = pixels.permute(0, 3, 1, 2).contiguous().float()  # (m, 3, side, side)
        features: torch.Tensor = model.encode_image(pixels.div(255).sub(mean).div(std))
        return features

    def _encode_texts(self, model: Any, batch: Sequence[str]) -> torch.Tensor:
        with self._lock:  # fast tokenizers cannot be used by two threads at a time
            if self._tokenizer is None:
                self._tokenizer = load_tokenizer(self._source)
            longest = self._tokenizer.context_length * _LONGEST_TOKEN
            cleaned = (" ".join(text.encode("utf-8", "replace").decode().split()) for text in batch)
            tokens = self._tokenizer([text[:longest] for text in cleaned])  # (m, context) int64
        features: torch.Tensor = model.encode_text(tokens.to(self._device))
        return features

    def _in_batches(self, items: Sequence[Any], encode: Callable[[Any, Any], torch.Tensor]) -> NDArray[np.float32]:
        """Encode all items, in batches that fit into memory: a batch that does not is halved, down to one item.
        encode(model, batch) -> (m, dimension) features of any length."""
        rows = np.empty((len(items), self._source.config["embed_dim"]), np.float32)
        model = self._loaded_model() if items else None
        start = 0
        while start < len(items):
            batch = items[start : start + self._limit]
            found = self._try(encode, model, batch)
            if found is not None:
                rows[start : start + len(batch)] = found
                start += len(batch)
            elif len(batch) == 1:
                raise self._too_large("even with one item at a time")
            else:
                self._limit = len(batch) // 2
                if self._device.type == "cuda":
                    torch.cuda.empty_cache()
        return rows

    def _try(self, encode: Callable[[Any, Any], torch.Tensor], model: Any, batch: Any) -> NDArray[np.float32] | None:
        """-> (m, dimension) float32, unit length; None when memory ran out (this frame lets go of what it held)."""
        shorter = self._precision != "fp32"
        try:
            with (
                torch.inference_mode(),
                torch.autocast(self._device.type, _DTYPES[self._precision], enabled=shorter),
            ):
                features = encode(model, batch).float()
                found: NDArray[np.float32] = (features / features.norm(dim=-1, keepdim=True)).cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            if _out_of_memory(error):
                return None
            raise
        if not np.isfinite(found).all():
            raise ModelError(
                f"{self._source.name} gives numbers beyond the range of {self._precision}; "
                "use --precision fp32, or other weights if that is what it ran with."
            )
        return found

    def _loaded_model(self) -> Any:
        with self._lock:
            if self._model is None:
                try:
                    self._model = load_model(self._source).to(self._device)
                except (RuntimeError, MemoryError) as error:
                    if _out_of_memory(error):
                        raise self._too_large("even alone") from error
                    raise
            return self._model

    def _too_large(self, when: str) -> ModelError:
        return ModelError(
            f"{self._source.name} does not fit into the memory of {self._device}, {when}; "
            "choose a smaller model or another --device."
        )


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY)


def choose_device(wish: str) -> torch.device:
    """`auto` or a device's name -> the device. Raises ModelError where it is not there."""
    with quiet():  # an old driver makes the question itself warn
        cudas = torch.cuda.device_count() if torch.cuda.is_available() else 0
        mps = torch.backends.mps.is_available()
    if wish == "auto":
        return torch.device("cuda" if cudas else "mps" if mps else "cpu")
    device = torch.device(wish)
    there = {"cuda": (device.index or 0) < cudas, "mps": mps, "cpu": True}[device.type]
    if not there:
        raise ModelError(f"torch {torch.__version__} sees no device {wish} here; leave out --device, or use cpu.")
    return device


def choose_precision(wish: str, device: torch.device) -> str:
    """`auto`, fp32, bf16, fp16 -> one of the last three."""
    if wish != "auto":
        return wish
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"


def cut_to_square(picture: Image.Image, preprocessing: dict[str, Any]) -> NDArray[np.uint8]:
    """RGB picture -> (side, side, 3) uint8, pixel for pixel what open_clip's `image_transform` resizes and crops.

    shortest: the centre square. longest: the whole picture, the rest filled. squash: the whole picture, its
    proportions give way. Where `shortest` meets a strip of more than 1:16, it sees the middle of that only, as the
    whole strip, resized to the height of the square, may not fit into memory.
    """
    side = preprocessing["size"]
    resample = Image.Resampling.BILINEAR if preprocessing["interpolation"] == "bilinear" else Image.Resampling.BICUBIC
    width, height = picture.size
    if preprocessing["resize_mode"] == "squash":
        return np.asarray(picture.resize((side, side), resample))
    if preprocessing["resize_mode"] == "longest":
        ratio = max(width, height) / side
        small = picture.resize((max(1, round(width / ratio)), max(1, round(height / ratio))), resample)
        canvas = Image.new("RGB", (side, side), (preprocessing["fill_color"],) * 3)
        canvas.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
        return np.asarray(canvas)
    short = min(width, height)
    if max(width, height) > 16 * short:
        left, top = max(0, width - 16 * short) // 2, max(0, height - 16 * short) // 2
        picture = picture.crop((left, top, width - left, height - top))
        width, height = picture.size
    resized = picture.resize((int(side * width / short), int(side * height / short)), resample)
    left, top = round((resized.width - side) / 2), round((resized.height - side) / 2)
    return np.asarray(resized.crop((left, top, left + side, top + side)))
