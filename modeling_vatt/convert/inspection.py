# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Model class and config of a checkpoint, from the names and shapes of its variables.

A checkpoint stores no config. What shapes do not show is the release's default unless overridden: the head
width of towers without a relative bias table, activations, dropout rates, epsilons, temperature.
"""

import re
from collections.abc import Mapping
from typing import Any

from ..configuration import VattConfig
from ..models.classification import VattForAudioClassification, VattForVideoClassification
from ..models.modeling_vatt import VattForPreTraining, VattPreTrainedModel
from .errors import ConversionError
from .mapping import AGNOSTIC_PATH, CLASSIFIER_PATH, FINETUNED_PATH, HEAD_PATH, PATCH_NAMES, TOWER_PATHS


Shape = tuple[int, ...]
DEFAULT_HEAD_DIM = 64  # d_kv of every official size
# Of the release's pretraining clips; the hop is that of its spectrograms, in samples.
FPS, SAMPLING_RATE, HOP_LENGTH = 10, 48_000, 1024


class _Shapes:
    """Shapes of a checkpoint, with errors that say what is missing."""

    def __init__(self, shapes: Mapping[str, Shape], source: str) -> None:
        self.shapes = shapes
        self.source = source

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def get(self, name: str, ndim: int) -> Shape:
        if name not in self.shapes:
            raise ConversionError(
                f"{self.source} lacks the variable {name}: it is no complete VATT checkpoint. Fetch it again."
            )
        shape = self.shapes[name]
        if len(shape) != ndim:
            raise ConversionError(f"{self.source}: {name} has shape {shape}, expected {ndim} axes.")
        return shape

    def layers(self, path: str) -> int:
        pattern = re.compile(re.escape(path) + r"/layers/(\d+)/")
        found = {int(match[1]) for name in self.shapes if (match := pattern.match(name))}
        if found != set(range(len(found))) or not found:
            raise ConversionError(
                f"{self.source}: the layers under {path} are {sorted(found)}, expected 0, 1, 2, ..."
            )
        return len(found)


def infer_config(
    shapes: Mapping[str, Shape],
    source: str = "checkpoint",
    head_dim: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[type[VattPreTrainedModel], VattConfig]:
    """Model class and config of a checkpoint.

    Args:
        shapes: shapes of the model variables by object path.
        source: what to call the checkpoint in messages.
        head_dim: width of an attention head in all towers. Default: from the text tower's relative bias table
            if there is one, else 64 as in every official size.
        overrides: fields of [`VattConfig`], towers as nested dicts, such as `head_dim` of one tower.
    """
    reader = _Shapes(shapes, source)
    given = dict(overrides or {})
    towers = {name: dict(given.pop(f"{name}_config", {})) for name in ("video", "audio", "text")}
    model_class: type[VattPreTrainedModel]
    if any(name.startswith(CLASSIFIER_PATH) for name in shapes):
        model_class, fields = _finetuned(reader, head_dim, towers)
    elif any(name.startswith(AGNOSTIC_PATH) for name in shapes):
        model_class = VattForPreTraining
        fields = {**_agnostic(reader, head_dim, towers), **_head(reader)}
    elif any(name.startswith(TOWER_PATHS["video"]) for name in shapes):
        model_class = VattForPreTraining
        fields = {**_specific(reader, head_dim, towers), **_head(reader)}
    else:
        examples = ", ".join(list(shapes)[:3]) or "none"
        raise ConversionError(
            f"{source} is not a VATT checkpoint, but holds {examples}. Choose one of `vatt convert --list`."
        )
    try:
        VattConfig.check_fields(overrides or {})
        return model_class, VattConfig(**{**fields, **given})
    except (TypeError, ValueError) as error:
        raise ConversionError(
            f"{source}: no valid config follows from the checkpoint: {error} Check the overrides."
        ) from error


def _encoder(
    reader: _Shapes, path: str, head_dim: int | None, given: Mapping[str, Any], attention: str = "mha"
) -> dict[str, Any]:
    first = f"{path}/layers/0/"
    hidden, inner = reader.get(f"{first}{attention}/q/kernel", 2)
    gated = f"{first}feed_forward/mlp/wi_0/kernel" in reader
    intermediate = reader.get(f"{first}feed_forward/mlp/{'wi_0' if gated else 'wi'}/kernel", 2)[1]
    if "num_attention_heads" in given:
        heads = int(given["num_attention_heads"])
    else:
        heads = inner // int(given.get("head_dim", head_dim or DEFAULT_HEAD_DIM))
    if not heads or inner % heads:
        raise ConversionError(
            f"{reader.source}: the head width does not divide that of {path}, {inner}: give `--head-dim`."
        )
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": reader.layers(path),
        "num_attention_heads": heads,
        "head_dim": inner // heads,
        "use_bias": f"{first}{attention}/q/bias" in reader,
        "pre_norm": f"{path}/final_layer_norm/gamma" in reader or f"{path}/final_layer_norm/weight" in reader,
        "hidden_act": "geglu" if gated else "gelu",
    }


def _extent(rows: int, patch: int, usual: int) -> int:
    """Extent of the reference clip along an axis: the `usual` one if it has as many rows, as tables do not
    show incomplete patches (9 rows of 16 spectrogram frames are 144 of the release's 150)."""
    return usual if usual // patch == rows else rows * patch


def _video_input(reader: _Shapes, patch: str, positions: str) -> dict[str, Any]:
    tubelet, height, width, channels, _ = reader.get(patch + "/kernel", 5)
    rows = {
        axis: reader.get(f"{positions}/{axis}_position_embeddings/embeddings", 2)[0]
        for axis in ("temporal", "vertical", "horizontal")
    }
    if height != width or rows["vertical"] != rows["horizontal"]:
        raise ConversionError(
            f"{reader.source}: patches ({height} x {width}) or frames of the video tower must be square."
        )
    return {
        "num_channels": channels,
        "tubelet_size": tubelet,
        "patch_size": height,
        "num_frames": _extent(rows["temporal"], tubelet, 32),
        "image_size": _extent(rows["vertical"], height, 224),
    }


def _waveform_input(reader: _Shapes, patch: str, positions: str, seconds: float) -> dict[str, Any]:
    size = reader.get(patch + "/kernel", 3)[0]
    rows = reader.get(positions + "/temporal_position_embeddings/embeddings", 2)[0]
    return {"patch_size": size, "num_samples": _extent(rows, size, round(seconds * SAMPLING_RATE))}


def _spectrogram_input(reader: _Shapes, patch: str, positions: str, seconds: float) -> dict[str, Any]:
    frames, bins = reader.get(patch + "/kernel", 4)[:2]
    temporal = reader.get(positions + "/temporal_position_embeddings/embeddings", 2)[0]
    spectral = reader.get(positions + "/spectoral_position_embeddings/embeddings", 2)[0]
    return {
        "input_type": "spectrogram",
        "spectrogram_patch_size": [frames, bins],
        "spectrogram_length": _extent(temporal, frames, round(seconds * SAMPLING_RATE / HOP_LENGTH)),
        "num_mel_bins": _extent(spectral, bins, 80),
        "drop_token_rate": 0.0,
    }


def _projections(reader: _Shapes, pre: str, post: str) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "use_pre_projection": pre + "/kernel" in reader,
        "use_post_projection": post + "/kernel" in reader,
    }
    if fields["use_post_projection"]:
        fields["projection_size"] = reader.get(post + "/kernel", 2)[1]
    return fields


