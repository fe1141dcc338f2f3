"""The encoder that lies in a directory: what it computes, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmsearch.encoders.preprocess import squeeze
from mmsearch.encoders.trained import TrainedEncoder
from mmsearch.errors import ModelError, UsageError, WeightsMismatchError, WeightsNotFoundError

WORDS = ["[PAD]", "[UNK]", "red", "green", "blue", "bright"]
VECTORS = np.array([[9, 9, 9], [0.1, 0.1, 0.1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5]], np.float32)
SIDE = 8


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures are their mean colour, texts the mean of their words' colours, both unit length."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder)
    return folder


def write_tiny(folder: Path, dimensions: tuple[int, int] = (3, 3)) -> None:
    """Made of single ONNX operators, so that no torch is needed. dimensions: of the image and the text tower."""
    from onnx import ModelProto, TensorProto, helper, numpy_helper
    from tokenizers import Tokenizer, models, pre_tokenizers

    from mmsearch.encoders.preprocess import PREPROCESSING

    def model(nodes: list[Any], inputs: list[Any], tensors: list[Any], width: int) -> ModelProto:
        out = helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", width])
        graph = helper.make_graph(nodes, "tiny", inputs, [out], tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    node, value = helper.make_node, helper.make_tensor_value_info
    image = model(
        [
            node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
            node("ReduceMean", ["floats"], ["colour"], axes=[1, 2], keepdims=0),
            node("MatMul", ["colour", "project"], ["shown"]),
            node("LpNormalization", ["shown"], ["vector"], axis=1, p=2),
        ],
        [value("pixels", TensorProto.UINT8, ["n", SIDE, SIDE, 3])],
        [numpy_helper.from_array(np.eye(3, dimensions[0], dtype=np.float32), "project")],
        dimensions[0],
    )
    text = model(
        [
            node("Gather", ["table", "ids"], ["words"]),
            node("Cast", ["mask"], ["floats"], to=TensorProto.FLOAT),
            node("Unsqueeze", ["floats", "last"], ["weight"]),
            node("Mul", ["words", "weight"], ["kept"]),
            node("ReduceSum", ["kept", "tokens"], ["sum"], keepdims=0),
            node("MatMul", ["sum", "project"], ["shown"]),
            node("LpNormalization", ["shown"], ["vector"], axis=1, p=2),
        ],
        [value(name, TensorProto.INT64, ["n", "t"]) for name in ("ids", "mask")],
        [
            numpy_helper.from_array(VECTORS, "table"),
            numpy_helper.from_array(np.array([-1]), "last"),
            numpy_helper.from_array(np.array([1]), "tokens"),
            numpy_helper.from_array(np.eye(3, dimensions[1], dtype=np.float32), "project"),
        ],
        dimensions[1],
    )
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    contents = {
        "image.onnx": image.SerializeToString(),
        "text.onnx": text.SerializeToString(),
        "tokenizer.json": tokenizer.to_str().encode(),
    }
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    files = {f: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for f, c in contents.items()}
    manifest = {
        "format": 1, "name": "tiny", "dimension": 3, "image_size": SIDE, "max_tokens": 4,
        "preprocessing": PREPROCESSING, "files": files, "facts": {"licence": "none needed"},
    }  # fmt: skip
    (folder / "encoder.json").write_text(json.dumps(manifest))


def unit(rows: Any) -> np.ndarray[Any, Any]:
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_pictures_become_what_the_tower_says(written: Path) -> None:
    encoder = TrainedEncoder(written)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(70)]  # more than two batches
    rows = encoder.encode_images([encoder.prepare(Image.fromarray(p)) for p in pictures])
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, unit([p.reshape(-1, 3).mean(0) for p in pictures]), atol=1e-6)


def test_texts_become_what_the_tower_says_in_their_order(written: Path) -> None:
    encoder = TrainedEncoder(written)
    texts = ["red", "bright blue green", "green red", "", "blue", "something"] * 12  # lengths mixed, over one batch
    sums = {
        "red": VECTORS[2], "bright blue green": VECTORS[5] + VECTORS[4] + VECTORS[3],
        "green red": VECTORS[3] + VECTORS[2], "blue": VECTORS[4], "something": VECTORS[1],
    }  # fmt: skip
    rows = encoder.encode_texts(texts)
    for text, row in zip(texts, rows, strict=True):
        if text:  # this toy has no vector for nothing; real tokenizers add marks at both ends
            np.testing.assert_allclose(row, unit([sums[text]])[0], atol=1e-6)


def test_texts_are_cut_at_the_length_of_the_manifest(written: Path) -> None:
    encoder = TrainedEncoder(written)
    rows = encoder.encode_texts(["red red red green blue blue blue", "red red red green"])
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)


def test_nothing_gives_no_rows(written: Path) -> None:
    encoder = TrainedEncoder(written)
    for rows in (encoder.encode_images([]), encoder.encode_texts([])):
        assert rows.shape == (0, 3)
        assert rows.dtype == np.float32


def test_a_picture_is_squeezed_whole_onto_the_square() -> None:
    picture = Image.new("RGB", (400, 100), "red")
    picture.paste("blue", (200, 0, 400, 100))
    made = squeeze(picture, 20)
    assert made.shape == (20, 20, 3)
    assert made[:, 0].tolist() == [[255, 0, 0]] * 20
    assert made[:, -1].tolist() == [[0, 0, 255]] * 20
    grey = squeeze(Image.new("L", (5, 5), 7), 5)
    assert (grey == 7).all()


def test_the_towers_load_on_their_own(written: Path, tmp_path: Path) -> None:
    for file in written.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    size = (tmp_path / "image.onnx").stat().st_size
    (tmp_path / "image.onnx").write_bytes(b"x" * size)
    encoder = TrainedEncoder(tmp_path)
    np.testing.assert_allclose(encoder.encode_texts(["red"]), [[1, 0, 0]], atol=1e-6)  # needs no image tower
    with pytest.raises(ModelError, match=r"image\.onnx cannot be loaded"):
        encoder.encode_images([np.zeros((SIDE, SIDE, 3), np.uint8)])


def test_the_name_is_what_people_ask_for(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TrainedEncoder(written, name="mine").space.name == "mine"
    monkeypatch.chdir(written.parent)
    assert TrainedEncoder(Path(written.name)).space.name == str(written)
    assert TrainedEncoder(written).facts == {"licence": "none needed"}


def test_device_and_precision_are_checked(written: Path) -> None:
    TrainedEncoder(written, device="cpu", precision="fp32")
    with pytest.raises(UsageError, match=r"device 'cuda'; valid are: auto, cpu"):
        TrainedEncoder(written, device="cuda")
    with pytest.raises(UsageError, match=r"precision 'bf16'; valid are: auto, fp32"):
        TrainedEncoder(written, precision="bf16")


def changed(folder: Path, written: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    for file in written.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((folder / "encoder.json").read_text())
    change(manifest)
    (folder / "encoder.json").write_text(json.dumps(manifest))
    return folder


def test_the_fingerprint_follows_weights_and_preparation_but_not_facts(written: Path, tmp_path: Path) -> None:
    original = TrainedEncoder(written).space.fingerprint
    assert len(original) == 64

    def after(change: Callable[[dict[str, Any]], None]) -> str:
        return TrainedEncoder(changed(tmp_path, written, change)).space.fingerprint

    assert after(lambda m: m.update(facts={}, name="another")) == original
    assert after(lambda m: m["files"]["text.onnx"].update(sha256="0" * 64)) != original
    assert after(lambda m: m.update(max_tokens=5)) != original
    assert after(lambda m: m.update(image_size=9)) != original


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.update(format=2), "its format is 2, this program reads 1"),
        (lambda m: m.pop("format"), "its format is None"),
        (lambda m: m.update(dimension="3"), "dimension is '3'"),
        (lambda m: m.update(dimension=True), "dimension is True"),
        (lambda m: m.update(image_size=0), "image_size is 0"),
        (lambda m: m.update(max_tokens=10**9), "max_tokens is 1000000000"),
        (lambda m: m["preprocessing"].update(resize="crop"), "its preprocessing is"),
        (lambda m: m.update(facts=[]), "facts is no JSON object"),
        (lambda m: m["files"].pop("text.onnx"), "files must name exactly"),
        (lambda m: m["files"].update({"../more": {}}), "files must name exactly"),
        (lambda m: m["files"].update({"text.onnx": 3}), r"text\.onnx has no size"),
        (lambda m: m["files"]["text.onnx"].update(sha256="short"), r"text\.onnx has no sha256"),
        (lambda m: m["files"]["text.onnx"].update(bytes=5), r"text\.onnx has \d+ bytes instead of 5"),
    ],
)
def test_a_wrong_manifest_is_refused(
    written: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    with pytest.raises(WeightsMismatchError, match=reason) as caught:
        TrainedEncoder(changed(tmp_path, written, change))
    assert "\n" not in str(caught.value)


def test_what_is_no_model_folder_is_said_so(written: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFoundError, match=r"has no encoder\.json"):
        TrainedEncoder(tmp_path)
    (tmp_path / "encoder.json").write_text("{")
    with pytest.raises(WeightsMismatchError, match="not valid JSON"):
        TrainedEncoder(tmp_path)
    (tmp_path / "encoder.json").write_text("[]")
    with pytest.raises(WeightsMismatchError, match="no JSON object"):
        TrainedEncoder(tmp_path)
    (changed(tmp_path, written, lambda m: None) / "text.onnx").unlink()
    with pytest.raises(WeightsMismatchError, match=r"text\.onnx is missing"):
        TrainedEncoder(tmp_path)


def test_towers_that_do_not_fit_the_manifest_are_refused(tmp_path: Path) -> None:
    write_tiny(tmp_path, dimensions=(3, 2))
    encoder = TrainedEncoder(tmp_path)
    with pytest.raises(WeightsMismatchError, match="vectors of 2 numbers"):
        encoder.encode_texts(["red"])


def test_verify_files_reads_every_byte(written: Path, tmp_path: Path) -> None:
    folder = changed(tmp_path, written, lambda m: None)
    encoder = TrainedEncoder(folder)
    encoder.verify_files()
    content = bytearray((folder / "tokenizer.json").read_bytes())
    content[10] ^= 1
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(WeightsMismatchError, match=r"tokenizer\.json is damaged"):
        encoder.verify_files()


def test_a_text_needs_neither_torch_nor_onnx(written: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from mmsearch.encoders.trained import TrainedEncoder;"
        f"TrainedEncoder(Path({str(written)!r})).encode_texts(['red']);"
        "print([m for m in ('torch', 'open_clip', 'onnx', 'transformers', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
