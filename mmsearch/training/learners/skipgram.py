"""Words grounded in pictures: the vectors of the words of each caption, beside the vector of its picture.

In: `Batch` with images and texts (n, t) int64 and mask. Out: image.pooled, text.pooled (n, d), unit length;
text.tokens (n, t, 2d), each word in the space of the pictures, then its vector as a neighbour of others; text.mask
(n, t); targets.tokens (n, t, 1) int64, which word it is.
(Lazaridou, Pham, Baroni 2015, arXiv 1501.02598)
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from mmsearch.errors import UsageError
from mmsearch.nn.dual_encoder import DualEncoder
from mmsearch.nn.features import Features
from mmsearch.nn.layers import START_STD
from mmsearch.nn.towers.words import WordBag
from mmsearch.training.batch import Batch
from mmsearch.training.learners.contrastive import seen
from mmsearch.training.learners.learner import Learner
from mmsearch.training.outputs import Outputs


class SkipGram(Learner):
    """The encoder's text tower is a `WordBag`: a text is the average of its words."""

    def __init__(self, encoder: DualEncoder) -> None:
        super().__init__()
        bag = encoder.text_tower
        if not isinstance(bag, WordBag):
            raise UsageError(
                f"The learner skipgram trains word vectors, not a {type(bag).__name__}; choose the text tower words."
            )
        self.encoder = encoder
        width = encoder.text_head(bag.embedding.weight[:1]).shape[1]  # of the space
        self.neighbours = nn.Embedding(bag.vocabulary, width)
        nn.init.normal_(self.neighbours.weight, std=START_STD)

    def forward(self, batch: Batch) -> Outputs:
        ids = self.need(batch.texts, "texts")
        said = self.encoder.texts(ids, self.need(batch.mask, "mask"))
        words = self.encoder.text_head(self.need(said.tokens, "tokens"))  # (n, t, d)
        return Outputs(
            image=seen(self.encoder, batch.images),
            text=replace(said, tokens=torch.cat([words, self.neighbours(ids)], -1)),
            targets=Features(tokens=ids[..., None]),
            groups=batch.groups,
        )
