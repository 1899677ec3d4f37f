# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Embedding many clips: in the common spaces, and as pooled features of the frozen backbone."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from transformers import BatchFeature
from transformers.utils import logging

from .._version import __version__
from ..models.modeling_vatt import VattForPreTraining, VattModel
from ..processors import (
    DEFAULT_LIMITS,
    MediaError,
    MediaLimits,
    MediaSource,
    VattProcessor,
    probe,
    read_clips,
    read_duration,
)
from ..processors.inputs import unwrapped
from ..processors.media.source import source_name
from ..processors.windows import is_media_source, iterate_strided_starts, read_windows, window_places
from .cache import FeatureCache, content_of
from .identity import base_model, hash_weights
from .vectors import unit  # noqa: F401 (by this name since the first version)


logger = logging.get_logger(__name__)

EMBEDDINGS = ("video_va_embeds", "audio_va_embeds", "video_vt_embeds", "text_vt_embeds")

# (start, end) of a clip in seconds of its file; None for the beginning and the end of the file
Segment = tuple[float | None, float | None]
# Source, part, and key of both by content, if there is a cache
_Clip = tuple[Any, Segment | None, Any]
_Item = TypeVar("_Item")
_Read = TypeVar("_Read")
_Known = TypeVar("_Known")
# Windows of a file read at a time.
_WINDOWS_AT_ONCE = 4
_SILENCE = 1e-4  # smaller range of samples; full scale is 2, so -86 dB
# Headers may state wrong lengths. The rest of a file is left out after so many unreadable windows in a row,
# and in all.
_MOST_MISSING = 500
_MOST_WINDOWS = 1_000_000


def _evaluating(model: VattModel | VattForPreTraining) -> VattModel:
    """The model without its loss; ValueError in training mode, whose random embeddings would be cached."""
    if model.training:
        raise ValueError(
            "`model` is in training mode, in which it drops tokens: call `model.eval()` before embedding."
        )
    return base_model(model)


@torch.no_grad()
def embed_batches(
    model: VattModel | VattForPreTraining, batches: Iterable[Mapping[str, torch.Tensor]], pooled: bool = False
) -> dict[str, npt.NDArray[np.float32]]:
    """Embeddings of all clips, in order; not normalised.

    Args:
        model: in evaluation mode, on its device.
        batches: inputs of the model; presence masks (`audio_mask`, `text_mask`) are passed through.
        pooled: also return the pooled features for classifiers and probes, `video_pooled` and
            `audio_pooled`.

    Returns:
        Arrays with one row per clip under the names of [`VattModelOutput`], for the modalities of the inputs,
        and the presence masks.

    Raises:
        ValueError: a model in training mode, or batches of different modalities, whose rows would not match.
    """
    base = _evaluating(model)
    collected: dict[str, list[npt.NDArray[np.float32]]] = {}
    for batch in batches:
        inputs = {name: value for name, value in batch.items() if not name.endswith("_mask")}
        if "attention_mask" in batch:
            inputs["attention_mask"] = batch["attention_mask"]
        output = base(**{name: value.to(base.device) for name, value in inputs.items()})
        found = {name: output[name] for name in EMBEDDINGS if output.get(name) is not None}
        if pooled:
            towers = {name: output.get(f"{name}_model_output") for name in ("video", "audio")}
            found |= {f"{name}_pooled": tower.pooler_output for name, tower in towers.items() if tower}
        masks = {name: batch[name] for name in ("audio_mask", "text_mask") if name in batch}
        found |= masks
        if collected and found.keys() != collected.keys():
            raise ValueError(
                f"All of `batches` must have the same inputs, got what gives {sorted(found)} after "
                f"{sorted(collected)}: mask what is missing with `audio_mask` and `text_mask`."
            )
        for name, value in found.items():
            collected.setdefault(name, []).append(value.float().cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in collected.items()}


def embed_texts(
    model: VattModel | VattForPreTraining,
    processor: VattProcessor,
    texts: Sequence[str],
    batch_size: int = 256,
) -> npt.NDArray[np.float32]:
    """Embeddings (texts, dim) of captions in the video-text space; not normalised."""
    batches = (
        processor(text=list(texts[first : first + batch_size])) for first in range(0, len(texts), batch_size)
    )
    return embed_batches(model, batches)["text_vt_embeds"]


def is_silent(sound: torch.Tensor) -> bool:
    """Whether a waveform, or a spectrogram, is that of silence, which is constant."""
    return float(sound.max() - sound.min()) < _SILENCE


