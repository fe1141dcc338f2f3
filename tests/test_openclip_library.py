"""open_clip is imported safely and kept quiet."""

from __future__ import annotations

import logging
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest

from mmsearch.encoders.openclip import OpenClipEncoder
from mmsearch.encoders.openclip_files import weights_here
from mmsearch.encoders.openclip_library import open_clip, quiet
from mmsearch.errors import (
    MissingExtraError,
)
from tests.tiny_openclip import run_python, write_checkpoint


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    return write_checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def model(made: tuple[Any, Path]) -> Any:
    return made[0]


@pytest.fixture(scope="module")
def checkpoint(made: tuple[Any, Path]) -> Path:
    return made[1]


def test_loading_is_silent(checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers), list(root.filters), logging.getLogger("timm").level)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OpenClipEncoder(f"mmsearch-tiny/{checkpoint}", device="cpu").encode_texts(["a dog"])
    assert (root.level, list(root.handlers), list(root.filters), logging.getLogger("timm").level) == before
    assert capfd.readouterr() == ("", "")


def test_an_application_keeps_its_own_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    with quiet():
        logging.warning("mine")
        logging.getLogger("application").warning("mine too")
        open_clip().factory.logging.warning("of this file, so kept as well")
    assert [record.message for record in caplog.records] == ["mine", "mine too", "of this file, so kept as well"]


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mmsearch\[clip\]'"):
        open_clip()
    assert weights_here() == {}


TORCHVISIONS = {
    "mismatched": """
        import torch
        @torch.library.register_fake("torchvision::nms")
        def _(dets, scores, iou_threshold):
            return dets
        @torch.library.register_fake("torchvision::qnms")
        def _(dets, scores, iou_threshold):
            return dets
        """,
    "intact": """
        import torch
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.impl("nms", lambda dets, scores, iou_threshold: dets + 1, "CPU")
        """,
    "broken": "raise RuntimeError('compiled for another planet\\nand more')",
}


@pytest.mark.parametrize("kind", sorted(TORCHVISIONS))
def test_torchvision(tmp_path: Path, kind: str) -> None:
    """Three packages that stand for torchvision: of another torch, intact, broken in another way."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(textwrap.dedent(TORCHVISIONS[kind]))
    (tmp_path / "open_clip.py").write_text("import torchvision")
    script = """
        import sys
        sys.path.insert(0, sys.argv[1])
        import torch
        from mmsearch.encoders import openclip_library
        from mmsearch.errors import ModelError
        try:
            print(openclip_library.open_clip().__name__, len(openclip_library._keep_alive))
            print(torch.ops.torchvision.nms(torch.zeros(2, 4), torch.zeros(2), 0.5).sum().item())
        except NotImplementedError:
            print("declared only")
        except ModelError as error:
            print(error)
        """
    expected = {
        "mismatched": "open_clip 1\ndeclared only\n",
        "intact": "open_clip 0\n8.0\n",
        "broken": "open_clip is installed but cannot be imported (RuntimeError: compiled for another planet); "
        "reinstall torch, torchvision and open_clip_torch together: pip install -U 'mmsearch[clip]'\n",
    }
    assert run_python(script, str(tmp_path)) == expected[kind]