def _patch_tower(
    reader: _Shapes,
    path: str,
    modality: str,
    head_dim: int | None,
    given: Mapping[str, Any],
    seconds: float = 3.2,
) -> dict[str, Any]:
    positions = path + "pos_embedding_lookup"
    if modality == "video":
        fields = _video_input(reader, path + PATCH_NAMES["video"], positions)
    elif path + PATCH_NAMES["spectrogram"] + "/kernel" in reader:
        fields = _spectrogram_input(reader, path + PATCH_NAMES["spectrogram"], positions, seconds)
    else:
        fields = _waveform_input(reader, path + PATCH_NAMES["waveform"], positions, seconds)
    return {
        **fields,
        **_encoder(reader, path + "tx", head_dim, given),
        **_projections(reader, path + "pre_proj", path + "post_proj"),
        "use_input_masking": path + "mask_embedding" in reader,
        **given,
    }


def _text_tower(reader: _Shapes, path: str, head_dim: int | None, given: Mapping[str, Any]) -> dict[str, Any]:
    vocabulary, width = reader.get(path + "embedding/embeddings", 2)
    fields: dict[str, Any] = {"vocab_size": vocabulary, "embedding_size": width}
    if path + "base_lm/conv1d/kernel" in reader:
        size = reader.get(path + "base_lm/conv1d/kernel", 3)[2]
        fields |= {"encoder_type": "linear", "hidden_size": size, "num_hidden_layers": 0}
        return {**fields, **given}
    fields["pre_projection_bias"] = path + "pre_proj/bias" in reader
    fields |= _projections(reader, path + "pre_proj", path + "post_proj")
    del fields["use_pre_projection"]  # text always has one
    if path + "base_lm/tx/layers/0/mha/q/kernel" in reader:
        positions = path + "base_lm/pos_embedding_lookup/temporal_position_embeddings/embeddings"
        fields |= _encoder(reader, path + "base_lm/tx", head_dim, given)
        fields |= {"encoder_type": "bert", "max_position_embeddings": reader.get(positions, 2)[0]}
        return {**fields, **given}
    buckets, heads = reader.get(_relative_bias(path), 2)
    fields |= _encoder(
        reader, path + "base_lm", None, {"num_attention_heads": heads, **given}, "self_attention/attention"
    )
    fields |= {"encoder_type": "t5", "relative_attention_num_buckets": buckets}
    # Part of the type here, not a choice.
    fields |= {"use_bias": True, "pre_norm": True}
    return {**fields, **given}


