"""What is wrong with a run, as far as it can be known before anything is loaded or read.

In: what people asked for. Out: all mistakes, a sentence each; none where the run may begin.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.catalog import read
from mmsearch.catalog.catalog import Catalog
from mmsearch.encoders.registry import load_encoder
from mmsearch.encoders.trained import MANIFEST
from mmsearch.errors import CollectionError, MMSearchError, UsageError
from mmsearch.files import CATALOG_FILE
from mmsearch.settings import collection_folder
from mmsearch.training.loop import check_precision
from mmsearch.training.mixing import weighted
from mmsearch.training.recipe import Recipe
from mmsearch.training.splits import ONE_SET

if TYPE_CHECKING:
    import torch

    from mmsearch.encoders.protocol import Encoder

NOTE = "recipe.json"  # in `run/`: which recipe the folder belongs to
# Of no use where an encoder stays as it is and small maps on its vectors are trained.
_FOR_TOWERS = ("image_tune", "text_tune", "width", "head", "dropout", "caption_split", "held_out")


def problems(
    recipe: Recipe | None,
    data: Sequence[str],
    out: Path | None,
    general: Path | None,
    *,
    processes: int = 1,
    device: torch.device | None = None,
    promote: Path | None = None,
) -> list[str]:
    """What is not given is not looked at. processes: that share the training. promote: the folder of a collection that
    is to use the encoder. Writes nothing."""
    found = [wrong for source in data for wrong in _of_data(source)]
    if recipe is not None:
        found += _of_encoders(recipe, out)
        if device is not None:
            found += _of_device(recipe, device)
        if general and not recipe.model:
            found.append(f"--general is for models that are fine-tuned; {recipe.name} trains towers of its own.")
        if recipe.model and not recipe.tune:
            found += _of_maps(recipe, processes)
        elif recipe.caption_split and len(data) > 1:
            found.append(ONE_SET)
        if promote and not recipe.model:
            found.append(f"--promote is for models that are fine-tuned; {recipe.name} trains towers of its own.")
        if out is not None:
            found += _of_out(out, recipe)
    if promote:
        found += _of_collection(promote)
    return found


def _of_data(written: str) -> Iterator[str]:
    """A set that is not there; what is wrong inside is known when it is read."""
    try:
        _, source = weighted(written)
    except UsageError as error:
        yield str(error)
        return
    path = Path(source).expanduser()
    with suppress(OSError, ValueError):
        if (
            path.exists()
            or ("*" in path.name and any(path.parent.glob(path.name)))
            or collection_folder(source).exists()
        ):
            return
    yield f"{source} cannot be trained on: it is no folder, no .tar file and no collection of that name."


def _of_encoders(recipe: Recipe, out: Path | None) -> Iterator[str]:
    """The model and the teacher, if there are some; their weights are not loaded here."""
    for name in filter(None, (recipe.model, recipe.teacher)):
        try:
            encoder = load_encoder(name)
        except MMSearchError as error:
            yield str(error)
            continue
        if recipe.tune and name == recipe.model and "/" in name and not _is_open_clip(encoder):  # recipe.py, others
            yield f"tune is for models of open_clip (ARCHITECTURE/TAG), not for {name}; leave it out."
    if out is not None and recipe.model and _same_folder(Path(recipe.model), out):
        yield f"{out} cannot be both the model that is fine-tuned and --out; choose another --out."


def _is_open_clip(encoder: Encoder) -> bool:
    from mmsearch.encoders.openclip import OpenClipEncoder

    return isinstance(encoder, OpenClipEncoder)


def _of_device(recipe: Recipe, device: torch.device) -> Iterator[str]:
    try:
        check_precision(recipe, device)
    except UsageError as error:
        yield str(error)


def _of_maps(recipe: Recipe, processes: int) -> Iterator[str]:
    usual = Recipe()
    if processes > 1:
        yield f"{recipe.name} takes one process, a minute or two; start it without torchrun."
    if idle := [name for name in _FOR_TOWERS if getattr(recipe, name) != getattr(usual, name)]:
        yield f"Small maps on the vectors of {recipe.model} have no use for {', '.join(idle)}; leave it as it was."


def _same_folder(model: Path, out: Path) -> bool:
    model = model.expanduser()
    return (model / MANIFEST).is_file() and out.is_dir() and os.path.samefile(model, out)


def _of_collection(folder: Path) -> Iterator[str]:
    """One that cannot go over to another encoder: that would be known only after the training."""
    if not is_collection(folder):
        yield "--promote needs a collection that is to use the new encoder; name it with --collection."
        return
    try:
        catalog = Catalog(folder, create=False)
        try:
            with catalog.reading() as connection:
                roots = read.roots(connection)
        finally:
            catalog.close()
    except CollectionError as error:
        yield f"--promote cannot use this collection: {error}"
        return
    if not roots:
        yield f"--promote encodes a collection's folders anew, and {folder} has none; name another with --collection."
    if not os.access(folder, os.W_OK | os.X_OK):
        yield f"--promote writes into the collection, and {folder} cannot be written to; check its permissions."


def is_collection(folder: Path) -> bool:
    """Whether there is one, fit or not."""
    return (folder / os.fsdecode(CATALOG_FILE)).is_file()


def _of_out(out: Path, recipe: Recipe) -> Iterator[str]:
    """A folder of someone's own must not be filled, nor cleared."""
    there = next(one for one in (out, *out.absolute().parents) if one.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield f"{out} cannot be written to; choose another --out."
        return
    note = out / "run" / NOTE
    if note.is_file():
        try:
            name = json.loads(note.read_text("utf-8"))["name"]
        except (OSError, ValueError, KeyError, TypeError):
            yield f"{note} is damaged; choose another --out, or delete {out}."
            return
        if name != recipe.name:
            yield f"{out} holds a run of the recipe {name}; choose another --out for {recipe.name}."
    elif out.is_dir() and any(one.name != "run" for one in out.iterdir()):
        yield f"{out} holds other things than a run of ours; choose a new or empty folder for --out."
