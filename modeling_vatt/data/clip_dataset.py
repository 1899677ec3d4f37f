# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Clips as model inputs: video, the sound of the same window, and captions."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate
from transformers import BatchFeature

from ..processors.augmentation import change_colors
from ..processors.media import DEFAULT_LIMITS, MediaClip, MediaError, MediaLimits
from ..processors.processing_vatt import VattProcessor
from ..processors.windows import window_places
from .captions import usable_captions, usable_sentences
from .reading import SkippedClip, decoded_row, is_decoded, read_row
from .sampler import Order, group_alike, shuffle_shards
from .tables import ClipTable, all_captions, clip_name, file_paths, nearest_sentences


@dataclass(eq=False, repr=False)
class ClipDataset(Dataset):
    """Clips as model inputs; each item is one window of one video, or several.

    Args:
        clips: table of [`load_clips`] or [`decode_clips`], or a [`ShardDataset`].
        processor: makes the tensors.
        random_window: take random windows instead of the centred one or evenly spread ones (training).
        augmentation: passed to the processor (training).
        seed: with epoch and index it decides windows, augmentation and choice of captions, in any worker.
        clips_per_video: windows of each item, read from a file opened once. Random ones are drawn from as
            many equal parts of the video.
        limits: what a file may cost, and whether it is decoded in another process.
        late_colors: leave colour changes to [`ClipBatch.to`] on the training device; frames stay uint8, a
            quarter of the memory.
        with_ids: give `video_ids`, equal for clips of one file (`mask_false_negatives`).
        window_choices: draw random windows from so many evenly spread ones; 0 for anywhere.
        mask_captions: give `text_mask` for each of the processor's `num_captions`, so that missing captions
            are no positives (False: they are, as in the release).

    An item is addressed by its index, or by (epoch, index). A clip that cannot be read is returned as
    [`SkippedClip`]. Of sentences with times, a window gets its [`nearest_sentences`].
    """

    clips: ClipTable
    processor: VattProcessor
    random_window: bool = False
    augmentation: Any = None
    seed: int = 0
    clips_per_video: int = 1
    limits: MediaLimits = DEFAULT_LIMITS
    late_colors: bool = False
    with_ids: bool = False
    window_choices: int = 0
    mask_captions: bool = False

    def __post_init__(self) -> None:
        if self.clips_per_video < 1:
            raise ValueError(f"`clips_per_video` must be at least 1, got {self.clips_per_video}.")
        if self.window_choices and self.random_window and self.window_choices < self.clips_per_video:
            raise ValueError(
                f"`clips_per_video` {self.clips_per_video} cannot be drawn from `window_choices` "
                f"{self.window_choices}: raise the latter."
            )

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, item: int | tuple[int, int]) -> BatchFeature | SkippedClip:
        return self.__getitems__([item])[0]

    def __getitems__(self, items: Sequence[int | tuple[int, int]]) -> list[BatchFeature | SkippedClip]:
        """Items of a batch for `DataLoader`; their captions are tokenized together."""
        found = [self._media(item) for item in items]
        captions = [texts for item in found if not isinstance(item, SkippedClip) for texts in item[1]]
        rows = self.texts(captions) if captions else {}
        first = 0
        result: list[BatchFeature | SkippedClip] = []
        for item in found:
            if isinstance(item, SkippedClip):
                result.append(item)
                continue
            last = first + len(item[1])
            texts = {name: values[first:last] for name, values in rows.items()}
            result.append(BatchFeature({**item[0], **texts}))
            first = last
        return result

    def _media(self, item: int | tuple[int, int]) -> tuple[Mapping[str, Any], list[list[str]]] | SkippedClip:
        """Model inputs of an item without its captions, and the captions of each window."""
        index, random = self.draws(item)
        row: dict[str, Any] = {}
        try:
            row = self._row(index)
            clips = self._read(row, random)
        except MediaError as error:
            return SkippedClip.of(row, error)
        captions = [self.captions_of(row, (clip.start, clip.start + clip.duration), random) for clip in clips]
        generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        inputs = self.processor(
            videos=clips,
            start=0.0,
            augmentation=self.augmentation,
            generator=generator,
            late_colors=self.late_colors,
            return_tensors="pt",
        )
        return {**inputs, **self.ids(row, index, len(clips))}, captions

    def _row(self, index: int) -> dict[str, Any]:
        return self.clips[index] if self._decoded is None else decoded_row(self._decoded, index)

    @cached_property
    def _decoded(self) -> Any:
        """The table of [`decode_clips`] with rows in Arrow's format; None for others."""
        return self.clips.with_format("arrow") if is_decoded(self.clips) else None  # type: ignore[attr-defined]

    def ids(self, row: Mapping[str, Any], index: int, windows: int) -> Mapping[str, Any]:
        """Number of the file, for each window. Embedded files of one name are told apart by their sizes."""
        if not self.with_ids:
            return {}
        if hasattr(self.clips, "table"):  # shards know the file that their clips are parts of
            name = clip_name(self.clips, index)
        else:
            name = f"{row['video']['path'] or index} {len(row['video']['bytes'] or b'')}"
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        return {"video_ids": torch.full((windows,), int.from_bytes(digest, "big", signed=True))}

    def texts(self, captions: list[list[str]]) -> Mapping[str, Any]:
        """Model inputs of the captions of each window."""
        return self.processor(text=captions, mask_captions=self.mask_captions, return_tensors="pt")

    def draws(self, item: int | tuple[int, int]) -> tuple[int, np.random.Generator]:
        """Index of an item, and the generator of all that is random in it."""
        epoch, index = (0, item) if isinstance(item, int) else item
        return index, np.random.default_rng((self.seed, epoch, index))

    def captions_of(
        self, row: dict[str, Any], span: tuple[float, float], random: np.random.Generator
    ) -> list[str]:
        """Captions of a row for a window from and to these seconds."""
        wanted = self.processor.num_captions
        if sentences := usable_sentences(row.get("sentences"))[0]:
            return nearest_sentences(sentences, *span, wanted)
        captions = usable_captions(row.get("captions"))
        if self.random_window and len(captions) > wanted:
            captions = [captions[i] for i in random.permutation(len(captions))[:wanted]]
        return captions

    def _read(self, row: dict[str, Any], random: np.random.Generator) -> list[MediaClip]:
        options = {**self.processor.clip_options(), "limits": self.limits}
        if self.random_window and self.window_choices:
            every = window_places(self.window_choices)
            places = [every[choice] for choice in self.choose(random)]
        else:
            places = window_places(self.clips_per_video, random if self.random_window else None)
        return read_row(row, "video", options, places)

    def choose(self, random: np.random.Generator) -> list[int]:
        """Which of the `window_choices` windows an item takes."""
        return sorted(random.permutation(self.window_choices)[: self.clips_per_video].tolist())

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the data (names, captions and parts of a table, or every byte of shards), not of the
        folder's place."""
        if hasattr(self.clips, "fingerprint"):
            return self.clips.fingerprint
        digest = hashlib.sha256()
        clips: Any = self.clips
        for path, captions in zip(file_paths(clips), all_captions(clips), strict=True):
            digest.update(repr((os.path.basename(path or ""), captions)).encode())
        for name in ("start", "end"):
            if name in clips.column_names:
                digest.update(repr((name, list(clips[name]))).encode())
        return digest.hexdigest()

    def order(self, shuffle: int = 0) -> Order | None:
        """The order function for [`StepSampler`] that mixes the clips of `shuffle` shards at a time (see
        [`shuffle_shards`]; 0: of all). ValueError if the clips are not in shards."""
        if not shuffle:
            return None
        sizes = getattr(self.clips, "shard_sizes", None)
        if sizes is None:
            raise ValueError("Only shards can be shuffled a few at a time; leave `shuffle_shards` at 0.")
        return shuffle_shards(sizes, shuffle)

    def group_order(self, columns: Sequence[str], group_size: int) -> Order:
        """The order function for [`StepSampler`] that groups clips with equal values in these columns, see
        [`group_alike`]. ValueError for an unknown column."""
        clips: Any = self.clips
        known = getattr(clips, "column_names", [])
        if missing := sorted(set(columns) - set(known)):
            raise ValueError(
                f"`group_by`: the clips have no column {', '.join(missing)}; take some of these: "
                f"{', '.join(known) or 'none, as in all shards'}."
            )
        return group_alike(list(zip(*(map(repr, clips[name]) for name in columns), strict=True)), group_size)


