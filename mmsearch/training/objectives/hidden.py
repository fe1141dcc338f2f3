"""What objectives on hidden parts read.

In: `Outputs` with what a learner says and `targets`, whose mask is True where something was hidden.
Out: both at the hidden places alone, one row a place.
"""

from __future__ import annotations

from torch import Tensor

from mmsearch.nn.features import Features
from mmsearch.training.outputs import Outputs, need


def hidden(said: Features | None, name: str, outputs: Outputs, objective: object) -> tuple[Tensor, Tensor]:
    """-> said (k, w), true (k, v): tokens at the k hidden places of the batch. UsageError by name where one is
    missing."""
    tokens = need(need(said, name, objective).tokens, f"{name}.tokens", objective)
    targets = need(outputs.targets, "targets", objective)
    mask = need(targets.mask, "targets.mask", objective)
    return tokens[mask], need(targets.tokens, "targets.tokens", objective)[mask]
