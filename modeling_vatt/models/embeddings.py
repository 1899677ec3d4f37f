# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""From raw inputs to encoder inputs: patches, DropToken, AGG token, words.

Sources: paper sections 3.1-3.3; official modules `ViT`/`WaT`/`SpT`/`UniversalTransformer` and `T5Encoder`.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from ..configuration import VattAudioConfig, VattTextConfig, VattVideoConfig
from ..fast_cpu import VattDropout, VattLinear
from .positions import VattAxialPositionEmbeddings, VattPositionTable, length_matrices


def drop_token_count(num_tokens: int, drop_rate: float) -> int:
    """Tokens that DropToken keeps: floor of the kept share, at least one (paper 3.3, official `ViT`)."""
    return max(1, math.floor((1 - drop_rate) * num_tokens + 1e-6))


def input_name(config: VattVideoConfig | VattAudioConfig) -> str:
    """Name of the input of a tower."""
    return "pixel_values_videos" if isinstance(config, VattVideoConfig) else "input_values"


def channels_first(values: torch.Tensor, config: VattVideoConfig | VattAudioConfig) -> torch.Tensor:
    """Input of a tower as (batch, channels, *extent); ValueError if it is not what the config describes."""
    video = isinstance(config, VattVideoConfig)
    if video:
        expected = f"(batch, frames, {config.num_channels}, height, width)"
        valid = values.ndim == 5 and values.shape[2] == config.num_channels
    else:
        waveform = len(config.patch_shape) == 1
        expected = "(batch, samples)" if waveform else f"(batch, frames, {config.num_mel_bins} mel bins)"
        # A bin of another count stands for another frequency: unlike time, it cannot be resampled.
        valid = values.ndim == 1 + len(config.patch_shape)
        valid &= waveform or values.shape[-1] == config.num_mel_bins
    if not valid:
        raise ValueError(f"`{input_name(config)}` must be {expected}, got {tuple(values.shape)}.")
    if not values.is_floating_point():
        raise ValueError(
            f"`{input_name(config)}` must be floating-point numbers, got {values.dtype}: use the processor, "
            "or `ClipBatch.to` for clips of a dataset with `late_colors`."
        )
    return _with_channels(values)


def _with_channels(values: torch.Tensor) -> torch.Tensor:
    """(batch, frames, channels, height, width) or (batch, *extent) -> (batch, channels, *extent)."""
    return values.transpose(1, 2) if values.ndim == 5 else values.unsqueeze(1)


def _product_dtype(weight: torch.Tensor) -> torch.dtype:
    """The type in which dense layers with such weights compute, also under autocast."""
    device = weight.device.type
    autocasts = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)  # meta: neither
    if autocasts and weight.dtype == torch.float32:
        return torch.get_autocast_dtype(device)
    return weight.dtype


def _in_patches(values: torch.Tensor, patch: Sequence[int]) -> torch.Tensor:
    """(batch, channels, *extent) as a view of shape (batch, *grid, channels, *patch)."""
    for axis, extent in enumerate(patch):
        values = values.unfold(2 + axis, extent, extent)
    return values.movedim(1, 1 + len(patch))


