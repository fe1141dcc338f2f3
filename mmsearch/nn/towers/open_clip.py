"""The two towers of an open_clip model, to be tuned. (Ilharco et al. 2021, github.com/mlfoundations/open_clip)

In: `ARCHITECTURE/TAG` with weights that are on this machine, `ARCHITECTURE/FILE`, or `ARCHITECTURE` alone for random
weights. Out: `Features` whose `pooled` is what open_clip's `encode_image` and `encode_text` give, before unit length:
both already lie in the shared space.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmsearch.encoders.openclip_files import resolve
from mmsearch.encoders.openclip_library import open_clip, quiet
from mmsearch.encoders.openclip_model import load_model
from mmsearch.errors import ModelError, UnknownModelError
from mmsearch.nn.features import Features
from mmsearch.nn.layers import Attention, Normalisation
from mmsearch.nn.towers.clip_tokenizer import clip_tokenizer
from mmsearch.nn.towers.tower import Tower, stages_of

_POOLS = ("argmax", "eos")  # both: the state of the end-of-text token
_OTHER = ("hf_model_name", "hf_tokenizer_name", "tokenizer_kwargs", "no_causal_mask", "embed_cls")


class OpenClipImage(Tower):
    """pixels (n, side, side, 3) uint8 -> pooled (n, width); tokens (n, patches, w) of its own ViTs, else None."""

    def __init__(self, name: str) -> None:
        super().__init__()
        model, config, preprocessing = _model(name)
        self.visual: Any = model.visual
        self.width: int = config["embed_dim"]
        self.side: int = preprocessing["size"]
        self.normalise = Normalisation(preprocessing["mean"], preprocessing["std"])
        if isinstance(self.visual, open_clip().transformer.VisionTransformer):
            self.visual.output_tokens = True

    def forward(self, pixels: Tensor) -> Features:
        seen = self.visual(self.normalise(pixels))
        return Features(pooled=seen) if isinstance(seen, Tensor) else Features(pooled=seen[0], tokens=seen[1])

    def stages(self) -> list[nn.Module]:
        parts = stages_of(*(child for part in self.visual.children() for child in _inside(part)))
        return _with_projection(parts, getattr(self.visual, "proj", None))


class OpenClipText(Tower):
    """ids, mask (n, t) int64, t at most 77 or what the architecture says -> pooled (n, width): the state of the
    end-of-text token, projected; tokens (n, t, w). Each token sees those before it, so padding behind it is unseen."""

    def __init__(self, name: str) -> None:
        super().__init__()
        model, config, _ = _model(name)
        text = config["text_cfg"]
        if any(text.get(key) for key in _OTHER) or text.get("pool_type", "argmax") not in _POOLS:
            raise ModelError(f"The texts of {name} are not read as CLIP reads them; take another text tower for it.")
        whole = getattr(model, "text", model)
        self.embedding: nn.Embedding = whole.token_embedding
        self.positions: nn.Parameter = whole.positional_embedding
        self.transformer: Any = whole.transformer
        for block in self.transformer.resblocks:
            if isinstance(block.attn, nn.MultiheadAttention):
                block.attn = _CausalAttention(block.attn)
        self.norm: nn.Module = whole.ln_final
        self.projection: nn.Parameter | nn.Linear | None = whole.text_projection
        self.width: int = config["embed_dim"]
        self.tokenizer, self.max_tokens = clip_tokenizer(), int(whole.context_length)

    def forward(self, ids: Tensor, mask: Tensor) -> Features:
        t = ids.shape[1]
        x = self.embedding(ids) + self.positions[:t]  # (n, t, w)
        later = torch.full((t, t), float("-inf"), dtype=x.dtype, device=x.device).triu(1)
        x = self.norm(self.transformer(x, attn_mask=later))
        end = mask.sum(1) - 1  # (n,)
        pooled = x[torch.arange(ids.shape[0], device=x.device), end]  # (n, w)
        if isinstance(self.projection, nn.Linear):
            pooled = self.projection(pooled)
        elif self.projection is not None:
            pooled = pooled @ self.projection
        return Features(pooled=pooled, tokens=x, mask=mask.bool())

    def stages(self) -> list[nn.Module]:
        return _with_projection(stages_of(self.embedding, self.transformer, self.norm), self.projection)


class _CausalAttention(nn.Module):
    """torch's attention with its weights in our layer, as torch's own is exported for texts of one length only."""

    def __init__(self, theirs: nn.MultiheadAttention) -> None:
        super().__init__()
        self.layer = Attention(theirs.embed_dim, theirs.num_heads, causal=True)
        weights, biases = theirs.in_proj_weight.detach().chunk(3), theirs.in_proj_bias.detach().chunk(3)
        for part, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            getattr(self.layer, part).load_state_dict({"weight": weight, "bias": bias})
        self.layer.out.load_state_dict(theirs.out_proj.state_dict())

    def forward(self, x: Tensor, *_: Tensor, need_weights: bool, attn_mask: Tensor) -> tuple[Tensor]:  # noqa: ARG002
        return (self.layer(x),)


def _model(name: str) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """-> open_clip's model, its configuration and how its pictures are prepared."""
    if "/" in name:
        source = resolve(name)
        return load_model(source).requires_grad_(True), source.config, source.preprocessing
    config = open_clip().get_model_config(name)
    if config is None:
        raise UnknownModelError(f"There is no open_clip architecture {name!r}; `mmsearch models` shows names.")
    size = config["vision_cfg"].get("image_size", 224)
    if not isinstance(size, int):
        raise ModelError(f"{name} reads pictures of {size} pixels; only squares are supported.")
    if config["text_cfg"].get("hf_model_name"):
        raise ModelError(f"{name} takes its text tower from elsewhere; name its weights: {name}/TAG.")
    with quiet():
        model = open_clip().create_model(name, load_weights=False, pretrained_text=False)
    usual = open_clip().transform.PreprocessCfg()
    return model, config, {"size": size, "mean": usual.mean, "std": usual.std}


def _inside(part: nn.Module) -> list[nn.Module]:
    """A timm model inside an open_clip tower counts by its parts."""
    return list(part.children()) if hasattr(part, "pretrained_cfg") else [part]


def _with_projection(parts: list[nn.Module], projection: nn.Parameter | nn.Module | None) -> list[nn.Module]:
    """The projection into the shared space belongs to the last stage."""
    if projection is None:
        return parts
    last = nn.ParameterList([projection]) if isinstance(projection, nn.Parameter) else projection
    return [*parts[:-1], nn.ModuleList([parts[-1], last])]
