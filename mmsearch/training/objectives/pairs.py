"""What objectives on pairs read.

In: `Outputs` with image and text. Out: n picture vectors, n text vectors, and the matrix of which belong together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmsearch.nn.features import Features
from mmsearch.training.outputs import Outputs, need, positives


def pairs(outputs: Outputs, objective: object) -> tuple[Tensor, Tensor, Tensor]:
    """-> images (n, d), texts (n, d), unit length; positive (n, n). UsageError by name where a part is missing."""
    images, texts = pooled(outputs.image, "image", objective), pooled(outputs.text, "text", objective)
    return images, texts, together(outputs.groups, images)


def pooled(features: Features | None, name: str, objective: object) -> Tensor:
    """One row a picture or text. UsageError by name where there is none."""
    return need(need(features, name, objective).pooled, f"{name}.pooled", objective)


def together(groups: Tensor | None, rows: Tensor) -> Tensor:
    """groups (n, g) or None, rows (n, d) -> (n, n) of the rows' type: 1 where two belong together, else 0. A row
    belongs to itself, whether a group says so or not."""
    own = torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
    return own if groups is None else torch.maximum(own, positives(groups).to(own))
