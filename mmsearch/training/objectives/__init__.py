"""The losses that encoders are trained with, by name. Each lies in the file named after it, which opens with its paper,
its formula and when to choose it; none is imported before it is asked for.

In: `Outputs` of a learner (see outputs.py). Out: one loss.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from mmsearch.training.names import unknown

if TYPE_CHECKING:
    from torch import nn

OBJECTIVES: dict[str, str] = {
    "clip": "mmsearch.training.objectives.clip:Clip",
    "vse": "mmsearch.training.objectives.vse:Vse",
    "devise": "mmsearch.training.objectives.devise:DeViSE",
    "ntxent": "mmsearch.training.objectives.ntxent:NTXent",
    "align": "mmsearch.training.objectives.align:Align",
    "unicl": "mmsearch.training.objectives.unicl:UniCL",
    "siglip": "mmsearch.training.objectives.siglip:SigLIP",
    "momentum": "mmsearch.training.objectives.momentum:MomentumContrast",
    "distillation": "mmsearch.training.objectives.distillation:Distillation",
    "mae": "mmsearch.training.objectives.mae:MaskedAutoencoding",
    "data2vec": "mmsearch.training.objectives.data2vec:Data2Vec",
    "masked_language": "mmsearch.training.objectives.masked_language:MaskedLanguage",
    "skipgram": "mmsearch.training.objectives.skipgram:SkipGram",
}


def objective_class(name: str) -> type[nn.Module]:
    """Name -> class, whose arguments are what a recipe can set. Raises UsageError for an unknown name."""
    if name not in OBJECTIVES:
        raise unknown("objective", name, OBJECTIVES)
    module, made = OBJECTIVES[name].split(":")
    found: type[nn.Module] = getattr(importlib.import_module(module), made)
    return found
