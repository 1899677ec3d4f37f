# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Starting towers from unimodal checkpoints: video from ViT, sound from AST or ViT, text from T5.

The paper trains all towers from scratch; its T5-style text tower is built so that T5 weights fit (section
3.3). What is the same arithmetic is taken as it is, what has a counterpart is adapted, the rest keeps its
random initialisation, and `UnimodalReport` tells which is which for every parameter.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import nn
from transformers import ASTModel, AutoConfig, MT5EncoderModel, PreTrainedModel, T5EncoderModel, ViTModel

from ..configuration import VattAudioConfig, VattTextConfig, VattVideoConfig
from ..configuration.configuration_vatt import VattTowerConfig
from .positions import resample_positions


# Submodules reached by attribute have no static types in torch.
Untyped: TypeAlias = Any

_LOADERS: dict[str, Callable[[str], PreTrainedModel]] = {
    "vit": lambda name: ViTModel.from_pretrained(name, add_pooling_layer=False),
    "audio-spectrogram-transformer": ASTModel.from_pretrained,
    "t5": T5EncoderModel.from_pretrained,
    "mt5": MT5EncoderModel.from_pretrained,
}
_SOURCES = {
    "video": ("vit",),
    "audio": ("audio-spectrogram-transformer", "vit"),
    "text": ("t5", "mt5"),
}


@dataclass
class UnimodalReport:
    """Where every parameter of a model comes from.

    Args:
        taken: parameters copied unchanged, and from which.
        adapted: parameters computed from the source, and how.
        random: parameters that keep their random initialisation.
        notes: differences that no parameter shows.
    """

    taken: dict[str, str] = field(default_factory=dict)
    adapted: dict[str, str] = field(default_factory=dict)
    random: list[str] = field(default_factory=list)
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
        head, found, tail = name.partition(".layers.")
        number, _, rest = tail.partition(".")
        layers.setdefault(f"{head}.layers.#.{rest}" if found else name, []).append(
            int(number) if found else 0
        )
    folded = []
    for name, numbers in layers.items():
        first, last = min(numbers), max(numbers)
        folded.append(name.replace("#", str(first) if first == last else f"{first}-{last}"))
    return ", ".join(folded) or "none"


def load_source(modality: str, source: str | PreTrainedModel) -> PreTrainedModel:
    """The source of a tower.

    Raises:
        ValueError: if it is of a kind the tower can not start from.
    """
    allowed = _SOURCES[modality]
    kind = source.config.model_type if isinstance(source, PreTrainedModel) else ""
    if not isinstance(source, PreTrainedModel):
        kind = AutoConfig.from_pretrained(source).model_type
    if kind not in allowed:
        raise ValueError(f"The {modality} tower starts from {' or '.join(allowed)}, got {kind!r}.")
    model = _LOADERS[kind](source) if isinstance(source, str) else source
    # Classifiers and encoder-decoders hold the encoder somewhere inside.
    wanted = (ViTModel, ASTModel, T5EncoderModel, MT5EncoderModel)
    if not isinstance(model, wanted) and isinstance(model.base_model, wanted):
        model = model.base_model
    if not isinstance(model, wanted):
        raise ValueError(f"`{modality}` is a {type(model).__name__}; give the encoder or its checkpoint.")
    return model


def tower_config(modality: str, source: PreTrainedModel) -> VattTowerConfig:
    """Config of a tower in which everything of `source` that can be used fits."""
    config = source.config
    if modality == "text":
        act = _t5_activation(config)
        return VattTextConfig(
            hidden_size=config.d_model,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            head_dim=config.d_kv,
            intermediate_size=config.d_ff,
            hidden_act=act,
            hidden_dropout_prob=config.dropout_rate,
            attention_probs_dropout_prob=config.dropout_rate,
            layer_norm_eps=config.layer_norm_epsilon,
            vocab_size=config.vocab_size,
            embedding_size=config.d_model,
            relative_attention_num_buckets=config.relative_attention_num_buckets,
            relative_attention_max_distance=config.relative_attention_max_distance,
            pad_token_id=config.pad_token_id,
        )
    encoder: dict[str, Any] = {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "head_dim": config.hidden_size // config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "hidden_act": config.hidden_act,
        "hidden_dropout_prob": config.hidden_dropout_prob,
        "attention_probs_dropout_prob": config.attention_probs_dropout_prob,
        "layer_norm_eps": config.layer_norm_eps,
    }
    if modality == "video":
        return VattVideoConfig(
            **encoder,
            image_size=config.image_size,
            patch_size=config.patch_size,
            num_channels=config.num_channels,
        )
    if config.model_type == "vit":
        return VattAudioConfig(**encoder)
    return VattAudioConfig(
        **encoder,
        input_type="spectrogram",
        spectrogram_patch_size=[config.patch_size, config.patch_size],
        spectrogram_length=config.max_length,
        num_mel_bins=config.num_mel_bins,
        drop_token_rate=0.0,
    )


