# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""PyTorch VATT: "VATT: Transformers for Multimodal Self-Supervised Learning from Raw Video, Audio and Text"
(Akbari et al., NeurIPS 2021, arXiv 2104.11178), following the official TensorFlow release.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import logging
from transformers.utils.generic import can_return_tuple

from ..configuration import VattConfig
from ..configuration.tower_use import VattRemoteConfig
from ..hub.sentence_transformers import PROCESSOR_FILES, save_modules_file
from ..repositories import HUB_OPTIONS
from .adapters import merged_state_dict
from .collectives import is_distributed, only_somewhere
from .embeddings import VattPatchEmbeddings, VattTextEmbeddings, word_mask, words_first
from .encoder import VattEncoder, VattRelativeBiasTable, VattRMSNorm
from .foreign import (
    VattForeignTower,
    find_towers,
    load_remote_config,
    load_tower,
    save_remote_towers,
)
from .heads import VattBatchNorm, VattFACHead, VattFeatureMLP, VattJointHead, VattKernelFeatures
from .locking import hold_in_evaluation, lockable, locked_parameters
from .losses import LOSSES, VattLossScale, caption_ids, contrastive_loss, normalize
from .outputs import VattFeaturesOutput, VattForPreTrainingOutput, VattLossOutput, VattModelOutput  # noqa: F401
from .positions import VattPositionTable
from .towers import VattConvolutionalTower, VattLinearTextTower, make_tower


logger = logging.get_logger(__name__)

Mask: TypeAlias = torch.Tensor | None
INPUT_NAMES = {"video": "pixel_values_videos", "audio": "input_values", "text": "input_ids"}
MODALITIES = tuple(INPUT_NAMES)
_SPACES = ("va_embeds", "vt_embeds")
# Of `from_pretrained`: where files come from; what the model has to be given, though configs would take it.
_DOWNLOAD_OPTIONS = (*HUB_OPTIONS, "force_download", "proxies", "subfolder")
_NOT_FOR_CONFIGS = ("attn_implementation", "dtype", "quantization_config", "torch_dtype", "trust_remote_code")
# For GPUs, where Triton failed on the compiled loss (torch 2.11, 128 clips).
_uncompiled_loss = torch.compiler.disable(contrastive_loss)


