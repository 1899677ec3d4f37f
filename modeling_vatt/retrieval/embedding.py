# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Embedding many clips: in the common spaces, and as pooled features of the frozen backbone."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from transformers import BatchFeature

from .._version import __version__
from ..modeling_vatt import VattForPreTraining, VattModel
from ..processors import MediaError, MediaSource, VattProcessor
from ..processors.windows import read_windows


EMBEDDINGS = ("video_va_embeds", "audio_va_embeds", "video_vt_embeds", "text_vt_embeds")

# (start, end) of a clip in seconds of its file
Segment = tuple[float, float]
_Clip = tuple[Any, Segment | None]


@torch.no_grad()
def embed_batches(
    model: VattModel | VattForPreTraining,
    batches: Iterable[Mapping[str, torch.Tensor]],
    pooled: bool = False,
) -> dict[str, npt.NDArray[np.float32]]:
    """Embeddings of all clips, in order; not normalised.

    Args:
        model: in evaluation mode, on its device.
        batches: inputs of the model; presence masks (`audio_mask`, `text_mask`) are passed through.
        pooled: return the features that classifiers and probes work on too: `video_pooled` and
            `audio_pooled`, the output of the AGG token.

    Returns:
        Arrays with one row per clip under the names of [`VattModelOutput`], as far as the inputs have the
        modality, and the presence masks.
    """
    base = model.vatt if isinstance(model, VattForPreTraining) else model
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
        for name, value in {**found, **masks}.items():
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


@dataclass
class FileEmbeddings:
    """What [`embed_files`] finds.

    Args:
        arrays: as from [`embed_batches`], each (files read, windows, ...).
        kept: which of the files could be read; one index per row of the arrays.
        errors: why the others could not.
    """

    arrays: dict[str, npt.NDArray[np.float32]]
    kept: npt.NDArray[np.int64]
    errors: list[MediaError]


def embed_files(
    model: VattModel | VattForPreTraining,
    processor: VattProcessor,
    files: Iterable[MediaSource],
    modalities: Sequence[Literal["video", "audio"]] = ("video",),
    windows: int = 1,
    segments: Iterable[Segment | None] | None = None,
    batch_size: int = 16,
    pooled: bool = False,
    num_workers: int = 1,
    cache_dir: str | os.PathLike | None = None,
) -> FileEmbeddings:
    """Embeddings of windows of media files; a file that cannot be read is left out and reported.

    Args:
        model: in evaluation mode, on its device.
        processor: of the model.
        files: paths, contents of files, or binary file objects that can seek.
        modalities: what to embed. With both, sound is that of the same windows, and `audio_mask` (files,
            windows) is 0 where there is none; sound alone must be there.
        windows: windows spread uniformly over each clip; one window is centred.
        segments: (start, end) in seconds, for clips inside longer files; None stands for the whole file.
        batch_size: files at a time.
        pooled: see [`embed_batches`].
        num_workers: threads that decode files ahead of the model.
        cache_dir: folder in which results are kept, batch by batch, so that the same call is quick and one
            that was interrupted goes on. Other weights, settings, batches, or files that changed are embedded
            anew.

    Raises:
        ValueError: if no file could be read.
    """
    options = processor.clip_options()
    lengths = {
        "video": processor.video_processor.window_seconds,
        "audio": processor.feature_extractor.window_seconds,
    }
    # Where the parts want windows of different lengths, both begin together.
    options["seconds"] = max(lengths[name] for name in modalities)
    del options["duration"]
    video, audio = "video" in modalities, "audio" in modalities

    def read(clip: _Clip) -> BatchFeature | MediaError:
        source, segment = clip
        try:
            if segment is not None and not 0 <= segment[0] < segment[1]:
                raise MediaError(str(source), f"no clip from {segment[0]} to {segment[1]} s", "Correct it.")
            parts = read_windows(
                source, windows=windows, segment=segment, video=video, audio=audio, **options
            )
            if not video:
                return processor(audio=parts)
            return processor(videos=parts, start=0.0, load_audio_from_video=audio)
        except MediaError as error:
            return error

    def embed(items: list[BatchFeature | MediaError]) -> FileEmbeddings:
        read_items = [(index, item) for index, item in enumerate(items) if not isinstance(item, MediaError)]
        inputs = [item for _, item in read_items]
        batches = [{key: torch.cat([item[key] for item in inputs]) for key in inputs[0]}] if inputs else []
        arrays = embed_batches(model, batches, pooled)
        return FileEmbeddings(
            {key: rows.reshape(-1, windows, *rows.shape[1:]) for key, rows in arrays.items()},
            np.array([index for index, _ in read_items], dtype=np.int64),
            [item for item in items if isinstance(item, MediaError)],
        )

    settings = [sorted(modalities), windows, pooled]
    cache = None if cache_dir is None else _Cache(Path(cache_dir), model, processor, settings)
    total = 0
    parts: list[FileEmbeddings] = []
    clips = zip(
        (file if isinstance(file, bytes) or hasattr(file, "read") else os.fspath(file) for file in files),
        repeat(None) if segments is None else segments,
        strict=segments is not None,
    )
    for batch, items in _read_ahead(clips, batch_size, num_workers, read, cache):
        if isinstance(items, FileEmbeddings):
            part = items
        else:
            part = embed(items)
            if cache is not None:
                cache.save(batch, part)
        part.kept += total
        total += len(batch)
        parts.append(part)
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


