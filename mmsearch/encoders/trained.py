"""An encoder that lies in a directory, as our own training writes it: two ONNX towers, a tokenizer, a manifest.

In: the directory (`encoder.json`, `image.onnx`, `text.onnx`, `tokenizer.json`; `pairs.npz` where known pairs have the
last word, see pairs.py). Out: unit-length float32 rows.
`mmsearch.training.export.write_encoder` writes such directories. Only ONNX Runtime and tokenizers are needed here.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders.pairs import ENDS, KnownPairs
from mmsearch.encoders.preprocess import PREPROCESSING, squeeze
from mmsearch.encoders.protocol import Space
from mmsearch.errors import ModelError, UsageError, WeightsMismatchError, WeightsNotFoundError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from PIL import Image
    from tokenizers import Tokenizer

FORMAT = 1
MANIFEST = "encoder.json"
FILES = ("image.onnx", "text.onnx", "tokenizer.json")
PAIRS = "pairs.npz"  # where there are some
CALIBRATION = "calibration.json"  # beside them where training wrote one; no part of the fingerprint
TEXT_BATCH = 32  # padding to the longest of more texts costs more than a larger product gains


class TrainedEncoder:
    """An `Encoder` (see protocol.py) on the CPU. Each tower is loaded when it is first used, once for all threads.

    folder: where the files lie. name: how people ask for it; without one, the folder's absolute path.
    device: `auto` or `cpu`. precision: `auto` or `fp32`; the precision of the stored weights is the directory's own.

    Opening checks the manifest and the sizes of the files; `verify_files` reads all bytes.
    Raises WeightsNotFoundError, WeightsMismatchError, UsageError.
    """

    batch_size = 32

    def __init__(self, folder: Path, *, name: str | None = None, device: str = "auto", precision: str = "auto") -> None:
        self._folder = Path(folder).absolute()
        shown = name or str(self._folder)
        for option, value, valid in (("device", device, ("auto", "cpu")), ("precision", precision, ("auto", "fp32"))):
            if value not in valid:
                raise UsageError(f"The model {shown} has no {option} {value!r}; valid are: {', '.join(valid)}.")
        self._manifest = read_manifest(self._folder)
        self._space = Space(shown, fingerprint(self._manifest), self._manifest["dimension"])
        self._lock = threading.Lock()
        self._image: InferenceSession | None = None
        self._text: tuple[InferenceSession, Tokenizer] | None = None
        self._pairs: KnownPairs | None = None
        has_pairs = PAIRS in self._manifest["files"]
        self._width = self._space.dimension - (ENDS if has_pairs else 0)  # of what the towers give

    @property
    def space(self) -> Space:
        return self._space

    @property
    def image_size(self) -> int:
        side: int = self._manifest["image_size"]
        return side

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest says about licence, languages, training; may be empty."""
        facts: dict[str, Any] = self._manifest.get("facts", {})
        return facts

    @cached_property
    def calibration(self) -> Mapping[str, Any] | None:
        """How scores become probabilities, as `mmsearch.training.calibrate` wrote it; None where it was not run.
        Raises WeightsMismatchError."""
        if CALIBRATION not in self._manifest:
            return None
        path = self._folder / CALIBRATION
        try:
            stored: Mapping[str, Any] = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise WeightsMismatchError(
                f"{path} is damaged; install mmsearch again, or copy the model's folder anew."
            ) from error
        return stored

    def prepare(self, picture: Image.Image) -> NDArray[np.uint8]:
        """RGB picture of any size -> (image_size, image_size, 3) uint8."""
        return squeeze(picture, self.image_size)

    def encode_images(self, prepared: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """n arrays from `prepare` -> (n, dimension) float32, unit length."""
        rows = np.empty((len(prepared), self._space.dimension), np.float32)
        pairs = self._known_pairs()
        for start in range(0, len(prepared), self.batch_size):
            pixels = np.stack(list(prepared[start : start + self.batch_size]))  # (m, side, side, 3)
            seen = self._image_tower().run(None, {"pixels": pixels})[0]
            rows[start : start + len(pixels)] = seen if pairs is None else pairs.of_images(seen)
        return rows

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """n texts -> (n, dimension) float32, unit length. Longer texts are cut at the manifest's `max_tokens`."""
        rows = np.empty((len(texts), self._space.dimension), np.float32)
        if not texts:
            return rows
        pairs = self._known_pairs()
        tower, tokenizer = self._text_tower()
        # Arguments that are not UTF-8 arrive as lone surrogates, which the tokenizer refuses.
        clean = [text.encode("utf-8", "replace").decode() for text in texts]
        tokens = [encoding.ids for encoding in tokenizer.encode_batch(clean)]
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))  # like lengths together: little padding
        for start in range(0, len(order), TEXT_BATCH):
            which = order[start : start + TEXT_BATCH]
            ids = np.zeros((len(which), len(tokens[which[-1]])), np.int64)
            mask = np.zeros_like(ids)
            for row, i in enumerate(which):
                ids[row, : len(tokens[i])] = tokens[i]
                mask[row, : len(tokens[i])] = 1
            said = tower.run(None, {"ids": ids, "mask": mask})[0]
            rows[which] = said if pairs is None else pairs.of_texts(said)
        return rows

    def verify_files(self) -> None:
        """Read every file and compare it with its checksum in the manifest. Raises WeightsMismatchError."""
        for file, expected in _entries(self._manifest).items():
            with (self._folder / file).open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if found != expected["sha256"]:
                raise WeightsMismatchError(
                    f"{self._folder / file} is damaged: its checksum is not the one in {MANIFEST}; "
                    "install mmsearch again, or copy the model's folder anew."
                )

    def _image_tower(self) -> InferenceSession:
        with self._lock:
            if self._image is None:
                self._image = self._open("image.onnx", threads=0)
            return self._image

    def _text_tower(self) -> tuple[InferenceSession, Tokenizer]:
        with self._lock:
            if self._text is None:
                from tokenizers import Tokenizer

                # A second thread makes ten tokens slower, not faster.
                session = self._open("text.onnx", threads=1)
                tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
                tokenizer.no_padding()
                tokenizer.enable_truncation(self._manifest["max_tokens"])
                self._text = session, tokenizer
            return self._text

    def _known_pairs(self) -> KnownPairs | None:
        with self._lock:
            if self._pairs is None and PAIRS in self._manifest["files"]:
                path = self._folder / PAIRS
                try:
                    pairs = KnownPairs.read(path.read_bytes())
                except (OSError, ValueError) as error:
                    raise ModelError(f"{path} cannot be loaded: {' '.join(str(error).split())[:200]}") from error
                self._check_width(path, pairs.width)
                self._pairs = pairs
            return self._pairs

    def _open(self, file: str, threads: int) -> InferenceSession:
        """threads: 0 means all cores."""
        # Read when the library is loaded: without it, a session file is written, and usage may be reported.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Threads that wait by spinning take the cores from what comes next: a picture took 16 ms instead of 9.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = self._folder / file
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has its own dozen of exception classes
            raise ModelError(f"{path} cannot be loaded: {' '.join(str(error).split())[:200]}") from error
        self._check_width(path, session.get_outputs()[0].shape[-1])
        return session

    def _check_width(self, path: Path, width: int) -> None:
        if width != self._width:
            raise WeightsMismatchError(
                f"{path} gives vectors of {width} numbers, its {MANIFEST} says {self._width}; "
                "the files of this folder do not belong together."
            )


