# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Tables of undecoded media files: from folders and `datasets`, with their captions."""

import logging
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from ..processors.media import PICTURE_SUFFIXES, SOUND_SUFFIXES, VIDEO_SUFFIXES
from .captions import check_lists, usable_captions, usable_sentences
from .folders import open_folder


logger = logging.getLogger(__name__)

# Medium -> endings of its files, and columns that may hold it, preferred ones first. Videos have sound too.
_MEDIA: dict[str, tuple[tuple[set[str], ...], tuple[Any, ...]]] = {
    "video": ((VIDEO_SUFFIXES,), (datasets.Video,)),
    "audio": ((VIDEO_SUFFIXES, SOUND_SUFFIXES), (datasets.Audio, datasets.Video)),
    "image": ((PICTURE_SUFFIXES,), (datasets.Image,)),
}
# Names that are much like `start` and `end`, which are those of the part of a file that a row uses.
_TIMES = re.compile(r"(?!start$|end$)(?i:(start|begin|end|stop)([ _-]?(time|s|secs?|seconds?|ms|stamp))*)")
_COMPARED = 1 << 12  # bytes of each part of two embedded files
_CAPTION_COLUMNS = ("captions", "caption", "text", "sentences", "sentence", "texts")


def open_table(
    data: str | os.PathLike, split: str, media: str, column: str | None = None, **kwargs: Any
) -> datasets.Dataset:
    """A table with a column of undecoded media files.

    Args:
        data: a folder (plain, a folder per class, or with `metadata.csv`, `.tsv`, `.jsonl` or `.parquet`,
            whose column `file_name` names the files), or the name of a dataset.
        media: `"video"`, `"audio"` (files of sound, or videos for their sound) or `"image"`; also the name of
            the column.
        column: column of the files; found by its type if left out.
        **kwargs: `cache_dir`; of a dataset, what `datasets.load_dataset` takes.

    Returns:
        Dataset with the column `media` and the others; `start` and `end`, the part that is used, are float64
        seconds. Cells of CSV files are text, blank ones missing.

    Raises:
        ValueError: no such folder, data set, split or column, or invalid times.
    """
    if media not in _MEDIA:
        raise ValueError(f"`media` must be one of {', '.join(_MEDIA)}, got {media!r}.")
    suffixes, kinds = _MEDIA[media]
    folder = Path(data).is_dir()
    if folder:
        table = open_folder(data, split, media, set().union(*suffixes), column, **kwargs)
    else:
        table = _load_dataset(data, split, kwargs)
    if column is None and folder:  # columns of files come first
        column = media if media in table.column_names else table.column_names[0]
    elif column is None:
        features = table.features
        columns = [name for kind in kinds for name in features if isinstance(features[name], kind)]
        if not columns:
            raise ValueError(
                f"{data}: no {media} column among {table.column_names}; name it with `{media}_column`."
            )
        column = columns[0]
    if column not in table.column_names:
        raise ValueError(f"{data}: no column {column!r} among {table.column_names}.")
    if column != media:
        table = table.remove_columns({media} & set(table.column_names)).rename_column(column, media)
    if folder and media == "video":
        endings = (os.path.splitext(path or "")[1].lower() for path in table[media])
        seen = [index for index, ending in enumerate(endings) if ending not in SOUND_SUFFIXES]
        if len(seen) < len(table):
            logger.warning("%s: left out %d sounds, which have no pictures.", data, len(table) - len(seen))
            table = table.select(seen)
    if folder and not len(table):
        raise ValueError(f"{data}: no {media} files in this folder. Put them there, or check the path.")
    if table.data.column(media).null_count:
        raise ValueError(f"{data}: rows without a file in the column {column!r}. Correct the metadata.")
    feature = table.features[media]
    kind = type(feature) if isinstance(feature, kinds) else kinds[-1]  # paths in plain strings
    table = table.cast_column(media, kind(decode=False))
    return table if media == "image" else _with_seconds(table, data)


