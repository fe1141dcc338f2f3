"""Our own small text transformer: every token sees every other.

In: ids and mask (n, t) int64, 1 = token. Out: `Features`: the mean of the token states, and the states.
(Devlin et al. 2019, arXiv 1810.04805, with the norms before the layers)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmsearch.errors import UsageError
from mmsearch.nn.features import Features
from mmsearch.nn.layers import START_STD, Block, mean_over, start
from mmsearch.nn.towers.tower import Tower, stages_of
from mmsearch.nn.towers.word_pieces import SPECIAL


class TextTransformer(Tower):
    """tokenizer: the content of a `tokenizer.json` that knows [PAD], [CLS], [SEP] and [MASK] (see word_pieces.py).

    vocabulary: how many tokens there are. mask_token: the id that stands for a hidden one. special_tokens: ids that
    are no words, and are never hidden.
    """

    def __init__(
        self,
        tokenizer: str,
        width: int = 192,
        depth: int = 4,
        heads: int = 3,
        max_tokens: int = 64,
        dropout: float = 0.0,
    ) -> None:
        from tokenizers import Tokenizer

        super().__init__()
        read = Tokenizer.from_str(tokenizer)
        ids: dict[str, int] = {name: read.get_vocab().get(name, -1) for name in SPECIAL}
        if missing := [name for name, number in ids.items() if number < 0]:
            raise UsageError(f"The tokenizer has no {', '.join(missing)}; use one of word_pieces.py.")
        self.tokenizer, self.max_tokens, self.width = tokenizer, max_tokens, width
        self.vocabulary: int = read.get_vocab_size()
        self.mask_token: int = ids["[MASK]"]
        self.special_tokens: tuple[int, ...] = tuple(sorted(ids.values()))
        self.embedding = nn.Embedding(self.vocabulary, width)
        self.positions = nn.Parameter(torch.randn(max_tokens, width) * START_STD)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.apply(start)

    def forward(self, ids: Tensor, mask: Tensor) -> Features:
        counts = mask.bool()
        x = self.dropout(self.embedding(ids) + self.positions[: ids.shape[1]])  # (n, t, width)
        for block in self.blocks:
            x = block(x, counts)
        x = self.norm(x)
        return Features(pooled=mean_over(x, counts), tokens=x, mask=counts)

    def stages(self) -> list[nn.Module]:
        return stages_of(self.embedding, self.blocks, self.norm)
