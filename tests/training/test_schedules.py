# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Learning rates and retrieval metrics against the goldens of the release and hand-made cases."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling_vatt.evaluation import average_windows, clip_retrieval, retrieval_metrics, retrieval_ranks
from modeling_vatt.training import (
    finetuning_learning_rate,
    get_pretraining_schedule,
    pretraining_learning_rate,
)


GOLDENS = Path(__file__).parents[1] / "fixtures" / "goldens" / "small"


@pytest.fixture(scope="module")
def schedules() -> dict:
    return json.loads((GOLDENS / "schedules.json").read_text())


@pytest.fixture(scope="module")
def golden_metrics() -> tuple[dict, dict]:
    with np.load(GOLDENS / "metrics.npz") as arrays:
        return dict(arrays), json.loads((GOLDENS / "metrics.json").read_text())


def test_pretraining_rate_is_the_releases(schedules):
    for step, rate in schedules["pretrain"].items():
        if rate == rate:  # the release yields NaN at the last step
            assert pretraining_learning_rate(int(step), 500_000, 5000) == pytest.approx(rate, rel=1e-6)
    assert pretraining_learning_rate(500_000, 500_000, 5000) == 5e-5


def test_finetuning_rate_is_the_releases(schedules):
    for step, rate in schedules["finetune"].items():
        assert finetuning_learning_rate(int(step), 100_000, 2500) == pytest.approx(rate, rel=1e-6, abs=1e-9)


def test_quarter_period_is_the_papers():
    middle = 5000 + (500_000 - 5000) // 2
    rate = pretraining_learning_rate(middle, 500_000, 5000, period="quarter")
    assert rate == pytest.approx(5e-5 + 5e-5 * np.cos(np.pi / 4), rel=1e-6)
    with pytest.raises(ValueError, match="period"):
        pretraining_learning_rate(1, 10, 2, period="full")


def test_scheduler_multiplies_the_optimizers_rate():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = get_pretraining_schedule(optimizer, total_steps=10, warmup_steps=4, final_ratio=0.1)
    rates = []
    for _ in range(11):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates[:5] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert rates[10] == pytest.approx(0.2)


def test_retrieval_metrics_are_the_releases(golden_metrics):
    arrays, expected = golden_metrics
    assert retrieval_metrics(arrays["similarity"]) == pytest.approx(expected["retrieval"])


@pytest.mark.parametrize("average", ["embeddings", "similarities"])
def test_window_averages_are_the_releases(golden_metrics, average):
    arrays, _ = golden_metrics
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
    with pytest.raises(ValueError, match="nothing asks"):
        clip_retrieval({**embeddings, "audio_mask": np.zeros(4), "text_mask": np.zeros(4)})
