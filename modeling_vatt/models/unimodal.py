# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Starting towers from unimodal checkpoints: video from ViT, sound from AST or ViT, text from T5.

The paper trains all towers from scratch; its T5-style text tower is built so that T5 weights fit (section
3.3). Parameters with the same arithmetic are copied, those with a counterpart adapted, the rest stays random.
`UnimodalReport` says which is which, and which parameters of the sources are unused.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import nn
from transformers import ASTModel, AutoConfig, MT5EncoderModel, PreTrainedModel, T5EncoderModel, ViTModel

from ..configuration import VattAudioConfig, VattTextConfig, VattVideoConfig
from ..configuration.configuration_vatt import VattTowerConfig
from ..repositories import read_json, require_repository
from .foreign import refuse_incomplete
from .positions import resample_positions


# Submodules reached by attribute have no static types in torch.
Untyped: TypeAlias = Any

_PATCHES = "embeddings.patch_embeddings.projection"

_LOADERS: dict[str, Callable[..., Any]] = {
    "vit": partial(ViTModel.from_pretrained, add_pooling_layer=False),
    "audio-spectrogram-transformer": ASTModel.from_pretrained,
    "t5": T5EncoderModel.from_pretrained,
    "mt5": MT5EncoderModel.from_pretrained,
}
_SOURCES = {"video": ("vit",), "audio": ("audio-spectrogram-transformer", "vit"), "text": ("t5", "mt5")}
# Field of a tower's config -> of T5's; the first ones must agree for the weights to fit.
_T5_SIZES = {
    "hidden_size": "d_model",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "head_dim": "d_kv",
    "intermediate_size": "d_ff",
    "relative_attention_num_buckets": "relative_attention_num_buckets",
}
_T5_FIELDS = {
    **_T5_SIZES,
    "hidden_dropout_prob": "dropout_rate",
    "attention_probs_dropout_prob": "dropout_rate",
    "layer_norm_eps": "layer_norm_epsilon",
    "vocab_size": "vocab_size",
    "embedding_size": "d_model",
    "relative_attention_max_distance": "relative_attention_max_distance",
    "pad_token_id": "pad_token_id",
}
_VIT_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_VIT_FIELDS = (
    *_VIT_SIZES,
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "layer_norm_eps",
)


@dataclass
class UnimodalReport:
    """Where every parameter of a model comes from.

    Args:
        taken: parameters copied unchanged, and from which.
        adapted: parameters computed from the source, and how.
        random: parameters that keep their random initialisation.
        unused: parameters of each source that were not used.
        notes: differences that no parameter shows, and the `unused` ones.
    """

    taken: dict[str, str] = field(default_factory=dict)
    adapted: dict[str, str] = field(default_factory=dict)
    random: list[str] = field(default_factory=list)
    unused: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"taken unchanged ({len(self.taken)} tensors): {_summary(self.taken)}"]
        lines.append(f"adapted ({len(self.adapted)} tensors):")
        by_rule: dict[str, list[str]] = {}
        for name, rule in self.adapted.items():
            by_rule.setdefault(rule, []).append(name)
        lines += [f"  {_summary(names)}: {rule}" for rule, names in by_rule.items()]
        lines.append(f"random ({len(self.random)} tensors): {_summary(self.random)}")
        return "\n".join(lines + [f"note: {note}" for note in self.notes])


def _summary(names: Iterable[str]) -> str:
    """Names with layer numbers folded: `a.layers.0-11.b`."""
    layers: dict[str, list[int]] = {}
    for name in names:
        number = re.search(r"(?<=\.)\d+(?=\.)", name)  # the layer; T5's parts of a layer have numbers too
        pattern = name if number is None else f"{name[: number.start()]}#{name[number.end() :]}"
        layers.setdefault(pattern, []).append(0 if number is None else int(number[0]))
    folded = []
    for name, numbers in layers.items():
        first, last = min(numbers), max(numbers)
        folded.append(name.replace("#", str(first) if first == last else f"{first}-{last}"))
    return ", ".join(folded) or "none"


