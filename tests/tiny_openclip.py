"""Tiny open_clip architectures with random weights, for tests. They join open_clip's own through its own door."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mmsearch.encoders.openclip_library import open_clip, quiet

ROOT = Path(__file__).parents[1]
TINY: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
NAMES = {
    "mmsearch-tiny": TINY,
    "mmsearch-tiny-quickgelu": {**TINY, "quick_gelu": True},
    "mmsearch-tiny-48": {**TINY, "vision_cfg": {**TINY["vision_cfg"], "image_size": 48}},
    "mmsearch-tiny-custom": {**TINY, "custom_text": True},
    "mmsearch-tiny-biased": {**TINY, "custom_text": True, "init_logit_bias": -10},
    "mmsearch-tiny-wide": {**TINY, "embed_dim": 40},
    "mmsearch-tiny-oblong": {**TINY, "vision_cfg": {**TINY["vision_cfg"], "image_size": [32, 48]}},
    "mmsearch-tiny-words": {
        **TINY,
        "text_cfg": {**TINY["text_cfg"], "vocab_size": 10, "hf_tokenizer_name": "someone/words"},
    },
    "mmsearch-tiny-roberta": {
        **TINY,
        "text_cfg": {
            "hf_model_name": "someone/roberta",
            "hf_tokenizer_name": "someone/words",
            "context_length": 16,
            "hf_proj_type": "mlp",
            "hf_pooler_type": "mean_pooler",
        },
    },
}
TEXTS = ["a red sports car", "guitar", "ein Hund im Schnee", "", "a dog " * 40, "日本の城 🏯", "\ud800 broken"]


@functools.cache
def add_architectures() -> None:
    """Let open_clip know them, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        for name, config in NAMES.items():
            (Path(folder) / f"{name}.json").write_text(json.dumps(config))
        open_clip().add_model_config(Path(folder))


def new_model(architecture: str = "mmsearch-tiny", **options: Any) -> Any:
    """A random model of open_clip's own making; its weights are larger than usual, so that mistakes show."""
    add_architectures()
    torch.manual_seed(0)
    with quiet():
        model = open_clip().create_model(architecture, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def write_checkpoint(folder: Path, architecture: str = "mmsearch-tiny") -> tuple[Any, Path]:
    """-> the model and the file that holds its weights."""
    model = new_model(architecture)
    torch.save(model.state_dict(), folder / "tiny.pt")
    return model, folder / "tiny.pt"


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def transform(**preprocessing: Any) -> Any:
    """open_clip's own transform for inference."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    return image_transform_v2(PreprocessCfg(**preprocessing), is_train=False)


def unit(rows: torch.Tensor) -> np.ndarray[Any, Any]:
    return torch.nn.functional.normalize(rows.detach(), dim=-1).numpy()


def run_python(script: str, *arguments: str, **environment: str) -> str:
    """A script in a fresh interpreter, warnings as errors. -> its output."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout
