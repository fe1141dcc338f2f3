"""Any image model of timm without its classifier. (Wightman 2019, github.com/huggingface/pytorch-image-models)

In: `NAME` for random weights, or `NAME@FILE` with weights in a local file (.safetensors, or a torch file); never a
download. Size, mean and standard deviation of its pictures come from timm's own configuration of that name.
Out: `Features`: the pooled state, and those of the places where the model has them in a row.
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmsearch.encoders.openclip_library import quiet, timm
from mmsearch.errors import UnknownModelError, UsageError, WeightsMismatchError, WeightsNotFoundError
from mmsearch.nn.features import Features
from mmsearch.nn.layers import Normalisation
from mmsearch.nn.towers.tower import Tower, stages_of


class TimmTower(Tower):
    """pixels (n, side, side, 3) uint8 -> pooled (n, width). side: another size of pictures than the usual one."""

    def __init__(self, name: str, side: int | None = None) -> None:
        super().__init__()
        library = timm()
        architecture, _, file = name.partition("@")
        if not library.is_model(architecture):
            near = difflib.get_close_matches(architecture, library.list_models(), 3)
            raise UnknownModelError(
                f"timm has no model {architecture!r}" + (f"; did you mean {' or '.join(near)}?" if near else ".")
            )
        with quiet():
            self.net: Any = _create(architecture, side)
            if file:
                _fill(self.net, Path(file).expanduser(), architecture)
            data = library.data.resolve_model_data_config(self.net)
        self.side: int = side or data["input_size"][-1]
        self.width: int = self.net.head_hidden_size if hasattr(self.net, "head_hidden_size") else self.net.num_features
        self.normalise = Normalisation(data["mean"], data["std"])
        self.eval()

    def forward(self, pixels: Tensor) -> Features:
        states = self.net.forward_features(self.normalise(pixels))
        tokens = states[:, getattr(self.net, "num_prefix_tokens", 0) :] if states.dim() == 3 else None  # (n, t, w)
        return Features(pooled=self.net.forward_head(states), tokens=tokens)

    def stages(self) -> list[nn.Module]:
        return stages_of(*self.net.children())


def _create(architecture: str, side: int | None) -> Any:
    library = timm()
    if side is None or not library.get_pretrained_cfg_value(architecture, "fixed_input_size"):
        return library.create_model(architecture, num_classes=0)
    try:
        return library.create_model(architecture, num_classes=0, img_size=side)
    except (TypeError, AssertionError, RuntimeError, ValueError) as error:
        raise UsageError(f"timm's {architecture} cannot read pictures of {side} pixels ({error}).") from error


def _fill(model: Any, file: Path, architecture: str) -> None:
    """Weights into the model: all must be there, and no others but those of the classifier."""
    from timm.models import load_state_dict

    if not file.is_file():
        raise WeightsNotFoundError(f"{file} is not there; give a file with weights of timm's {architecture}.")
    try:
        state = load_state_dict(str(file))
        mend = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)  # timm's, for older names
        state = mend(state, model) if mend else state
        heads = model.pretrained_cfg.get("classifier") or ()
        heads = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
        model.load_state_dict({key: value for key, value in state.items() if not key.startswith(heads)})
    except Exception as error:  # torch, safetensors and timm each have their own for what they cannot read
        reason = " ".join(str(error).split())[:200]
        raise WeightsMismatchError(f"{file} does not fit timm's {architecture} ({reason}).") from error