def _load_dataset(data: str | os.PathLike, split: str, options: dict[str, Any]) -> datasets.Dataset:
    """A dataset of `datasets`; of CSV files, all cells are text."""
    if Path(data).is_absolute() or str(data).startswith(".") or str(data).count("/") > 1:
        raise ValueError(f"{data}: no such folder.")
    try:
        table = datasets.load_dataset(str(data), split=split, **options)
        if table.builder_name == "csv" and "features" not in options:
            text = datasets.Features({name: datasets.Value("string") for name in table.column_names})
            cells: dict[str, Any] = {"keep_default_na": False, "na_values": [""], "features": text}
            table = datasets.load_dataset(str(data), split=split, **{**cells, **options})
    except (datasets.data_files.EmptyDatasetError, FileNotFoundError, ConnectionError) as error:
        raise ValueError(f"{data}: no such folder here, and no such dataset on the Hub ({error}).") from error
    except (ValueError, LookupError, TypeError, datasets.exceptions.DatasetGenerationError) as error:
        raise ValueError(f"{data}: {error.__cause__ or error} Check its name and split.") from error
    return table


def _with_seconds(table: datasets.Dataset, data: str | os.PathLike) -> datasets.Dataset:
    """The table with `start` and `end` as numbers, missing where they are NaN; a warning of columns that are
    called much the same."""
    if alike := [name for name in table.column_names if _TIMES.fullmatch(name)]:
        logger.warning(
            "%s: the columns %s limit no part of a file; call them `start` and `end`, in seconds, if they "
            "should.",
            data,
            ", ".join(alike),
        )
    for name in [name for name in ("start", "end") if name in table.column_names]:
        try:
            values = [None if value is None else float(value) for value in table[name]]
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{data}: the column {name!r} holds {error}, but is read as seconds of the file. Correct or "
                "rename it."
            ) from error
        seconds = [None if value is None or math.isnan(value) else value for value in values]
        if table.features[name] != datasets.Value("float64") or seconds != values:
            feature = datasets.Value("float64")
            table = table.remove_columns(name).add_column(name, seconds, feature=feature)
    return table


def load_clips(
    data: str | os.PathLike,
    split: str,
    video_column: str | None = None,
    caption_column: str | None = None,
    **kwargs: Any,
) -> datasets.Dataset:
    """Videos with their captions, undecoded.

    Args:
        data: a folder of videos, with or without metadata, or the name of a dataset with a video column; see
            [`open_table`].
        video_column: column of the videos; found by its type if left out.
        caption_column: column with a caption, a list of captions, or a list of sentences with their times
            (`{"start", "end", "text"}`, seconds). Default: of each row the first one with words of
            `captions`, `caption`, `text`, `sentences`, `sentence` and `texts`, and beside it `sentences` with
            times.
        **kwargs: see [`open_table`].

    Returns:
        Dataset with the columns `video` (`{"path", "bytes"}`), `captions` (list of str) or `sentences`, and
        the others. Blank captions are left out; so are, with a warning, sentences without words or times.
        Rows of one file with equal `start` and `end` are one clip, which has the captions and sentences of
        all, and the other columns of the first; a warning counts them.

    Raises:
        ValueError: an empty folder, or columns that are not there.
    """
    table = open_table(data, split, "video", video_column, **kwargs)
    if caption_column not in (None, *table.column_names):
        raise ValueError(f"{data}: no column {caption_column!r} among {table.column_names}.")
    named = _CAPTION_COLUMNS if caption_column is None else (caption_column,)
    found = [name for name in named if name in table.column_names]
    if not found and set(table.column_names) - {"video", "start", "end"}:
        logger.warning(
            "%s: none of the columns %s is called as captions are, so clips have no words; name one with "
            "`caption_column`.",
            data,
            ", ".join(table.column_names),
        )
    timed = [name for name in ("sentences", *found) if name in found and _is_timed(table.features[name])][:1]
    plain = [name for name in found if not _is_timed(table.features[name])]
    captions = _captions_of(table, plain, data)
    # Columns that were not chosen must not be taken for captions.
    others = {"captions", "sentences", *plain[:1]} & set(table.column_names) - set(timed)
    table = table.remove_columns(sorted(others))
    if timed:
        table = _with_good_sentences(table.rename_columns({timed[0]: "sentences"}), data)
    if plain or not timed:
        table = table.add_column("captions", captions, feature=datasets.List(datasets.Value("string")))
    return _each_clip_once(table, data)


