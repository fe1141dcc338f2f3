"""What a learner makes of one batch, and all that an objective may read. One class for all objectives, so that any
objective runs in the one loop, whole or in pieces (gradient cache), in one process or in many.

    image, text       of the two towers; `pooled` has unit length where both share a space
    second            a second view of the same pictures (SimCLR)
    teacher_image, teacher_text    of a teacher: a larger encoder, or the momentum average of the learner itself
    targets           what is to be predicted: patches, tokens, teacher's states
    groups            (n, g) int64: what a row is about, in g respects (its picture, its caption, its label); rows
                      that share a number other than -1 in one of the respects belong together

Positives of a batch, worked: groups [[0, 5], [1, 5], [2, -1]] -> rows 0 and 1 share caption 5; row 2 has only itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from mmsearch.errors import UsageError
from mmsearch.nn.features import Features, concatenate, map_tensors

Part = TypeVar("Part", Features, Tensor)


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the recipe makes; the rest is None. All have the same n rows, in the same order."""

    image: Features | None = None
    text: Features | None = None
    second: Features | None = None
    teacher_image: Features | None = None
    teacher_text: Features | None = None
    targets: Features | None = None
    groups: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Outputs:
        """Each tensor replaced by what `change` makes of it."""
        made = {one.name: map_tensors(getattr(self, one.name), change) for one in fields(self) if one.name != "groups"}
        return Outputs(**made, groups=None if self.groups is None else change(self.groups))


def joined(parts: list[Outputs]) -> Outputs:
    """Outputs of several batches, in order, as those of one."""
    whole = Outputs()
    for one in fields(Outputs):
        values = [getattr(part, one.name) for part in parts]
        if values[0] is not None:
            made: Any = torch.cat(values) if one.name == "groups" else concatenate(values)
            whole = replace(whole, **{one.name: made})
    return whole


def need(value: Part | None, name: str, objective: object) -> Part:
    """The value, where the learner made it. UsageError by name where it did not."""
    if value is None:
        raise UsageError(
            f"The objective {type(objective).__name__} needs {name}, which this recipe does not make; "
            "choose another objective or recipe (`mmsearch train --list` explains them)."
        )
    return value


def positives(groups: Tensor, others: Tensor | None = None) -> Tensor:
    """groups (n, g), others (m, g; the same rows without) -> (n, m) float32, 1 where two rows belong together."""
    across = groups if others is None else others
    same = (groups[:, None] == across[None]) & (groups[:, None] >= 0)  # (n, m, g)
    return same.any(-1).float()
