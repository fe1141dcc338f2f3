"""open_clip, imported safely and kept quiet. Nothing here runs before it is asked for.

In: an environment that may lack the extra, or hold a torchvision that does not match its torch.
Out: the module `open_clip`, or one line that says what to install.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from mmsearch.errors import MissingExtraError, ModelError

# Loading changes state of the whole process (log levels, warning filters) for a moment: one thread at a time.
_loading = threading.RLock()
_keep_alive: list[Any] = []
_CHATTY = ("huggingface_hub", "transformers", "timm", "httpx", "filelock")


def open_clip() -> Any:
    """The module `open_clip`. Raises MissingExtraError, or ModelError where it is installed and does not import."""
    if find_spec("torch") is None or find_spec("open_clip") is None:
        raise MissingExtraError("This model needs open_clip and torch: pip install 'mmsearch[clip]'")
    with quiet():
        try:
            _import_torchvision()
            import open_clip
        except Exception as error:  # OSError, RuntimeError, AttributeError: whatever a broken mixture raises
            raise ModelError(
                f"open_clip is installed but cannot be imported ({_first_line(error)}); "
                "reinstall torch, torchvision and open_clip_torch together: pip install -U 'mmsearch[clip]'"
            ) from error
    return open_clip


def timm() -> Any:
    """The module `timm`, which open_clip brings and which needs the same care. Raises as `open_clip` does."""
    open_clip()
    with quiet():
        import timm
    return timm


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings and no log lines from the model libraries inside the block.

    open_clip logs through the root logger, and the first such call would give an application that has set up no
    logging a handler on stderr; a handler that does nothing prevents that, a filter drops open_clip's records.
    """

    def not_of_open_clip(record: logging.LogRecord) -> bool:  # one object a block, so that blocks can be nested
        return "open_clip" not in record.pathname

    root = logging.getLogger()
    nothing = logging.NullHandler()
    levels = {name: logging.getLogger(name).level for name in _CHATTY}
    with _loading, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root.addHandler(nothing)
        root.addFilter(not_of_open_clip)
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
            root.removeFilter(not_of_open_clip)
            root.removeHandler(nothing)


def _import_torchvision() -> None:
    """Import torchvision, also where it was compiled for another torch than the one that is here.

    The usual torchvision of the package index is compiled for CUDA. Beside a torch for CPUs its compiled operators
    cannot load, and it fails while it describes two of them, which open_clip never calls. Once they are declared
    (without an implementation) it imports. An intact torchvision is imported as it is.
    """
    import torch

    try:
        import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
        _keep_alive.append(library)  # the declarations end with it
        import_module("torchvision")


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}"
