"""A source -> open_clip's model and tokenizer. In: the files of `openclip_files.Source`. Out: a model whose weights are
all from those files, or one line that says which do not fit. No network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from mmsearch.encoders.openclip_files import Source, text_folder
from mmsearch.encoders.openclip_library import open_clip, quiet
from mmsearch.errors import ModelError, WeightsMismatchError


def load_tokenizer(source: Source) -> Any:
    """open_clip's tokenizer of the architecture: called with texts, it gives (n, context_length) int64.

    Built here, as `open_clip.get_tokenizer` asks the network for files that are on this machine, and goes by parts of
    the architecture's name.
    """
    text = source.config["text_cfg"]
    folder = text_folder(source, "hf_tokenizer_name")
    with quiet():
        kinds = open_clip().tokenizer
        context = text.get("context_length", kinds.DEFAULT_CONTEXT_LENGTH)
        options = text.get("tokenizer_kwargs", {})
        if folder is None:
            return kinds.SimpleTokenizer(context_length=context, **options)
        mode = text.get("tokenizer_mode")
        try:
            return kinds.HFTokenizer(str(folder), context_length=context, tokenizer_mode=mode, **options)
        except Exception as error:  # transformers and tokenizers each have their own for a file they cannot read
            raise ModelError(
                f"The tokenizer files in {folder} cannot be read ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:160]}); remove that folder and pull the model again."
            ) from error


def load_model(source: Source) -> Any:
    """The model with its weights, for inference, on the CPU. Raises WeightsMismatchError: it is never half-loaded."""
    text = dict(source.config["text_cfg"])
    folder = text_folder(source, "hf_model_name")
    if folder is not None:
        text |= {"hf_model_name": str(folder), "hf_model_pretrained": False}
    state = _read_checkpoint(source.weights)
    with quiet():
        with _NoRandomNumbers():
            model = open_clip().create_model(
                source.architecture,
                load_weights=False,
                pretrained_text=False,
                force_quick_gelu=source.config["quick_gelu"],
                text_cfg=text,
            )
        _fill(model, state, source)
    return model.eval().requires_grad_(False)


class _NoRandomNumbers(TorchFunctionMode):
    """Leaves new weights as they come: drawing random numbers takes 1.5 s for a ViT-B-32 and 5 s for a ViT-L-14, and
    `_fill` replaces every one of them or refuses."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in (torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.erfinv_):
            return args[0]
        return function(*args, **(kwargs or {}))


def _read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """A .safetensors or a torch file -> its tensors by name; of a training checkpoint, those of the model."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # neither library has one class for a file it cannot read
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise WeightsMismatchError(f"{path} is not a checkpoint that can be read safely ({reason}).") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsMismatchError(f"{path} holds no weights by name; save `model.state_dict()`.")
    if all(key.startswith("module.") for key in state):  # written by distributed training
        state = {key.removeprefix("module."): value for key, value in state.items()}
    weights: dict[str, torch.Tensor] = state
    return weights


def _fill(model: Any, state: dict[str, torch.Tensor], source: Source) -> None:
    """Put the weights into the model. All must be there, no others, with the right shapes; open_clip's own loading
    would stretch position embeddings of another size without a word."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    state = convert_state_dict(model, state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    expected = model.state_dict()
    if "text.transformer.embeddings.position_ids" not in expected:  # transformers up to 4.30 stored these numbers
        state.pop("text.transformer.embeddings.position_ids", None)
    for name in ("logit_scale", "logit_bias"):  # only training uses them; stored as a number or as a row of one
        state.pop(name, None)
        if name in expected:
            state[name] = expected[name]
    missing = sorted(expected.keys() - state.keys())
    unknown = sorted(state.keys() - expected.keys())
    misshapen = [
        f"{key} is {_shape(state[key])} instead of {_shape(expected[key])}"
        for key in sorted(expected.keys() & state.keys())
        if state[key].shape != expected[key].shape
    ]
    problems = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for names, what in ((missing, "missing"), (unknown, "unknown"), (misshapen, "of another shape"))
        if names
    ]
    if problems:
        raise WeightsMismatchError(
            f"{source.weights} does not fit the architecture {source.architecture}; weights: {'; '.join(problems)}. "
            "Name the architecture that it was made with."
        )
    model.load_state_dict(state, strict=True)


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
