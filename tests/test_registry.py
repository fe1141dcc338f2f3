"""Names -> encoders: the order of looking up, refusals that help, plugins, and what is not imported on the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.encoders import registry
from mmsearch.encoders.registry import BUILTIN, RECOMMENDED, available_models, load_encoder, pull
from mmsearch.errors import (
    MissingExtraError,
    MMSearchError,
    ModelError,
    UnknownModelError,
    UsageError,
    WeightsMismatchError,
    WeightsNotFoundError,
)

PLUGIN = Path(__file__).parent / "plugin"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What would be opened, for tests of the order of looking up."""
    calls: list[tuple[str, ...]] = []
    monkeypatch.setitem(BUILTIN, "lite", lambda *arguments: calls.append(("built-in", *arguments)))
    monkeypatch.setattr(registry, "_open_clip", lambda *arguments: calls.append(("open_clip", *arguments)))
    return calls


def test_built_in_names_go_first(
    opened: list[tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lite").mkdir()
    (tmp_path / "lite" / "encoder.json").write_text("{}")
    dist = tmp_path / "impostor-1.0.dist-info"
    dist.mkdir()
    (dist / "METADATA").write_text("Metadata-Version: 2.1\nName: impostor\nVersion: 1.0\n")
    (dist / "entry_points.txt").write_text("[mmsearch.encoders]\nlite = nowhere:Nothing\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    load_encoder("lite")
    assert opened == [("built-in", "lite", "auto", "auto")]
    with pytest.raises(WeightsMismatchError):  # the folder is reached by a path
        load_encoder("./lite")


def test_a_plugin_is_used_as_the_built_in_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PLUGIN)
    encoder = load_encoder("colour")
    assert encoder.space.name == "colour"
    red, green = encoder.encode_texts(["red", "green"])
    assert red @ green < 0.5
    assert ("colour", "offered by the installed package colour-encoder") in [
        (model.name, model.summary) for model in available_models()
    ]
    with pytest.raises(UsageError, match="looks after its own weights"):
        pull("colour")


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        (
            "raise OSError('no such library')",
            ModelError,
            r"'broken' of the package nuisance cannot be loaded \(OSError",
        ),
        ("", ModelError, r"'broken' of the package nuisance cannot be loaded \(AttributeError"),
        ("def make(*a): return 1 / 0", ModelError, "ZeroDivisionError"),
        (
            "from mmsearch.errors import WeightsNotFoundError\ndef make(*a): raise WeightsNotFoundError('none here')",
            WeightsNotFoundError,
            "none here",
        ),
    ],
)
def test_a_plugin_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, error: type[Exception], message: str
) -> None:
    dist = tmp_path / "nuisance-1.0.dist-info"
    dist.mkdir()
    (dist / "METADATA").write_text("Metadata-Version: 2.1\nName: nuisance\nVersion: 1.0\n")
    (dist / "entry_points.txt").write_text("[mmsearch.encoders]\nbroken = nuisance_module:make\n")
    (tmp_path / "nuisance_module.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nuisance_module", raising=False)
    with pytest.raises(error, match=message):
        load_encoder("broken")
    sys.modules.pop("nuisance_module", None)


def test_a_trained_folder_goes_before_open_clip(
    opened: list[tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "ViT-B-32" / "openai"
    folder.mkdir(parents=True)
    load_encoder("ViT-B-32/openai", device="cpu", precision="bf16")
    assert opened == [("open_clip", "ViT-B-32/openai", "cpu", "bf16")]
    (folder / "encoder.json").write_text("{}")
    with pytest.raises(WeightsMismatchError, match=r"ViT-B-32/openai/encoder\.json does not describe"):
        load_encoder("ViT-B-32/openai")
    assert pull("ViT-B-32/openai") == folder


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("", ["There is no model ''"]),
        ("lit", ["did you mean lite?"]),
        ("Lite", ["did you mean lite?"]),
        ("nothing like it", ["Valid are lite, a folder", "ARCHITECTURE/TAG", "`mmsearch models` lists them."]),
        ("ViT-B-32", ["did you mean ViT-B-32/TAG?"]),
        ("ViT-B-32/", ["did you mean ViT-B-32/TAG?"]),
        ("vit-b-32/laion2b_s34b_b79k", ["did you mean ViT-B-32/laion2b_s34b_b79k?"]),
        ("ViT-B-33/openai", ["did you mean ViT-B-32/openai?"]),
        ("/no/such/folder", ["There is no model '/no/such/folder'"]),
        (".", ["There is no model '.' (a folder without encoder.json)"]),
    ],
)
def test_unknown_names(name: str, parts: list[str]) -> None:
    for look_up in (load_encoder, pull):
        with pytest.raises(UnknownModelError) as caught:
            look_up(name)
        message = str(caught.value)
        assert "\n" not in message
        for part in parts:
            assert part in message


