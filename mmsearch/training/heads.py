"""What is trained: a small head on each frozen tower, and the concept channel beside them.

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

from mmsearch.training.frozen import IMAGE_WIDTH, TEXT_WIDTH


def unit(rows: Tensor) -> Tensor:
    """Length one for each row."""
    made: Tensor = F.normalize(rows, dim=-1)
    return made


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


@torch.no_grad()
def beside(heads: list[Head]) -> Head:
    """Several heads as one: their rows beside each other. A few heads from different seeds know more than one."""
    one = Head(
        heads[0].line.in_features,
        sum(head.line.out_features for head in heads),
        sum(head.more.in_features for head in heads),
    )
    one.inner.weight.copy_(torch.cat([head.inner.weight for head in heads]))
    one.inner.bias.copy_(torch.cat([head.inner.bias for head in heads]))
    one.line.weight.copy_(torch.cat([head.line.weight for head in heads]))
    one.line.bias.copy_(torch.cat([head.line.bias for head in heads]))
    one.more.weight.copy_(torch.block_diag(*[head.more.weight for head in heads]))  # type: ignore[no-untyped-call]
    one.more.bias.copy_(torch.cat([head.more.bias for head in heads]))
    return one.eval()


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


class ImageSide(nn.Module):
    """pooled (n, 1280), logits (n, 1000) -> (n, head + concept) unit length. weight: of the concepts in the product."""

    def __init__(self, head: Head, concepts: Concepts, weight: float) -> None:
        super().__init__()
        self.head, self.concepts, self.weight = head, concepts, weight

    def forward(self, pooled: Tensor, logits: Tensor) -> Tensor:
        parts = (self.head(image_input(pooled)), math.sqrt(self.weight) * self.concepts.of_images(logits))
        return unit(torch.cat(parts, 1))


class TextSide(nn.Module):
    """MiniLM's mean state (n, 384) -> (n, head + concept) unit length."""

    def __init__(self, head: Head, concepts: Concepts, weight: float) -> None:
        super().__init__()
        self.head, self.concepts, self.weight = head, concepts, weight

    def forward(self, state: Tensor) -> Tensor:
        parts = (self.head(text_input(state)), math.sqrt(self.weight) * self.concepts.of_texts(state))
        return unit(torch.cat(parts, 1))
