# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Model cards: what a model is, what it was trained on, how well it does, and how to use it. Cards hold what
the model itself tells and what was passed in; the rest is said to be unknown."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedModel

from .._version import __version__


# Class -> Hub task, first words of the card.
_KINDS = {
    "VattForVideoClassification": ("video-classification", "classifies videos into {labels} classes"),
    "VattForAudioClassification": ("audio-classification", "classifies sounds into {labels} classes"),
    "VattForImageClassification": ("image-classification", "classifies images into {labels} classes"),
}
_EMBEDDING = ("feature-extraction", "puts video, sound and text into common spaces")

_CLASSIFIER_USE = {
    "video-classification": ("pixel_values_videos", 'videos=["clip.mp4"], load_audio_from_video=False'),
    "audio-classification": ("input_values", 'audio=["clip.mp4"]'),
}
_LOAD = """import torch
from modeling_vatt import {kind}
from modeling_vatt.processors import VattProcessor

model = {kind}.from_pretrained("{name}").eval()
processor = VattProcessor.from_pretrained("{name}")
"""
_PREDICT = """with torch.no_grad():
    logits = model({argument}={value}).logits
print(model.config.id2label[int(logits[0].argmax())])
"""
_COMPARE = """inputs = processor(videos=["clip.mp4"], text=["a caption"])
with torch.no_grad():
    outputs = model(**inputs, return_loss=False)
print(torch.cosine_similarity(outputs.text_vt_embeds, outputs.video_vt_embeds))
"""
_IMAGE = "image = torch.zeros(1, 3, {size}, {size})  # pixels in [-1, 1]\n"

# Hub task -> builder of `datasets` for a folder of such files.
_FOLDERS = {"audio-classification": "audiofolder", "image-classification": "imagefolder"}

# Prefix of metrics -> type and name of the task.
_SEARCHES = {
    "txt2vid_": ("text-to-video-retrieval", "Text-to-video retrieval"),
    "aud2vid_": ("audio-to-video-retrieval", "Sound-to-video retrieval"),
}
_RETRIEVAL_METRICS = {
    "R1": ("recall_at_1", "R@1"),
    "R5": ("recall_at_5", "R@5"),
    "R10": ("recall_at_10", "R@10"),
    "MedianRank": ("median_rank", "Median rank"),
}
# Of a log line, not of an evaluation.
_TRAINING_METRICS = ("loss", "learning_rate", "grad_norm", "clips_per_second", "skipped_clips", "epoch")

_CITATION = """```bibtex
@inproceedings{akbari2021vatt,
  title = {{VATT}: Transformers for Multimodal Self-Supervised Learning from Raw Video, Audio and Text},
  author = {Akbari, Hassan and Yuan, Liangzhe and Qian, Rui and Chuang, Wei-Hong and Chang, Shih-Fu and Cui, Yin and Gong, Boqing},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2021}
}
```"""  # noqa: E501


def build_model_card(
    model: PreTrainedModel,
    name: str,
    dataset: str | None = None,
    metrics: Mapping[str, float] | None = None,
    settings: Mapping[str, Any] | None = None,
    split: str | None = None,
    data: Mapping[str, Any] | None = None,
    base_model: str | Sequence[str] | None = None,
    license: str | None = None,
    processor: Any = None,
    training: Mapping[str, float] | None = None,
    origin: str | None = None,
    use: str | None = None,
) -> ModelCard:
    """The card of a model, with the metrics also as the Hub's `model-index`.

    Args:
        model: for its class, config and size.
        name: of the model: Hub repository or folder.
        dataset: training data: name on the Hub, or folder (the card shows only its last part).
        metrics: results of the last evaluation; the names of [`~modeling_vatt.evaluation.clip_retrieval`], or
            any others.
        settings: of the training.
        split: what the metrics were measured on.
        data: facts about the data, e.g. `{"clips": 1000}`.
        base_model: checkpoint from which the training started, or those of the towers; as `dataset`.
        license: of the weights, as an identifier of the Hub.
        processor: for the rates at which it reads video and sound.
        training: last values that the training logged; default: losses, learning rate and speed among the
            metrics.
        origin: where weights trained elsewhere come from, in Markdown; replaces data, training and results.
        use: code that loads the model, if it is not saved with a complete processor.
    """
    kind = type(model).__name__
    task, purpose = _KINDS.get(kind, _EMBEDDING)
    results = dict(metrics or {})
    if training is None:
        training = {name: value for name, value in results.items() if is_training_metric(name)}
        results = {name: value for name, value in results.items() if name not in training}
    bases = _names(base_model)
    on_hub = [base for base in bases if not Path(base).exists()]
    local = dataset is not None and Path(dataset).is_dir()
    shown = Path(dataset).resolve().name if local and dataset is not None else dataset
    card_data = ModelCardData(
        library_name="transformers",
        license=license,
        pipeline_tag=task,
        tags=["vatt", "video", "audio", "text", "contrastive", "retrieval", "modeling_vatt"],
        base_model=on_hub[0] if len(on_hub) == 1 else on_hub or None,
        datasets=dataset if dataset is not None and not local and dataset.count("/") <= 1 else None,
        model_name=name if results else None,
        eval_results=_eval_results(results, task, shown, local, split),
    )
    history = [
        "## Data",
        _data_section(shown, data),
        "## Training",
        _training_section(settings, training, bases),
        "## Results",
        _results_section(results, shown, split),
    ]
    sections = [
        f"# {name}",
        f"A VATT (Video-Audio-Text Transformer, [arXiv 2104.11178](https://arxiv.org/abs/2104.11178)) that "
        f"{purpose.format(labels=model.config.num_labels)}. Made with `modeling_vatt`.",
        *([origin] if origin else []),
        _table(_facts(model, processor)),
        "## Use",
        "Needs the package `modeling_vatt`. `clip.mp4` stands for your file.",
        f"```python\n{use or _use(kind, task, name, model)}```",
        *([_spaces(model)] if task == _EMBEDDING[0] else []),
        *([] if origin else history),
        "## Limits",
        "The model reflects what was in its training data, including gaps and biases. Captions taken from "
        "speech recognition describe what is said, which is not always what is seen.",
        "## Citation",
        _CITATION,
        f"modeling_vatt {__version__}, transformers {transformers.__version__}, PyTorch {torch.__version__}.",
    ]
    return ModelCard(f"---\n{card_data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")


