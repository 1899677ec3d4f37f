# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Towers that are other models of transformers: an adapter around an encoder of one modality.

A function of `RUNNERS` for each kind of input runs the model on the output of VATT's processor and says which
tokens hold something.
"""

import importlib
import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.dynamic_module_utils import custom_object_save, get_class_from_dynamic_module
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING, MODEL_MAPPING

from ..configuration import VattConfig, VattTowerUse, VattVideoConfig
from ..configuration.tower_use import VattRemoteConfig
from ..repositories import HUB_OPTIONS, read_json, require_repository
from .encoder import VattEncoder
from .outputs import VattFeaturesOutput
from .positions import VattAxialPositionEmbeddings


# Modality -> part of a composite config, and the inputs that a model of it takes.
_TOWER_PARTS = {"video": "vision_config", "audio": "audio_config", "text": "text_config"}
_TOWER_INPUTS = {
    "video": ("pixel_values", "pixel_values_videos"),
    "audio": ("input_values", "input_features"),
    "text": ("input_ids",),
}
_UNTRUSTED = (
    "The code of the {name} tower{source} comes with its checkpoint, and would run here. Read it, then pass "
    "`trust_remote_code=True` (scripts: --trust_remote_code, vatt: --trust-remote-code)."
)
# Poolings of sentence-transformers that are offered here.
_STATED_POOLINGS = {
    "cls": "first",
    "mean": "mean",
    "pooling_mode_cls_token": "first",
    "pooling_mode_mean_tokens": "mean",
}
# Weights of an encoder that a checkpoint may lack: poolers, of which none is then used, and what only its
# pretraining or nothing needs.
_MAY_BE_MISSING = re.compile(r"\b(pooler|head|predictor)\b|mask|num_batches_tracked|position_ids")
# Models whose text part was trained with padding as words.
_READS_PADDING = ("siglip_text_model", "siglip2_text_model")
# Text models that were trained together with another one, by a projection of this feature.
_TRAINED_POOLINGS = {
    "align_text_model": "first",
    "blip_text_model": "pooler",
    "chinese_clip_text_model": "first",
    "clap_text_model": "pooler",
    "flava_text_model": "first",
}


@dataclass
class Ran:
    """Result of a function of `RUNNERS`."""

    output: Any  # of the model; its rows are clips times `frames`
    mask: torch.Tensor | None = None  # (rows, tokens), 1 for what counts in a mean; None for all
    frames: int = 1  # rows of a clip


def _run_images(
    model: PreTrainedModel, inputs: torch.Tensor, mask: None, use: VattTowerUse, **options: Any
) -> Ran:
    """Pictures, one by one; (batch, frames, channels, height, width)."""
    frames = inputs.shape[1]
    pixels = inputs.flatten(0, 1)
    if model.config.model_type == "siglip2_vision_model":  # takes patches and their grid
        size = model.config.patch_size
        grid = (pixels.shape[-2] // size, pixels.shape[-1] // size)
        patches = pixels.unfold(2, size, size).unfold(3, size, size)  # rows, channels, *grid, *patch
        options["pixel_attention_mask"] = pixels.new_ones((len(pixels), grid[0] * grid[1]), dtype=torch.int32)
        options["spatial_shapes"] = torch.tensor([grid] * len(pixels), device=pixels.device)
        pixels = patches.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
    else:
        pixels = pixels.contiguous(memory_format=torch.channels_last)  # 1.5x faster convolutions on the CPU
    return Ran(model(pixels, **options), None, frames)


def _run_video(
    model: PreTrainedModel, inputs: torch.Tensor, mask: None, use: VattTowerUse, **options: Any
) -> Ran:
    """A clip as it is; (batch, frames, channels, height, width)."""
    if "skip_predictor" in inspect.signature(model.forward).parameters:  # V-JEPA 2: the encoder alone
        options["skip_predictor"] = True
    return Ran(model(inputs, **options))


def _run_audio(
    model: PreTrainedModel, inputs: torch.Tensor, mask: None, use: VattTowerUse, **options: Any
) -> Ran:
    """Samples, or features as the model's own extractor makes them."""
    if "is_longer" in inspect.signature(model.forward).parameters:  # CLAP: windows are never cut
        options["is_longer"] = torch.zeros((len(inputs), 1), dtype=torch.bool, device=inputs.device)
    output = model(inputs, **options)
    hidden = output.last_hidden_state
    if use.filled == 1 or hidden.ndim != 3:
        return Ran(output)
    length = hidden.shape[1]
    places = torch.arange(length, device=hidden.device)
    if model.config.model_type == "audio-spectrogram-transformer":  # two tokens, then times of each mel band
        length = (model.config.max_length - model.config.patch_size) // model.config.time_stride + 1
        places = torch.where(places < 2, 0, (places - 2) % length)
    heard = places < max(1, round(length * use.filled))
    return Ran(output, heard.long().expand(hidden.shape[:2]))


