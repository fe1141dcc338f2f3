"""The layers of our own towers, each written once.

In and out: (n, t, width) states, with masks (n, t) bool, True where a token counts.
(attention: Vaswani et al. 2017, arXiv 1706.03762; norms before the layers: Xiong et al. 2020, arXiv 2002.04745;
patches: Dosovitskiy et al. 2021, arXiv 2010.11929)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmsearch.errors import UsageError

UNSEEN = -1e4  # added to the score of a key that does not count: e to its power is 0 in every precision
START_STD = 0.02  # of the numbers that weights, positions and learned tokens start from


class Attention(nn.Module):
    """Several heads, each with its own softmax over the keys: (n, t, width) -> (n, t, width).

    The keys are the states themselves, or a context (n, s, context_width). causal: a state sees those before it and
    itself. Where no key counts, all do: what comes out stays finite.
    """

    def __init__(self, width: int, heads: int, context_width: int | None = None, causal: bool = False) -> None:
        super().__init__()
        if width % heads:
            raise UsageError(f"A width of {width} cannot be shared by {heads} heads; choose one that divides it.")
        self.heads, self.causal = heads, causal
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_width or width, width)
        self.value = nn.Linear(context_width or width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """x (n, t, width); mask (n, s) bool over the keys; context (n, s, context_width) -> (n, t, width)."""
        keys = x if context is None else context
        query, key, value = self._split(self.query(x)), self._split(self.key(keys)), self._split(self.value(keys))
        seen = F.scaled_dot_product_attention(query, key, value, self._penalty(x, keys, mask))  # (n, heads, t, w/heads)
        made: Tensor = self.out(seen.transpose(1, 2).flatten(2))  # (n, t, width)
        return made

    def _split(self, x: Tensor) -> Tensor:
        """(n, t, width) -> (n, heads, t, width / heads)."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def _penalty(self, x: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor | None:
        """What is added to the scores: broadcasts to (n, heads, t, s)."""
        parts = []
        if mask is not None:
            parts.append((~mask)[:, None, None, :].to(x.dtype) * UNSEEN)  # (n, 1, 1, s)
        if self.causal:
            later = torch.ones(x.shape[1], keys.shape[1], dtype=x.dtype, device=x.device).triu(1)
            parts.append(later[None, None] * UNSEEN)  # (1, 1, t, s)
        return sum(parts[1:], parts[0]) if parts else None


class FeedForward(nn.Sequential):
    """Each state by itself through four times its width: (n, t, width) -> (n, t, width)."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


class Block(nn.Module):
    """Attention, then feed-forward, each behind a layer norm and added to what came in: (n, t, width) -> the same.

    With context_width, the attention is to a context (n, s, context_width), which has its own norm.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0, context_width: int | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.context_norm = nn.LayerNorm(context_width) if context_width else None
        self.attention = Attention(width, heads, context_width)
        self.forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """x (n, t, width); mask (n, s) bool over the keys; context (n, s, context_width) -> (n, t, width)."""
        if self.context_norm is not None and context is not None:
            context = self.context_norm(context)
        x = x + self.dropout(self.attention(self.norm(x), mask, context))
        more: Tensor = x + self.dropout(self.feed_forward(self.forward_norm(x)))
        return more


class PatchEmbedding(nn.Module):
    """Squares of a picture as states, with learned positions: pixels (n, side, side, 3) uint8 -> (n, p, width).

    p = (side / patch)^2, row by row from the top left.
    """

    def __init__(self, side: int, patch: int, width: int) -> None:
        super().__init__()
        if side % patch:
            raise UsageError(f"Pictures of {side} pixels cannot be cut into patches of {patch}; choose a divisor.")
        self.patch, self.grid = patch, side // patch
        self.line = nn.Linear(patch * patch * 3, width)
        self.positions = nn.Parameter(torch.randn(self.grid**2, width) * START_STD)

    def patchify(self, pixels: Tensor) -> Tensor:
        """(n, side, side, 3) uint8 -> (n, p, patch * patch * 3) float32 in [-1, 1]: rows, columns, colours."""
        x = pixels.float() / 127.5 - 1
        x = x.reshape(-1, self.grid, self.patch, self.grid, self.patch, 3)  # (n, down, row, across, column, 3)
        return x.permute(0, 1, 3, 2, 4, 5).flatten(1, 2).flatten(2)  # (n, p, patch * patch * 3)

    def forward(self, pixels: Tensor) -> Tensor:
        made: Tensor = self.line(self.patchify(pixels)) + self.positions
        return made


class Normalisation(nn.Module):
    """Pixels as published image towers read them: (n, side, side, 3) uint8 -> (n, 3, side, side) float32.

    mean, std: of values between 0 and 1, one for each colour.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) * 255)

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std


def start(module: nn.Module) -> None:
    """Small random weights and no bias, as `tower.apply(start)` gives them to every linear layer and table."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=START_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def mean_over(tokens: Tensor, mask: Tensor) -> Tensor:
    """tokens (n, t, w), mask (n, t) -> (n, w): the mean of those that count; zeros where none does."""
    weight = mask.to(tokens.dtype).unsqueeze(-1)  # (n, t, 1)
    return (tokens * weight).sum(1) / weight.sum(1).clamp(min=1)
