# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Which TensorFlow variable is which parameter: one table for both directions.

Variable paths are those of the release's object-based checkpoints. A table for a config holds exactly the
variables of such a model.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..configuration import VattAudioConfig, VattConfig, VattTextConfig, VattVideoConfig
from ..configuration.configuration_vatt import VattTowerConfig


ROOT = "model/layer_with_weights-0/"
TOWER_PATHS = {
    "video": ROOT + "_base_layer/vid_backbone/_base/",
    "audio": ROOT + "_base_layer/aud_backbone/_base/",
    "text": ROOT + "_base_layer/txt_backbone/",
}
AGNOSTIC_PATH = ROOT + "_base_layer/unified_backbone/unified_transformer/"
HEAD_PATH = ROOT + "_head_layer/_bridge_heads/0/"
FINETUNED_PATH = ROOT + "_base/"
CLASSIFIER_PATH = ROOT + "_ops/cls/"
PATCH_NAMES = {"video": "voxel_to_patch", "waveform": "wave_to_patch", "spectrogram": "spectrum_to_patch"}


@dataclass(frozen=True)
class Entry:
    """A variable of the checkpoint and its parameter in the state dict."""

    variable: str
    parameter: str
    # "same"; "dense", a (in, out) kernel, transposed here; "patch", a convolution kernel (*patch, channels,
    # out), which is a dense (out, channels * patch) weight here.
    layout: str = "same"
    patch: tuple[int, ...] = ()

    def to_tensor(self, array: np.ndarray) -> torch.Tensor:
        """Contiguous parameter of a variable."""
        tensor = torch.from_numpy(np.require(array, requirements=["C", "W"]))
        if self.layout == "dense":
            tensor = tensor.T
        elif self.layout == "patch":
            axes = len(self.patch)
            tensor = tensor.permute(axes + 1, axes, *range(axes)).flatten(1)
        return tensor.contiguous()

    def to_array(self, tensor: torch.Tensor) -> np.ndarray:
        """Variable of a parameter: a view where the tensor lies on the CPU."""
        tensor = tensor.detach().cpu()
        if self.layout == "dense":
            tensor = tensor.T
        elif self.layout == "patch":
            axes = len(self.patch)
            tensor = tensor.unflatten(1, (-1, *self.patch)).permute(*range(2, axes + 2), 1, 0)
        return tensor.numpy()

    def variable_shape(self, parameter_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the variable of a parameter of this shape."""
        if self.layout == "dense":
            return parameter_shape[::-1]
        if self.layout == "patch":
            size, inputs = parameter_shape
            return (*self.patch, inputs // math.prod(self.patch), size)
        return parameter_shape


def _dense(variable: str, parameter: str, bias: bool = True) -> Iterator[Entry]:
    yield Entry(variable + "/kernel", parameter + ".weight", "dense")
    if bias:
        yield Entry(variable + "/bias", parameter + ".bias")


def _convolution(variable: str, parameter: str, patch: tuple[int, ...]) -> Iterator[Entry]:
    yield Entry(variable + "/kernel", parameter + ".weight", "patch", patch)
    yield Entry(variable + "/bias", parameter + ".bias")


def _norm(variable: str, parameter: str) -> Iterator[Entry]:
    yield Entry(variable + "/gamma", parameter + ".weight")
    yield Entry(variable + "/beta", parameter + ".bias")


def _batch_norm(variable: str, parameter: str) -> Iterator[Entry]:
    yield from _norm(variable, parameter)
    yield Entry(variable + "/moving_mean", parameter + ".running_mean")
    yield Entry(variable + "/moving_variance", parameter + ".running_var")


def _positions(variable: str, parameter: str, config: VattTowerConfig) -> Iterator[Entry]:
    for axis in config.position_axes:
        release_axis = "spectoral" if axis == "spectral" else axis  # the release's spelling
        yield Entry(
            f"{variable}/{release_axis}_position_embeddings/embeddings", f"{parameter}.tables.{axis}.weight"
        )
    yield from _norm(variable + "/layernorm", parameter + ".layer_norm")


def _encoder(variable: str, parameter: str, config: VattTowerConfig) -> Iterator[Entry]:
    t5 = isinstance(config, VattTextConfig) and config.encoder_type == "t5"
    bias = config.use_bias and not t5
    for i in range(config.num_hidden_layers):
        theirs, ours = f"{variable}/layers/{i}/", f"{parameter}.layers.{i}."
        attention = theirs + ("self_attention/attention/" if t5 else "mha/")
        if t5:
            yield Entry(theirs + "self_attention/layer_norm/weight", ours + "layer_norm1.weight")
        else:
            yield from _norm(theirs + "layer_norm", ours + "layer_norm1")
        for name in "qkvo":
            yield from _dense(attention + name, f"{ours}self_attn.{name}_proj", bias)
        if t5 and i == 0:  # one table, reused by all layers
            yield Entry(
                attention + "relative_attention_bias/embeddings",
                parameter + ".relative_position_bias.bias.weight",
            )
        yield from _norm(theirs + "feed_forward/layer_norm", ours + "layer_norm2")
        mlp = theirs + "feed_forward/mlp/"
        if config.hidden_act == "geglu":
            yield from _dense(mlp + "wi_0", ours + "mlp.fc1", bias)
            yield from _dense(mlp + "wi_1", ours + "mlp.fc1_gate", bias)
        else:
            yield from _dense(mlp + "wi", ours + "mlp.fc1", bias)
        yield from _dense(mlp + "wo", ours + "mlp.fc2", bias)
    if t5:
        yield Entry(variable + "/final_layer_norm/weight", parameter + ".final_layer_norm.weight")
    elif config.pre_norm:
        yield from _norm(variable + "/final_layer_norm", parameter + ".final_layer_norm")


def _patch_tower(path: str, parameter: str, config: VattVideoConfig | VattAudioConfig) -> Iterator[Entry]:
    """Video or audio tower of a modality-specific model, and of every fine-tuned one."""
    embeddings = parameter + "embeddings."
    kind = "video" if isinstance(config, VattVideoConfig) else config.input_type
    yield from _convolution(path + PATCH_NAMES[kind], embeddings + "patch_projection", config.patch_shape)
    yield from _positions(path + "pos_embedding_lookup", embeddings + "position_embeddings", config)
    yield Entry(path + "agg_embedding", embeddings + "agg_token")
    if config.use_input_masking:
        yield Entry(path + "mask_embedding", embeddings + "mask_token")
    if config.use_pre_projection:
        yield from _dense(path + "pre_proj", embeddings + "pre_projection")
    yield from _encoder(path + "tx", parameter + "encoder", config)
    if config.use_post_projection:
        yield from _dense(path + "post_proj", parameter + "post_projection")


def _text_tower(path: str, parameter: str, config: VattTextConfig) -> Iterator[Entry]:
    if config.encoder_type == "linear":
        yield Entry(path + "embedding/embeddings", parameter + "word_embeddings.weight")
        yield from _convolution(path + "base_lm/conv1d", parameter + "projection", (1,))
        return
    embeddings = parameter + "embeddings."
    yield Entry(path + "embedding/embeddings", embeddings + "word_embeddings.weight")
    yield from _dense(path + "pre_proj", embeddings + "pre_projection", config.pre_projection_bias)
    if config.encoder_type == "t5":
        yield Entry(path + "agg_embedding", embeddings + "agg_token")
        yield from _encoder(path + "base_lm", parameter + "encoder", config)
    else:
        yield Entry(path + "base_lm/agg_embedding", embeddings + "agg_token")
        yield from _positions(
            path + "base_lm/pos_embedding_lookup", embeddings + "position_embeddings", config
        )
        yield from _encoder(path + "base_lm/tx", parameter + "encoder", config)
    if config.use_post_projection:
        yield from _dense(path + "post_proj", parameter + "post_projection", config.encoder_type == "bert")


def _agnostic(parameter: str, config: VattConfig) -> Iterator[Entry]:
    path = AGNOSTIC_PATH
    towers = {"video": config.video_config, "audio": config.audio_config, "text": config.text_config}
    for modality, tower in towers.items():
        ours = f"{parameter}{modality}_model."
        embeddings = ours + "embeddings."
        raw = path + "raw_to_embeddings/" + modality
        if isinstance(tower, VattTextConfig):
            yield Entry(raw + "/embeddings", embeddings + "word_embeddings.weight")
        else:
            yield from _convolution(raw, embeddings + "patch_projection", tower.patch_shape)
        yield from _dense(path + "pre_proj/" + modality, embeddings + "pre_projection")
        yield from _positions(
            path + "pos_embedding_lookup/" + modality, embeddings + "position_embeddings", tower
        )
        yield Entry(
            f"{path}{modality[:3] if modality != 'text' else 'txt'}_agg_embedding", embeddings + "agg_token"
        )
        yield from _dense(path + "post_proj/" + modality, ours + "post_projection")
    yield from _encoder(path + "tx", parameter + "encoder", config.video_config)


def _head(parameter: str, config: VattConfig) -> Iterator[Entry]:
    head = parameter + "head."
    if config.head_type == "joint":
        for modality, name in (("video", "vid_to_vat"), ("audio", "aud_to_vat"), ("text", "txt_to_vat")):
            yield from _dense(f"{HEAD_PATH}{name}/dense", f"{head}projections.{modality}", bias=False)
            yield from _batch_norm(f"{HEAD_PATH}{name}/bn", f"{head}norms.{modality}")
        return
    yield from _dense(HEAD_PATH + "vid_to_hid", head + "video_hidden", bias=False)
    yield from _batch_norm(HEAD_PATH + "hid_to_va/pre_bn", head + "video_hidden_norm")
    yield from _dense(HEAD_PATH + "hid_to_va/dense", head + "video_va", bias=False)
    yield from _batch_norm(HEAD_PATH + "hid_to_va/bn", head + "video_va_norm")
    yield from _dense(HEAD_PATH + "va_to_vat/dense", head + "video_vt", bias=False)
    yield from _batch_norm(HEAD_PATH + "va_to_vat/bn", head + "video_vt_norm")
    yield from _dense(HEAD_PATH + "aud_to_va", head + "audio_va")
    yield from _dense(HEAD_PATH + "txt_to_vat", head + "text_vt")


def pretraining_table(config: VattConfig, prefix: str = "vatt.") -> list[Entry]:
    """All variables of a pretraining model; the prefix of the parameters is empty for [`VattModel`]."""
    if config.modality_agnostic:
        return [*_agnostic(prefix, config), *_head(prefix, config)]
    return [
        *_patch_tower(TOWER_PATHS["video"], prefix + "video_model.", config.video_config),
        *_patch_tower(TOWER_PATHS["audio"], prefix + "audio_model.", config.audio_config),
        *_text_tower(TOWER_PATHS["text"], prefix + "text_model.", config.text_config),
        *_head(prefix, config),
    ]


def classification_table(config: VattConfig, modality: str) -> list[Entry]:
    """All variables of a fine-tuned model (`modality`: `"video"` or `"audio"`)."""
    tower = getattr(config, f"{modality}_config")
    return [
        *_patch_tower(FINETUNED_PATH, f"vatt.{modality}_model.", tower),
        *_dense(CLASSIFIER_PATH.removesuffix("/"), "classifier"),
    ]
