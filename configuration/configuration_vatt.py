# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""VATT configurations: one per tower, and the composed [`VattConfig`].

Defaults are the official ones (release configs `ViTBase`, `WaTBase`/`SpTBase`, `T5Small`, `FACBridge`,
`AsymmetricNCE`); `docs/configuration.md` maps every official hyper-parameter to its place here.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, PreTrainedConfig

from .tower_use import VattRemoteConfig, VattTowerUse


_ENCODER_SIZE_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "head_dim",
)
_ENCODER_SIZES: dict[str, tuple[int, int, int, int, int]] = {  # in the order of these fields
    "tiny": (128, 384, 4, 4, 32),
    "small": (512, 2048, 6, 8, 64),
    "base": (768, 3072, 12, 12, 64),
    "medium": (1024, 4096, 12, 16, 64),
    "large": (1024, 4096, 24, 16, 64),
    "xlarge": (1536, 4096, 24, 24, 64),
}
# Presets: sizes of the video, audio and text towers; size of the shared encoder.
_SPECIFIC_PRESETS = {
    "bbs": ("base", "base", "small"),
    "mbs": ("medium", "base", "small"),
    "lbs": ("large", "base", "small"),
}
_AGNOSTIC_PRESETS = {"ma_base": "base", "ma_medium": "medium", "ma_large": "large"}
_TOWERS = ("video_config", "audio_config", "text_config")
# Fields that must be equal in the towers of a modality-agnostic model, which share one encoder.
_SHARED_ENCODER_FIELDS = (
    *_ENCODER_SIZE_FIELDS,
    "hidden_act",
    "pre_norm",
    "use_bias",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "layer_norm_eps",
)
# Fields around that encoder for each tower.
_PROJECTIONS: dict[str, Any] = {"use_pre_projection": True, "use_post_projection": True}
_AROUND_SHARED_ENCODER: dict[str, dict[str, Any]] = {
    "video_config": _PROJECTIONS,
    "audio_config": _PROJECTIONS,
    "text_config": {**_PROJECTIONS, "encoder_type": "bert", "pre_projection_bias": True},
}
# Further fields that a derived tower copies.
_DERIVED_FIELDS = ("position_dropout_prob", "position_layer_norm_eps", "projection_size", "projection_act")


def encoder_size(name: str) -> dict[str, int]:
    """Encoder fields of an official size (paper Table 7; `tiny` is ours, for laptops and tests).

    Raises:
        ValueError: if `name` is not one of tiny, small, base, medium, large, xlarge.
    """
    if name not in _ENCODER_SIZES:
        raise ValueError(f"Unknown encoder size {name!r}: choose one of {', '.join(_ENCODER_SIZES)}.")
    return dict(zip(_ENCODER_SIZE_FIELDS, _ENCODER_SIZES[name], strict=True))


