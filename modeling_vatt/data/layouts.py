# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Official layouts of evaluation sets on disk, as tables: UCF101, HMDB51 and ESC-50 with their splits,
MSR-VTT and YouCook2 with their captions.

A table has every clip of the annotations; missing files are skipped, counted and reported later, like
unreadable ones.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from .captions import usable_captions
from .folders import read_csv, read_text
from .tables import VIDEO_SUFFIXES, first_rows


# (indices of training clips, indices of test clips)
Split = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
_SPLITS = ("split1", "split2", "split3")  # of UCF101 and HMDB51


def load_ucf101(root: str | os.PathLike) -> datasets.Dataset:
    """UCF101 and its three official splits.

    Args:
        root: holds `ucfTrainTestlist/` (`classInd.txt`, `trainlist01.txt`, `testlist01.txt`, ...) and the 101
            class folders, either directly or in a folder of their own (`UCF-101/`).

    Returns:
        Table with the columns `video`, `label` (`ClassLabel` in the order of `classInd.txt`) and `split1`,
        `split2`, `split3` (`"train"`, `"test"` or `""`).

    Raises:
        ValueError: a list or the class folders are missing, or a list names an unknown class.
    """
    lists = Path(root) / "ucfTrainTestlist"
    with _understood(lists / "classInd.txt", "UCF101") as file:
        classes = [line.split()[1] for line in _lines(file)]
    parts: dict[str, dict[str, str]] = {}  # clip -> split -> part
    for split in _SPLITS:
        for part in ("train", "test"):
            with _understood(lists / f"{part}list0{split[-1]}.txt", "UCF101") as file:
                for line in _lines(file):
                    parts.setdefault(_inside(line.split()[0]), {})[split] = part
    with _understood(lists, "UCF101"):
        return _split_table(Path(root), classes, parts)


def load_hmdb51(root: str | os.PathLike) -> datasets.Dataset:
    """HMDB51 and its three official splits.

    Args:
        root: holds `testTrainMulti_7030_splits/` (`<class>_test_split1.txt`, ...; each line a file and 0
            unused, 1 train or 2 test) and the 51 class folders, either directly or in a folder of their own.

    Returns:
        Table with the columns `video`, `label` (`ClassLabel`, alphabetical) and `split1`, `split2`, `split3`
        (`"train"`, `"test"` or `""`).

    Raises:
        ValueError: the lists or the class folders are missing.
    """
    lists = Path(root) / "testTrainMulti_7030_splits"
    ending = "_test_split1.txt"
    classes = sorted(path.name.removesuffix(ending) for path in lists.glob(f"*{ending}"))
    if not classes:
        raise ValueError(f"{lists}: no files *{ending}. Unpack HMDB51's list of splits into {root}.")
    parts: dict[str, dict[str, str]] = {}
    for name in classes:
        for split in _SPLITS:
            with _understood(lists / f"{name}_test_{split}.txt", "HMDB51") as file:
                for line in _lines(file):
                    clip, flag = line.split()
                    part = {"0": "", "1": "train", "2": "test"}[flag]
                    parts.setdefault(_inside(f"{name}/{clip}"), {})[split] = part
    with _understood(lists, "HMDB51"):
        return _split_table(Path(root), classes, parts)


def load_esc50(root: str | os.PathLike) -> datasets.Dataset:
    """ESC-50 and its five folds.

    Args:
        root: holds `meta/esc50.csv` and `audio/`.

    Returns:
        Table with the columns `audio`, `label` (`ClassLabel` in the order of the column `target`) and `fold`.

    Raises:
        ValueError: the list is missing.
    """
    with _understood(Path(root) / "meta" / "esc50.csv", "ESC-50") as file:
        rows = read_csv(file)
        classes = [name for _, name in sorted({(int(row["target"]), row["category"]) for row in rows})]
        return _table(
            "audio",
            [str(Path(root) / "audio" / _inside(row["filename"])) for row in rows],
            [row["category"] for row in rows],
            classes,
            {"fold": [int(row["fold"]) for row in rows]},
        )