def write_model_card(
    output_dir: str | os.PathLike,
    name: str,
    model: PreTrainedModel,
    dataset: str | None = None,
    metrics: Mapping[str, float] | None = None,
    settings: Mapping[str, Any] | None = None,
    license: str | None = None,
    **kwargs: Any,
) -> None:
    """Write the card of [`~modeling_vatt.hub.model_card.build_model_card`] as `README.md` beside a model. The
    default license is Apache-2.0, or with a `base_model` the one that cards in local folders state."""
    license = license or _inherited_license(_names(kwargs.get("base_model")))
    card = build_model_card(model, name, dataset, metrics, settings, license=license, **kwargs)
    card.save(Path(output_dir) / "README.md")


def _names(base_model: str | Sequence[str] | None) -> list[str]:
    return [base_model] if isinstance(base_model, str) else list(dict.fromkeys(base_model or ()))


def _inherited_license(bases: Sequence[str]) -> str | None:
    """License of weights that started from `bases`; None if one is unknown, or they differ."""
    cards = [Path(base, "README.md") for base in bases]
    found = {
        ModelCard.load(card, ignore_metadata_errors=True).data.license if card.is_file() else None
        for card in cards
    }
    return next(iter(found or {"apache-2.0"})) if len(found) < 2 else None


def is_empty_card(card: ModelCard) -> bool:
    """Whether a card is the empty template of transformers."""
    return "has been automatically generated" in card.content and "[More Information Needed]" in card.content


def is_training_metric(name: str) -> bool:
    """Whether a value is of the training's log, not of an evaluation."""
    return name in _TRAINING_METRICS or name.endswith("_loss")


def _eval_results(
    results: Mapping[str, float], task: str, dataset: str | None, local: bool, split: str | None
) -> list[EvalResult] | None:
    entries = []
    for name, value in results.items():
        if is_training_metric(name) or name == "gallery_size":
            continue
        prefix = next((prefix for prefix in _SEARCHES if name.startswith(prefix)), "")
        task_type, task_name = _SEARCHES.get(prefix, (task, task))
        metric_type, metric_name = _RETRIEVAL_METRICS.get(name.removeprefix(prefix), (name, name))
        entries.append(
            EvalResult(
                task_type=task_type,
                task_name=task_name,
                dataset_type=_FOLDERS.get(task, "videofolder") if local or dataset is None else dataset,
                dataset_name=dataset or "unknown",
                dataset_split=split,
                metric_type=metric_type,
                metric_name=metric_name,
                metric_value=float(value),
            )
        )
    return entries or None


def _video_fact(config: Any, processor: Any) -> str:
    fps = "" if processor is None else f", {processor.video_processor.fps:g} per second"
    if config.is_foreign("video"):
        return f"{config.num_frames} frames{fps}"
    video = config.video_config
    size = f"{video.image_size} x {video.image_size}"
    return f"{video.num_frames} frames of {size} px{fps}{_convolutions(video)}"


def _audio_fact(config: Any, processor: Any) -> str:
    rate = "" if processor is None else f" at {processor.feature_extractor.sampling_rate} Hz"
    if config.is_foreign("audio"):
        seconds = "" if processor is None else f"{processor.feature_extractor.window_seconds:g} s"
        return f"{seconds}{rate}"
    audio = config.audio_config
    fact = f"{audio.num_samples} samples"
    if audio.input_type == "spectrogram":
        fact = f"log-mel spectrogram of {audio.spectrogram_length} x {audio.num_mel_bins}"
    return f"{fact}{rate}{_convolutions(audio)}"