def read_query(
    processor: VattProcessor,
    text: str | None = None,
    audio: MediaSource | None = None,
    video: MediaSource | None = None,
    limits: MediaLimits = DEFAULT_LIMITS,
    start: float | None = None,
) -> BatchFeature:
    """Inputs of the model for one query, without a model; arguments and errors as of [`embed_query`]."""
    if sum(query is not None for query in (text, audio, video)) != 1:
        raise ValueError("Give exactly one of `text`, `audio` and `video`.")
    if text is not None:
        inputs = processor(text=[text])
        if not inputs["text_mask"].any():
            raise ValueError(f"The query {text!r} holds no words.")
        return inputs
    if audio is not None:
        inputs = processor(audio=[audio], start=start, limits=limits)
        if is_silent(inputs["input_values"]):
            raise MediaError(source_name(audio), "the sound to look for is silent", "Take another one.")
        return inputs
    return processor(videos=[video], start=start, load_audio_from_video=False, limits=limits)


@torch.no_grad()
def embed_read_query(model: VattModel | VattForPreTraining, inputs: BatchFeature) -> npt.NDArray[np.float32]:
    """Embedding (dim,) of the result of [`read_query`]; see [`embed_query`]."""
    model = _evaluating(model)
    inputs = inputs.to(model.device)
    query: Any
    if "input_ids" in inputs:
        query = model.get_text_features(inputs["input_ids"], inputs["attention_mask"]).vt_embeds
    elif "input_values" in inputs:
        query = model.get_audio_features(inputs["input_values"]).va_embeds
    else:
        query = model.get_video_features(inputs["pixel_values_videos"]).va_embeds
    return query[0].float().cpu().numpy()


def embed_query(
    model: VattModel | VattForPreTraining,
    processor: VattProcessor,
    text: str | None = None,
    audio: MediaSource | None = None,
    video: MediaSource | None = None,
    limits: MediaLimits = DEFAULT_LIMITS,
    start: float | None = None,
) -> npt.NDArray[np.float32]:
    """Embedding (dim,) of one query: of text in the video-text space, of sound and video in the video-audio
    space; not normalised.

    Args:
        model, processor: of the gallery or index that is searched.
        audio: file whose sound is looked for, also of a video.
        video: file whose pictures are looked for.
        start: of the window, seconds; default: centred.

    Raises:
        ValueError: not exactly one query, text without words, silence, or a model in training mode.
        MediaError: if the file cannot be read.
    """
    return embed_read_query(model, read_query(processor, text, audio, video, limits, start))


@dataclass
class FileEmbeddings:
    """Result of [`embed_files`].

    Args:
        arrays: as from [`embed_batches`], each (files read, windows, ...).
        kept: indices of the files that could be read, one per row of the arrays.
        errors: reasons for the others.
    """

    arrays: dict[str, npt.NDArray[np.float32]]
    kept: npt.NDArray[np.int64]
    errors: list[MediaError]