def _captions_of(table: datasets.Dataset, columns: Sequence[str], data: str | os.PathLike) -> list[list[str]]:
    """The captions of each row, from the first of the columns that has some."""
    captions: list[list[str]] = [[] for _ in range(len(table))]
    for number, name in enumerate(columns):
        values = list(table[name])
        lacking = [place for place, texts in enumerate(captions) if not texts]
        try:
            check_lists(values)
            for place in lacking:
                captions[place] = usable_captions(values[place])
        except ValueError as error:
            if number == 0:
                raise ValueError(f"{data}: column {name!r}: {error}. Correct the metadata.") from error
        taken = sum(bool(captions[place]) for place in lacking)
        if number and taken:
            logger.warning("%s: %d clips have their captions in the column %r.", data, taken, name)
    return captions


def names_and_sizes(table: datasets.Dataset, media: str) -> Iterator[tuple[str | None, int | None]]:
    """Path of each file, and its size if it is embedded."""
    for batch in table.select_columns(media).with_format("arrow").iter(batch_size=1000):
        paths, contents = (pc.struct_field(batch[media], name) for name in ("path", "bytes"))
        sizes = pc.binary_length(contents.cast(pa.large_binary()))
        yield from zip(paths.to_pylist(), sizes.to_pylist(), strict=True)


def warn_of_shared_files(train: datasets.Dataset, test: datasets.Dataset, media: str) -> None:
    """Log a warning if files of one split are in the other, too, as in `train[:80%]` and `train[80%:]` of
    rows that are parts of files, or captions of them."""
    known = set(names_and_sizes(train, media))
    shared = sum(key in known and key[0] is not None for key in names_and_sizes(test, media))
    if shared:
        logger.warning(
            "%d of the %d clips to measure with have the names (and sizes, if embedded) of files that are "
            "trained on. If these are the same, results will be too good: divide the files, not the rows.",
            shared,
            len(test),
        )


def first_rows(table: datasets.Dataset, media: str) -> list[int]:
    """For each row, the first one of the same file and part of it. A file is known by its path; embedded ones
    by name, size, and three parts of their content, which are read only where names and sizes agree."""
    times = [table[name] if name in table.column_names else [None] * len(table) for name in ("start", "end")]
    keys = [
        (*key, start or 0.0, end)
        for key, start, end in zip(names_and_sizes(table, media), *times, strict=True)
    ]
    counts = Counter(keys)
    found: dict[Any, int] = {}
    rows = []
    arrow = table.select_columns(media).with_format("arrow")
    for index, key in enumerate(keys):
        if key[1] is not None and counts[key] > 1:
            content = memoryview(arrow[index][media][0]["bytes"].as_buffer())
            middle = len(content) // 2
            key = (*key, hash(tuple(bytes(content[at:][:_COMPARED]) for at in (0, middle, -_COMPARED))))
        rows.append(found.setdefault(key, index))
    return rows


def _each_clip_once(table: datasets.Dataset, data: str | os.PathLike) -> datasets.Dataset:
    """The table with the captions of equal clips joined: as rows, they would be negatives of each other."""
    first = first_rows(table, "video")
    clips = sorted(set(first))
    if len(clips) == len(table):
        return table
    logger.warning("%s: %d rows are %d clips, which have the captions of all.", data, len(table), len(clips))
    for name in [name for name in ("captions", "sentences") if name in table.column_names]:
        joined: list[list[Any]] = [[] for _ in range(len(table))]
        for place, texts in zip(first, table[name], strict=True):
            joined[place] += [text for text in texts or [] if text not in joined[place]]
        feature = table.features[name]
        table = table.remove_columns(name).add_column(name, joined, feature=feature)
    return table.select(clips)


