# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The linear probe against known mathematics, on made-up features."""

import numpy as np
import pytest
import torch
from sklearn.base import clone

from modeling_vatt.evaluation import (
    LinearHead,
    LinearHeadClassifier,
    SplitResult,
    linear_probe,
    linear_svm,
    summarize_splits,
    top_k_accuracy,
    window_scores,
)


WIDTH, CLASSES = 12, 6


def clouds(clips: int, windows: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """(clips, windows, dim) features around a corner for each class, and the classes."""
    random = np.random.default_rng(0)
    labels = np.arange(clips) % CLASSES
    noise = random.normal(scale=spread, size=(clips, windows, WIDTH))
    return 3 * np.eye(CLASSES, WIDTH)[labels][:, None] + noise, labels


def halves(clips: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    one, other = np.arange(clips // 2), np.arange(clips // 2, clips)
    return {"split1": (one, other), "split2": (other, one)}


CLASSIFIERS = {
    "svm": linear_svm(C=1.0),
    "linear": LinearHeadClassifier(steps=150, dropout=0.5, l2=1e-3, learning_rate=0.02),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_separable_classes_are_learned_and_shuffled_ones_are_not(name):
    features, labels = clouds(120, 3, spread=0.1)
    results = linear_probe(CLASSIFIERS[name], features[:, :1], features, labels, halves(120))
    expected = [SplitResult("split1", 60, 60, 1.0, 1.0), SplitResult("split2", 60, 60, 1.0, 1.0)]
    assert results == expected
    wrong = np.random.default_rng(1).permutation(labels)
    results = linear_probe(CLASSIFIERS[name], features[:, :1], features, wrong, halves(120))
    summary = summarize_splits(results)
    assert summary["top1"] < 0.4 and summary["top1"] <= summary["top5"]  # chance: 0.17


def test_released_settings_learn_and_are_reproducible():
    features, labels = clouds(96, 1, spread=0.3)
    probe = LinearHeadClassifier(epochs=60)
    state = torch.random.get_rng_state()
    one, other = (clone(probe).fit(features[:, 0], labels) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (one.predict_proba(features[:, 0]) == other.predict_proba(features[:, 0])).all()
    assert (one.predict(features[:, 0]) == labels).mean() == 1.0
    different = clone(probe).set_params(seed=2).fit(features[:, 0], labels)
    assert (different.predict_proba(features[:, 0]) != one.predict_proba(features[:, 0])).any()


def test_head_in_evaluation_is_one_matrix_of_low_rank():
    head = LinearHead(WIDTH, CLASSES, hidden_size=3).eval()
    features = torch.randn(5, WIDTH)
    weight = head.classifier.weight @ head.hidden.weight
    bias = head.classifier.weight @ head.hidden.bias + head.classifier.bias
    torch.testing.assert_close(head(features), features @ weight.T + bias)
    assert torch.linalg.matrix_rank(weight) == 3
    head.train()
    assert not torch.equal(head(features), head(features))


def test_head_starts_glorot_normal():
    head = LinearHead(400, 10, hidden_size=128)
    std = (2 / (400 + 128)) ** 0.5
    assert head.hidden.weight.std().item() == pytest.approx(std, rel=0.02)
    assert head.hidden.weight.abs().max() <= 2 * std / 0.8796
    assert not head.hidden.bias.any() and not head.classifier.bias.any()


def test_first_step_follows_the_gradient_of_loss_and_penalty():
    """Adam's first step is the learning rate times the sign of the gradient; here computed by hand."""
    features, labels = clouds(8, 1, spread=1.0)
    settings = {"hidden_size": 4, "dropout": 0.0, "batch_size": 8, "learning_rate": 1e-3}
    torch.manual_seed(1)
    start = LinearHead(WIDTH, CLASSES, 4, 0.0).double()
    x = features[:, 0]
    hidden = x @ start.hidden.weight.detach().numpy().T
    weight = start.classifier.weight.detach().numpy()
    logits = hidden @ weight.T
    error = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(CLASSES)[labels]
    for l2 in (0.0, 5.0):
        fitted = LinearHeadClassifier(**settings, l2=l2, steps=1).fit(x, labels)
        gradient = error.T @ hidden / len(x) + 2 * l2 * weight
        step = fitted.head_.classifier.weight.detach().numpy() - weight
        np.testing.assert_allclose(step, -1e-3 * np.sign(gradient), atol=2e-6)
        bias = fitted.head_.classifier.bias.detach().numpy()
        np.testing.assert_allclose(bias, -1e-3 * np.sign(error.mean(0)), atol=2e-6)  # without penalty


def test_scores_of_windows_are_averaged():
    features, labels = clouds(30, 4, spread=2.0)
    head = LinearHeadClassifier(steps=50).fit(features[:, 0], labels)
    by_hand = np.mean([head.predict_proba(features[:, window]) for window in range(4)], axis=0)
    np.testing.assert_allclose(window_scores(head, features, CLASSES), by_hand)
    svm = linear_svm().fit(features[:, 0], labels)
    by_hand = np.mean([svm.decision_function(features[:, window]) for window in range(4)], axis=0)
    np.testing.assert_allclose(window_scores(svm, features, CLASSES), by_hand)


def test_two_classes_and_classes_that_training_lacks():
    features, labels = clouds(40, 2, spread=0.1)
    chosen = np.flatnonzero(np.isin(labels, (1, 4)))
    svm = linear_svm(C=1.0).fit(features[chosen, 0], labels[chosen])
    scores = window_scores(svm, features, CLASSES)
    assert np.isneginf(scores[:, [0, 2, 3, 5]]).all()
    assert top_k_accuracy(scores[chosen], labels[chosen])["top1"] == 1.0
    for found in top_k_accuracy(scores, labels).values():  # also of five, with only two classes known
        assert found == pytest.approx(len(chosen) / 40)


def test_several_training_windows_are_samples_of_their_own():
    features, labels = clouds(20, 3, spread=0.5)
    splits = {"only": (np.arange(10), np.arange(10, 20))}

    class Counting(LinearHeadClassifier):
        seen: list = []

        def fit(self, X, y):
            self.seen.append((X, y))
            return super().fit(X, y)

    linear_probe(Counting(steps=2), features, features, labels, splits)
    ((samples, targets),) = Counting.seen
    np.testing.assert_array_equal(samples, features[:10].reshape(30, WIDTH))
    np.testing.assert_array_equal(targets, np.repeat(labels[:10], 3))


def test_summary_and_errors():
    rows = [SplitResult(f"split{n}", 4, 4, value, 1.0) for n, value in enumerate((0.5, 0.7, 0.9))]
    summary = summarize_splits(rows)
    assert summary == pytest.approx({"top1": 0.7, "top1_std": 0.2, "top5": 1.0, "top5_std": 0.0})
    assert summarize_splits(rows[:1])["top1_std"] is None
    features, labels = clouds(12, 1, 0.1)
    with pytest.raises(ValueError, match="describe 12, 11 and 12 clips"):
        linear_probe(linear_svm(), features, features[1:], labels, {})
    with pytest.raises(ValueError, match="split1 has training clips of one class"):
        one_class = {"split1": (np.array([0, 6]), np.array([1]))}
        linear_probe(linear_svm(), features, features, labels, one_class)
