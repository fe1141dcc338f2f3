"""How far a tower is trained, and what becomes of it afterwards.

In: a tower. Out: the same tower with some of its parameters free: all, the last stages, or updates of low rank.
(locked image towers, LiT: Zhai et al. 2022, arXiv 2111.07991; LoRA: Hu et al. 2022, arXiv 2106.09685;
WiSE-FT: Wortsman et al. 2022, arXiv 2109.01903)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mmsearch.errors import UsageError, WeightsMismatchError
from mmsearch.nn.towers.tower import Tower

MODES = ("locked", "full", "last:N", "lora:R")


class LowRank(nn.Module):
    """W (out, ...) -> W + B A, with A (rank, in) random and B (out, rank) zero at the start."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        out, inside = weight.shape[0], weight[0].numel()
        self.a = nn.Parameter(torch.randn(rank, inside, dtype=weight.dtype, device=weight.device) * inside**-0.5)
        self.b = nn.Parameter(torch.zeros(out, rank, dtype=weight.dtype, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.b @ self.a).view_as(weight)


def tune(tower: Tower, how: str) -> None:
    """how: `locked` (nothing is trained), `full`, `last:N` (the last N of `tower.stages()`), `lora:R` (updates of rank
    R on all matrices; the rest is locked). Raises UsageError."""
    mode, number = read_mode(how)
    if mode == "last":
        free = _last(tower, number)
    elif mode == "lora":
        free = _low_rank(tower, number)
    else:
        free = [tower] if mode == "full" else []
    tower.requires_grad_(False)
    for one in free:
        one.requires_grad_(True)
    tower.locked = mode == "locked"
    tower.train(tower.training)


def read_mode(how: str) -> tuple[str, int]:
    """`last:3` -> (last, 3), `full` -> (full, 0). Raises UsageError."""
    mode, _, number = how.partition(":")
    if how in ("locked", "full"):
        return how, 0
    if mode in ("last", "lora") and number.isdecimal() and int(number) > 0:
        return mode, int(number)
    near = difflib.get_close_matches(how, MODES, 1)
    raise UsageError(
        f"A tower cannot be tuned {how!r}" + (f"; did you mean {near[0]}?" if near else ";")
        + f" Valid are {', '.join(MODES)}, with N and R from 1."
    )  # fmt: skip


def _last(tower: Tower, number: int) -> list[nn.Module]:
    """What belongs to no stage (positions, class tokens) counts with the first."""
    stages = tower.stages()
    if number > len(stages):
        raise UsageError(f"last:{number} is more than the {len(stages)} stages of {type(tower).__name__}; use full.")
    return [tower] if number == len(stages) else stages[-number:]


def _low_rank(tower: Tower, rank: int) -> list[nn.Module]:
    places = list(_matrices(tower))
    if not places:
        raise UsageError(f"{type(tower).__name__} has no matrices for lora:{rank}; use full or locked.")
    updates: list[nn.Module] = []
    for module, name in places:
        weight = getattr(module, name)
        updates.append(LowRank(weight, min(rank, *weight.flatten(1).shape)))
        parametrize.register_parametrization(module, name, updates[-1])
    return updates


def _matrices(module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Linear weights, attention's input projections, and convolutions over all channels."""
    for one in module.modules():
        if isinstance(one, nn.Linear) or (isinstance(one, nn.Conv1d | nn.Conv2d) and one.groups == 1):
            yield one, "weight"
        elif isinstance(one, nn.MultiheadAttention) and one.in_proj_weight is not None:
            yield one, "in_proj_weight"


def merge(module: nn.Module) -> None:
    """Bake the updates of low rank into the weights, before export: same outputs, and no trace of them is left."""
    for one in list(module.modules()):
        for name in list(getattr(one, "parametrizations", {})):
            if any(isinstance(update, LowRank) for update in one.parametrizations[name]):  # type: ignore[index]
                parametrize.remove_parametrizations(one, name, leave_parametrized=True)


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The free parameters as an optimiser's two groups: matrices decay; biases, norms, temperatures, positions,
    learned tokens and rows of tables (a rare word would fade between its uses) do not."""
    decays: dict[int, nn.Parameter] = {}
    stays: dict[int, nn.Parameter] = {}
    for one in module.modules():
        shrinks = isinstance(one, nn.Linear | nn.MultiheadAttention | LowRank | nn.modules.conv._ConvNd)  # noqa: SLF001
        for parameter in one.parameters(recurse=False):
            if parameter.requires_grad:
                (decays if shrinks and parameter.dim() > 1 else stays)[id(parameter)] = parameter
    return [
        {"params": list(decays.values()), "weight_decay": weight_decay},
        {"params": list(stays.values()), "weight_decay": 0.0},
    ]


def interpolate(module: nn.Module, before: Mapping[str, Tensor], alpha: float) -> None:
    """Take a module from the weights it has back towards those from before its tuning (see `wise_ft`). An update B A
    becomes alpha B A: B began at zero, so it is mixed, and A stays; both mixed would count alpha twice."""
    after = module.state_dict()
    stays = [f"{name}.a" for name, one in module.named_modules() if isinstance(one, LowRank)]
    module.load_state_dict(wise_ft(before, after, alpha) | {name: after[name].clone() for name in stays})


def wise_ft(before: Mapping[str, Tensor], after: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Weights between those from before fine-tuning (alpha 0) and those from after it (alpha 1), name by name; whole
    numbers are those from after. Raises UsageError, WeightsMismatchError."""
    if not 0 <= alpha <= 1:
        raise UsageError(f"Weights are mixed with alpha from 0 to 1, not {alpha}.")
    odd = sorted(before.keys() ^ after.keys()) or [n for n in before if before[n].shape != after[n].shape]
    if odd:
        raise WeightsMismatchError(f"Weights of different networks cannot be mixed; they differ in {odd[0]}.")
    return {
        name: torch.lerp(old, after[name].to(old), alpha) if old.is_floating_point() else after[name].clone()
        for name, old in before.items()
    }
