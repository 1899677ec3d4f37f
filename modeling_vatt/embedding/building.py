# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""A model with pretrained towers and its processor, checked on a blank clip."""

from typing import Any

import numpy as np
import torch

from ..models.foreign import find_towers
from ..models.modeling_vatt import MODALITIES, VattForPreTraining
from ..processors import VattProcessor


def build_from_towers(
    video: str | None = None,
    audio: str | None = None,
    text: str | None = None,
    towers: dict[str, dict[str, Any]] | None = None,
    processing: dict[str, Any] | None = None,
    trust_remote_code: bool = False,
    hub_kwargs: dict[str, Any] | None = None,
    **kwargs: Any,
) -> tuple[VattForPreTraining, VattProcessor]:
    """Model and processor from up to three pretrained encoders.

    Args:
        video, audio, text, towers, kwargs: see
            [`~VattPreTrainedModel.from_video_audio_text_pretrained`]; sources are folders or names.
        processing: arguments of [`VattProcessor.from_video_audio_text_pretrained`], such as `seconds`.
        trust_remote_code, hub_kwargs: of both.

    Raises:
        ValueError: a source that does not exist or fit, or has no processor; parts that do not fit.
    """
    sources: dict[str, Any] = {"video": video, "audio": audio, "text": text}
    hub = find_towers(sources, hub_kwargs)
    shared: dict[str, Any] = {"trust_remote_code": trust_remote_code, "hub_kwargs": hub}
    model = VattForPreTraining.from_video_audio_text_pretrained(**sources, towers=towers, **shared, **kwargs)
    processor = VattProcessor.from_video_audio_text_pretrained(
        model.config, **sources, **shared, **(processing or {})
    )
    check_parts(model, processor)
    return model, processor


@torch.no_grad()
def check_parts(model: VattForPreTraining, processor: VattProcessor) -> None:
    """Run a blank clip through the towers that are other models; ValueError if one does not fit the
    processor."""
    side = 32
    frames = np.zeros((processor.video_processor.num_frames, side, side, 3), dtype=np.uint8)
    sound = np.zeros(processor.feature_extractor.num_samples, dtype=np.float32)
    batch = processor(videos=[frames], audio=[sound], text=["a"])
    inputs = {
        "video": (batch["pixel_values_videos"],),
        "audio": (batch["input_values"],),
        "text": (batch["input_ids"], batch["attention_mask"]),
    }
    training = model.training
    model.eval()
    for name in MODALITIES:
        if not model.config.is_foreign(name):
            continue
        try:
            features = getattr(model, f"get_{name}_features")(
                *(part.to(model.device) for part in inputs[name]), return_embeds=False
            )
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            raise ValueError(
                f"{name} tower: it does not take what its processor makes of a clip, "
                f"{tuple(inputs[name][0].shape)} ({error}). Take both from one checkpoint; change the size "
                "of frames with `frames`, the length of a window with `seconds`."
            ) from error
        found, stated = features.pooler_output.shape[-1], model.config.output_size(name)
        if found != stated:
            raise ValueError(
                f"{name} tower: its features are {found} wide, the config says {stated}: set "
                f"`towers={{{name!r}: {{'output_size': {found}}}}}`."
            )
    model.train(training)