@strict
class VattTowerConfig(PreTrainedConfig):
    r"""Fields that all three towers have in common. Not used on its own.

    Args:
        hidden_size (`int`): width of the encoder.
        num_hidden_layers (`int`): number of encoder blocks.
        num_attention_heads (`int`): attention heads of a block.
        head_dim (`int`): width of one head; `num_attention_heads * head_dim` need not equal `hidden_size`.
        intermediate_size (`int`): width inside the MLP.
        hidden_act (`str`): `"gelu"` (exact), `"relu"`, `"silu"` or `"geglu"` (gated GELU).
        pre_norm (`bool`): LayerNorm before (True) or after (False) attention and MLP.
        use_bias (`bool`): biases in attention and MLP.
        hidden_dropout_prob (`float`): dropout on attention output, MLP hidden units, MLP output and the
            normalised encoder output.
        attention_probs_dropout_prob (`float`): dropout on attention weights.
        position_dropout_prob (`float`): dropout after positions were added (fixed to 0.1 in the release).
        layer_norm_eps (`float`): epsilon of the encoder's norms.
        position_layer_norm_eps (`float`): epsilon of the norm on the position sum (fixed in the release).
        use_pre_projection (`bool`): dense layer + activation before the encoder (agnostic origin).
        use_post_projection (`bool`): dense layer + activation on every encoder output (agnostic origin).
        projection_size (`int`): width after the post-projection.
        projection_act (`str`): activation of both projections: `"gelu"`, `"relu"` or `"silu"`.
        classifier_dropout (`float`): dropout before a classification layer.
        freeze_backbone (`bool`): train only the classification layer of a classifier.
    """

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    head_dim: int = 64
    intermediate_size: int = 3072
    hidden_act: Literal["gelu", "relu", "silu", "geglu"] = "gelu"
    pre_norm: bool = True
    use_bias: bool = True
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    position_dropout_prob: float | int = 0.1
    layer_norm_eps: float = 1e-6
    position_layer_norm_eps: float = 1e-6
    use_pre_projection: bool = False
    use_post_projection: bool = False
    projection_size: int = 1024
    projection_act: Literal["gelu", "relu", "silu"] = "gelu"
    classifier_dropout: float | int = 0.0
    freeze_backbone: bool = False

    @property
    def output_size(self) -> int:
        """Width of the pooled feature that the tower hands to the heads."""
        return self.projection_size if self.use_post_projection else self.hidden_size

    @classmethod
    def from_size(cls, name: str, **kwargs: Any) -> "VattTowerConfig":
        """Config with the encoder of an official size, e.g. `VattVideoConfig.from_size("medium")`."""
        return cls(**{**encoder_size(name), **kwargs})

    def validate_architecture(self) -> None:
        """Part of `@strict` validation: sizes, shares and rates lie in their range."""
        for field in (
            "hidden_dropout_prob",
            "attention_probs_dropout_prob",
            "position_dropout_prob",
            "classifier_dropout",
            "drop_token_rate",
            "mask_rate",
        ):
            if not 0 <= getattr(self, field, 0) < 1:
                raise ValueError(f"`{field}` must be in [0, 1), got {getattr(self, field)}.")
        for field in (*_ENCODER_SIZE_FIELDS, "projection_size"):
            if field != "num_hidden_layers" and getattr(self, field) < 1:
                raise ValueError(f"`{field}` must be positive, got {getattr(self, field)}.")
        if self.hidden_act == "geglu" and not self.pre_norm:
            raise ValueError('`hidden_act="geglu"` is offered for pre-norm encoders only.')


@strict
class VattMediaConfig(VattTowerConfig):
    r"""Common fields of the video and audio towers: DropToken and masking, or the convolutional network of
    the MMV baseline instead of the Transformer. Not used on its own.

    Args:
        encoder_type (`str`): `"transformer"`, or a convolutional network (see the subclasses), for which the
            fields of the Transformer have no effect.
        drop_token_rate (`float`): share of tokens DROPPED in training (1 - official `patch_sampling_rate`);
            0 switches DropToken off.
        use_input_masking (`bool`): replace a share of the patch embeddings in training (release 2.9; no
            loss of the release uses it).
        mask_rate (`float`): that share.
        width_multiplier (`float`): factor on all channel counts of a convolutional network, a multiple of
            1/8.
        batch_norm_momentum (`float`): of a convolutional network: share of the new statistic in the running
            one (PyTorch's meaning; 1 - the release's 0.9).
        batch_norm_eps (`float`): epsilon of its batch norms.
        sync_batch_norm (`bool`): its batch statistics are those of all processes.
    """

    _last_channels: ClassVar[int]  # of the convolutional network at width 1

    encoder_type: str = "transformer"
    drop_token_rate: float | int = 0.5
    use_input_masking: bool = False
    mask_rate: float = 0.2
    width_multiplier: float | int = 1.0
    batch_norm_momentum: float = 0.1
    batch_norm_eps: float = 1e-5
    sync_batch_norm: bool = True

    @property
    def is_convolutional(self) -> bool:
        """Whether the tower is a convolutional network."""
        return self.encoder_type != "transformer"

    @property
    def output_size(self) -> int:
        """Width of the pooled feature that the tower hands to the heads."""
        return self.scaled_channels(self._last_channels) if self.is_convolutional else super().output_size

    def scaled_channels(self, count: int) -> int:
        """Channels of a convolution that has `count` at width 1."""
        return round(count * self.width_multiplier)

    def validate_convolutions(self) -> None:
        """Part of `@strict` validation: widths are whole numbers, and no field needs tokens."""
        if self.width_multiplier <= 0 or self.width_multiplier * 8 % 1:
            raise ValueError(
                f"`width_multiplier` must be a positive multiple of 1/8, got {self.width_multiplier}."
            )
        for field in ("drop_token_rate", "use_input_masking", "use_pre_projection", "use_post_projection"):
            if self.is_convolutional and getattr(self, field):
                raise ValueError(
                    f"`{field}` is for Transformers: set it to {type(getattr(self, field))(0)} with "
                    f'`encoder_type="{self.encoder_type}"`.'
                )


