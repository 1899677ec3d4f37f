# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Classifiers on one tower: video, image and sound.

Sources: paper sections 4.1-4.2 and A.2; official modules `VideoFinetune`, `AudioFinetune`. A classifier
holds a [`VattModel`] with just its tower, so it loads from any pretraining checkpoint, modality-specific or
agnostic, and ignores the rest.
"""

import math
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_outputs import ImageClassifierOutput, SequenceClassifierOutput
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from ..configuration import VattConfig
from .losses import label_balanced_bce, widen
from .modeling_vatt import MODALITIES, VattModel, VattPreTrainedModel


class VattClassifier(VattPreTrainedModel):
    """What the three classifiers share. Not used on its own.

    A config keeps the DropToken rate of pretraining; the paper fine-tunes without it, so pass
    `drop_token_rate=0` in the tower's config for its recipe.
    """

    modality: ClassVar[str]
    output_class: ClassVar[type[ModelOutput]] = ImageClassifierOutput

    def __init__(self, config: VattConfig) -> None:
        super().__init__(config)
        if not config.num_labels:
            raise ValueError("Give the classes: `num_labels`, or `id2label` and `label2id`.")
        tower = getattr(config, f"{self.modality}_config")
        if config.is_foreign(self.modality):
            raise ValueError(
                f"{type(self).__name__} needs a {self.modality} tower of VATT's own, and this one is a "
                f"{tower.model_type}: fit a linear probe to its features, or fine-tune that model itself."
            )
        # The other towers and the common spaces of a pretraining checkpoint are not needed here.
        others = "|".join(f"{name}_model" for name in MODALITIES if name != self.modality)
        beside = f"{others}|head|feature_mlps|feature_kernels|loss_scales"
        self._keys_to_ignore_on_load_unexpected = [rf"^(vatt\.)?({beside})\."]
        self.vatt = VattModel(config, modalities=(self.modality,))
        self.input_ndim = 5 if self.modality == "video" else 1 + len(tower.patch_shape)  # without windows
        self.dropout = nn.Dropout(tower.classifier_dropout)
        self.classifier = nn.Linear(tower.output_size, config.num_labels)
        self._freeze()
        self.post_init()

    def _freeze(self) -> None:
        super()._freeze()
        if getattr(self.config, f"{self.modality}_config").freeze_backbone:
            self.vatt.requires_grad_(False)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self.classifier:
            if self.modality == "audio":  # sigmoid outputs start at the prior 1 / classes (release)
                init.constant_(module.bias, -math.log(max(self.config.num_labels - 1, 1)))
            else:  # Glorot normal: 0.8796 is the standard deviation of a unit normal cut at two sigma
                std = math.sqrt(2 / (module.in_features + module.out_features)) / 0.87962566103423978
                init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)

    def classify(self, inputs: torch.Tensor | None, labels: torch.Tensor | None, **kwargs: Any) -> Any:
        """Output of `forward`; logits of inputs (batch, windows, ...) are averaged over windows."""
        if inputs is None:
            kind = {"audio": "sound"}.get(self.modality, self.modality)
            raise ValueError(
                f"`{self.main_input_name}` is missing: this model classifies {kind}, pass it as that."
            )
        if kwargs.get("input_ids") is not None:
            kwargs.pop("attention_mask", None)  # of captions, which the processor gives too
        clips = inputs.shape[0]
        if inputs.ndim == self.input_ndim + 1:
            inputs = inputs.flatten(0, 1)
        features = getattr(self.vatt, f"get_{self.modality}_features")(inputs, return_dict=True, **kwargs)
        logits = self.classifier(self.dropout(features.pooler_output))
        logits = logits.unflatten(0, (clips, -1)).mean(1)
        return self.output_class(
            loss=None if labels is None else self.classification_loss(logits, labels),
            logits=logits,
            hidden_states=features.hidden_states,
            attentions=features.attentions,
        )

    def classification_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Softmax cross-entropy of class ids or sigmoid cross-entropy of targets (batch, num_labels), by
        `config.problem_type`; `config.label_balancing` weights as the release does for AudioSet."""
        logits = widen(logits)  # half precision would also round shares of classes
        problem = self.config.problem_type
        if problem is None:
            problem = "multi_label_classification" if labels.ndim == 2 else "single_label_classification"
        if problem == "multi_label_classification":
            if labels.shape != logits.shape:
                raise ValueError(
                    f"`labels` must be {tuple(logits.shape)} for several labels, got {tuple(labels.shape)}."
                )
            _check_range(labels, 0, 1, "multi-label targets lie in [0, 1]")
            if self.config.label_balancing:
                return label_balanced_bce(logits, labels)
            return nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        if problem != "single_label_classification":
            raise ValueError(
                f"`config.problem_type` must be single_ or multi_label_classification, got {problem!r}."
            )
        if labels.shape not in (logits.shape[:1], logits.shape):
            raise ValueError(
                f"`labels` must be ({logits.shape[0]},) class ids or {tuple(logits.shape)} class shares, got "
                f"{tuple(labels.shape)}."
            )
        if labels.ndim == 2:
            return nn.functional.cross_entropy(logits, labels.to(logits.dtype))
        if labels.is_floating_point():
            raise ValueError(f"`labels` must be whole numbers, class ids, got {labels.dtype}.")
        classes = logits.shape[-1]
        _check_range(labels, 0, classes - 1, f"class ids run from 0 to {classes - 1} (-100: leave out)", -100)
        return nn.functional.cross_entropy(logits, labels)


