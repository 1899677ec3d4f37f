# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Models and inputs far smaller than the `tiny` preset, for tests. A module rather than fixtures, because the
processes of `test_distributed.py` need it too."""

import shutil
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from modeling_vatt import VattAudioConfig, VattConfig, VattModel
from modeling_vatt.models.encoder import VattEncoderLayer


TOWER: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 8,
    "intermediate_size": 24,
    "projection_size": 20,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "position_dropout_prob": 0.0,
}
VIDEO = {**TOWER, "num_frames": 8, "image_size": 8, "tubelet_size": 2, "patch_size": 4}  # 4 x 2 x 2 tokens
AUDIO = {**TOWER, "num_samples": 96, "patch_size": 8}  # 12 tokens
TEXT = {**TOWER, "vocab_size": 40, "embedding_size": 10, "max_position_embeddings": 5}
SPECTROGRAM = {
    **TOWER,
    "input_type": "spectrogram",
    "spectrogram_length": 12,
    "num_mel_bins": 10,
    "spectrogram_patch_size": [4, 5],  # 3 x 2 tokens
    "use_bias": False,
    "drop_token_rate": 0.0,
}
NUM_WORDS = 5
needs_compiler = pytest.mark.skipif(
    not (shutil.which("c++") or shutil.which("g++")), reason="no C++ compiler"
)
# For `small_config`, where runs in several processes or on several devices are to see the same tokens.
EVERY_TOKEN: dict[str, Any] = {"video": {"drop_token_rate": 0.0}, "audio": {"drop_token_rate": 0.0}}

# Every variant of the architecture that a user can ask for: name -> overrides of `small_config`.
VARIANTS: dict[str, dict[str, Any]] = {
    "specific": {},
    "agnostic": {"modality_agnostic": True},
    "joint": {"head_type": "joint", "vt_projection_size": 12},
    "agnostic_joint": {"modality_agnostic": True, "head_type": "joint", "vt_projection_size": 12},
    "spectrogram": {"audio_config": SPECTROGRAM},
    "bert_text": {"text": {"encoder_type": "bert"}},
    "linear_text": {"text": {"encoder_type": "linear"}},
    "mmv": {
        "video": {"encoder_type": "i3d", "width_multiplier": 0.125, "drop_token_rate": 0.0},
        "audio_config": {**SPECTROGRAM, "encoder_type": "resnet50", "width_multiplier": 0.125},
        "text": {"encoder_type": "linear"},
    },
    "geglu": {"every": {"hidden_act": "geglu"}},
    "post_norm": {"every": {"pre_norm": False}},
    "no_bias": {"every": {"use_bias": False}},
    "inner_width": {"every": {"head_dim": 6}},
    "post_projection": {"every": {"use_post_projection": True}},
}


def small_config(variant: str = "specific", **overrides: Any) -> VattConfig:
    """Config of a variant. `every`, `video`, `audio` and `text` update fields of the towers; the rest are
    fields of `VattConfig`."""
    fields: dict[str, Any] = {
        "video_config": dict(VIDEO),
        "audio_config": dict(AUDIO),
        "text_config": dict(TEXT),
        "va_projection_size": 12,
        "vt_projection_size": 6,
    }
    for update in (VARIANTS[variant], overrides):
        update = dict(update)
        for tower in ("video", "audio", "text"):
            fields[f"{tower}_config"] = {
                **update.pop(f"{tower}_config", fields[f"{tower}_config"]),
                **update.get("every", {}),
                **update.pop(tower, {}),
            }
        update.pop("every", None)
        fields.update(update)
    return VattConfig(**fields)


def small_inputs(
    config: VattConfig,
    batch: int = 3,
    candidates: int | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> dict[str, torch.Tensor]:
    """Inputs of the reference size; texts end with padding."""
    generator = torch.Generator().manual_seed(seed)
    video, audio = config.video_config, config.audio_config
    assert isinstance(audio, VattAudioConfig)
    shape = (batch, video.num_frames, video.num_channels, video.image_size, video.image_size)
    sound = (batch, audio.num_samples)
    if audio.input_type == "spectrogram":
        sound = (batch, audio.spectrogram_length, audio.num_mel_bins)
    texts = (batch,) if candidates is None else (batch, candidates)
    ids = torch.randint(1, config.text_config.vocab_size, (*texts, NUM_WORDS), generator=generator)
    lengths = torch.randint(1, NUM_WORDS + 1, (*texts, 1), generator=generator)
    return {
        "pixel_values_videos": torch.rand(shape, generator=generator, dtype=dtype) * 2 - 1,
        "input_values": torch.randn(sound, generator=generator, dtype=dtype) * 0.3,
        "input_ids": ids * (torch.arange(NUM_WORDS) < lengths),
    }


def seeded(model_class: type, config: VattConfig, seed: int = 0, **kwargs: Any) -> Any:
    """A model with reproducible weights, biases included: zero biases would hide mistakes."""
    torch.manual_seed(seed)
    model = model_class(config, **kwargs)
    with torch.no_grad():
        for name, values in (*model.named_parameters(), *model.named_buffers()):
            if name.endswith("running_var"):
                values.uniform_(0.5, 1.5)
            elif values.ndim == 1:
                values.add_(0.1 * torch.randn_like(values))
    return model


def outcome(model: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a step left: the loss, gradients (those of shards put together) and buffers."""
    grads = {f"grad of {n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    grads = {n: g.full_tensor() if isinstance(g, DTensor) else g for n, g in grads.items()}
    return {"loss": loss.detach(), **grads, **dict(model.named_buffers())}


def shard(model: nn.Module, processes: int, device: str = "cpu") -> None:
    """FSDP2, block by block."""
    mesh = init_device_mesh(device, (processes,))
    for module in model.modules():
        if isinstance(module, VattEncoderLayer):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


class OneTower(nn.Module):
    """What a user exports: one modality, one tensor in and out."""

    def __init__(self, model: VattModel, modality: str) -> None:
        super().__init__()
        self.model = model
        self.modality = modality

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return getattr(self.model, f"get_{self.modality}_features")(values).pooler_output