def cross_validation(
    table: datasets.Dataset, fold_column: str = "fold", num_folds: int = 5, seed: int = 0
) -> dict[str, Split]:
    """The splits of a labelled table.

    Args:
        table: has columns `split1`, `split2`, ... that say what a clip is for; or a column of folds, each of
            which is the test set once; or neither, and is divided into folds of about equal class shares, in
            which parts of a file stay together.
        fold_column: name of the column of folds.
        num_folds: folds to make for a table that has none.

    Returns:
        Name of each split, with the indices of its training and its test clips.

    Raises:
        ValueError: a split has no training or no test clips, or a class has too few files for the folds.
    """
    official = sorted(name for name in table.column_names if name.startswith("split") and name[5:].isdigit())
    if official:
        columns = {name: np.asarray(table[name]) for name in official}
        splits = {
            name: (np.flatnonzero(parts == "train"), np.flatnonzero(parts == "test"))
            for name, parts in columns.items()
        }
    elif fold_column in table.column_names:
        folds = np.asarray(table[fold_column])
        splits = {
            f"fold{fold}": (np.flatnonzero(folds != fold), np.flatnonzero(folds == fold))
            for fold in np.unique(folds)
        }
    else:
        labels = np.asarray(table["label"])
        files = _files(table)
        rarest = min(len(set(files[labels == label])) for label in np.unique(labels))
        if not 2 <= num_folds <= rarest:
            raise ValueError(
                f"`num_folds` is {num_folds}, but must be at least 2 and at most the number of files of the "
                f"rarest class, {rarest}."
            )
        divided = len(set(files)) < len(files)
        kind, groups = (StratifiedGroupKFold, files) if divided else (StratifiedKFold, None)
        parts = kind(num_folds, shuffle=True, random_state=seed).split(labels, labels, groups)
        splits = {f"fold{number}": (train, test) for number, (train, test) in enumerate(parts, start=1)}
    for name, (train, test) in splits.items():
        if not len(train) or not len(test):
            raise ValueError(
                f"{name} has {len(train)} training and {len(test)} test clips: both are needed. Check the "
                "lists."
            )
    return splits


def _files(table: datasets.Dataset) -> npt.NDArray[np.int64]:
    """Number of the first row of each row's file; of rows without media, their own."""
    name = next((name for name in ("video", "audio", "image") if name in table.column_names), None)
    if name is None:
        return np.arange(len(table))
    return np.array(first_rows(table.select_columns(name), name))


def load_msrvtt(
    root: str | os.PathLike, annotations: str | os.PathLike | None = None, split: str = "test"
) -> datasets.Dataset:
    """MSR-VTT clips with their captions.

    Args:
        root: holds the clips (`video7010.mp4`), anywhere below it.
        annotations: `MSRVTT_JSFUSION_test.csv` (the 1k-A test set, one caption per clip) or the JSON file of
            the data set (`videodatainfo`, 20 captions per clip); default: the former, below `root`.
        split: `"train"`, `"validate"`, `"test"`; of the JSON file.

    Returns:
        Table with the columns `name`, `video`, `captions`; see [`load_youcook2`].

    Raises:
        ValueError: no annotations, or no clips in this split.
    """
    file = _annotations(root, annotations, "MSRVTT_JSFUSION_test.csv")
    captions: dict[str, list[str]] = {}
    with _understood(file, "MSR-VTT"):
        if file.suffix == ".csv":
            for row in read_csv(file):
                captions.setdefault(_text(row["video_id"]), []).extend(_captions(row["sentence"]))
        else:
            content = _json(file)
            captions = {
                _text(video["video_id"]): [] for video in content["videos"] if video["split"] == split
            }
            for sentence in content["sentences"]:
                if sentence["video_id"] in captions:
                    captions[sentence["video_id"]].extend(_captions(sentence["caption"]))
        rows = [{"name": name, "file": name, "captions": texts} for name, texts in captions.items()]
        return _caption_table(Path(root), rows, file, split)


def load_youcook2(
    root: str | os.PathLike, annotations: str | os.PathLike | None = None, split: str = "validation"
) -> datasets.Dataset:
    """YouCook2 clips: described time windows of long videos.

    Args:
        root: holds the videos (named by their YouTube id), anywhere below it.
        annotations: `youcookii_annotations_trainval.json`; default: the one below `root`.
        split: `"training"` or `"validation"`, on which retrieval is measured.

    Returns:
        Table with the columns `name` (`<video>_<segment>`), `video`, `captions` (list), and `start`, `end`
        in seconds of the video.

    Raises:
        ValueError: no annotations, or no clips in this split.
    """
    file = _annotations(root, annotations, "youcookii_annotations_trainval.json")
    with _understood(file, "YouCook2"):
        rows = [
            {
                "name": f"{video}_{clip['id']}",
                "file": video,
                "captions": _captions(clip["sentence"]),
                "start": _seconds(clip["segment"][0]),
                "end": _seconds(clip["segment"][1]),
            }
            for video, entry in _json(file)["database"].items()
            if entry["subset"] == split
            for clip in entry["annotations"]
        ]
        return _caption_table(Path(root), rows, file, split)