def _text_fact(config: Any, processor: Any) -> str:
    if config.is_foreign("text"):
        return "" if processor is None else f"{processor.tokenizer.model_max_length} words or pieces"
    text = config.text_config
    return f"{text.max_position_embeddings} words of a vocabulary of {text.vocab_size:,}"


def _convolutions(tower: Any) -> str:
    return f", {tower.encoder_type} of width {tower.width_multiplier:g}" if tower.is_convolutional else ""


def _facts(model: PreTrainedModel, processor: Any) -> dict[str, str]:
    config = model.config
    towers = {}
    for name, fact in (("video", _video_fact), ("audio", _audio_fact), ("text", _text_fact)):
        words = [fact(config, processor)]
        if config.is_foreign(name):
            words.append(f"a `{getattr(config, f'{name}_config').model_type}` tower")
        if locked := config.use(name).locked:
            words.append("not trained" if locked is True else f"first {locked} blocks not trained")
        if getattr(model.base_model, f"{name}_model") is not None:
            towers[name] = ", ".join(filter(None, words))
    shared = "one encoder for all modalities" if config.modality_agnostic else "an encoder per modality"
    return {
        "class": f"`{type(model).__name__}`",
        "setting": f"{'modality-agnostic' if config.modality_agnostic else 'modality-specific'}: {shared}",
        "parameters": f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        **towers,
    }


def _use(kind: str, task: str, name: str, model: PreTrainedModel) -> str:
    if task == "image-classification":
        load = _LOAD.replace("from modeling_vatt.processors import VattProcessor\n", "")
        load = load[: load.index("processor =")].format(kind=kind, name=name)
        image = _IMAGE.format(size=model.config.video_config.image_size)
        return load + image + _PREDICT.format(argument="pixel_values", value="image")
    # A plain VattModel also loads into VattForPreTraining, which takes all outputs of the processor.
    load = _LOAD.format(kind=kind if kind in _KINDS else "VattForPreTraining", name=name)
    if task in _CLASSIFIER_USE:
        argument, inputs = _CLASSIFIER_USE[task]
        predict = _PREDICT.format(argument=argument, value=f'inputs["{argument}"]')
        return f"{load}inputs = processor({inputs})\n{predict}"
    return load + _COMPARE


def _spaces(model: PreTrainedModel) -> str:
    config = model.config
    if config.head_type == "joint":
        return (
            f"All three modalities share one space of {config.va_projection_size} dimensions: any two of "
            "`video_va_embeds`, `audio_va_embeds` and `text_vt_embeds` can be compared."
        )
    return (
        f"Sound is compared with video in a space of {config.va_projection_size} dimensions (`*_va_embeds`), "
        f"text with video in one of {config.vt_projection_size} (`*_vt_embeds`). Sound and text share no "
        "space."
    )


def _data_section(dataset: str | None, data: Mapping[str, Any] | None) -> str:
    if dataset is None:
        return "Not stated."
    return f"`{dataset}`" + (f"\n\n{_table(data)}" if data else "")


def _training_section(
    settings: Mapping[str, Any] | None, training: Mapping[str, float], bases: Sequence[str]
) -> str:
    named = [
        f"the local model `{Path(base).resolve().name}`"
        if Path(base).exists()
        else f"[{base}](https://huggingface.co/{base})"
        for base in bases
    ]
    begun = f"Started from {' and '.join(named)}." if named else ""
    rows = {f"`{name}`": f"{value}" for name, value in (settings or {}).items()}
    rows |= {f"last {name}": f"{value:.4g}" for name, value in training.items()}
    table = _table(rows, "setting", "value") if rows else "Settings not stated."
    return f"{begun}\n\n{table}" if begun else table


def _results_section(results: Mapping[str, float], dataset: str | None, split: str | None) -> str:
    if not results:
        return "Not evaluated."
    where = f"Measured on `{dataset or 'unknown data'}`" + (f", split `{split}`." if split else ".")
    names = ""
    if any(name.startswith(tuple(_SEARCHES)) for name in results):
        names = (
            " `txt2vid` searches videos by caption, `aud2vid` by sound; R*k* is the share of queries whose "
            "own video is among the first *k*, `mean_recall` the mean of these."
        )
    rows = {name: f"{value:.4g}" for name, value in results.items()}
    return f"{where}{names}\n\n{_table(rows, 'metric', 'value')}"


def _table(rows: Mapping[str, Any], left: str = "", right: str = "") -> str:
    lines = [f"| {left} | {right} |", "| --- | --- |", *(f"| {name} | {rows[name]} |" for name in rows)]
    return "\n".join(lines)
