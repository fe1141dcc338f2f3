"""Labels: what pictures are tagged with, and the vector that stands for each in the space of an encoder.

In: the list that comes along (labels.txt), names, or a file of one's own. Out: `Label`s; and one unit-length vector a
label: the mean of the vectors of its prompts, each of unit length, made unit length again.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmsearch.captioning import encode_texts
from mmsearch.encoders.protocol import Encoder
from mmsearch.errors import UsageError
from mmsearch.relevance import Calibration, Scale
from mmsearch.types import Progress
from mmsearch.wording import prompts

LONGEST_NAME = 100  # characters
PROMPTS_AT_ONCE = 512
# From this many prompts on, about a second's work, the vectors are kept for the next time.
KEPT_FROM = 1000

Labels = str | os.PathLike[str] | Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Label:
    """name: what a picture is tagged with. prompts: the sentences that say it."""

    name: str
    prompts: tuple[str, ...]


def read_labels(labels: Labels = None) -> list[Label]:
    """None: the list that comes along; a path: a file; else names. Each name once, in the order given.

    Raises UsageError, with the number of the line, for a file that cannot be read or understood.
    """
    if labels is None:
        return _from_lines(Path(__file__).with_name("labels.txt"))
    if isinstance(labels, str | os.PathLike):
        return _from_lines(Path(labels).expanduser())
    if not labels:
        raise UsageError("The list of labels is empty; name at least one.")
    once: dict[str, str] = {}  # names that differ in capitals alone are one tag
    for name in map(checked_name, labels):
        once.setdefault(name.casefold(), name)
    return [Label(name, tuple(prompts(name))) for name in once.values()]


def checked_name(name: str) -> str:
    """A name for a tag, without spaces around it. UsageError says what is wrong with it."""
    if not isinstance(name, str):
        raise UsageError(f"A tag is a text, not {type(name).__name__}.")
    kept = " ".join(name.split())
    if not kept:
        raise UsageError("A tag must not be empty.")
    if len(kept) > LONGEST_NAME:
        raise UsageError(f"The tag {kept[:30]!r}... has {len(kept)} characters; {LONGEST_NAME} are the most.")
    if not kept.isprintable():
        raise UsageError(f"The tag {kept!a} holds a character that cannot be shown.")
    return kept


def _from_lines(path: Path) -> list[Label]:
    """A label a line, or `label,prompt`; several prompts of a label are averaged. `#` begins a remark."""
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        bad = error.object[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}, line {bad}: not UTF-8; save the list as text in UTF-8.") from error
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UsageError(f"The labels in {path} cannot be read: {why}.") from error
    found: dict[str, tuple[str, list[str]]] = {}  # names that differ in capitals alone are one tag
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            cells = [cell.strip() for cell in next(csv.reader([line.strip()], strict=True, skipinitialspace=True))]
            if [cell.lower() for cell in cells] == ["label", "prompt"] and not found:
                continue
            if len(cells) > 2:
                raise UsageError(f"it has {len(cells)} columns; put a prompt with commas in double quotes.")
            name = checked_name(cells[0])
            if len(cells) == 2 and not cells[1]:
                raise UsageError("the prompt is empty; leave out the comma, too.")
        except csv.Error as error:
            raise UsageError(f"{path}, line {number}: {error}; expected is label or label,prompt.") from error
        except UsageError as error:
            raise UsageError(f"{path}, line {number}: {error}") from error
        found.setdefault(name.casefold(), (name, []))[1].extend(cells[1:])
    if not found:
        raise UsageError(f"{path} holds no labels; write one a line.")
    return [Label(name, tuple(own or prompts(name))) for name, own in found.values()]


# --- scoring ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LabelScore:
    """How well a label fits a picture. score: the cosine of their vectors. probability: that the label is right, each
    label by itself; None where the space is not calibrated."""

    label: str
    score: float
    probability: float | None


@dataclass(frozen=True, slots=True)
class LabelBank:
    """Labels ready to be compared with pictures. vectors: (n, dimension) float32, unit length. slopes, intercepts: (n,)
    float64, of each label's calibration; None where the space has none."""

    names: tuple[str, ...]
    vectors: NDArray[np.float32]
    slopes: NDArray[np.float64] | None
    intercepts: NDArray[np.float64] | None

    def scores(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """(m, dimension) unit-length rows of pictures -> (m, n) cosines."""
        return np.asarray(rows @ self.vectors.T, np.float32)

    def probabilities(self, scores: NDArray[np.float32]) -> NDArray[np.float64] | None:
        """(m, n) cosines -> (m, n) probabilities."""
        if self.slopes is None or self.intercepts is None:
            return None
        with np.errstate(over="ignore"):
            return np.asarray(1 / (1 + np.exp(-(self.slopes * scores + self.intercepts))), np.float64)

    def best(self, row: NDArray[np.float32], k: int) -> tuple[LabelScore, ...]:
        """The k most probable labels of one picture, (dimension,), best first; by cosine without a calibration."""
        scores = self.scores(row[None])
        likely = self.probabilities(scores)
        order = np.argsort(-(scores if likely is None else likely)[0], kind="stable")[:k]
        return tuple(
            LabelScore(self.names[i], float(scores[0, i]), None if likely is None else float(likely[0, i]))
            for i in order.tolist()
        )


def label_bank(
    encoder: Encoder,
    labels: Sequence[Label],
    calibration: Calibration | None,
    best: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
    among: int = 1000,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> LabelBank:
    """Encode the labels, and ask the calibration how each one's scores are to be read.

    best: vectors of labels (n, d) -> (n, m, d) rows of the best hits of each, best first, which tell whether there is
    anything of the kind at all; without, the score alone has to do. among: how many images these are the best of.
    """
    vectors = label_vectors(encoder, labels, on_progress)
    scales: list[Scale | None] = [None] * len(vectors)
    if calibration is not None:
        hits = [None] * len(vectors) if best is None else best(vectors)
        scales = [calibration.scale(vector, "t2i", mine, among) for vector, mine in zip(vectors, hits, strict=True)]
    known = [scale for scale in scales if scale is not None]
    names = tuple(label.name for label in labels)
    if len(known) < len(names):
        return LabelBank(names, vectors, None, None)
    slopes, intercepts = np.array([one.slope for one in known]), np.array([one.intercept for one in known])
    return LabelBank(names, vectors, slopes, intercepts)


def label_vectors(
    encoder: Encoder, labels: Sequence[Label], on_progress: Callable[[Progress], None] = lambda _: None
) -> NDArray[np.float32]:
    """(n, dimension) float32, unit length, in the order of the labels. Those of long lists are kept in the user's cache
    folder, under a name that says which weights and which words made them."""
    sentences = [sentence for label in labels for sentence in label.prompts]
    shape = (len(labels), encoder.space.dimension)
    key = json.dumps([encoder.space.fingerprint, [label.prompts for label in labels]])
    kept = _cache_folder() / f"{hashlib.sha256(key.encode()).hexdigest()}.npy"
    if len(sentences) >= KEPT_FROM and (known := _kept(kept, shape)) is not None:
        return known
    parts = []
    for start in range(0, len(sentences), PROMPTS_AT_ONCE):
        on_progress(Progress("tagging"))
        parts.append(encode_texts(encoder, sentences[start : start + PROMPTS_AT_ONCE]))
    rows = np.concatenate(parts, dtype=np.float64)
    ends = np.cumsum([len(label.prompts) for label in labels])
    sums = np.add.reduceat(rows, np.concatenate([[0], ends[:-1]]))
    vectors: NDArray[np.float32] = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)
    if len(sentences) >= KEPT_FROM:
        _keep(kept, vectors)
    return vectors


def _cache_folder() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("mmsearch", appauthor=False)) / "labels"


def _kept(path: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """What was kept, if it is there and sound; anything else is made anew."""
    try:
        rows: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if rows.shape != shape or rows.dtype != np.float32:
        return None
    sound: bool = np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3)
    return rows if sound else None


def _keep(path: Path, vectors: NDArray[np.float32]) -> None:
    """A cache is a courtesy: where it cannot be written, the work is done again."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".new", delete=False) as file:
            np.save(file, vectors)
        os.replace(file.name, path)
