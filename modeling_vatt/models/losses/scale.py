# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Learned temperatures."""

import math

import torch
from torch import nn

from .vectors import widen


# log(1 / temperature) of NCE stays between these, as in CLIP.
_LEAST, _MOST = 0.0, math.log(100)


class VattLossScale(nn.Module):
    """Temperature of a pair of modalities, and bias if its loss has one.

    Without a bias (NCE) the temperature stays in [0.01, 1], as in CLIP: each forward pass of training clamps
    the parameter.

    Args:
        temperature: initial value.
        bias: initial value; None for a loss without one.
    """

    def __init__(self, temperature: float, bias: float | None) -> None:
        super().__init__()
        self.initial = {"log_scale": -math.log(temperature), "bias": bias}
        # One element, as FSDP shards no scalars.
        self.log_scale = nn.Parameter(torch.empty(1))
        self.bias = None if bias is None else nn.Parameter(torch.empty(1))

    def forward(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Temperature and bias, (1,) each and float32 at least."""
        log_scale = self.log_scale
        if self.bias is not None:
            return widen(-log_scale).exp(), widen(self.bias)
        if self.training:
            with torch.no_grad():
                log_scale.clamp_(_LEAST, _MOST)
        # If the parameter cannot be changed (FSDP's is a copy), its gradient brings it back.
        within = log_scale + (log_scale.clamp(_LEAST, _MOST) - log_scale).detach()
        return widen(-within).exp(), None
