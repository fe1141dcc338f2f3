"""What the towers say about pictures and texts outside training: in batches, without gradients, in float32 or bfloat16.

In: examples or texts, a tower. Out: torch tensors.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from mmsearch.encoders.preprocess import squeeze
from mmsearch.nn.towers.lite import IMAGE_SIDE, TEXT_WIDTH, LiteTextTower
from mmsearch.nn.towers.packages import minilm_folder
from mmsearch.training.sources import Example

MAX_TOKENS = 64
TEXTS_AT_ONCE = 64


def pixels(examples: list[Example]) -> NDArray[np.uint8]:
    """(n, 260, 260, 3) uint8, prepared as in use."""
    return np.stack([squeeze(example.open(), IMAGE_SIDE) for example in examples])


def trimmed_tokenizer() -> Tokenizer:
    """MiniLM's own tokenizer, cut at MAX_TOKENS, without padding."""
    tokenizer = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


class Words:
    """Texts as numbers: each is tokenised once."""

    def __init__(self) -> None:
        self._tokenizer = trimmed_tokenizer()
        self._known: dict[str, list[int]] = {}

    def states(self, tower: LiteTextTower, texts: list[str]) -> Tensor:
        """n texts -> (n, 384), with gradients where the tower has some. Like lengths run together: little padding."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        for text, encoding in zip(new, self._tokenizer.encode_batch(new), strict=True):
            self._known[text] = encoding.ids
        tokens = [self._known[text] for text in texts]
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        states = [
            tower(*_padded([tokens[i] for i in order[start : start + TEXTS_AT_ONCE]])).pooled
            for start in range(0, len(order), TEXTS_AT_ONCE)
        ]
        back = torch.empty(len(order), dtype=torch.long)
        back[order] = torch.arange(len(order))
        return torch.cat(states)[back] if states else torch.empty(0, TEXT_WIDTH)

    @torch.no_grad()
    def quickly(self, tower: LiteTextTower, texts: list[str]) -> Tensor:
        """The same, multiplied in bfloat16."""
        with torch.autocast("cpu", torch.bfloat16):
            return self.states(tower, texts)


def _padded(tokens: list[list[int]]) -> tuple[Tensor, Tensor]:
    """-> ids, mask (n, longest)"""
    ids = torch.zeros(len(tokens), max(map(len, tokens)), dtype=torch.long)
    for row, own in enumerate(tokens):
        ids[row, : len(own)] = torch.tensor(own)
    return ids, (torch.arange(ids.shape[1]) < torch.tensor([len(own) for own in tokens])[:, None]).long()
