"""What a network says about a batch of pictures or texts; the words in which towers, learners and objectives talk.

pooled   (n, d)      one row a picture or text
tokens   (n, t, w)   one row a patch or word piece
mask     (n, t)      bool, True where a token counts (for masked training: where it was hidden)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


@dataclass(frozen=True, slots=True)
class Features:
    """pooled (n, d), tokens (n, t, w), mask (n, t); what was not made is None."""

    pooled: Tensor | None = None
    tokens: Tensor | None = None
    mask: Tensor | None = None


def unit(rows: Tensor) -> Tensor:
    """Length one for each row."""
    made: Tensor = F.normalize(rows, dim=-1)
    return made


def map_tensors(features: Features | None, change: Callable[[Tensor], Tensor]) -> Features | None:
    """The same features with each tensor replaced by what `change` makes of it."""
    if features is None:
        return None
    parts = (features.pooled, features.tokens, features.mask)
    return Features(*(None if part is None else change(part) for part in parts))


def concatenate(features: list[Features]) -> Features:
    """The features of several batches, in order, as those of one. All have the same parts."""
    rows = [[getattr(one, part) for one in features] for part in ("pooled", "tokens", "mask")]
    return Features(*(None if same[0] is None else torch.cat(same) for same in rows))
