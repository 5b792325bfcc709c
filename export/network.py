"""The four backbones in plain PyTorch, of different families; `export.tail` joins them.

Every backbone is a plain ReLU convolution net, the kind that INT8 makes three to four times
faster on a CPU and that TensorRT fuses whole. They see both views: a view is a batch element of
one shared trunk, and the two views' pooled features are joined for the decision.

What a small sign in a big picture needs shaped them:

- a pixel is about half a millimetre, a sign 2-6 pixels wide. The stem rearranges pixels into
  channels instead of dropping any, and the trunk stops at stride 16 (8 mm);
- a plain average over 640 positions drowns one of them, so the decision reads the average *and*
  the peak of every feature, and the peak of a per-cause evidence map that the truth masks teach.

The backbones are this project's own choice; the Hip-Net paper names neither its own nor its
input size.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hipnet_edge.vocabulary import CAUSES, VIEWS

FEATURE_STRIDE = 16
"""Network pixels per cell of a backbone's `features` and of its evidence map."""
MAP_STRIDE = 8
"""Network pixels per cell of the disease-probability maps."""


class ConvBN(nn.Module):
    """Convolution, batch normalisation and, unless told otherwise, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(outputs)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, h, w] to [N, outputs, h / stride, w / stride]."""
        x = self.norm(self.conv(x))
        return functional.relu(x, inplace=True) if self.relu else x

    def folded(self) -> nn.Module:
        """The same function as one convolution with a bias."""
        conv = fuse_conv_bn_eval(self.conv, self.norm)
        return nn.Sequential(conv, nn.ReLU()) if self.relu else conv


class RepConv(nn.Module):
    """RepVGG block: 3x3, 1x1 and identity branches in training, one 3x3 when deployed.

    Source: Ding et al., RepVGG, CVPR 2021 (arXiv 2101.03697).
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.dense = ConvBN(inputs, outputs, 3, stride, relu=False)
        self.point = ConvBN(inputs, outputs, 1, stride, relu=False)
        self.identity = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the branches, through a ReLU."""
        y = self.dense(x) + self.point(x)
        if self.identity is not None:
            y = y + self.identity(x)
        return functional.relu(y, inplace=True)

    def folded(self) -> nn.Module:
        """The three branches as one 3x3 convolution with a bias."""
        merged = fuse_conv_bn_eval(self.dense.conv, self.dense.norm)
        point = fuse_conv_bn_eval(self.point.conv, self.point.norm)
        assert merged.bias is not None  # fusing always makes one
        assert point.bias is not None
        with torch.no_grad():
            merged.weight += functional.pad(point.weight, [1, 1, 1, 1])
            merged.bias += point.bias
            if (norm := self.identity) is not None:
                assert norm.running_mean is not None
                assert norm.running_var is not None
                scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
                channels = torch.arange(len(scale))
                merged.weight[channels, channels, 1, 1] += scale
                merged.bias += norm.bias - norm.running_mean * scale
        return nn.Sequential(merged, nn.ReLU())


class Residual(nn.Module):
    """`relu(shortcut(x) + body(x))`, or without the ReLU where the block is a linear bottleneck."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None, relu: bool) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut if shortcut is not None else nn.Identity()
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both ways."""
        y = self.shortcut(x) + self.body(x)
        return functional.relu(y, inplace=True) if self.relu else y


def _basic_block(inputs: int, outputs: int, stride: int) -> nn.Module:
    """ResNet's basic block."""
    body = nn.Sequential(
        ConvBN(inputs, outputs, 3, stride), ConvBN(outputs, outputs, 3, relu=False)
    )
    same = inputs == outputs and stride == 1
    shortcut = None if same else ConvBN(inputs, outputs, 1, stride, relu=False)
    return Residual(body, shortcut, relu=True)


