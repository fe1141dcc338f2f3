"""VSE++: a margin between the own text and all others, or the hardest of them; and the same for pictures.

    sum:      mean_i sum_j [m + s_ij - s_ii]+  +  mean_j sum_i [m + s_ij - s_jj]+
    hardest:  mean_i max_j [m + s_ij - s_ii]+  +  mean_j max_i [m + s_ij - s_jj]+

s_ij: cosine of picture i and text j; m: margin; what belongs together is no negative (sum: Kiros et al. 2014, arXiv
1411.2539; hardest: Faghri et al. 2018, arXiv 1707.05612, who add up over the batch what we average).

Which one to choose: `hardest` wins on clean captions once an encoder is good, as on locked towers; it can collapse
from a random start and on noisy pairs, where `sum` or a softmax over all negatives (`clip`) is safe. `devise` is the
half of `sum` that looks from pictures to texts.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from mmsearch.errors import UsageError
from mmsearch.training.objectives.hinge import hinges
from mmsearch.training.objectives.pairs import pairs
from mmsearch.training.outputs import Outputs


class Vse(nn.Module):
    """margin: in cosine. negatives: all that fail are added up, or the hardest counts alone."""

    def __init__(self, margin: float = 0.2, negatives: Literal["sum", "hardest"] = "hardest") -> None:
        super().__init__()
        if negatives not in ("sum", "hardest"):
            raise UsageError(f"The objective Vse has no negatives {negatives!r}; valid are: sum, hardest.")
        self.margin, self.negatives = margin, negatives

    def forward(self, outputs: Outputs) -> Tensor:
        images, texts, positive = pairs(outputs, self)
        scores = images @ texts.T  # (n, n)
        return self._one_way(scores, positive) + self._one_way(scores.T, positive.T)

    def _one_way(self, scores: Tensor, positive: Tensor) -> Tensor:
        failing = hinges(scores, scores.diagonal(), positive, self.margin)  # (n, n)
        return (failing.amax(1) if self.negatives == "hardest" else failing.sum(1)).mean()