def _read_ahead(
    clips: Iterable[_Clip], batch_size: int, num_workers: int, read: Any, cache: "_Cache | None"
) -> Iterator[tuple[list[_Clip], list[BatchFeature | MediaError] | FileEmbeddings]]:
    """Batches with what was read, or with the embeddings where the cache has them; the next batch is read
    while the caller works on one."""
    iterator = iter(clips)
    ahead: deque[tuple[list[_Clip], list[Future] | FileEmbeddings]] = deque()

    def finish(
        batch: list[_Clip], items: list[Future] | FileEmbeddings
    ) -> tuple[list[_Clip], list[BatchFeature | MediaError] | FileEmbeddings]:
        return batch, items if isinstance(items, FileEmbeddings) else [item.result() for item in items]

    with ThreadPoolExecutor(num_workers) as pool:
        for batch in iter(lambda: list(islice(iterator, batch_size)), []):
            known = None if cache is None else cache.load(batch)
            ahead.append((batch, known or [pool.submit(read, clip) for clip in batch]))
            if len(ahead) == 2:
                yield finish(*ahead.popleft())
        if ahead:
            yield finish(*ahead.popleft())


class _Cache:
    """Embeddings of batches on disk, under names that depend on all that they depend on."""

    def __init__(
        self, folder: Path, model: VattModel | VattForPreTraining, processor: VattProcessor, settings: Any
    ) -> None:
        base = model.vatt if isinstance(model, VattForPreTraining) else model
        self.folder = folder
        self.state = hashlib.sha256()
        for name, tensor in base.state_dict().items():
            self.state.update(name.encode())
            self.state.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
        parts = (processor.video_processor.to_dict(), processor.feature_extractor.to_dict())
        known = [__version__, base.config.to_dict(), *parts, settings]
        self.state.update(json.dumps(known, sort_keys=True, default=str).encode())

    def load(self, batch: list[_Clip]) -> FileEmbeddings | None:
        file = self._file(batch)
        if not file.is_file():
            return None
        with np.load(file) as content:
            arrays = dict(content)
        errors = [MediaError(*parts) for parts in json.loads(str(arrays.pop("errors")))]
        return FileEmbeddings(kept=arrays.pop("kept"), arrays=arrays, errors=errors)

    def save(self, batch: list[_Clip], part: FileEmbeddings) -> None:
        file = self._file(batch)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial.npz")
        errors = json.dumps([error.args for error in part.errors])
        arrays: dict[str, Any] = {"errors": np.array(errors), "kept": part.kept, **part.arrays}
        np.savez(partial, **arrays)
        partial.replace(file)

    def _file(self, batch: list[_Clip]) -> Path:
        digest = self.state.copy()
        for source, segment in batch:
            digest.update(repr((_identity(source), segment)).encode())
        return self.folder / f"{digest.hexdigest()[:32]}.npz"


def _identity(source: Any) -> tuple[Any, ...]:
    """Changes when the content does."""
    if hasattr(source, "read"):
        source.seek(0)
        source = source.read()
    if isinstance(source, bytes):
        return (hashlib.sha256(source).hexdigest(),)
    path = Path(source)
    if not path.is_file():  # missing, or a URL
        return (source,)
    return (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns)
