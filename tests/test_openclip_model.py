"""A checkpoint is loaded whole or refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmsearch.encoders.openclip import OpenClipEncoder
from mmsearch.errors import (
    WeightsMismatchError,
)
from tests.tiny_openclip import (
    TEXTS,
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


def test_wrapped_checkpoints_give_the_same_vectors(encoder: OpenClipEncoder, model: Any, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = {key: value.clone() for key, value in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "training.pt")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "distributed.pt")
    save_file(state, tmp_path / "w.safetensors")
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    torch.save(half, tmp_path / "half.pt")
    expected = encoder.encode_texts(TEXTS)
    for file, tolerance in (("training.pt", 0), ("distributed.pt", 0), ("w.safetensors", 0), ("half.pt", 2e-3)):
        found = OpenClipEncoder(f"mmsearch-tiny/{tmp_path / file}", device="cpu").encode_texts(TEXTS)
        np.testing.assert_allclose(found, expected, atol=tolerance, rtol=0)


def broken_states(model: Any) -> dict[str, tuple[dict[str, torch.Tensor], str]]:
    state = model.state_dict()
    without = {k: v for k, v in state.items() if not k.startswith("visual.ln_post")}
    return {
        "missing": (without, r"2 missing \(visual.ln_post.bias, visual.ln_post.weight\)"),
        "unknown": ({**state, "visual.extra": torch.zeros(2)}, r"1 unknown \(visual.extra\)"),
        "shape": ({**state, "visual.proj": torch.zeros(32, 5)}, r"visual.proj is 32x5 instead of 32x24"),
        "grid": ({**state, "visual.positional_embedding": torch.zeros(37, 32)}, r"is 37x32 instead of 17x32"),
        "context": ({**state, "positional_embedding": torch.zeros(77, 32)}, r"is 77x32 instead of 16x32"),
        "empty": ({}, "missing"),
    }


@pytest.mark.parametrize("case", ["missing", "unknown", "shape", "grid", "context", "empty"])
def test_weights_that_do_not_fit_are_refused(model: Any, tmp_path: Path, case: str) -> None:
    state, reason = broken_states(model)[case]
    torch.save(state, tmp_path / "w.pt")
    encoder = OpenClipEncoder(f"mmsearch-tiny/{tmp_path / 'w.pt'}", device="cpu")
    for _ in range(2):  # and they stay refused
        with pytest.raises(WeightsMismatchError, match=reason) as caught:
            encoder.encode_texts(["a dog"])
    assert "\n" not in str(caught.value)
    assert "mmsearch-tiny" in str(caught.value)


def test_weights_of_another_architecture_are_refused(checkpoint: Path) -> None:
    for other in ("mmsearch-tiny-wide", "mmsearch-tiny-48"):
        with pytest.raises(WeightsMismatchError, match="does not fit the architecture"):
            OpenClipEncoder(f"{other}/{checkpoint}", device="cpu").encode_texts(["a dog"])


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    contents = [b"", b"not a checkpoint", b"PK\x03\x04 cut off"]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(WeightsMismatchError, match="not a checkpoint that can be read"):
            OpenClipEncoder(f"mmsearch-tiny/{path}", device="cpu").encode_texts(["a dog"])


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    torch.save({"state_dict": Hostile(tmp_path / "made")}, tmp_path / "w.pt")
    with pytest.raises(WeightsMismatchError, match="safely"):
        OpenClipEncoder(f"mmsearch-tiny/{tmp_path / 'w.pt'}", device="cpu").encode_texts(["a dog"])
    assert not (tmp_path / "made").exists()


def test_a_checkpoint_holds_tensors_by_name(tmp_path: Path) -> None:
    torch.save([1, 2, 3], tmp_path / "w.pt")
    with pytest.raises(WeightsMismatchError, match="no weights by name"):
        OpenClipEncoder(f"mmsearch-tiny/{tmp_path / 'w.pt'}", device="cpu").encode_texts(["a dog"])
