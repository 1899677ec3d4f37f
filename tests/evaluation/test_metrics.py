# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Metrics as functions and as `evaluate.Metric`: the release's numbers, hand-made cases, combination."""

import json
import math

import evaluate
import numpy as np
import pytest
from goldens import GOLDENS
from transformers import EvalPrediction

from modeling_vatt.evaluation import (
    RetrievalMetrics,
    TaggingMetrics,
    TopKAccuracy,
    average_windows,
    clip_retrieval,
    pretraining_metrics,
    retrieval_metrics,
    retrieval_ranks,
    tagging_metrics,
    top_k_accuracy,
)


@pytest.fixture(scope="module")
def golden() -> tuple[dict, dict]:
    with np.load(GOLDENS / "small" / "metrics.npz") as arrays:
        return dict(arrays), json.loads((GOLDENS / "small" / "metrics.json").read_text())


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


def test_labels_that_are_no_classes_are_refused():
    """-1, often "unlabelled", would be the last class, or a class that is present."""
    for labels in ([0, -1], [0, 3]):
        with pytest.raises(ValueError, match=r"from 0 to 2, got (-1 to 0|0 to 3)"):
            top_k_accuracy(np.eye(3)[:2], labels)
    for unknown in (-1, 0.5, np.nan):
        with pytest.raises(ValueError, match="must be 0 or 1"):
            tagging_metrics(np.eye(2), [[1, 0], [unknown, 1]])


def test_retrieval_metrics_are_the_releases(golden):
    """From the function and from the metric."""
    arrays, expected = golden
    assert retrieval_metrics(arrays["similarity"]) == pytest.approx(expected["retrieval"])
    metric = RetrievalMetrics(prefix="txt2vid_")
    found = metric.compute(predictions=arrays["similarity"], references=list(range(50)))
    assert found == pytest.approx({f"txt2vid_{name}": value for name, value in expected["retrieval"].items()})


@pytest.mark.parametrize("average", ["embeddings", "similarities"])
def test_window_averages_are_the_releases(golden, average):
    arrays, _ = golden
    windows = arrays["video_windows"].reshape(len(arrays["text"]), -1, arrays["text"].shape[1])
    found = average_windows(arrays["text"], windows, average)
    np.testing.assert_allclose(found, arrays[f"similarity_{average}_averaged"], atol=1e-6)


def test_metrics_of_the_specifications_example():
    similarity = [[0.9, 0.1, 0.2, 0.3], [0.8, 0.5, 0.1, 0.2], [0.1, 0.9, 0.3, 0.6], [0.2, 0.3, 0.9, 0.1]]
    assert retrieval_ranks(np.array(similarity)).tolist() == [0, 1, 2, 3]
    expected = {"x_R1": 0.25, "x_R5": 1.0, "x_R10": 1.0, "x_MedianRank": 2.5}
    assert retrieval_metrics(np.array(similarity), prefix="x_") == expected


def test_ties_are_broken_by_order_and_constant_scores_are_chance():
    assert retrieval_ranks(np.zeros((3, 3))).tolist() == [0, 1, 2]
    assert retrieval_ranks(np.zeros((2, 3)), targets=[2, 0]).tolist() == [2, 0]
    with pytest.raises(ValueError, match="one entry per query"):
        retrieval_ranks(np.zeros((2, 3)), targets=[1])


def test_zero_vectors_are_similar_to_nothing():
    found = average_windows(np.zeros((1, 3)), np.ones((2, 2, 3)), "similarities")
    assert found.tolist() == [[0.0, 0.0]]
    with pytest.raises(ValueError, match="average"):
        average_windows(np.zeros((1, 3)), np.ones((2, 2, 3)), "both")


def test_clips_without_caption_or_sound_ask_nothing_but_stay_in_the_gallery():
    video = np.eye(4)
    embeddings = {
        "video_va_embeds": video,
        "video_vt_embeds": video,
        "audio_va_embeds": video[[1, 1, 2, 3]],  # the first clip's sound is wrong ...
        "text_vt_embeds": video[:, None],
        "audio_mask": np.array([0, 1, 1, 1]),  # ... and absent
        "text_mask": np.array([1, 0, 0, 0]),
    }
    metrics = clip_retrieval(embeddings)
    assert metrics["aud2vid_R1"] == 1.0 and metrics["txt2vid_R1"] == 1.0
    assert metrics["gallery_size"] == 4 and metrics["mean_recall"] == 1.0
    every = {"text_vt_embeds": np.stack([video[::-1], video], axis=1)}
    masks = {"text_mask": np.array([[0, 1], [0, 1], [0, 0], [0, 0]])}  # the first caption with words asks
    assert clip_retrieval({**embeddings, **every, **masks}) == metrics
    masks = {"text_mask": np.array([[1, 1], [0, 1], [0, 0], [0, 0]])}
    assert clip_retrieval({**embeddings, **every, **masks})["txt2vid_R1"] == 0.5
    with pytest.raises(ValueError, match="nothing asks"):
        clip_retrieval({**embeddings, "audio_mask": np.zeros(4), "text_mask": np.zeros(4)})
