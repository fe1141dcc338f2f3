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

from mmsearch.errors import UsageError, WeightsMismatchError
from mmsearch.nn import checkpoint
from mmsearch.training.distributed import World
from mmsearch.training.randomness import random_state, set_random_state


@dataclass(slots=True)
class State:
    """step: how many were made. best: figures of the step with the best dev recall; its weights lie beside."""

    step: int = 0
    best_step: int = 0
    best_recall: float = -1.0
    best: dict[str, float] = field(default_factory=dict)
    stopped_early: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """What changes from step to step. modules: learner, objective, average. recipe: its settings, as JSON."""

    recipe: Mapping[str, Any]
    modules: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    device: torch.device
    world: World

    def save(self, path: Path, state: State) -> None:
        """Atomic: the old file stays until the new one is whole. Each process calls it; rank 0 writes."""
        randomness = self.world.collect(random_state(self.device))
        if self.world.rank:
            return
        tensors = {f"modules.{name}": value for name, value in self.modules.state_dict().items()}
        for number, of_one in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{name}": value for name, value in of_one.items()}
        for rank, of_rank in enumerate(randomness):
            tensors |= {f"random.{rank}.{number}": value for number, value in enumerate(of_rank)}
        checkpoint.save(path, tensors, self._facts(state) | {"scaler": self.scaler.state_dict()})

    def end(self, path: Path, state: State) -> None:
        """That all steps were made. Small, so that a disk takes it that is nearly full: the weights to go on with are
        the best, which lie beside."""
        checkpoint.save(path, {}, self._facts(state) | {"ended": True})

    def load(self, path: Path) -> State:
        """Put everything back; where all steps were made, there is nothing to put. UsageError where the file is of
        another recipe or number of processes, WeightsMismatchError where it is damaged or its weights have other
        shapes."""
        try:
            tensors, facts = checkpoint.load(path)
        except WeightsMismatchError as error:
            raise WeightsMismatchError(f"{error} Delete it to begin this run anew.") from error
        if "state" not in facts:
            raise WeightsMismatchError(f"{path} holds no state of a run; delete it to begin this run anew.")
        self._check(path, facts)
        if facts.get("ended"):
            return State(**facts["state"])
        try:
            self.modules.load_state_dict(_below("modules.", tensors))
        except RuntimeError as error:
            raise WeightsMismatchError(
                f"{path} holds other weights than this run trains ({' '.join(str(error).split())[:200]}); was it begun "
                "with other data or towers? Choose another --out."
            ) from error
        by_number: dict[int, dict[str, Tensor]] = {}
        for name, value in _below("optimiser.", tensors).items():
            number, _, what = name.partition(".")
            by_number.setdefault(int(number), {})[what] = value.clone()
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": by_number, "param_groups": groups})
        self.scaler.load_state_dict(facts["scaler"])
        own = _below(f"random.{self.world.rank}.", tensors)
        set_random_state(self.device, [own[number] for number in sorted(own)])
        return State(**facts["state"])

    def _facts(self, state: State) -> dict[str, Any]:
        return {"recipe": self.recipe, "state": asdict(state), "processes": self.world.size}

    def _check(self, path: Path, facts: Mapping[str, Any]) -> None:
        before = facts["recipe"]
        other = [name for name, value in self.recipe.items() if before.get(name) != value]
        if other:
            told = ", ".join(f"{name} was {before.get(name)!r}, is {self.recipe[name]!r}" for name in other[:3])
            raise UsageError(
                f"{path} belongs to a run of another recipe or other data ({told}); finish that run, or choose "
                "another --out."
            )
        if facts["processes"] != self.world.size:
            raise UsageError(
                f"{path} was written by a run in {facts['processes']} processes, this one has {self.world.size}; use "
                "as many again, or choose another --out."
            )


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