def _is_timed(feature: Any) -> bool:
    item = getattr(feature, "feature", None)
    if not isinstance(item, dict) or not {"start", "end", "text"} <= set(item):
        return False
    kinds = [getattr(item[name], "dtype", "") for name in ("start", "end", "text")]
    # A column without any value is of the type null.
    return kinds[2] in ("string", "large_string", "null") and all(
        kind.startswith(("int", "uint", "float", "null")) for kind in kinds[:2]
    )


def _with_good_sentences(table: datasets.Dataset, data: str | os.PathLike) -> datasets.Dataset:
    """The table without invalid sentences, which are listed."""
    kept: list[list[dict[str, Any]]] = []
    bad: list[str] = []
    for path, sentences in zip(file_paths(table), table["sentences"], strict=True):
        good, others = usable_sentences(sentences)
        kept.append(good)
        bad += [f"{path}: {why}: {sentences[place]}" for why, places in others.items() for place in places]
    if not bad:
        return table
    listed = "".join(f"\n  {sentence}" for sentence in bad[:5]) + ("\n  ..." if len(bad) > 5 else "")
    logger.warning("%s: left out %d sentences that cannot be used:%s", data, len(bad), listed)
    item = {
        "start": datasets.Value("float64"),
        "end": datasets.Value("float64"),
        "text": datasets.Value("string"),
    }
    return table.remove_columns("sentences").add_column("sentences", kept, feature=datasets.List(item))


class ClipTable(Protocol):
    """Videos with their captions, undecoded: what [`load_clips`] returns, or a [`ShardDataset`].

    A row has `video` (`{"path", "bytes"}`) and any of `captions` (list of str), `sentences` (list of
    `{"start", "end", "text"}`), and `start` and `end`, which limit the part of the file that is used. Times
    are seconds of the file.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


def all_captions(clips: Any) -> Iterator[list[str]]:
    """The texts of each clip of a table or [`ShardDataset`]; reads no media."""
    table = getattr(clips, "table", clips)
    names = [name for name in ("captions", "sentences") if name in table.column_names]
    for row in table.select_columns(names):
        timed = [sentence["text"] for sentence in row.get("sentences") or []]
        yield usable_captions([*(row.get("captions") or []), *timed])


def clip_name(clips: Any, index: int) -> str:
    """Name of a clip of a table or [`ShardDataset`]; reads no media."""
    if hasattr(clips, "table"):
        row = clips.table[index]
        return row["source"] or f"{clips.shards[row['shard']]}/{row['key']}"  # keys may begin anew
    return clips[index]["video"]["path"] or str(index)


def file_paths(clips: datasets.Dataset, media: str = "video") -> Iterator[str | None]:
    """Paths of the files of a table; reads no media."""
    name = f"{media}.path"
    for batch in clips.select_columns(media).flatten().select_columns(name).with_format("arrow").iter(1000):
        yield from batch[name].to_pylist()


def nearest_sentences(sentences: Sequence[dict[str, Any]], start: float, end: float, count: int) -> list[str]:
    """The texts nearest in time to a window, the nearest first (paper: the five of a clip).

    The distance is the time between sentence and window, 0 if they overlap. Equally distant sentences are
    ordered by the distance of their middle from the window's, then by time.

    Args:
        sentences: `{"start", "end", "text"}`, seconds.
        start, end: of the window, on the same clock.
        count: at most so many.
    """

    def distance(sentence: dict[str, Any]) -> tuple[float, float, float]:
        first, last = sentence["start"], sentence["end"]
        return max(0.0, first - end, start - last), abs(first + last - start - end), first

    return [sentence["text"] for sentence in sorted(sentences, key=distance)[:count]]