class VattPreTrainedModel(PreTrainedModel):
    """Initialisation, loading and saving of all VATT models."""

    config: VattConfig
    config_class = VattConfig
    base_model_prefix = "vatt"
    main_input_name = "pixel_values_videos"
    input_modalities: Any = ("video", "audio", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = [
        "VattEncoderLayer",
        "VattPatchEmbeddings",
        "VattTextEmbeddings",
        "VattConvNorm",
        "VattInceptionBlock",
        "VattBottleneck",
    ]
    _skip_keys_device_placement = ["encoder"]  # the shared encoder is an argument, not a tensor
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    # Losses are means over the batch: Trainer has to divide them itself when it accumulates gradients.
    accepts_loss_kwargs = False

    def __init__(self, config: VattConfig, *args: Any, **kwargs: Any) -> None:
        # The config may have been changed; saving would notice only after the training.
        config.validate()
        super().__init__(config, *args, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """See transformers; what the config freezes stays frozen.

        Weights are read from safetensors only, unless `use_safetensors=False` says that the older format, a
        pickle, can be trusted. Code of towers runs with `trust_remote_code=True` only.

        Raises:
            ValueError: weights that are damaged.
        """
        kwargs.setdefault("use_safetensors", True)
        if kwargs.get("trust_remote_code"):
            kwargs = cls._with_trusted_config(str(pretrained_model_name_or_path), **kwargs)
        try:
            loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        except SafetensorError as error:
            raise ValueError(
                f"{pretrained_model_name_or_path}: its weights are damaged ({error}). Download them again."
            ) from error
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model._freeze()
        return loaded

    @classmethod
    def _with_trusted_config(cls, name: str, config: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Arguments of `from_pretrained` with the config in place of its fields; the code that came with its
        towers is loaded."""
        hub = {key: kwargs[key] for key in _DOWNLOAD_OPTIONS if key in kwargs}
        if not isinstance(config, PreTrainedConfig):
            kept = {key: kwargs.pop(key) for key in _NOT_FOR_CONFIGS if key in kwargs}
            source = name if config is None else config
            config, kwargs = cls.config_class.from_pretrained(source, return_unused_kwargs=True, **kwargs)
            kwargs |= {**kept, **hub}
        folder = os.path.join(name, *filter(None, [hub.pop("subfolder", None)]))
        for key in config.sub_configs:
            if isinstance(getattr(config, key), VattRemoteConfig):
                setattr(config, key, load_remote_config(getattr(config, key), folder, **hub))
        return {**kwargs, "config": config}

    @classmethod
    def from_video_audio_text_pretrained(
        cls,
        video: str | PreTrainedModel | None = None,
        audio: str | PreTrainedModel | None = None,
        text: str | PreTrainedModel | None = None,
        towers: dict[str, dict[str, Any]] | None = None,
        trust_remote_code: bool = False,
        dtype: torch.dtype | str = torch.float32,
        hub_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        r"""
        A model with pretrained encoders of transformers as towers, and new projections into the common
        spaces.

        ```python
        >>> model = VattForPreTraining.from_video_audio_text_pretrained(
        ...     video="google/siglip2-base-patch16-224", text="sentence-transformers/all-MiniLM-L6-v2"
        ... )
        >>> model.lock("video", "text")
        ```

        Args:
            video (`str` or `PreTrainedModel`, *optional*): model of pictures or video. Of composite models
                (CLIP) and encoder-decoders (Whisper, T5) the fitting encoder is taken. A tower that is left
                out is VATT's own, from its config.
            audio (`str` or `PreTrainedModel`, *optional*): model of samples (wav2vec 2) or of features (AST,
                CLAP, Whisper).
            text (`str` or `PreTrainedModel`, *optional*): text encoder.
            towers (`dict`, *optional*): how they are used, name -> fields of [`VattTowerUse`]; other fields
                are chosen by the model and written into `config.towers`.
            trust_remote_code (`bool`): run code that comes with a checkpoint.
            dtype (`torch.dtype`): of all weights.
            hub_kwargs (`dict`, *optional*): `revision`, `token`, `cache_dir` for all three.
            kwargs: fields of [`VattConfig`].

        Raises:
            ValueError: no source, or one that does not exist or fit, with the reason.
            TypeError: unknown fields of the config.
        """
        VattConfig.check_fields(kwargs)
        sources = _given(video=video, audio=audio, text=text)
        hub = find_towers(sources, hub_kwargs)
        dtype = _dtype_of(dtype)
        options = {**hub, "dtype": dtype, "trust_remote_code": trust_remote_code}
        settings = {name: dict(fields) for name, fields in (towers or {}).items()}
        loaded: dict[str, Any] = {}
        for name, source in sources.items():
            found = load_tower(name, source, settings.get(name, {}), **options)
            loaded[name], settings[name] = found.model, found.use.settings()
            kwargs[f"{name}_config"] = found.model.config
        model: Any = cls(VattConfig(**kwargs, towers=settings))
        model.to(dtype).eval()
        for name, encoder in loaded.items():
            if encoder.dtype != dtype:  # a loaded model; others keep in float32 what their class says
                encoder.to(dtype)
            model.base_model.get_submodule(f"{name}_model").model = encoder.eval()
        model._freeze()
        return model

    def save_pretrained(
        self,
        save_directory: Any,
        is_main_process: bool = True,
        state_dict: Any = None,
        push_to_hub: bool = False,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """See transformers; LoRA of [`~modeling_vatt.models.adapters.add_lora`] is merged into the weights.
        Also saves code that came with towers and, if the model has common spaces, the files of
        sentence-transformers. `push_to_hub` uploads these too, a processor in the folder, and a
        model card (see [`~VattPreTrainedModel.push_to_hub`])."""
        foreign = [tower for tower in self.towers.values() if isinstance(tower, VattForeignTower)]
        self._saved_beside = save_remote_towers(foreign, save_directory)
        if getattr(self.base_model, "head", None) is not None and is_main_process:
            self._saved_beside += save_modules_file(save_directory)
        if push_to_hub and is_main_process:
            name = kwargs.pop("repo_id", None) or Path(save_directory).name
            kwargs["repo_id"] = self._bring_card(name, Path(save_directory), **kwargs)
        if state_dict is None and not self._hf_peft_config_loaded:
            state_dict = merged_state_dict(self)
        super().save_pretrained(save_directory, is_main_process, state_dict, push_to_hub, *args, **kwargs)

    def _get_files_timestamps(self, working_dir: Any) -> dict[str, float]:
        """Files that `save_pretrained(push_to_hub=True)` uploads only if they are newer."""
        found = super()._get_files_timestamps(working_dir)
        return {
            name: time for name, time in found.items() if name not in (*self._saved_beside, *PROCESSOR_FILES)
        }

    @property
    def towers(self) -> dict[str, nn.Module]:
        """The towers that this model has, by modality."""
        towers = {name: getattr(self.base_model, f"{name}_model", None) for name in MODALITIES}
        return {name: tower for name, tower in towers.items() if tower is not None}

    def lock(self, *names: str, blocks: int | None = None) -> None:
        """Stop training towers: no gradients, no optimizer state, evaluation mode even under `train()`.

        Kept in `config.towers`, so a saved model stays locked. Build the optimizer afterwards.

        Args:
            names: `"video"`, `"audio"`, `"text"`.
            blocks: lock only the first so many blocks and what is before them; 0 unlocks.

        Raises:
            ValueError: no such tower, or one with fewer blocks.
        """
        if self.config.modality_agnostic and set(names) != set(MODALITIES):
            raise ValueError("The towers of a modality-agnostic model share an encoder: lock all three.")
        amount = True if blocks is None else blocks
        for name in names:
            if name not in self.towers:
                raise ValueError(f"This model has no {name!r} tower to lock; towers are {MODALITIES}.")
            covered = lockable(self.towers[name])
            locked_parameters(covered, amount)  # refuses
            covered.requires_grad_(True)
            self.config.set_use(name, locked=amount)
        if self.config.modality_agnostic:
            self.base_model.encoder.requires_grad_(True)
        self._freeze()
        self.train(self.training)

    def unlock(self, *names: str) -> None:
        """Undo [`~VattPreTrainedModel.lock`]."""
        self.lock(*names, blocks=0)

    @classmethod
    def from_unimodal_pretrained(
        cls,
        video: str | PreTrainedModel | None = None,
        audio: str | PreTrainedModel | None = None,
        text: str | PreTrainedModel | None = None,
        config: VattConfig | None = None,
        output_loading_info: bool = False,
        dtype: torch.dtype | str = torch.float32,
        **kwargs: Any,
    ) -> Any:
        r"""
        Start towers from unimodal checkpoints instead of at random.

        Args:
            video (`str` or `PreTrainedModel`, *optional*): ViT. Its patch kernel is repeated over the frames
                of a patch and takes the processor's pixels in [-1, 1], however the checkpoint's own scales
                them; its 2-D positions are split into axis tables by least squares
                ([`~unimodal.split_positions`]).
            audio (`str` or `PreTrainedModel`, *optional*): AST, for a spectrogram tower; or ViT, of which a
                waveform tower takes the encoder.
            text (`str` or `PreTrainedModel`, *optional*): T5 or mT5, of which the encoder is taken.
            config ([`VattConfig`], *optional*): config whose towers fit the sources; by default sizes follow
                from the sources, and other towers have the default sizes.
            output_loading_info (`bool`): also return the [`~unimodal.UnimodalReport`] (which is logged in any
                case): which parameters were taken, adapted (and how) and left random.
            dtype (`torch.dtype`): of all weights.
            kwargs: fields of the config, if none is given.

        Raises:
            ValueError: without a source, or if one does not fit.
            TypeError: unknown fields of the config.
        """
        from .unimodal import load_source, start_towers, tower_config

        VattConfig.check_fields(kwargs)
        given = _given(video=video, audio=audio, text=text)
        sources = {name: load_source(name, source) for name, source in given.items()}
        if config is not None and kwargs:
            raise ValueError(f"Set {', '.join(kwargs)} in `config`.")
        if config is None:
            towers = {f"{name}_config": tower_config(name, source) for name, source in sources.items()}
            config = VattConfig(**{**towers, **kwargs})
        model = cls(config).eval()
        report = start_towers(model, sources)
        logger.warning(f"{cls.__name__} started from unimodal checkpoints.\n{report}")
        model.to(_dtype_of(dtype))
        return (model, report) if output_loading_info else model

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> Any:  # type: ignore[override]
        """See transformers; a repository without a filled-in model card gets one made from the model.

        The card goes to the main branch, where the Hub shows it. Fill in data and results with
        [`~modeling_vatt.training.write_model_card`].
        """
        repo_id = self._bring_card(repo_id, **kwargs)
        return super().push_to_hub(repo_id, **kwargs)  # type: ignore[arg-type]

    def _bring_card(
        self,
        repo_id: str,
        folder: Path | None = None,
        private: bool | None = None,
        token: Any = None,
        create_pr: bool = False,
        **_: Any,
    ) -> str:
        """Make a repository with a model card, the one in `folder` or one made from the model; returns its
        full name."""
        from huggingface_hub import ModelCard, create_repo, upload_file
        from huggingface_hub.errors import EntryNotFoundError

        from ..hub.model_card import build_model_card, is_empty_card

        repo_id = create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
        try:
            missing = is_empty_card(ModelCard.load(repo_id, token=token))
        except EntryNotFoundError:
            missing = True
        if missing and not create_pr:
            file = None if folder is None else folder / "README.md"
            card = ModelCard.load(file) if file is not None and file.is_file() else None
            if card is None or is_empty_card(card):
                card = build_model_card(self, repo_id)
            upload_file(
                path_or_fileobj=str(card).encode(),
                path_in_repo="README.md",
                repo_id=repo_id,
                token=token,
                commit_message="Add model card",
            )
        return repo_id

    def _freeze(self) -> None:
        """Freeze the word table, locked towers and fitted projections where the config says so."""
        for name, tower in self.towers.items():
            for parameter in locked_parameters(lockable(tower), self.config.use(name).locked):
                parameter.requires_grad_(False)
        base: Any = self.base_model
        if base.encoder is not None and self.config.use("video").locked:
            base.encoder.requires_grad_(False)
        for name, kernel in getattr(base, "feature_kernels", {}).items():
            kernel.requires_grad_(False)
            if base.head is not None:
                base.head.projections[name].requires_grad_(False)
        for module in self.modules():
            if not isinstance(module, (VattTextEmbeddings, VattLinearTextTower)):
                continue
            if not module.config.trainable_embeddings:
                module.word_embeddings.weight.requires_grad_(False)

    def set_attn_implementation(self, attn_implementation: str | dict, *args: Any, **kwargs: Any) -> None:
        """See transformers; the T5-style text tower never uses flash attention."""
        towers = self._own_towers()
        before = {key: tower._attn_implementation for key, tower in towers.items()}
        for key, tower in towers.items():
            # Set here, as transformers warns of sub-configs without a `PreTrainedModel`.
            chosen = attn_implementation
            if isinstance(attn_implementation, dict):
                chosen = attn_implementation.get(key, before[key])
            known = ("eager", *ALL_ATTENTION_FUNCTIONS.valid_keys())
            if chosen not in known:
                raise ValueError(
                    f"Unknown attention implementation {chosen!r}: choose one of {', '.join(known)}."
                )
            tower._attn_implementation = chosen
        try:
            super().set_attn_implementation(attn_implementation, *args, **kwargs)
        except Exception:
            for key, tower in towers.items():
                tower._attn_implementation = before[key]
            raise
        self._settle_attention()

    def _own_towers(self) -> dict[str, Any]:
        """Configs of the towers that are VATT's own."""
        names = [name for name in MODALITIES if not self.config.is_foreign(name)]
        return {f"{name}_config": getattr(self.config, f"{name}_config") for name in names}

    def _settle_attention(self) -> None:
        """Give towers without an attention implementation that of the model. Flash attention has no position
        bias, so the T5-style text tower uses SDPA then."""
        for tower in self._own_towers().values():
            if tower._attn_implementation is None:
                tower._attn_implementation = self.config._attn_implementation
            if tower.encoder_type == "t5" and "flash" in tower._attn_implementation:
                logger.warning_once("The text tower has a position bias, which flash attention lacks: SDPA.")
                tower._attn_implementation = "sdpa"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Keras' defaults, as in the release: Glorot uniform dense layers and convolutions, zero biases, zero
        batch norm at the end of a residual branch, relative bias uniform in +-0.05, position tables, AGG and
        mask vectors truncated normal of std d^-0.5 (for the vectors after truncation). The word table is
        standard normal as in T5: the release fills it from word2vec."""
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d, nn.LayerNorm, VattRMSNorm, VattBatchNorm)):
            if module.weight.ndim > 1:
                init.xavier_uniform_(module.weight)
            else:
                init.constant_(module.weight, getattr(module, "initial_weight", 1.0))
            bias: Any = getattr(module, "bias", None)
            if bias is not None:
                init.zeros_(bias)
            if isinstance(module, VattBatchNorm):
                init.zeros_(module.running_mean)
                init.ones_(module.running_var)
        elif isinstance(module, VattKernelFeatures):
            init.zeros_(module.mean)
            init.normal_(module.centres, std=module.mean.shape[0] ** -0.5)
        elif isinstance(module, VattLossScale):
            for name, value in module.initial.items():
                if value is not None:
                    init.constant_(getattr(module, name), value)
        elif isinstance(module, VattPositionTable):
            std = module.embedding_dim**-0.5
            init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        elif isinstance(module, VattRelativeBiasTable):
            init.uniform_(module.weight, -0.05, 0.05)
        elif isinstance(module, nn.Embedding):  # the word table
            init.normal_(module.weight, std=1.0)
        if isinstance(module, (VattPatchEmbeddings, VattTextEmbeddings)):
            for vector in (module.agg_token, getattr(module, "mask_token", None)):
                if vector is not None:
                    # 0.8796: standard deviation of a unit normal cut at two sigma
                    std = vector.shape[0] ** -0.5 / 0.87962566103423978
                    init.trunc_normal_(vector, std=std, a=-2 * std, b=2 * std)


def _dtype_of(dtype: torch.dtype | str) -> torch.dtype:
    """A type, or the one of this name, as transformers takes both."""
    return getattr(torch, dtype) if isinstance(dtype, str) else dtype


def _given(**sources: Any) -> dict[str, Any]:
    """The sources of towers that are not None."""
    given = {name: source for name, source in sources.items() if source is not None}
    if not given:
        raise ValueError("Give at least one of `video`, `audio` and `text`.")
    return given


class VattModel(VattPreTrainedModel):
    r"""
    Video, audio and text towers with the projections into the common spaces.

    Any subset of the modalities can be given. In the modality-specific setting every tower has its own
    encoder, in the modality-agnostic one (`config.modality_agnostic`) they share `encoder`; each modality
    runs through it on its own.

    Args:
        config ([`VattConfig`]): configuration.
        modalities (`tuple[str]`, *optional*): towers to build; classifiers build just theirs, and then no
            common-space head.

    ```python
    >>> import torch
    >>> from modeling_vatt import VattConfig, VattModel

    >>> model = VattModel(VattConfig.from_preset("tiny")).eval()
    >>> outputs = model(
    ...     pixel_values_videos=torch.zeros(2, 32, 3, 64, 64), input_ids=torch.tensor([[5, 7, 0], [9, 0, 0]])
    ... )
    >>> outputs.video_vt_embeds.shape, outputs.text_vt_embeds.shape
    (torch.Size([2, 64]), torch.Size([2, 64]))
    ```
    """

    _keys_to_ignore_on_load_unexpected = [r"^loss_scales\."]  # of VattForPreTraining

    def __init__(self, config: VattConfig, modalities: tuple[str, ...] = MODALITIES) -> None:
        super().__init__(config)
        unknown = set(modalities) - set(MODALITIES)
        if unknown or not modalities:
            raise ValueError(f"`modalities` must be taken from {MODALITIES}, got {modalities}.")
        self._settle_attention()
        self.encoder = VattEncoder(config.video_config) if config.modality_agnostic else None
        self.video_model = make_tower("video", config) if "video" in modalities else None
        self.audio_model = make_tower("audio", config) if "audio" in modalities else None
        self.text_model = make_tower("text", config) if "text" in modalities else None
        whole = set(modalities) == set(MODALITIES)
        uses = {name: config.use(name) for name in modalities} if whole else {}
        sizes = {name: config.output_size(name) for name in uses}
        self.feature_mlps = nn.ModuleDict(
            {name: VattFeatureMLP(sizes[name]) for name, use in uses.items() if use.projection == "mlp"}
        )
        self.feature_kernels = nn.ModuleDict(
            {name: VattKernelFeatures(sizes[name], use.centres) for name, use in uses.items() if use.centres}
        )
        head = VattFACHead if config.head_type == "fac" else VattJointHead
        self.head: nn.Module | None = head(config) if whole else None
        self.post_init()
        self._freeze()

    def train(self, mode: bool = True) -> "VattModel":
        """See PyTorch; locked towers stay in evaluation mode."""
        super().train(mode)
        for name, tower in self.towers.items() if mode else ():
            covered = locked_parameters(lockable(tower), self.config.use(name).locked)
            if covered:
                hold_in_evaluation(lockable(tower), set(map(id, covered)))
        if mode and self.encoder is not None and self.config.use("video").locked:
            self.encoder.eval()
        return self

    def _embeds(self, name: str, pooled: torch.Tensor) -> dict[str, torch.Tensor]:
        """`va_embeds` and `vt_embeds` of features (..., output_size), as far as the modality has them."""
        rows = pooled.flatten(0, -2)
        for parts in (self.feature_mlps, self.feature_kernels):
            if name in parts:
                rows = parts[name](rows)
        found = zip(_SPACES, getattr(self.head, name)(rows), strict=True)
        return {
            space: values.unflatten(0, pooled.shape[:-1]) for space, values in found if values is not None
        }

    def get_input_embeddings(self) -> nn.Module:
        """The word table, or without a text tower the patch projection or first convolution."""
        tower: Any = self.text_model or self.video_model or self.audio_model
        if isinstance(tower, VattForeignTower):
            return tower.model.get_input_embeddings()
        if isinstance(tower, VattConvolutionalTower):
            return tower.backbone.stem.convolution
        embeddings = getattr(tower, "embeddings", tower)
        return embeddings.patch_projection if self.text_model is None else embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the word table."""
        if self.text_model is None:
            raise NotImplementedError(
                "This model has no text tower, so no word table: build it with `text_config`."
            )
        if isinstance(self.text_model, VattForeignTower):
            self.text_model.model.set_input_embeddings(value)
            return
        getattr(self.text_model, "embeddings", self.text_model).word_embeddings = value

    def project(self, pooler_outputs: dict[str, torch.Tensor]) -> VattModelOutput:
        """Embeddings of pooled features.

        Args:
            pooler_outputs: `"video"`, `"audio"`, `"text"` -> (batch, output_size); text may be (batch,
                candidates, output_size).
        """
        if self.head is None:
            raise ValueError(
                "This model has no common spaces, as it was built without some towers: use one with all."
            )
        found = {name: self._embeds(name, pooled) for name, pooled in pooler_outputs.items()}
        return VattModelOutput(**_embeds_by_field(found))

    def _features(
        self,
        name: str,
        inputs: torch.Tensor,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_embeds: bool = True,
        **kwargs: Any,
    ) -> VattFeaturesOutput:
        """Tower and head of one modality; options left out come from the config."""
        tower = getattr(self, f"{name}_model")
        if tower is None:
            raise ValueError(f"This model was built without its {name} tower: use one that has it.")
        if name != "text" and kwargs.get("attention_mask") is not None:
            raise ValueError(f"`attention_mask` is for text; {name} has no padding here: leave it out.")
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        features = tower(
            inputs,
            encoder=self.encoder,
            output_hidden_states=bool(output_hidden_states),
            output_attentions=bool(output_attentions),
            **kwargs,
        )
        if self.head is not None and return_embeds:
            for space, values in self._embeds(name, features.pooler_output).items():
                features[space] = values
        return features

    @can_return_tuple
    def get_video_features(self, pixel_values_videos: torch.FloatTensor, **kwargs: Any) -> VattFeaturesOutput:
        r"""
        Features of video.

        Args:
            pixel_values_videos (`torch.FloatTensor` of shape `(batch, frames, channels, height, width)`):
                Pixels in [-1, 1] at 10 frames per second. Sizes other than the config's use resampled
                positions.
            kwargs: `output_hidden_states`, `output_attentions` and `return_embeds` of
                [`~VattModel.forward`].

        Returns:
            [`VattFeaturesOutput`] with `va_embeds` and `vt_embeds`.
        """
        return self._features("video", pixel_values_videos, **kwargs)

    @can_return_tuple
    def get_audio_features(self, input_values: torch.FloatTensor, **kwargs: Any) -> VattFeaturesOutput:
        r"""
        Features of sound.

        Args:
            input_values (`torch.FloatTensor` of shape `(batch, samples)` or `(batch, frames, mel bins)`):
                Waveform in about [-1, 1], or log-mel spectrogram, as `config.audio_config.input_type` says.
            kwargs: see [`~VattModel.get_video_features`].

        Returns:
            [`VattFeaturesOutput`] with `va_embeds` (FAC head) or both embeddings (joint head).
        """
        return self._features("audio", input_values, **kwargs)

    @can_return_tuple
    def get_text_features(
        self, input_ids: torch.LongTensor, attention_mask: Mask = None, **kwargs: Any
    ) -> VattFeaturesOutput:
        r"""
        Features of text.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, words)` or `(batch, candidates, words)`):
                Word ids.
            attention_mask (`torch.Tensor` of the same shape, *optional*):
                1 for words, 0 for padding; by default everything but `config.text_config.pad_token_id`.
                Padding on the left is moved behind the words, where the outputs have it too.
            kwargs: see [`~VattModel.get_video_features`].

        Returns:
            [`VattFeaturesOutput`] with `vt_embeds` (FAC head) or both embeddings (joint head). All but the
            embeddings have candidates in the batch axis.
        """
        if input_ids.ndim not in (2, 3):
            raise ValueError(
                f"`input_ids` must be (batch[, candidates], words), got {tuple(input_ids.shape)}."
            )
        attention_mask = word_mask(input_ids, attention_mask, self.config.text_config)
        if attention_mask.shape != input_ids.shape:
            raise ValueError(
                f"`attention_mask` {tuple(attention_mask.shape)} must have the shape of `input_ids` "
                f"{tuple(input_ids.shape)}."
            )
        batch_shape = input_ids.shape[:-1]
        ids, attention_mask = words_first(input_ids.flatten(0, -2), attention_mask.flatten(0, -2))
        features = self._features("text", ids, attention_mask=attention_mask, **kwargs)
        for space in _SPACES:
            if features.get(space) is not None:
                features[space] = features[space].view(*batch_shape, -1)
        return features

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.FloatTensor | None = None,
        input_values: torch.FloatTensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: Mask = None,
        return_embeds: bool = True,
        video_pooler_output: torch.Tensor | None = None,
        audio_pooler_output: torch.Tensor | None = None,
        text_pooler_output: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> VattModelOutput:
        r"""
        Embeddings of the modalities that are given.

        Args:
            pixel_values_videos (`torch.FloatTensor` of shape `(batch, frames, channels, height, width)`,
                *optional*): video, see [`~VattModel.get_video_features`].
            input_values (`torch.FloatTensor` of shape `(batch, samples)` or `(batch, frames, mel bins)`,
                *optional*): sound, see [`~VattModel.get_audio_features`].
            input_ids, attention_mask (`torch.Tensor` of shape `(batch, words)` or `(batch, candidates,
                words)`, *optional*): text, see [`~VattModel.get_text_features`].
            return_embeds (`bool`, defaults to `True`): project the features into the common spaces; see
                [`~VattModel.project`].
            video_pooler_output, audio_pooler_output, text_pooler_output (`torch.Tensor` of shape `(batch,
                output_size)`, text also `(batch, candidates, output_size)`, *optional*): cached features in
                place of the input of a modality.
            kwargs: `output_hidden_states` and `output_attentions` return those of every block.

        Raises:
            ValueError: if no modality is given, or a shape does not fit the config.
        """
        kwargs |= {"return_embeds": return_embeds, "return_dict": True}
        found: dict[str, VattFeaturesOutput] = {}
        for name, pooled, inputs in (
            ("video", video_pooler_output, pixel_values_videos),
            ("audio", audio_pooler_output, input_values),
            ("text", text_pooler_output, input_ids),
        ):
            if pooled is not None:
                if inputs is not None:
                    raise ValueError(f"Pass either `{name}_pooler_output` or the input of the {name} tower.")
                rows = pooled.to(self.dtype)
                known: Any = {"pooler_output": rows.flatten(0, -2)}
                if self.head is not None and return_embeds:
                    known |= self._embeds(name, rows)
                found[name] = VattFeaturesOutput(**known)
        if pixel_values_videos is not None:
            found["video"] = self.get_video_features(pixel_values_videos, **kwargs)
        if input_values is not None:
            found["audio"] = self.get_audio_features(input_values, **kwargs)
        if input_ids is not None:
            found["text"] = self.get_text_features(input_ids, attention_mask, **kwargs)
        if not found:
            raise ValueError("Give at least one of `pixel_values_videos`, `input_values` and `input_ids`.")
        outputs: dict[str, Any] = {f"{name}_model_output": features for name, features in found.items()}
        return VattModelOutput(**_embeds_by_field(found), **outputs)


def _embeds_by_field(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Modality -> space -> embeddings, as the fields of [`VattModelOutput`]."""
    pairs = (("video", "va"), ("audio", "va"), ("video", "vt"), ("text", "vt"))
    return {f"{name}_{space}_embeds": found.get(name, {}).get(f"{space}_embeds") for name, space in pairs}


class VattForPreTraining(VattPreTrainedModel):
    r"""
    [`VattModel`] with the contrastive loss `config.loss_type`, by default NCE between video and sound and
    MIL-NCE between video and its candidate texts, over the clips of all processes.

    ```python
    >>> import torch
    >>> from modeling_vatt import VattConfig, VattForPreTraining

    >>> model = VattForPreTraining(VattConfig.from_preset("ma_tiny"))
    >>> outputs = model(
    ...     pixel_values_videos=torch.randn(4, 32, 3, 64, 64),
    ...     input_values=torch.randn(4, 51200),
    ...     input_ids=torch.randint(1, 512, (4, 5, 16)),
    ...     audio_mask=torch.tensor([1, 1, 0, 1]),
    ... )
    >>> outputs.loss.backward()
    ```
    """

    def __init__(self, config: VattConfig) -> None:
        super().__init__(config)
        self.vatt = VattModel(config)
        loss = LOSSES[config.loss_type]
        bias = config.loss_bias if loss.has_bias else None
        learned = config.loss_weights if loss.is_learned else ()
        self.loss_scales = nn.ModuleDict({pair: VattLossScale(config.temperature, bias) for pair in learned})
        self.post_init()

    def get_video_features(self, *args: Any, **kwargs: Any) -> VattFeaturesOutput:
        """See [`VattModel.get_video_features`]."""
        return self.vatt.get_video_features(*args, **kwargs)

    def get_audio_features(self, *args: Any, **kwargs: Any) -> VattFeaturesOutput:
        """See [`VattModel.get_audio_features`]."""
        return self.vatt.get_audio_features(*args, **kwargs)

    def get_text_features(self, *args: Any, **kwargs: Any) -> VattFeaturesOutput:
        """See [`VattModel.get_text_features`]."""
        return self.vatt.get_text_features(*args, **kwargs)

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.FloatTensor | None = None,
        input_values: torch.FloatTensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: Mask = None,
        audio_mask: Mask = None,
        text_mask: Mask = None,
        video_ids: torch.Tensor | None = None,
        caption_ids: torch.Tensor | None = None,
        return_loss: bool = True,
        return_logits: bool | None = None,
        pooler_outputs: dict[str, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> VattForPreTrainingOutput:
        r"""
        Embeddings of the modalities that are given, losses and similarities between them.

        Args:
            pixel_values_videos, input_values, input_ids, attention_mask, **kwargs:
                see [`~VattModel.forward`].
            audio_mask (`torch.Tensor` of shape `(batch,)`, *optional*): 1 where the clip has sound.
            text_mask (`torch.Tensor` of shape `(batch,)` or `(batch, candidates)`, *optional*): 1 where the
                clip has text, or has the candidate (the release counts empty candidates too).
            video_ids (`torch.LongTensor` of shape `(batch,)`, *optional*): equal for clips of one video,
                which are no negatives of each other with `config.mask_false_negatives`.
            caption_ids (`torch.LongTensor` of shape `(batch,)` or `(batch, candidates)`, *optional*): the
                same for captions; default: [`~VattForPreTraining.caption_ids`].
            return_loss (`bool`, defaults to `True`): compute the loss; needs video and another modality.
            return_logits (`bool`, *optional*): return similarities with the loss's temperature and bias;
                default: only in evaluation, as they take memory quadratic in the batch.
            pooler_outputs (`dict`, *optional*): features in place of inputs, see [`~VattModel.project`].
        """
        kwargs["return_dict"] = True
        if return_loss and is_distributed():
            pooled = pooler_outputs or {}
            given = zip(MODALITIES, (pixel_values_videos, input_values, input_ids), strict=True)
            present = {
                name: value is not None or name in pooled or kwargs.get(f"{name}_pooler_output") is not None
                for name, value in given
            }
            self._refuse_uneven_modalities(present)
        if pooler_outputs is not None:
            base = self.vatt.project(pooler_outputs)
        else:
            base = self.vatt(pixel_values_videos, input_values, input_ids, attention_mask, **kwargs)
        extra: dict[str, Any] = {}
        if return_loss:
            if caption_ids is None and input_ids is not None:
                caption_ids = self.caption_ids(input_ids, attention_mask)
            extra |= self._losses(base, audio_mask, text_mask, video_ids, caption_ids)
        if (not self.training) if return_logits is None else return_logits:
            for pair, video, other in (
                ("video_audio", base.video_va_embeds, base.audio_va_embeds),
                ("video_text", base.video_vt_embeds, base.text_vt_embeds),
            ):
                if video is not None and other is not None:
                    flat = normalize(other).flatten(0, -2)
                    scale = self.loss_scale(pair)
                    logits = normalize(video) @ flat.T / scale["temperature"]
                    extra[f"logits_{pair}"] = logits + scale["bias"] if "bias" in scale else logits
        return VattForPreTrainingOutput(**extra, **base)

    def caption_ids(self, input_ids: torch.Tensor, attention_mask: Mask = None) -> torch.Tensor | None:
        """Numbers that are equal for equal captions, (batch,) or (batch, candidates); None unless
        `config.mask_false_negatives`. Arguments: see [`~VattModel.get_text_features`]."""
        if not self.config.mask_false_negatives:
            return None
        mask = word_mask(input_ids, attention_mask, self.config.text_config)
        ids = caption_ids(*words_first(input_ids.flatten(0, -2), mask.flatten(0, -2)))
        return ids.view(input_ids.shape[:-1])

    def loss_scale(self, pair: str) -> dict[str, Any]:
        """`temperature` and, if there is one, `bias` of a pair (`"video_text"`), learned or the config's."""
        if pair not in self.loss_scales:
            return {"temperature": self.config.temperature}
        temperature, bias = self.loss_scales[pair]()
        return {"temperature": temperature} if bias is None else {"temperature": temperature, "bias": bias}

    def _refuse_uneven_modalities(self, present: dict[str, bool]) -> None:
        """Raise if a process lacks a modality: the others would wait for it, as the loss compares all
        clips."""
        uneven = only_somewhere(list(present.values()), self.device)
        names = [name for name, some in zip(present, uneven, strict=True) if some]
        if names:
            lacking = [name for name in names if not present[name]]
            raise ValueError(
                f"Only some of the processes have {' and '.join(names)} (this one lacks: "
                f"{', '.join(lacking) or 'nothing'}), but the loss compares the clips of all: give each the "
                "same modalities, with `audio_mask` and `text_mask` for clips without sound or text."
            )

    def _losses(
        self,
        base: VattModelOutput,
        audio_mask: Mask,
        text_mask: Mask,
        video_ids: torch.Tensor | None,
        caption_ids: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        _check_rows(base, audio_mask, text_mask)
        config = self.config
        video_va, audio_va = base.video_va_embeds, base.audio_va_embeds
        video_vt, text_vt = base.video_vt_embeds, base.text_vt_embeds
        if not config.mask_false_negatives:
            video_ids = caption_ids = None
        # (pair, anchor, its mask, other, its mask, ids of captions); every clip has video
        terms = (
            ("video_audio", video_va, None, audio_va, audio_mask, None),
            ("video_text", video_vt, None, text_vt, text_mask, caption_ids),
            ("audio_text", audio_va, audio_mask, text_vt, text_mask, caption_ids),
        )
        losses: dict[str, torch.Tensor] = {}
        total, weights = None, 0.0
        for pair, anchor, anchor_mask, other, mask, captions in terms:
            weight = config.loss_weights.get(pair)
            if anchor is None or other is None or not weight:
                continue
            if LOSSES[config.loss_type].is_learned and pair not in self.loss_scales:
                raise ValueError(
                    f"This model has no learned temperature for {pair}: set `loss_type` and the weights of "
                    "the loss before it is built."
                )
            loss_of = _uncompiled_loss if anchor.is_cuda else contrastive_loss
            loss = loss_of(
                anchor,
                other,
                mask,
                loss_type=config.loss_type,
                anchor_mask=anchor_mask,
                video_ids=video_ids,
                caption_ids=captions,
                alike=config.false_negative_similarity,
                **self.loss_scale(pair),
            )
            losses[f"{pair}_loss"] = loss
            total = weight * loss + (0 if total is None else total)
            weights += weight
        if total is None:
            raise ValueError(
                "The loss needs `pixel_values_videos` with `input_values` or `input_ids`; "
                "pass `return_loss=False` for embeddings only."
            )
        losses["loss"] = total / weights if config.loss_reduction == "mean" else total
        return losses


def _check_rows(base: VattModelOutput, audio_mask: Mask, text_mask: Mask) -> None:
    """Raise ValueError unless there is one row per clip everywhere, and a mask for each axis of the texts."""
    several = base.text_vt_embeds is not None and base.text_vt_embeds.ndim == 3
    for name, mask, axes in (("audio_mask", audio_mask, (1,)), ("text_mask", text_mask, (1, 1 + several))):
        if mask is not None and mask.ndim not in axes:
            raise ValueError(f"`{name}` must be of shape (batch,), got {tuple(mask.shape)}.")
    sizes = {
        "pixel_values_videos": base.video_va_embeds,
        "input_values": base.audio_va_embeds,
        "input_ids": base.text_vt_embeds,
        "audio_mask": audio_mask,
        "text_mask": text_mask,
    }
    rows = {name: value.shape[0] for name, value in sizes.items() if value is not None}
    first = next(iter(rows.values()), 0)
    if any(count != first for count in rows.values()):  # a set would fix the size in compiled graphs
        raise ValueError(
            f"The loss needs one row per clip, got {rows}. Several texts of a clip are `input_ids` of "
            "shape (batch, candidates, words)."
        )
