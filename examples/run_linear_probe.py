# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Linear evaluation: a linear classifier on the frozen features of a pretrained model.

    python examples/run_linear_probe.py --model my_model --dataset UCF101 --layout ucf101 --output_dir probe
    python examples/run_linear_probe.py --model my_model --dataset my_videos --media audio --output_dir probe

Classifiers are trained on one centred window of every clip and tested on four. The output folder gets
`results.json`, `splits.csv` and the features, with which a second run is quick.
"""

import csv
import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import numpy.typing as npt
from common import held_out, parse
from frozen_model import ModelArguments, embed, load, report_skipped, write_results
from transformers.hf_argparser import HfArg

from modeling_vatt.data import (
    Split,
    class_names,
    cross_validation,
    has_several_labels,
    load_esc50,
    load_hmdb51,
    load_labelled,
    load_ucf101,
    match_classes,
)
from modeling_vatt.data.tables import warn_of_shared_files
from modeling_vatt.evaluation import LinearHeadClassifier, linear_probe, linear_svm, summarize_splits
from modeling_vatt.processors import MediaError, VattProcessor
from modeling_vatt.training import table_fingerprint


SECONDS = datasets.Value("float64")
LAYOUTS: dict[str, Callable[[str], datasets.Dataset]] = {
    "ucf101": load_ucf101,
    "hmdb51": load_hmdb51,
    "esc50": load_esc50,
}


@dataclass
class ProbeArguments:
    """What to probe, and with what."""

    dataset: str = HfArg(help="Folder, or name of a dataset (layout `folder`).")
    layout: Literal["folder", "ucf101", "hmdb51", "esc50"] = HfArg(
        default="folder", help="How the folder is laid out; see docs/evaluate.md."
    )
    media: Literal["video", "audio"] = HfArg(
        default="video", help="Which tower; `audio` listens to videos too."
    )
    classifier: Literal["both", "svm", "linear"] = HfArg(
        default="both", help="Linear SVM, the release's linear head, or both."
    )
    folds: list[str] = HfArg(
        default_factory=list, help="Numbers of the splits to run, e.g. 1 2; all if left out."
    )
    label_column: str | None = HfArg(default=None, help="Layout `folder`: column of the classes.")
    train_split: str = HfArg(default="train", help="Layout `folder`: split to train on.")
    test_split: str | None = HfArg(
        default=None,
        help="Layout `folder`: split to test on, `test` or else `validation` if left out; '' "
        "cross-validates.",
    )
    fold_column: str = HfArg(default="fold", help="Cross-validation: column of folds, if any.")
    num_folds: int = HfArg(default=5, help="Cross-validation without such a column: folds.")
    train_windows: int = HfArg(default=1, help="Windows of a clip in training; 1 is centred.")
    test_windows: int = HfArg(default=4, help="Windows of a clip that are averaged in testing.")
    max_train_clips: int | None = HfArg(default=None, help="At most so many a split, by lot.")
    max_test_clips: int | None = HfArg(default=None, help="At most so many a split, by lot.")
    svm_c: float = HfArg(default=6e-5, help="C of the SVM; few clips want more.")
    svm_standardize: bool = HfArg(
        default=True, help="Bring the SVM's features to zero mean and unit variance."
    )
    head_epochs: int = HfArg(default=1000, help="Epochs of the linear head (release).")
    head_steps: int | None = HfArg(default=None, help="Steps of the linear head instead; 50000 in the paper.")
    seed: int = HfArg(default=1, help="Of the classifiers, the folds and the lots.")


def load_table(args: ProbeArguments) -> tuple[datasets.Dataset, str]:
    """The clips, and the name of the column of their files."""
    if args.layout != "folder":
        table = LAYOUTS[args.layout](args.dataset)
        media = "video" if "video" in table.column_names else "audio"
        if args.media == "video" and media == "audio":
            raise ValueError(f"{args.layout} has no pictures: use --media audio.")
        return table, media
    table = load_labelled(args.dataset, args.train_split, args.media, args.label_column)
    if has_several_labels(table):
        raise ValueError(f"{args.dataset}: clips have several labels; a probe needs one. See --label_column.")
    if args.test_split == "":
        return table, args.media

    def load_split(split: str) -> datasets.Dataset:
        return load_labelled(args.dataset, split, args.media, args.label_column)

    args.test_split, test = held_out(load_split, args.test_split)
    test = match_classes(test, class_names(table))
    warn_of_shared_files(table, test, args.media)
    columns = [args.media, "label"]
    for name in ("start", "end"):
        if name in [*table.column_names, *test.column_names]:
            columns.append(name)
            table, test = (
                part if name in part.column_names else part.add_column(name, whole, feature=SECONDS)
                for part, whole in ((table, [None] * len(table)), (test, [None] * len(test)))
            )
    joined = datasets.concatenate_datasets([table.select_columns(columns), test.select_columns(columns)])
    return joined.add_column("split1", ["train"] * len(table) + ["test"] * len(test)), args.media


def choose_splits(args: ProbeArguments, table: datasets.Dataset) -> dict[str, Split]:
    """The splits to run, with at most the wanted numbers of clips."""
    splits = cross_validation(table, args.fold_column, args.num_folds, args.seed)
    if args.folds:
        wanted = {name for name in splits if name.removeprefix("split").removeprefix("fold") in args.folds}
        if len(wanted) != len(set(args.folds)):
            raise ValueError(f"--folds {' '.join(args.folds)}: the splits are {', '.join(splits)}.")
        splits = {name: split for name, split in splits.items() if name in wanted}

    def draw(clips: npt.NDArray[np.int64], limit: int | None) -> npt.NDArray[np.int64]:
        return np.sort(np.random.default_rng(args.seed).permutation(clips)[:limit])

    return {
        name: (draw(train, args.max_train_clips), draw(test, args.max_test_clips))
        for name, (train, test) in splits.items()
    }


@dataclass
class Features:
    """Features of the training clips, or of the test clips.

    Attributes:
        values: (all clips, windows, dim), NaN for clips of no split and unreadable ones.
        read: indices of the readable clips.
        total: clips of the splits.
        errors: reasons for the others.
    """

    values: npt.NDArray
    read: npt.NDArray[np.int64]
    total: int
    errors: list[MediaError]


def embed_windows(
    args: ProbeArguments,
    model_args: ModelArguments,
    parts: tuple[Any, VattProcessor],
    table: datasets.Dataset,
    column: str,
    clips: npt.NDArray[np.int64],
    windows: int,
) -> Features:
    """Pooled features of some clips; `parts`: model and processor."""
    found = embed(
        model_args,
        *parts,
        table.select(clips),
        column,
        f"Features, {windows} window{'s' if windows > 1 else ''}",
        modalities=(args.media,),
        windows=windows,
        pooled=True,
    )
    rows, read = found.arrays[f"{args.media}_pooled"], clips[found.kept]
    values = np.full((len(table), *rows.shape[1:]), np.nan, dtype=rows.dtype)
    values[read] = rows
    return Features(values, read, len(clips), found.errors)


def make_classifiers(args: ProbeArguments, device: str) -> dict[str, Any]:
    """The classifiers to train, by name."""
    classifiers = {
        "svm": linear_svm(args.svm_c, args.svm_standardize, args.seed),
        "linear": LinearHeadClassifier(
            epochs=args.head_epochs, steps=args.head_steps, seed=args.seed, device=device
        ),
    }
    return classifiers if args.classifier == "both" else {args.classifier: classifiers[args.classifier]}


def print_table(summary: dict[str, dict[str, Any]], num_labels: int) -> None:
    """Mean over splits, and standard deviation."""
    print(f"\n{'':14s}{'top-1':>16s}{'top-5':>16s}")
    for name, row in summary.items():
        cells = ""
        for key in ("top1", "top5"):
            deviation = row[f"{key}_std"]
            text = f"{100 * row[key]:.1f}%" + ("" if deviation is None else f" ± {100 * deviation:.1f}")
            cells += f"{text:>16s}"
        print(f"{name:14s}{cells}")
    chance = "".join(f"{100 * min(1, k / num_labels):15.1f}%" for k in (1, 5))
    print(f"{'chance':14s}{chance}")


def main() -> None:
    args, model_args = parse(__doc__, ProbeArguments, ModelArguments)
    try:
        table, column = load_table(args)
        splits = choose_splits(args, table)
        unused = [f"{name}_model" for name in ("video", "audio", "text") if name != args.media]
        parts = load(model_args, may_be_new=("head", *unused))
        trained, tested = (np.unique(np.concatenate(clips)) for clips in zip(*splits.values(), strict=True))
        see = partial(embed_windows, args, model_args, parts, table, column)
        train, test = see(trained, args.train_windows), see(tested, args.test_windows)
        # What could not be read is left out of every split.
        splits = {
            name: (np.intersect1d(trained, train.read), np.intersect1d(tested, test.read))
            for name, (trained, tested) in splits.items()
        }
        labels = np.asarray(table["label"])
        results = {
            name: linear_probe(classifier, train.values, test.values, labels, splits)
            for name, classifier in make_classifiers(args, model_args.device).items()
        }
    except (OSError, ValueError) as error:
        sys.exit(str(error))

    names = class_names(table)
    summary = {name: summarize_splits(rows) for name, rows in results.items()}
    lines = [
        {"classifier": name, **dataclasses.asdict(row)} for name, rows in results.items() for row in rows
    ]
    print(f"{len(splits)} split{'s' if len(splits) > 1 else ''}, {len(names)} classes, {args.media}")
    print_table(summary, len(names))
    skipped = [str(error) for error in (*train.errors, *test.errors)]
    report_skipped(skipped, train.total + test.total)
    write_results(
        model_args,
        {
            "summary": summary,
            "splits": lines,
            "classes": names,
            "skipped": skipped,
            "settings": {**dataclasses.asdict(args), **dataclasses.asdict(model_args)},
        },
        "linear probe",
        parts[0],
        table_fingerprint(table, column, "label"),
    )
    with (Path(model_args.output_dir) / "splits.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


if __name__ == "__main__":
    main()
