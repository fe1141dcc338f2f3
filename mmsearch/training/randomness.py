"""Where torch's random numbers stand, so that a piece can be run again and a killed run go on with the same ones.

In: the device that is trained on. Out: uint8 tensors on the CPU: of the CPU, then of the device where it has its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def random_state(device: torch.device) -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def set_random_state(device: torch.device, state: Sequence[Tensor]) -> None:
    """state: of `random_state`, here or on another kind of device, whose own numbers are then left out."""
    torch.set_rng_state(state[0])
    if device.type == "cuda" and len(state) > 1:
        torch.cuda.set_rng_state(state[1], device)
