# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Data of the analyses, collected by forward hooks in one pass of the clips.

Each modality is passed separately (paper A.4), for the clips that have it. Of several captions the first is
used.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from ..models.embeddings import words_first
from ..models.modeling_vatt import INPUT_NAMES, MODALITIES, VattFeaturesOutput, VattModel, VattPreTrainedModel


Place: TypeAlias = Literal["input", "pooled", "va", "vt"]


@dataclass
class Observation:
    """One modality of one batch.

    Args:
        modality: `"video"`, `"audio"` or `"text"`.
        rows: indices, over all batches, of the clips that have the modality, (n,).
        output: of the model for them.
        inputs: encoder input after tokenisation, (n, width), the mean over tokens without AGG and padding;
            None for towers without tokens (convolutional ones).
        mlp_sums: outputs of every layer's MLP, before dropout and residual sum, summed over clips and tokens,
            float64 of shape (layers, nodes); None without layers.
        mlp_count: number of (clip, token) pairs in these sums.
    """

    modality: str
    rows: npt.NDArray[np.int64]
    output: VattFeaturesOutput
    inputs: torch.Tensor | None
    mlp_sums: torch.Tensor | None
    mlp_count: int


class _Probe:
    """Hooks on one tower and its encoder, and their results for one forward pass. MLP outputs are summed at
    once, to save memory."""

    def __init__(self, base: VattModel, modality: str, tokens: str) -> None:
        self.agg_only = tokens == "agg"
        # (clips, 1 + words), 1 for AGG and words; patches are never padding
        self.mask: torch.Tensor | None = None
        self.inputs: torch.Tensor | None = None
        self.sums: list[torch.Tensor] = []
        self.count = 0
        tower: Any = getattr(base, f"{modality}_model")
        encoder = getattr(tower, "encoder", None) or (base.encoder if hasattr(tower, "embeddings") else None)
        self.handles = []
        if hasattr(tower, "embeddings"):
            self.handles.append(tower.embeddings.register_forward_hook(self.see_tokens))
        elif hasattr(tower, "word_embeddings"):
            self.handles.append(tower.word_embeddings.register_forward_hook(self.see_words))
        for layer in getattr(encoder, "layers", ()):
            self.handles.append(layer.mlp.register_forward_hook(self.see_mlp))

    def see_tokens(self, module: torch.nn.Module, args: Any, output: Any) -> None:
        tokens = output[0] if isinstance(output, tuple) else output
        self.see_words(module, args, tokens[:, 1:])

    def see_words(self, module: torch.nn.Module, args: Any, output: torch.Tensor) -> None:
        weights = (
            output.new_ones(output.shape[:2]) if self.mask is None else self.mask[:, 1:].to(output.dtype)
        )
        # The linear text tower also embeds padding, after the words.
        total = torch.einsum("bt,btd->bd", weights, output[:, : weights.shape[1]])
        self.inputs = total / weights.sum(1, keepdim=True).clamp(min=1)

    def see_mlp(self, module: torch.nn.Module, args: Any, output: torch.Tensor) -> None:
        if self.agg_only:
            output = output[:, 0]
        elif self.mask is not None:
            output = output[self.mask.bool()]
        rows = output.reshape(-1, output.shape[-1])
        self.sums.append(rows.sum(0, dtype=torch.float64))
        self.count = len(rows)

    def detach(self) -> None:
        for handle in self.handles:
            handle.remove()


@torch.no_grad()
def observe(
    model: VattPreTrainedModel,
    batches: Iterable[Mapping[str, torch.Tensor]],
    tokens: Literal["all", "agg"] = "all",
) -> Iterator[Observation]:
    """Run clips through a model, one modality at a time.

    Args:
        model: any VATT model in evaluation mode, on its device; a classifier has one modality.
        batches: inputs of the model, with `audio_mask` and `text_mask` where some clips lack sound or text.
        tokens: positions whose MLP outputs are summed: all but padding (AGG included), or AGG only.

    Yields:
        An [`Observation`] for every modality of every batch that the model and a clip have.

    Raises:
        ValueError: a model in training mode, which drops tokens.
    """
    if model.training:
        raise ValueError("`model` is in training mode, in which it drops tokens: call `model.eval()` before.")
    if tokens not in ("all", "agg"):
        raise ValueError(f'`tokens` must be "all" or "agg", got {tokens!r}.')
    base: Any = model.base_model
    first = 0
    for batch in batches:
        for modality in MODALITIES:
            name = INPUT_NAMES[modality]
            if name not in batch or getattr(base, f"{modality}_model") is None:
                continue
            values = batch[name]
            present = batch.get(f"{modality}_mask", torch.ones(len(values))).bool().cpu()
            # Of several captions the first is used.
            rows = (present[:, 0] if present.ndim == 2 else present).nonzero().flatten()
            if len(rows) == 0:
                continue
            probe = _Probe(base, modality, tokens)
            inputs = [values[rows]]
            if modality == "text":
                ids = inputs[0]
                mask = batch.get("attention_mask", (values != base.config.text_config.pad_token_id).long())
                inputs = [ids, mask[rows]]
                inputs = [value[:, 0] if value.ndim == 3 else value for value in inputs]
                inputs = list(words_first(*inputs))
                words = inputs[1].to(base.device)
                probe.mask = torch.cat([words.new_ones((len(words), 1)), words], dim=1)
            try:
                output = getattr(base, f"get_{modality}_features")(*(v.to(base.device) for v in inputs))
            finally:
                probe.detach()
            yield Observation(
                modality,
                first + rows.numpy(),
                output,
                probe.inputs,
                torch.stack(probe.sums) if probe.sums else None,
                probe.count,
            )
        first += _size(batch)


