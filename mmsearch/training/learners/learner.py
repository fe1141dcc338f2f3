"""What turns a batch into outputs: the networks of a recipe, and how its pictures and texts run through them.

In: `Batch`. Out: `Outputs`, all that the objective reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from mmsearch.errors import UsageError
from mmsearch.nn.dual_encoder import DualEncoder
from mmsearch.training.batch import Batch
from mmsearch.training.outputs import Outputs


class Learner(nn.Module, ABC):
    """Rows never depend on other rows, and randomness comes from torch's global generators alone, so that a batch can
    run in pieces, and once more (gradient cache).

    encoder: what is evaluated and kept; learners that pre-train one tower have none.
    """

    encoder: DualEncoder

    @abstractmethod
    def forward(self, batch: Batch) -> Outputs:
        """A batch of n rows -> n rows of everything that this learner makes."""

    def after_step(self) -> None:
        """Called once after each step of the optimiser; momentum averages move here."""

    def need(self, value: Tensor | None, name: str) -> Tensor:
        """The value, where data and tower have it. UsageError by name where they do not."""
        if value is None:
            raise UsageError(
                f"The learner {type(self).__name__} needs {name}, which neither the data nor the tower gives; choose "
                "another recipe (`mmsearch train --list` explains them)."
            )
        return value
