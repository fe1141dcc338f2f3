"""What stands on the towers: a small head on each, and the concept channel beside them.

Image side: pooled features (n, 1280) and class logits (n, 1000). Text side: MiniLM's mean state (n, 384).
Out: rows of unit length, the head's part and the concept part beside each other.

The concept channel is ConSE (Norouzi et al. 2014, arXiv 1312.5650): the image tower's own classifier says which
classes a picture looks like, the text tower's vectors of their names say where that lies among words.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmsearch.nn.features import unit
from mmsearch.nn.towers.lite import IMAGE_WIDTH, TEXT_WIDTH


class Head(nn.Module):
    """A linear map plus a two-layer one: (n, width) -> (n, out), unit length. Heavy dropout: there is little data."""

    def __init__(self, width: int, out: int, hidden: int = 1024) -> None:
        super().__init__()
        self.line = nn.Linear(width, out)
        self.inner = nn.Linear(width, hidden)
        self.more = nn.Linear(hidden, out)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.gelu(self.inner(self.dropout(x)))
        return unit(self.line(x) + self.more(self.dropout(inner)))

    @torch.no_grad()
    def narrow(self, directions: Tensor) -> None:
        """Keep only what lies in these directions (k, out): the same rows, projected, in k numbers."""
        for layer in (self.line, self.more):
            layer.weight = nn.Parameter(directions @ layer.weight)
            layer.bias = nn.Parameter(directions @ layer.bias)


def main_directions(rows: Tensor, width: int) -> Tensor:
    """(n, out) -> (width, out): orthogonal directions in which these rows are longest."""
    directions: Tensor = torch.linalg.svd(rows.T @ rows, full_matrices=False).Vh[:width]
    return directions


def image_input(pooled: Tensor) -> Tensor:
    """Signed square root and one length for all: few strong features no longer drown the rest. (n, 1280)"""
    return unit(torch.sign(pooled) * pooled.abs().sqrt()) * math.sqrt(IMAGE_WIDTH)


def text_input(state: Tensor) -> Tensor:
    """One length for all. (n, 384)"""
    return unit(state) * math.sqrt(TEXT_WIDTH)


class Concepts(nn.Module):
    """Where classes lie among words. names: (1000, 384) MiniLM vectors of the class names.

    Both sides lose the mean over the classes and are projected on the `width` directions in which classes differ most.
    """

    def __init__(self, names: Tensor, width: int, top: int = 20, power: float = 0.7) -> None:
        super().__init__()
        names = unit(names)
        centre = names.mean(0)
        directions = torch.linalg.svd(names - centre, full_matrices=False).Vh[:width]  # (width, 384)
        self.top, self.power = top, power
        self.register_buffer("centre", centre)
        self.register_buffer("directions", directions.T.contiguous())  # (384, width)
        self.register_buffer("classes", (names - centre) @ directions.T)  # (1000, width)

    def of_images(self, logits: Tensor) -> Tensor:
        """(n, 1000) -> (n, width): the likeliest classes' words, weighted. Length 1 where the classifier is certain,
        towards 1/2 the less it is: what it says of a drawing counts for less."""
        likely, which = logits.softmax(-1).topk(self.top, dim=1)
        weight = (likely**self.power).unsqueeze(-1)  # (n, top, 1)
        seen = unit((weight * self.get_buffer("classes")[which]).sum(1))
        return seen * (1 + likely[:, :1]) / 2

    def of_texts(self, state: Tensor) -> Tensor:
        """(n, 384) -> (n, width)"""
        return unit((unit(state) - self.get_buffer("centre")) @ self.get_buffer("directions"))


class SaidConcepts(nn.Module):
    """What a text says in terms of the classes: (n, 384) -> (n, width), unit length. Begins as `Concepts.of_texts`, and
    learns what MiniLM does not say by itself: that a vehicle lies where its kinds lie, a gerenuk near other antelopes.
    """

    def __init__(self, concepts: Concepts, hidden: int = 768) -> None:
        super().__init__()
        directions = concepts.get_buffer("directions")  # (384, width)
        self.line = nn.Linear(*directions.shape)
        self.inner = nn.Linear(len(directions), hidden)
        self.more = nn.Linear(hidden, directions.shape[1])
        self.dropout = nn.Dropout(0.3)
        with torch.no_grad():
            self.line.weight.copy_(directions.T)
            self.line.bias.copy_(-concepts.get_buffer("centre") @ directions)
            self.more.weight.zero_()
            self.more.bias.zero_()

    def forward(self, state: Tensor) -> Tensor:
        rows = unit(state)
        return unit(self.line(rows) + self.more(F.gelu(self.inner(self.dropout(rows)))))


class ImageSide(nn.Module):
    """pooled (n, 1280), logits (n, 1000) -> (n, head + concept) unit length. weight: of the concepts in the product."""

    def __init__(self, head: Head, concepts: Concepts, weight: float) -> None:
        super().__init__()
        self.head, self.concepts, self.weight = head, concepts, weight

    def forward(self, pooled: Tensor, logits: Tensor) -> Tensor:
        return joined(self.head(image_input(pooled)), self.concepts.of_images(logits), self.weight)


class TextSide(nn.Module):
    """MiniLM's mean state (n, 384) -> (n, head + concept) unit length."""

    def __init__(self, head: Head, said: SaidConcepts, weight: float) -> None:
        super().__init__()
        self.head, self.said, self.weight = head, said, weight

    def forward(self, state: Tensor) -> Tensor:
        return joined(self.head(text_input(state)), self.said(state), self.weight)


def joined(head: Tensor, concepts: Tensor, weight: float) -> Tensor:
    """Both parts beside each other, one length for all; `weight`: of the concepts in a product."""
    return unit(torch.cat((head, math.sqrt(weight) * concepts), 1))
