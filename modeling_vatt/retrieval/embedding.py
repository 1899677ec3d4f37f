# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Embedding many clips in the common spaces."""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import torch

from ..modeling_vatt import VattForPreTraining, VattModel


EMBEDDINGS = ("video_va_embeds", "audio_va_embeds", "video_vt_embeds", "text_vt_embeds")


@torch.no_grad()
def embed_batches(
    model: VattModel | VattForPreTraining, batches: Iterable[Mapping[str, torch.Tensor]]
) -> dict[str, npt.NDArray[np.float32]]:
    """Embeddings of all clips, in order; not normalised.

    Args:
        model: in evaluation mode, on its device.
        batches: inputs of the model; presence masks (`audio_mask`, `text_mask`) are passed through.

    Returns:
        Arrays with one row per clip under the names of [`VattModelOutput`], as far as the inputs have the
        modality, and the presence masks.
    """
    base = model.vatt if isinstance(model, VattForPreTraining) else model
    collected: dict[str, list[npt.NDArray[np.float32]]] = {}
    for batch in batches:
        inputs = {name: value for name, value in batch.items() if not name.endswith("_mask")}
        if "attention_mask" in batch:
            inputs["attention_mask"] = batch["attention_mask"]
        output = base(**{name: value.to(base.device) for name, value in inputs.items()})
        found = {name: output[name] for name in EMBEDDINGS if output.get(name) is not None}
        masks = {name: batch[name] for name in ("audio_mask", "text_mask") if name in batch}
        for name, value in {**found, **masks}.items():
            collected.setdefault(name, []).append(value.float().cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in collected.items()}
