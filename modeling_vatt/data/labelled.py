# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Videos, sounds and images with one label or several: tables, and items for the classifiers."""

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import BatchFeature

from ..files import composed
from ..processors.media import DEFAULT_LIMITS, MediaError, MediaLimits, read_picture
from ..processors.processing_vatt import VattProcessor
from ..processors.windows import window_places
from .captions import check_lists
from .folders import class_folders
from .reading import SkippedClip, read_row, source_of
from .tables import file_paths, first_rows, open_table


logger = logging.getLogger(__name__)

_LABEL_COLUMNS = ("label", "labels")


def load_labelled(
    data: str | os.PathLike,
    split: str,
    media: str,
    label_column: str | None = None,
    media_column: str | None = None,
    label_separator: str | None = None,
    **kwargs: Any,
) -> datasets.Dataset:
    """Media files with their classes, undecoded.

    Args:
        data: a folder with a folder per class under that of the split (`train/dog/a.mp4`,
            `train/dog/day1/a.mp4`) or with metadata beside the files, or the name of a dataset; see
            [`open_table`].
        media: `"video"`, `"audio"` (files of sound, or videos for their sound) or `"image"`.
        label_column: column of the classes, names or numbers, or lists of them; default `label` or `labels`.
            Names are kept as written, without surrounding space and in Unicode NFC: `1` and `01` are two
            classes.
        media_column: column of the files; default: found by its type.
        label_separator: separator of several classes in one string, such as `","` in AudioSet's lists.
        **kwargs: passed to `datasets.load_dataset`.

    Returns:
        Dataset with the undecoded column `video`, `audio` or `image`, the column `label` (`ClassLabel`, or
        `List(ClassLabel)` for several labels), and the others. Classes are those of the data set's own
        `ClassLabel`, or those in this split; see [`match_classes`] for other splits. Rows without a label are
        left out, with a warning. Rows of one file with equal `start`, `end` and labels each count; a warning
        says how many.

    Raises:
        ValueError: no such folder, split or column, no labels in it, or rows of one file with equal `start`
            and `end` but other labels.
    """
    table = open_table(data, split, media, media_column, **kwargs)
    if label_column is None:
        label_column = next((name for name in _LABEL_COLUMNS if name in table.column_names), None)
    if label_column is None and table.column_names == [media] and os.path.isdir(data):
        table, label_column = _with_class_folders(table, data, media)
    if label_column is None or label_column not in table.column_names:
        column = "`label`" if label_column is None else repr(label_column)
        raise ValueError(
            f"{data}: no column {column} among {table.column_names}, and no folder per class. Name the "
            "column of the labels with `label_column`."
        )
    feature = table.features[label_column]
    several = isinstance(feature, datasets.List)
    inner = feature.feature if several else feature
    if not isinstance(inner, datasets.ClassLabel | datasets.Value) or label_column == media:
        raise ValueError(f"{data}: column {label_column!r} must hold labels, but holds {feature}.")
    declared = inner.names if isinstance(inner, datasets.ClassLabel) else None
    separator = None if several or declared is not None else label_separator
    several = several or separator is not None
    try:
        labels = _labels_of(table[label_column], declared, separator)
    except ValueError as error:
        raise ValueError(f"{data}: column {label_column!r}: {error}. Correct the metadata.") from error
    labelled = [index for index, value in enumerate(labels) if value is not None]
    used = {name for index in labelled for name in _as_list(labels[index])}
    # Declared classes hold for all splits.
    names = declared or sorted(used, key=_natural)
    if not labelled or not names:
        raise ValueError(
            f"{data}: no clip of the split {split!r} has a label. Choose another column or split."
        )
    if len(labelled) < len(labels):
        logger.warning("%s: left out %d clips without a label.", data, len(labels) - len(labelled))
        table, labels = table.select(labelled), [labels[index] for index in labelled]
    _check_repeated(table, media, labels, data)
    return _with_labels(table.remove_columns(label_column), labels, names)


