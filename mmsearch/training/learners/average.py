"""The momentum average of a network, which teaches it: a copy that is never trained and follows slowly.

(Tarvainen & Valpola 2017, arXiv 1703.01780; He et al. 2020, arXiv 1911.05722)
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def untrained_copy(network: Network) -> Network:
    """The same weights, none of which asks for a gradient."""
    made = copy.deepcopy(network)
    made.requires_grad_(False)
    return made.eval()


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, momentum: float) -> None:
    """average = momentum x average + (1 - momentum) x network, weight by weight; buffers are taken as they are."""
    for mean, weight in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(weight, 1 - momentum)
    for old, new in zip(average.buffers(), network.buffers(), strict=True):
        old.copy_(new)
