# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Linear evaluation of frozen features over cross-validation splits (paper A.3.2, official evaluator).

Any classifier of scikit-learn can be used; here are the linear SVM of the paper's first row and the release's
linear head.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import nn

from .metrics import top_k_accuracy


def linear_svm(C: float = 6e-5, standardize: bool = True, seed: int = 1) -> Any:
    """One-vs-rest linear SVM on features of zero mean and unit variance.

    Args:
        C: inverse strength of the regularisation, in sums over clips; few clips need more than the default,
            which is from a comment of the release.
        standardize: scale by mean and standard deviation of the training features (open in the release);
            otherwise the best `C` depends on the scale of the features.
        seed: of the solver.
    """
    svm = LinearSVC(C=C, random_state=seed, max_iter=10_000)
    return make_pipeline(StandardScaler(), svm) if standardize else svm


class LinearHead(nn.Module):
    """The release's probe: dense layer without activation, dropout, dense layer; a classifier of low rank.

    Args:
        in_features: width of the features.
        num_labels: classes.
        hidden_size: width in between, the rank.
        dropout: share of the hidden units that is dropped in training (the paper: 10 % are sampled).
    """

    def __init__(
        self, in_features: int, num_labels: int, hidden_size: int = 128, dropout: float = 0.9
    ) -> None:
        super().__init__()
        self.hidden = nn.Linear(in_features, hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden_size, num_labels)
        # Glorot normal: 0.8796 is the standard deviation of a unit normal cut at two sigma
        std = math.sqrt(2 / (in_features + hidden_size)) / 0.87962566103423978
        nn.init.trunc_normal_(self.hidden.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.xavier_uniform_(self.classifier.weight)  # Keras' default
        nn.init.zeros_(self.hidden.bias)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (clips, num_labels) of features (clips, in_features)."""
        return self.classifier(self.dropout(self.hidden(features)))

    def penalty(self) -> torch.Tensor:
        """Sum of the squared weights of the classifier, without its bias."""
        return self.classifier.weight.square().sum()


@dataclass(eq=False, repr=False)
class LinearHeadClassifier(ClassifierMixin, BaseEstimator):
    """[`LinearHead`] with the release's training, as a scikit-learn classifier: cross-entropy and L2 penalty,
    Adam.

    Args:
        hidden_size, dropout: see [`LinearHead`].
        l2: factor of the sum of squared weights (not half of it) that is added to the loss.
        learning_rate: of Adam, constant.
        batch_size: clips a step; the last batch of an epoch may be smaller.
        epochs: passes over the training features; 1000 in the release.
        steps: length in steps instead of epochs; 50 000 in the paper.
        seed: of initialisation, dropout and order.
        device: cpu, cuda, ...
    """

    hidden_size: int = 128
    dropout: float = 0.9
    l2: float = 0.1
    learning_rate: float = 5e-4
    batch_size: int = 64
    epochs: int = 1000
    steps: int | None = None
    seed: int = 1
    device: str = "cpu"

    def fit(self, X: npt.NDArray, y: npt.NDArray) -> "LinearHeadClassifier":
        """Train on features (clips, dim) and their classes (clips,)."""
        self.classes_, targets = np.unique(y, return_inverse=True)
        features = torch.as_tensor(X, dtype=torch.float32, device=self.device)
        labels = torch.as_tensor(targets, device=self.device)
        count = len(features)
        steps = self.steps or self.epochs * math.ceil(count / self.batch_size)
        with torch.random.fork_rng(), torch.enable_grad():  # keeps the caller's random state
            torch.manual_seed(self.seed)
            head = LinearHead(features.shape[1], len(self.classes_), self.hidden_size, self.dropout)
            self.head_ = head.to(self.device).train()
            # Keras' epsilon
            optimizer = torch.optim.Adam(self.head_.parameters(), self.learning_rate, eps=1e-7)
            done = 0
            while done < steps:
                order = torch.randperm(count).to(self.device)
                for batch in order.split(self.batch_size)[: steps - done]:
                    loss = nn.functional.cross_entropy(self.head_(features[batch]), labels[batch])
                    loss = loss + self.l2 * self.head_.penalty()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    done += 1
        self.head_.eval()
        return self

    @torch.no_grad()
    def predict_proba(self, X: npt.NDArray) -> npt.NDArray[np.float64]:
        """Probabilities (clips, classes) of the classes in `classes_`."""
        features = torch.as_tensor(X, dtype=torch.float32, device=self.device)
        return self.head_(features).double().softmax(-1).cpu().numpy()

    def predict(self, X: npt.NDArray) -> npt.NDArray:
        """The most probable class of every clip."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def window_scores(classifier: Any, features: npt.NDArray, num_labels: int) -> npt.NDArray[np.float64]:
    """Class scores of clips: means over windows of probabilities, or of decision values if there are none.

    Args:
        classifier: fitted; its classes are ids below `num_labels`.
        features: (clips, windows, dim).
        num_labels: classes of the set; one that was not in training has the score -inf.

    Returns:
        (clips, num_labels).
    """
    clips, windows, width = features.shape
    flat = features.reshape(clips * windows, width)
    if hasattr(classifier, "predict_proba"):
        scores = classifier.predict_proba(flat)
    else:
        scores = classifier.decision_function(flat)
        if scores.ndim == 1:  # two classes: one value, positive for the second
            scores = np.stack([-scores, scores], axis=1)
    result = np.full((clips, num_labels), -np.inf)
    result[:, classifier.classes_] = scores.reshape(clips, windows, -1).mean(axis=1)
    return result


@dataclass(frozen=True)
class SplitResult:
    """Result of a classifier on one split.

    Args:
        split: name.
        train_clips, test_clips: clips used.
        top1, top5: shares of the test clips.
    """

    split: str
    train_clips: int
    test_clips: int
    top1: float
    top5: float


def linear_probe(
    classifier: Any,
    train_features: npt.NDArray,
    test_features: npt.NDArray,
    labels: Sequence[int] | npt.NDArray,
    splits: Mapping[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]],
) -> list[SplitResult]:
    """Train a classifier on the training clips of every split and measure it on the split's test clips.

    Args:
        classifier: unfitted scikit-learn classifier; every split trains its own copy.
        train_features: (clips, windows, dim) of all clips for training: one centred window in the paper;
            several are separate samples (augmentation).
        test_features: (clips, windows, dim) of the same clips for testing; scores are averaged over windows,
            4 in the paper.
        labels: (clips,) class ids from 0.
        splits: name, and indices of training and test clips; see [`~modeling_vatt.data.cross_validation`].

    Raises:
        ValueError: if features and labels differ in number, or a split trains on less than two classes.
    """
    labels = np.asarray(labels)
    if not len(train_features) == len(test_features) == len(labels):
        raise ValueError(
            f"`train_features`, `test_features` and `labels` describe {len(train_features)}, "
            f"{len(test_features)} and {len(labels)} clips: they must be the same clips."
        )
    num_labels = int(labels.max()) + 1
    results = []
    for name, (train, test) in splits.items():
        if len(np.unique(labels[train])) < 2:
            raise ValueError(f"{name} has training clips of one class only: nothing to tell apart.")
        samples = train_features[train]
        fitted = clone(classifier).fit(
            samples.reshape(-1, samples.shape[-1]), np.repeat(labels[train], samples.shape[1])
        )
        scores = window_scores(fitted, test_features[test], num_labels)
        results.append(SplitResult(name, len(train), len(test), **top_k_accuracy(scores, labels[test])))
    return results


def summarize_splits(results: Sequence[SplitResult]) -> dict[str, float | None]:
    """Mean over splits and sample standard deviation (None for a single split) of top-1 and top-5:
    `{"top1", "top1_std", "top5", "top5_std"}`."""
    summary: dict[str, float | None] = {}
    for name in ("top1", "top5"):
        values = [getattr(result, name) for result in results]
        summary[name] = float(np.mean(values))
        summary[f"{name}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return summary
