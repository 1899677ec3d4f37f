# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""transformers pipelines of VATT; importing the package registers them.

| task | input | output |
| --- | --- | --- |
| `video-audio-text-feature-extraction` | clip, or dict with video, audio, text | features and embeddings |
| `video-text-retrieval` | words, or dict with text, audio or video | best clips of a gallery |
| `zero-shot-video-classification` | clip | labels with shares |
| `zero-shot-audio-classification` | sound | labels with shares |
| `audio-classification` | sound | classes with shares |

The last two are transformers' own tasks, where other models work as before. All take single inputs, lists,
generators, `datasets` (rows with the keys above; other columns are ignored), torch datasets and `batch_size`.
Media have any form that the processor takes. Models are put into evaluation mode.
"""

# transformers' types of a pipeline's methods fit its own first pipelines only.
# mypy: disable-error-code="override, assignment"

import reprlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForPreTraining, Pipeline, PreTrainedModel
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.audio_classification import AudioClassificationPipeline
from transformers.pipelines.zero_shot_audio_classification import ZeroShotAudioClassificationPipeline
from transformers.utils import logging

from .embedding.embedding import is_silent
from .models.classification import VattForAudioClassification
from .models.losses import normalize
from .models.modeling_vatt import MODALITIES, VattForPreTraining, VattModel
from .processors import MediaError
from .processors.inputs import unwrapped
from .retrieval import Gallery


logger = logging.get_logger(__name__)

_ZERO_SHOT_AUDIO = "zero-shot-audio-classification"


class VattPipeline(Pipeline):
    """What the pipelines share: a [`VattModel`] (or [`VattForPreTraining`]) and a [`VattProcessor`]."""

    processor: Any

    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False
    _load_video_processor = False

    def __init__(self, model: PreTrainedModel, *args: Any, **kwargs: Any) -> None:
        self.vatt = _whole_model(model)
        super().__init__(model, *args, **kwargs)

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        return super().__call__(_streamed(inputs), **kwargs)

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Save model and processor; the base class would save no processor, but this file."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)

    def media_inputs(
        self, video: Any = None, audio: Any = None, windows: int = 1, listen: bool = False
    ) -> dict[str, torch.Tensor]:
        """Inputs of one clip, (1, windows, ...); `listen` reads the sound of the video file."""
        batch = self.processor(
            videos=None if video is None else [video],
            audio=None if audio is None else [audio],
            windows=windows,
            load_audio_from_video=listen,
        )
        return {name: value.unsqueeze(0) for name, value in batch.items()}

    def text_inputs(self, text: str) -> dict[str, torch.Tensor]:
        """Model inputs of one text, (1, words)."""
        if not isinstance(text, str):
            raise ValueError(f"`text` must be a string, got {type(text).__name__}.")
        inputs = dict(self.processor(text=[text]))
        if not inputs["text_mask"].any():
            raise ValueError(f"`text` {reprlib.repr(text)} holds no words: use some.")
        return inputs

    def features(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """`{modality}_features` and embeddings, (batch, dim): means over windows without silent ones."""
        found: dict[str, torch.Tensor] = {}
        for modality, name in (("video", "pixel_values_videos"), ("audio", "input_values")):
            if name not in inputs:
                continue
            shape = inputs[name].shape[:2]
            output = getattr(self.vatt, f"get_{modality}_features")(inputs[name].flatten(0, 1))
            weights = torch.ones(shape, device=inputs[name].device)
            if modality == "audio":
                weights = inputs["audio_mask"].to(weights.dtype)
                found["audio_present"] = weights.any(1)
            weights = weights / weights.sum(1, keepdim=True).clamp(min=1)
            for key, value in _named(modality, output).items():
                value = value.unflatten(0, tuple(shape))
                found[key] = (value * weights.to(value.dtype).unsqueeze(-1)).sum(1)
        if "input_ids" in inputs:
            output = self.vatt.get_text_features(inputs["input_ids"], inputs["attention_mask"])
            found |= _named("text", output)
        return found


class VattFeatureExtractionPipeline(VattPipeline):
    r"""Features and embeddings of clips: task `video-audio-text-feature-extraction`.

    ```python
    >>> extract = pipeline("video-audio-text-feature-extraction", model="my_vatt")
    >>> row = extract({"video": "dog.mp4", "text": "a dog barks"}, normalize=True)
    >>> float(row["text_vt_embeds"] @ row["video_vt_embeds"])
    0.41
    ```

    Args:
        inputs: a video, whose sound is read too, or a dict with some of `video`, `audio` and `text`. All
            inputs of a batch need the same keys.
        windows (`int`): windows spread over the clip, whose outputs are averaged.
        normalize (`bool`): embeddings of length 1.

    Returns:
        dict of float32 arrays (dim,): `{modality}_features`, `{modality}_va_embeds`, `{modality}_vt_embeds`
        where they exist; None for the sound of a silent clip.
    """

    def _sanitize_parameters(
        self, windows: int | None = None, normalize: bool | None = None
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        return _given(windows=windows), {}, _given(normalize=normalize)

    def preprocess(self, inputs: Any, windows: int = 1) -> dict[str, torch.Tensor]:
        """One input to model inputs."""
        row = _row(inputs, "video")
        tensors: dict[str, torch.Tensor] = {}
        if "video" in row or "audio" in row:
            video, audio = row.get("video"), row.get("audio")
            tensors |= self.media_inputs(video, audio, windows, listen=True)
        if "text" in row:
            tensors |= self.text_inputs(row["text"])
        return tensors

    def _forward(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return self.features(inputs)

    def postprocess(
        self, outputs: dict[str, torch.Tensor], normalize: bool = False
    ) -> dict[str, np.ndarray | None]:
        """Tensors (1, dim) to arrays (dim,)."""
        silent = "audio_present" in outputs and not bool(outputs.pop("audio_present"))
        result: dict[str, np.ndarray | None] = {}
        for name, value in outputs.items():
            if normalize and name.endswith("_embeds"):
                value = nn.functional.normalize(value, dim=-1)
            result[name] = None if silent and name.startswith("audio") else value[0].float().numpy()
        return result


class VattRetrievalPipeline(VattPipeline):
    r"""Search of a gallery by words, sound or video: task `video-text-retrieval`.

    ```python
    >>> search = pipeline("video-text-retrieval", model="my_vatt", gallery=["dog.mp4", "rain.mp4"])
    >>> search("a dog barks", top_k=1)
    [{'name': 'dog.mp4', 'score': 0.41}]
    >>> search([{"audio": "bark.wav"}, {"audio": "thunder.ogg"}])
    ```

    Args:
        inputs: words, or a dict with one of `text`, `audio` and `video`. All of a batch need the same key.
        gallery ([`Gallery`] or video files): what is searched. Files that cannot be read are left out with a
            warning.
        top_k (`int`): number of results.

    Returns:
        list of `{"name", "score"}`, best first; the score is the cosine.
    """

    def _sanitize_parameters(
        self, gallery: Gallery | Iterable[str] | None = None, top_k: int | None = None
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if gallery is not None and not isinstance(gallery, Gallery):
            gallery, errors = Gallery.from_files(self.vatt, self.processor, gallery)
            for error in errors:
                logger.warning(f"Left out of the gallery: {error}")
        return {}, {}, _given(gallery=gallery, top_k=top_k)

    def preprocess(self, query: Any) -> dict[str, torch.Tensor]:
        """One query to model inputs."""
        row = _row(query, "text")
        if len(row) != 1:
            raise ValueError(f"A query is one of `text`, `audio` and `video`, got {', '.join(row)}.")
        if "text" in row:
            return self.text_inputs(row["text"])
        tensors = self.media_inputs(row.get("video"), row.get("audio"))
        if "audio" in row and is_silent(tensors["input_values"]):
            raise MediaError(reprlib.repr(row["audio"]), "no sound", "Search with its pictures: `video`.")
        return tensors

    def _forward(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = self.features(inputs)
        spaces = {"text_vt_embeds": "vt", "audio_va_embeds": "va", "video_va_embeds": "va"}
        return {space: found[name] for name, space in spaces.items() if name in found}

    def postprocess(
        self, outputs: dict[str, torch.Tensor], gallery: Gallery | None = None, top_k: int = 10
    ) -> list[dict[str, Any]]:
        """Embedding to results."""
        if gallery is None:
            raise ValueError("Nothing to search: pass `gallery`, a `Gallery` or a list of video files.")
        space, query = next(iter(outputs.items()))
        hits = gallery.nearest(query[0].float().numpy(), "vt" if space == "vt" else "va", top_k)
        return [{"name": hit.name, "score": hit.score} for hit in hits]


class VattZeroShotVideoClassificationPipeline(VattPipeline):
    r"""Classes given in words, compared with video in the video-text space: task
    `zero-shot-video-classification`.

    ```python
    >>> classify = pipeline("zero-shot-video-classification", model="my_vatt")
    >>> classify("dog.mp4", candidate_labels=["dog", "cat"], hypothesis_template="there is a {}")
    [{'score': 0.93, 'label': 'dog'}, {'score': 0.07, 'label': 'cat'}]
    ```

    Args:
        inputs: a video, or a dict with `video`.
        candidate_labels (`list[str]` or `str`): classes; a string is split at commas.
        hypothesis_template (`str`, defaults to `"{}"`): sentence that a class is put into.
        windows (`int`): windows spread over the video, whose embeddings are averaged.

    Returns:
        list of `{"score", "label"}`, best first; scores are a softmax of cosine / temperature, which is the
        one that a [`VattForPreTraining`] has learned, or `config.temperature`.
    """

    def _sanitize_parameters(
        self,
        candidate_labels: str | Sequence[str] | None = None,
        hypothesis_template: str = "{}",
        windows: int | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        # Labels are embedded once for all inputs of a call.
        labels = _embedded_labels(self.vatt, self.processor.tokenizer, candidate_labels, hypothesis_template)
        return _given(windows=windows), {}, labels

    def preprocess(self, video: Any, windows: int = 1) -> dict[str, torch.Tensor]:
        """One video to model inputs."""
        return self.media_inputs(_row(video, "video").get("video"), windows=windows)

    def _forward(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"embeds": self.features(inputs)["video_vt_embeds"]}

    def postprocess(self, outputs: dict[str, torch.Tensor], **labels: Any) -> list[dict[str, Any]]:
        """Embedding to labels."""
        return _ranked(outputs["embeds"], _temperature(self.model, "video_text"), **labels)


class VattZeroShotAudioClassificationPipeline(ZeroShotAudioClassificationPipeline):
    r"""Classes given in words, compared with sound: transformers' task `zero-shot-audio-classification`.

    Only models with `head_type="joint"` have a space for sound and text; without `audio_text_loss_weight` the
    two were trained there only with video. With the FAC head, search one gallery of videos by both
    (`video-text-retrieval`).

    Other models than VATT are handed to transformers' pipeline. Arguments and results: see
    [`VattZeroShotVideoClassificationPipeline`]; no `windows`.
    """

    processor: Any
    feature_extractor: Any

    _load_processor = None
    _load_feature_extractor = None
    _load_tokenizer = None

    def __init__(self, model: PreTrainedModel, **kwargs: Any) -> None:
        self.vatt: VattModel | None = None
        if isinstance(model, VattModel | VattForPreTraining):
            self.vatt = _whole_model(model)
            if model.config.head_type != "joint":
                raise ValueError(
                    f"`head_type={model.config.head_type!r}` compares sound with video and video with text, "
                    'not sound with text: use a model pretrained with `head_type="joint"`, or search a '
                    "gallery of videos with both (`video-text-retrieval`)."
                )
        super().__init__(model=model, **kwargs)

    def __call__(self, audios: Any, **kwargs: Any) -> Any:
        return super().__call__(_streamed(audios), **kwargs)

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if self.vatt is None:
            return super()._sanitize_parameters(**kwargs)
        unknown = set(kwargs) - {"candidate_labels", "hypothesis_template"}
        if unknown:
            raise TypeError(
                f"{type(self).__name__} knows no argument {', '.join(sorted(unknown))}: check its name."
            )
        tokenizer = self.processor.tokenizer if self.tokenizer is None else self.tokenizer
        labels = kwargs.get("candidate_labels")
        template = kwargs.get("hypothesis_template", "{}")
        return {}, {}, _embedded_labels(self.vatt, tokenizer, labels, template)

    def preprocess(self, audio: Any, **kwargs: Any) -> Any:
        """One sound to model inputs."""
        if self.vatt is None:
            return super().preprocess(audio, **kwargs)
        sound = _row(audio, "audio").get("audio")
        return dict(self.feature_extractor([sound], return_tensors="pt"))

    def _forward(self, model_inputs: Any) -> Any:
        if self.vatt is None:
            return super()._forward(model_inputs)
        return {"embeds": self.vatt.get_audio_features(model_inputs["input_values"]).va_embeds}

    def postprocess(self, model_outputs: Any, **labels: Any) -> list[dict[str, Any]]:
        """Embedding to labels."""
        if self.vatt is None:
            return super().postprocess(model_outputs, **labels)
        return _ranked(model_outputs["embeds"], _temperature(self.model, "audio_text"), **labels)


class VattAudioClassificationPipeline(AudioClassificationPipeline):
    r"""Classes of a sound: transformers' task `audio-classification`. VATT's classifiers take sound files and
    videos (for their sound), without the program ffmpeg.

    Other models than VATT are handed to transformers' pipeline. Arguments and results are its own.
    """

    feature_extractor: Any

    def preprocess(self, inputs: Any) -> Any:
        """One sound to model inputs."""
        if not isinstance(self.model, VattForAudioClassification):
            return super().preprocess(inputs)
        sound = unwrapped(_row(inputs, "audio").get("audio"), resample=True)  # as transformers' pipeline does
        batch = self.feature_extractor([sound], return_tensors="pt")
        return {"input_values": batch["input_values"].to(self.dtype)}


def _whole_model(model: PreTrainedModel) -> VattModel:
    """The model with all towers, in evaluation mode; raises `ValueError` for anything else."""
    base = getattr(model, "vatt", model)
    # The folder of a classifier loads as a whole model, too, with random weights for all that it lacks.
    saved = getattr(model.config, "architectures", None) or ()
    lacking = [name for name in saved if name.endswith("Classification")]
    if not isinstance(base, VattModel) or base.head is None or lacking:
        raise ValueError(
            "`model` must be a VattModel or VattForPreTraining with all towers, got "
            f"{', '.join(lacking) or type(model).__name__}."
        )
    return base.eval()


def _temperature(model: PreTrainedModel, pair: str) -> float:
    """Of the similarities of a pair of modalities."""
    if isinstance(model, VattForPreTraining):
        return torch.as_tensor(model.loss_scale(pair)["temperature"]).item()
    return model.config.temperature


def _streamed(inputs: Any) -> Any:
    """Tables of `datasets` as generators of rows, over which transformers streams."""
    datasets = sys.modules.get("datasets")  # who passes one has imported it
    if datasets is not None and isinstance(inputs, datasets.Dataset | datasets.IterableDataset):
        return (row for row in inputs)
    return inputs


def _row(inputs: Any, default: str) -> dict[str, Any]:
    """Modalities of one input; anything but a dict is of the modality `default`."""
    if not isinstance(inputs, Mapping) or not set(inputs) & set(MODALITIES):
        return {default: inputs}
    return {name: inputs[name] for name in MODALITIES if inputs.get(name) is not None}


def _given(**parameters: Any) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not None}


def _named(modality: str, output: Any) -> dict[str, torch.Tensor]:
    """Pooled feature and embeddings under the pipelines' names."""
    names = {"features": output.pooler_output, "va_embeds": output.va_embeds, "vt_embeds": output.vt_embeds}
    return {f"{modality}_{name}": value for name, value in names.items() if value is not None}