def start_towers(model: PreTrainedModel, sources: dict[str, PreTrainedModel]) -> UnimodalReport:
    """Put the weights of sources (see [`load_source`]) into the towers of a model.

    Raises:
        ValueError: if encoder sizes differ, a tower is missing, or two sources claim a shared encoder.
    """
    base = model.base_model
    if base.encoder is not None and len(sources) > 1:
        raise ValueError("A modality-agnostic model has one encoder: start it from one source.")
    report = UnimodalReport()
    names = {parameter: name for name, parameter in model.named_parameters()}
    writer = _Writer(names, report)
    for modality, source in sources.items():
        tower = getattr(base, f"{modality}_model")
        if tower is None:
            raise ValueError(f"{type(model).__name__} has no {modality} tower: leave `{modality}` out.")
        encoder = getattr(tower, "encoder", None) or base.encoder
        if encoder is None:
            raise ValueError(
                f"The {modality} tower of this config is {tower.config.encoder_type!r}: it has no "
                "Transformer to start."
            )
        start = _start_from_t5 if modality == "text" else _start_from_vit
        start(tower, encoder, source, writer)
    report.random = [
        name for name in names.values() if name not in report.taken and name not in report.adapted
    ]
    return report


class _Writer:
    """Copies tensors and books them."""

    def __init__(self, names: dict[nn.Parameter, str], report: UnimodalReport) -> None:
        self.names = names
        self.report = report

    def take(self, target: nn.Parameter | None, value: torch.Tensor | None, origin: str) -> None:
        if self._write(target, value):
            assert target is not None
            self.report.taken[self.names[target]] = origin

    def adapt(self, target: nn.Parameter | None, value: torch.Tensor | None, rule: str) -> None:
        if self._write(target, value):
            assert target is not None
            self.report.adapted[self.names[target]] = rule

    def _write(self, target: nn.Parameter | None, value: torch.Tensor | None) -> bool:
        if target is None or value is None or target.shape != value.shape:
            return False
        with torch.no_grad():
            target.copy_(value)
        return True


def _check_encoder(encoder: Untyped, sizes: dict[str, Any], source: str) -> None:
    for name, wanted in sizes.items():
        have = getattr(encoder.config, name)
        if have != wanted:
            raise ValueError(
                f"The tower's `{name}` is {have}, that of {source} {wanted}: give a config that fits or none."
            )


def _take_module(writer: _Writer, target: nn.Module, source: nn.Module, origin: str) -> None:
    theirs = dict(source.named_parameters())
    for name, parameter in target.named_parameters():
        if name in theirs:
            writer.take(parameter, theirs[name], f"{origin}.{name}")
        elif name == "bias":
            writer.adapt(parameter, torch.zeros_like(parameter), "zero: the source has no bias")


def _start_from_vit(tower: Untyped, encoder: Untyped, source: Untyped, writer: _Writer) -> None:
    theirs = source.config
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    _check_encoder(encoder, {name: getattr(theirs, name) for name in sizes}, theirs.model_type)
    if encoder.config.hidden_act != theirs.hidden_act:
        writer.report.notes.append(
            f"Activation {encoder.config.hidden_act} instead of the source's {theirs.hidden_act}."
        )
    for i, (ours, layer) in enumerate(zip(encoder.layers, source.layers, strict=True)):
        origin = f"layers.{i}"
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            attention = getattr(layer.attention, part)
            _take_module(writer, getattr(ours.self_attn, part), attention, f"{origin}.attention.{part}")
        _take_module(writer, ours.layer_norm1, layer.layernorm_before, f"{origin}.layernorm_before")
        _take_module(writer, ours.layer_norm2, layer.layernorm_after, f"{origin}.layernorm_after")
        _take_module(writer, ours.mlp.fc1, layer.mlp.fc1, f"{origin}.mlp.fc1")
        _take_module(writer, ours.mlp.fc2, layer.mlp.fc2, f"{origin}.mlp.fc2")
    _take_module(writer, encoder.final_layer_norm, source.layernorm, "layernorm")

    embeddings, config = tower.embeddings, tower.config
    patches = source.embeddings.patch_embeddings.projection
    positions = source.embeddings.position_embeddings[0]
    if isinstance(config, VattVideoConfig):
        fits = patches.weight.shape[1:] == (config.num_channels, config.patch_size, config.patch_size)
        if fits:
            frames = config.tubelet_size
            inflated = patches.weight.unsqueeze(2).expand(-1, -1, frames, -1, -1) / frames
            writer.adapt(
                embeddings.patch_projection.weight,
                inflated.flatten(1),
                f"2-D kernel repeated over {frames} frames and divided by {frames}",
            )
            writer.take(
                embeddings.patch_projection.bias, patches.bias, "embeddings.patch_embeddings.projection.bias"
            )
        _split_positions(embeddings.position_embeddings, positions[1:], writer)
    elif config.input_type == "spectrogram" and patches.weight.shape[1] == 1:
        # theirs is (frequency, time), ours (time, frequency)
        writer.adapt(
            embeddings.patch_projection.weight,
            patches.weight.transpose(2, 3).flatten(1),
            "kernel transposed from (frequency, time) to (time, frequency)",
        )
        writer.take(
            embeddings.patch_projection.bias, patches.bias, "embeddings.patch_embeddings.projection.bias"
        )
        writer.report.notes.append(
            "Sound: patches do not overlap as the source's do, positions are random (the release lays them "
            "out in another order), and inputs are scaled to [0, 1], not standardised."
        )
    writer.adapt(
        embeddings.agg_token,
        source.embeddings.cls_token[0, 0] + positions[0],
        "class token plus its position: AGG has no position of its own",
    )


