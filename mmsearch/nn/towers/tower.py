"""What every tower has. Image towers: pixels (n, side, side, 3) uint8 -> `Features`, and a `side`. Text towers: ids
and mask (n, t) int64 -> `Features`, with `max_tokens` and `tokenizer`, the content of a `tokenizer.json`.
Normalisation of pixels lies inside, so that the exported graph reads what `preprocess.squeeze` gives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class Tower(nn.Module, ABC):
    """width: of the pooled rows. locked: it is not trained, and stays as it is in use when the rest trains.

    Batch norms always use the statistics that they came with. So a row depends on itself alone, and a batch in
    pieces (gradient caching) is the batch as a whole.
    """

    width: int
    locked = False

    @abstractmethod
    def stages(self) -> list[nn.Module]:
        """The parts from input to output, as `last:N` counts them."""

    def train(self, mode: bool = True) -> Tower:
        super().train(mode and not self.locked)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self


def stages_of(*modules: nn.Module) -> list[nn.Module]:
    """Modules in the order of their use -> stages. Lists, and modules that only hold another, count by their members;
    what has no matrix of its own (norms, pooling) belongs to the stage before it."""
    groups: list[list[nn.Module]] = []
    for part in _members(modules):
        if not groups or any(parameter.dim() > 1 for parameter in part.parameters()):
            groups.append([])
        groups[-1].append(part)
    return [group[0] if len(group) == 1 else nn.ModuleList(group) for group in groups]


def _members(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    for one in modules:
        inside = list(one.children())
        only_holds = len(inside) == 1 and not list(one.parameters(recurse=False))
        if only_holds or isinstance(one, nn.Sequential | nn.ModuleList):
            yield from _members(inside)
        else:
            yield one