@contextmanager
def _understood(file: Path, dataset: str) -> Iterator[Path]:
    """Turns errors in the block into a ValueError that names the file."""
    try:
        yield file
    except _LayoutError:
        raise
    except FileNotFoundError as error:
        raise _LayoutError(f"{file}: no such file. Unpack {dataset}'s annotations there.") from error
    # Errors of parsing; pyarrow refuses values that fit no column.
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise _LayoutError(
            f"{file}: not as {dataset} has it ({type(error).__name__}: {error}). Download or mend it."
        ) from error


class _LayoutError(ValueError):
    """Names file and remedy already."""


def _inside(name: str) -> str:
    """The name of a file below a folder."""
    if "\0" in name or os.path.isabs(name) or ".." in Path(name).parts:
        raise ValueError(f"the name {name!r} leads out of the folder")
    return name


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    value.encode()  # raises for half of a surrogate pair, which no table takes
    return value


def _captions(value: Any) -> list[str]:
    """The caption as a list, empty if missing or blank."""
    return usable_captions(None if value is None else _text(value))


def _seconds(value: Any) -> float:
    """A time in seconds; NaN where it is missing, so that the clip is skipped and listed."""
    seconds = float("nan") if value is None else float(value)
    if seconds < 0 or seconds == float("inf"):
        raise ValueError(f"{value!r} is no moment of a video")
    return seconds


def _lines(file: Path) -> list[str]:
    """Lines that are not empty."""
    return [line for line in read_text(file).split("\n") if line.strip()]


def _json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise _LayoutError(f"{file}: not a JSON file ({error}). Download it again.") from error


def _split_table(root: Path, classes: list[str], parts: dict[str, dict[str, str]]) -> datasets.Dataset:
    """Clips in class folders; `parts`: clip (`class/file`) -> split -> part."""
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    videos = next((folder for folder in folders if any((folder / name).is_dir() for name in classes)), None)
    if videos is None:
        raise _LayoutError(
            f"{root}: no class folder such as {classes[0]}/ here or one level below. Unpack it."
        )
    clips = sorted(parts)
    labels = [clip.split("/")[0] for clip in clips]
    columns = {split: [parts[clip].get(split, "") for clip in clips] for split in _SPLITS}
    return _table("video", [str(videos / clip) for clip in clips], labels, classes, columns)


def _table(
    media: str, files: list[str], labels: list[str], classes: list[str], columns: dict[str, list[Any]]
) -> datasets.Dataset:
    unknown = sorted(set(labels) - set(classes))
    if unknown:
        raise ValueError(f"The lists name the unknown class {unknown[0]!r}: check the list of classes.")
    table = datasets.Dataset.from_dict({media: files, "label": labels, **columns})
    kind = datasets.Video(decode=False) if media == "video" else datasets.Audio(decode=False)
    return table.cast_column(media, kind).cast_column("label", datasets.ClassLabel(names=classes))


def _annotations(root: str | os.PathLike, given: str | os.PathLike | None, name: str) -> Path:
    found = [Path(given)] if given is not None else sorted(Path(root).rglob(name))
    if not found or not found[0].is_file():
        raise ValueError(f"{found[0] if found else root}: no {name} there. Pass `annotations`.")
    return found[0]


def _caption_table(
    root: Path, rows: Sequence[dict[str, Any]], annotations: Path, split: str
) -> datasets.Dataset:
    if not rows:
        raise _LayoutError(f"{annotations}: no clips in the split {split!r}. Choose another `split`.")
    named, files = {row["file"] for row in rows}, dict[str, Path]()
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() not in VIDEO_SUFFIXES or path.stem not in named:
            continue
        if (other := files.setdefault(path.stem, path)) != path:
            raise _LayoutError(f"{path} and {other} are both the video {path.stem!r}. Take one away.")
    columns: dict[str, list[Any]] = {
        "name": [row["name"] for row in rows],
        "video": [str(files.get(row["file"], root / _inside(f"{row['file']}.mp4"))) for row in rows],
        "captions": [row["captions"] for row in rows],
    }
    if "start" in rows[0]:
        columns |= {key: [row[key] for row in rows] for key in ("start", "end")}
    return datasets.Dataset.from_dict(columns).cast_column("video", datasets.Video(decode=False))