def embed_files(
    model: VattModel | VattForPreTraining,
    processor: VattProcessor,
    files: Iterable[Any],
    modalities: Sequence[Literal["video", "audio"]] = ("video",),
    windows: int = 1,
    segments: Iterable[Segment | None] | None = None,
    batch_size: int = 16,
    pooled: bool = False,
    num_workers: int = 1,
    cache_dir: str | os.PathLike | None = None,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> FileEmbeddings:
    """Embeddings of windows of media files; a file that cannot be read is left out and reported.

    Args:
        model: in evaluation mode, on its device.
        processor: of the model.
        files: paths, contents of files, or seekable binary file objects; rows of `datasets` that hold these;
            for one modality also decoded media, such as arrays and decoders of torchcodec.
        modalities: what to embed. With both, sound is of the same windows, and `audio_mask` (files, windows)
            is 0 where there is none; with sound alone, a file without it is an error.
        windows: windows spread uniformly over each clip; one window is centred.
        segments: (start, end) in seconds, for clips inside longer files; None for the whole file, its
            beginning or its end.
        batch_size: files at a time.
        pooled: see [`embed_batches`].
        num_workers: threads that decode files ahead of the model.
        cache_dir: folder of results, batch by batch, for repeated and interrupted calls. With other weights,
            settings, batches or changed files they are computed again. Files that could not be read are tried
            again.
        limits: what a file may cost, and whether it is decoded in another process.

    Raises:
        ValueError: if no file could be read.
    """
    settings = [sorted(modalities), windows, pooled, repr(limits)]  # limits decide what is refused
    cache = None if cache_dir is None else _cache(Path(cache_dir), model, processor, settings)
    unpacked = map(partial(unwrapped, resample=True), files)
    pairs = zip(
        (os.fspath(file) if isinstance(file, os.PathLike) else file for file in unpacked),
        repeat(None) if segments is None else segments,
        strict=segments is not None,
    )
    # Keys are made before files are read: those that change meanwhile are not known as what they become.
    clips = ((source, part, None if cache is None else _key(source, part)) for source, part in pairs)
    read = _clip_reader(processor, modalities, windows, limits)
    recall = partial(_recall, cache, read)
    total = 0
    parts: list[FileEmbeddings] = []
    for batch, items in _read_ahead(_batched(clips, batch_size), num_workers, read, recall):
        if isinstance(items, FileEmbeddings):
            part = items
        else:
            part = _embed_clips(model, items, windows, pooled)
            if cache is not None:
                cache.save([key for *_, key in batch], {"read": part.kept, **part.arrays})
        part.kept += total
        total += len(batch)
        parts.append(part)
    return _joined(parts)


def _clip_reader(
    processor: VattProcessor, modalities: Sequence[str], windows: int, limits: MediaLimits
) -> Callable[[_Clip], BatchFeature | MediaError]:
    """Function that gives the inputs for the windows of a clip, or the error."""
    video, audio = "video" in modalities, "audio" in modalities
    options = processor.clip_options(None if video and audio else modalities[0])
    options |= {"seconds": options.pop("duration"), "places": window_places(windows), "limits": limits}

    def read(clip: _Clip) -> BatchFeature | MediaError:
        source, segment, _ = clip
        if not is_media_source(source):
            if segment is not None or video == audio:
                raise ValueError(
                    "Decoded clips must be embedded whole and one modality at a time: leave `segments` out, "
                    "or pass the files."
                )
            name = "videos" if video else "audio"
            return processor(**{name: [source]}, windows=windows, load_audio_from_video=False, limits=limits)
        try:
            parts = read_windows(source, segment=segment, **options)
            if not video:
                return processor(audio=parts)
            return processor(videos=parts, start=0.0, load_audio_from_video=audio)
        except MediaError as error:
            return error

    return read


def _embed_clips(
    model: VattModel | VattForPreTraining,
    items: Sequence[BatchFeature | MediaError],
    windows: int,
    pooled: bool,
) -> FileEmbeddings:
    inputs = {index: item for index, item in enumerate(items) if not isinstance(item, MediaError)}
    names = next(iter(inputs.values()), ())
    batches = (
        [{name: torch.cat([item[name] for item in inputs.values()]) for name in names}] if inputs else []
    )
    arrays = embed_batches(model, batches, pooled)
    return FileEmbeddings(
        {name: rows.reshape(-1, windows, *rows.shape[1:]) for name, rows in arrays.items()},
        np.array(list(inputs), dtype=np.int64),
        [item for item in items if isinstance(item, MediaError)],
    )


def _joined(parts: Sequence[FileEmbeddings]) -> FileEmbeddings:
    errors = [error for part in parts for error in part.errors]
    good = [part.arrays for part in parts if part.arrays]
    if not good:
        reason = str(errors[0]) if errors else "no files given"
        raise ValueError(f"No file could be embedded: {reason} Check the files.")
    return FileEmbeddings(
        {name: np.concatenate([arrays[name] for arrays in good]) for name in good[0]},
        np.concatenate([part.kept for part in parts]),
        errors,
    )


@dataclass
class WindowEmbeddings:
    """Result of [`embed_windows`] for a file.

    Args:
        duration: of the file, seconds; 0 if it cannot be read; the end of the last readable window if the
            rest was left out.
        starts: of the readable windows, seconds.
        ends: of these windows, at most that of the file.
        arrays: as from [`embed_batches`], each (windows, ...); empty without readable windows.
        errors: reasons for windows, or the file; first that for leaving out the rest.
    """

    duration: float
    starts: list[float]
    ends: list[float]
    arrays: dict[str, npt.NDArray[np.float32]]
    errors: list[MediaError]


def join_windows(pieces: Sequence[WindowEmbeddings]) -> WindowEmbeddings:
    """Consecutive windows of one file joined, with the duration of the first piece."""
    starts, ends, errors = (
        [value for piece in pieces for value in getattr(piece, name)] for name in ("starts", "ends", "errors")
    )
    blocks = [piece.arrays for piece in pieces if piece.arrays]
    arrays = {name: np.concatenate([block[name] for block in blocks]) for name in (blocks or [{}])[0]}
    return WindowEmbeddings(pieces[0].duration, starts, ends, arrays, errors)


@dataclass(frozen=True)
class _Part:
    """A few windows of a file; the first part has the windows `known` from before. `error`: why the `last`
    part leaves out the rest."""

    number: int
    source: MediaSource
    duration: float
    starts: list[float]
    last: bool
    error: MediaError | None = None
    known: WindowEmbeddings | None = None


def embed_windows(
    model: VattModel | VattForPreTraining,
    processor: VattProcessor,
    files: Iterable[MediaSource],
    stride: float | None = None,
    batch_size: int = 16,
    num_workers: int = 1,
    progress: Callable[[int], None] = lambda windows: None,
    limits: MediaLimits = DEFAULT_LIMITS,
    begin: Callable[[MediaSource, float], WindowEmbeddings | None] = lambda source, duration: None,
    keep: Callable[[MediaSource, WindowEmbeddings], None] = lambda source, windows: None,
) -> Iterator[tuple[MediaSource, WindowEmbeddings]]:
    """Embeddings of the video of all windows of each file, file by file.

    Long files are never in memory as a whole. After 500 unreadable windows in a row the file counts as ended.

    Args:
        model: in evaluation mode, on its device.
        processor: of the model.
        files: paths, contents of files, or seekable binary file objects.
        stride: seconds from the start of a window to that of the next; default: their length. The last
            window ends with the file.
        batch_size: windows at a time, about.
        num_workers: threads that decode ahead of the model.
        progress: called with the number of windows after each batch.
        limits: what a file may cost, and whether it is decoded in another process.
        begin: called with each readable file and its length; returns its first windows if an earlier run
            embedded them with equal content, settings and limits.
        keep: called with the next few windows of a file that has more after them.
    """
    seconds = processor.video_processor.window_seconds
    windows = _Windows(files, seconds, stride or seconds, limits, begin)
    read = partial(_read_part, processor, limits)
    found: list[WindowEmbeddings] = []  # of the file, a few windows each
    for batch, items in _read_ahead(windows.batches(batch_size), num_workers, read):
        pixels = [item for part in items for item in part if isinstance(item, torch.Tensor)]
        arrays = embed_batches(model, [{"pixel_values_videos": torch.stack(pixels)}] if pixels else [])
        row = 0
        for part, clips in zip(batch, items, strict=True):
            windows.note(part, clips)
            pairs = list(zip(part.starts, clips, strict=True))
            good = [start for start, clip in pairs if isinstance(clip, torch.Tensor)]
            piece = WindowEmbeddings(
                part.duration,
                good,
                [min(start + seconds, part.duration) for start in good],
                {name: rows[row : row + len(good)] for name, rows in arrays.items()} if good else {},
                [clip for _, clip in pairs if isinstance(clip, MediaError)],
            )
            row += len(good)
            found += [piece] if part.known is None else [part.known, piece]
            if part.last:
                yield part.source, _whole(part, found)
                found = []
            else:
                keep(part.source, piece)
        progress(sum(len(part.starts) for part in batch))


def _whole(part: _Part, pieces: Sequence[WindowEmbeddings]) -> WindowEmbeddings:
    """All windows of a file, given its last part."""
    found = join_windows(pieces)
    if part.error is None:
        return replace(found, duration=part.duration)
    return replace(found, duration=max(found.ends, default=0.0), errors=[part.error, *found.errors])


@dataclass
class _Windows:
    """The windows of files, a few at a time, without the rest of a file after too many unreadable ones."""

    files: Iterable[MediaSource]
    seconds: float
    stride: float
    limits: MediaLimits
    begin: Callable[[MediaSource, float], WindowEmbeddings | None]
    missing: int = 0  # windows in a row that could not be read
    lost: int = -1  # number of the last file that was given up

    def note(self, part: _Part, clips: Sequence[torch.Tensor | MediaError]) -> None:
        """Count the unreadable windows of a part."""
        if part.known is not None:
            last = max(part.known.starts, default=-1.0)
            places = iterate_strided_starts(part.duration, self.seconds, self.stride)
            self.missing = sum(start > last for start in islice(places, _tried(part.known)))
        for clip in clips:
            self.missing = self.missing + 1 if isinstance(clip, MediaError) else 0
        if self.missing >= _MOST_MISSING:
            self.lost = part.number
        if part.last:
            self.missing = 0

    def batches(self, size: int) -> Iterator[list[_Part]]:
        """Parts with about `size` windows together."""
        batch: list[_Part] = []
        for part in self._parts():
            batch.append(part)
            if sum(len(part.starts) for part in batch) >= size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _parts(self) -> Iterator[_Part]:
        for number, source in enumerate(self.files):
            try:
                info = probe(source, self.limits)
                duration = info.duration or read_duration(source, self.limits)
            except MediaError as error:
                yield _Part(number, source, 0.0, [], True, error)
                continue
            cut = None
            if info.missing:
                reason = f"cut short: the last {info.missing:.1f} s that its header states are missing"
                cut = MediaError(info.source, reason, "Copy it again.")
            starts = iterate_strided_starts(duration, self.seconds, self.stride)
            known = self.begin(source, duration)
            tried = 0 if known is None else _tried(known)
            groups = _batched(islice(starts, tried, None), _WINDOWS_AT_ONCE)
            chosen = next(groups, [])
            for following in groups:
                yield _Part(number, source, duration, chosen, False, None, known)
                tried += len(chosen)
                chosen, known = following, None
                if self.lost == number:
                    why = f"{_MOST_MISSING} windows in a row could not be read"
                elif tried >= _MOST_WINDOWS:
                    why = f"it has more than {_MOST_WINDOWS} windows"
                else:
                    continue
                reason = f"left out from {following[0]:g} s on, because {why}"
                rest = MediaError(source_name(source), reason, "Check that the file is complete.")
                yield _Part(number, source, duration, [], True, rest)
                break
            else:
                yield _Part(number, source, duration, chosen, True, cut, known)


def _tried(windows: WindowEmbeddings) -> int:
    """Number of windows that were read or failed."""
    return len(windows.starts) + len(windows.errors)


def _read_part(processor: VattProcessor, limits: MediaLimits, part: _Part) -> list[torch.Tensor | MediaError]:
    """Pixels of each window, or the error."""
    options = {**processor.clip_options("video"), "limits": limits}

    def read(starts: list[float]) -> list[torch.Tensor | MediaError]:
        try:
            windows = read_clips(part.source, starts, **options)
            inputs = processor(videos=windows, start=0.0, load_audio_from_video=False)
            return list(inputs["pixel_values_videos"])
        except MediaError as error:
            if len(starts) == 1:
                return [error]
            return [item for start in starts for item in read([start])]  # the others may be readable

    return read(part.starts) if part.starts else []


def _batched(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    iterator = iter(items)
    return iter(lambda: list(islice(iterator, size)), [])


def _read_ahead(
    batches: Iterable[list[_Item]],
    num_workers: int,
    read: Callable[[_Item], _Read],
    recall: Callable[[list[_Item]], _Known | None] = lambda batch: None,
) -> Iterator[tuple[list[_Item], list[_Read] | _Known]]:
    """Batches with their data, read or from `recall`; reads the next batch while the caller uses one."""
    ahead: deque[tuple[list[_Item], _Known | None, list[Future[_Read]]]] = deque()

    def finish() -> tuple[list[_Item], list[_Read] | _Known]:
        batch, known, items = ahead.popleft()
        return batch, [item.result() for item in items] if known is None else known

    with ThreadPoolExecutor(num_workers) as pool:
        for batch in batches:
            known = recall(batch)
            items = [pool.submit(read, item) for item in batch] if known is None else []
            ahead.append((batch, known, items))
            if len(ahead) == 2:
                yield finish()
        while ahead:
            yield finish()


def _cache(
    folder: Path, model: VattModel | VattForPreTraining, processor: VattProcessor, settings: Any
) -> FeatureCache:
    parts = (processor.video_processor.to_dict(), processor.feature_extractor.to_dict())
    known = [__version__, hash_weights(model), base_model(model).config.to_dict(), *parts, settings]
    return FeatureCache(folder, known)


def _key(source: Any, segment: Segment | None) -> Any:
    if not is_media_source(source):
        raise ValueError("Decoded clips cannot be cached: leave `cache_dir` out, or pass the files.")
    return content_of(source), segment


def _recall(
    cache: FeatureCache | None, read: Callable[[_Clip], BatchFeature | MediaError], batch: list[_Clip]
) -> FileEmbeddings | None:
    """A batch from the cache; None without one, or if files that could not be read then can be read now."""
    arrays = None if cache is None else cache.load([key for *_, key in batch])
    if arrays is None or "read" not in arrays:
        return None
    arrays.pop("keys", None)
    kept = arrays.pop("read")
    errors = [read(clip) for place, clip in enumerate(batch) if place not in kept]
    if not all(isinstance(error, MediaError) for error in errors):
        return None
    return FileEmbeddings(kept=kept, arrays=arrays, errors=errors)
