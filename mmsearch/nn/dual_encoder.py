"""Two towers and two heads that share a space.

In: pixels (n, side, side, 3) uint8 or rows of a locked tower (n, w); tokens (n, t) int64 with their mask, or rows.
Out: `Features` whose `pooled` (n, d) has unit length; `tokens` and `mask` are the tower's own.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from mmsearch.nn.features import Features, unit


class DualEncoder(nn.Module):
    """image_tower(pixels) and text_tower(ids, mask) give `Features`; the heads map their `pooled` into the space."""

    def __init__(
        self, image_tower: nn.Module, text_tower: nn.Module, image_head: nn.Module, text_head: nn.Module
    ) -> None:
        super().__init__()
        self.image_tower, self.text_tower = image_tower, text_tower
        self.image_head, self.text_head = image_head, text_head

    def images(self, images: Tensor) -> Features:
        seen = Features(pooled=images) if images.is_floating_point() else self.image_tower(images)
        return replace(seen, pooled=unit(self.image_head(seen.pooled)))

    def texts(self, texts: Tensor, mask: Tensor | None = None) -> Features:
        said = Features(pooled=texts) if texts.is_floating_point() else self.text_tower(texts, mask)
        return replace(said, pooled=unit(self.text_head(said.pooled)))
