"""Words for the classifier's classes: what the text side learns without any picture.

In: ImageNet's names and descriptions, WordNet's nouns. Out: `Sayings`: texts, and for each the classes that it is
about, as weights that sum to 1: for a class that one; for a noun its kinds, all alike, or its relatives, those the more
whose names MiniLM finds near its definition.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmsearch.nn.features import unit
from mmsearch.training.wordnet import Noun
from mmsearch.wording import prompts

NARROW = 0.1  # temperature of the softmax over relatives
SHARES = (0.4, 0.3, 0.3)  # of classes, nouns with kinds, nouns with relatives in a batch

Saying = tuple[tuple[str, ...], Tensor]  # texts of one meaning; (1000,) its classes


@dataclass(frozen=True, slots=True)
class Sayings:
    """groups: of classes, of nouns with kinds, of nouns with relatives."""

    groups: tuple[list[Saying], ...]

    def draw(self, count: int, chance: random.Random) -> tuple[list[str], Tensor]:
        """`count` texts, and their classes (count, 1000)."""
        kinds = chance.choices(range(len(self.groups)), SHARES, k=count)
        drawn = [chance.choice(self.groups[kind]) for kind in kinds]
        return [chance.choice(texts) for texts, _ in drawn], torch.stack([classes for _, classes in drawn])

    def texts(self) -> list[str]:
        return [text for group in self.groups for texts, _ in group for text in texts]


def sayings(
    names: Sequence[str], descriptions: Sequence[str], nouns: Sequence[Noun], states: Callable[[list[str]], Tensor]
) -> Sayings:
    """states: texts -> (n, 384) of the untouched text tower."""
    one = torch.eye(len(names))
    classes = [((*prompts(n), n, d), one[i]) for i, (n, d) in enumerate(zip(names, descriptions, strict=True))]
    class_rows = unit(states(list(names)))
    noun_rows = unit(states([f"{noun.names[0]}, {noun.definition}" for noun in nouns]))
    groups: tuple[list[Saying], ...] = (classes, [], [])
    for noun, row in zip(nouns, noun_rows, strict=True):
        which = list(noun.classes)
        target = torch.zeros(len(names))
        target[which] = 1 / len(which) if noun.kinds else (class_rows[which] @ row / NARROW).softmax(0)
        groups[1 if noun.kinds else 2].append((_texts_of(noun), target))
    return Sayings(groups)


def _texts_of(noun: Noun) -> tuple[str, ...]:
    """Each name as it is and in one of the sentences for labels, the definition alone and after the name."""
    chance = random.Random(noun.offset)
    named = [text for name in noun.names[:3] for text in (name, chance.choice(prompts(name)))]
    return (*named, noun.definition, f"{noun.names[0]}, {noun.definition}")
