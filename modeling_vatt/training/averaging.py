# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Exponential moving average of weights (EMA)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ..models.losses import widen


_FILE = "average.safetensors"


class WeightAverage:
    """average = decay * average + (1 - decay) * weights after each step, in float32 at least.

    The decay starts small, at most (1 + step) / (10 + step), so the first weights are soon forgotten (as in
    `tf.train.ExponentialMovingAverage`). Running statistics of batch norms are not averaged.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.values = {name: widen(value.detach()).clone() for name, value in self.weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After the update of a step, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in self.values.items():
            value.lerp_(self.weights[name].to(value.dtype), 1 - decay)

    @torch.no_grad()
    def apply(self, values: dict[str, torch.Tensor] | None = None) -> None:
        """Put the averages, or other values, into the model."""
        for name, weight in self.weights.items():
            weight.copy_((values or self.values)[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the averages within `with`."""
        kept = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.apply()
        try:
            yield
        finally:
            self.apply(kept)

    def save(self, folder: Path) -> None:
        """Save the averages beside a checkpoint."""
        save_file({name: value.contiguous() for name, value in self.values.items()}, folder / _FILE)

    def load(self, folder: Path) -> None:
        """Load the averages of a checkpoint; without any, take the loaded weights."""
        stored = load_file(folder / _FILE) if (folder / _FILE).exists() else {}
        for name, value in self.values.items():
            value.copy_(stored[name] if stored else self.weights[name].detach())