@settings(deadline=None, max_examples=60)
@given(name=st.text(max_size=20))
def test_any_name_ends_in_one_of_our_errors(name: str) -> None:
    with pytest.raises(MMSearchError):
        load_encoder(name)


def test_wrong_options() -> None:
    with pytest.raises(UsageError, match=r"no device 'tpu'; valid are: auto, cpu, cuda, cuda:N, mps\."):
        load_encoder("lite", device="tpu")
    with pytest.raises(UsageError, match="no device 'cuda:x'"):
        load_encoder("lite", device="cuda:x")
    with pytest.raises(UsageError, match=r"no precision 'int4'; valid are: auto, fp32, bf16, fp16\."):
        load_encoder("ViT-B-32/openai", precision="int4")


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    for look_up in (load_encoder, pull):
        with pytest.raises(MissingExtraError, match=r"pip install 'mmsearch\[clip\]'"):
            look_up("ViT-B-32/openai")
        with pytest.raises(UnknownModelError):
            look_up("ViT-B-32")
    assert [model.name for model in available_models()] == ["lite", *(model.name for model in RECOMMENDED)]


def test_recommended_models_are_those_of_open_clip() -> None:
    import torch

    from mmsearch.encoders.openclip_library import open_clip, quiet

    library = open_clip()
    for model in RECOMMENDED:
        architecture, _, tag = model.name.partition("/")
        assert tag in library.list_pretrained_tags_by_model(architecture)
        config = library.get_model_config(architecture)
        assert model.dimension == config["embed_dim"]
        if "hf_model_name" not in config["text_cfg"]:  # else its size is known to the network only
            with quiet(), torch.device("meta"):
                whole = library.create_model(architecture, device="meta", pretrained_text=False)
            megabytes = sum(parameter.numel() * 4 for parameter in whole.parameters()) / 1e6
            assert model.megabytes == pytest.approx(megabytes, abs=1)


def test_available_models_say_where_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from mmsearch.encoders import openclip_files

    here = {RECOMMENDED[0].name: tmp_path / "a", "RN50/openai": tmp_path / "b"}
    monkeypatch.setattr(openclip_files, "weights_here", lambda: dict(here))
    found = {model.name: model for model in available_models()}
    assert {name: model.weights for name, model in found.items() if model.extra and model.weights} == here
    assert found["lite"].extra is None
    assert found["lite"].languages == "English"
    assert next(iter(found)) == "lite"


def run(script: str, *arguments: Any) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    ).stdout


def test_lite_and_names_of_ours_import_neither_torch_nor_open_clip() -> None:
    script = (
        "import sys\n"
        "from mmsearch.encoders.registry import load_encoder, pull\n"
        "from mmsearch.errors import MMSearchError\n"
        "for name in ('lite', 'nothing', 'ViT-B-33/openai'):\n"
        "    try:\n"
        "        load_encoder(name).encode_texts(['a dog'])\n"
        "    except MMSearchError as error:\n"
        "        pass\n"
        "    print(name, sorted({'torch', 'open_clip', 'transformers'} & set(sys.modules)))\n"
    )
    assert run(script).splitlines() == ["lite []", "nothing []", "ViT-B-33/openai []"]
