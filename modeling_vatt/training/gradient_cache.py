# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Contrastive learning on batches whose activations do not fit into memory.

The loss depends on all clips of a batch together, so gradients cannot be accumulated over parts. But it needs
only the pooled features, which are small. These are computed for all parts without a graph, then the loss and
its gradients on them, then every part again with a graph, to which the gradients are passed (GradCache, Gao
et al. 2021, arXiv 2101.06983). All parts but the last one pass forward twice.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.modules.batchnorm import _BatchNorm

from ..models.collectives import all_reduce_max, is_distributed, world_size
from ..models.modeling_vatt import MODALITIES, VattForPreTraining, VattForPreTrainingOutput
from .run_record import seed_step


# Inputs of the loss beside the features.
_OF_CLIPS = ("audio_mask", "text_mask", "video_ids", "caption_ids")
Inputs = Mapping[str, torch.Tensor]


def cached_backward(
    model: VattForPreTraining,
    parts: Sequence[Inputs | Callable[[], Inputs]],
    seeds: Sequence[int],
    backward: Callable[[torch.Tensor], Any] = torch.Tensor.backward,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
) -> VattForPreTrainingOutput:
    """Add the gradients of the loss on all parts as one batch to those of the parameters.

    Args:
        model: the model itself, or sharded by FSDP2. Of DistributedDataParallel pass the `module`, and call
            [`average_gradients`] afterwards.
        parts: inputs of the model, with the same modalities in all parts; or functions that give them, so
            that only one part at a time is on the device.
        seeds: one for each part, of dropout and DropToken in both passes.
        backward: called with the loss (Accelerate's scales it).
        autocast: context of the forward passes.

    Returns:
        Losses of the whole batch, and embeddings of all clips.

    Raises:
        ValueError: a tower has batch norms (statistics would be those of a part), or processes of FSDP2 have
            different numbers of parts.
    """
    _check_parts(model, len(parts))
    features: list[dict[str, torch.Tensor]] = []
    present: list[dict[str, torch.Tensor]] = []
    last = len(parts) - 1
    for index, (part, seed) in enumerate(zip(parts, seeds, strict=True)):
        inputs = part() if callable(part) else part
        present.append({name: inputs[name] for name in _OF_CLIPS if name in inputs})
        if "input_ids" in inputs and "caption_ids" not in inputs:
            captions = model.caption_ids(inputs["input_ids"], inputs.get("attention_mask"))
            present[-1] |= {} if captions is None else {"caption_ids": captions}
        with torch.set_grad_enabled(index == last):
            features.append(_features(model, inputs, seed, autocast))
        del inputs
    found = features[last]
    pooled = {
        name: torch.cat([part[name].detach() for part in features]).requires_grad_() for name in features[0]
    }
    masks = {name: torch.cat([part[name] for part in present]) for name in present[0]}
    with autocast():
        output = model(pooler_outputs=pooled, return_logits=False, **masks)
    backward(output.loss)
    sizes = [len(next(iter(part.values()))) for part in features]
    del features
    # A modality without weight in the loss has no gradient.
    grads = {name: values.grad.split(sizes) for name, values in pooled.items() if values.grad is not None}
    for index in reversed(range(len(parts))):
        if index != last:
            part = parts[index]
            found = _features(model, part() if callable(part) else part, seeds[index], autocast)
        trained = [name for name in grads if found[name].requires_grad]
        torch.autograd.backward([found[name] for name in trained], [grads[name][index] for name in trained])
    return output


def _check_parts(model: VattForPreTraining, count: int) -> None:
    """Raise ValueError if the batch cannot be split, or another process splits it differently."""
    for name, tower in model.towers.items():
        if any(isinstance(module, _BatchNorm) and module.training for module in tower.modules()):
            raise ValueError(
                f"The {name} tower normalises over the batch, so its batch cannot be cut: leave "
                "`micro_batch_size` at 0."
            )
    if is_distributed() and isinstance(model, FSDPModule):
        counts = torch.tensor([count, -count], device=next(model.parameters()).device)
        most, least = all_reduce_max(counts).tolist()
        if most != -least:
            raise ValueError(
                f"FSDP makes the processes pass through the model together, but one has {-least} parts and "
                f"another {most}: choose `batch_size` so that all get equally many clips."
            )


def _features(
    model: VattForPreTraining, part: Inputs, seed: int, autocast: Callable[[], AbstractContextManager]
) -> dict[str, torch.Tensor]:
    """Pooled features of each modality; text (batch[, candidates], size)."""
    inputs = {name: value for name, value in part.items() if name not in _OF_CLIPS}
    seed_step(seed)
    with autocast():
        output = model(**inputs, return_loss=False, return_logits=False, return_embeds=False)
    found = {name: output.get(f"{name}_model_output") for name in MODALITIES}
    pooled = {name: value.pooler_output for name, value in found.items() if value is not None}
    if "text" in pooled:
        texts = part["input_ids"] if "input_ids" in part else part["text_pooler_output"]
        pooled["text"] = pooled["text"].view(*texts.shape[:-1], -1)
    return pooled


def average_gradients(model: nn.Module) -> None:
    """Average all gradients over processes; missing ones count as 0."""
    if not is_distributed():
        return
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        return
    present = torch.tensor([p.grad is not None for p in trained], dtype=torch.int32, device=trained[0].device)
    grads = []
    for parameter, anywhere in zip(trained, all_reduce_max(present).tolist(), strict=True):
        if anywhere and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if parameter.grad is not None:
            grads.append(parameter.grad)
    for work in [dist.all_reduce(grad, async_op=True) for grad in grads]:
        work.wait()
    for grad in grads:
        grad.div_(world_size())
