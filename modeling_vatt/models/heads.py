# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Projection of pooled features into the common spaces.

Sources: paper section 3.4; official modules `FACBridge` ("fine and coarse") and `JointBridge`.
"""

from functools import partialmethod
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..configuration import VattConfig
from .collectives import all_reduce_sum, is_distributed
from .losses.vectors import normalize


class VattBatchNorm(_BatchNorm):
    """Batch norm with Keras' rules: statistics over the batch of all processes, a running variance of BIASED
    batch variances (PyTorch's is unbiased), and running statistics in training too if the norm is frozen. A
    subclass of PyTorch's, for tools such as `torch.optim.swa_utils.update_bn`.

    Args:
        size: channels, which are axis 1 of vectors (batch, size) and of feature maps (batch, size, ...).
        eps: epsilon.
        momentum: share of the new statistic in the running one; None for the mean over the batches since
            [`reset_running_stats`], also if the norm is frozen.
        sync: batch statistics over all processes.
        initial_weight: 0 lets a residual branch start at zero.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(
        self, size: int, eps: float, momentum: float | None, sync: bool, initial_weight: float = 1.0
    ) -> None:
        super().__init__(size, eps, momentum)
        self.num_batches_tracked = None  # checkpoints have no such counter
        self.sync = sync
        self.initial_weight = initial_weight
        nn.init.constant_(self.weight, initial_weight)

    def reset_running_stats(self) -> None:
        """Forget all batches."""
        self.running_mean.zero_()
        self.running_var.fill_(1)
        self.batches_seen = 0

    def _load_from_state_dict(self, *args: Any) -> None:
        nn.Module._load_from_state_dict(self, *args)  # PyTorch's batch norm would ask for the counter

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, size, ...) -> (batch, size, ...)"""
        if not self.training or (self.momentum is not None and not self.weight.requires_grad):
            return nn.functional.batch_norm(
                features, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        rows = features.numel() // features.shape[1]
        if rows > 1 and not (self.sync and is_distributed()):
            # With momentum 1 PyTorch leaves the statistics of this batch in the buffers it is given.
            mean, variance = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
            normed = nn.functional.batch_norm(
                features, mean, variance, self.weight, self.bias, training=True, momentum=1.0, eps=self.eps
            )
            variance = variance * ((rows - 1) / rows)
        else:
            values = features.to(torch.promote_types(features.dtype, torch.float32))
            mean, variance = self.batch_statistics(values)
            scale = self.weight * torch.rsqrt(variance + self.eps)
            shift = self.bias - mean * scale
            scale, shift = (_along_channels(value, features) for value in (scale, shift))
            normed = (values * scale + shift).to(features.dtype)
        share = self.momentum
        if share is None:
            self.batches_seen += 1
            share = 1 / self.batches_seen
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
            self.running_var.lerp_(variance.to(self.running_var.dtype), share)
        return normed

    def batch_statistics(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and biased variance over the rows and places of all processes, (size,) each."""
        axes = [axis for axis in range(values.ndim) if axis != 1]
        rows = torch.full((1,), values.numel() / values.shape[1], device=values.device, dtype=values.dtype)
        synced = all_reduce_sum if self.sync else (lambda total: total)
        count = synced(rows)
        mean = synced(values.sum(axes)) / count
        deviation = values - _along_channels(mean, values)
        return mean, synced(deviation.square().sum(axes)) / count

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}, momentum={self.momentum}, sync={self.sync}"


def _along_channels(values: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """(size,) values, viewed so that they broadcast over (batch, size, ...)."""
    return values.view(-1, *(1,) * (features.ndim - 2))


class VattFeatureMLP(nn.Module):
    """A small residual MLP between the pooled feature of a locked tower and the head."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.inner = nn.Linear(size, size)
        self.outer = nn.Linear(size, size)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """(..., size) -> (..., size)"""
        return pooled + self.outer(nn.functional.gelu(self.inner(pooled)))


class VattKernelFeatures(nn.Module):
    """Gaussian kernel exp(-2 |x - c|^2) of pooled features x and centres c, after x was brought to unit
    length, centred and brought to unit length again. Not trained: [`fit_projections`] takes c from the
    data."""

    def __init__(self, size: int, centres: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.empty(size))
        self.centres = nn.Parameter(torch.empty(centres, size))

    def normalized(self, pooled: torch.Tensor) -> torch.Tensor:
        """(..., size) -> unit vectors (..., size)"""
        return normalize(normalize(pooled) - self.mean)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """(..., size) -> (..., centres)"""
        with torch.autocast(pooled.device.type, enabled=False):
            return self.likeness(self.normalized(pooled)).to(pooled.dtype)

    def likeness(self, units: torch.Tensor) -> torch.Tensor:
        """The kernel of unit vectors (..., size) and the centres, (..., centres)"""
        return (4 * (units @ self.centres.T.to(units.dtype) - 1)).exp()


class VattFACHead(nn.Module):
    """Fine and coarse: video and audio in one space, video and text in a second one that is computed from the
    first. Dense layers before a batch norm have no bias."""

    def __init__(self, config: VattConfig) -> None:
        super().__init__()
        fine, coarse = config.va_projection_size, config.vt_projection_size
        norm = (config.batch_norm_eps, config.batch_norm_momentum, config.sync_batch_norm)
        self.video_hidden = nn.Linear(config.output_size("video"), fine, bias=False)
        self.video_hidden_norm = VattBatchNorm(fine, *norm)
        self.video_va = nn.Linear(fine, fine, bias=False)
        self.video_va_norm = VattBatchNorm(fine, *norm)
        self.video_vt = nn.Linear(fine, coarse, bias=False)
        self.video_vt_norm = VattBatchNorm(coarse, *norm)
        self.audio_va = nn.Linear(config.output_size("audio"), fine)
        self.text_vt = nn.Linear(config.output_size("text"), coarse)

    def video(self, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = nn.functional.relu(self.video_hidden_norm(self.video_hidden(pooled)))
        fine = self.video_va_norm(self.video_va(hidden))
        return fine, self.video_vt_norm(self.video_vt(nn.functional.relu(fine)))

    def audio(self, pooled: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.audio_va(pooled), None

    def text(self, pooled: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, self.text_vt(pooled)


class VattJointHead(nn.Module):
    """One space for all: ReLU, dense layer without bias and batch norm per modality; only the dense layer for
    towers with a linear or kernel `projection`."""

    def __init__(self, config: VattConfig) -> None:
        super().__init__()
        size = config.va_projection_size
        norm = (config.batch_norm_eps, config.batch_norm_momentum, config.sync_batch_norm)
        towers = ("video", "audio", "text")
        self.projections = nn.ModuleDict(
            {name: nn.Linear(config.head_input_size(name), size, bias=False) for name in towers}
        )
        normed = [name for name in towers if config.use(name).projection not in ("linear", "kernel")]
        self.norms = nn.ModuleDict({name: VattBatchNorm(size, *norm) for name in normed})

    def _project(self, name: str, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if name in self.norms:
            joint = self.norms[name](self.projections[name](nn.functional.relu(pooled)))
        else:
            joint = self.projections[name](pooled)
        return joint, joint

    video = partialmethod(_project, "video")
    audio = partialmethod(_project, "audio")
    text = partialmethod(_project, "text")
