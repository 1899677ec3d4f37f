# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Projection of pooled features into the common spaces.

Sources: paper section 3.4; official modules `FACBridge` ("fine and coarse") and `JointBridge`.
"""

import torch
from torch import nn

from .configuration import VattConfig
from .distributed import all_reduce_sum, is_distributed


class VattBatchNorm(nn.Module):
    """Batch norm with Keras' bookkeeping: statistics over the batch of all processes, and a running
    variance made of BIASED batch variances (PyTorch's own keeps the unbiased one)."""

    def __init__(self, size: int, eps: float, momentum: float, sync: bool) -> None:
        super().__init__()
        self.running_mean: torch.Tensor
        self.running_var: torch.Tensor
        self.eps = eps
        self.momentum = momentum
        self.sync = sync
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_var", torch.ones(size))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(..., size) -> (..., size)"""
        if not self.training:
            mean, variance = self.running_mean, self.running_var
        else:
            rows = features.reshape(-1, features.shape[-1])
            mean, variance = self.batch_statistics(rows.to(torch.promote_types(rows.dtype, torch.float32)))
            with torch.no_grad():
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
                self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return features * scale.to(features.dtype) + (self.bias - mean * scale).to(features.dtype)

    def batch_statistics(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and biased variance over the rows of all processes, (size,) each."""
        if not (self.sync and is_distributed()):
            return rows.mean(0), rows.var(0, correction=0)
        count = all_reduce_sum(torch.full((1,), float(rows.shape[0]), device=rows.device, dtype=rows.dtype))
        mean = all_reduce_sum(rows.sum(0)) / count
        return mean, all_reduce_sum((rows - mean).square().sum(0)) / count

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}, momentum={self.momentum}, sync={self.sync}"


class VattFACHead(nn.Module):
    """Fine and coarse: video and audio meet in one space, video and text in a second one that is reached
    through the first. Dense layers in front of a batch norm have no bias."""

    def __init__(self, config: VattConfig) -> None:
        super().__init__()
        fine, coarse = config.va_projection_size, config.vt_projection_size
        norm = (config.batch_norm_eps, config.batch_norm_momentum, config.sync_batch_norm)
        self.video_hidden = nn.Linear(config.video_config.output_size, fine, bias=False)
        self.video_hidden_norm = VattBatchNorm(fine, *norm)
        self.video_va = nn.Linear(fine, fine, bias=False)
        self.video_va_norm = VattBatchNorm(fine, *norm)
        self.video_vt = nn.Linear(fine, coarse, bias=False)
        self.video_vt_norm = VattBatchNorm(coarse, *norm)
        self.audio_va = nn.Linear(config.audio_config.output_size, fine)
        self.text_vt = nn.Linear(config.text_config.output_size, coarse)

    def video(self, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = nn.functional.relu(self.video_hidden_norm(self.video_hidden(pooled)))
        fine = self.video_va_norm(self.video_va(hidden))
        return fine, self.video_vt_norm(self.video_vt(nn.functional.relu(fine)))

    def audio(self, pooled: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.audio_va(pooled), None

    def text(self, pooled: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, self.text_vt(pooled)


class VattJointHead(nn.Module):
    """One space for all: ReLU, dense layer without bias, batch norm, per modality."""

    def __init__(self, config: VattConfig) -> None:
        super().__init__()
        size = config.va_projection_size
        norm = (config.batch_norm_eps, config.batch_norm_momentum, config.sync_batch_norm)
        towers = {"video": config.video_config, "audio": config.audio_config, "text": config.text_config}
        self.projections = nn.ModuleDict(
            {name: nn.Linear(tower.output_size, size, bias=False) for name, tower in towers.items()}
        )
        self.norms = nn.ModuleDict({name: VattBatchNorm(size, *norm) for name in towers})

    def _project(self, name: str, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        joint = self.norms[name](self.projections[name](nn.functional.relu(pooled)))
        return joint, joint

    def video(self, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._project("video", pooled)

    def audio(self, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._project("audio", pooled)

    def text(self, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._project("text", pooled)
