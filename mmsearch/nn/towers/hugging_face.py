"""A BERT-like text tower out of a local folder, read by transformers without a network.

In: a folder with config.json, tokenizer.json and, unless it starts from nothing, model.safetensors.
Out: `Features`: the mean of the last states (Reimers & Gurevych 2019, arXiv 1908.10084), and the states.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmsearch.encoders.openclip_library import open_clip, quiet
from mmsearch.errors import UsageError, WeightsMismatchError, WeightsNotFoundError
from mmsearch.nn.features import Features
from mmsearch.nn.layers import mean_over
from mmsearch.nn.towers.tower import Tower, stages_of

_FILES = ("config.json", "tokenizer.json")


class HuggingFaceText(Tower):
    """ids, mask (n, t) int64 -> pooled (n, width), tokens (n, t, width). weights: False starts from random ones."""

    def __init__(self, folder: str | Path, weights: bool = True, max_tokens: int = 64) -> None:
        super().__init__()
        folder = Path(folder).expanduser()
        files = (*_FILES, "model.safetensors") if weights else _FILES
        if missing := [file for file in files if not (folder / file).is_file()]:
            raise WeightsNotFoundError(f"{folder} holds no {' and no '.join(missing)}, which a text tower needs.")
        self.net: Any = _load(folder, weights)
        self.width: int = self.net.config.hidden_size
        self.tokenizer, self.max_tokens = (folder / "tokenizer.json").read_text("utf-8"), max_tokens
        if max_tokens > self.net.config.max_position_embeddings:
            most = self.net.config.max_position_embeddings
            raise UsageError(f"The text tower in {folder} reads at most {most} tokens, not {max_tokens}.")

    def forward(self, ids: Tensor, mask: Tensor) -> Features:
        states = self.net(input_ids=ids, attention_mask=mask).last_hidden_state  # (n, t, width)
        return Features(pooled=mean_over(states, mask), tokens=states, mask=mask.bool())

    def stages(self) -> list[nn.Module]:
        return stages_of(*self.net.children())


def _load(folder: Path, weights: bool) -> Any:
    with _silence():
        from transformers import AutoConfig, AutoModel

        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            if weights:
                net, found = AutoModel.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, output_loading_info=True
                )
            else:
                net, found = AutoModel.from_config(config), {}  # type: ignore[no-untyped-call]
        except Exception as error:  # transformers, safetensors and json each have their own for what they cannot read
            reason = " ".join(str(error).split())[:200]
            raise WeightsMismatchError(f"{folder} cannot be read as a text tower ({reason}).") from error
    missing = sorted(key for key in found.get("missing_keys", ()) if not key.startswith("pooler."))
    if missing:
        raise WeightsMismatchError(f"The weights in {folder} lack {len(missing)} parts of it ({missing[0]}, ...).")
    net.pooler = None  # it reads the first token only, and we the mean
    return net.float()


@contextmanager
def _silence() -> Iterator[None]:
    """No warnings, log lines or progress bars while transformers loads."""
    open_clip()  # mends a torchvision that does not fit, before transformers imports it
    with quiet():
        from transformers.utils import logging

        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            if shown:
                logging.enable_progress_bar()  # type: ignore[no-untyped-call]
