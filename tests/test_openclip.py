"""open_clip encoders give what open_clip itself gives, in batches that fit into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmsearch.encoders import openclip
from mmsearch.encoders.openclip import OpenClipEncoder, choose_device, choose_precision, cut_to_square
from mmsearch.encoders.openclip_library import open_clip, quiet
from mmsearch.errors import (
    ModelError,
)
from tests.tiny_openclip import (
    TEXTS,
    new_model,
    picture,
    transform,
    unit,
    write_checkpoint,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    return write_checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def model(made: tuple[Any, Path]) -> Any:
    return made[0]


@pytest.fixture(scope="module")
def checkpoint(made: tuple[Any, Path]) -> Path:
    return made[1]


@pytest.fixture(scope="module")
def encoder(checkpoint: Path) -> OpenClipEncoder:
    return OpenClipEncoder(f"mmsearch-tiny/{checkpoint}", device="cpu")


def test_images_are_those_of_open_clip(encoder: OpenClipEncoder, model: Any) -> None:
    pictures = [picture(90, 40), picture(33, 70, 1), picture(32, 32, 2), picture(5, 9, 3)]
    with torch.no_grad():
        expected = unit(model.encode_image(torch.stack([transform(size=32)(p) for p in pictures])))
    found = encoder.encode_images([encoder.prepare(p) for p in pictures])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3  # else the comparison would prove nothing


@pytest.mark.parametrize("architecture", ["mmsearch-tiny", "mmsearch-tiny-custom", "mmsearch-tiny-biased"])
def test_texts_are_those_of_open_clip(architecture: str, tmp_path: Path) -> None:
    model = new_model(architecture)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    texts = TEXTS[:-1]
    with torch.no_grad():
        expected = unit(model.encode_text(open_clip().get_tokenizer(architecture)(texts)))
    encoder = OpenClipEncoder(f"{architecture}/{tmp_path / 'w.pt'}", device="cpu")
    np.testing.assert_allclose(encoder.encode_texts(texts), expected, atol=1e-6)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3


def test_texts_of_any_kind_and_length(encoder: OpenClipEncoder) -> None:
    endless = "x7" * 200_000  # one word; must not take minutes
    rows = encoder.encode_texts([*TEXTS, endless, "\x00", "&amp; " * 5000])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_no_token_is_longer_than_the_cut_assumes() -> None:
    with quiet():
        vocabulary = open_clip().get_tokenizer("ViT-B-32").encoder
    assert max(len(token.removesuffix("</w>")) for token in vocabulary) <= openclip._LONGEST_TOKEN


@settings(deadline=None, max_examples=150)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    mode=st.sampled_from(["shortest", "longest", "squash"]),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    side=st.sampled_from([16, 31, 32]),
)
def test_pictures_are_cut_as_open_clip_cuts_them(
    width: int, height: int, mode: str, interpolation: str, side: int
) -> None:
    if max(width, height) > 16 * min(width, height):
        return  # the next test: open_clip needs much memory for these, or fails
    given_picture = picture(width, height, width * 1000 + height)
    settings_ = {"size": side, "resize_mode": mode, "interpolation": interpolation, "fill_color": 7}
    expected = transform(**settings_, mean=(0, 0, 0), std=(1, 1, 1))(given_picture).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(cut_to_square(given_picture, settings_) / np.float32(255), expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(1, 1), (3000, 10), (1, 100_000)])
def test_extreme_pictures_cost_no_more(mode: str, size: tuple[int, int]) -> None:
    settings_ = {"size": 224, "resize_mode": mode, "interpolation": "bicubic", "fill_color": 0}
    assert cut_to_square(Image.new("RGB", size, (9, 9, 9)), settings_).shape == (224, 224, 3)


def test_other_modes_than_rgb_are_converted(encoder: OpenClipEncoder) -> None:
    grey = picture(50, 40).convert("L")
    np.testing.assert_array_equal(encoder.prepare(grey), encoder.prepare(grey.convert("RGB")))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_shorter_precision_stays_close(checkpoint: Path, encoder: OpenClipEncoder, precision: str) -> None:
    shorter = OpenClipEncoder(f"mmsearch-tiny/{checkpoint}", device="cpu", precision=precision)
    assert shorter.space == encoder.space
    prepared = [encoder.prepare(picture(40, 40, seed)) for seed in range(8)]
    for ours, full in (
        (shorter.encode_images(prepared), encoder.encode_images(prepared)),
        (shorter.encode_texts(TEXTS), encoder.encode_texts(TEXTS)),
    ):
        assert ours.dtype == np.float32
        assert (ours * full).sum(axis=1).min() >= 0.999
        assert not np.array_equal(ours, full)  # it was computed in the shorter type


def test_numbers_beyond_the_precision_are_an_error(checkpoint: Path, encoder: OpenClipEncoder, model: Any) -> None:
    broken = OpenClipEncoder(f"mmsearch-tiny/{checkpoint}", device="cpu")
    broken._model = Tower(model, error=None, factor=float("inf"))
    with pytest.raises(ModelError, match="beyond the range of fp32"):
        broken.encode_texts(["a dog"])


class Tower:
    """A model that fails with `error` on batches of more than `most`."""

    def __init__(self, model: Any, error: Exception | None, most: int = 1000, factor: float = 1.0) -> None:
        self.model, self.error, self.most, self.factor = model, error, most, factor
        self.sizes: list[int] = []

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._encode(self.model.encode_image, pixels)

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        return self._encode(self.model.encode_text, tokens)

    def _encode(self, encode: Any, batch: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(batch))
        if self.error is not None and len(batch) > self.most:
            raise self.error
        rows: torch.Tensor = encode(batch) * self.factor
        return rows


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
        MemoryError(),
    ],
)
@pytest.mark.parametrize("most", [1, 3])
def test_batches_are_halved_until_they_fit(
    checkpoint: Path, encoder: OpenClipEncoder, model: Any, error: Exception, most: int
) -> None:
    small = OpenClipEncoder(f"mmsearch-tiny/{checkpoint}", device="cpu")
    small._model = tower = Tower(model, error, most)
    prepared = [encoder.prepare(picture(40, 40, seed)) for seed in range(20)]
    np.testing.assert_allclose(small.encode_images(prepared), encoder.encode_images(prepared), atol=1e-6)
    assert tower.sizes[:3] == [20, 10, 5]
    tower.sizes.clear()
    texts = [f"text {i}" for i in range(9)]
    np.testing.assert_allclose(small.encode_texts(texts), encoder.encode_texts(texts), atol=1e-6)
    assert max(tower.sizes) <= most  # what it has learnt, it keeps


def test_one_item_that_does_not_fit_is_an_error(checkpoint: Path, model: Any) -> None:
    encoder = OpenClipEncoder(f"mmsearch-tiny/{checkpoint}", device="cpu")
    encoder._model = Tower(model, MemoryError(), most=0)
    with pytest.raises(ModelError, match="does not fit into the memory of cpu"):
        encoder.encode_texts(["a dog", "a cat"])


def test_other_failures_are_not_taken_for_want_of_memory(checkpoint: Path, model: Any) -> None:
    encoder = OpenClipEncoder(f"mmsearch-tiny/{checkpoint}", device="cpu")
    encoder._model = tower = Tower(model, RuntimeError("mat1 and mat2 shapes cannot be multiplied"), most=0)
    with pytest.raises(RuntimeError, match="shapes"):
        encoder.encode_texts(["a dog", "a cat"])
    assert tower.sizes == [2]


def test_devices() -> None:
    assert choose_device("cpu").type == "cpu"
    if torch.cuda.is_available():
        assert choose_device("auto").type == "cuda"
    else:
        with pytest.raises(ModelError, match="sees no device cuda here"):
            choose_device("cuda")
    with pytest.raises(ModelError, match="sees no device cuda:99 here"):
        choose_device("cuda:99")


def test_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_precision("auto", torch.device("cpu")) == "fp32"
    assert choose_precision("bf16", torch.device("cpu")) == "bf16"
    for capability, expected in (((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device, c=capability: c)
        assert choose_precision("auto", torch.device("cuda")) == expected
