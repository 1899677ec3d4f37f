# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Golden data of the official code, and models with random numbers beside their variables in its layout."""

import json
from pathlib import Path

import numpy as np
import numpy_reference as reference
import torch

from modeling_vatt import VattConfig, VattForPreTraining
from modeling_vatt.convert import export_variables, load_variables, open_variables


GOLDENS = Path(__file__).parents[1] / "fixtures" / "goldens"


BOUND = 2e-5  # features and embeddings, float32


def load_golden(case):
    return load_variables(open_variables(GOLDENS / case / "weights.npz"), head_dim=8)


def golden_inputs(case):
    arrays = dict(np.load(GOLDENS / "inputs.npz"))
    own = GOLDENS / case / "inputs.npz"
    if own.exists():
        arrays |= dict(np.load(own))
    settings = json.loads((GOLDENS / case / "case.json").read_text())
    candidates = settings["sizes"]["K"]
    ids = torch.from_numpy(arrays["text"])
    return {
        "pixel_values_videos": torch.from_numpy(arrays["video"]).movedim(-1, 2),
        "input_values": torch.from_numpy(arrays["audio"]).squeeze(-1),
        "input_ids": ids.view(-1, candidates, ids.shape[-1]),
    }, settings


def difference(ours, golden):
    ours = ours.detach().numpy() if isinstance(ours, torch.Tensor) else ours
    assert ours.size == golden.size
    return float(np.abs(ours.astype(np.float64) - golden.reshape(ours.shape)).max())


TOWER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 6,  # heads * head_dim differs from hidden_size on purpose
    "projection_size": 20,
}


SIZES = {
    "video_config": {"num_frames": 4, "image_size": 12, "patch_size": 4, "tubelet_size": 2},
    "audio_config": {"num_samples": 48, "patch_size": 8},
    "text_config": {"vocab_size": 30, "embedding_size": 10, "max_position_embeddings": 8},
}


def random_model(video=None, audio=None, text=None, **fields):
    """Small float64 model with random numbers in every parameter and statistic."""
    extra = {"video_config": video or {}, "audio_config": audio or {}, "text_config": text or {}}
    towers = {key: {**TOWER, **SIZES[key], **extra[key]} for key in SIZES}
    config = VattConfig(
        **towers, va_projection_size=14, vt_projection_size=fields.pop("vt_projection_size", 9), **fields
    )
    model = VattForPreTraining(config).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            value.copy_(0.5 + noise.abs() if name.endswith("running_var") else 0.4 * noise)
    return model, reference.as_float64(export_variables(model))
