# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Features of locked towers, computed once, so that training reads vectors instead of files."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import BatchFeature

from .._version import __version__
from ..data import ClipDataset, SkippedClip, all_captions
from ..data.reading import is_decoded, name_of, part_of, read_row, source_of
from ..models.foreign import VattForeignTower
from ..models.locking import hash_locked
from ..models.losses import caption_ids
from ..models.modeling_vatt import INPUT_NAMES, MODALITIES, VattForPreTraining
from ..processors import DEFAULT_LIMITS, MediaClip, MediaError, VattProcessor
from ..processors.windows import read_windows, window_places
from .cache import Arrays, FeatureCache, content_of
from .embedding import _batched, _Item, _read_ahead
from .identity import base_model


# At a time: activations of more do not fit into the processor's cache.
_ROWS_ON_CPU = {"video": 1, "audio": 2, "text": 32}
# Settings of configs and processors that change no feature.
_PASSING = ("_name_or_path", "name_or_path", "transformers_version", "dtype", "architectures", "auto_map")


@dataclass
class LockedFeatures:
    """Features of clips and captions from locked towers.

    Args:
        media: "video", "audio" -> features (clips, windows, size); zeros where a clip is missing.
        captions: caption -> row of `text`.
        text: features (captions, size).
        text_mask: (captions,), 0 for those without words.
        spans: (clips, windows, 2), start and end of each window in its file, seconds.
        audio_mask: (clips, windows), 0 for windows without sound, if there are features of media.
        skipped: clip -> reason.
    """

    media: dict[str, torch.Tensor] = field(default_factory=dict)
    captions: dict[str, int] = field(default_factory=dict)
    text: torch.Tensor | None = None
    text_mask: torch.Tensor | None = None
    spans: torch.Tensor | None = None
    audio_mask: torch.Tensor | None = None
    skipped: dict[int, SkippedClip] = field(default_factory=dict)


def locked_towers(model: VattForPreTraining) -> list[str]:
    """Names of the fully locked towers; ValueError if one has a trained part before pooling."""
    names = [name for name in MODALITIES if model.config.use(name).locked is True]
    for name in names:
        tower = base_model(model).get_submodule(f"{name}_model")
        if isinstance(tower, VattForeignTower) and tower.temporal is not None:
            raise ValueError(
                f"The features of the {name} tower change in training, as `temporal_layers` over its frames "
                "are trained: set them to 0, or do not cache features."
            )
    return names


@torch.no_grad()
def compute_locked_features(
    model: VattForPreTraining,
    processor: VattProcessor,
    clips: Any,
    names: Sequence[str],
    folder: Path,
    windows: int = 1,
    batch_size: int = 16,
    num_workers: int = 1,
    dtype: Literal["float32", "bfloat16"] = "float32",
    share: tuple[int, int] = (0, 1),
    wait: Callable[[], Any] = lambda: None,
    progress: Callable[[int], None] = lambda clips: None,
    locked: Mapping[str, str] | None = None,
    **options: Any,
) -> LockedFeatures:
    """Pass the windows and captions of a table that the cache lacks through locked towers; clips that could
    not be read are tried again.

    Args:
        model: on its device; its locked towers are in evaluation mode.
        processor: of the model.
        clips: table of [`load_clips`] or a [`ShardDataset`].
        names: towers, of [`locked_towers`].
        folder: of the cache, by content of the file, part of it, tower, processor and limits.
        windows: of a clip, evenly spread.
        batch_size: clips at a time.
        num_workers: threads that decode.
        dtype: of the computation and of the cache.
        share: (rank, number of processes); each computes its part.
        wait: barrier of the processes.
        progress: called with the number of clips after each batch.
        locked: result of [`hash_locked`], if it is known.
        options: `limits` of media.

    Raises:
        ValueError: clips decoded once, whose windows are not those of their files.
    """
    if is_decoded(clips):
        raise ValueError("`decode_clips` leaves no files to know clips by. Pass `clips` as they were loaded.")
    locked = hash_locked(model) if locked is None else locked
    job = _Job(model, processor, dtype, batch_size, num_workers, share, locked)
    result = LockedFeatures()
    media = [name for name in names if name != "text"]
    if media:
        job.media(result, clips, media, folder, windows, wait, progress, options)
    if "text" in names:
        job.captions(result, ["", *{text for texts in all_captions(clips) for text in texts}], folder, wait)
    return result


# Inputs of the windows of a clip, their (start, end), and 1 for each that has sound.
_Read = tuple[BatchFeature, list[list[float]], list[int]]


