# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Metrics of classifiers by class (paper 4.2)."""

import csv
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    roc_auc_score,
)
from transformers import EvalPrediction

from ..files import csv_cell, whole_file
from .metrics import classes_present, tagging_metrics, top_k_accuracy


if TYPE_CHECKING:
    from matplotlib.figure import Figure

# With more classes a plot shows no counts and not all names.
_READABLE = 40


def classification_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """`compute_metrics` of a Trainer around a classifier: [`top_k_accuracy`] (1, and 5 if there are more
    classes) for class ids, [`tagging_metrics`] for (clips, classes) labels."""
    scores, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
    if labels.ndim == 2:
        return tagging_metrics(scores, labels)
    return top_k_accuracy(scores, labels, (1, 5) if scores.shape[1] > 5 else (1,))


def per_class_table(
    scores: npt.NDArray, labels: npt.NDArray, names: Sequence[str], threshold: float = 0.0
) -> list[dict[str, Any]]:
    """Precision, recall, average precision, ROC AUC, d-prime and support of every class.

    Args:
        scores: (clips, classes) logits.
        labels: (clips,) class ids, or (clips, classes) with 1 for the classes of a clip.
        names: of the classes.
        threshold: logit above which a class is predicted, for several labels per clip (with one label the
            largest logit is).

    Returns:
        A row per class: `{"class", "precision", "recall", "AP", "AUC", "d-prime", "support"}`. NaN where
        undefined: precision of a class that is never predicted, recall and AP of one that never occurs, AUC
        and d-prime of one that occurs never or always.

    Raises:
        ValueError: if the shapes differ, or several labels are not 0 or 1.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    classes = len(names)
    if scores.ndim != 2 or scores.shape[1] != classes or len(labels) != len(scores):
        raise ValueError(
            f"`scores` must be (clips, {classes}) with a label for every clip, got {scores.shape} and "
            f"{labels.shape}."
        )
    if labels.ndim == 2:
        present, found = classes_present(labels), scores > threshold
    else:
        present = labels[:, None] == np.arange(classes)
        found = scores.argmax(axis=1)[:, None] == np.arange(classes)
    right, support = (present & found).sum(axis=0), present.sum(axis=0)
    with np.errstate(invalid="ignore"):  # 0 of 0 is NaN
        precision, recall = right / found.sum(axis=0), right / support
    # Compared across clips, so as softmax shares, not as logits.
    ranking = scores if labels.ndim == 2 else scores - _log_sum_exp(scores)
    rows = []
    for index, name in enumerate(names):
        here, ranked = present[:, index], ranking[:, index]
        area = float(roc_auc_score(here, ranked)) if here.any() and not here.all() else float("nan")
        rows.append(
            {
                "class": name,
                "precision": float(precision[index]),
                "recall": float(recall[index]),
                "AP": float(average_precision_score(here, ranked)) if here.any() else float("nan"),
                "AUC": area,
                "d-prime": float(np.sqrt(2) * ndtri(area)),
                "support": int(support[index]),
            }
        )
    return rows


def _log_sum_exp(scores: npt.NDArray) -> npt.NDArray:
    return np.logaddexp.reduce(scores.astype(np.float64), axis=1, keepdims=True)


def write_per_class_table(rows: Sequence[dict[str, Any]], path: str | os.PathLike) -> None:
    """Write the rows of [`per_class_table`] as a CSV file; NaN fields stay empty."""
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({name: "" if value != value else csv_cell(value) for name, value in row.items()})


def plot_confusion(scores: npt.NDArray, labels: npt.NDArray, names: Sequence[str]) -> "Figure":
    """Confusion matrix of a classifier with one label per clip, as a figure of matplotlib (extra `demo`).

    Rows are true classes, columns predicted ones, colours the share of a row (cividis, for all kinds of
    colour vision). Up to 40 classes show their counts; of more, as many names are shown as fit.

    Args:
        scores: (clips, classes) logits.
        labels: (clips,) class ids.
        names: of the classes.
    """
    from matplotlib.figure import Figure

    classes = len(names)
    counts = confusion_matrix(labels, np.asarray(scores).argmax(axis=1), labels=range(classes))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    inches = min(3 + 0.45 * classes, 20)
    figure = Figure(figsize=(inches + 1, inches), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="Share of the true class", shrink=0.7)
    shown = range(0, classes, -(-classes // _READABLE))
    texts = [names[place] if len(names[place]) <= 24 else f"{names[place][:23]}…" for place in shown]
    axes.set_xticks(shown, texts, rotation=90)
    axes.set_yticks(shown, texts)
    axes.set_xlabel("Found")
    axes.set_ylabel("True")
    right = counts.trace() / max(counts.sum(), 1)
    axes.set_title(f"{right:.1%} of {counts.sum()} clips right")
    if classes <= _READABLE:
        for row, column in np.argwhere(counts):
            # Dark cells get white numbers.
            colour = "black" if shares[row, column] > 0.6 else "white"
            number = counts[row, column]
            axes.text(column, row, str(number), ha="center", va="center", color=colour, fontsize=8)
    return figure
