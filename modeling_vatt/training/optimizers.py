# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Optimizers of pretraining by name: Adam (release), and Muon for the matrices of the network."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from ..fast_cpu import computes_bfloat16


def pretraining_optimizer(
    name: str,
    model: nn.Module,
    learning_rate: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """Optimizer of the trainable parameters; temperatures and biases of the loss have no weight decay.

    Args:
        name: `"adam"`, or `"muon"` for the matrices of linear layers ([`Muon`]); the rest stays with Adam.
        betas, eps: of Adam.

    Raises:
        ValueError: no trainable matrices for Muon.
    """
    trained = {key: value for key, value in model.named_parameters() if value.requires_grad}
    matrices = {}
    if name == "muon":
        linear = {
            f"{key}.weight".removeprefix(".")
            for key, part in model.named_modules()
            if isinstance(part, nn.Linear)
        }
        matrices = {key: value for key, value in trained.items() if key in linear}
        if not matrices:
            raise ValueError('`optimizer="muon"`: no linear layer trains. Use "adam".')
    scales = [value for key, value in trained.items() if key.startswith("loss_scales.")]
    others = [
        value for key, value in trained.items() if key not in matrices and not key.startswith("loss_scales.")
    ]
    groups: list[dict[str, Any]] = [{"params": others}] if others or not matrices else []
    if scales:
        groups.append({"params": scales, "weight_decay": 0.0})
    settings: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay}
    parts: list[torch.optim.Optimizer] = []
    if matrices:
        parts.append(Muon(matrices.values(), **settings))
    if groups:
        parts.append(torch.optim.AdamW(groups, betas=betas, eps=eps, fused=True, **settings))
    return parts[0] if len(parts) == 1 else JoinedOptimizer(parts)


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum of matrices (https://kellerjordan.github.io/posts/muon/), as
    `torch.optim.Muon(adjust_lr_fn="match_rms_adamw")`: updates have the size of Adam's, so both take the same
    rate (arXiv 2502.16982). Matrices of one shape are computed together."""

    def __init__(
        self, params: Iterable[torch.Tensor], lr: float, weight_decay: float, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """See torch."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step(group)
        return loss

    def _step(self, group: dict[str, Any]) -> None:
        rate, momentum = group["lr"], group["momentum"]
        matrices = [matrix for matrix in group["params"] if matrix.grad is not None]
        gradients = [matrix.grad for matrix in matrices]
        if not matrices:
            return
        for matrix in matrices:
            if "momentum_buffer" not in self.state[matrix]:
                self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
        means = [self.state[matrix]["momentum_buffer"] for matrix in matrices]
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        updates = torch._foreach_lerp(gradients, means, momentum)
        torch._foreach_mul_(matrices, 1 - rate * group["weight_decay"])
        alike: dict[Any, list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)
        for matrix, update in zip(matrices, updates, strict=True):
            if matrix.shape[0] > matrix.shape[1]:  # the smaller side is squared
                matrix, update = matrix.T, update.T
            alike[matrix.shape, matrix.device, matrix.dtype].append((matrix, update))
        for (shape, *_), pairs in alike.items():
            size = 0.2 * max(shape) ** 0.5
            for (matrix, _), update in zip(pairs, orthogonal([pair[1] for pair in pairs]), strict=True):
                matrix.add_(update, alpha=-rate * size)


def orthogonal(matrices: list[torch.Tensor]) -> torch.Tensor:
    """(matrices, rows, columns) with the singular values moved to about 1, by five steps of a quintic
    iteration in bfloat16 (float32 on CPUs without it)."""
    stack = torch.stack(matrices)
    stack = stack.to(torch.bfloat16 if stack.is_cuda or computes_bfloat16() else torch.float32)
    stack.div_(torch.linalg.matrix_norm(stack, keepdim=True).clamp_(min=1e-7))
    for _ in range(5):
        gram = stack @ stack.mT
        factor = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        stack = torch.baddbmm(stack, factor, stack, beta=3.4445)
    return stack


class JoinedOptimizer(torch.optim.Optimizer):
    """Several optimizers of different parameters as one."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let the parts use the groups and state of the whole."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See torch."""
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """See torch."""
        loss = None if closure is None else closure()
        for part in self.parts:
            part.step()
        return loss
