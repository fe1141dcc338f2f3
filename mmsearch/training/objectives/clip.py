"""CLIP: each picture finds its text among all texts of the batch, and each text its picture.

    loss = 1/2 mean_i CE(softmax_j(s_ij / t), P_i) + 1/2 mean_j CE(softmax_i(s_ij / t), P_j)

s_ij: cosine of picture i and text j; t: temperature, learnt; P_i: the target, shared evenly by all texts that belong
to picture i (van den Oord et al. 2018, arXiv 1807.03748; Radford et al. 2021, arXiv 2103.00020; several positives:
Khosla et al. 2020, arXiv 2004.11362).

Which one to choose: this one, unless there is a reason. `siglip` for small batches, `align` for noisy pairs,
`momentum` where the batch is small and memory short, `distillation` where there is a better teacher.
"""

from __future__ import annotations

from torch import Tensor, nn

from mmsearch.training.objectives.infonce import one_way
from mmsearch.training.objectives.pairs import pairs
from mmsearch.training.objectives.temperature import Temperature
from mmsearch.training.outputs import Outputs


class Clip(nn.Module):
    """temperature: where it starts.

    Two pairs, cosines [[1, 0], [0, 1]], temperature 1: the loss is -log(e / (e + 1)) = 0.3133.
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        self.temperature = Temperature(temperature)

    def forward(self, outputs: Outputs) -> Tensor:
        images, texts, positive = pairs(outputs, self)
        logits = self.temperature() * images @ texts.T  # (n, n)
        return (one_way(logits, positive) + one_way(logits.T, positive.T)) / 2
