"""EfficientNet-Lite2 for tuning on a CPU: batch norms folded, cut in two.

In: pixels (n, 260, 260, 3) uint8. Out: pooled features (n, 1280), as `LiteImageTower` gives them, and the ImageNet
logits (n, 1000) that `imagenet_classifier` makes of them. The first stages stay as they are, so that what they say can
be kept; the last ones are tuned.

Batch norms keep their statistics (a batch of captions is no ImageNet) and become a scale and a bias for each channel.
Depthwise convolutions stay as they are: their gradients take longer than all else together, for 3 % of the weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmsearch.nn.towers.lite import LiteImageTower, imagenet_classifier

CUT = 11  # blocks of 21 that are never tuned: 17 x 17 places of 88 channels come out of them


class FoldedConv(nn.Module):
    """A convolution and its batch norm, with zeros around as TensorFlow's `same` puts them."""

    def __init__(self, conv: Any, norm: nn.BatchNorm2d, active: bool) -> None:
        super().__init__()
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None and variance is not None
        scale = norm.weight.detach() / torch.sqrt(variance + norm.eps)
        self.weight = nn.Parameter(conv.weight.detach().clone(), requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)
        self.bias = nn.Parameter(norm.bias.detach() - mean * scale, requires_grad=False)
        self.stride, self.side, self.groups, self.active = conv.stride[0], conv.kernel_size[0], conv.groups, active

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, side, side) -> (n, out, side / stride, side / stride)"""
        missing = max((-(-x.shape[-1] // self.stride) - 1) * self.stride + self.side - x.shape[-1], 0)
        before, after = missing // 2, missing - missing // 2
        if before != after:
            x, before = F.pad(x, (before, after, before, after)), 0
        weight = self.weight * self.scale[:, None, None, None]
        x = F.conv2d(x, weight, self.bias, self.stride, before, groups=self.groups)
        return F.relu6(x) if self.active else x

    def tune(self) -> None:
        """All, unless it is depthwise."""
        self.requires_grad_(self.groups == 1)


class FoldedBlock(nn.Module):
    """Wider, over places, narrower; added to what came in where the shapes allow it."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        shape = block._block_args  # noqa: SLF001 - the package has no public names
        self.wider = FoldedConv(block._expand_conv, block._bn0, True) if shape.expand_ratio != 1 else nn.Identity()  # noqa: SLF001
        self.over_places = FoldedConv(block._depthwise_conv, block._bn1, True)  # noqa: SLF001
        self.narrower = FoldedConv(block._project_conv, block._bn2, False)  # noqa: SLF001
        self.adds = self.over_places.stride == 1 and shape.input_filters == shape.output_filters

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.narrower(self.over_places(self.wider(x)))
        return x + y if self.adds else y


class FoldedTower(nn.Module):
    """The tower, and the classifier on it, which is never tuned."""

    def __init__(self) -> None:
        super().__init__()
        net = LiteImageTower().net
        blocks = [FoldedBlock(block) for block in net._blocks]  # noqa: SLF001
        self.first = nn.Sequential(FoldedConv(net._conv_stem, net._bn0, True), *blocks[:CUT])  # noqa: SLF001
        self.last = nn.Sequential(*blocks[CUT:], FoldedConv(net._conv_head, net._bn1, True))  # noqa: SLF001
        self.classifier = imagenet_classifier()
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def maps(self, pixels: Tensor) -> Tensor:
        """(n, 260, 260, 3) uint8 -> (n, 88, 17, 17): what comes out of the first stages."""
        x = (pixels.permute(0, 3, 1, 2).float() - 127) / 128
        made: Tensor = self.first(x)
        return made

    def pooled(self, maps: Tensor) -> Tensor:
        """(n, 88, 17, 17) -> (n, 1280) float32"""
        made: Tensor = self.last(maps).float().mean((2, 3))
        return made

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.pooled(self.maps(pixels))
        return pooled, self.classifier(pooled)

    def tune(self) -> list[nn.Parameter]:
        """Let the last stages be tuned -> their parameters."""
        for module in self.last.modules():
            if isinstance(module, FoldedConv):
                module.tune()
        return [parameter for parameter in self.parameters() if parameter.requires_grad]