def load_source(modality: str, source: str | PreTrainedModel) -> PreTrainedModel:
    """The source of a tower.

    Raises:
        FileNotFoundError: no such folder, and nothing on the Hub.
        ValueError: if it is of a kind the tower can not start from, or lacks weights.
    """
    allowed = _SOURCES[modality]
    if isinstance(source, str):
        require_repository(source, bare=True)
    config = source.config if isinstance(source, PreTrainedModel) else AutoConfig.from_pretrained(source)
    kind = config.model_type
    if kind not in allowed:
        raise ValueError(f"The {modality} tower starts from {' or '.join(allowed)}, got {kind!r}.")
    if isinstance(source, PreTrainedModel):
        model = source
    else:
        model, info = _LOADERS[kind](source, output_loading_info=True)
        refuse_incomplete(f"{modality} tower: {source}", model, info["missing_keys"])
    # Classifiers and encoder-decoders hold the encoder somewhere inside.
    for encoder in (model, model.base_model):
        if isinstance(encoder, (ViTModel, ASTModel, T5EncoderModel, MT5EncoderModel)):
            return encoder
    raise ValueError(f"`{modality}` is a {type(model).__name__}; give the encoder or its checkpoint.")


def tower_config(modality: str, source: PreTrainedModel) -> VattTowerConfig:
    """Config of a tower into which all usable parameters of `source` fit.

    Spectrograms have the release's length: as many frames as an AST's in the time of a clip would need
    hundreds of kHz.

    Raises:
        ValueError: the tower does not offer the source's activation or picture shape.
    """
    config = source.config
    if modality == "text":
        fields = {ours: getattr(config, theirs) for ours, theirs in _T5_FIELDS.items()}
        return VattTextConfig(**fields, hidden_act=_t5_activation(config))
    encoder: dict[str, Any] = {name: getattr(config, name) for name in _VIT_FIELDS}
    encoder["head_dim"] = config.hidden_size // config.num_attention_heads
    if modality == "video":
        sides = {name: _side(config, name) for name in ("image_size", "patch_size")}
        return VattVideoConfig(**encoder, **sides, num_channels=config.num_channels)
    if config.model_type == "vit":
        return VattAudioConfig(**encoder)
    return VattAudioConfig(
        **encoder,
        input_type="spectrogram",
        spectrogram_patch_size=[config.patch_size, config.patch_size],
        num_mel_bins=config.num_mel_bins,
        drop_token_rate=0.0,
    )


def _side(config: Any, name: str) -> int:
    sides = getattr(config, name)
    sides = {sides} if isinstance(sides, int) else set(sides)
    if len(sides) > 1:
        raise ValueError(
            f"The source's `{name}` is {getattr(config, name)}, but towers take squares: give a `config`."
        )
    return sides.pop()


def start_towers(model: PreTrainedModel, sources: dict[str, PreTrainedModel]) -> UnimodalReport:
    """Put the weights of sources (see [`load_source`]) into the towers of a model.

    Raises:
        ValueError: an encoder computes something else than its source's, a tower is missing, or two sources
            are for a shared encoder.
    """
    base = model.base_model
    if base.encoder is not None and len(sources) > 1:
        raise ValueError("A modality-agnostic model has one encoder: start it from one source.")
    report = UnimodalReport()
    names = {parameter: name for name, parameter in model.named_parameters()}
    for modality, source in sources.items():
        tower = getattr(base, f"{modality}_model")
        if tower is None:
            raise ValueError(f"{type(model).__name__} has no {modality} tower: leave `{modality}` out.")
        encoder = getattr(tower, "encoder", None) or base.encoder
        if encoder is None:
            raise ValueError(
                f"The {modality} tower is {tower.config.encoder_type!r}: it has no Transformer to start."
            )
        start = _start_from_t5 if modality == "text" else _start_from_vit
        writer = _Writer(names, source, report)
        start(tower, encoder, source, writer)
        report.unused[modality] = unused = [name for name in writer.theirs if name not in writer.used]
        if unused:
            report.notes.append(
                f"{modality.capitalize()}: the tower has no place for these parameters of the source: "
                f"{_summary(unused)}."
            )
    report.random = [
        name for name in names.values() if name not in report.taken and name not in report.adapted
    ]
    return report