@dataclass
class _Job:
    """Passes what the caches lack through the towers; arguments as of [`compute_locked_features`]."""

    model: VattForPreTraining
    processor: VattProcessor
    dtype: str
    batch_size: int
    num_workers: int
    share: tuple[int, int]
    locked: Mapping[str, str]

    def media(
        self,
        result: LockedFeatures,
        clips: Any,
        names: list[str],
        folder: Path,
        windows: int,
        wait: Callable[[], Any],
        progress: Callable[[int], None],
        options: dict[str, Any],
    ) -> None:
        asked = [windows, repr(options.get("limits", DEFAULT_LIMITS))]
        caches = {name: self._cache(folder, name, asked) for name in names}
        sources = [_media_key(clips[index]) for index in range(len(clips))]
        wanted = dict(zip(sources, range(len(clips)), strict=True))  # equal clips only once
        known = [caches[name].keys() for name in names]
        missing = [key for key in self._mine(wanted) if any(repr(key) not in there for there in known)]
        reading = {**self.processor.clip_options(), **options}

        def read(key: Any) -> _Read | MediaError:
            return self._read(clips[wanted[key]], names, reading, window_places(windows))

        for batch, items in _read_ahead(_batched(missing, self.batch_size), self.num_workers, read):
            self._keep(batch, items, caches, windows)
            progress(len(batch))
        wait()
        for name in names:
            self._collect(result, name, caches[name], clips, [repr(source) for source in sources], windows)

    def _read(
        self, row: dict[str, Any], names: list[str], options: dict[str, Any], places: list[float]
    ) -> _Read | MediaError:
        """Inputs, spans and presence of sound, of the windows of a clip."""
        try:
            windows = read_row(row, "video", options, places)
            inputs = self.processor(
                videos=windows, start=0.0, load_audio_from_video="audio" in names, return_tensors="pt"
            )
        except MediaError as error:
            return error
        spans = [[window.start, window.start + window.duration] for window in windows]
        return inputs, spans, [int(_heard(window) is not None) for window in windows]

    def _keep(
        self, batch: list[Any], items: list[_Read | MediaError], caches: dict[str, FeatureCache], windows: int
    ) -> None:
        """Pass clips through the towers into the caches, or store why they cannot be read."""
        good = [item for item in items if not isinstance(item, MediaError)]
        errors = ["" if not isinstance(item, MediaError) else json.dumps(item.args) for item in items]
        rows = [place for place, item in enumerate(items) if not isinstance(item, MediaError)]
        common: Arrays = {
            "errors": np.array(errors),
            "rows": np.array(rows, dtype=np.int64),
            "spans": np.array([spans for _, spans, _ in good]).reshape(len(good), windows, 2),
            "audio_mask": np.array([heard for *_, heard in good]).reshape(len(good), windows),
        }
        for name, cache in caches.items():
            arrays = dict(common)
            if good:
                inputs = torch.cat([item[INPUT_NAMES[name]] for item, *_ in good])
                arrays["features"] = self._features(name, inputs).reshape(len(good), windows, -1)
            cache.save(batch, arrays)

    def _mine(self, items: Iterable[_Item]) -> list[_Item]:
        """This process's part of all items, as the missing ones change meanwhile."""
        return list(items)[self.share[0] :: self.share[1]]

    def _collect(
        self,
        result: LockedFeatures,
        name: str,
        cache: FeatureCache,
        clips: Any,
        keys: list[str],
        windows: int,
    ) -> None:
        """Put cached features of a tower into the order of the table."""
        places: dict[str, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(key, []).append(place)
        size = self.model.config.output_size(name)
        features = torch.zeros(len(keys), windows, size, dtype=getattr(torch, self.dtype))
        spans = torch.zeros(len(keys), windows, 2, dtype=torch.float64)
        mask = torch.zeros(len(keys), windows, dtype=torch.int64)
        lacking, errors = set(places), {}
        for names, arrays in cache.all():
            row = {number: place for place, number in enumerate(arrays["rows"].tolist())}
            for number, key in enumerate(names):
                if number not in row:
                    errors[key] = str(arrays["errors"][number])
                    continue
                lacking.discard(key)
                for place in places.get(key, []):
                    features[place] = self._tensor(arrays["features"][row[number]])
                    spans[place] = torch.from_numpy(arrays["spans"][row[number]])
                    mask[place] = torch.from_numpy(arrays["audio_mask"][row[number]])
        for key in lacking & errors.keys():  # no run could read them
            for place in places[key]:
                _, *reason = json.loads(errors[key])
                row_of_clip = clips[place]
                error = MediaError(name_of(row_of_clip), *reason)
                result.skipped[place] = SkippedClip.of(row_of_clip, error)
        if lacking := lacking - errors.keys():
            raise RuntimeError(
                f"{cache.folder}: the features of {len(lacking)} clips have gone. Give the command again."
            )
        result.media[name], result.spans, result.audio_mask = features, spans, mask

    def captions(
        self, result: LockedFeatures, texts: Iterable[str], folder: Path, wait: Callable[[], Any]
    ) -> None:
        texts = sorted(set(texts))
        cache = self._cache(folder, "text")
        known = cache.keys()
        missing = [text for text in self._mine(texts) if repr(text) not in known]
        config = self.model.config
        masked = config.is_foreign("text") and config.use("text").use_attention_mask
        padding = "longest" if masked else "max_length"  # without a mask, padding counts
        for batch in _batched(missing, 256):
            inputs = self.processor(text=batch, padding=padding, return_tensors="pt")
            features = self._features("text", inputs["input_ids"], inputs["attention_mask"])
            cache.save(batch, {"features": features, "text_mask": inputs["text_mask"].numpy()})
        wait()
        rows: dict[str, torch.Tensor] = {}
        masks: dict[str, int] = {}
        for keys, arrays in cache.all():
            rows.update(zip(keys, self._tensor(arrays["features"]), strict=True))
            masks.update(zip(keys, arrays["text_mask"].tolist(), strict=True))
        result.captions = {text: place for place, text in enumerate(texts)}
        result.text = torch.stack([rows[repr(text)] for text in texts])
        result.text_mask = torch.tensor([masks[repr(text)] for text in texts])

    def _features(self, name: str, *inputs: torch.Tensor) -> np.ndarray:
        """Pooled features (rows, size) of a tower; bfloat16 as integers."""
        base, training = base_model(self.model), self.model.training
        base.eval()
        encode = getattr(base, f"get_{name}_features")
        rows = _ROWS_ON_CPU[name] if base.device.type == "cpu" else len(inputs[0])
        with torch.autocast(base.device.type, torch.bfloat16, enabled=self.dtype == "bfloat16"):
            pooled = [
                encode(*(part.to(base.device) for part in parts), return_embeds=False).pooler_output
                for parts in zip(*(values.split(rows) for values in inputs), strict=True)
            ]
        self.model.train(training)
        features = torch.cat(pooled).to(getattr(torch, self.dtype)).cpu()
        return features.view(torch.uint16).numpy() if self.dtype == "bfloat16" else features.numpy()

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        return tensor.view(torch.bfloat16) if self.dtype == "bfloat16" else tensor

    def _cache(self, folder: Path, name: str, asked: Sequence[Any] = ()) -> FeatureCache:
        """Cache of one tower, named by its weights and settings and those of its processor."""
        processor, config = self.processor, self.model.config
        if name == "text":
            tokenizer = processor.tokenizer
            backend = getattr(tokenizer, "backend_tokenizer", None)
            words = tokenizer.get_vocab()
            if backend is not None:
                passing = ("padding", "truncation")  # of the last call
                words = {k: v for k, v in json.loads(backend.to_str()).items() if k not in passing}
            part: Any = [words, tokenizer.model_max_length, type(tokenizer).__name__]
        else:
            chosen = {"video": processor.video_processor, "audio": processor.feature_extractor}[name]
            part = [_lasting(chosen.to_dict()), processor.clip_options()["duration"], *asked]
        use = {
            key: value
            for key, value in config.use(name).settings().items()
            if key not in ("locked", "projection", "centres")
        }
        tower = _lasting(getattr(config, f"{name}_config").to_dict())
        return FeatureCache(folder, [__version__, name, self.locked[name], tower, use, part, self.dtype])


def _lasting(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings that change features."""
    return {key: value for key, value in settings.items() if key not in _PASSING}


def _media_key(row: dict[str, Any]) -> Any:
    """Key of a row's clip, by content."""
    try:
        part = part_of(row)
    except MediaError:
        part = (row.get("start"), row.get("end"))
    return (*content_of(source_of(row["video"])), *part)


class FeatureDataset(ClipDataset):
    """[`ClipDataset`] with cached features of locked towers: the same windows and captions, but inputs of
    locked towers are not read.

    Args:
        clips, processor, kwargs: of [`ClipDataset`]; training draws from `window_choices` windows.
        features: of [`compute_locked_features`], of as many windows.
        keep_read: keep decoded inputs of the other towers in memory (of each worker): for few, short clips
            and many epochs.

    Raises:
        ValueError: augmentation of inputs of locked towers.
    """

    def __init__(
        self,
        clips: Any,
        processor: VattProcessor,
        features: LockedFeatures,
        keep_read: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(clips, processor, **kwargs)
        self.features = features
        self.keep_read = keep_read
        self._kept: dict[tuple[int, float], list[MediaClip]] = {}
        drawn = self.window_choices if self.random_window else self.clips_per_video
        sizes = {name: values.shape[1] for name, values in features.media.items()}
        if any(size != drawn for size in sizes.values()):
            raise ValueError(
                f"The features are of {sizes} windows, but {drawn} are used: choose as many `windows`."
            )
        if self.random_window and features.media and not self.window_choices:
            raise ValueError("Cached features are of fixed windows: set `window_choices`.")
        changes = changes_of(self.augmentation)
        refused = [change for name in features.media for change in changes[name]]
        if refused:
            raise ValueError(
                f"{', '.join(refused)} of `augmentation` would change what the locked towers "
                f"({', '.join(features.media)}) see, but their features are computed once: switch it off, or "
                "do not cache features."
            )

    def _media(self, item: int | tuple[int, int]) -> tuple[Mapping[str, Any], list[list[str]]] | SkippedClip:
        index, random = self.draws(item)
        features = self.features
        if index in features.skipped:
            return features.skipped[index]
        if not features.media:
            return super()._media(item)
        chosen = self.choose(random) if self.random_window else list(range(self.clips_per_video))
        assert features.spans is not None and features.audio_mask is not None
        spans = features.spans[index, chosen].tolist()
        heard = features.audio_mask[index, chosen].tolist()
        row = self.clips[index]
        captions = [self.captions_of(row, tuple(span), random) for span in spans]
        generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        try:
            inputs = self._read_others(index, row, spans, heard, generator)
        except MediaError as error:
            return SkippedClip.of(row, error)
        for name, values in features.media.items():
            inputs[f"{name}_pooler_output"] = values[index, chosen]
        if "audio" in features.media:
            inputs["audio_mask"] = features.audio_mask[index, chosen]
        return {**inputs, **self.ids(row, index, len(spans))}, captions

    def _read_others(
        self,
        index: int,
        row: dict[str, Any],
        spans: list[list[float]],
        heard: list[int],
        generator: torch.Generator,
    ) -> dict[str, Any]:
        """Inputs of unlocked video and sound towers, of the same windows."""
        known = self.features.media
        options = {**self.processor.clip_options(), "limits": self.limits, "segment": part_of(row)}
        seconds = options.pop("duration")
        watch, listen = "video" not in known, "audio" not in known
        if not (watch or listen):
            return {}
        clips: list[MediaClip | None] = []
        for (start, _), sounds in zip(spans, heard, strict=True):
            if not (watch or sounds):  # a file without sound
                clips.append(None)
                continue
            read = self._kept.get((index, start))
            if read is None:
                read = read_windows(
                    source_of(row["video"]), seconds, start=start, video=watch, audio=listen, **options
                )
                if self.keep_read:
                    self._kept[index, start] = read
            clips += read
        media: Any = {"videos" if watch else "audio": clips}
        return dict(
            self.processor(
                **media,
                start=0.0,
                load_audio_from_video=listen,
                augmentation=self.augmentation,
                generator=generator,
                late_colors=self.late_colors,
                return_tensors="pt",
            )
        )

    def texts(self, captions: list[list[str]]) -> Mapping[str, Any]:
        """Model inputs of the captions of each window, or their features."""
        features, wanted = self.features, self.processor.num_captions
        if features.text is None or features.text_mask is None:
            return super().texts(captions)
        filled = [[*texts, *[""] * (wanted - len(texts))][:wanted] for texts in captions]
        rows = torch.tensor([[features.captions[text] for text in texts] for texts in filled])
        present = features.text_mask[rows]
        mask = present if self.mask_captions else present.amax(1)
        inputs = {"text_pooler_output": features.text[rows], "text_mask": mask}
        if self.with_ids:
            words = super().texts(captions)
            inputs["caption_ids"] = caption_ids(words["input_ids"], words["attention_mask"])
        return inputs


def _heard(clip: MediaClip) -> MediaClip | None:
    """The clip, if it has sound."""
    return None if clip.waveform is None or not len(clip.waveform) else clip


def changes_of(augmentation: Any) -> dict[str, list[str]]:
    """Fields of an augmentation that are active."""
    if augmentation is None:
        return {"video": [], "audio": []}
    pixels = [name for name in ("flip_probability", "color_probability") if getattr(augmentation, name)]
    pixels += ["crop_resize_style"] if augmentation.crop_resize_style != "none" else []
    return {"video": pixels, "audio": ["noise"] if augmentation.noise else []}