def _run_text(
    model: PreTrainedModel, inputs: torch.Tensor, mask: torch.Tensor | None, use: VattTowerUse, **options: Any
) -> Ran:
    """Word ids and their mask, (batch, words)."""
    if use.padding_id is not None:  # as it was trained, however far the others of the batch are padded
        missing = (0, max(0, model.config.max_position_embeddings - inputs.shape[1]))
        inputs = nn.functional.pad(inputs, missing, value=use.padding_id)
        mask = None if mask is None else nn.functional.pad(mask, missing)
    return Ran(model(inputs, attention_mask=mask if use.use_attention_mask else None, **options), mask)


RUNNERS: dict[str, Callable[..., Ran]] = {
    "image": _run_images,
    "video": _run_video,
    "audio": _run_audio,
    "text": _run_text,
}


class VattForeignTower(nn.Module):
    """Another model as the tower `"video"`, `"audio"` or `"text"`, by the config of the whole VATT."""

    def __init__(self, name: str, config: VattConfig) -> None:
        super().__init__()
        self.name = name
        self.config = getattr(config, f"{name}_config")
        model_class = tower_class(name, self.config)
        use = config.use(name)
        if use.kind is None or use.pooling is None:
            use.kind = use.kind or find_kind(name, model_class, self.config)
            use.pooling = use.pooling or default_pooling(use.kind, model_class, self.config)
            if self.config.model_type in _READS_PADDING:
                use.use_attention_mask = False
            config.set_use(name, **use.settings())
        self._whole = config
        self.model = _build(model_class, self.config, pooler=use.pooling == "pooler")
        # transformers looks in children for these attributes, and for tied weights.
        for field in ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict", "_no_split_modules"):
            setattr(self, field, getattr(self.model, field, None))
        tied = getattr(self.model, "all_tied_weights_keys", {})
        self.all_tied_weights_keys = {f"model.{key}": f"model.{value}" for key, value in tied.items()}
        self.temporal: nn.Module | None = None
        if use.temporal_layers:
            self.temporal = VattTemporalEncoder(config.output_size(name), use)

    @property
    def use(self) -> VattTowerUse:
        """How the tower is used, by the current config."""
        return self._whole.use(self.name)

    def train(self, mode: bool = True) -> "VattForeignTower":
        """See PyTorch; batch norms use the checkpoint's statistics, unless the config says otherwise."""
        super().train(mode)
        for module in self.model.modules() if mode and not self.use.train_batch_norm else ():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def forward(
        self,
        inputs: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        encoder: None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> VattFeaturesOutput:
        """
        Args:
            inputs: (batch, frames, channels, height, width) pixels, sound as the model's extractor makes it,
                or (batch, words) ids.
            attention_mask: (batch, words); text only.
        """
        self._check(inputs)
        if inputs.is_floating_point():
            inputs = inputs.to(next(self.model.parameters()).dtype)
        options: dict[str, Any] = {"return_dict": True}
        options |= {"output_hidden_states": True} if output_hidden_states else {}
        options |= {"output_attentions": True} if output_attentions else {}
        ran = RUNNERS[str(self.use.kind)](self.model, inputs, attention_mask, self.use, **options)
        hidden = ran.output.last_hidden_state
        if hidden.ndim > 3:  # feature maps (rows, channels, *places)
            hidden = hidden.flatten(2).transpose(1, 2)
        pooled = self._pool(ran, hidden)
        if self.use.kind == "image":
            pooled = pooled.unflatten(0, (-1, ran.frames))
            pooled = (pooled if self.temporal is None else self.temporal(pooled)).mean(1)
            hidden = hidden.unflatten(0, (-1, ran.frames)).flatten(1, 2)
        return VattFeaturesOutput(
            last_hidden_state=hidden,
            pooler_output=pooled,
            hidden_states=ran.output.get("hidden_states"),
            attentions=ran.output.get("attentions"),
        )

    def _pool(self, ran: Ran, hidden: torch.Tensor) -> torch.Tensor:
        """Features (rows, output_size) of outputs (rows, tokens, output_size)."""
        if self.use.pooling == "pooler":
            pooled = ran.output.get("pooler_output")
            if pooled is None:
                raise ValueError(
                    f"The {self.name} tower ({type(self.model).__name__}) gives no `pooler_output`: set "
                    f"`towers={{{self.name!r}: {{'pooling': 'mean'}}}}`."
                )
            return pooled.flatten(1)
        if self.use.pooling == "first":
            return hidden[:, 0]
        if ran.mask is None:
            return hidden.mean(1)
        weights = ran.mask.to(hidden.dtype).unsqueeze(-1)
        return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)

    def _check(self, inputs: torch.Tensor) -> None:
        wanted = {"video": (5,), "audio": (2, 3, 4), "text": (2,)}[self.name]
        if inputs.ndim not in wanted or inputs.is_floating_point() == (self.name == "text"):
            raise ValueError(
                f"The {self.name} tower ({type(self.model).__name__}) does not take {inputs.dtype} of shape "
                f"{tuple(inputs.shape)}: use the processor of this model."
            )