def split_positions(grid: torch.Tensor, eps: float = 1e-6) -> dict[str, torch.Tensor]:
    """Axis tables and norm whose positions come near a grid of 2-D positions.

    The tower computes LayerNorm(vertical[i] + horizontal[j]). The tables are the least-squares fit of such a
    sum to the grid, which is row means and column means, each with half of the total mean. The norm's weight
    and bias then are, for every channel, the least-squares line from the normalised sums to the grid.

    Args:
        grid: (rows, columns, dim).
        eps: epsilon of the norm.

    Returns:
        `vertical`, `horizontal`, `weight`, `bias`, and `explained`, the share of the grid's variance (about
        its mean position) that the outcome explains.
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


def _split_positions(positions: Untyped, rows: torch.Tensor, writer: _Writer) -> None:
    side = round(rows.shape[0] ** 0.5)
    if side * side != rows.shape[0]:
        return
    fit = split_positions(rows.detach().view(side, side, -1), positions.layer_norm.eps)
    share = f"explains {float(fit['explained']):.0%} of their variance"
    for axis in ("vertical", "horizontal"):
        table = positions.tables[axis].weight
        writer.adapt(
            table,
            resample_positions(fit[axis], table.shape[0]),
            f"2-D positions split by least squares, {share}",
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
    sizes = {
        "hidden_size": theirs.d_model,
        "num_hidden_layers": theirs.num_layers,
        "num_attention_heads": theirs.num_heads,
        "head_dim": theirs.d_kv,
        "intermediate_size": theirs.d_ff,
        "relative_attention_num_buckets": theirs.relative_attention_num_buckets,
    }
    _check_encoder(encoder, sizes, theirs.model_type)
    notes = writer.report.notes
    if encoder.config.relative_attention_max_distance != theirs.relative_attention_max_distance:
        notes.append(
            f"Text: relative positions reach {encoder.config.relative_attention_max_distance} words, in the "
            f"source {theirs.relative_attention_max_distance}."
        )
    act = _t5_activation(theirs)
    if encoder.config.hidden_act != act:
        notes.append(f"Text: activation {encoder.config.hidden_act} instead of the source's {act}.")
    if theirs.dense_act_fn == "gelu_new":
        notes.append("Text: exact GELU instead of the source's tanh approximation (up to 5e-4 apart).")
    blocks = source.encoder.block
    bias = blocks[0].layer[0].SelfAttention.relative_attention_bias
    _take_module(
        writer,
        encoder.relative_position_bias.bias,
        bias,
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    )
    for i, (ours, block) in enumerate(zip(encoder.layers, blocks, strict=True)):
        attention, mlp = block.layer
        origin = f"encoder.block.{i}.layer"
        for name in "qkvo":
            theirs_part = getattr(attention.SelfAttention, name)
            target = getattr(ours.self_attn, f"{name}_proj")
            _take_module(writer, target, theirs_part, f"{origin}.0.SelfAttention.{name}")
        _take_module(writer, ours.layer_norm1, attention.layer_norm, f"{origin}.0.layer_norm")
        rule = "RMS norm's weight with bias 0; LayerNorm also subtracts the mean"
        writer.adapt(ours.layer_norm2.weight, mlp.layer_norm.weight, rule)
        writer.adapt(ours.layer_norm2.bias, torch.zeros_like(ours.layer_norm2.bias), rule)
        dense = mlp.DenseReluDense
        gated = hasattr(dense, "wi_0")
        first = "wi_0" if gated else "wi"
        _take_module(writer, ours.mlp.fc1, getattr(dense, first), f"{origin}.1.DenseReluDense.{first}")
        if gated:
            _take_module(writer, ours.mlp.fc1_gate, dense.wi_1, f"{origin}.1.DenseReluDense.wi_1")
        _take_module(writer, ours.mlp.fc2, dense.wo, f"{origin}.1.DenseReluDense.wo")
    _take_module(
        writer, encoder.final_layer_norm, source.encoder.final_layer_norm, "encoder.final_layer_norm"
    )
    words = tower.embeddings.word_embeddings.weight
    writer.take(words, source.get_input_embeddings().weight, "shared.weight")
    if writer.names[words] in writer.report.taken:
        notes.append("Text: the word table is the source's, so use the source's tokenizer.")
    elif not tower.config.trainable_embeddings:
        notes.append("Text: the word table is random AND frozen: set `trainable_embeddings`, or fill it.")


__all__ = ["UnimodalReport", "load_source", "split_positions", "start_towers", "tower_config"]