@torch.no_grad()
def _embedded_labels(
    model: VattModel, tokenizer: Any, labels: str | Sequence[str] | None, template: str
) -> dict[str, Any]:
    """Arguments of `_ranked`; none without labels."""
    if labels is None:
        return {}
    labels = [label.strip() for label in labels.split(",")] if isinstance(labels, str) else list(labels)
    if not labels or "{}" not in template:
        raise ValueError("`candidate_labels` must not be empty, and `hypothesis_template` must hold `{}`.")
    sentences = [template.format(label) for label in labels]
    options = {"return_tensors": "pt", "return_attention_mask": True, "return_special_tokens_mask": True}
    encoding = tokenizer(sentences, padding="max_length", truncation=True, **options)
    words = encoding["attention_mask"] * (1 - encoding["special_tokens_mask"])
    masks = zip(labels, words, strict=True)
    if wordless := [label for label, mask in masks if not mask.any()]:
        raise ValueError(f"`candidate_labels` {wordless} hold no words: use some.")
    ids, mask = encoding["input_ids"].to(model.device), encoding["attention_mask"].to(model.device)
    return {"labels": labels, "label_embeds": model.get_text_features(ids, mask).vt_embeds.float().cpu()}


def _ranked(
    embeds: torch.Tensor,
    temperature: float,
    labels: list[str] | None = None,
    label_embeds: torch.Tensor | None = None,
) -> list[dict[str, Any]]:
    """Labels with their shares, best first, for an embedding (1, dim)."""
    if labels is None or label_embeds is None:
        raise ValueError("Nothing to choose from: pass `candidate_labels`.")
    cosines = normalize(embeds.float()) @ normalize(label_embeds).T
    shares = (cosines[0] / temperature).softmax(-1).tolist()
    ranked = sorted(zip(shares, labels, strict=True), key=lambda pair: -pair[0])
    return [{"score": share, "label": label} for share, label in ranked]