def _size(batch: Mapping[str, torch.Tensor]) -> int:
    return len(next(iter(batch.values())))


class ActivationMean:
    """Mean output of every MLP node, by layer and modality (paper Fig. 4), over any number of batches.

    The mean is signed and runs over clips and tokens; with `tokens="agg"` of [`observe`] over clips only.
    """

    def __init__(self) -> None:
        self._sums: dict[str, npt.NDArray[np.float64]] = {}
        self._counts: dict[str, int] = {}

    def add(self, observation: Observation) -> None:
        """Add one modality of one batch."""
        if observation.mlp_sums is None:
            return
        name = observation.modality
        self._sums[name] = self._sums.get(name, 0) + observation.mlp_sums.cpu().numpy()
        self._counts[name] = self._counts.get(name, 0) + observation.mlp_count

    def means(self) -> dict[str, npt.NDArray[np.float64]]:
        """Arrays (layers, nodes) by modality."""
        return {name: total / self._counts[name] for name, total in self._sums.items()}


@dataclass
class ClipFeatures:
    """Vectors of clips at four places of a model.

    Args:
        vectors: (place, modality) -> (clips, width), with NaN for clips that lack the modality. Places are
            `"input"` (encoder input, mean over tokens), `"pooled"` (output at AGG), and `"va"`, `"vt"` (the
            common spaces).
    """

    vectors: dict[tuple[Place, str], npt.NDArray[np.float32]] = field(default_factory=dict)

    def modalities(self, place: Place) -> list[str]:
        """Modalities that have vectors at a place."""
        return [name for name in MODALITIES if (place, name) in self.vectors]

    def common(
        self, place: Place, modalities: Sequence[str]
    ) -> tuple[list[npt.NDArray[np.float32]], npt.NDArray[np.int64]]:
        """Vectors of the clips that have all of some modalities, and the indices of these clips."""
        arrays = [self.vectors[place, name] for name in modalities]
        there = np.all([np.isfinite(array).all(axis=1) for array in arrays], axis=0)
        return [array[there] for array in arrays], np.flatnonzero(there)


def each_space(
    models: Mapping[str, ClipFeatures], spaces: Mapping[str, tuple[Place, tuple[str, ...]]]
) -> Iterator[tuple[str, str, list[npt.NDArray[np.float32]], npt.NDArray[np.int64]]]:
    """(model, space, vectors of its modalities, indices of their clips) for the existing `spaces` (title ->
    place and modalities)."""
    for model, features in models.items():
        for space, (place, modalities) in spaces.items():
            if set(modalities) <= set(features.modalities(place)):
                yield model, space, *features.common(place, modalities)


def extract_features(
    model: VattPreTrainedModel,
    batches: Iterable[Mapping[str, torch.Tensor]],
    activations: ActivationMean | None = None,
    tokens: Literal["all", "agg"] = "all",
) -> ClipFeatures:
    """Vectors of all clips, in order; `activations` get the MLP outputs of the same pass. Other arguments as
    of [`observe`]; all batches have the same modalities."""
    parts: dict[tuple[Place, str], list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]] = {}
    total = 0

    def counted() -> Iterator[Mapping[str, torch.Tensor]]:
        nonlocal total
        for batch in batches:
            total += _size(batch)
            yield batch

    for seen in observe(model, counted(), tokens):
        if activations is not None:
            activations.add(seen)
        found: dict[Place, torch.Tensor | None] = {
            "input": seen.inputs,
            "pooled": seen.output.pooler_output,
            "va": seen.output.va_embeds,
            "vt": seen.output.vt_embeds,
        }
        for place, values in found.items():
            if values is None:
                continue
            piece = values.float().cpu().numpy()
            parts.setdefault((place, seen.modality), []).append((seen.rows, piece))
    vectors = {}
    for key, pieces in parts.items():
        vectors[key] = np.full((total, pieces[0][1].shape[-1]), np.nan, dtype=np.float32)
        for rows, piece in pieces:
            vectors[key][rows] = piece
    return ClipFeatures(vectors)
