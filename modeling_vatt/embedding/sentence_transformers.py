# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""VATT as a model of sentence-transformers; needs the extra `sentence-transformers`.

Once this package is imported, the library loads its saved models without `trust_remote_code`, and folders
without `modules.json` with this class (not with the features before the heads).
"""

import json
import os
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from sentence_transformers.base.modality import is_message_dict
from sentence_transformers.base.modules import InputModule
from sentence_transformers.sentence_transformer.model import SentenceTransformer
from sentence_transformers.util import load_file_path

from ..configuration import VattConfig
from ..hub.sentence_transformers import EMBEDDER
from ..models.loading import load_pretrained
from ..models.losses import normalize
from ..models.modeling_vatt import INPUT_NAMES, VattForPreTraining, VattModel
from ..processors import DEFAULT_LIMITS, VattProcessor
from ..processors.inputs import RatedSound, sound_of, unwrapped
from ..processors.media import PICTURE_SUFFIXES, SOUND_SUFFIXES, VIDEO_SUFFIXES
from ..processors.media.source import is_url
from ..repositories import asked_once
from .identity import base_model


SPACES = ("vt", "va")


class VattEmbedder(InputModule):
    r"""Text, sound, video and their combinations to vectors `[vt | va]`.

    Each half is the normalised embedding in the video-text or the video-audio space, or zeros if an input has
    none (text in the video-audio space of the FAC head, a silent clip). So the similarity of these models,
    the dot product, is the sum of the cosines in the spaces that both sides have. An input of several
    modalities is, in each space, the normalised sum of their normalised embeddings.

    ```python
    >>> from sentence_transformers import SentenceTransformer
    >>> model = SentenceTransformer("my_vatt", trust_remote_code=True)
    >>> clips = model.encode_document(["dog.mp4", {"video": "rain.mp4", "audio": "rain.mp4"}])
    >>> model.similarity(model.encode_query("a dog barks"), clips)
    ```

    Args:
        model ([`VattModel`] or [`VattForPreTraining`]): with all towers; what the latter has learned of its
            losses is saved with it.
        processor ([`VattProcessor`]): of the model.
        spaces: halves of the vectors, `"vt"` and `"va"`, always in this order.
        windows: windows spread over each clip, whose embeddings are averaged; one is centred.

    `encode(..., spaces="vt", windows=4)` sets both for a call. Saved models state the dot product as their
    similarity; for `SentenceTransformer(modules=[VattEmbedder(...)])` it has to be set.
    """

    config_file_name = "vatt_embedder_config.json"
    config_keys = ["spaces", "windows"]
    forward_kwargs = {"spaces", "windows"}

    def __init__(
        self,
        model: VattModel | VattForPreTraining,
        processor: VattProcessor,
        spaces: str | Sequence[str] = SPACES,
        windows: int = 1,
    ) -> None:
        super().__init__()
        self.model = base_model(model)
        if self.model.head is None:
            raise ValueError("`model` has no common spaces: use a pretrained model with all towers.")
        self._whole = (model,)  # a tuple, as temperatures are not trained here
        self.processor = processor
        self.spaces = checked_spaces(spaces)
        self.windows = windows
        self.limits = DEFAULT_LIMITS

    @property
    def tokenizer(self) -> Any:
        """The processor's."""
        return self.processor.tokenizer

    @tokenizer.setter
    def tokenizer(self, value: Any) -> None:
        self.processor.tokenizer = value

    @property
    def max_seq_length(self) -> int:
        """Words of a text that are read."""
        return self.tokenizer.model_max_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self.tokenizer.model_max_length = value

    @property
    def modalities(self) -> list[Any]:
        """Modalities that can be embedded; `message` also stands for batches of several ones."""
        return ["text", "image", "audio", "video", "message"]

    def get_embedding_dimension(self) -> int:
        """Width of the vectors."""
        return sum(getattr(self.model.config, f"{space}_projection_size") for space in self.spaces)

    def preprocess(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        spaces: str | Sequence[str] | None = None,
        windows: int | None = None,
        task: str | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Inputs of the model.

        Args:
            inputs: words; paths or URLs of media; arrays, (samples,) at the model's rate and (frames, height,
                width, channels) at its frame rate; bytes or file objects of videos; PIL images; rows and
                decoders of `datasets` and torchcodec; dicts with `text`, `audio`, `video` or `image`; chat
                messages that hold these. A text that ends like a medium must be a file; `{"text": ...}`
                is always words.
            prompt: put before texts.
            windows: see the class.
            spaces, task: not needed here.

        Returns:
            The tensors of each modality, and under `{modality}_rows` the indices of their inputs; under
            `inputs` all indices, and their `count`. Losses with a gradient cache split the tensors.

        Raises:
            ValueError: inputs that cannot be embedded.
            MediaError: a file that cannot be used.
        """
        if kwargs:
            raise ValueError(f"{', '.join(kwargs)}: cannot be honoured, leave it out.")
        windows = self.windows if windows is None else windows
        clips: dict[str, list[tuple[int, torch.Tensor]]] = {}
        texts: dict[int, str] = {}
        for index, item in enumerate(inputs):
            row = split_modalities(item)
            if "text" in row:
                texts[index] = (prompt or "") + row.pop("text")
            for modality, values in (self._media(row, windows) if row else {}).items():
                clips.setdefault(modality, []).append((index, values))
        features: dict[str, Any] = {"inputs": torch.arange(len(inputs)), "count": len(inputs)}
        for modality, parts in clips.items():
            features[INPUT_NAMES[modality]] = torch.cat([values for _, values in parts])
            rows = [torch.full((len(values),), index) for index, values in parts]
            features[f"{modality}_rows"] = torch.cat(rows)
        if texts:
            features |= {"text_rows": torch.tensor(list(texts)), **self.processor(text=list(texts.values()))}
        return features

    def _media(self, row: dict[str, Any], windows: int) -> dict[str, torch.Tensor]:
        """Modality -> windows of one clip, without those that are silent."""
        sound, video = row.get("audio"), row.get("video")
        options: dict[str, Any] = {}
        if isinstance(video, Mapping) and "video_metadata" in video:
            if video["video_metadata"] is not None:
                options = {"video_metadata": video["video_metadata"], "do_sample_frames": True}
            video = video["array"]
        batch = self.processor(
            videos=None if video is None else [video],
            audio=None if sound is None else [sound],
            windows=windows,
            load_audio_from_video=False,
            limits=self.limits,
            **options,
        )
        tensors = {modality: batch[name] for modality, name in INPUT_NAMES.items() if name in batch}
        if "audio" in tensors:
            tensors["audio"] = tensors["audio"][batch["audio_mask"].bool()]
        return tensors

    def forward(
        self, features: dict[str, Any], spaces: str | Sequence[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Add `sentence_embedding`, float32 (inputs, width), to the result of
        [`~VattEmbedder.preprocess`], or to a part of it; ValueError for tensors of different inputs."""
        wanted = self.spaces if spaces is None else checked_spaces(spaces)
        inputs = features["inputs"]
        halves = {
            space: torch.zeros(
                len(inputs),
                getattr(self.model.config, f"{space}_projection_size"),
                device=self.model.device,
            )
            for space in wanted
        }
        for modality, name in INPUT_NAMES.items():
            if name not in features:
                continue
            rows = features[f"{modality}_rows"]
            if len(inputs) < features["count"] and not torch.equal(rows, inputs):
                raise ValueError(
                    "A loss with a gradient cache needs columns whose rows have the same modalities, no "
                    "silent sound among them, and `windows=1`: mend the columns, or take a loss without."
                )
            masks = (features["attention_mask"],) if modality == "text" else ()
            output = getattr(self.model, f"get_{modality}_features")(features[name], *masks)
            for space, half in halves.items():
                embeds = output.get(f"{space}_embeds")
                if embeds is not None:
                    if modality == "text":  # one without words has no embedding
                        embeds = embeds * features["text_mask"].unsqueeze(1)
                    total = torch.zeros_like(half).index_add(0, rows - inputs[:1], embeds.float())
                    halves[space] = halves[space] + _unit(total)
        features["sentence_embedding"] = torch.cat([_unit(halves[space]) for space in wanted], dim=1)
        return features

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Model, processor and the settings of this class; safetensors only."""
        (whole,) = self._whole
        base = getattr(self.model, "_orig_mod", self.model)  # without `torch.compile`
        if whole is whole.base_model:
            whole = base
        else:
            whole.vatt = base  # it may have been replaced
        whole.save_pretrained(output_path)
        self.processor.save_pretrained(output_path)
        self.save_config(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **kwargs: Any) -> Any:
        """A saved model, by folder or name on the Hub; `kwargs` of [`SentenceTransformer`].

        Raises:
            ValueError: a model without all towers and their head; settings that are not offered.
        """
        for name in ("backend", "config_kwargs"):
            if kwargs.get(name) not in (None, {}, "torch"):
                raise ValueError(f"`{name}={kwargs[name]!r}` cannot be honoured here: leave it out.")
        names = ("subfolder", "token", "revision", "local_files_only")
        hub: dict[str, Any] = {name: kwargs[name] for name in names if kwargs.get(name)}
        settings = cls.load_config(model_name_or_path, cache_folder=kwargs.get("cache_folder"), **hub)
        if kwargs.get("cache_folder"):
            hub["cache_dir"] = kwargs["cache_folder"]
        hub = asked_once(model_name_or_path, "config.json", hub)
        options = {**hub, **(kwargs.get("model_kwargs") or {})}
        if kwargs.get("trust_remote_code"):
            options["trust_remote_code"] = True
        saved = VattConfig.from_pretrained(model_name_or_path, **hub).architectures or ()
        kind: Any = VattForPreTraining if "VattForPreTraining" in saved else VattModel
        model, _ = load_pretrained(kind, model_name_or_path, **options)
        options = {**hub, **(kwargs.get("processor_kwargs") or {})}
        return cls(model, VattProcessor.from_pretrained(model_name_or_path, **options), **settings)


def checked_spaces(spaces: str | Sequence[str]) -> tuple[str, ...]:
    """Spaces in their order; raises `ValueError` for others."""
    names = (spaces,) if isinstance(spaces, str) else tuple(spaces)
    if not names or not set(names) <= set(SPACES):
        raise ValueError(f'`spaces` must be of "vt" and "va", got {spaces!r}.')
    return tuple(space for space in SPACES if space in names)


def split_modalities(item: Any) -> dict[str, Any]:
    """`text`, `audio` and `video` of one input in any form, see [`VattEmbedder.preprocess`]; ValueError for
    invalid or ambiguous forms."""
    messages = item if isinstance(item, list | tuple) and item and is_message_dict(item[0]) else [item]
    if is_message_dict(messages[0]):
        return _message_modalities(messages)
    if not isinstance(item, Mapping) or not set(item) & {*INPUT_NAMES, "image"}:
        item = {_modality(item): item}
    row: dict[str, Any] = {}
    for name, value in item.items():
        if name not in (*INPUT_NAMES, "image"):
            raise ValueError(
                f"An input has `text`, `audio`, `video` or `image`, not {name!r}: put what belongs to a "
                "medium into its value."
            )
        if value is None:
            continue
        name = "video" if name == "image" else name
        if name in row:
            raise ValueError("An input has a `video` or an `image`: pass one of them.")
        row[name] = value
    if not row:
        raise ValueError(f"An input must hold a text or a medium, got {reprlib.repr(item)}.")
    if "text" in row and not isinstance(row["text"], str):
        raise ValueError(f"`text` must be one string, got {reprlib.repr(row['text'])}.")
    if "audio" in row:
        row["audio"] = sound_of(unwrapped(row["audio"], resample=True))
    return row


def _message_modalities(messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Modalities of a conversation of one user."""
    row: dict[str, Any] = {}
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            kind = str(part.get("type"))
            if kind in row or part.get(kind) is None:
                raise ValueError(
                    "Messages must hold one text, sound and video at most, each under the name of its "
                    f"`type`; got {reprlib.repr(messages)}."
                )
            row[kind] = part[kind]
    return split_modalities(row)


