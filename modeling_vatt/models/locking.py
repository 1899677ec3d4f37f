# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Locked towers: parameters without gradients (so without optimizer state), modules that stay in evaluation
mode."""

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from .foreign import VattForeignTower


_BLOCK_LISTS = ("layers", "layer", "block", "blocks", "h", "stages")


def lockable(tower: nn.Module) -> nn.Module:
    """What a lock covers: of another model the model itself, not the Transformer over its frames."""
    return tower.model if isinstance(tower, VattForeignTower) else tower


def find_blocks(tower: nn.Module) -> list[nn.Module]:
    """Blocks of a tower, the first first: the outermost list that is named like one."""
    found = [
        (name.count("."), -len(module), module)
        for name, module in tower.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential)
        and name.rpartition(".")[2].strip("_") in _BLOCK_LISTS
    ]
    return list(min(found, key=lambda item: item[:2])[2]) if found else []


def locked_parameters(tower: nn.Module, locked: bool | int) -> list[nn.Parameter]:
    """Parameters of a tower (see [`lockable`]) that a lock covers: True for all, n for the first n blocks and
    what is defined before them; ValueError if it has fewer blocks."""
    parameters = list(tower.parameters())
    if locked is True or not locked:
        return parameters if locked else []
    blocks = find_blocks(tower)
    if locked > len(blocks):
        raise ValueError(
            f"{type(tower).__name__} has {len(blocks)} blocks: take as many at most, or the whole tower."
        )
    inside = {id(parameter) for block in blocks[:locked] for parameter in block.parameters()}
    last = max(place for place, parameter in enumerate(parameters) if id(parameter) in inside)
    later = {id(parameter) for block in blocks[locked:] for parameter in block.parameters()}
    return [parameter for parameter in parameters[: last + 1] if id(parameter) not in later]


def hash_tensors(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """SHA-256 of names and values."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_locked(model: Any) -> dict[str, str]:
    """Locked towers -> SHA-256 of what decides their features: weights and statistics of a whole tower, of
    one that is locked in part the parameters that are. Before the model is put on devices, or split."""
    found = {}
    for name, tower in model.towers.items():
        part, locked = lockable(tower), model.config.use(name).locked
        shared = model.base_model.encoder
        if locked is True:
            modules = [part] if shared is None else [part, shared]
            found[name] = hash_tensors(item for module in modules for item in module.state_dict().items())
        elif locked:
            covered = set(map(id, locked_parameters(part, locked)))
            found[name] = hash_tensors(item for item in part.named_parameters() if id(item[1]) in covered)
    return found


def hold_in_evaluation(tower: nn.Module, covered: set[int]) -> None:
    """Put the modules into evaluation mode of which all parameters (by id) are covered by the lock."""
    parameters: list[Any] = list(tower.parameters())
    if parameters and all(id(parameter) in covered for parameter in parameters):
        tower.eval()
        return
    for child in tower.children():
        hold_in_evaluation(child, covered)
