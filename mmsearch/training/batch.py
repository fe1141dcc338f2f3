"""One step's worth of material, as the data layer hands it to a learner.

Pictures come as pixels, or as rows that a locked tower gave and that lie in the feature cache; texts likewise. A
learner tells them apart by their type: pixels are uint8, tokens int64, cached rows floating point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """n rows. images: (n, side, side, 3) uint8, or (n, w) of a locked tower. second: another view of the same.
    texts: (n, t) int64, or (n, w) of a locked tower; mask (n, t): 1 = token, 0 = padding.
    teacher_images, teacher_texts: (n, w) vectors of a teacher encoder. groups (n, g): see outputs.py."""

    groups: Tensor
    images: Tensor | None = None
    second: Tensor | None = None
    texts: Tensor | None = None
    mask: Tensor | None = None
    teacher_images: Tensor | None = None
    teacher_texts: Tensor | None = None

    def __len__(self) -> int:
        return len(self.groups)

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Each tensor replaced by what `change` makes of it, as in `batch.map(lambda t: t[:8])`."""
        parts = {one.name: getattr(self, one.name) for one in fields(self)}
        made: dict[str, Any] = {name: None if part is None else change(part) for name, part in parts.items()}
        return Batch(**made)

    def pieces(self, size: int) -> list[Batch]:
        """The rows in order, at most `size` each."""
        return [self.map(lambda t, s=start: t[s : s + size]) for start in range(0, len(self), size)]  # type: ignore[misc]
