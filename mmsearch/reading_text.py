"""Text inside pictures: an index run reads it where it is asked to (`--ocr`), so that keywords find it.

In: images that the reader has not read yet. Out: their text in the catalog; "" where there is none. A batch is one
transaction, so a killed run goes on where it was; a picture that cannot be read costs only itself.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Protocol

import numpy as np
from PIL import Image
from sqlalchemy import Connection

from mmsearch import files
from mmsearch.catalog import read, texts
from mmsearch.catalog.catalog import Catalog
from mmsearch.decode import OVERSAMPLING, decode
from mmsearch.errors import MissingExtraError, ModelError, PictureError
from mmsearch.settings import Limits
from mmsearch.types import Progress

LONG_SIDE = 1600  # pixels: a page of a letter can still be read, and a photograph takes about a second
IMAGES_PER_COMMIT = 16
DECODERS = 2  # threads that read and decode ahead; the reader itself uses all cores
# On drawings and patterns the reader sees single letters, most of them below this; what is printed comes out above 0.9.
MIN_CONFIDENCE = 0.8
# RapidOCR enlarges a picture until its short side has 736 pixels: of a strip it would make gigabytes.
NARROWEST = 4  # how many times as long as wide a picture may be; narrower ones get a margin
LONGEST_TEXT = 20_000  # characters kept of one picture: a page has about 3,000


class TextReader(Protocol):
    """Finds the text in a picture. name: what found it, to the weights; another name reads pictures again."""

    @property
    def name(self) -> str: ...

    def read_text(self, picture: Image.Image) -> str:
        """RGB picture, upright -> its lines of text, from top to bottom; "" where there is none."""


@dataclass(slots=True)
class Reading:
    """What became of the pictures. found: those with text. failures: (file, why) of those that cannot be read."""

    read: int = 0
    found: int = 0
    failures: list[tuple[Path, str]] = field(default_factory=list)

    def notices(self) -> list[str]:
        """Lines for the person."""
        if not self.failures:
            return []
        path, why = self.failures[0]
        number = len(self.failures)
        return [f"The text inside {number:,} pictures could not be read, such as {path}: {why}."]


def read_waiting(
    catalog: Catalog, reader: TextReader, limits: Limits, on_progress: Callable[[Progress], None], cancel: Event
) -> Reading:
    """Read what this reader has not read yet. Images that an application added by key have no file, and are passed
    over; so are files that are away, or are not now what they were when they were indexed."""
    result = Reading()
    with catalog.reading() as connection:
        waiting = _waiting(connection, reader.name)
    with ThreadPoolExecutor(DECODERS, "mmsearch-ocr") as pool:
        try:
            for start in range(0, len(waiting), IMAGES_PER_COMMIT):
                some = waiting[start : start + IMAGES_PER_COMMIT]
                found = {}
                for image, text in _texts_of(catalog, pool, reader, some, limits, result):
                    found[image] = text
                    result.read += 1
                    result.found += bool(text)
                    on_progress(Progress("reading", done=start + len(found), total=len(waiting)))
                    if cancel.is_set():
                        break
                with catalog.writing() as connection:
                    for image, text in found.items():
                        texts.put_picture_text(connection, image, text, reader.name)
                if cancel.is_set():
                    break
        finally:
            pool.shutdown(cancel_futures=True)
    return result


def _waiting(connection: Connection, read_by: str) -> list[int]:
    waiting: list[int] = []
    while some := texts.images_without_text(connection, read_by, waiting[-1] if waiting else 0, 10_000):
        waiting += some
    return waiting


def _texts_of(
    catalog: Catalog,
    pool: ThreadPoolExecutor,
    reader: TextReader,
    images: Sequence[int],
    limits: Limits,
    result: Reading,
) -> Iterator[tuple[int, str]]:
    """(image, text) of those that can be looked at now; the next pictures are decoded meanwhile."""
    with catalog.reading() as connection:
        places = read.present_files(connection, images)
        hashes = texts.hashes(connection, images)
    jobs: list[tuple[int, Path, Future[Image.Image | None]]] = []
    for image in images:
        paths = [Path(os.fsdecode(os.path.join(*place))) for place in places.get(image, []) if place[0]]
        if paths and image in hashes:
            jobs.append((image, paths[0], pool.submit(_picture, paths, hashes[image], limits)))
    for image, path, job in jobs:
        try:
            picture = job.result()
            if picture is not None:
                yield image, reader.read_text(picture)[:LONGEST_TEXT]
        except PictureError as error:
            result.failures.append((path, str(error)))
            yield image, ""


def _picture(paths: Sequence[Path], sha256: bytes, limits: Limits) -> Image.Image | None:
    """On a decode thread: the picture at a size for reading; None where no file holds it now. Raises PictureError."""
    for path in paths:
        try:
            data, found, *_ = files.read(path, limits.max_megabytes)
        except PictureError:
            continue  # away, or not to be read at the moment: the next run tries again
        if found == sha256:
            picture = decode(data, target=LONG_SIDE // OVERSAMPLING, limits=limits).picture
            picture.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
            return picture
    return None


# --- RapidOCR -----------------------------------------------------------------------------------------------------


MODELS = {
    "Det": "PP-OCRv6_det_small.onnx",
    "Cls": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "Rec": "PP-OCRv6_rec_small.onnx",
}


class RapidReader:
    """RapidOCR on ONNX Runtime, with the models that lie inside its package: Latin letters, digits, Chinese, Japanese.

    Never uses the network: each model is named by its file, so that RapidOCR has nothing to fetch.
    Raises MissingExtraError where it is not installed, ModelError where its models are not there.
    """

    name = "PP-OCRv6 small"  # the weights, not the program around them

    def __init__(self) -> None:
        # Read when onnxruntime is loaded: without it, usage may be reported.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        try:
            import rapidocr
        except ImportError as error:
            raise MissingExtraError(
                f"Reading the text inside pictures needs an extra: pip install 'mmsearch[ocr]' ({error})."
            ) from error
        folder = Path(rapidocr.__file__).parent / "models"
        parameters: dict[str, Any] = {"Global.log_level": "critical"}
        for part, file in MODELS.items():
            if not (folder / file).is_file():
                raise ModelError(
                    f"This version of RapidOCR does not bring the model {file} along; "
                    "pip install --force-reinstall 'mmsearch[ocr]' installs one that does."
                )
            parameters[f"{part}.model_path"] = str(folder / file)
        logging.getLogger("RapidOCR").setLevel(logging.CRITICAL)
        self._engine: Any = rapidocr.RapidOCR(params=parameters)  # what it returns depends on what it is told to do

    def read_text(self, picture: Image.Image) -> str:
        """See TextReader. Lines that are uncertain, or hold no word or number of two characters, are left out."""
        try:
            pixels = np.asarray(_with_margin(picture))[:, :, ::-1]  # BGR, as OpenCV has it
            result = self._engine(np.ascontiguousarray(pixels))
        except Exception as error:  # OpenCV, ONNX Runtime and RapidOCR have a dozen classes between them
            raise PictureError(f"RapidOCR cannot read it ({type(error).__name__})") from error
        lines = zip(result.txts or (), result.scores or (), strict=True)
        return "\n".join(text for text, score in lines if score >= MIN_CONFIDENCE and _is_word(text))


def _with_margin(picture: Image.Image) -> Image.Image:
    least = max(picture.size) // NARROWEST
    if min(picture.size) >= least:
        return picture
    wide = Image.new("RGB", (max(picture.width, least), max(picture.height, least)), "white")
    wide.paste(picture)
    return wide


def _is_word(line: str) -> bool:
    """Whether keywords could ever find it: two letters or digits side by side, or a character that is a word."""
    return any(a.isalnum() and (b.isalnum() or ord(a) > 0x2E80) for a, b in zip(line, line[1:] + " ", strict=True))
