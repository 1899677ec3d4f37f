# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Class by class: tables against scikit-learn's report and definitions, and confusion matrices."""

import csv
import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import auc, classification_report, roc_curve
from transformers import EvalPrediction

from modeling_vatt.evaluation import (
    classification_metrics,
    per_class_table,
    plot_confusion,
    tagging_metrics,
    write_per_class_table,
)


NAMES = ["dog", "cat", "owl", "hen"]


def generated(clips: int = 60, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """(clips, classes) logits that know something about the (clips,) labels."""
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, clips)
    scores = random.standard_normal((clips, classes)) + 1.5 * np.eye(classes)[labels]
    return scores, labels


def test_one_label_per_clip():
    scores, labels = generated()
    rows = per_class_table(scores, labels, NAMES)
    report = classification_report(labels, scores.argmax(1), target_names=NAMES, output_dict=True)
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    for index, row in enumerate(rows):
        expected = report[NAMES[index]]
        assert row["class"] == NAMES[index] and row["support"] == expected["support"]
        assert row["precision"] == pytest.approx(expected["precision"])
        assert row["recall"] == pytest.approx(expected["recall"])
        false, true, _ = roc_curve(labels == index, shares[:, index])
        assert row["AUC"] == pytest.approx(auc(false, true))
        assert row["d-prime"] == pytest.approx(math.sqrt(2) * norm.ppf(row["AUC"]))
        assert row["AP"] == pytest.approx(average_precision(labels == index, shares[:, index]))


def average_precision(present: np.ndarray, scores: np.ndarray) -> float:
    """Mean over the clips of a class of the precision at their place in the list (no ties)."""
    present = present[np.argsort(-scores)]
    return float((np.cumsum(present) / np.arange(1, len(present) + 1))[present].mean())


def test_several_labels_per_clip():
    """Means over classes are the figures of `tagging_metrics`."""
    random = np.random.default_rng(1)
    labels = (random.random((50, 4)) < 0.3).astype(float)
    scores = random.standard_normal((50, 4)) + labels
    rows = per_class_table(scores, labels, NAMES)
    means = tagging_metrics(scores, labels)
    for name, mean in (("AP", "mAP"), ("AUC", "AUC"), ("d-prime", "d-prime")):
        assert np.mean([row[name] for row in rows]) == pytest.approx(means[mean])
    found = scores[:, 0] > 0
    assert rows[0]["precision"] == pytest.approx(labels[found, 0].mean())
    assert rows[0]["recall"] == pytest.approx(found[labels[:, 0] == 1].mean())
    assert [row["support"] for row in rows] == labels.sum(0).tolist()


@pytest.mark.parametrize("axes", [1, 2])
def test_a_single_class(axes):
    """Which scikit-learn takes for "no" and "yes", of which the first would be counted."""
    scores = np.array([[2.0], [1.0], [-1.0], [0.5], [-2.0]])
    labels = np.array([1, 1, 1, 0, 0]) if axes == 2 else np.zeros(5, int)
    (row,) = per_class_table(scores, labels[:, None] if axes == 2 else labels, ["dog"])
    expected = (2 / 3, 2 / 3, 3) if axes == 2 else (1, 1, 5)
    assert (row["precision"], row["recall"], row["support"]) == expected


def test_figures_without_meaning(tmp_path):
    """A class that never occurs, and one that is never found."""
    scores = np.array([[2.0, 1, 0, -9], [0, 3, 1, -9], [1, 0, 0, -9]])
    rows = per_class_table(scores, np.array([0, 1, 3]), NAMES)
    assert math.isnan(rows[2]["recall"]) and math.isnan(rows[2]["AP"]) and math.isnan(rows[2]["AUC"])
    assert math.isnan(rows[3]["precision"]) and rows[3]["recall"] == 0
    write_per_class_table(rows, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open() as file:
        read = list(csv.DictReader(file))
    assert read[2]["AP"] == "" and read[3]["support"] == "1" and [row["class"] for row in read] == NAMES
    with pytest.raises(ValueError, match=r"\(clips, 4\)"):
        per_class_table(scores[:, :3], np.array([0, 1, 3]), NAMES)


def test_metrics_for_the_trainer():
    """Top-1, top-5 where there are more than five classes; mAP for tables of labels."""
    scores, labels = generated()
    assert set(classification_metrics(EvalPrediction(scores, labels))) == {"top1"}
    scores, labels = generated(classes=7)
    found = classification_metrics(EvalPrediction(scores, labels))
    assert found["top1"] == np.mean(scores.argmax(1) == labels) and found["top5"] > found["top1"]
    tags = classification_metrics(EvalPrediction(scores, np.eye(7)[labels]))
    assert tags == tagging_metrics(scores, np.eye(7)[labels])


@pytest.mark.parametrize("classes", [4, 60])
def test_confusion(classes, tmp_path):
    """Colours are shares of rows; few classes show their counts, many a readable choice of their names."""
    scores, labels = generated(200, classes)
    names = [f"class number {k}" for k in range(classes)]
    figure = plot_confusion(scores, labels, names)
    axes = figure.axes[0]
    image = axes.images[0]
    counts = np.zeros((classes, classes))
    np.add.at(counts, (labels, scores.argmax(1)), 1)
    np.testing.assert_allclose(image.get_array(), counts / counts.sum(1, keepdims=True).clip(1))
    assert image.get_cmap().name == "cividis"
    assert len(axes.get_xticks()) == (4 if classes == 4 else 30)
    assert len(axes.texts) == (np.count_nonzero(counts) if classes == 4 else 0)
    figure.savefig(tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").stat().st_size > 5000
