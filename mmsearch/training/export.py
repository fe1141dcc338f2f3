"""Towers -> a directory that `mmsearch.encoders.trained.TrainedEncoder` opens.

In: torch modules. Out: `image.onnx`, `text.onnx`, `tokenizer.json` and the manifest `encoder.json`.
Weights are stored as int8 where that is cheap: convolutions compute in int8 (static, calibrated on training
pictures), large matrices are int8 with a scale a column and become float32 when the file is loaded, so that no
result depends on what else is in a batch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, compose, helper, numpy_helper
from onnxruntime import quantization
from torch import Tensor, nn

from mmsearch.encoders.pairs import ENDS, KnownPairs
from mmsearch.encoders.preprocess import PREPROCESSING
from mmsearch.encoders.trained import FILES, FORMAT, MANIFEST, PAIRS, read_manifest

OPSET = 17
FEW_CHANNELS = 100  # layers with more inputs clip at most 1 % of their output on a processor without VNNI
LARGE = 50_000  # smaller tensors are not worth an extra node


def write_encoder(
    folder: Path,
    *,
    name: str,
    image: ModelProto,
    text: ModelProto,
    tokenizer: str,
    image_size: int,
    max_tokens: int,
    facts: dict[str, Any],
) -> None:
    """Write the directory of an encoder.

    image: `pixels` (n, image_size, image_size, 3) uint8 -> (n, d) unit length. text: `ids` and `mask` (n, tokens)
    int64 -> the same. tokenizer: the content of a `tokenizer.json`. facts: what people should know (licence,
    languages, figures); part of the manifest, not of the fingerprint.
    """
    widths = {model.graph.output[0].type.tensor_type.shape.dim[-1].dim_value for model in (image, text)}
    if len(widths) != 1 or 0 in widths:
        raise ValueError(f"the two towers must give vectors of one length, not {sorted(widths)}")
    folder.mkdir(parents=True, exist_ok=True)
    contents = (image.SerializeToString(), text.SerializeToString(), tokenizer.encode())
    files = {}
    for file, content in zip(FILES, contents, strict=True):
        (folder / file).write_bytes(content)
        files[file] = _entry(content)
    manifest = {
        "format": FORMAT,
        "name": name,
        "dimension": widths.pop(),
        "image_size": image_size,
        "max_tokens": max_tokens,
        "preprocessing": PREPROCESSING,
        "files": files,
        "facts": facts,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")


def add_pairs(folder: Path, pairs: KnownPairs) -> None:
    """Give an encoder that `write_encoder` wrote the known pairs that have the last word; vectors get longer."""
    content = pairs.to_bytes()
    (folder / PAIRS).write_bytes(content)
    manifest = read_manifest(folder)
    manifest["dimension"] = pairs.width + ENDS
    manifest["files"][PAIRS] = _entry(content)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")


def _entry(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def to_onnx(
    module: nn.Module, example: Sequence[Tensor], inputs: Sequence[str], outputs: Sequence[str], tokens: bool = False
) -> ModelProto:
    """A module as ONNX, the first axis free (the second too with `tokens`), constants folded, batch norms merged."""
    free = {0: "n", 1: "tokens"} if tokens else {0: "n"}
    axes = dict.fromkeys(inputs, free) | {name: {0: "n"} for name in outputs}
    with torch.no_grad():
        made = module.eval()(*example)
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings(), _plain_attention():
        warnings.simplefilter("ignore")  # about the exporter's own future and constants it does not fold
        raw, tidy = Path(scratch) / "raw.onnx", Path(scratch) / "tidy.onnx"
        torch.onnx.export(
            module, tuple(example), str(raw), input_names=list(inputs), output_names=list(outputs),
            dynamic_axes=axes, opset_version=OPSET, dynamo=False,
        )  # fmt: skip
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(tidy)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(raw), options, providers=["CPUExecutionProvider"])
        model = onnx.load(tidy)
    del model.opset_import[:]  # the optimiser names every domain that it knows
    model.opset_import.append(helper.make_opsetid("", OPSET))
    for value, rows in zip(model.graph.output, [made] if isinstance(made, Tensor) else made, strict=True):
        value.type.tensor_type.shape.dim[-1].dim_value = rows.shape[-1]  # the exporter may not know it
    return model


@contextmanager
def _plain_attention() -> Iterator[None]:
    """torch's attention takes a short cut where nothing is trained, which ONNX does not know."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def join(first: ModelProto, second: ModelProto) -> ModelProto:
    """The outputs of `first` become the inputs of the same names of `second`."""
    links = [(value.name, f"then/{value.name}") for value in first.graph.output]
    second = compose.add_prefix(second, "then/")
    return compose.merge_models(first, second, io_map=links)


