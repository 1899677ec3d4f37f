# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Metrics as functions and as `evaluate.Metric`: the release's numbers, hand-made cases, combination."""

import json
import math
from pathlib import Path

import evaluate
import numpy as np
import pytest
from transformers import EvalPrediction

from modeling_vatt.evaluation import (
    RetrievalMetrics,
    TaggingMetrics,
    TopKAccuracy,
    pretraining_metrics,
    retrieval_metrics,
    tagging_metrics,
    top_k_accuracy,
)


GOLDENS = Path(__file__).parents[1] / "fixtures" / "goldens" / "small"


@pytest.fixture(scope="module")
def golden() -> tuple[dict, dict]:
    with np.load(GOLDENS / "metrics.npz") as arrays:
        return dict(arrays), json.loads((GOLDENS / "metrics.json").read_text())


def test_tagging_metrics_are_the_releases(golden):
    """mAP, AUC and d-prime of the official evaluator, from the function and from the metric."""
    arrays, expected = golden
    found = tagging_metrics(arrays["predictions"], arrays["labels"])
    assert {name: found[name] for name in expected["audio"]} == pytest.approx(expected["audio"])
    assert (found["num_classes"], found["num_skipped_classes"]) == (7, 0)
    metric = TaggingMetrics()
    for half in (slice(0, 17), slice(17, None)):
        metric.add_batch(predictions=arrays["predictions"][half], references=arrays["labels"][half])
    assert metric.compute() == pytest.approx(found)


def test_d_prime_is_a_mean_over_classes():
    """Not the d-prime of the mean AUC."""
    scores = np.array([[0.9, 0.4], [0.8, 0.6], [0.85, 0.5], [0.1, 0.7]])
    labels = np.array([[1, 1], [1, 0], [0, 1], [0, 0]])
    found = tagging_metrics(scores, labels)
    assert found["AUC"] == (0.75 + 0.0) / 2
    assert found["d-prime"] == -math.inf  # the second class is perfectly wrong
    assert found["mAP"] == pytest.approx(((1 + 2 / 3) / 2 + (1 / 3 + 2 / 4) / 2) / 2)


def test_classes_without_positives_or_negatives_are_skipped_and_named(golden, caplog):
    arrays, _ = golden
    labels = arrays["labels"].copy()
    labels[:, 2], labels[:, 5] = 0, 1
    found = tagging_metrics(arrays["predictions"], labels)
    rest = [0, 1, 3, 4, 6]
    expected = tagging_metrics(arrays["predictions"][:, rest], labels[:, rest])
    assert found == {**expected, "num_skipped_classes": 2}
    assert "2 classes [2, 5]" in caplog.text
    with pytest.raises(ValueError, match="No class"):
        tagging_metrics(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2,\)"):
        tagging_metrics(np.zeros((2, 3)), np.zeros(2))


def test_top_k():
    """The true class among the k largest; of equal scores the lower class wins."""
    scores = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
    labels = [0, 1, 2, 1]
    assert top_k_accuracy(scores, labels, (1, 2, 3)) == {"top1": 0.25, "top2": 0.75, "top3": 1.0}
    found = TopKAccuracy(top_k=(2,)).compute(predictions=scores, references=labels)
    assert found == {"top2": 0.75}


def test_retrieval_metric(golden):
    arrays, expected = golden
    metric = RetrievalMetrics(prefix="txt2vid_")
    found = metric.compute(predictions=arrays["similarity"], references=list(range(50)))
    assert found == pytest.approx({f"txt2vid_{name}": value for name, value in expected["retrieval"].items()})


def test_combined(golden):
    """`evaluate.combine` runs them together, batch by batch, without the Hub."""
    arrays, _ = golden
    similarity, truth = arrays["similarity"], list(range(50))
    combined = evaluate.combine([TopKAccuracy(top_k=(5,)), RetrievalMetrics()])
    for half in (slice(0, 30), slice(30, None)):
        combined.add_batch(predictions=similarity[half], references=truth[half])
    assert combined.compute() == {**retrieval_metrics(similarity), **top_k_accuracy(similarity, truth, (5,))}


def test_pretraining_metrics():
    """Retrieval over what Trainer gathered; masked clips ask nothing."""
    video = np.eye(4)
    wrong_first_sound = video[[1, 1, 2, 3]]
    arrays = (video, wrong_first_sound, video, video)
    assert pretraining_metrics(EvalPrediction(arrays, ()))["aud2vid_R1"] == 0.75
    masks = (np.array([0, 1, 1, 1]), np.ones(4))
    assert pretraining_metrics(EvalPrediction(arrays, masks))["aud2vid_R1"] == 1.0
    with pytest.raises(ValueError, match="video, audio and text"):
        pretraining_metrics(EvalPrediction(arrays[:2], ()))


def test_scores_that_are_no_numbers_are_refused():
    """Comparisons with NaN are false, which would make the true item the first."""
    scores = np.full((3, 4), np.nan)
    with pytest.raises(ValueError, match="diverged"):
        top_k_accuracy(scores, [0, 1, 2])
    with pytest.raises(ValueError, match="NaN"):
        retrieval_metrics(scores)
