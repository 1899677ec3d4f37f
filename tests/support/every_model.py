# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""All model classes behind one interface, for tests of what each of them must do."""

from typing import Any

import torch
from small_models import EVERY_TOKEN, seeded, small_config, small_inputs

from modeling_vatt import (
    VattForAudioClassification,
    VattForImageClassification,
    VattForPreTraining,
    VattForVideoClassification,
    VattModel,
)


CLASSES = 5
CLASSIFIERS = (VattForVideoClassification, VattForAudioClassification, VattForImageClassification)
MODELS = (VattModel, VattForPreTraining, *CLASSIFIERS)
EMBEDDINGS = ("video_va_embeds", "audio_va_embeds", "video_vt_embeds", "text_vt_embeds")


def build(model_class: type, variant: str = "specific", **overrides: Any) -> Any:
    """A small model in evaluation mode; without DropToken, whose draw would hide what is compared."""
    fields = {"num_labels": CLASSES, **EVERY_TOKEN, **overrides}
    return seeded(model_class, small_config(variant, **fields)).eval()


def shallow(model_class: type, variant: str = "specific") -> Any:
    """One layer per tower, for slow compilers."""
    return build(model_class, variant, every={"num_hidden_layers": 1})


def inputs_of(model: Any, batch: int = 3, seed: int = 0, labels: bool = False) -> dict[str, torch.Tensor]:
    """Inputs of a model, with class ids for classifiers if asked for."""
    inputs = small_inputs(model.config, batch, seed=seed)
    if not isinstance(model, CLASSIFIERS):
        return inputs
    if isinstance(model, VattForImageClassification):
        inputs = {"pixel_values": inputs["pixel_values_videos"][:, 0].contiguous()}
    else:
        inputs = {model.main_input_name: inputs[model.main_input_name]}
    return {**inputs, "labels": torch.arange(batch) % CLASSES} if labels else inputs


def answer_of(output: Any) -> torch.Tensor:
    """Logits of a classifier, all embeddings side by side of another model."""
    if "logits" in output:
        return output.logits
    return torch.cat([output[name] for name in EMBEDDINGS], dim=-1)


def loss_of(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The model's loss; for the base model a number that depends on everything."""
    output = model(**inputs)
    return output.loss if "loss" in output else answer_of(output).square().mean()


def towers_of(output: Any) -> list[Any]:
    """Outputs that carry hidden states: one per modality, or the classifier's own."""
    if "logits" in output:
        return [output]
    return [output[f"{name}_model_output"] for name in ("video", "audio", "text")]