class VattTemporalEncoder(nn.Module):
    """A small Transformer over the features of frames, (batch, frames, size) -> the same."""

    def __init__(self, size: int, use: VattTowerUse) -> None:
        super().__init__()
        head = next(width for width in (64, 32, 16, 8, 4, 2, 1) if size % width == 0)
        fields = {"hidden_size": size, "intermediate_size": 4 * size, "num_attention_heads": size // head}
        config = VattVideoConfig(**fields, head_dim=head, num_hidden_layers=use.temporal_layers)
        config._attn_implementation = "sdpa"
        self.positions = VattAxialPositionEmbeddings(
            {"temporal": use.num_frames}, size, config.position_layer_norm_eps
        )
        self.encoder = VattEncoder(config)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.encoder(frames + self.positions((frames.shape[1],)))[0]


def tower_class(name: str, config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class that encodes a modality with a config of transformers.

    Raises:
        ValueError: no class can, with the reason.
    """
    if isinstance(config, VattRemoteConfig):
        raise ValueError(_UNTRUSTED.format(name=name, source=""))
    model_class: Any = None
    if name == "text" and type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING:
        model_class = MODEL_FOR_TEXT_ENCODING_MAPPING[type(config)]
    elif type(config) in MODEL_MAPPING:
        model_class = MODEL_MAPPING[type(config)]
        if isinstance(model_class, list | tuple):
            model_class = model_class[0]
        if getattr(config, "is_encoder_decoder", False):
            name_of_encoder = model_class.__name__.removesuffix("Model") + "Encoder"
            model_class = _class_of(model_class.__module__, name_of_encoder)
    elif type(config).__module__.startswith("transformers.models."):
        # A part of a composite model, such as `ClapAudioModel`.
        module = type(config).__module__.replace(".configuration_", ".modeling_")
        model_class = _class_of(module, type(config).__name__.removesuffix("Config") + "Model")
    if model_class is None:
        raise ValueError(
            f"A {config.model_type} cannot be the {name} tower: transformers has no encoder for this config. "
            "Choose an encoder."
        )
    if model_class.main_input_name not in _TOWER_INPUTS[name]:
        raise ValueError(
            f"{model_class.__name__} cannot be the {name} tower: it takes `{model_class.main_input_name}` "
            f"instead of {' or '.join(f'`{given}`' for given in _TOWER_INPUTS[name])}. Choose another model."
        )
    return model_class


def _class_of(module: str, name: str) -> type[PreTrainedModel] | None:
    """A class that no Auto class lists."""
    found = getattr(importlib.import_module(module), name, None)
    return found if isinstance(found, type) and issubclass(found, PreTrainedModel) else None


def find_kind(name: str, model_class: type[PreTrainedModel], config: PreTrainedConfig) -> str:
    """Whether a video tower takes pictures or clips; the name of the others."""
    if name != "video":
        return name
    modalities = model_class.input_modalities
    clips = "video" in ((modalities,) if isinstance(modalities, str) else modalities)
    counted = any(hasattr(config, field) for field in ("num_frames", "frames_per_clip", "tubelet_size"))
    return "video" if clips or counted or model_class.main_input_name == "pixel_values_videos" else "image"


def default_pooling(
    kind: str, model_class: type[PreTrainedModel], config: PreTrainedConfig, missing: Any = ()
) -> str:
    """Default pooling of a model; `missing`: parameters that the checkpoint lacks."""
    pooled = "Pooling" in str(inspect.signature(model_class.forward).return_annotation)
    pooled &= getattr(config, "vision_use_head", True) is not False
    extra = _can_leave_pooler_out(model_class)
    untrained = any("pooler" in str(key).split(".") or "head" in str(key).split(".") for key in missing)
    trained = _TRAINED_POOLINGS.get(config.model_type)
    if trained is not None and not (trained == "pooler" and untrained):
        return trained
    if kind == "text" and extra:
        return "mean"  # BERT's pooler was trained for next-sentence prediction
    if pooled and not untrained:
        return "pooler"
    if kind == "image" and extra:
        return "first"  # ViT without its pooler
    if _is_remote(config) and kind == "image":
        return "pooler"  # not annotated; forward checks
    return "mean"


def load_remote_config(remote: VattRemoteConfig, folder: str, **kwargs: Any) -> PreTrainedConfig:
    """The config of a tower whose code comes with a checkpoint (folder or name on the Hub). Loads that code,
    so only if it is trusted. `kwargs`: of `get_class_from_dynamic_module`."""
    content = dict(remote.content or {})
    config_class = _remote_class(content["auto_map"]["AutoConfig"], folder, **kwargs)
    config = config_class(**content)
    config.auto_map = content["auto_map"]
    _register_remote(config, folder, **kwargs)
    return config


def _register_remote(config: PreTrainedConfig, folder: str, **kwargs: Any) -> None:
    """Register the class that came with a config with `AutoModel`."""
    reference = (getattr(config, "auto_map", None) or {}).get("AutoModel")
    if reference is not None and _is_remote(config):
        AutoModel.register(type(config), _remote_class(reference, folder, **kwargs), exist_ok=True)


def _remote_class(reference: str, folder: str, **kwargs: Any) -> Any:
    """A class that came with a checkpoint; ValueError if its code needs missing packages."""
    try:
        return get_class_from_dynamic_module(reference, folder, **kwargs)
    except ImportError as error:
        raise ValueError(
            f"The code in {folder} cannot be loaded ({error}): install what it needs."
        ) from error


def _is_remote(thing: Any) -> bool:
    return type(thing).__module__.startswith("transformers_modules")


def save_remote_towers(towers: list["VattForeignTower"], folder: str | os.PathLike) -> list[str]:
    """Save the code that came with towers beside a model, and name it in their configs. Returns the names of
    the files; ValueError if two towers have different files of one name."""
    files: dict[str, str] = {}
    for tower in towers:
        if not _is_remote(tower.config):
            continue
        os.makedirs(folder, exist_ok=True)
        names = {}
        for auto, thing in (("AutoConfig", tower.config), ("AutoModel", tower.model)):
            for path in custom_object_save(thing, folder):
                with open(path, encoding="utf-8") as file:
                    text = file.read()
                if files.setdefault(os.path.basename(path), text) != text:
                    raise ValueError(
                        f"Towers have different files called {os.path.basename(path)}: rename one of them."
                    )
            names[auto] = f"{type(thing).__module__.rpartition('.')[2]}.{type(thing).__name__}"
        tower.config.auto_map = names
    return list(files)


def _can_leave_pooler_out(model_class: type[PreTrainedModel]) -> bool:
    return "add_pooling_layer" in inspect.signature(model_class.__init__).parameters


def _build(model_class: type[PreTrainedModel], config: PreTrainedConfig, pooler: bool) -> PreTrainedModel:
    extra = {} if pooler or not _can_leave_pooler_out(model_class) else {"add_pooling_layer": False}
    if not getattr(model_class, "_supports_sdpa", False) or "flash" in str(config._attn_implementation):
        config._attn_implementation = None
    return model_class(config, **extra)


@dataclass
class Source:
    """A pretrained model for a tower: its encoder, and how it is used."""

    model: PreTrainedModel
    use: VattTowerUse


def find_towers(sources: dict[str, Any], hub_kwargs: dict[str, Any] | None = None) -> dict[str, Any]:
    """Check that the checkpoints of towers exist, before any is loaded.

    Args:
        sources: modality -> folder, name on the Hub or a loaded model.
        hub_kwargs: `revision`, `token`, `cache_dir`.

    Returns:
        `hub_kwargs` with `local_files_only` True if the Hub does not answer.

    Raises:
        ValueError: one does not exist.
    """
    hub = dict(hub_kwargs or {})
    if "local_files_only" in hub:
        return hub
    known, offline = {key: value for key, value in hub.items() if key in HUB_OPTIONS}, False
    for name, source in sources.items():
        try:
            if isinstance(source, str | os.PathLike):
                offline |= require_repository(source, bare=True, **known)
        except OSError as error:
            raise ValueError(f"{name} tower: {error}") from error
    return {**hub, "local_files_only": offline}


def load_tower(name: str, source: str | PreTrainedModel, settings: dict[str, Any], **kwargs: Any) -> Source:
    """The encoder of a modality from a checkpoint, or from the fitting part of a composite model.

    Args:
        name: `"video"`, `"audio"` or `"text"`.
        source: folder, name on the Hub, or a loaded model.
        settings: of [`VattTowerUse`], in place of the defaults for the model.
        kwargs: of `from_pretrained` (`trust_remote_code`, `revision`, `token`, `cache_dir`, `dtype`).

    Raises:
        ValueError: a checkpoint that cannot serve, with the reason.
    """
    missing: Any = ()
    hub = {key: value for key, value in kwargs.items() if key in HUB_OPTIONS}
    if isinstance(source, PreTrainedModel):
        whole, config = source, source.config
    else:
        config_options = {key: value for key, value in kwargs.items() if key != "dtype"}
        with _loading(name, source, "no model of transformers"):
            config = AutoConfig.from_pretrained(source, **config_options)
        with _loading(name, source):
            _register_remote(config, source, **hub)
        part = getattr(config, _TOWER_PARTS[name], None) or config
        model_class = tower_class(name, part)  # refuses before anything is loaded
        loader: Any = model_class if name == "text" and part is config else AutoModel
        with _loading(name, source):
            whole, info = loader.from_pretrained(source, config=config, output_loading_info=True, **kwargs)
        missing = info["missing_keys"]
    model = _encoder_of(name, whole)
    inside = {id(value) for value in model.state_dict(keep_vars=True).values()}
    weights = whole.state_dict(keep_vars=True).items()
    missing = [key for key, value in weights if key in missing and id(value) in inside]
    refuse_incomplete(f"{name} tower: {source}", model, missing)
    config = model.config
    use = VattTowerUse.read(name, settings)
    model_class = type(model)
    use.kind = use.kind or find_kind(name, model_class, config)
    if use.pooling is None:
        use.pooling = _stated_pooling(source, hub) if name == "text" else None
        use.pooling = use.pooling or default_pooling(use.kind, model_class, config, missing)
    elif use.pooling == "pooler" and any("pooler" in str(key).split(".") for key in missing):
        raise ValueError(f"{name} tower: {source} has no trained pooler: choose another `pooling`.")
    if use.pooling != "pooler" and _can_leave_pooler_out(model_class):
        model.pooler = None  # type: ignore[assignment]
    if config.model_type in _READS_PADDING:
        use.use_attention_mask = False
    if use.kind == "video" and "num_frames" not in settings:
        use.num_frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", 16)
    return Source(model, VattTowerUse.read(name, use.settings()))


@contextmanager
def _loading(name: str, source: str, fault: str = "it cannot be loaded") -> Iterator[None]:
    """Turns errors into a ValueError that names the tower, the fault and the reason."""
    try:
        yield
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            raise ValueError(_UNTRUSTED.format(name=name, source=f" {source}")) from error
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        fault = "its code cannot run here" if isinstance(error, ImportError) else fault
        raise ValueError(
            f"{name} tower: {source}: {fault} ({reason}). Check the name, or pass a whole folder."
        ) from error


def _encoder_of(name: str, whole: PreTrainedModel) -> PreTrainedModel:
    """The part of a model that encodes a modality."""
    part = getattr(whole.config, _TOWER_PARTS[name], None)
    if part is not None:
        for child in whole.children():
            if isinstance(child, PreTrainedModel) and type(child.config) is type(part):
                return child
        raise ValueError(f"{type(whole).__name__} holds no {name} model of its own: pass the encoder itself.")
    expected = tower_class(name, whole.config)
    for module in whole.modules():
        if isinstance(module, expected):
            return module
    raise ValueError(f"{type(whole).__name__} cannot be the {name} tower: pass a {expected.__name__}.")


def refuse_incomplete(source: str, model: PreTrainedModel, missing: Iterable[str]) -> None:
    """Raise ValueError if `source` lacked weights that an encoder needs; they are random."""
    if lacking := sorted(key for key in missing if not _MAY_BE_MISSING.search(key)):
        raise ValueError(
            f"{source} lacks {len(lacking)} weights of a {type(model).__name__}, such as {lacking[0]}, which "
            "would be random: choose a whole checkpoint."
        )


def _stated_pooling(source: str | PreTrainedModel, hub: dict[str, Any]) -> str | None:
    """The pooling that a checkpoint of sentence-transformers states; ValueError for one not offered here, and
    for steps before or after it. `Normalize` may follow: it changes no cosine."""
    name = source if isinstance(source, str) else source.name_or_path
    if not name:
        return None
    modules = read_json(name, "modules.json", **hub) or [{"type": "Pooling", "path": "1_Pooling"}]
    paths = {module["type"].rpartition(".")[2]: module["path"] for module in modules}
    steps = [f"`{kind}`" for kind in paths if kind not in ("Transformer", "Pooling", "Normalize", "Dropout")]
    prompt = read_json(name, "config_sentence_transformers.json", **hub).get("default_prompt_name")
    steps += [f"the prompt {prompt!r}"] if prompt else []
    if steps:
        raise ValueError(
            f"text tower: sentence-transformers runs {name} with {' and '.join(steps)}, which is not offered "
            "here: choose another checkpoint, or a `pooling` to do without."
        )
    stated = read_json(name, f"{paths['Pooling']}/config.json", **hub) if "Pooling" in paths else {}
    # One name or several since version 6; before, a switch for each.
    old = [mode for mode in stated if mode.startswith("pooling_mode_") and stated[mode] is True]
    modes = stated.get("pooling_mode") or old
    mode = modes if isinstance(modes, str) else modes[0] if len(modes) == 1 else " and ".join(modes)
    if mode and mode not in _STATED_POOLINGS:
        raise ValueError(
            f"text tower: {name} pools by {mode}, which is not offered here: choose another `pooling` or "
            "checkpoint."
        )
    return _STATED_POOLINGS.get(mode)
