"""All that a run needs to go on after it was killed, in one file: weights, averages, optimiser, random numbers, place.
Written by rank 0 of the processes, whole or not at all (nn/checkpoint.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmsearch.errors import UsageError
from mmsearch.nn import checkpoint
from mmsearch.training.distributed import World


@dataclass(slots=True)
class State:
    """step: how many were made. best: figures of the step with the best dev recall; its weights lie beside."""

    step: int = 0
    best_step: int = 0
    best_recall: float = -1.0
    best: dict[str, float] = field(default_factory=dict)
    stopped_early: bool = False


def save(
    path: Path,
    settings: Mapping[str, Any],
    modules: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: nn.Module | None,
    state: State,
    world: World,
) -> None:
    """Atomic: the old file stays until the new one is whole. Each process calls it; rank 0 writes."""
    randomness = world.collect(torch.get_rng_state())
    if world.rank:
        return
    tensors: dict[str, Tensor] = {f"modules.{name}": value for name, value in modules.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    for number, of_one in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": value for name, value in of_one.items()}
    tensors |= {f"random.{rank}": value for rank, value in enumerate(randomness)}
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    own = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    checkpoint.save(path, own, {"recipe": dict(settings), "state": asdict(state), "processes": world.size})


def load(
    path: Path,
    settings: Mapping[str, Any],
    modules: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: nn.Module | None,
    world: World,
) -> State:
    """Put everything back. UsageError where the file is of another recipe, WeightsMismatchError where it is damaged."""
    tensors, facts = checkpoint.load(path)
    other = [name for name, value in settings.items() if facts.get("recipe", {}).get(name) != value]
    if other:
        told = ", ".join(
            f"{name} was {facts.get('recipe', {}).get(name)!r}, is {settings[name]!r}" for name in other[:3]
        )
        raise UsageError(
            f"{path} belongs to a run of another recipe ({told}); finish that run, or choose another --out."
        )
    if facts.get("processes") != world.size:
        raise UsageError(
            f"{path} was written by {facts.get('processes')} processes, this run has {world.size}; use as many again."
        )
    modules.load_state_dict(_below("modules.", tensors))
    if average is not None:
        average.load_state_dict(_below("average.", tensors))
    known = optimiser.state_dict()
    by_number: dict[int, dict[str, Tensor]] = {}
    for name, value in _below("optimiser.", tensors).items():
        number, _, what = name.partition(".")
        by_number.setdefault(int(number), {})[what] = value
    optimiser.load_state_dict({"state": by_number, "param_groups": known["param_groups"]})
    torch.set_rng_state(tensors[f"random.{world.rank}"])
    if torch.cuda.is_available() and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"])
    return State(**facts["state"])


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
