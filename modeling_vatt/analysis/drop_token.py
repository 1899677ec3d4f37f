# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""What dropping tokens costs and saves (paper Tables 5 and 6)."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..models.embeddings import VattPatchEmbeddings
from ..models.modeling_vatt import INPUT_NAMES, MODALITIES, VattPreTrainedModel
from .cost import CostCounter, InputSize


@contextmanager
def dropping_tokens(model: VattPreTrainedModel, keep: float, seed: int = 0) -> Iterator[None]:
    """Make a model in evaluation mode drop video and waveform tokens, as it does in training.

    The paper does not say whether Table 6 was evaluated with dropped tokens; the release evaluates with all.

    Args:
        model: any VATT model.
        keep: share of tokens kept, in (0, 1].
        seed: of the choice of tokens; the random state of PyTorch is restored afterwards.

    Raises:
        ValueError: if the share is out of range, or the model is in training mode or masks its inputs.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"The kept share must be in (0, 1], got {keep}.")
    embeddings = [
        module
        for module in model.modules()
        if isinstance(module, VattPatchEmbeddings) and not module.reversed_positions  # no spectrograms
    ]
    if any(module.training or module.mask_token is not None for module in embeddings):
        raise ValueError(
            "Dropping tokens needs a model in evaluation mode without input masking: call `model.eval()`."
        )
    rates = [module.config.drop_token_rate for module in embeddings]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in embeddings:
            # Of this module only: dropout stays off.
            module.training = keep < 1
            module.config.drop_token_rate = 1 - keep
        try:
            yield
        finally:
            for module, rate in zip(embeddings, rates, strict=True):
                module.training = False
                module.config.drop_token_rate = rate


@torch.no_grad()
def measure_seconds(
    model: VattPreTrainedModel, size: InputSize, batch_size: int = 4, repeats: int = 3
) -> float:
    """Seconds per clip of a forward pass through all towers of a model; the median of some runs.

    Args:
        model: in evaluation mode, on its device.
        size: extent of the clips.
        batch_size: clips per run.
        repeats: runs, after one that is not measured.
    """
    base: Any = model.base_model
    inputs = {}
    for modality in MODALITIES:
        if getattr(base, f"{modality}_model") is not None:
            shape = (batch_size, *size.shape(getattr(base.config, f"{modality}_config")))
            dtype = torch.long if modality == "text" else base.dtype
            inputs[INPUT_NAMES[modality]] = torch.ones(shape, dtype=dtype, device=base.device)
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        base(**inputs)
        if base.device.type == "cuda":
            torch.cuda.synchronize(base.device)
        times.append(time.perf_counter() - began)
    return float(np.median(times[1:])) / batch_size


def drop_token_tradeoff(
    model: VattPreTrainedModel,
    evaluate: Callable[[InputSize], Mapping[str, float]],
    keep: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    sizes: Sequence[InputSize] = (InputSize(),),
    batch_size: int = 4,
    repeats: int = 3,
    seed: int = 0,
) -> pd.DataFrame:
    """Quality, operations and time of a model by kept share and input size.

    Args:
        model: in evaluation mode, on its device.
        evaluate: measures the model on clips of a size; called while tokens are dropped.
        keep: kept shares.
        sizes: extents of the clips.
        batch_size, repeats: see [`measure_seconds`].
        seed: see [`dropping_tokens`].

    Returns:
        Columns `input` (frames x height x width), `kept_share`, `kept_tokens` (of all towers that drop),
        `paper_gflops`, `true_gflops`, `seconds_per_clip`, and those of `evaluate`.
    """
    base: Any = model.base_model
    towers = tuple(name for name in MODALITIES if getattr(base, f"{name}_model") is not None)
    counter = CostCounter(base.config, towers)
    rows = []
    for size in sizes:
        for share in keep:
            costs = counter.table(size, share)
            with dropping_tokens(model, share, seed):
                seconds = measure_seconds(model, size, batch_size, repeats)
                quality = evaluate(size)
            rows.append(
                {
                    "input": costs["input"].iloc[0],
                    "kept_share": share,
                    "kept_tokens": int(costs[costs["part"].isin(["video", "audio"])]["kept"].sum()),
                    "paper_gflops": costs["paper_gflops"].iloc[-1],
                    "true_gflops": costs["true_gflops"].iloc[-1],
                    "seconds_per_clip": seconds,
                    **quality,
                }
            )
    return pd.DataFrame(rows)
