# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The paper's recipes for fine-tuning, and the config of a classifier (paper 4.1, 4.2, A.2)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..configuration import VattConfig
from ..models.classification import (
    VattClassifier,
    VattForAudioClassification,
    VattForImageClassification,
    VattForVideoClassification,
)


CLASSIFIERS: dict[str, type[VattClassifier]] = {
    "video": VattForVideoClassification,
    "audio": VattForAudioClassification,
    "image": VattForImageClassification,
}


@dataclass(frozen=True)
class FinetuningRecipe:
    """Settings of the paper (not of the release) for one data set. Dropout before the classifier is in the
    model's config.

    Args:
        media: `"video"`, `"audio"` or `"image"`.
        batch_size: clips of an update, over all processes.
        learning_rate: peak, reached after `warmup_steps`, followed by half a cosine to 0.
        warmup_steps: from 0.
        max_steps: updates; -1: `num_train_epochs` counts.
        num_train_epochs: epochs.
        label_smoothing_factor: share of every label that is spread over all classes.
        mixup_alpha: of Beta(alpha, alpha); 0 for no mixup.
        label_balancing: weight clips of several labels by the rarity of their labels.
        drop_token_rate: share of tokens dropped in training.
        max_grad_norm: of the backbone.
        classifier_max_grad_norm: of the classifier; 0 for none.
        image_size: pixels of the crop; positions are resampled to the larger grid.
        fps: frames per second.
        sampling_rate: Hz.
        eval_windows, eval_crops: views of a clip in evaluation, whose logits are averaged.
    """

    media: str
    batch_size: int
    learning_rate: float
    warmup_steps: int
    max_steps: int = -1
    num_train_epochs: float = 3.0
    label_smoothing_factor: float = 0.0
    mixup_alpha: float = 0.0
    label_balancing: bool = False
    drop_token_rate: float = 0.0
    max_grad_norm: float = 0.75
    classifier_max_grad_norm: float = 0.0
    image_size: int | None = None
    fps: float | None = None
    sampling_rate: int | None = None
    eval_windows: int = 1
    eval_crops: int = 1

    def options(self, num_processes: int = 1) -> dict[str, Any]:
        """The recipe as options of the scripts and of [`FinetuningArguments`], without media; the batch is
        divided among `num_processes` (processes, or GPUs of one process)."""
        fields = {name: value for name, value in vars(self).items() if name not in ("media", "batch_size")}
        return {
            **fields,
            "per_device_train_batch_size": max(1, self.batch_size // num_processes),
            "optim": "sgd",
            "optim_args": "momentum=0.9",
            "lr_scheduler_type": "cosine",
            "weight_decay": 0.0,
        }


# 32 frames, every second one of 25 per second; 12 views.
_VIDEO = FinetuningRecipe(
    media="video",
    batch_size=64,
    learning_rate=5e-3,
    warmup_steps=2500,
    max_steps=100_000,
    label_smoothing_factor=0.1,
    image_size=320,
    fps=12.5,
    eval_windows=4,
    eval_crops=3,
)
RECIPES: dict[str, FinetuningRecipe] = {
    "kinetics400": _VIDEO,
    "kinetics600": _VIDEO,
    "kinetics700": _VIDEO,
    # The published checkpoints stop at 150k steps.
    "moments_in_time": replace(_VIDEO, max_steps=150_000),
    # 153600 samples at half the rate of pretraining: 6.4 s.
    "audioset": FinetuningRecipe(
        media="audio",
        batch_size=1024,
        learning_rate=0.2,
        warmup_steps=5000,
        max_steps=50_000,
        mixup_alpha=5.0,
        label_balancing=True,
        sampling_rate=24_000,
        eval_windows=4,
    ),
    # The paper does not state the warm-up: the release's default.
    "imagenet": FinetuningRecipe(
        media="image",
        batch_size=512,
        learning_rate=8e-2,
        warmup_steps=2500,
        num_train_epochs=50.0,
        label_smoothing_factor=0.1,
        image_size=384,
    ),
}


def finetuning_config(
    config: VattConfig,
    names: Sequence[str],
    media: str,
    several_labels: bool = False,
    drop_token_rate: float = 0.0,
    classifier_dropout: float | None = None,
    freeze_backbone: bool = False,
    label_balancing: bool = False,
) -> VattConfig:
    """A pretraining config turned, in place, into that of a classifier.

    Args:
        config: of the pretrained model, or of a new one.
        names: classes; position = class id.
        media: `"video"`, `"audio"` or `"image"` (the video tower).
        several_labels: whether a clip may have several.
        drop_token_rate: share of tokens dropped in training; pretraining drops half, the paper's fine-tuning
            none.
        classifier_dropout: before the classifier; None keeps the config's.
        freeze_backbone: train the classifier alone.
        label_balancing: weight clips by the rarity of their labels (several labels only).

    Raises:
        ValueError: fewer than two classes, `label_balancing` with one label per clip, or DropToken in a
            convolutional tower.
    """
    if len(names) < 2:
        raise ValueError(f"A classifier needs two classes or more, found {list(names)}. Check the labels.")
    if label_balancing and not several_labels:
        raise ValueError("`label_balancing` is for clips with several labels: leave it out.")
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}
    config.problem_type = f"{'multi' if several_labels else 'single'}_label_classification"
    config.label_balancing = label_balancing
    tower = config.audio_config if media == "audio" else config.video_config
    if drop_token_rate and tower.is_convolutional:
        raise ValueError("A convolutional tower has no tokens to drop: leave `drop_token_rate` at 0.")
    tower.drop_token_rate = drop_token_rate
    tower.freeze_backbone = freeze_backbone
    for name in config.towers or {}:  # pretraining may have locked them
        config.set_use(name, locked=False)
    if classifier_dropout is not None:
        tower.classifier_dropout = classifier_dropout
    return config