def _check_range(
    labels: torch.Tensor, lowest: int, highest: int, rule: str, allowed: int | None = None
) -> None:
    """ValueError; on a GPU a wrong class id would otherwise end the process."""
    if torch.compiler.is_compiling():
        return
    wrong = (labels < lowest) | (labels > highest)
    if allowed is not None:
        wrong &= labels != allowed
    if wrong.any():
        raise ValueError(
            f"`labels` holds {labels[wrong][0].item()}: {rule}. Check `num_labels` in the config."
        )


class VattForVideoClassification(VattClassifier):
    r"""
    Video classifier: dropout and a dense layer on the pooled feature of the video tower.

    ```python
    >>> import torch
    >>> from modeling_vatt import VattConfig, VattForVideoClassification

    >>> model = VattForVideoClassification(VattConfig.from_preset("tiny", num_labels=5)).eval()
    >>> model(torch.zeros(2, 32, 3, 64, 64)).logits.shape
    torch.Size([2, 5])
    ```
    """

    modality = "video"
    input_modalities: Any = ("video",)

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.FloatTensor | None = None,
        labels: torch.Tensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        **kwargs: Any,
    ) -> ImageClassifierOutput:
        r"""
        Logits of clips, and the loss if there are labels.

        Args:
            pixel_values_videos (`torch.FloatTensor` of shape `(batch[, windows], frames, channels, height,
                width)`): clips in [-1, 1]; the logits of several windows are averaged.
            labels (`torch.Tensor` of shape `(batch,)` or `(batch, num_labels)`, *optional*): class ids, or
                multi-label targets.
            pixel_values: other name of `pixel_values_videos`, used by transformers' pipeline.
        """
        clips = pixel_values if pixel_values_videos is None else pixel_values_videos
        return self.classify(clips, labels, **kwargs)


class VattForImageClassification(VattClassifier):
    """Image classifier: the video tower on `tubelet_size` equal frames (paper 4.2.2)."""

    modality = "video"
    input_modalities: Any = ("image",)
    main_input_name = "pixel_values"

    @can_return_tuple
    def forward(
        self, pixel_values: torch.FloatTensor | None = None, labels: torch.Tensor | None = None, **kwargs: Any
    ) -> ImageClassifierOutput:
        r"""
        Logits of images, and the loss if there are labels.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch, channels, height, width)`): images in [-1, 1].
            labels: see [`~VattForVideoClassification.forward`].
        """
        if pixel_values is None or pixel_values.ndim != 4:
            shape = None if pixel_values is None else tuple(pixel_values.shape)
            raise ValueError(f"`pixel_values` must be (batch, channels, height, width), got {shape}.")
        clips = pixel_values.unsqueeze(1).expand(-1, self.config.video_config.tubelet_size, -1, -1, -1)
        return self.classify(clips, labels, **kwargs)


class VattForAudioClassification(VattClassifier):
    """Sound classifier, for one label or several per clip."""

    modality = "audio"
    input_modalities: Any = ("audio",)
    main_input_name = "input_values"
    output_class = SequenceClassifierOutput

    @can_return_tuple
    def forward(
        self, input_values: torch.FloatTensor | None = None, labels: torch.Tensor | None = None, **kwargs: Any
    ) -> SequenceClassifierOutput:
        r"""
        Logits of sounds, and the loss if there are labels.

        Args:
            input_values (`torch.FloatTensor` of shape `(batch[, windows], samples)` or `(batch[, windows],
                frames, mel bins)`): sound; the logits of several windows are averaged.
            labels: see [`~VattForVideoClassification.forward`].
        """
        return self.classify(input_values, labels, **kwargs)