def _grouped_bottleneck(inputs: int, outputs: int, stride: int, group_width: int) -> nn.Module:
    """RegNetX's block: 1x1, grouped 3x3, 1x1, no bottleneck."""
    body = nn.Sequential(
        ConvBN(inputs, outputs, 1),
        ConvBN(outputs, outputs, 3, stride, groups=outputs // group_width),
        ConvBN(outputs, outputs, 1, relu=False),
    )
    same = inputs == outputs and stride == 1
    shortcut = None if same else ConvBN(inputs, outputs, 1, stride, relu=False)
    return Residual(body, shortcut, relu=True)


def _inverted_residual(
    inputs: int, outputs: int, stride: int, expansion: int, fused: bool
) -> nn.Module:
    """EfficientNet-Lite's block; `fused` has one dense 3x3 in place of the depthwise pair.

    Fused blocks stand where planes are large and channels few: there a depthwise convolution
    saves arithmetic but not time.
    """
    wide = inputs * expansion
    if fused:
        layers: list[nn.Module] = [ConvBN(inputs, wide, 3, stride)]
    else:
        layers = [ConvBN(inputs, wide, 1), ConvBN(wide, wide, 3, stride, groups=wide)]
    body = nn.Sequential(*layers, ConvBN(wide, outputs, 1, relu=False))
    if inputs == outputs and stride == 1:
        return Residual(body, None, relu=False)
    return body


def _stage(
    block: Callable[[int, int, int], nn.Module], inputs: int, outputs: int, depth: int, stride: int
) -> nn.Module:
    """`depth` blocks, of which the first changes width and stride."""
    first = block(inputs, outputs, stride)
    return nn.Sequential(first, *(block(outputs, outputs, 1) for _ in range(depth - 1)))


def _stem(width: int, outputs: int) -> nn.Module:
    """Pixels to stride 4. 2x2 pixels become four channels first, so that nothing is dropped.

    One input channel is the slowest shape there is for a convolution, and none of the
    accelerated kernels take it.
    """
    return nn.Sequential(
        nn.PixelUnshuffle(2), ConvBN(4, width, 3), ConvBN(width, outputs, 3, stride=2)
    )


def _resnet() -> tuple[nn.Module, int]:
    """A slim ResNet of basic blocks."""
    trunk = nn.Sequential(
        _stem(24, 40),
        _stage(_basic_block, 40, 40, 1, 1),
        _stage(_basic_block, 40, 72, 2, 2),
        _stage(_basic_block, 72, 144, 3, 2),
    )
    return trunk, 144


def _regnet() -> tuple[nn.Module, int]:
    """A RegNetX-like net of grouped convolutions (Radosavovic et al., CVPR 2020)."""

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        return _grouped_bottleneck(inputs, outputs, stride, group_width=16)

    trunk = nn.Sequential(
        _stem(24, 48),
        _stage(block, 48, 48, 1, 1),
        _stage(block, 48, 112, 3, 2),
        _stage(block, 112, 240, 7, 2),
    )
    return trunk, 240


def _repvgg() -> tuple[nn.Module, int]:
    """A plain stack of re-parameterised 3x3 convolutions."""
    trunk = nn.Sequential(
        nn.PixelUnshuffle(2),
        RepConv(4, 24),
        RepConv(24, 48, 2),
        RepConv(48, 48),
        _stage(RepConv, 48, 96, 3, 2),
        _stage(RepConv, 96, 160, 5, 2),
    )
    return trunk, 160


def _mobilenet() -> tuple[nn.Module, int]:
    """Inverted residuals with ReLU: fused early, depthwise late (MobileNetV2 to EfficientNetV2)."""

    def fused(inputs: int, outputs: int, stride: int) -> nn.Module:
        return _inverted_residual(inputs, outputs, stride, expansion=3, fused=True)

    def depthwise(inputs: int, outputs: int, stride: int) -> nn.Module:
        return _inverted_residual(inputs, outputs, stride, expansion=4, fused=False)

    trunk = nn.Sequential(
        _stem(24, 32),
        _stage(fused, 32, 32, 1, 1),
        _stage(fused, 32, 56, 3, 2),
        _stage(depthwise, 56, 112, 6, 2),
        ConvBN(112, 224, 1),
    )
    return trunk, 224


_TRUNKS: dict[str, tuple[str, Callable[[], tuple[nn.Module, int]]]] = {
    "resnet": ("ResNet, basic blocks", _resnet),
    "regnet": ("RegNetX, grouped convolutions", _regnet),
    "repvgg": ("RepVGG, re-parameterised", _repvgg),
    "mobilenet": ("inverted residuals, fused and depthwise", _mobilenet),
}
MEMBERS: tuple[str, ...] = tuple(_TRUNKS)
"""Names of the four backbones in fusion order."""
FAMILIES: dict[str, str] = {name: family for name, (family, _) in _TRUNKS.items()}


class MemberOutputs(NamedTuple):
    """What a backbone gives for B studies."""

    logits: Tensor
    """[B, 5]: the decision over both views."""
    features: Tensor
    """[B, 2, C, H/16, W/16]: what the map head reads."""
    evidence: Tensor
    """[B, 2, 5, H/16, W/16]: logits of "this cell is diseased by that cause"."""


class Member(nn.Module):
    """One backbone with its decision: `radiographs` float [B, 2, H, W] to `MemberOutputs`."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.trunk, self.channels = _TRUNKS[name][1]()
        self.evidence = nn.Conv2d(self.channels, len(CAUSES), 1)
        nn.init.constant_(self.evidence.bias, -4.0)  # type: ignore[arg-type]  # rare: most cells are sound
        joined = len(VIEWS) * (2 * self.channels + len(CAUSES))
        self.decision = nn.Sequential(
            nn.Linear(joined, 96), nn.ReLU(), nn.Dropout(0.2), nn.Linear(96, len(CAUSES))
        )
        # What the maps have learned decides from the first step on: it starts as the mean of the
        # two views' peaks of evidence.
        self.direct = nn.Linear(len(VIEWS) * len(CAUSES), len(CAUSES), bias=False)
        with torch.no_grad():
            self.direct.weight.copy_(torch.eye(len(CAUSES)).repeat(1, len(VIEWS)) / len(VIEWS))

    def forward(self, radiographs: Tensor) -> MemberOutputs:
        """Decide for B studies; the sides must be multiples of 16."""
        rows, columns = radiographs.shape[2:]
        features = self.trunk(radiographs.reshape(-1, 1, rows, columns))
        evidence = self.evidence(features)
        peaks = evidence.amax((2, 3))
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3)), peaks], dim=1)
        logits = self.decision(_join_views(pooled)) + self.direct(_join_views(peaks))
        return MemberOutputs(logits, _by_view(features), _by_view(evidence))


def _by_view(x: Tensor) -> Tensor:
    """[B * 2, C, h, w] to [B, 2, C, h, w]."""
    return x.reshape(-1, len(VIEWS), *x.shape[1:])


def _join_views(x: Tensor) -> Tensor:
    """[B * 2, C] to [B, 2 * C]."""
    return x.reshape(-1, len(VIEWS) * x.shape[1])


def deploy(module: nn.Module) -> nn.Module:
    """A copy for inference: branches re-parameterised, batch normalisation folded, frozen."""
    if isinstance(module, ConvBN | RepConv):
        return copy.deepcopy(module).eval().folded().requires_grad_(False)
    deployed = copy.copy(module)
    deployed._modules = {
        name: None if child is None else deploy(child) for name, child in module._modules.items()
    }
    return deployed.eval().requires_grad_(False)


def channels_last(module: nn.Module) -> None:
    """Keep weights in the layout in which a CPU's matrix units and tensor cores read them."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