def _relative_bias(path: str) -> str:
    return path + "base_lm/layers/0/self_attention/attention/relative_attention_bias/embeddings"


def _specific(
    reader: _Shapes, head_dim: int | None, given: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    text = _text_tower(reader, TOWER_PATHS["text"], head_dim, given["text"])
    if head_dim is None and _relative_bias(TOWER_PATHS["text"]) in reader:
        head_dim = text["head_dim"]  # the only visible one; the official sizes share theirs
    video = _patch_tower(reader, TOWER_PATHS["video"], "video", head_dim, given["video"])
    seconds = video["num_frames"] / FPS
    return {
        "video_config": video,
        "audio_config": _patch_tower(
            reader, TOWER_PATHS["audio"], "audio", head_dim, given["audio"], seconds
        ),
        "text_config": text,
    }


def _agnostic(
    reader: _Shapes, head_dim: int | None, given: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    path = AGNOSTIC_PATH
    raw, positions = path + "raw_to_embeddings/", path + "pos_embedding_lookup/"
    vocabulary, width = reader.get(raw + "text/embeddings", 2)
    rows = reader.get(positions + "text/temporal_position_embeddings/embeddings", 2)[0]
    video = _video_input(reader, raw + "video", positions + "video")
    seconds = {**video, **given["video"]}["num_frames"] / FPS
    inputs: dict[str, dict[str, Any]] = {
        "video": video,
        "audio": _waveform_input(reader, raw + "audio", positions + "audio", seconds),
        "text": {"vocab_size": vocabulary, "embedding_size": width, "max_position_embeddings": rows},
    }
    fields: dict[str, Any] = {"modality_agnostic": True}
    for modality, tower in inputs.items():
        fields[f"{modality}_config"] = {
            **tower,
            **_encoder(reader, path + "tx", head_dim, given[modality]),
            **_projections(reader, f"{path}pre_proj/{modality}", f"{path}post_proj/{modality}"),
            **given[modality],
        }
    return fields


def _head(reader: _Shapes) -> dict[str, Any]:
    if HEAD_PATH + "vid_to_vat/dense/kernel" in reader:
        size = reader.get(HEAD_PATH + "vid_to_vat/dense/kernel", 2)[1]
        return {"head_type": "joint", "va_projection_size": size, "vt_projection_size": size}
    return {
        "head_type": "fac",
        "va_projection_size": reader.get(HEAD_PATH + "hid_to_va/dense/kernel", 2)[1],
        "vt_projection_size": reader.get(HEAD_PATH + "va_to_vat/dense/kernel", 2)[1],
    }


def _finetuned(
    reader: _Shapes, head_dim: int | None, given: Mapping[str, Mapping[str, Any]]
) -> tuple[type[VattPreTrainedModel], dict[str, Any]]:
    modality = "video" if FINETUNED_PATH + PATCH_NAMES["video"] + "/kernel" in reader else "audio"
    # The paper fine-tunes without DropToken (A.2.1).
    overrides = {"drop_token_rate": 0.0, **given[modality]}
    tower = _patch_tower(reader, FINETUNED_PATH, modality, head_dim, overrides)
    fields = {f"{modality}_config": tower, "num_labels": reader.get(CLASSIFIER_PATH + "kernel", 2)[1]}
    if modality == "video":
        return VattForVideoClassification, {**fields, "problem_type": "single_label_classification"}
    return VattForAudioClassification, {
        **fields,
        "problem_type": "multi_label_classification",
        "label_balancing": True,
    }
