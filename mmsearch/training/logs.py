"""What a run writes down while it goes: `log.csv` and TensorBoard's files, one row each few steps.

In: the folder of a run, named figures. Out: files that grow, row by whole row; after a crash, rows beyond the
checkpoint are taken back. (TensorBoard reads records of a length, a message and the checksums of both: TFRecord)
"""

from __future__ import annotations

import csv
import os
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmsearch.errors import MissingExtraError, MMSearchError, UsageError

COLUMNS = ("step", "loss", "learning_rate", "pairs_a_second", "t2i_R@1", "t2i_R@5", "t2i_R@10", "i2t_R@1", "i2t_R@5",
           "i2t_R@10", "t2i_mAP", "i2i_mAP")  # fmt: skip


class Logs:
    """done: steps that were made before; rows of later ones are dropped. Each session has its own TensorBoard file."""

    def __init__(self, folder: Path, done: int) -> None:
        self._path = folder / "log.csv"
        self._board = folder / "tensorboard" / f"events.out.tfevents.{time.time_ns()}"
        event_pb2 = _events()
        with _written(folder):
            self._board.parent.mkdir(parents=True, exist_ok=True)
            self._keep([row for row in read(self._path) if int(row["step"]) <= done])
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)  # what came after `done` does not count
            self._record(file_version="brain.Event:2")
            self._record(step=done + 1, session_log=start)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """step: how many were made. figures: some of COLUMNS. Raises UsageError for others, MMSearchError where the
        disk is full."""
        if unknown := figures.keys() - set(COLUMNS):
            raise UsageError(f"The log has no column for {', '.join(sorted(unknown))}; it has {', '.join(COLUMNS)}.")
        from tensorboardX.proto.summary_pb2 import Summary

        with _written(self._path.parent):
            with self._path.open("a", newline="", encoding="utf-8") as stream:
                _writer(stream).writerow({"step": step, **{k: f"{v:.6g}" for k, v in figures.items()}})
            values = [Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
            self._record(step=step, summary=Summary(value=values))

    def _keep(self, rows: Iterable[Mapping[str, str]]) -> None:
        """Only these rows; a kill leaves the file of before or the new one."""
        beside = self._path.with_name(".log.csv.part")
        with beside.open("w", newline="", encoding="utf-8") as stream:
            writer = _writer(stream)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(beside, self._path)

    def _record(self, **parts: Any) -> None:
        """parts: of an Event."""
        from tensorboardX.record_writer import masked_crc32c

        message: bytes = _events().Event(wall_time=time.time(), **parts).SerializeToString()
        length = struct.pack("<Q", len(message))
        sums = [struct.pack("<I", masked_crc32c(one)) for one in (length, message)]
        with self._board.open("ab") as stream:
            stream.write(length + sums[0] + message + sums[1])


def read(path: Path) -> list[dict[str, str]]:
    """The whole rows of a log.csv; none where there is no file. A row that was cut off by a crash is left out."""
    if not path.is_file():
        return []
    lines = path.read_text("utf-8", "replace").splitlines(keepends=True)
    rows = csv.DictReader(line for line in lines if line.endswith("\n"))
    return [row for row in rows if row["step"].isdecimal()]


def _writer(stream: Any) -> csv.DictWriter[str]:
    return csv.DictWriter(stream, COLUMNS, lineterminator="\n")


def _events() -> Any:
    try:
        from tensorboardX.proto import event_pb2
    except ImportError:
        raise MissingExtraError("Training needs tensorboardX; install it with: pip install 'mmsearch[train]'") from None
    return event_pb2


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    """Raises MMSearchError where the disk does not take it."""
    try:
        yield
    except OSError as error:
        raise MMSearchError(
            f"The log in {folder} cannot be written ({error.strerror or error}). Make room or name another folder, and "
            "go on from there."
        ) from error
