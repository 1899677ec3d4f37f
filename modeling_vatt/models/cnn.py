# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The convolutional networks of the MMV baseline: I3D for video, ResNet for log-mel spectrograms.

Sources: "Quo Vadis, Action Recognition?" (arXiv 1705.07750: Inception-v1 with kernels inflated to 3-D), "Deep
Residual Learning" (arXiv 1512.03385) in the form of SimCLR (arXiv 2002.05709), "Self-Supervised MultiModal
Versatile Networks" (arXiv 2006.16228); official modules `InceptionI3D` and `Resnet`. Convolutions have no
bias, and batch norm follows each. Padding is TensorFlow's "same", which at stride 2 pads even extents at the
end; PyTorch's own padding would shift the grid by a pixel.

transformers' `ResNetModel` is not used: its max-pooling shifts the grid, its batch norm has PyTorch's rules
and statistics of one process, and its residual branches do not start at zero.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from ..configuration import VattAudioConfig, VattVideoConfig
from .heads import VattBatchNorm


# Blocks of Inception-v1 after its stem: channels of the branches (1x1x1; 1x1x1 then 3x3x3, twice; 1x1x1 after
# max-pooling), and kernel and stride of the max-pooling before the block, if any.
_INCEPTION_BLOCKS: tuple[tuple[tuple[int, ...], tuple[tuple[int, ...], tuple[int, ...]] | None], ...] = (
    ((64, 96, 128, 16, 32, 32), ((1, 3, 3), (1, 2, 2))),  # mixed_3b
    ((128, 128, 192, 32, 96, 64), None),
    ((192, 96, 208, 16, 48, 64), ((3, 3, 3), (2, 2, 2))),  # mixed_4b
    ((160, 112, 224, 24, 64, 64), None),
    ((128, 128, 256, 24, 64, 64), None),
    ((112, 144, 288, 32, 64, 64), None),
    ((256, 160, 320, 32, 128, 128), None),
    ((256, 160, 320, 32, 128, 128), ((2, 2, 2), (2, 2, 2))),  # mixed_5b
    ((384, 192, 384, 48, 128, 128), None),
)
_RESNET_BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}