class _Writer:
    """Copies named tensors of a source and records them."""

    def __init__(
        self, names: dict[nn.Parameter, str], source: PreTrainedModel, report: UnimodalReport
    ) -> None:
        self.names = names
        self.theirs = dict(source.named_parameters())
        self.report = report
        self.used: set[str] = set()

    def take(self, target: nn.Parameter, origin: str) -> None:
        """Copy a parameter of the source if it exists with the same shape."""
        if origin in self.theirs and self._write(target, self.theirs[origin], (origin,)):
            self.report.taken[self.names[target]] = origin

    def adapt(self, target: nn.Parameter, value: torch.Tensor, rule: str, *origins: str) -> None:
        """Write a value computed from parameters of the source."""
        if self._write(target, value, origins):
            self.report.adapted[self.names[target]] = rule

    def take_layer(self, target: nn.Module, origin: str) -> None:
        """Copy weight and bias of a layer; a bias that the source lacks becomes zero."""
        for name, parameter in target.named_parameters():
            if f"{origin}.{name}" in self.theirs:
                self.take(parameter, f"{origin}.{name}")
            elif name == "bias":
                self.adapt(parameter, torch.zeros_like(parameter), "zero: the source has no bias")

    def _write(self, target: nn.Parameter, value: torch.Tensor, origins: Iterable[str]) -> bool:
        if target.shape != value.shape:
            return False
        with torch.no_grad():
            target.copy_(value)
        self.used.update(origins)
        return True


def _check_encoder(encoder: Untyped, fields: dict[str, Any], act: str, source: str) -> None:
    for name, wanted in fields.items():
        have = getattr(encoder.config, name)
        if have != wanted:
            raise ValueError(
                f"The tower's `{name}` is {have}, that of {source} {wanted}: give a config that fits or none."
            )
    ours = encoder.config.hidden_act
    if (ours == "geglu") != (act == "geglu"):
        raise ValueError(
            f"The tower's `hidden_act` is {ours!r}, that of {source} {act!r}, and only one of the two has a "
            "gate: give a config that fits or none."
        )


def _note_differences(encoder: Untyped, act: str, eps: float, notes: list[str], tower: str) -> None:
    """Note differences in computation that do not keep the weights from fitting."""
    config = encoder.config
    if config.hidden_act != act:
        notes.append(f"{tower}: activation {config.hidden_act} instead of the source's {act}.")
    if config.layer_norm_eps != eps:
        notes.append(f"{tower}: epsilon of the norms {config.layer_norm_eps} instead of the source's {eps}.")


