# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Flags of `run_pretraining.py` for pretrained towers and for locking towers."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from common import check_output_dir, json_object, merge, naming
from transformers.hf_argparser import HfArg

from modeling_vatt import VattConfig, VattForPreTraining
from modeling_vatt.embedding.building import build_from_towers
from modeling_vatt.embedding.locked_features import locked_towers
from modeling_vatt.models.adapters import add_lora
from modeling_vatt.models.modeling_vatt import MODALITIES
from modeling_vatt.processors import VattProcessor


@dataclass
class TowerArguments:
    """Towers of one's own choice."""

    video_tower: str | None = HfArg(
        default=None, help="Pretrained model of pictures or video as video tower (folder or Hub name)."
    )
    audio_tower: str | None = HfArg(default=None, help="Pretrained model of sound as audio tower.")
    text_tower: str | None = HfArg(default=None, help="Pretrained text encoder as text tower.")
    tower_settings: str | None = HfArg(
        default=None, help='How such towers are used, as JSON, e.g. \'{"video": {"pooling": "mean"}}\'.'
    )
    trust_remote_code: bool = HfArg(default=False, help="Run code that comes with the checkpoints of towers.")
    window_seconds: float | None = HfArg(
        default=None,
        help="Length of a window of a new model; 3.2 if left out (10 frames per second with VATT's towers).",
    )
    num_frames: int | None = HfArg(
        default=None, help="Frames of a window for a tower of pictures; 4 if left out."
    )
    frames: str | None = HfArg(
        default=None, help="Settings of frames over those of the video tower's checkpoint, as JSON."
    )
    lock: list[str] = HfArg(
        default_factory=list,
        help="Towers not to train: video, audio, text; text:4 for its first 4 blocks; text:0 unlocks it in a "
        "--model.",
    )
    lora: list[str] = HfArg(
        default_factory=list, help="Towers to train by LoRA only, with its rank: video:16 text:8. Needs PEFT."
    )
    projection: Literal["none", "mlp", "linear", "kernel"] | None = HfArg(
        default=None,
        help="What stands between locked towers and the head of a new model: none (if left out), mlp, "
        "linear: nothing but a dense layer; or kernel: fitted to the cached features of video and text, "
        "not trained. The last two come with the joint head.",
    )
    cache_features: bool = HfArg(
        default=False, help="Pass every window through locked towers once; training then reads vectors."
    )
    cache_dir: str | None = HfArg(
        default=None, help="Folder of these features, for several runs; features in --output_dir if left out."
    )
    cache_windows: int = HfArg(default=1, help="Windows of a clip that are cached.")
    cache_dtype: Literal["float32", "bfloat16"] = HfArg(
        default="float32", help="Of cached features, and of the towers while they are computed."
    )

    def __post_init__(self) -> None:
        locked = {name for name, blocks in self.locks().items() if blocks is None}
        if self.fits and ({"video", "text"} - locked or not self.cache_features):
            raise ValueError(
                "--projection kernel is fitted to cached features: give --cache_features --lock video text."
            )
        cache = (self.cache_dir, self.cache_windows, self.cache_dtype)
        if cache != (None, 1, "float32") and not self.cache_features:
            raise ValueError(
                "--cache_dir, --cache_windows and --cache_dtype are for --cache_features: give it."
            )
        if self.projection not in (None, "none") and not locked:
            raise ValueError(f"--projection {self.projection} is for locked towers: give --lock video text.")

    @property
    def fits(self) -> bool:
        """Whether projections are fitted instead of trained."""
        return self.projection == "kernel"

    def sources(self) -> dict[str, str]:
        """Modality -> checkpoint."""
        found = {name: getattr(self, f"{name}_tower") for name in MODALITIES}
        return {name: source for name, source in found.items() if source is not None}

    def refuse_idle(self) -> None:
        """ValueError for flags of a new model about towers that are not given."""
        if random := [name for name in self.locks() if name not in self.sources()]:
            raise ValueError(
                f"--lock {' '.join(random)}: VATT's own tower begins with random weights and keeps them. "
                f"Give --{random[0]}_tower, or do not lock it."
            )
        idle = ["num_frames", "frames"] if self.video_tower is None else []
        idle += [] if self.sources() else ["tower_settings", "projection"]
        if given := [f"--{name}" for name in idle if getattr(self, name) is not None]:
            raise ValueError(
                f"{', '.join(given)}: for towers that are other models, such as --video_tower. Leave it out; "
                "VATT's own are changed by --config_overrides."
            )

    def locks(self) -> dict[str, int | None]:
        """Tower -> number of its first blocks that are locked, None for the whole tower."""
        found: dict[str, int | None] = {}
        for lock in self.lock:
            name, colon, blocks = lock.partition(":")
            if name not in MODALITIES or (colon and not blocks.isdecimal()):
                raise ValueError(
                    f"--lock {lock}: give video, audio or text, or text:4 for its first 4 blocks."
                )
            found[name] = int(blocks) if colon else None
        return found

    def adapt(self, model: VattForPreTraining) -> None:
        """Lock towers, or put LoRA on them."""
        ranks: dict[str, int] = {}
        for tower in self.lora:
            name, _, rank = tower.partition(":")
            if not rank.isdecimal():
                raise ValueError(f"--lora {tower}: give a tower and a rank, such as video:16.")
            ranks[name] = int(rank)
        locks = self.locks()
        for blocks in dict.fromkeys(locks.values()):  # those of a shared encoder only together
            model.lock(*(name for name in locks if locks[name] == blocks), blocks=blocks)
        for name, size in ranks.items():
            with naming("--lora"):
                add_lora(model, name, size)

    def cached(self, model: VattForPreTraining) -> list[str]:
        """Locked towers whose features are cached."""
        found = locked_towers(model) if self.cache_features else []
        if self.cache_features and not found:
            raise ValueError("--cache_features needs towers that are not trained: give --lock video text.")
        if found and self.cache_dir:
            check_output_dir(self.cache_dir, "--cache_dir")
        return found

    def of_new_models(self) -> dict[str, Any]:
        """Flags that are not for a loaded model."""
        names = ("tower_settings", "window_seconds", "num_frames", "frames", "projection")
        return {f"{name}_tower": source for name, source in self.sources().items()} | {
            name: getattr(self, name) for name in names
        }

    def build(
        self, preset: str, overrides: str | None, make_tokenizer: Callable[[int], Any], num_captions: int
    ) -> tuple[VattForPreTraining, VattProcessor]:
        """Model and processor; towers without a checkpoint are those of the preset. `overrides`: value of
        --config_overrides; `make_tokenizer`: length -> tokenizer of VATT's own text tower."""
        config, sources = VattConfig.from_preset(preset), self.sources()
        if config.modality_agnostic:
            raise ValueError(f"--preset {preset}: its towers share an encoder. Take tiny, bbs, mbs or lbs.")
        of_preset = [f"{name}_config" for name in MODALITIES if name not in sources]
        fields = {
            name: value
            for name, value in VattConfig().to_dict().items()
            if name in VattConfig.__dataclass_fields__ and not name.endswith("_config") and name != "towers"
        }
        fields |= {name: config.to_dict()[name] for name in of_preset}
        if self.projection in ("linear", "kernel"):
            fields |= {"head_type": "joint", "vt_projection_size": fields["va_projection_size"]}
        changes = json_object("--config_overrides", overrides)
        with naming("--config_overrides"):
            fields = merge(fields, changes)
        tokenizer = None
        if "text" not in sources:
            tokenizer = make_tokenizer(fields["text_config"]["max_position_embeddings"])
            fields["text_config"]["vocab_size"] = len(tokenizer)
        towers = json_object("--tower_settings", self.tower_settings)
        if not all(isinstance(use, dict) for use in towers.values()):
            raise ValueError('--tower_settings: give an object for each tower: {"video": {"num_frames": 8}}.')
        if self.num_frames is not None:
            towers["video"] = {**towers.get("video", {}), "num_frames": self.num_frames}
        for name, blocks in self.locks().items():
            if self.projection is not None and blocks is None:
                before = "linear" if self.fits else self.projection
                towers[name] = {**towers.get(name, {}), "projection": before}
        processing: dict[str, Any] = {"tokenizer": tokenizer, "num_captions": num_captions}
        if self.window_seconds is not None:
            processing["seconds"] = self.window_seconds
        processing["frames"] = json_object("--frames", self.frames)
        try:
            return build_from_towers(
                **sources,
                towers=towers,
                processing=processing,
                trust_remote_code=self.trust_remote_code,
                **fields,
            )
        except ValueError as error:
            raise ValueError(re.sub(r"^(video|audio|text) tower: ", r"--\1_tower: ", str(error))) from error
