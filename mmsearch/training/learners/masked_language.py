"""Masked language modelling: a text tower reads captions with some words hidden, and a head says which they were.

In: `Batch` with texts (n, t) int64 and mask. Out: text.tokens (n, k, vocabulary), logits at the hidden places;
targets.tokens (n, k, 1) int64, the words that were there; targets.mask (n, k), False where a text has fewer than k.
(Devlin et al. 2019, arXiv 1810.04805: of the hidden words 80 % are masked, 10 % another word, 10 % left as they are)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmsearch.nn.features import Features
from mmsearch.nn.towers.transformer import TextTransformer
from mmsearch.training.batch import Batch
from mmsearch.training.learners.learner import Learner
from mmsearch.training.outputs import Outputs

MASKED, REPLACED = 0.8, 0.1  # shares of the hidden words; the rest stays as it is


class MaskedLanguage(Learner):
    """mask_ratio: share of a text's words that are hidden, one at least. The logits share the tower's word vectors."""

    def __init__(self, tower: TextTransformer, mask_ratio: float = 0.15) -> None:
        super().__init__()
        self.tower, self.mask_ratio = tower, mask_ratio
        self.say = nn.Sequential(nn.Linear(tower.width, tower.width), nn.GELU(), nn.LayerNorm(tower.width))
        self.bias = nn.Parameter(torch.zeros(tower.vocabulary))
        self.register_buffer("special", torch.tensor(tower.special_tokens))

    def forward(self, batch: Batch) -> Outputs:
        ids, mask = self.need(batch.texts, "texts"), self.need(batch.mask, "mask")
        places, counts = self._choose(ids, mask.bool())  # (n, k) each
        true = ids.gather(1, places)
        shown = ids.scatter(1, places, torch.where(counts, self._disguised(true), true))
        states = self.need(self.tower(shown, mask).tokens, "tokens")
        chosen = states.gather(1, places[..., None].expand(-1, -1, states.shape[2]))  # (n, k, width)
        logits = self.say(chosen) @ self.tower.embedding.weight.T + self.bias  # (n, k, vocabulary)
        return Outputs(
            text=Features(tokens=logits),
            targets=Features(tokens=true[..., None], mask=counts),
            groups=batch.groups,
        )

    def _choose(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """-> places (n, k) in each text, and which of them count. k is the same for all texts of this length."""
        words = mask & ~torch.isin(ids, self.get_buffer("special"))  # (n, t)
        number = words.sum(1, keepdim=True)
        wanted = (number * self.mask_ratio).round().clamp(min=1).minimum(number)  # (n, 1)
        k = max(1, round(ids.shape[1] * self.mask_ratio))
        places = torch.rand(ids.shape, device=ids.device).masked_fill(~words, -1).topk(k, 1).indices  # words first
        return places, torch.arange(k, device=ids.device) < wanted

    def _disguised(self, true: Tensor) -> Tensor:
        """Words (n, k) -> what the tower reads in their place."""
        draw = torch.rand(true.shape, device=true.device)
        others = torch.randint(self.tower.vocabulary, true.shape, device=true.device)
        shown = torch.where(draw < MASKED + REPLACED, others, true)
        return shown.masked_fill(draw < MASKED, self.tower.mask_token)