def _with_class_folders(
    table: datasets.Dataset, data: str | os.PathLike, media: str
) -> tuple[datasets.Dataset, str | None]:
    """The table with the column `label` from a folder per class, if there are some, and its name."""
    paths = [value["path"] for value in table[media]]
    classes = class_folders(data, paths)
    if classes is None:
        return table, None
    if outside := [path for path, name in zip(paths, classes, strict=True) if name is None]:
        raise ValueError(
            f"{data}: {len(outside)} files lie beside the class folders, such as {outside[0]}. Move each "
            "into the folder of its class."
        )
    depths = {path.count("/"): path for path in paths}
    if len(depths) > 1:
        logger.warning(
            "%s: files lie at different depths, such as %s and %s. The class is the folder under that of the "
            "split.",
            data,
            depths[min(depths)],
            depths[max(depths)],
        )
    return table.add_column("label", classes), "label"


def _check_repeated(
    table: datasets.Dataset, media: str, labels: Sequence[Any], data: str | os.PathLike
) -> None:
    """Warn of rows that repeat a named file with its labels; ValueError for one with other labels."""
    paths = list(file_paths(table, media))
    if None in paths:  # a message could not name them
        return
    repeated = [(row, first) for row, first in enumerate(first_rows(table, media)) if first < row]
    for row, first in repeated:
        if set(_as_list(labels[row])) != set(_as_list(labels[first])):
            raise ValueError(
                f"{data}: {paths[row]} is {labels[first]!r} in one row and {labels[row]!r} in another. Put "
                "all labels of a clip into one row, as a list or with `label_separator`; give parts of a "
                "file their times in columns `start` and `end`."
            )
    if repeated:
        logger.warning(
            "%s: %d rows repeat a file and its label, such as %s; each counts in training and in metrics.",
            data,
            len(repeated),
            paths[repeated[0][0]],
        )


def _as_list(label: str | list[str]) -> list[str]:
    return [label] if isinstance(label, str) else label


def _labels_of(values: Sequence[Any], declared: list[str] | None, separator: str | None) -> list[Any]:
    """Class names, or lists of different ones, of each row, None where missing; ValueError for lists written
    as text. `declared`: names of class ids; `separator`: between several names in one text."""
    labels: list[Any]
    if declared is not None:
        labels = [_names_of(value, declared) for value in values]
    else:
        check_lists(values)
        labels = _as_written(values)
        if separator is not None:
            labels = _as_written([value and value.split(separator) for value in labels])
    return [list(dict.fromkeys(filter(None, x))) if isinstance(x, list) else x for x in labels]


def _as_written(values: Sequence[Any]) -> list[Any]:
    """Labels, or lists of them, as written; None for missing and blank ones."""
    single = [x for value in values for x in (value if isinstance(value, list) else [value])]
    floats = [x for x in single if isinstance(x, float) and not math.isnan(x)]
    whole = all(x.is_integer() for x in floats)  # pandas makes floats of whole numbers if one is missing

    def written(label: Any) -> Any:
        if isinstance(label, list):
            return [written(x) for x in label]
        if isinstance(label, float):
            label = None if math.isnan(label) else int(label) if whole else label
        return None if label is None else composed(str(label)).strip() or None

    return [written(value) for value in values]


def _names_of(value: int | list[int] | None, names: list[str]) -> str | list[str] | None:
    """Names of class ids; -1 means no label in published test splits."""
    if isinstance(value, list):
        return [names[number] for number in value if number >= 0]
    return None if value is None or value < 0 else names[value]


def _natural(name: str) -> tuple[bool, int, str]:
    """Numbers first and in their order, then words."""
    return (False, int(name), name) if name.isdecimal() else (True, 0, name)


def _with_labels(
    table: datasets.Dataset, labels: Sequence[str | list[str]], names: Sequence[str]
) -> datasets.Dataset:
    """The table with the column `label`, encoded by a class list."""
    number = {name: index for index, name in enumerate(names)}
    feature: Any = datasets.ClassLabel(names=list(names))
    several = not isinstance(labels[0], str)
    encoded = [
        number[label] if isinstance(label, str) else [number[name] for name in label] for label in labels
    ]
    if "label" in table.column_names:
        table = table.remove_columns("label")
    return table.add_column("label", encoded, feature=datasets.List(feature) if several else feature)


def has_several_labels(table: datasets.Dataset) -> bool:
    """Whether the clips of a table of [`load_labelled`] have several labels each."""
    return isinstance(table.features["label"], datasets.List)


def class_names(table: datasets.Dataset) -> list[str]:
    """Class list of a table of [`load_labelled`]; position = class id."""
    feature = table.features["label"]
    return list((feature.feature if has_several_labels(table) else feature).names)