@dataclass
class ClipBatch:
    """Model inputs of a step, and the clips that had to be left out.

    With `late_colors` of [`ClipDataset`], `inputs` are complete only after [`to`].
    """

    inputs: dict[str, torch.Tensor]
    skipped: list[SkippedClip]

    def to(self, device: torch.device | str) -> dict[str, torch.Tensor]:
        """The inputs on a device, with late colours applied."""
        colors = self.inputs.get("video_colors")  # stay on the CPU, where the draws are read
        inputs = {
            name: value.to(device, non_blocking=True)
            for name, value in self.inputs.items()
            if value is not colors
        }
        if colors is not None:
            inputs["pixel_values_videos"] = change_colors(inputs["pixel_values_videos"], colors)
        return inputs

    def pin_memory(self) -> "ClipBatch":
        """The same in memory from which a GPU copies directly; called by `DataLoader(pin_memory=True)`."""
        return ClipBatch({name: value.pin_memory() for name, value in self.inputs.items()}, self.skipped)


def collate_clips(items: Sequence[BatchFeature | SkippedClip]) -> ClipBatch:
    """Stack clips; `inputs` is empty if none could be read."""
    # `default_collate` writes straight into the memory that worker processes share with the loader.
    skipped = [item for item in items if isinstance(item, SkippedClip)]
    good = [item for item in items if not isinstance(item, SkippedClip)]
    names = good[0] if good else ()
    inputs = {name: default_collate([clip for item in good for clip in item[name]]) for name in names}
    return ClipBatch(inputs, skipped)


def skip_report(skipped: Mapping[Any, str], total: int) -> str:
    """Report of the clips that could not be read (`skipped`: name or number -> reason), of `total`; empty if
    there are none."""
    if not skipped:
        return ""
    reasons = list(skipped.values())
    listed = "\n".join(f"  {reason}" for reason in reasons[:5])
    more = f"\n  ... and {len(reasons) - 5} more" if len(reasons) > 5 else ""
    return f"Skipped {len(skipped)} of {total} clips that could not be read:\n{listed}{more}"
