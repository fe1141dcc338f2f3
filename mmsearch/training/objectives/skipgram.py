"""Multimodal skip-gram: vectors of words that foretell their neighbours and lie near the pictures they are said of.

    loss     = language + visual_weight * visual
    language = mean over neighbours (s, r) of  - log sigmoid(u_s . c_r) - K E_w[ log sigmoid(-u_s . c_w) ]
    visual   = mean over words s of  K E_j[ max(0, m - cos(u_s, v_i) + cos(u_s, v_j)) ]
               + the same for the mean of the words of each caption

u_s, c_s: the vector of word s, and its vector as a neighbour; neighbours are at most `window` places apart in one
caption; w: words of other captions, drawn by their frequency^(3/4) in the batch; v_i: the picture of s; j: pictures
of which nobody says s; K: negatives; m: margin (Lazaridou, Pham, Baroni 2015, arXiv 1501.02598; negative sampling:
Mikolov et al. 2013, arXiv 1310.4546). The expectations are taken over the whole batch instead of K random draws. The
term of whole captions is ours: without it, words that show nothing (`and`) have any length, and spoil the mean.

Which one to choose: to learn words from captions in a minute, without a text network; the words are then averaged.
What they are told apart by is single words, not order: `clip` with a text tower reads more. Its learner is `skipgram`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmsearch.nn.features import unit
from mmsearch.training.objectives.hinge import hinges
from mmsearch.training.objectives.pairs import pairs
from mmsearch.training.outputs import Outputs, need

RARER = 0.75  # power of the frequencies, as published: rare words are drawn more often than they occur


class SkipGram(nn.Module):
    """text.tokens (n, t, 2d): each word's own vector, then its vector as a neighbour; text.mask (n, t);
    targets.tokens (n, t, 1) int64: which word it is; text.pooled, image.pooled (n, d), unit length.

    window: places to each side. negatives: what a wrong word or picture weighs against a right one. margin: in cosine.
    """

    def __init__(self, window: int = 5, negatives: int = 5, margin: float = 0.5, visual_weight: float = 1.0) -> None:
        super().__init__()
        self.window, self.negatives, self.margin, self.visual_weight = window, negatives, margin, visual_weight

    def forward(self, outputs: Outputs) -> Tensor:
        text, targets = need(outputs.text, "text", self), need(outputs.targets, "targets", self)
        words, neighbours = need(text.tokens, "text.tokens", self).chunk(2, -1)  # (n, t, d) each
        mask = need(text.mask, "text.mask", self)
        ids = need(targets.tokens, "targets.tokens", self)[..., 0]  # (n, t)
        images, captions, same = pairs(outputs, self)
        different, which = ids.unique(return_inverse=True)  # type: ignore[no-untyped-call]  # (v,), (n, t)
        counts = words.new_zeros(len(ids), len(different)).scatter_add_(1, which, mask.to(words))  # (n, v)
        visual = self._of_words(unit(words) @ images.T, mask, which, counts, same)
        visual = visual + self._failing(captions @ images.T, same).mean()
        return self._language(words, neighbours, mask, which, counts) + self.visual_weight * visual

    def _language(self, words: Tensor, neighbours: Tensor, mask: Tensor, which: Tensor, counts: Tensor) -> Tensor:
        places = torch.arange(words.shape[1], device=words.device)
        apart = (places[:, None] - places[None]).abs()  # (t, t)
        near = (apart > 0) & (apart <= self.window) & mask[:, :, None] & mask[:, None]  # (n, t, t)
        right = F.logsigmoid(words @ neighbours.transpose(1, 2))[near].sum()

        table = torch.zeros_like(neighbours[0, :1]).repeat(counts.shape[1], 1)  # (v, d): equal words have equal vectors
        table = table.index_add(0, which[mask], neighbours[mask]) / counts.sum(0).clamp(min=1)[:, None]
        chance = counts.sum(0) ** RARER * (counts == 0)  # (n, v): words of the own caption are no noise
        chance = chance / chance.sum(1, keepdim=True).clamp(min=1)
        wrong = (F.logsigmoid(-words @ table.T) * chance[:, None]).sum(-1) * near.sum(-1)  # (n, t)
        return -(right + self.negatives * wrong.sum()) / near.sum().clamp(min=1)

    def _of_words(self, scores: Tensor, mask: Tensor, which: Tensor, counts: Tensor, same: Tensor) -> Tensor:
        """scores (n, t, n): cosines of each word and each picture."""
        said = (counts > 0)[:, which].permute(1, 2, 0)  # (n, t, n): of picture j somebody says this word
        failing = self._failing(scores.transpose(0, 1), torch.maximum(said.to(same), same[:, None]).transpose(0, 1))
        return failing.T[mask].sum() / mask.sum().clamp(min=1)

    def _failing(self, scores: Tensor, positive: Tensor) -> Tensor:
        """(..., n, n) -> (..., n): K times the mean hinge over the pictures that are negative."""
        own = scores.diagonal(dim1=-2, dim2=-1)  # (..., n)
        failing = hinges(scores, own, positive, self.margin).sum(-1)
        return self.negatives * failing / (1 - positive).sum(-1).clamp(min=1)
