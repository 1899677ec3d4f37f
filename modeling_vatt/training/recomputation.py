# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Activations that are computed again in the backward pass (gradient checkpointing)."""

from functools import partial
from typing import Literal

import torch
from torch.utils.checkpoint import create_selective_checkpoint_contexts

from ..models.modeling_vatt import VattPreTrainedModel


# Slow operations: products and attention.
_EXPENSIVE = (
    "mm",
    "addmm",
    "bmm",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
)


def recompute_activations(model: VattPreTrainedModel, what: Literal["no", "full", "selective"]) -> None:
    """Switch gradient checkpointing of the encoder blocks on or off.

    Args:
        model: the model.
        what: `"full"` keeps only the input of every block, which costs about a forward pass; `"selective"`
            also keeps the outputs of matrix products and attention; `"no"` keeps everything.

    Raises:
        ValueError: another value, or a model without encoder blocks.
    """
    if what == "no":
        model.gradient_checkpointing_disable()
    elif what == "full":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    elif what == "selective":
        kept = [getattr(torch.ops.aten, name).default for name in _EXPENSIVE if hasattr(torch.ops.aten, name)]
        contexts = partial(create_selective_checkpoint_contexts, kept)
        model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})
    else:
        raise ValueError(f'`what` must be "no", "full" or "selective", got {what!r}.')