def _modality(item: Any) -> str:
    """Modality of an input without a key."""
    if isinstance(item, str):
        return _modality_of_words(item)
    if isinstance(item, os.PathLike):
        return _modality_of_name(os.fspath(item)) or "video"
    if isinstance(item, Mapping):
        if "array" in item:
            return "video" if "video_metadata" in item else "audio"
        return (item.get("path") and _modality_of_name(str(item["path"]))) or "video"
    if hasattr(item, "get_all_samples") or hasattr(item, "sample_rate") or isinstance(item, RatedSound):
        return "audio"
    if isinstance(item, np.ndarray | torch.Tensor) and item.ndim in (1, 2):
        return "audio"
    if item is None or (isinstance(item, list | tuple) and not all(map(_is_picture, item))):
        raise ValueError(
            f"An input must be a text, a medium or a dict of these, got {reprlib.repr(item)}: pairs and "
            "lists have no vector."
        )
    return "video"


def _modality_of_words(text: str) -> str:
    """Modality of a string: a medium if it has a known ending or is an existing file, else text."""
    named = None if any(sign in text for sign in "\n\0") else _modality_of_name(text)
    if is_url(text) and " " not in text:
        return named or "video"
    if len(text) < 4096 and "\0" not in text and os.path.isfile(text) and (named or Path(text).suffix):
        return named or "video"
    if named and " " not in text:
        raise ValueError(
            f'{text}: no such file. Check the path; if it is meant as words, give {{"text": ...}}.'
        )
    return "text"


