"""What runs a batch through the networks of a recipe, by name. Each lies in the file named after it, which opens with
its paper and what it makes; none is imported before it is asked for.

In: `Batch`. Out: `Outputs`, all that the recipe's objective reads.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmsearch.training.learners.learner import Learner


@dataclass(frozen=True, slots=True)
class Kind:
    """place: `module:class`. objective: the one that reads what it makes; "" for all that read pairs of pictures and
    texts. side, tower: what it trains alone, if it does; a tower "" is any of that side."""

    place: str
    objective: str = ""
    side: str = ""
    tower: str = ""


LEARNERS: dict[str, Kind] = {
    "contrastive": Kind("mmsearch.training.learners.contrastive:Contrastive"),
    "momentum": Kind("mmsearch.training.learners.momentum:Momentum", "momentum"),
    "two_views": Kind("mmsearch.training.learners.two_views:TwoViews", "ntxent", "image"),
    "masked_image": Kind("mmsearch.training.learners.masked_image:MaskedImage", "mae", "image", "vit"),
    "data2vec": Kind("mmsearch.training.learners.data2vec:Data2Vec", "data2vec", "image", "vit"),
    "masked_language": Kind(
        "mmsearch.training.learners.masked_language:MaskedLanguage", "masked_language", "text", "transformer"
    ),
    "skipgram": Kind("mmsearch.training.learners.skipgram:SkipGram", "skipgram"),
}


def learner_class(name: str) -> type[Any]:
    """Name -> class. Its first argument is an encoder, or the tower that it trains alone; all others can be set."""
    module, made = LEARNERS[name].place.split(":")
    found: type[Learner] = getattr(importlib.import_module(module), made)
    return found
