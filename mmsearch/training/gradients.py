"""One backward pass over a batch that need not fit into memory.

In: a learner, an objective, a batch, how many rows are held at once. Out: gradients in the parameters, the loss.

Contrastive losses couple all rows, so a batch cannot simply be added up from smaller ones. The gradient cache (Gao,
Zhang, Han, Callan 2021, arXiv 2101.06983) goes three ways: all pieces forward without gradients; the loss of all
outputs, and its gradient at each output; all pieces forward once more, each backward from the gradient at its outputs.
The result is the gradient of one big batch, for the memory of one piece and a second forward pass. Random numbers
(dropout, hidden patches) are replayed. Where several processes share a batch, the objective sees the others' rows too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mmsearch.training.batch import Batch
from mmsearch.training.distributed import World
from mmsearch.training.outputs import Outputs, joined
from mmsearch.training.randomness import random_state, set_random_state

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def backward(
    learner: nn.Module,
    objective: nn.Module,
    batch: Batch,
    *,
    piece: int = 0,
    share: float = 1.0,
    precision: str = "fp32",
    scaler: torch.amp.GradScaler | None = None,
    world: World | None = None,
) -> float:
    """Add the gradient of share x loss to the parameters' `.grad`; -> the loss.

    piece: rows held at once; 0 means all. precision: fp32, bf16 or fp16 (products only; the objective sees float32).
    scaler: for fp16. With several processes, gradients of the learner are still each process's own part.
    """
    world, device = world or World(), batch.groups.device
    enlarge = scaler.scale if scaler else lambda loss: loss
    if not 0 < piece < len(batch):
        loss = objective(world.gather(_run(learner, batch, precision)))
        enlarge(loss * share).backward()
        return float(loss.detach())

    pieces = batch.pieces(piece)
    states, parts = [], []
    for rows in pieces:
        states.append(random_state(device))
        with torch.no_grad():
            parts.append(_run(learner, rows, precision))

    leaves: list[Tensor] = []
    loss = objective(world.gather(joined(parts).map(lambda value: _leaf(value, leaves))))
    enlarge(loss * share).backward()

    start = 0
    for rows, state in zip(pieces, states, strict=True):
        with _replayed(device, state):
            outputs = _run(learner, rows, precision)
        values: list[Tensor] = []
        outputs.map(lambda value, into=values: into.append(value) or value)  # type: ignore[misc]
        wanted = [
            (value, leaf.grad[start : start + len(rows)])
            for value, leaf in zip(values, leaves, strict=True)
            if leaf.grad is not None and value.requires_grad
        ]
        if wanted:
            torch.autograd.backward([value for value, _ in wanted], [grad for _, grad in wanted])
        start += len(rows)
    return float(loss.detach())


def _run(learner: nn.Module, batch: Batch, precision: str) -> Outputs:
    """Outputs as the networks make them; in float32 where the products were of half precision."""
    if precision == "fp32":
        plain: Outputs = learner(batch)
        return plain
    with torch.autocast(batch.groups.device.type, _DTYPES[precision]):
        outputs: Outputs = learner(batch)
    return outputs.map(lambda value: value.float() if value.is_floating_point() else value)


def _leaf(value: Tensor, leaves: list[Tensor]) -> Tensor:
    leaf = value.detach()
    if leaf.is_floating_point():
        leaf.requires_grad_()
    leaves.append(leaf)
    return leaf


@contextmanager
def _replayed(device: torch.device, state: Sequence[Tensor]) -> Iterator[None]:
    """Random numbers as they were; afterwards, go on from where we were."""
    now = random_state(device)
    set_random_state(device, state)
    yield
    set_random_state(device, now)
