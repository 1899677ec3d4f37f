# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Identity of a model: two models of equal identity give the same embeddings.

An index stores that of its model; only identities of loaded models need torch and transformers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from ..models.modeling_vatt import VattForPreTraining, VattModel
    from ..processors import VattProcessor


def base_model(model: VattModel | VattForPreTraining) -> VattModel:
    """The model without its loss."""
    base: Any = model.base_model
    return base


def hash_weights(model: VattModel | VattForPreTraining) -> str:
    """SHA-256 of names and values of all weights."""
    from ..models.locking import hash_tensors  # brings torch

    return hash_tensors(base_model(model).state_dict().items())


@dataclass(frozen=True)
class ModelIdentity:
    """What embeddings depend on.

    Args:
        name: folder or Hub id, for `from_pretrained`.
        revision: commit on the Hub, None for a folder.
        weights: see [`hash_weights`].
        video, audio: settings of the video processor and the feature extractor.
        words: SHA-256 of the tokenizer's vocabulary.
        dims: width of the embeddings in the spaces `va` and `vt`.
        config: settings of the model; indexes of earlier versions have none.

    Raises:
        TypeError: settings that are no mapping.
    """

    name: str
    revision: str | None
    weights: str
    video: Mapping[str, Any]
    audio: Mapping[str, Any]
    words: str
    dims: Mapping[str, int]
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("video", "audio", "dims", "config"):
            if not isinstance(getattr(self, name), Mapping):
                raise TypeError(f"`{name}` must be a mapping, got {getattr(self, name)!r}.")

    @classmethod
    def of(
        cls, model: VattModel | VattForPreTraining, processor: VattProcessor, name: str | None = None
    ) -> ModelIdentity:
        """Identity of a loaded model and its processor; `name`: default where it was loaded from."""
        config = base_model(model).config
        vocabulary = json.dumps(sorted(processor.tokenizer.get_vocab().items()))
        return cls(
            name=name or config.name_or_path,
            revision=getattr(config, "_commit_hash", None),
            weights=hash_weights(model),
            video=_settings(processor.video_processor),
            audio=_settings(processor.feature_extractor),
            words=hashlib.sha256(vocabulary.encode()).hexdigest(),
            dims={"va": config.va_projection_size, "vt": config.vt_projection_size},
            config=_model_settings(config),
        )

    def differences(self, other: ModelIdentity) -> list[str]:
        """Differences that change embeddings, in words; names and revisions do not."""
        found = []
        if self.weights != other.weights:
            found.append("the weights")
        for part, mine, theirs in (
            ("video", self.video, other.video),
            ("sound", self.audio, other.audio),
            ("dimension", self.dims, other.dims),
        ):
            for key in sorted((mine.keys() | theirs.keys()) - {"auto_map"}):  # saved code, or none
                if mine.get(key) != theirs.get(key):
                    found.append(f"{part} setting `{key}` ({mine.get(key)} and {theirs.get(key)})")
        # A setting that only one of them has is of a later version, whose default is the former behaviour.
        for key in sorted(self.config.keys() & other.config.keys()):
            if self.config[key] != other.config[key]:
                found.append(f"model setting `{key}` ({self.config[key]} and {other.config[key]})")
        if self.words != other.words:
            found.append("the vocabulary")
        return found

    def to_dict(self) -> dict[str, Any]:
        """As a dict for JSON."""
        return asdict(self)


def _model_settings(config: PreTrainedConfig) -> dict[str, Any]:
    """Settings of a VATT and its towers (`video_config.hidden_act`), without those of every model."""
    from transformers import PreTrainedConfig

    common = PreTrainedConfig().to_dict().keys() | {"model_type"}

    def own(settings: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in settings.items() if key[:1] != "_" and key not in common}

    found: dict[str, Any] = {}
    for key, value in own(json.loads(json.dumps(config.to_dict(), default=str))).items():
        nested = own(value) if key.endswith("_config") and isinstance(value, dict) else None
        found |= {key: value} if nested is None else {f"{key}.{name}": nested[name] for name in nested}
    return found


def _settings(part: Any) -> dict[str, Any]:
    """Settings without the names of classes that versions of transformers add."""
    settings = {
        key: value
        for key, value in part.to_dict().items()
        if (not key.startswith("_") and not key.endswith(("_type", "_class"))) or key == "feature_type"
    }
    return json.loads(json.dumps(settings, sort_keys=True, default=str))