def fingerprint(manifest: dict[str, Any]) -> str:
    """Hex digest over the checksums of the files and all that decides what the towers are given."""
    decisive = {key: manifest[key] for key in ("format", "dimension", "image_size", "max_tokens", "preprocessing")}
    decisive["files"] = {file: entry["sha256"] for file, entry in manifest["files"].items()}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The checked `encoder.json` of a folder. Raises WeightsNotFoundError, WeightsMismatchError."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise WeightsNotFoundError(f"{folder} is no model folder: it has no {MANIFEST}.") from None
    except OSError as error:
        raise WeightsNotFoundError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise WeightsMismatchError(f"{path} is not valid JSON: {error}.") from error
    problem = _problem(manifest) or _problem_with_files(folder, manifest)
    if problem:
        raise WeightsMismatchError(f"{path} does not describe a model that this mmsearch can use: {problem}.")
    checked: dict[str, Any] = manifest
    return checked


def _problem(manifest: Any) -> str | None:
    """What is wrong with the manifest itself, or None."""
    if not isinstance(manifest, dict):
        return "it is no JSON object"
    if manifest.get("format") != FORMAT:
        return f"its format is {manifest.get('format')!r}, this program reads {FORMAT}"
    for key, lowest, highest in (("dimension", 1, 65_536), ("image_size", 1, 4096), ("max_tokens", 3, 512)):
        value = manifest.get(key)
        if type(value) is not int or not lowest <= value <= highest:
            return f"{key} is {value!r}, not a whole number from {lowest} to {highest}"
    if manifest.get("preprocessing") != PREPROCESSING:
        return f"its preprocessing is {manifest.get('preprocessing')!r}, this program does {PREPROCESSING!r}"
    if not isinstance(manifest.get("facts", {}), dict):
        return "facts is no JSON object"
    files = manifest.get("files")
    if not isinstance(files, dict) or set(files) - {PAIRS} != set(FILES):
        return f"files must name exactly {', '.join(FILES)}, and {PAIRS} where there is one"
    for file, entry in _entries(manifest).items():
        if not isinstance(entry, dict) or type(entry.get("bytes")) is not int:
            return f"{file} has no size in bytes"
        if not isinstance(entry.get("sha256"), str) or len(entry["sha256"]) != 64:
            return f"{file} has no sha256"
    return None


def _entries(manifest: dict[str, Any]) -> dict[str, Any]:
    """What the manifest says about each file of the folder."""
    own = {CALIBRATION: manifest[CALIBRATION]} if CALIBRATION in manifest else {}
    return {**manifest["files"], **own}


def _problem_with_files(folder: Path, manifest: dict[str, Any]) -> str | None:
    for file, entry in _entries(manifest).items():
        try:
            size = (folder / file).stat().st_size
        except OSError:
            return f"{file} is missing"
        if size != entry["bytes"]:
            return f"{file} has {size} bytes instead of {entry['bytes']}"
    return None
