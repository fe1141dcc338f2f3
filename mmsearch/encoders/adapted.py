"""An encoder with small maps on its vectors, fitted to someone's own pictures: what fine-tuning writes.

In: a folder (`encoder.json`, `adapter.npz`) and the encoder below. Out: unit-length float32 rows, x + x A + a, brought
to unit length, with A and a of their own for pictures and for texts (a residual adapter: Gao et al. 2021, arXiv
2110.04544). An encoder that lies in a folder is copied to `base/`; others are named, with their fingerprint.
Only NumPy is needed here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders.protocol import Encoder, Space
from mmsearch.encoders.trained import FORMAT, MANIFEST
from mmsearch.errors import WeightsMismatchError, WeightsNotFoundError

if TYPE_CHECKING:
    from PIL import Image

KIND = "adapted"
WEIGHTS = "adapter.npz"
BASE = "base"
PARTS = ("image_matrix", "image_shift", "text_matrix", "text_shift")


def base_of(folder: Path) -> str | None:
    """The name of the encoder below; None where the folder holds towers of its own. Raises WeightsMismatchError."""
    manifest = _manifest(folder)
    if manifest.get("kind") != KIND:
        return None
    name = manifest.get("base")
    if not isinstance(name, str) or not name:
        raise WeightsMismatchError(f"{folder / MANIFEST} names no encoder below the adapter; copy the folder anew.")
    return str(folder / BASE) if name == BASE else name


class AdaptedEncoder:
    """An `Encoder` (see protocol.py): `base`, adapted. folder: as `write_adapted` made it.

    Raises WeightsMismatchError where the files are damaged or base is not the encoder that was adapted,
    WeightsNotFoundError where one is missing.
    """

    calibration = None

    def __init__(self, folder: Path, base: Encoder) -> None:
        self._folder, self._base = Path(folder).absolute(), base
        manifest = _manifest(self._folder)
        if manifest.get("base_fingerprint") != base.space.fingerprint:
            raise WeightsMismatchError(
                f"{self._folder} adapts {manifest.get('base')} with other weights than those that are here; "
                "train it again, or bring back those weights."
            )
        content = _content(self._folder, manifest)
        try:
            with np.load(self._folder / WEIGHTS) as stored:
                self._parts = {name: np.asarray(stored[name], np.float32) for name in PARTS}
        except (OSError, ValueError, KeyError) as error:
            raise WeightsMismatchError(f"{self._folder / WEIGHTS} cannot be read ({error}); train it again.") from error
        d = base.space.dimension
        if any(part.shape != ((d, d) if name.endswith("matrix") else (d,)) for name, part in self._parts.items()):
            raise WeightsMismatchError(f"{self._folder / WEIGHTS} is not for vectors of {d} numbers; train it again.")
        whole = hashlib.sha256(f"{KIND} {base.space.fingerprint} ".encode() + content).hexdigest()
        self._space = Space(str(self._folder), whole, d)

    @property
    def space(self) -> Space:
        return self._space

    @property
    def image_size(self) -> int:
        return self._base.image_size

    @property
    def batch_size(self) -> int:
        return self._base.batch_size

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the manifest says about the training; may be empty."""
        facts: dict[str, Any] = _manifest(self._folder).get("facts", {})
        return facts

    def prepare(self, picture: Image.Image) -> NDArray[Any]:
        return self._base.prepare(picture)

    def encode_images(self, prepared: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """n arrays from `prepare` -> (n, dimension) float32, unit length."""
        return self._adapt(self._base.encode_images(prepared), "image")

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """n texts -> (n, dimension) float32, unit length."""
        return self._adapt(self._base.encode_texts(texts), "text")

    def _adapt(self, rows: NDArray[np.float32], side: str) -> NDArray[np.float32]:
        moved = rows + rows @ self._parts[f"{side}_matrix"] + self._parts[f"{side}_shift"]
        return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True).clip(1e-12), np.float32)


def write_adapted(
    folder: Path, *, base: str, base_fingerprint: str, parts: dict[str, NDArray[np.float32]], facts: dict[str, Any]
) -> None:
    """parts: those of PARTS, matrices (d, d) and shifts (d,). base: an encoder's name, or BASE where the caller copies
    its folder there. The manifest is written last, so that a folder without it is no encoder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / WEIGHTS).open("wb") as stream:
        np.savez(stream, **{name: parts[name] for name in PARTS})  # type: ignore[arg-type]
    content = (folder / WEIGHTS).read_bytes()
    manifest = {
        "format": FORMAT,
        "kind": KIND,
        "base": base,
        "base_fingerprint": base_fingerprint,
        "dimension": len(parts["image_shift"]),
        "files": {WEIGHTS: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}},
        "facts": facts,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise WeightsNotFoundError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise WeightsMismatchError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(manifest, dict):
        raise WeightsMismatchError(f"{path} describes no encoder; copy the folder anew, or train it again.")
    return manifest


def _content(folder: Path, manifest: dict[str, Any]) -> bytes:
    """The adapter's bytes, as the manifest knows them."""
    try:
        content = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise WeightsNotFoundError(f"{folder / WEIGHTS} cannot be read: {error.strerror}.") from error
    files = manifest.get("files")
    expected = files.get(WEIGHTS) if isinstance(files, dict) else None
    known = expected.get("sha256") if isinstance(expected, dict) else None
    if manifest.get("format") != FORMAT or hashlib.sha256(content).hexdigest() != known:
        raise WeightsMismatchError(
            f"{folder / WEIGHTS} is damaged, or of another version of mmsearch: its checksum is not the one in "
            f"{MANIFEST}; copy the folder anew, or train it again."
        )
    return content