@strict
class VattVideoConfig(VattMediaConfig):
    r"""
    Configuration of the video tower (release `ViT*`, or `I3D`); the defaults are ViT-Base.

    Args:
        encoder_type (`str`): `"transformer"`, or `"i3d"` for the MMV baseline: `VattVideoConfig.i3d()`.
        num_frames (`int`): frames of the reference clip; `num_frames // tubelet_size` temporal positions.
        image_size (`int`): side of the (square) reference frame in pixels.
        num_channels (`int`): colour channels.
        tubelet_size (`int`): frames of a patch.
        patch_size (`int`): height and width of a patch in pixels.

    Other arguments: see [`VattMediaConfig`] and [`VattTowerConfig`].

    ```python
    >>> from modeling_vatt import VattVideoConfig

    >>> VattVideoConfig.from_size("medium").hidden_size
    1024
    ```
    """

    model_type = "vatt_video_model"
    base_config_key = "video_config"
    _last_channels = 1024

    encoder_type: Literal["transformer", "i3d"] = "transformer"
    num_frames: int = 32
    image_size: int = 224
    num_channels: int = 3
    tubelet_size: int = 4
    patch_size: int = 16
    classifier_dropout: float | int = 0.5

    @classmethod
    def i3d(cls, **kwargs: Any) -> "VattVideoConfig":
        """The release's `I3D`, 1024 wide: its config asks for `width_multiplier=2`, its code ignores it."""
        return cls(**{"encoder_type": "i3d", "drop_token_rate": 0.0, **kwargs})

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """Extent of a patch along (time, height, width)."""
        return (self.tubelet_size, self.patch_size, self.patch_size)

    @property
    def position_axes(self) -> dict[str, int]:
        """Position tables (name -> rows), slowest axis of the token order first."""
        side = self.image_size // self.patch_size
        return {"temporal": self.num_frames // self.tubelet_size, "vertical": side, "horizontal": side}

    def validate_sizes(self) -> None:
        """Part of `@strict` validation: the reference clip holds at least one patch."""
        if not self.is_convolutional and min(self.position_axes.values()) < 1:
            raise ValueError(
                f"A clip of {self.num_frames} frames of {self.image_size} px holds no patch of "
                f"{self.tubelet_size} frames x {self.patch_size} px: enlarge `num_frames`/`image_size`."
            )


@strict
class VattAudioConfig(VattMediaConfig):
    r"""
    Configuration of the audio tower: waveform (release `WaT*`, default) or log-mel spectrogram (`SpT*`, or
    `Resnet2D50`).

    Args:
        encoder_type (`str`): `"transformer"`, or `"resnet50"` or `"resnet101"` for the MMV baseline, which
            takes spectrograms: `VattAudioConfig.resnet()`.
        input_type (`str`): `"waveform"` or `"spectrogram"`.
        num_samples (`int`): samples of the reference clip (3.2 s at 48 kHz); waveform only.
        patch_size (`int`): samples of a waveform patch.
        spectrogram_length (`int`): spectrogram frames of the reference clip.
        num_mel_bins (`int`): mel bins.
        spectrogram_patch_size (`list[int]`): (frames, mel bins) of a spectrogram patch.
        drop_token_rate (`float`): share of tokens dropped in training; waveform only (the release has no
            DropToken for spectrograms).

    The release's `SpT*` towers have no biases in attention and MLP: use
    `VattAudioConfig.spectrogram("base")`. Other arguments: see [`VattMediaConfig`] and [`VattTowerConfig`].
    """

    model_type = "vatt_audio_model"
    base_config_key = "audio_config"
    _last_channels = 2048

    encoder_type: Literal["transformer", "resnet50", "resnet101"] = "transformer"
    input_type: Literal["waveform", "spectrogram"] = "waveform"
    num_samples: int = 153600
    patch_size: int = 128
    spectrogram_length: int = 150
    num_mel_bins: int = 80
    spectrogram_patch_size: list[int] | tuple[int, ...] = (16, 5)

    @classmethod
    def spectrogram(cls, size: str = "base", **kwargs: Any) -> "VattAudioConfig":
        """Spectrogram tower of an official size: no biases, no DropToken (release `SpT*`)."""
        defaults = {"input_type": "spectrogram", "use_bias": False, "drop_token_rate": 0.0}
        return cls(**{**encoder_size(size), **defaults, **kwargs})

    @classmethod
    def resnet(cls, depth: Literal[50, 101] = 50, **kwargs: Any) -> "VattAudioConfig":
        """The release's `Resnet2D50` or `Resnet2D101` on log-mel spectrograms, 2048 wide."""
        defaults = {"encoder_type": f"resnet{depth}", "input_type": "spectrogram", "drop_token_rate": 0.0}
        return cls(**{**defaults, **kwargs})

    @property
    def num_channels(self) -> int:
        """Channels of a patch: sound is mono."""
        return 1

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """Extent of a patch: (samples,) or (spectrogram frames, mel bins)."""
        if self.input_type == "waveform":
            return (self.patch_size,)
        frames, bins = self.spectrogram_patch_size
        return (frames, bins)

    @property
    def position_axes(self) -> dict[str, int]:
        """Position tables (name -> rows) in the order of the release's ids. For spectrograms this is
        mel-slowest although tokens are time-slowest, as in the release's `SpectroTemporalEmbeddings`."""
        if self.input_type == "waveform":
            return {"temporal": self.num_samples // self.patch_size}
        frames, bins = self.spectrogram_patch_size
        return {"spectral": self.num_mel_bins // bins, "temporal": self.spectrogram_length // frames}

    def validate_sizes(self) -> None:
        """Part of `@strict` validation: the reference sound holds at least one patch."""
        if self.input_type == "spectrogram" and len(self.spectrogram_patch_size) != 2:
            raise ValueError("`spectrogram_patch_size` must be (frames, mel bins).")
        if self.is_convolutional and self.input_type != "spectrogram":
            raise ValueError('A ResNet takes spectrograms: set `input_type="spectrogram"`.')
        if not self.is_convolutional and min(self.position_axes.values()) < 1:
            raise ValueError(
                f"The reference sound holds no patch of shape {self.patch_shape}: raise `num_samples`."
            )
        if self.input_type == "spectrogram" and self.drop_token_rate:
            raise ValueError("DropToken is for waveforms: set `drop_token_rate=0` for spectrograms.")


@strict
class VattTextConfig(VattTowerConfig):
    r"""
    Configuration of the text tower; the defaults are the release's `T5Small`.

    Args:
        encoder_type (`str`): `"t5"` (relative bias, RMS norm before attention, no biases, unscaled scores),
            `"bert"` (absolute positions and the encoder of the other towers; the agnostic model's text
            branch) or `"linear"` (1x1 convolution, ReLU, maximum over words).
        vocab_size (`int`): words.
        embedding_size (`int`): width of the word table.
        trainable_embeddings (`bool`): whether the word table is trained; the release freezes word2vec.
        pre_projection_bias (`bool`): bias of the dense layer from `embedding_size` to `hidden_size`; only
            the agnostic model has one.
        max_position_embeddings (`int`): words of the reference text, and rows of the position table of
            `"bert"`.
        relative_attention_num_buckets, relative_attention_max_distance (`int`): buckets of the relative
            bias of `"t5"`.
        pad_token_id (`int`): id of padding; masked without an `attention_mask`.

    `use_pre_projection` has no effect, as text always has one. Other arguments: see [`VattTowerConfig`].
    """

    model_type = "vatt_text_model"
    base_config_key = "text_config"

    hidden_size: int = 512
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    intermediate_size: int = 2048

    encoder_type: Literal["t5", "bert", "linear"] = "t5"
    vocab_size: int = 65536
    embedding_size: int = 300
    trainable_embeddings: bool = False
    pre_projection_bias: bool = False
    max_position_embeddings: int = 16
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 64
    pad_token_id: int | None = 0

    @property
    def position_axes(self) -> dict[str, int]:
        """Position tables (name -> rows) of the `"bert"` type."""
        return {"temporal": self.max_position_embeddings}

    @classmethod
    def linear(cls, **kwargs: Any) -> "VattTextConfig":
        """The release's `LinearModel`: 2048 wide, no Transformer."""
        return cls(**{"encoder_type": "linear", "hidden_size": 2048, "num_hidden_layers": 0, **kwargs})


@strict
class VattConfig(PreTrainedConfig):
    r"""
    Configuration of [`VattModel`]: three towers, the common-space head and the contrastive loss.

    Args:
        video_config ([`VattVideoConfig`], another model's config or `dict`): video tower. With a `model_type`
            of transformers (or an `auto_map`, for code that comes with a checkpoint) the tower is that model.
        audio_config ([`VattAudioConfig`], another model's config or `dict`): audio tower.
        text_config ([`VattTextConfig`], another model's config or `dict`): text tower.
        towers (`dict`): how towers are used: name (`"video"`, `"audio"`, `"text"`) -> fields of
            [`VattTowerUse`].
        modality_agnostic (`bool`): one encoder shared by the three towers (release `ut_fac`). The encoder
            fields of the three configs must then agree; towers left out are derived from `video_config`.
        head_type (`str`): `"fac"` (fine and coarse: video-audio space, and a video-text space computed from
            it) or `"joint"` (one space).
        va_projection_size (`int`): width of the video-audio space (and of the joint space).
        vt_projection_size (`int`): width of the video-text space; must equal `va_projection_size` for
            `"joint"`.
        batch_norm_momentum (`float`): share of the new statistic in the running one (PyTorch's meaning;
            1 - the release's 0.9).
        batch_norm_eps (`float`): epsilon of the heads' batch norms.
        sync_batch_norm (`bool`): batch statistics over all processes (release `use_xreplica_bn`).
        loss_type (`str`): `"asymmetric"` (the release's default) or `"symmetric"` NCE;
            `"asymmetric_learned"` or `"symmetric_learned"`, the same with a learned temperature; `"sigmoid"`
            (SigLIP) with a learned temperature and bias.
        temperature (`float`): similarities are divided by it; the initial value if it is learned.
        loss_bias (`float`): initial bias of `"sigmoid"`.
        mask_false_negatives (`bool`): clips with an equal caption (in losses of text) and, if the model gets
            `video_ids`, clips of the same video are no negatives of each other.
        false_negative_similarity (`float`, *optional*): sounds or texts whose cosine with the mean of a
            clip's is larger are no negatives of it.
        video_text_loss_weight, video_audio_loss_weight, audio_text_loss_weight (`float`): weights of the
            three terms; audio-text needs the joint head.
        loss_reduction (`str`): `"mean"` divides the weighted sum of the terms by the weights (release),
            `"sum"` does not (paper).
        label_balancing (`bool`): weight clips of a multi-label classifier by the rarity of their labels
            (release, AudioSet).

    ```python
    >>> from modeling_vatt import VattConfig

    >>> config = VattConfig.from_preset("mbs")  # Medium video, Base audio, Small text
    >>> config.video_config.hidden_size, config.audio_config.hidden_size, config.text_config.hidden_size
    (1024, 768, 512)
    ```
    """

    model_type = "vatt"
    sub_configs_defaults = {
        "video_config": VattVideoConfig,
        "audio_config": VattAudioConfig,
        "text_config": VattTextConfig,
    }
    # Of the pretraining model Trainer gathers the embeddings: (video_va, audio_va, video_vt, text_vt).
    keys_to_ignore_at_inference = [
        "video_audio_loss",
        "video_text_loss",
        "audio_text_loss",
        "logits_video_audio",
        "logits_video_text",
        "video_model_output",
        "audio_model_output",
        "text_model_output",
    ]

    video_config: dict | PreTrainedConfig | None = None
    audio_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    towers: dict | None = None
    modality_agnostic: bool = False
    head_type: Literal["fac", "joint"] = "fac"
    va_projection_size: int = 512
    vt_projection_size: int = 256
    batch_norm_momentum: float = 0.1
    batch_norm_eps: float = 1e-5
    sync_batch_norm: bool = True
    loss_type: Literal["asymmetric", "symmetric", "asymmetric_learned", "symmetric_learned", "sigmoid"] = (
        "asymmetric"
    )
    temperature: float = 0.07
    loss_bias: float = -10.0
    mask_false_negatives: bool = False
    false_negative_similarity: float | None = None
    video_text_loss_weight: float | int = 1.0
    video_audio_loss_weight: float | int = 1.0
    audio_text_loss_weight: float | int = 0.0
    loss_reduction: Literal["mean", "sum"] = "mean"
    label_balancing: bool = False

    @property
    def num_frames(self) -> int:
        """Frames of a clip, where transformers' video-classification pipeline looks for them."""
        return self.video_config.num_frames if not self.is_foreign("video") else self.use("video").num_frames

    def use(self, name: str) -> VattTowerUse:
        """How a tower is used. Change it with [`~VattConfig.set_use`]."""
        return VattTowerUse.read(name, (self.towers or {}).get(name, {}))

    def set_use(self, name: str, **settings: Any) -> None:
        """Change how a tower is used."""
        fields = VattTowerUse.read(name, {**(self.towers or {}).get(name, {}), **settings}).settings()
        self.towers = {**(self.towers or {}), name: fields}

    def is_foreign(self, name: str) -> bool:
        """Whether a tower is another model than VATT's own."""
        return not isinstance(getattr(self, f"{name}_config"), VattTowerConfig)

    def output_size(self, name: str) -> int:
        """Width of the pooled feature of a tower."""
        tower = getattr(self, f"{name}_config")
        if isinstance(tower, VattTowerConfig):
            return tower.output_size
        fields = ("projection_size", "hidden_size", "d_model")
        for size in (self.use(name).output_size, *(getattr(tower, field, None) for field in fields)):
            if isinstance(size, int):
                return size
        raise ValueError(
            f"`{name}_config` ({tower.model_type}) does not say how wide its features are: set "
            f"`towers={{{name!r}: {{'output_size': ...}}}}`."
        )

    def head_input_size(self, name: str) -> int:
        """Width of a tower's input to the joint head."""
        return self.use(name).centres or self.output_size(name)

    @property
    def loss_weights(self) -> dict[str, float]:
        """Pairs of modalities that have a loss, and its weight."""
        weights = {
            "video_audio": self.video_audio_loss_weight,
            "video_text": self.video_text_loss_weight,
            "audio_text": self.audio_text_loss_weight,
        }
        return {pair: weight for pair, weight in weights.items() if weight}

    def __post_init__(self, **kwargs: Any) -> None:
        for key, spec in self.sub_configs_defaults.items():
            setattr(self, key, _foreign_config(key, getattr(self, key), spec.config_class))
        for name in self.towers or {}:
            if f"{name}_config" not in _TOWERS:
                raise ValueError(f"`towers` has settings of {name!r}: name video, audio or text.")
            self.use(name)
        if self.modality_agnostic:
            self._complete_agnostic()
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """See transformers; what `towers` names is changed, as with dicts of the towers' configs."""
        saved = config_dict.get("towers") or {}
        changed = {name: {**saved.get(name, {}), **use} for name, use in (kwargs.get("towers") or {}).items()}
        if changed:
            kwargs["towers"] = {**saved, **changed}
        return super().from_dict(config_dict, **kwargs)

    def to_diff_dict(self) -> dict[str, Any]:
        """See transformers; configs of other models are written completely."""
        plain, whole = copy.copy(self), self.to_dict()
        foreign = [key for key in _TOWERS if not isinstance(getattr(self, key), VattTowerConfig | None)]
        for key in foreign:
            setattr(plain, key, self.sub_configs[key]())
        return {**PreTrainedConfig.to_diff_dict(plain), **{key: whole[key] for key in foreign}}

    def _complete_agnostic(self) -> None:
        """Set the fields that a shared encoder requires, and derive missing towers."""
        for key in _TOWERS:
            value = getattr(self, key)
            if isinstance(value, PreTrainedConfig) and not isinstance(value, VattTowerConfig):
                raise ValueError(
                    f"The towers of a modality-agnostic model share an encoder, but `{key}` is a "
                    f"{value.model_type}: leave `modality_agnostic` out."
                )
            fields = value if isinstance(value, dict | None) else value.to_dict()
            kind = (fields or {}).get("encoder_type", "transformer")
            if key != "text_config" and kind != "transformer":
                raise ValueError(
                    "The towers of a modality-agnostic model share a Transformer, but "
                    f'`{key}.encoder_type` is "{kind}": set it to "transformer".'
                )
        video = self.video_config if self.video_config is not None else {}
        reference = VattVideoConfig(**video) if isinstance(video, dict) else video
        shared = {field: getattr(reference, field) for field in (*_SHARED_ENCODER_FIELDS, *_DERIVED_FIELDS)}
        for key, fields in _AROUND_SHARED_ENCODER.items():
            value = getattr(self, key)
            if isinstance(value, PreTrainedConfig):
                value = copy.deepcopy(value)  # the caller's config stays as it is
                for field, wanted in fields.items():
                    setattr(value, field, wanted)
                setattr(self, key, value)
            else:
                setattr(self, key, {**(shared if value is None else value), **fields})

    def validate_agnostic(self) -> None:
        """Part of `@strict` validation: towers with a shared encoder have equal encoder fields."""
        if not self.modality_agnostic:
            return
        locked = {name: self.use(name).locked for name in ("video", "audio", "text")}
        if len(set(locked.values())) > 1:
            raise ValueError(
                "The towers of a modality-agnostic model share an encoder, but `locked` in `towers` is "
                f"{locked}: lock all three or none."
            )
        for key, fields in _AROUND_SHARED_ENCODER.items():
            for field, wanted in fields.items():
                if getattr(getattr(self, key), field) != wanted:
                    raise ValueError(f"A modality-agnostic model needs `{key}.{field}={wanted!r}`.")
        for key in ("audio_config", "text_config"):
            for field in _SHARED_ENCODER_FIELDS:
                ours, theirs = getattr(getattr(self, key), field), getattr(self.video_config, field)
                if ours != theirs:
                    raise ValueError(
                        f"A modality-agnostic model has one encoder, but `{key}.{field}` is {ours} and "
                        f"`video_config.{field}` is {theirs}: make them equal."
                    )

    def validate_towers(self) -> None:
        """Part of `@strict` validation: the towers' own rules, also for changed fields."""
        for key in self.sub_configs:
            getattr(self, key).validate()

    def validate_head(self) -> None:
        """Part of `@strict` validation: head and loss fit together."""
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"`temperature` must be positive, got {self.temperature}.")
        if not math.isfinite(self.loss_bias):
            raise ValueError(f"`loss_bias` must be finite, got {self.loss_bias}.")
        if self.false_negative_similarity is not None and not 0 < self.false_negative_similarity < 1:
            raise ValueError(
                f"`false_negative_similarity` must lie between 0 and 1, got {self.false_negative_similarity}."
            )
        for name in self.towers or {}:
            projection = self.use(name).projection
            if projection in ("linear", "kernel") and self.head_type != "joint":
                raise ValueError(f'`projection="{projection}"` of {name} needs `head_type="joint"`: set it.')
        if self.head_type == "joint" and self.va_projection_size != self.vt_projection_size:
            raise ValueError("The joint head has one space: set `vt_projection_size=va_projection_size`.")
        if self.audio_text_loss_weight and self.head_type != "joint":
            raise ValueError('`audio_text_loss_weight` needs `head_type="joint"`: FAC has no such space.')
        weights = (self.video_text_loss_weight, self.video_audio_loss_weight, self.audio_text_loss_weight)
        if not all(0 <= weight < math.inf for weight in weights) or sum(weights) == 0:
            raise ValueError(f"Loss weights must be non-negative and not all zero, got {weights}.")

    @classmethod
    def check_fields(cls, given: Mapping[str, Any]) -> None:
        """Raise TypeError for what is no field, also of a tower that is a dict: configs keep and save
        whatever they are given, be it misspelt and without effect, or a token."""
        unknown = [name for name in given if not _is_field(cls, name)]
        for key, fields in cls._own_towers(given).items():
            tower = cls.sub_configs_defaults[key].config_class
            unknown += [f"{key}.{name}" for name in fields if not _is_field(tower, name)]
        if unknown:
            raise TypeError(f"{cls.__name__} has no field {', '.join(unknown)}. Check the name.")

    @classmethod
    def _own_towers(cls, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The towers of VATT that are dicts."""
        kinds = {key: (None, own.config_class.model_type) for key, own in cls.sub_configs_defaults.items()}
        towers = {key: given[key] for key in kinds if isinstance(given.get(key), dict)}
        return {key: fields for key, fields in towers.items() if fields.get("model_type") in kinds[key]}

    @classmethod
    def from_preset(cls, name: str, **kwargs: Any) -> "VattConfig":
        """Config of a named model.

        `"bbs"`, `"mbs"`, `"lbs"` (modality-specific, video-audio-text sizes; the release's `tx_fac`),
        `"ma_base"`, `"ma_medium"`, `"ma_large"` (modality-agnostic; `ut_fac`), `"mmv"` (the convolutional
        baseline of I3D, ResNet-50 on log-mel spectrograms and linear text; `mmv_fac`), `"tiny"`, `"ma_tiny"`
        and `"mmv_tiny"` (ours: 64 px, 16 kHz, made to be trained on a laptop).

        Args:
            name: see above.
            kwargs: fields that differ; a dict for a tower (`video_config={"drop_token_rate": 0.0}`) changes
                the fields that it names, unless it is another model's.

        Raises:
            ValueError: for an unknown name.
            TypeError: for an unknown field.
        """
        cls.check_fields(kwargs)
        preset: dict[str, Any]
        if name in _SPECIFIC_PRESETS:
            preset = dict(zip(_TOWERS, map(encoder_size, _SPECIFIC_PRESETS[name]), strict=True))
        elif name in _AGNOSTIC_PRESETS:
            preset = {key: encoder_size(_AGNOSTIC_PRESETS[name]) for key in _TOWERS}
            preset["modality_agnostic"] = True
        elif name in ("tiny", "ma_tiny"):
            preset = _tiny_preset(agnostic=name == "ma_tiny")
        elif name == "mmv":
            towers = (VattVideoConfig.i3d(), VattAudioConfig.resnet(), VattTextConfig.linear())
            preset = dict(zip(_TOWERS, towers, strict=True))
        elif name == "mmv_tiny":
            preset = _tiny_mmv_preset()
        else:
            known = (*_SPECIFIC_PRESETS, *_AGNOSTIC_PRESETS, "mmv", "tiny", "ma_tiny", "mmv_tiny")
            raise ValueError(f"Unknown VATT preset {name!r}: choose one of {', '.join(known)}.")
        for key, fields in cls._own_towers(kwargs).items():
            named = preset.get(key, {})
            kwargs[key] = {**(named if isinstance(named, dict) else named.to_dict()), **fields}
        return cls(**{**preset, **kwargs})


def _is_field(config_class: type[PreTrainedConfig], name: str) -> bool:
    if name in ("_name_or_path", "attn_implementation"):
        return True
    # `torch_dtype` would change no weight; methods are no fields.
    return name != "torch_dtype" and not callable(getattr(config_class, name, callable))


def _foreign_config(key: str, value: Any, own: type[PreTrainedConfig]) -> Any:
    """The config of another model that a dict describes; anything else unchanged."""
    if not isinstance(value, dict) or value.get("model_type") in (None, own.model_type):
        return value
    model_type = value["model_type"]
    if "AutoConfig" in (value.get("auto_map") or {}):
        return VattRemoteConfig(content=value)
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"`{key}`: transformers knows no model type {model_type!r}. Update it, or check the name."
        )
    return CONFIG_MAPPING[model_type](**value)


def _tiny_preset(agnostic: bool) -> dict[str, Any]:
    """A model for laptops and tests: 32 frames of 64 px, 3.2 s at 16 kHz, trained from scratch."""
    # No dropout: the model is far too small to overfit, and SDPA has no fused CPU path with dropout.
    tower = {
        **encoder_size("tiny"),
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "position_dropout_prob": 0.0,
        "projection_size": 128,
    }
    return {
        "video_config": {**tower, "image_size": 64},
        "audio_config": {**tower, "num_samples": 51200, "patch_size": 512},
        "text_config": {**tower, "vocab_size": 512, "embedding_size": 64, "trainable_embeddings": True},
        "modality_agnostic": agnostic,
        "va_projection_size": 128,
        "vt_projection_size": 64,
    }


def _tiny_mmv_preset() -> dict[str, Any]:
    """The convolutional baseline for the inputs of the tiny presets: log-mel of 3.2 s at 16 kHz."""
    text = {"hidden_size": 128, "vocab_size": 512, "embedding_size": 64, "trainable_embeddings": True}
    return {
        "video_config": VattVideoConfig.i3d(width_multiplier=0.125, image_size=64),
        "audio_config": VattAudioConfig.resnet(width_multiplier=0.125, spectrogram_length=50),
        "text_config": VattTextConfig.linear(**text),
        "va_projection_size": 128,
        "vt_projection_size": 64,
    }