def pad_same(
    values: torch.Tensor, kernel: Sequence[int], stride: Sequence[int], value: float = 0.0
) -> torch.Tensor:
    """Pad (batch, channels, *extent) so that a window at every `stride` places fits: TensorFlow's "same"."""
    padding: list[int] = []
    for extent, size, step in zip(values.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        missing = max((-(-extent // step) - 1) * step + size - extent, 0)
        padding += [missing // 2, missing - missing // 2]
    return nn.functional.pad(values, padding, value=value) if any(padding) else values


def max_pool_same(values: torch.Tensor, kernel: Sequence[int], stride: Sequence[int]) -> torch.Tensor:
    """Maximum over windows with "same" padding, in two or three dimensions."""
    pool: Any = nn.functional.max_pool2d if len(kernel) == 2 else nn.functional.max_pool3d
    return pool(pad_same(values, kernel, stride, -torch.inf), kernel, stride)


class VattConvNorm(nn.Module):
    """Convolution, batch norm and, unless switched off, ReLU; as many dimensions as the kernel, padded
    equally at both ends."""

    def __init__(
        self,
        config: VattVideoConfig | VattAudioConfig,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, ...],
        stride: int = 1,
        padded: bool = True,
        relu: bool = True,
        initial_weight: float = 1.0,
    ) -> None:
        super().__init__()
        convolution: Any = nn.Conv2d if len(kernel) == 2 else nn.Conv3d
        padding = tuple(size // 2 if padded else 0 for size in kernel)
        self.convolution = convolution(in_channels, out_channels, kernel, stride, padding, bias=False)
        self.norm = VattBatchNorm(
            out_channels,
            config.batch_norm_eps,
            config.batch_norm_momentum,
            config.sync_batch_norm,
            initial_weight,
        )
        self.relu = relu

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(batch, in_channels, *extent) -> (batch, out_channels, *extent / stride)"""
        values = self.norm(self.convolution(values))
        return nn.functional.relu(values) if self.relu else values


class VattInceptionBlock(nn.Module):
    """Four branches in parallel: 1x1x1, two of 3x3x3 on fewer channels, and max-pooling."""

    def __init__(self, config: VattVideoConfig, in_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        points, narrow1, wide1, narrow2, wide2, pooled = map(config.scaled_channels, widths)
        layer = partial(VattConvNorm, config)
        one, three = (1, 1, 1), (3, 3, 3)
        self.points = layer(in_channels, points, one)
        self.kernel1 = nn.Sequential(layer(in_channels, narrow1, one), layer(narrow1, wide1, three))
        self.kernel2 = nn.Sequential(layer(in_channels, narrow2, one), layer(narrow2, wide2, three))
        self.pooled = layer(in_channels, pooled, one)
        self.out_channels = points + wide1 + wide2 + pooled

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(batch, in_channels, time, height, width) -> (batch, out_channels, time, height, width)"""
        around = nn.functional.max_pool3d(values, 3, stride=1, padding=1)
        branches = (self.points(values), self.kernel1(values), self.kernel2(values), self.pooled(around))
        return torch.cat(branches, dim=1)


class VattI3D(nn.Module):
    """Inception-v1 in three dimensions up to its last block (`mixed_5c`). Time is reduced 8 times, height and
    width 32 times; any extent fits."""

    def __init__(self, config: VattVideoConfig) -> None:
        super().__init__()
        stem, wide = config.scaled_channels(64), config.scaled_channels(192)
        # "Same" padding is asymmetric for even extents, so it is added by hand.
        self.stem = VattConvNorm(config, config.num_channels, stem, (7, 7, 7), stride=2, padded=False)
        self.stem_points = VattConvNorm(config, stem, stem, (1, 1, 1))
        self.stem_kernel = VattConvNorm(config, stem, wide, (3, 3, 3))
        self.blocks = nn.ModuleList()
        channels = wide
        for widths, _ in _INCEPTION_BLOCKS:
            self.blocks.append(VattInceptionBlock(config, channels, widths))
            channels = self.blocks[-1].out_channels

    def forward(
        self, values: torch.Tensor, output_hidden_states: bool = False
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...] | None]:
        """(batch, channels, frames, height, width) -> the last feature map (batch, channels, time, height,
        width) and, if asked for, those of the stem and of every block."""
        values = self.stem(pad_same(values, (7, 7, 7), (2, 2, 2)))
        values = max_pool_same(values, (1, 3, 3), (1, 2, 2))
        values = self.stem_kernel(self.stem_points(values))
        states = [values]
        for (_, pooling), block in zip(_INCEPTION_BLOCKS, self.blocks, strict=True):
            values = block(values if pooling is None else max_pool_same(values, *pooling))
            if output_hidden_states:
                states.append(values)
        return values, tuple(states) if output_hidden_states else None


class VattBottleneck(nn.Module):
    """Residual block: 1x1, 3x3 and 1x1, the last to four times as many channels."""

    def __init__(
        self, config: VattAudioConfig, in_channels: int, width: int, stride: int, first: bool
    ) -> None:
        super().__init__()
        layer = partial(VattConvNorm, config)
        self.reduce = layer(in_channels, width, (1, 1))
        self.kernel = layer(width, width, (3, 3), stride)
        self.expand = layer(width, 4 * width, (1, 1), relu=False, initial_weight=0.0)
        self.shortcut = layer(in_channels, 4 * width, (1, 1), stride, relu=False) if first else nn.Identity()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(batch, in_channels, time, mel) -> (batch, 4 * width, time / stride, mel / stride)"""
        residual = self.expand(self.kernel(self.reduce(values)))
        return nn.functional.relu(residual + self.shortcut(values))


class VattResNet(nn.Module):
    """ResNet with bottleneck blocks, whose strides are on the 3x3 kernels. Time and mel bins are reduced 32
    times; any extent fits."""

    def __init__(self, config: VattAudioConfig) -> None:
        super().__init__()
        channels = config.scaled_channels(64)
        self.stem = VattConvNorm(config, config.num_channels, channels, (7, 7), stride=2)
        self.blocks = nn.ModuleList()
        for group, blocks in enumerate(_RESNET_BLOCKS[config.encoder_type]):
            width = config.scaled_channels(64 * 2**group)
            for i in range(blocks):
                stride = 2 if group > 0 and i == 0 else 1
                self.blocks.append(VattBottleneck(config, channels, width, stride, first=i == 0))
                channels = 4 * width

    def forward(
        self, values: torch.Tensor, output_hidden_states: bool = False
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...] | None]:
        """(batch, 1, frames, mel bins) -> the last feature map (batch, channels, time, mel) and, if asked
        for, those of the stem and of every block."""
        values = max_pool_same(self.stem(values), (3, 3), (2, 2))
        states = [values]
        for block in self.blocks:
            values = block(values)
            if output_hidden_states:
                states.append(values)
        return values, tuple(states) if output_hidden_states else None