def _start_from_vit(tower: Untyped, encoder: Untyped, source: Untyped, writer: _Writer) -> None:
    theirs, config = source.config, tower.config
    wanted = {name: getattr(theirs, name) for name in _VIT_SIZES}
    wanted |= {"head_dim": theirs.hidden_size // theirs.num_attention_heads, "pre_norm": True}
    _check_encoder(encoder, wanted, theirs.hidden_act, theirs.model_type)
    name = "Video" if isinstance(config, VattVideoConfig) else "Audio"
    _note_differences(encoder, theirs.hidden_act, theirs.layer_norm_eps, writer.report.notes, name)
    for i, ours in enumerate(encoder.layers):
        layer = f"layers.{i}"
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            writer.take_layer(getattr(ours.self_attn, part), f"{layer}.attention.{part}")
        writer.take_layer(ours.layer_norm1, f"{layer}.layernorm_before")
        writer.take_layer(ours.layer_norm2, f"{layer}.layernorm_after")
        writer.take_layer(ours.mlp.fc1, f"{layer}.mlp.fc1")
        writer.take_layer(ours.mlp.fc2, f"{layer}.mlp.fc2")
    writer.take_layer(encoder.final_layer_norm, "layernorm")

    embeddings = tower.embeddings
    kernel, kernel_name = source.embeddings.patch_embeddings.projection, _PATCHES + ".weight"
    positions = source.embeddings.position_embeddings[0]
    if isinstance(config, VattVideoConfig):
        if kernel.weight.shape[1:] == (config.num_channels, config.patch_size, config.patch_size):
            frames = config.tubelet_size
            weight, bias = _kernel_for_own_pixels(source, writer.report.notes)
            inflated = weight.unsqueeze(2).expand(-1, -1, frames, -1, -1) / frames
            rule = f"2-D kernel repeated over {frames} frames and divided by {frames}"
            writer.adapt(embeddings.patch_projection.weight, inflated.flatten(1), rule, kernel_name)
            rule = "for pixels in [-1, 1], whatever the mean and deviation of the source's processor"
            writer.adapt(embeddings.patch_projection.bias, bias, rule, _PATCHES + ".bias")
        patches = source.embeddings.patch_embeddings
        rows = patches.image_size[0] // patches.patch_size[0]
        _split_positions(embeddings.position_embeddings, positions[1:].unflatten(0, (rows, -1)), writer)
    elif config.input_type == "spectrogram" and kernel.weight.shape[1:] == (1, *config.patch_shape[::-1]):
        # theirs is (frequency, time), ours (time, frequency)
        rule = "kernel transposed from (frequency, time) to (time, frequency)"
        transposed = kernel.weight.transpose(2, 3).flatten(1)
        writer.adapt(embeddings.patch_projection.weight, transposed, rule, kernel_name)
        writer.take(embeddings.patch_projection.bias, _PATCHES + ".bias")
        writer.report.notes.append(
            "Sound: patches do not overlap as the source's do, positions are random (the release lays them "
            "out in another order), and inputs are scaled to [0, 1], not standardised."
        )
    writer.adapt(
        embeddings.agg_token,
        source.embeddings.cls_token[0, 0] + positions[0],
        "class token plus its position: AGG has no position of its own",
        "embeddings.cls_token",
    )


def _kernel_for_own_pixels(source: Untyped, notes: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Kernel and bias of a ViT for VATT's pixels, in [-1, 1], instead of those that the processor beside it
    makes."""
    settings, name = {}, source.name_or_path
    if name:
        settings = read_json(name, "preprocessor_config.json")
        settings = settings or read_json(name, "processor_config.json").get("image_processor", {})
    settings = {field: value for field, value in settings.items() if value is not None}
    if not settings:
        notes.append("Video: no processor beside the source tells its pixels: they are taken as in [-1, 1].")
    half = 127.5 * (settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1)
    kernel = source.embeddings.patch_embeddings.projection
    values = [settings.get(field, 0.5) for field in ("image_mean", "image_std")]
    values = values if settings.get("do_normalize", True) else [0.0, 1.0]
    mean, std = (torch.tensor(value, device=kernel.weight.device).view(-1, 1, 1) for value in values)
    bias = kernel.bias + (kernel.weight * ((half - mean) / std)).sum((1, 2, 3))
    weight = kernel.weight * (half / std)
    return weight.flip(1) if settings.get("do_flip_channel_order") else weight, bias


def split_positions(grid: torch.Tensor, eps: float = 1e-6) -> dict[str, torch.Tensor]:
    """Axis tables and norm whose positions approximate a grid of 2-D positions.

    The tower computes LayerNorm(vertical[i] + horizontal[j]). The tables are the least-squares fit of such a
    sum to the grid (row and column means, each with half of the total mean). Weight and bias of the norm are,
    for every channel, the least-squares line from the normalised sums to the grid.

    Args:
        grid: (rows, columns, dim).
        eps: epsilon of the norm.

    Returns:
        `vertical`, `horizontal`, `weight`, `bias`, and `explained`, the explained share of the grid's
        variance.
    """
    grid = grid.double()
    half = grid.mean((0, 1)) / 2
    vertical, horizontal = grid.mean(1) - half, grid.mean(0) - half
    sums = (vertical[:, None] + horizontal[None]).flatten(0, 1)
    normed = nn.functional.layer_norm(sums, sums.shape[-1:], eps=eps)
    wanted = grid.flatten(0, 1)
    deviation, target = normed - normed.mean(0), wanted - wanted.mean(0)
    weight = (deviation * target).mean(0) / deviation.square().mean(0).clamp(min=1e-12)
    bias = wanted.mean(0) - weight * normed.mean(0)
    rest = (weight * normed + bias - wanted).square().sum() / target.square().sum().clamp(min=1e-12)
    return {
        "vertical": vertical,
        "horizontal": horizontal,
        "weight": weight,
        "bias": bias,
        "explained": 1 - rest,
    }


def _split_positions(positions: Untyped, grid: torch.Tensor, writer: _Writer) -> None:
    fit = split_positions(grid.detach(), positions.layer_norm.eps)
    share = f"explains {float(fit['explained']):.0%} of their variance"
    for axis in ("vertical", "horizontal"):
        table = positions.tables[axis].weight
        writer.adapt(
            table,
            resample_positions(fit[axis], table.shape[0]),
            f"2-D positions split by least squares, {share}",
            "embeddings.position_embeddings",
        )
    for name in ("weight", "bias"):
        writer.adapt(getattr(positions.layer_norm, name), fit[name], "fitted to the 2-D positions")
    temporal = positions.tables["temporal"].weight
    writer.adapt(temporal, torch.zeros_like(temporal), "zero: a still picture looks the same at any time")


def _t5_activation(config: Any) -> str:
    if config.is_gated_act and "gelu" in config.dense_act_fn:
        return "geglu"
    if config.is_gated_act or config.dense_act_fn not in ("relu", "gelu"):
        raise ValueError(
            f"Text towers know no {config.feed_forward_proj!r} MLP: give a T5 with relu, gelu or gated-gelu."
        )
    return config.dense_act_fn


def _start_from_t5(tower: Untyped, encoder: Untyped, source: Untyped, writer: _Writer) -> None:
    theirs = source.config
    if encoder.relative_position_bias is None:
        raise ValueError('T5 fits `encoder_type="t5"` only: give a config with it, or none.')
    act, notes = _t5_activation(theirs), writer.report.notes
    wanted = {ours: getattr(theirs, name) for ours, name in _T5_SIZES.items()}
    _check_encoder(encoder, wanted, act, theirs.model_type)
    _note_differences(encoder, act, theirs.layer_norm_epsilon, notes, "Text")
    if encoder.config.relative_attention_max_distance != theirs.relative_attention_max_distance:
        notes.append(
            f"Text: relative positions reach {encoder.config.relative_attention_max_distance} words, in the "
            f"source {theirs.relative_attention_max_distance}."
        )
    if theirs.dense_act_fn == "gelu_new":
        notes.append("Text: exact GELU instead of the source's tanh approximation (up to 5e-4 apart).")
    first = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"
    writer.take_layer(encoder.relative_position_bias.bias, first)
    for i, ours in enumerate(encoder.layers):
        attention, mlp = f"encoder.block.{i}.layer.0", f"encoder.block.{i}.layer.1"
        for name in "qkvo":
            writer.take_layer(getattr(ours.self_attn, f"{name}_proj"), f"{attention}.SelfAttention.{name}")
        writer.take_layer(ours.layer_norm1, f"{attention}.layer_norm")
        rule = "RMS norm's weight with bias 0; LayerNorm also subtracts the mean"
        scale = f"{mlp}.layer_norm.weight"
        writer.adapt(ours.layer_norm2.weight, writer.theirs[scale], rule, scale)
        writer.adapt(ours.layer_norm2.bias, torch.zeros_like(ours.layer_norm2.bias), rule)
        if act == "geglu":
            writer.take_layer(ours.mlp.fc1_gate, f"{mlp}.DenseReluDense.wi_1")
        writer.take_layer(ours.mlp.fc1, f"{mlp}.DenseReluDense.{'wi_0' if act == 'geglu' else 'wi'}")
        writer.take_layer(ours.mlp.fc2, f"{mlp}.DenseReluDense.wo")
    writer.take_layer(encoder.final_layer_norm, "encoder.final_layer_norm")
    words = tower.embeddings.word_embeddings.weight
    writer.take(words, "shared.weight")
    if writer.names[words] in writer.report.taken:
        notes.append("Text: the word table is the source's, so use the source's tokenizer.")
    elif not tower.config.trainable_embeddings:
        notes.append("Text: the word table is random AND frozen: set `trainable_embeddings`, or fill it.")


__all__ = ["UnimodalReport", "load_source", "split_positions", "start_towers", "tower_config"]
