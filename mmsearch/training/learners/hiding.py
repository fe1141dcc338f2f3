"""Which patches of each picture are hidden: as many in each, at random."""

from __future__ import annotations

import torch
from torch import Tensor

from mmsearch.errors import UsageError


def random_order(rows: int, patches: int, device: torch.device) -> Tensor:
    """-> (rows, patches) int64: the patches of each row, shuffled."""
    return torch.rand(rows, patches, device=device).argsort(1)


def how_many(patches: int, mask_ratio: float) -> int:
    """Hidden ones of so many patches. UsageError unless some are hidden and some are not."""
    number = round(patches * mask_ratio)
    if not 0 < number < patches:
        raise UsageError(
            f"mask_ratio={mask_ratio} hides {number} of {patches} patches; choose a share that hides some, not all."
        )
    return number
