"""What the towers say about pictures and texts outside training: in batches, without gradients, in float32 or bfloat16.

In: examples or texts, a tower. Out: torch tensors.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmsearch.encoders.preprocess import squeeze
from mmsearch.nn.towers.lite import IMAGE_SIDE, MAX_TOKENS, TEXT_WIDTH, LiteTextTower
from mmsearch.nn.towers.word_pieces import minilm_word_pieces
from mmsearch.training.sources import Example
from mmsearch.training.tokens import Tokens

TEXTS_AT_ONCE = 64


def pixels(examples: list[Example]) -> NDArray[np.uint8]:
    """(n, 260, 260, 3) uint8, prepared as in use."""
    return np.stack([squeeze(example.open(), IMAGE_SIDE) for example in examples])


class Words:
    """Texts as numbers."""

    def __init__(self) -> None:
        self._tokens = Tokens(minilm_word_pieces(), MAX_TOKENS)

    def states(self, tower: LiteTextTower, texts: list[str]) -> Tensor:
        """n texts -> (n, 384), with gradients where the tower has some. Like lengths run together: little padding."""
        if not texts:
            return torch.empty(0, TEXT_WIDTH)
        ids, mask = map(torch.from_numpy, self._tokens(texts))
        lengths = mask.sum(1)
        order = lengths.argsort(stable=True)
        states = []
        for some in torch.split(order, TEXTS_AT_ONCE):
            longest = int(lengths[some[-1]])
            states.append(tower(ids[some, :longest], mask[some, :longest]).pooled)
        return torch.cat(states)[order.argsort()]

    @torch.no_grad()
    def quickly(self, tower: LiteTextTower, texts: list[str]) -> Tensor:
        """The same, multiplied in bfloat16."""
        with torch.autocast("cpu", torch.bfloat16):
            return self.states(tower, texts)