def match_classes(table: datasets.Dataset, names: Sequence[str]) -> datasets.Dataset:
    """A table of [`load_labelled`] with the class ids of another list (position = class id), such as that of
    the training split; ValueError if clips have other classes."""
    names = [composed(name) for name in names]
    before = [composed(name) for name in class_names(table)]
    labels = [_names_of(value, before) for value in table["label"]]
    used = {name for value in labels for name in _as_list(value or [])}
    unknown = sorted(used - set(names), key=_natural)
    if unknown:
        shown = ", ".join(map(repr, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        raise ValueError(
            f"{len(unknown)} classes of the split {str(table.split)!r} are not among the {len(names)} that "
            f"are trained: {shown}. Take their clips out, or add such clips to the training split."
        )
    return _with_labels(table, labels, names)  # type: ignore[arg-type]


@dataclass(eq=False, repr=False)
class LabelledDataset(Dataset):
    """Labelled clips as inputs of the classifiers.

    Args:
        clips: table of [`load_labelled`], or of [`decode_clips`] made from it.
        media: `"video"`, `"audio"` or `"image"`.
        random_window: take one random window (training) instead of `windows` uniform ones.
        augmentation: passed to the processor (training).
        windows: windows spread over each clip in evaluation (4 in the paper).
        crops: 1 (centre) or 3 (along the longer side) crops of each window; video only.
        seed, limits: see [`ClipDataset`].

    An item is addressed by its index, or by (epoch, index), and holds a batch of one: `pixel_values_videos`
    (1[, views], frames, channels, height, width), `input_values` (1[, windows], samples) or `pixel_values`
    (1, channels, height, width), and `labels`, int64 (1,) or float32 (1, classes) for several labels. The
    axis of views exists if `windows * crops` is more than one. What cannot be read is a [`SkippedClip`].
    """

    clips: datasets.Dataset
    processor: VattProcessor
    media: str
    random_window: bool = False
    augmentation: Any = None
    windows: int = 1
    crops: int = 1
    seed: int = 0
    limits: MediaLimits = DEFAULT_LIMITS

    def __post_init__(self) -> None:
        windows, crops, media = self.windows, self.crops, self.media
        if crops not in (1, 3) or windows < 1:
            raise ValueError(f"`windows` must be 1 or more and `crops` 1 or 3, got {windows} and {crops}.")
        if (crops > 1 and media != "video") or (windows > 1 and media == "image"):
            raise ValueError(f"{windows} windows of {crops} crops make no sense for {media}: use 1.")
        if (self.random_window or self.augmentation is not None) and windows * crops > 1:
            raise ValueError("Training takes one view of a clip: leave `windows` and `crops` at 1.")
        self.num_labels = len(class_names(self.clips))
        self.several_labels = has_several_labels(self.clips)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, item: int | tuple[int, int]) -> BatchFeature | SkippedClip:
        epoch, index = (0, item) if isinstance(item, int) else item
        row = self.clips[index]
        random = np.random.default_rng((self.seed, epoch, index))
        places = window_places(self.windows, random if self.random_window else None)
        generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        try:
            inputs = self._inputs(row, places, generator)
        except MediaError as error:
            return SkippedClip.of(row, error)
        if self.several_labels:
            labels = torch.zeros(1, self.num_labels)
            labels[0, row["label"]] = 1
        else:
            labels = torch.tensor([row["label"]])
        return BatchFeature({**inputs, "labels": labels})

    def _inputs(
        self, row: dict[str, Any], places: list[float], generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        options: dict[str, Any] = {"augmentation": self.augmentation, "generator": generator}
        if self.media == "image":
            picture = read_picture(source_of(row["image"]), self.limits)[None]
            clip = self.processor(videos=[picture], num_frames=1, **options)["pixel_values_videos"]
            return {"pixel_values": clip[:, 0]}
        window = {**self.processor.clip_options(self.media), "limits": self.limits}
        clips = read_row(row, self.media, window, places)
        options["start"] = 0.0
        if self.media == "audio":
            name = "input_values"
            values = self.processor(audio=[clip.waveform for clip in clips], **options)[name]
        else:
            name = "pixel_values_videos"
            crop_mode = "three" if self.crops == 3 else "center"
            values = self.processor(
                videos=clips, load_audio_from_video=False, crop_mode=crop_mode, **options
            )[name]
        return {name: values if len(values) == 1 else values.unsqueeze(0)}
