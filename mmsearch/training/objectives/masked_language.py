"""Masked language modelling: which words were hidden?

    loss = - mean over hidden places of  log softmax(logits)[true word]

(Devlin et al. 2019, arXiv 1810.04805)

Which one to choose: to pre-train a text tower on captions alone, before a contrastive objective; worth it where texts
are many and pairs few. Its learner is `masked_language`.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmsearch.training.objectives.hidden import hidden
from mmsearch.training.outputs import Outputs


class MaskedLanguage(nn.Module):
    """text.tokens (n, k, vocabulary): logits; targets.tokens (n, k, 1) int64: ids; targets.mask (n, k): True where a
    word was hidden. A batch in which nothing was gives 0."""

    def __init__(self) -> None:  # a recipe reads here that nothing can be set
        super().__init__()

    def forward(self, outputs: Outputs) -> Tensor:
        logits, ids = hidden(outputs.text, "text", outputs, self)  # (k, vocabulary), (k, 1)
        return F.cross_entropy(logits, ids[:, 0], reduction="sum") / max(len(ids), 1)
