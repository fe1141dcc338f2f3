"""One backward pass over a batch that need not fit into memory.

In: a learner, an objective, a batch, how many rows are held at once. Out: gradients in the parameters, the loss.

Contrastive losses couple all rows, so a batch cannot simply be added up from smaller ones. The gradient cache (Gao,
Zhang, Han, Callan 2021, arXiv 2101.06983) goes three ways: all pieces forward without gradients; the loss of all
outputs, and its gradient at each output; all pieces forward once more, each backward from the gradient at its outputs.
The result is the gradient of one big batch, for the memory of one piece and a second forward pass. Random numbers
(dropout, hidden patches) are replayed. Where several processes share a batch, the same cache has the others' rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mmsearch.training.batch import Batch
from mmsearch.training.distributed import World
from mmsearch.training.outputs import Outputs, joined

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


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
    world = world or World()
    enlarge = scaler.scale if scaler else lambda loss: loss
    if world.size == 1 and not 0 < piece < len(batch):
        loss = objective(_run(learner, batch, precision))
        enlarge(loss * share).backward()
        return float(loss.detach())

    pieces = batch.pieces(piece or len(batch))
    states, parts = [], []
    for rows in pieces:
        states.append(_random_state(rows))
        with torch.no_grad():
            parts.append(_run(learner, rows, precision))

    leaves: list[Tensor] = []
    loss = objective(world.gather(joined(parts).map(lambda value: _leaf(value, leaves))))
    enlarge(loss * share).backward()

    start = 0
    for rows, state in zip(pieces, states, strict=True):
        with _replayed(rows, state):
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
    """Outputs in float32."""
    device = batch.groups.device.type
    with torch.autocast(device, _DTYPES[precision], enabled=precision != "fp32"):
        outputs: Outputs = learner(batch)
    return outputs.map(lambda value: value.float() if value.is_floating_point() else value)


def _leaf(value: Tensor, leaves: list[Tensor]) -> Tensor:
    leaf = value.detach()
    if leaf.is_floating_point():
        leaf.requires_grad_()
    leaves.append(leaf)
    return leaf


def _random_state(batch: Batch) -> list[Tensor]:
    device = batch.groups.device
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])


@contextmanager
def _replayed(batch: Batch, state: list[Tensor]) -> Iterator[None]:
    """Random numbers as they were; afterwards, go on from where we were."""
    device = batch.groups.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.set_rng_state(state[0])
        if device.type == "cuda":
            torch.cuda.set_rng_state(state[1], device)
        yield
