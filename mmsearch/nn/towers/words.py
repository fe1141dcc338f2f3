"""A text as a bag of words: the mean of their vectors, without their order.

In: ids and mask (n, t) int64, 1 = token. Out: `Features`: the mean over the words, and the vector of each.
(Mikolov et al. 2013, arXiv 1301.3781; Wieting et al. 2016, arXiv 1511.08198)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmsearch.nn.features import Features
from mmsearch.nn.layers import mean_over, start
from mmsearch.nn.towers.tower import Tower
from mmsearch.nn.towers.word_pieces import SPECIAL


class WordBag(Tower):
    """tokenizer: the content of a `tokenizer.json`. vocabulary: how many tokens there are. Beginnings, ends and
    unknown words are no words: the mask of the features leaves them out."""

    def __init__(self, tokenizer: str, width: int = 192, max_tokens: int = 64) -> None:
        from tokenizers import Tokenizer

        super().__init__()
        read = Tokenizer.from_str(tokenizer)
        self.tokenizer, self.width, self.max_tokens = tokenizer, width, max_tokens
        self.vocabulary: int = read.get_vocab_size()
        special = [number for name in SPECIAL if (number := read.token_to_id(name)) is not None]
        self.register_buffer("special", torch.tensor(special, dtype=torch.int64))
        self.embedding = nn.Embedding(self.vocabulary, width)
        self.apply(start)

    def forward(self, ids: Tensor, mask: Tensor) -> Features:
        no_word = (ids.unsqueeze(-1) == self.get_buffer("special")).any(-1)  # (n, t); ONNX has no `isin`
        counts = mask.bool() & ~no_word
        x = self.embedding(ids)  # (n, t, width)
        return Features(pooled=mean_over(x, counts), tokens=x, mask=counts)

    def stages(self) -> list[nn.Module]:
        return [self.embedding]