def register_pipelines() -> None:
    """Make `transformers.pipeline` know the tasks of this file."""
    for task, pipeline_class in (
        ("video-audio-text-feature-extraction", VattFeatureExtractionPipeline),
        ("video-text-retrieval", VattRetrievalPipeline),
        ("zero-shot-video-classification", VattZeroShotVideoClassificationPipeline),
    ):
        PIPELINE_REGISTRY.register_pipeline(
            task, pipeline_class=pipeline_class, pt_model=AutoModelForPreTraining, type="multimodal"
        )
    PIPELINE_REGISTRY.supported_tasks["audio-classification"]["impl"] = VattAudioClassificationPipeline
    zero_shot_audio = PIPELINE_REGISTRY.supported_tasks[_ZERO_SHOT_AUDIO]
    zero_shot_audio["impl"] = VattZeroShotAudioClassificationPipeline
    zero_shot_audio["pt"] = tuple(dict.fromkeys((AutoModelForPreTraining, *zero_shot_audio["pt"])))


register_pipelines()


__all__ = [
    "VattAudioClassificationPipeline",
    "VattFeatureExtractionPipeline",
    "VattPipeline",
    "VattRetrievalPipeline",
    "VattZeroShotAudioClassificationPipeline",
    "VattZeroShotVideoClassificationPipeline",
    "register_pipelines",
]
