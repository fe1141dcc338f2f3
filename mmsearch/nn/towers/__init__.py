"""Towers by name. In: a name, sizes. Out: a module (see tower.py), its weights from this machine or random.

    image    vit, perceiver, lite, timm:NAME, timm:NAME@FILE, open_clip:ARCHITECTURE/TAG, open_clip:ARCHITECTURE/FILE
    text     transformer, words, lite, open_clip:ARCHITECTURE/TAG, hugging_face:FOLDER

timm:NAME and open_clip:ARCHITECTURE alone start from random weights.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

from mmsearch.errors import UsageError

if TYPE_CHECKING:
    from mmsearch.nn.towers.tower import Tower

Size = int | float | str | bool


@dataclass(frozen=True, slots=True)
class Kind:
    """place: `module:class`. follows: what stands behind the colon, if anything. sizes: what can be set, and its type.
    reads: the tower is built for a tokenizer."""

    place: str
    follows: str = ""
    sizes: Mapping[str, type] = field(default_factory=dict)
    reads: bool = False


_TRANSFORMER = {"width": int, "depth": int, "heads": int, "dropout": float}

IMAGE_TOWERS: dict[str, Kind] = {
    "vit": Kind("mmsearch.nn.towers.vit:ViT", sizes={"side": int, "patch": int, **_TRANSFORMER}),
    "perceiver": Kind(
        "mmsearch.nn.towers.perceiver:Perceiver",
        sizes={"side": int, "patch": int, "latents": int, "rounds": int, **_TRANSFORMER},
    ),
    "lite": Kind("mmsearch.nn.towers.lite:LiteImageTower", sizes={"side": int}),
    "timm": Kind("mmsearch.nn.towers.timm:TimmTower", "NAME[@FILE]", {"side": int}),
    "open_clip": Kind("mmsearch.nn.towers.open_clip:OpenClipImage", "ARCHITECTURE[/TAG or /FILE]"),
}
TEXT_TOWERS: dict[str, Kind] = {
    "transformer": Kind(
        "mmsearch.nn.towers.transformer:TextTransformer", sizes={"max_tokens": int, **_TRANSFORMER}, reads=True
    ),
    "words": Kind("mmsearch.nn.towers.words:WordBag", sizes={"width": int, "max_tokens": int}, reads=True),
    "lite": Kind("mmsearch.nn.towers.lite:LiteTextTower", sizes={"max_tokens": int}),
    "open_clip": Kind("mmsearch.nn.towers.open_clip:OpenClipText", "ARCHITECTURE[/TAG or /FILE]"),
    "hugging_face": Kind(
        "mmsearch.nn.towers.hugging_face:HuggingFaceText", "FOLDER", {"weights": bool, "max_tokens": int}
    ),
}


def image_tower(name: str, sizes: Mapping[str, Size] | None = None) -> Tower:
    """name: see above. sizes: what can be chosen of it, as in {"side": 64, "depth": 6}. Raises UsageError;
    ModelError and MissingExtraError where weights are not here."""
    kind, follows = check_tower("image", name, sizes or {})
    return _make(kind, [follows] if follows else [], sizes or {})


def text_tower(name: str, sizes: Mapping[str, Size] | None = None) -> Tower:
    """A tower of our own reads MiniLM's word pieces. Raises as above."""
    kind, follows = check_tower("text", name, sizes or {})
    if not kind.reads:
        return _make(kind, [follows] if follows else [], sizes or {})
    from mmsearch.nn.towers.word_pieces import minilm_word_pieces

    return _make(kind, [minilm_word_pieces()], sizes or {})


def check_tower(modality: str, name: str, sizes: Mapping[str, Size]) -> tuple[Kind, str]:
    """modality: image, text. -> its kind, and what stands behind the colon. Loads nothing. Raises UsageError."""
    kinds = {"image": IMAGE_TOWERS, "text": TEXT_TOWERS}[modality]
    first, _, follows = name.partition(":")
    if first not in kinds:
        near = difflib.get_close_matches(first, kinds, 1)
        hint = f"did you mean {near[0]}?" if near else "look at the list."
        valid = ", ".join(f"{one}:{kind.follows}" if kind.follows else one for one, kind in kinds.items())
        raise UsageError(f"There is no {modality} tower {name!r}; {hint} Valid: {valid}.")
    kind = kinds[first]
    if bool(follows) != bool(kind.follows):
        wanted = f"needs {kind.follows} behind a colon" if kind.follows else f"is named {first}, without a colon"
        raise UsageError(f"The {modality} tower {name!r} {wanted}.")
    for size, value in sizes.items():
        _check_size(kind, f"The {modality} tower {name!r}", size, value)
    return kind, follows


def _check_size(kind: Kind, tower: str, size: str, value: Size) -> None:
    if size not in kind.sizes:
        near = difflib.get_close_matches(size, kind.sizes, 1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(kind.sizes) or 'none'}."
        raise UsageError(f"{tower} has no size {size!r}; {hint}")
    wanted = kind.sizes[size]
    if type(value) is not wanted and not (wanted is float and type(value) is int):
        raise UsageError(f"{tower} takes {size} as {wanted.__name__}, not {value!r}.")


def _make(kind: Kind, arguments: list[str], sizes: Mapping[str, Size]) -> Tower:
    module, _, name = kind.place.partition(":")
    made: Tower = getattr(import_module(module), name)(*arguments, **sizes)
    return made
