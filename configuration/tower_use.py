# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""How a tower is used: the settings of `VattConfig.towers`."""

from dataclasses import asdict, dataclass
from typing import Any

from transformers import PreTrainedConfig


TOWER_KINDS = {"video": ("image", "video"), "audio": ("audio",), "text": ("text",)}
POOLINGS = ("pooler", "first", "mean")


@dataclass
class VattTowerUse:
    r"""Use of one tower; only `locked`, `projection` and `centres` are for VATT's own towers too.

    Args:
        locked (`bool` or `int`): True for the whole tower, n for its first n blocks.
        projection (`str`): between the pooled feature and the head: `"none"`, or `"mlp"` (residual: linear,
            GELU, linear). With `"linear"` the joint head is only a dense layer for this tower, without ReLU
            and batch norm. `"kernel"` (of [`fit_projections`]) is a Gaussian kernel and a dense layer, which
            are not trained.
        centres (`int`): number of centres of `"kernel"`.
        kind (`str`): `"image"` (a model of single pictures, for every frame), `"video"`, `"audio"` or
            `"text"`.
        pooling (`str`): `"pooler"` (the model's own `pooler_output`), `"first"` (its first token) or `"mean"`
            (over the tokens that are not padding).
        output_size (`int`): width of the pooled feature.
        num_frames (`int`): frames of the reference clip; video.
        temporal_layers (`int`): blocks of a Transformer over the features of the frames; `"image"`.
        filled (`float`): share of the positions with sound, if a model needs longer input than the window;
            audio, `"mean"`.
        use_attention_mask (`bool`): False for models trained without it (SigLIP); text.
        padding_id (`int`): fill captions up to all positions with this id, as such models were trained; the
            processor's is set when it is made.
        train_batch_norm (`bool`): batch norms use and average the statistics of the batch in training, as a
            model with random weights needs; otherwise always those of the checkpoint.
    """

    locked: bool | int = False
    projection: str = "none"
    centres: int = 0
    kind: str | None = None
    pooling: str | None = None
    output_size: int | None = None
    num_frames: int = 4
    temporal_layers: int = 0
    filled: float = 1.0
    use_attention_mask: bool = True
    padding_id: int | None = None
    train_batch_norm: bool = False

    @classmethod
    def read(cls, modality: str, settings: dict[str, Any]) -> "VattTowerUse":
        """From the config; ValueError, with the place in it, for unknown settings and values out of range."""
        where = f"`towers[{modality!r}]`"
        known = cls.__dataclass_fields__
        if unknown := set(settings) - set(known):
            raise ValueError(f"{where} has no {', '.join(sorted(unknown))}: use {', '.join(known)}.")
        for field, value in settings.items():
            kind: Any = known[field].type
            if not isinstance(value, (int, float) if kind is float else kind):
                raise ValueError(
                    f"{where}: `{field}` must be {getattr(kind, '__name__', kind)}, got {value!r}."
                )
        use = cls(**settings)
        choices = {"projection": ("none", "mlp", "linear", "kernel"), "pooling": (None, *POOLINGS)}
        choices["kind"] = (None, *TOWER_KINDS[modality])
        for field, allowed in choices.items():
            if getattr(use, field) not in allowed:
                raise ValueError(f"{where}: `{field}` must be one of {allowed}, got {getattr(use, field)!r}.")
        if use.locked < 0 or use.temporal_layers < 0 or use.num_frames < 1 or not 0 < use.filled <= 1:
            raise ValueError(
                f"{where}: `locked` and `temporal_layers` must not be negative, `num_frames` positive and "
                f"`filled` in (0, 1], got {settings}."
            )
        if (use.projection == "kernel") != (use.centres > 0):
            raise ValueError(
                f'{where}: `centres` ({use.centres}) belongs to `projection="kernel"`, and `fit_projections` '
                "makes both; set neither."
            )
        if use.temporal_layers and use.kind != "image":
            raise ValueError(f'{where}: `temporal_layers` need `kind="image"`.')
        return use

    def settings(self) -> dict[str, Any]:
        """Settings that differ from the defaults, for the config."""
        default = asdict(type(self)())
        return {name: value for name, value in asdict(self).items() if value != default[name]}


class VattRemoteConfig(PreTrainedConfig):
    """Config of a tower whose code comes with the checkpoint, before that code is trusted."""

    model_type = "vatt_remote"

    content: dict | None = None

    def to_dict(self) -> dict[str, Any]:
        """The config as it was read."""
        return {"transformers_version": None, **(self.content or {})}  # the caller removes the key