def _modality_of_name(name: str) -> str | None:
    suffix = Path(urlsplit(name).path if is_url(name) else name).suffix.lower()
    if suffix in SOUND_SUFFIXES:
        return "audio"
    return "video" if suffix in VIDEO_SUFFIXES or suffix in PICTURE_SUFFIXES else None


def _is_picture(item: Any) -> bool:
    return hasattr(item, "getbands") or getattr(item, "ndim", None) == 3


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors of length 1; zeros stay zeros, with gradient zero."""
    present = (vectors != 0).any(1, keepdim=True)
    return torch.where(present, normalize(torch.where(present, vectors, 1.0)), 0.0)


_load_default_modules = SentenceTransformer._load_default_modules


def _load_modules(self: Any, model_name_or_path: str, **kwargs: Any) -> Any:
    """Modules of a folder or repository without `modules.json`."""
    hub = {name: kwargs[name] for name in ("token", "cache_folder", "revision", "local_files_only")}
    path = load_file_path(model_name_or_path, "config.json", **hub)
    if path is None or json.loads(Path(path).read_text(encoding="utf-8")).get("model_type") != "vatt":
        return _load_default_modules(self, model_name_or_path, **kwargs)
    if self._similarity_fn_name is None:
        self.similarity_fn_name = "dot"
    return [VattEmbedder.load(model_name_or_path, backend=self.backend, **kwargs)], {}


setattr(SentenceTransformer, "_load_default_modules", _load_modules)  # noqa: B010 (for mypy)
SentenceTransformer._module_classes = {
    **getattr(SentenceTransformer, "_module_classes", {}),
    EMBEDDER: VattEmbedder,
}
