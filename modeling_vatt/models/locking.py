# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Locked towers: parameters without gradients and optimizer state, modules that stay in evaluation mode."""

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from .foreign import VattForeignTower


_BLOCK_LISTS = ("layers", "layer", "block", "blocks", "h", "stages")


def lockable(tower: nn.Module) -> nn.Module:
    """What a lock covers: in a tower of another model that model, not the Transformer over its frames."""
    return tower.model if isinstance(tower, VattForeignTower) else tower


def find_blocks(tower: nn.Module) -> list[nn.Module]:
    """Blocks of a tower in order: the outermost list with the name of one."""
    found = [
        (name.count("."), -len(module), module)
        for name, module in tower.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential)
        and name.rpartition(".")[2].strip("_") in _BLOCK_LISTS
    ]
    return list(min(found, key=lambda item: item[:2])[2]) if found else []


def locked_parameters(tower: nn.Module, locked: bool | int) -> list[nn.Parameter]:
    """Parameters of a tower (see [`lockable`]) that a lock covers: all for True; for n those of the first n
    blocks and of what is defined before them. ValueError if it has fewer blocks."""
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
    """Locked towers -> SHA-256 of their weights and statistics, or of the locked parameters of a tower that
    is locked in part. Call it before the model is moved to devices or sharded."""
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
    """Put modules into evaluation mode whose parameters (by id) are all covered by the lock."""
    parameters: list[Any] = list(tower.parameters())
    if parameters and all(id(parameter) in covered for parameter in parameters):
        tower.eval()
        return
    for child in tower.children():
        hold_in_evaluation(child, covered)