class VattPatchEmbeddings(nn.Module):
    """Video, waveform or spectrogram -> encoder input.

    Patch projection (a convolution whose kernel equals its stride, done as a matrix product) -> optional
    input masking -> optional pre-projection -> positions and dropout -> DropToken (training) -> AGG token.
    DropToken picks the tokens first, so nothing is computed for dropped ones.
    """

    def __init__(self, config: VattVideoConfig | VattAudioConfig) -> None:
        super().__init__()
        self.config = config
        size = config.hidden_size
        self.patch_projection = VattLinear(config.num_channels * math.prod(config.patch_shape), size)
        self.mask_token = nn.Parameter(torch.zeros(size)) if config.use_input_masking else None
        self.pre_projection = VattLinear(size, size) if config.use_pre_projection else None
        self.activation = ACT2FN[config.projection_act]
        self.position_embeddings = VattAxialPositionEmbeddings(
            config.position_axes, size, config.position_layer_norm_eps
        )
        self.dropout = VattDropout(config.position_dropout_prob)
        self.agg_token = nn.Parameter(torch.zeros(size))
        self.drops_tokens = True  # in training; its last steps may keep all
        # The release orders spectrogram positions mel-slowest, but tokens time-slowest.
        self.reversed_positions = getattr(config, "input_type", None) == "spectrogram"

    def patchify(self, values: torch.Tensor) -> torch.Tensor:
        """View of shape (batch, *grid, channels, *patch); incomplete patches at the end are left out."""
        patch = self.config.patch_shape
        values = channels_first(values, self.config)
        if any(size < extent for size, extent in zip(values.shape[2:], patch, strict=True)):
            raise ValueError(
                f"`{input_name(self.config)}` of extent {tuple(values.shape[2:])} is smaller than one patch "
                f"{patch}: give it more."
            )
        return _in_patches(values, patch)

    def pick(self, values: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """The patches of these tokens, (batch, kept, channels * patch).

        Copies rows of pixels instead of single ones: a third to a ninth of the time that indexing
        [`patchify`] takes on the CPU.
        """
        *patch, width = self.config.patch_shape
        count = values.shape[-1] // width
        rows = values[..., : count * width].reshape(len(values), -1, width)
        numbers = torch.arange(rows.shape[1], device=values.device).view(1, *values.shape[1:-1], count)
        of_tokens = _in_patches(_with_channels(numbers), (*patch, 1)).flatten(1, len(patch) + 1)[0, kept]
        return rows.index_select(1, of_tokens.flatten()).view(len(values), len(kept), -1)

    def forward(self, values: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """
        Args:
            values: (batch, frames, channels, height, width) pixels, (batch, samples) waveform or (batch,
                frames, mel bins) spectrogram.

        Returns:
            Encoder input (batch, 1 + tokens, hidden_size), and a dict with `kept_tokens`, indices (kept,)
            after DropToken, and `masked_tokens`, bool (batch, tokens).
        """
        num_axes = len(self.config.patch_shape)
        grid = tuple(self.patchify(values).shape[1 : 1 + num_axes])
        positions = self.position_embeddings(grid[::-1] if self.reversed_positions else grid)
        info: dict[str, torch.Tensor] = {}
        kept = None
        if self.training and self.drops_tokens and self.config.drop_token_rate > 0:
            keep = drop_token_count(math.prod(grid), self.config.drop_token_rate)
            # One draw for the whole batch (release). Sorted for memory locality only.
            kept = torch.randperm(math.prod(grid), device=values.device)[:keep].sort().values
            info["kept_tokens"] = kept
        masking = self.mask_token is not None and self.training
        # Processors give float32. In half precision there is half as much to move.
        values = values.to(_product_dtype(self.agg_token))
        if kept is not None and not masking:
            patches = self.pick(values, kept)
        else:
            patches = self.patchify(values).flatten(1, num_axes).flatten(2)
        tokens = self.patch_projection(patches)
        if masking:
            tokens, info["masked_tokens"] = self.mask_inputs(tokens)
            tokens = tokens if kept is None else tokens[:, kept]
        if self.pre_projection is not None:
            tokens = self.activation(self.pre_projection(tokens))
        tokens = self.dropout(tokens + (positions if kept is None else positions[kept]))
        agg = self.agg_token.to(tokens.dtype).expand(tokens.shape[0], 1, -1)
        return torch.cat([agg, tokens], dim=1), info

    def mask_inputs(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Masked-modelling inputs (release 2.9): of the chosen tokens 80 % become the mask vector, 10 % a
        random token of the batch, 10 % stay."""
        assert self.mask_token is not None
        chosen = torch.rand(tokens.shape[:2], device=tokens.device) < self.config.mask_rate
        fate = torch.rand(tokens.shape[:2], device=tokens.device)
        flat = tokens.detach().flatten(0, 1)
        shuffled = flat[torch.randperm(flat.shape[0], device=tokens.device)].view_as(tokens)
        masked = torch.where((chosen & (fate < 0.8))[..., None], self.mask_token.to(tokens.dtype), tokens)
        return torch.where((chosen & (fate >= 0.9))[..., None], shuffled, masked), chosen


def word_mask(
    input_ids: torch.Tensor, attention_mask: torch.Tensor | None, config: PreTrainedConfig
) -> torch.Tensor:
    """The given mask, or 1 for everything but padding (which other models' configs may not name)."""
    if attention_mask is not None:
        return attention_mask
    padding = config.pad_token_id
    return torch.ones_like(input_ids) if padding is None else (input_ids != padding).long()


def words_first(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask (batch, words) with padding on the left moved to the end."""
    first = (attention_mask > 0).int().argmax(dim=1, keepdim=True)
    places = (torch.arange(input_ids.shape[1], device=input_ids.device) + first) % input_ids.shape[1]
    return input_ids.gather(1, places), attention_mask.gather(1, places)


class VattTextPositionEmbeddings(VattAxialPositionEmbeddings):
    """Positions of words: the rows of the table, or for a text with more words than rows the table resampled
    to their number. They do not depend on padding."""

    def forward(self, attention_mask: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """(batch, words) mask -> positions (words, dim), or (batch, words, dim) beyond the table."""
        (table,) = self.tables.values()
        assert isinstance(table, VattPositionTable)
        num_rows, num_words = table.num_embeddings, attention_mask.shape[1]
        rows = table(num_rows)
        if num_words <= num_rows:
            return self.layer_norm(rows[:num_words])
        places = torch.arange(1, num_words + 1, device=attention_mask.device)
        lengths = torch.where(attention_mask > 0, places, 0).amax(1)
        matrices = length_matrices(num_rows, num_words).to(rows)
        return self.layer_norm(matrices[(lengths - num_rows).clamp(min=0)] @ rows)


class VattTextEmbeddings(nn.Module):
    """Word ids -> encoder input: word table, dense layer with activation, AGG token, and positions for the
    `"bert"` type. The AGG token of the `"t5"` type has word width and passes the dense layer as well."""

    def __init__(self, config: VattTextConfig) -> None:
        super().__init__()
        self.config = config
        self.is_t5 = config.encoder_type == "t5"
        self.word_embeddings = nn.Embedding(config.vocab_size, config.embedding_size)
        self.word_embeddings.weight.requires_grad_(config.trainable_embeddings)
        size = config.hidden_size
        self.pre_projection = VattLinear(config.embedding_size, size, bias=config.pre_projection_bias)
        self.activation = ACT2FN[config.projection_act]
        self.agg_token = nn.Parameter(torch.zeros(config.embedding_size if self.is_t5 else size))
        self.position_embeddings: nn.Module | None = None
        if not self.is_t5:
            self.position_embeddings = VattTextPositionEmbeddings(
                config.position_axes, size, config.position_layer_norm_eps
            )
        self.dropout = VattDropout(config.hidden_dropout_prob if self.is_t5 else config.position_dropout_prob)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, words) ids -> (batch, 1 + words, hidden_size). The mask (batch, words) is 1 for words,
        which come before padding; by default [`word_mask`]."""
        words = self.word_embeddings(input_ids)
        agg = self.agg_token.to(words.dtype).expand(words.shape[0], 1, -1)
        if self.position_embeddings is None:
            words = torch.cat([agg, words], dim=1)
            return self.dropout(self.activation(self.pre_projection(words)))
        words = self.activation(self.pre_projection(words))
        words = self.dropout(
            words + self.position_embeddings(word_mask(input_ids, attention_mask, self.config))
        )
        return torch.cat([agg.to(words.dtype), words], dim=1)
