"""Training in several processes that share one batch, as torchrun starts them.

In: the environment that torchrun sets (RANK, WORLD_SIZE, LOCAL_RANK), or nothing: then there is one process.
Out: `World`: who we are, and how rows and gradients meet. Every process computes its own rows, sees the rows of all
others as negatives, and ends each step with the same weights. Backend: nccl on CUDA, else gloo.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F  # noqa: N812

from mmsearch.errors import UsageError
from mmsearch.training.outputs import Outputs, joined

PATIENCE = timedelta(days=1)  # the others wait while rank 0 fills a cache or evaluates; torchrun ends those left alone


@dataclass(frozen=True, slots=True)
class World:
    """rank: 0 to size - 1. One process alone is World()."""

    rank: int = 0
    size: int = 1

    def gather(self, outputs: Outputs) -> Outputs:
        """The rows of all processes in order of rank. Gradients flow into our own rows only; as every process does
        the same, the sum of all their gradients is that of one process with all rows."""
        if self.size == 1:
            return outputs

        def from_rank(rank: int, own: Tensor) -> Tensor:
            return own if rank == self.rank else others[id(own)][rank]

        others: dict[int, list[Tensor]] = {}

        def collect(own: Tensor) -> Tensor:
            own = self._as_long_as_all(own)
            rows = own.detach().contiguous()
            others[id(own)] = [torch.empty_like(rows) for _ in range(self.size)]
            distributed.all_gather(others[id(own)], rows)
            return own

        outputs = outputs.map(collect)
        return joined([outputs.map(lambda own, r=rank: from_rank(r, own)) for rank in range(self.size)])  # type: ignore[misc]

    def _as_long_as_all(self, own: Tensor) -> Tensor:
        """(n, t, ...) filled with zeros to the longest t of all processes; texts of each are padded by themselves."""
        if own.dim() < 2:
            return own
        longest = torch.tensor(own.shape[1], device=own.device)
        distributed.all_reduce(longest, distributed.ReduceOp.MAX)
        missing = int(longest.item()) - own.shape[1]
        return F.pad(own, (0, 0) * (own.dim() - 2) + (0, missing)) if missing else own

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """What each process learnt from its own rows, added up. What no process used keeps no gradient: with zeros in
        its place, the optimiser would let it decay."""
        free = [one for one in parameters if one.requires_grad]
        if self.size == 1 or not free:
            return
        used = torch.tensor([one.grad is not None for one in free], dtype=torch.uint8, device=free[0].device)
        distributed.all_reduce(used, distributed.ReduceOp.MAX)
        for parameter, somewhere in zip(free, used.tolist(), strict=True):
            if somewhere:  # the same collective calls in every process
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                distributed.all_reduce(parameter.grad)

    def as_rank_0(self, module: nn.Module) -> None:
        """Everyone gets the weights and buffers of rank 0."""
        if self.size > 1:
            for tensor in module.state_dict().values():
                distributed.broadcast(tensor, 0)

    @contextmanager
    def one_after_another(self) -> Iterator[None]:
        """Rank 0 first: what it puts into a cache, the others find there."""
        if self.size > 1 and self.rank:
            distributed.barrier()
        yield
        if self.size > 1 and not self.rank:
            distributed.barrier()

    def collect(self, values: list[Tensor]) -> list[list[Tensor]]:
        """A few small CPU tensors of each process, in order of rank."""
        if self.size == 1:
            return [values]
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, values)
        return found

    def share(self, value: float) -> float:
        """What rank 0 found, known to all: decisions must not differ."""
        if self.size == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64)
        if torch.cuda.is_available() and distributed.get_backend() == "nccl":
            told = told.cuda()
        distributed.broadcast(told, 0)
        return float(told.item())


@contextmanager
def joined_world(device: torch.device) -> Iterator[World]:
    """The world that torchrun started us in, for as long as the block lasts."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    if device.type == "cuda":  # nccl sends from the current device
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device)
    try:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    except ValueError as error:
        raise UsageError(
            f"WORLD_SIZE is {size}, but the processes cannot meet ({' '.join(str(error).split())}); use torchrun."
        ) from error
    try:
        yield World(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()
