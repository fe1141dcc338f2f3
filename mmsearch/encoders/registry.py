"""Names -> encoders. In: what a person typed after `--model`. Out: an encoder, or one line that says why not.

A name is looked up in this order, and nothing is guessed from a part of it:

1. a built-in encoder (`BUILTIN`), else one that an installed package offers in the entry-point group
   `mmsearch.encoders`. Both are factories: called with (name, device, precision), they return an `Encoder`;
2. a folder that our own training wrote (it holds `encoder.json`): towers, or an adapter on another encoder;
3. one of open_clip's, split at the first slash: `ARCHITECTURE/TAG` (`ViT-B-32/laion2b_s34b_b79k`), or
   `ARCHITECTURE/FILE` (`ViT-B-32/./mine.safetensors`, `ViT-B-32//data/mine.pt`).

Only `pull` uses the network. Looking up `lite` imports neither torch nor open_clip.
"""

from __future__ import annotations

import difflib
import re
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.encoders.protocol import Encoder
from mmsearch.errors import MMSearchError, ModelError, UnknownModelError, UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Factory = Callable[[str, str, str], Encoder]
ENTRY_POINTS = "mmsearch.encoders"
DEVICES = ("auto", "cpu", "cuda", "cuda:N", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What people want to know before they choose. None: not known, or for `weights`: not on this machine.

    name: what `--model` takes. summary: one line. megabytes: size of the weights (10^6 bytes).
    extra: the extra of mmsearch that it needs. weights: where they lie.
    """

    name: str
    summary: str
    dimension: int | None = None
    megabytes: int | None = None
    licence: str | None = None
    languages: str | None = None
    extra: str | None = None
    weights: Path | None = None


def _lite(_name: str, device: str, precision: str) -> Encoder:
    from mmsearch.encoders.lite import LiteEncoder

    return LiteEncoder(device=device, precision=precision)


def _open_clip(name: str, device: str, precision: str) -> Encoder:
    from mmsearch.encoders.openclip_library import open_clip

    open_clip()  # says what is missing or broken before our own module needs it
    from mmsearch.encoders.openclip import OpenClipEncoder

    return OpenClipEncoder(name, device=device, precision=precision)


BUILTIN: dict[str, Factory] = {"lite": _lite}

# Facts as their publishers state them; top-1 on ImageNet without training on it.
RECOMMENDED = (
    ModelInfo("ViT-B-32/laion2b_s34b_b79k", "the step up: quick, ImageNet 66.6 %", 512, 605, "MIT", "English", "clip"),
    ModelInfo("ViT-B-32/datacomp_xl_s13b_b90k", "as quick, ImageNet 69.2 %", 512, 605, "MIT", "English", "clip"),
    ModelInfo("ViT-L-14/datacomp_xl_s13b_b90k", "for a GPU, ImageNet 79.2 %", 768, 1710, "MIT", "English", "clip"),
    ModelInfo(
        "ViT-B-16-SigLIP/webli", "strong for its size, ImageNet 76.0 %", 768, 813, "Apache-2.0", "English", "clip"
    ),
    ModelInfo("ViT-B-16-SigLIP2/webli", "many languages", 768, 1501, "Apache-2.0", "109 languages", "clip"),
    ModelInfo(
        "ViT-SO400M-14-SigLIP-384/webli", "best, slow, ImageNet 83.1 %", 1152, 3511, "Apache-2.0", "English", "clip"
    ),
    ModelInfo(
        "xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k", "many languages", 512, 1464, "MIT", "100 languages", "clip"
    ),
)


def load_encoder(name: str, *, device: str = "auto", precision: str = "auto") -> Encoder:
    """Name -> encoder. Towers are loaded when they are first used; nothing is ever downloaded here.

    device: auto, cpu, cuda, cuda:N, mps. precision: auto, fp32, bf16, fp16.
    Raises UsageError for another device or precision, UnknownModelError, WeightsNotFoundError (known, but not on
    this machine), MissingExtraError, ModelError (no such device; a plugin that fails).
    """
    check_device(device)
    if precision not in PRECISIONS:
        raise UsageError(f"There is no precision {precision!r}; valid are: {', '.join(PRECISIONS)}.")
    if name in BUILTIN:
        return BUILTIN[name](name, device, precision)
    plugins = _plugins()
    if name in plugins:
        return _load_plugin(plugins[name], device, precision)
    folder = _trained_folder(name)
    if folder:
        return _trained(folder, device, precision)
    _check_architecture(name)
    return _open_clip(name, device, precision)


_shared: weakref.WeakValueDictionary[tuple[str, str, str, str], Encoder] = weakref.WeakValueDictionary()
_sharing = threading.Lock()


def shared_encoder(name: str, *, device: str = "auto", precision: str = "auto") -> Encoder:
    """As `load_encoder`, but one object, and so one model in memory, for all that use the same weights at a time."""
    made = load_encoder(name, device=device, precision=precision)
    try:
        with _sharing:
            return _shared.setdefault((name, device, precision, made.space.fingerprint), made)
    except TypeError:  # a plugin's class without weak references
        return made


def check_device(name: str) -> None:
    """Raises UsageError for what is no device; whether it is here is known when it is used."""
    if name not in DEVICES and not re.fullmatch(r"cuda:\d+", name):
        raise UsageError(f"There is no device {name!r}; valid are: {', '.join(DEVICES)}.")


def available_models() -> list[ModelInfo]:
    """The built-in and plugged-in encoders, the open_clip models that we recommend, and all others of open_clip
    whose weights are on this machine. (Every pair of `open_clip.list_pretrained()` is a valid name.)

    Takes some seconds where open_clip is installed: its list of weights is part of its code.
    """
    from mmsearch.encoders import openclip_files

    plugins = [
        ModelInfo(name, f"offered by the installed package {_source(point)}")
        for name, point in sorted(_plugins().items())
        if name not in BUILTIN
    ]
    here = openclip_files.weights_here()
    recommended = [replace(model, weights=here.pop(model.name, None)) for model in RECOMMENDED]
    others = [ModelInfo(name, "fetched before", extra="clip", weights=path) for name, path in sorted(here.items())]
    return [_lite_info(), *plugins, *recommended, *others]


def pull(name: str, on_progress: Callable[[int, int], None] | None = None) -> Path:
    """Fetch the weights of `name` once and say where they lie. The only function here that uses the network.

    on_progress(done, total): bytes of the file that is being fetched now; total is 0 while it is not known.
    What is on this machine already is not fetched again.
    Raises UnknownModelError, MissingExtraError, ModelError (no network, no room, refused by the server), and
    UsageError for a plugin's encoder, which looks after its own weights.
    """
    if name in BUILTIN:
        from mmsearch.encoders.lite import FOLDER

        return FOLDER
    if name in _plugins():
        raise UsageError(f"{name!r} is a plugin and looks after its own weights; use it as it is.")
    folder = _trained_folder(name)
    if folder:
        return folder
    _check_architecture(name)
    from mmsearch.encoders import openclip_files

    return openclip_files.pull(name, on_progress)


def _lite_info() -> ModelInfo:
    from mmsearch.encoders.lite import FACTS, FOLDER, NAME

    return ModelInfo(
        name=NAME,
        summary=FACTS["summary"],
        dimension=FACTS["dimension"],
        megabytes=FACTS["megabytes"],
        licence=FACTS["licence"],
        languages=", ".join(FACTS["languages"]),
        weights=FOLDER,
    )


def _trained_folder(name: str) -> Path | None:
    from mmsearch.encoders.trained import MANIFEST

    folder = Path(name).expanduser().absolute()
    return folder if (folder / MANIFEST).is_file() else None


def _trained(folder: Path, device: str, precision: str) -> Encoder:
    """Towers of its own, or small maps on another encoder's vectors."""
    from mmsearch.encoders.adapted import AdaptedEncoder, base_of

    base = base_of(folder)
    if base is not None:
        return AdaptedEncoder(folder, load_encoder(base, device=device, precision=precision))
    from mmsearch.encoders.trained import TrainedEncoder

    return TrainedEncoder(folder, device=device, precision=precision)


def _plugins() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def _source(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


def _load_plugin(point: EntryPoint, device: str, precision: str) -> Encoder:
    try:
        encoder: Encoder = point.load()(point.name, device, precision)
    except MMSearchError:
        raise
    except Exception as error:
        raise ModelError(
            f"The encoder {point.name!r} of the package {_source(point)} cannot be loaded "
            f"({type(error).__name__}: {error}); update or remove that package."
        ) from error
    return encoder


def _check_architecture(name: str) -> None:
    """Refuse a name that cannot be one of open_clip's, without importing torch."""
    from mmsearch.encoders import openclip_files

    architecture, slash, rest = name.partition("/")
    architectures = openclip_files.architectures()
    if slash and rest and (architecture in architectures or not architectures):
        return  # without open_clip nobody can tell; the next step says how to install it
    ours = [*BUILTIN, *sorted(_plugins())]
    complete = [*ours, *(model.name for model in RECOMMENDED)]
    near = difflib.get_close_matches(name, complete, 1, 0.6) or [
        f"{match}/{rest or 'TAG'}" for match in difflib.get_close_matches(architecture, architectures, 1, 0.6)
    ]
    raise UnknownModelError(
        f"There is no model {name!r}"
        + (" (a folder without encoder.json)" if Path(name).expanduser().is_dir() else "")
        + (f"; did you mean {near[0]}?" if near else ".")
        + f" Valid are {', '.join(ours)}, a folder that training wrote, and open_clip's ARCHITECTURE/TAG or"
        + " ARCHITECTURE/FILE; `mmsearch models` lists them."
    )
