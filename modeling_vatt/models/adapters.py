# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""LoRA (Hu et al. 2021, arXiv 2106.09685) on one tower; merged into its weights when a model is saved."""

from typing import Any

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from .locking import lockable


_ADAPTER = "vatt"


def add_lora(model: Any, name: str, rank: int) -> None:
    """Train only low-rank additions to the dense layers of a tower; other parts train as before. Build the
    optimizer afterwards. ValueError if the tower does not exist, is locked, shares its encoder or has no
    dense layer, for a rank below 1, and without PEFT."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError("LoRA needs the package PEFT: pip install peft.") from error
    if name not in model.towers:
        raise ValueError(f"This model has no {name!r} tower for LoRA; it has {', '.join(model.towers)}.")
    if model.config.use(name).locked:
        raise ValueError(f"The {name} tower is locked: leave out either `lock` or LoRA.")
    if model.config.modality_agnostic:
        raise ValueError(
            f"The {name} tower of this model shares its encoder: LoRA is for modality-specific models, leave "
            "it out."
        )
    if rank < 1:
        raise ValueError(f"The rank of LoRA must be at least 1, got {rank}.")
    inside = lockable(model.towers[name])
    # PyTorch's attention takes the weight of its last layer past LoRA.
    layers = [
        key
        for key, module in inside.named_modules()
        if isinstance(module, nn.Linear) and not isinstance(module, NonDynamicallyQuantizableLinear)
    ]
    if not layers:
        raise ValueError(
            f"The {name} tower ({type(inside).__name__}) has no dense layers for LoRA. Leave it out."
        )
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers)
    inject_adapter_in_model(config, inside, adapter_name=_ADAPTER)
    for module in inside.modules():
        if _ADAPTER in getattr(module, "lora_A", ()):
            module.register_load_state_dict_pre_hook(_take_merged)


def _take_merged(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Load a layer whose LoRA was merged when it was saved, as by transformers' Trainer: it begins anew."""
    if f"{prefix}weight" not in state:
        return
    for part in {"weight", "bias"} & {key.removeprefix(prefix) for key in state}:
        state[f"{prefix}base_layer.{part}"] = state.pop(f"{prefix}{part}")
    for name, value in module.named_parameters():
        if "lora_" in name:
            state[f"{prefix}{name}"] = torch.zeros_like(value) if "lora_B" in name else value.detach()


def merged_state_dict(model: nn.Module) -> dict[str, torch.Tensor] | None:
    """The state dict with the LoRA of [`add_lora`] merged into the weights, under their own names; None
    without it."""
    adapted: dict[str, Any] = {
        name: module for name, module in model.named_modules() if _ADAPTER in getattr(module, "lora_A", ())
    }
    if not adapted:
        return None
    state: dict[str, torch.Tensor] = {}
    for key, value in model.state_dict().items():
        if ".lora_" in key:
            continue
        layer, found, part = key.rpartition(".base_layer.")
        if found and part == "weight":
            value = value + adapted[layer].get_delta_weight(_ADAPTER).to(value.dtype)
        state[f"{layer}.{part}" if found else key] = value
    return state
