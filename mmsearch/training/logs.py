"""What a run writes down while it goes: `log.csv` and TensorBoard's files, one row each `step`.

In: the folder of a run, named figures. Out: files that grow; after a crash, rows beyond the checkpoint are taken back.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmsearch.errors import MissingExtraError

COLUMNS = ("step", "loss", "learning_rate", "pairs_a_second", "t2i_R@1", "t2i_R@5", "t2i_R@10", "i2t_R@1", "i2t_R@5",
           "i2t_R@10", "t2i_mAP", "i2i_mAP")  # fmt: skip


class Logs:
    """begin: the first step that is still to come; rows of it and later ones are dropped."""

    def __init__(self, folder: Path, begin: int) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise MissingExtraError(
                "Training needs tensorboardX; install it with: pip install 'mmsearch[train]'"
            ) from None
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "log.csv"
        kept = [row for row in read(self._path) if int(row["step"]) < begin]
        with self._path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader()
            writer.writerows(kept)
        self._board: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=begin or None)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """figures: some of COLUMNS."""
        with self._path.open("a", newline="", encoding="utf-8") as stream:
            csv.DictWriter(stream, COLUMNS).writerow({"step": step, **{k: f"{v:.6g}" for k, v in figures.items()}})
        for name, value in figures.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._board.close()


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a log.csv; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