@contextmanager
def _without_advice() -> Iterator[None]:
    """The quantiser logs a line for every second channel, to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


class _Batches(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self._batches = iter([{"pixels": pixels[i : i + 8]} for i in range(0, len(pixels), 8)])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return next(self._batches, None)


def quantise_convolutions(model: ModelProto, pixels: NDArray[np.uint8]) -> ModelProto:
    """Convolutions (and what lies between them) in int8: weights a scale each channel, activations by their range
    over `pixels` (n, side, side, 3) uint8.

    Processors without VNNI instructions add pairs of products in 16 bits and clip what does not fit. Of the layers
    where that would be felt, weights use 7 bits, so that nothing is clipped: 255 x 64 x 2 < 2^15.
    """
    with tempfile.TemporaryDirectory() as scratch, _without_advice():
        before, after = Path(scratch) / "before.onnx", Path(scratch) / "after.onnx"
        onnx.save(model, before)
        quantization.quantize_static(
            str(before),
            str(after),
            _Batches(pixels),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Add", "Clip"],
            nodes_to_exclude=[node.name for node in model.graph.node if node.op_type == "Gemm"],
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            activation_type=quantization.QuantType.QUInt8,
            extra_options={"TensorQuantOverrides": _seven_bits(model)},
        )
        return onnx.load(after)


def _seven_bits(model: ModelProto) -> dict[str, list[dict[str, Any]]]:
    """The 1 x 1 convolutions from few channels to more: few and large products a sum, of inputs without ReLU."""
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    weights = [node.input[1] for node in model.graph.node if node.op_type == "Conv"]
    seven = {"axis": 0, "quant_type": quantization.QuantType.QInt8, "symmetric": True, "reduce_range": True}
    return {
        name: [seven]
        for name in weights
        if shapes[name][2:] == [1, 1] and shapes[name][1] <= FEW_CHANNELS and shapes[name][0] > shapes[name][1]
    }


def store_as_int8(model: ModelProto) -> ModelProto:
    """Large matrices as int8 with a float32 scale: a scale a row for tables that are looked up in, else a scale for
    each output. Matrices become float32 again while loading, rows of tables when they are looked up."""
    graph = model.graph
    users: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for value in node.input:
            users.setdefault(value, []).append(node)
    tensors, before, after = [], [], {}
    for tensor in graph.initializer:
        nodes = users.get(tensor.name, [])
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.ndim != 2 or values.size < LARGE:
            tensors.append(tensor)
        elif all(node.op_type == "Gather" for node in nodes):
            tensors += _int8(tensor.name, values, axis=1)
            for node in nodes:
                after[node.output[0]] = _look_up(node, tensor.name)
        else:
            by_row = any(a.name == "transB" and a.i for node in nodes for a in node.attribute)
            tensors += _int8(tensor.name, values, axis=1 if by_row else 0)
            before += _unpack(f"{tensor.name}/int8", f"{tensor.name}/scale", tensor.name)
    nodes = before + [made for node in graph.node for made in after.get(node.output[0], [node])]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    onnx.checker.check_model(model)
    return model


def _int8(name: str, values: NDArray[np.float32], axis: int) -> list[TensorProto]:
    """The largest along `axis` becomes 127."""
    scale = np.maximum(np.abs(values).max(axis, keepdims=True), 1e-12).astype(np.float32) / 127
    whole = np.round(values / scale).astype(np.int8)
    return [numpy_helper.from_array(whole, f"{name}/int8"), numpy_helper.from_array(scale, f"{name}/scale")]


def _unpack(whole: str, scale: str, out: str) -> list[NodeProto]:
    """Cast and multiply, not DequantizeLinear: constants of these are folded when the file is loaded."""
    return [
        helper.make_node("Cast", [whole], [f"{out}/float"], f"{out}/cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{out}/float", scale], [out], f"{out}/mul"),
    ]


def _look_up(node: NodeProto, table: str) -> list[NodeProto]:
    out, which = node.output[0], node.input[1]
    return [
        helper.make_node("Gather", [f"{table}/int8", which], [f"{out}/int8"], f"{out}/rows"),
        helper.make_node("Gather", [f"{table}/scale", which], [f"{out}/scale"], f"{out}/scales"),
        *_unpack(f"{out}/int8", f"{out}/scale", out),
    ]
