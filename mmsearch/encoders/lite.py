"""The built-in encoder: small, offline, inside the package. The same door as any directory of our own training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmsearch.encoders.trained import TrainedEncoder

NAME = "lite"
FOLDER = Path(__file__).parent / "weights" / "lite"

FACTS: dict[str, Any] = {
    "summary": "small and offline: EfficientNet-Lite2 and MiniLM-L6, tuned; trained heads, concepts, known pairs",
    "dimension": 384,
    "megabytes": 39,
    "licence": "Apache-2.0 and MIT parts; see LICENCES beside the weights",
    "languages": ("English",),
    "source": "inside the package; rebuilt by python -m mmsearch.training.lite",
}


class LiteEncoder(TrainedEncoder):
    """`lite`: the directory that ships. device: `auto` or `cpu`; precision: `auto` or `fp32`."""

    def __init__(self, *, device: str = "auto", precision: str = "auto") -> None:
        super().__init__(FOLDER, name=NAME, device=device, precision=precision)
