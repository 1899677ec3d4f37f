# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Metrics for Hugging Face evaluate and Trainer, without a script from the Hub.

Sources: paper sections 4.2 and A.3; official evaluators. Each metric is a function on arrays and an
`evaluate.Metric` around it, for `compute_metrics`, batchwise `add_batch` and `evaluate.combine`.
"""

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import evaluate
import numpy as np
import numpy.typing as npt
from datasets import Features, List, Value
from scipy.special import ndtri
from sklearn.metrics import average_precision_score, roc_auc_score
from transformers import EvalPrediction

from .retrieval import clip_retrieval, retrieval_metrics, retrieval_ranks


logger = logging.getLogger(__name__)


def top_k_accuracy(
    scores: npt.NDArray, labels: Sequence[int] | npt.NDArray, top_k: Sequence[int] = (1, 5)
) -> dict[str, float]:
    """Share of clips whose true class is among the k largest scores; of equal scores the lower class wins. A
    class whose score is -inf, such as one that training lacks, is never among them.

    Args:
        scores: (clips, classes), any increasing function of the probability.
        labels: (clips,) class ids.
        top_k: the values of k.

    Returns:
        `{"top1", "top5"}` for the default.

    Raises:
        ValueError: see [`retrieval_ranks`].
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    ranks = retrieval_ranks(scores, labels)
    known = scores[np.arange(len(labels)), labels] > -np.inf
    return {f"top{k}": float(np.mean((ranks < k) & known)) for k in top_k}


def classes_present(labels: npt.NDArray) -> npt.NDArray[np.bool_]:
    """Labels (clips, classes) as truth values; ValueError for others than 0 and 1, such as -1 for unknown."""
    labels = np.asarray(labels)
    present = labels == 1
    if not (present | (labels == 0)).all():
        raise ValueError("`labels` of several classes must be 0 or 1: leave out clips of unknown classes.")
    return present


def tagging_metrics(scores: npt.NDArray, labels: npt.NDArray) -> dict[str, float]:
    """Mean average precision, mean ROC AUC and mean d-prime of a multi-label classifier (AudioSet).

    All three are means over classes; d-prime is sqrt(2) times the normal quantile of the AUC, so infinite for
    a perfectly separated class. Classes without positives or without negatives have no AUC; they are left out
    of all three, counted and named in a warning.

    Args:
        scores: (clips, classes), any increasing function of the probability.
        labels: (clips, classes), 1 for the classes of a clip.

    Returns:
        `{"mAP", "AUC", "d-prime", "num_classes", "num_skipped_classes"}`.

    Raises:
        ValueError: if the shapes differ, labels are not 0 or 1, or no class has positives and negatives.
    """
    scores, present = np.asarray(scores), classes_present(labels)
    if scores.ndim != 2 or scores.shape != present.shape:
        raise ValueError(
            f"`scores` and `labels` must both be (clips, classes), got {scores.shape} and {present.shape}."
        )
    usable = present.any(axis=0) & ~present.all(axis=0)
    skipped = np.flatnonzero(~usable).tolist()
    if not usable.any():
        raise ValueError(
            "No class of `labels` has both positives and negatives, so there is nothing to evaluate: add "
            "clips."
        )
    if skipped:
        logger.warning("Left out, for want of positives or negatives: %d classes %s.", len(skipped), skipped)
    scores, present = scores[:, usable], present[:, usable]
    auc = np.asarray(roc_auc_score(present, scores, average=None))
    return {
        "mAP": float(average_precision_score(present, scores, average="macro")),
        "AUC": float(auc.mean()),
        "d-prime": float(np.mean(np.sqrt(2) * ndtri(auc))),
        "num_classes": int(usable.sum()),
        "num_skipped_classes": len(skipped),
    }


def pretraining_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """`compute_metrics` of a Trainer around `VattForPreTraining`: [`clip_retrieval`] of the evaluation set.

    With `TrainingArguments(label_names=["audio_mask", "text_mask"])` clips without sound or caption are no
    queries; otherwise every clip counts as having both.

    Raises:
        ValueError: if the model was evaluated without one of its modalities.
    """
    names = ("video_va_embeds", "audio_va_embeds", "video_vt_embeds", "text_vt_embeds")
    values = prediction.predictions
    if not isinstance(values, tuple) or len(values) != len(names):
        raise ValueError("The `eval_dataset` must have video, audio and text to measure retrieval.")
    embeddings = dict(zip(names, values, strict=True))
    if isinstance(prediction.label_ids, tuple) and len(prediction.label_ids) == 2:
        embeddings |= dict(zip(("audio_mask", "text_mask"), prediction.label_ids, strict=True))
    return clip_retrieval(embeddings)


class VattMetric(evaluate.Metric):
    """Base of the metrics; keeps its inputs in memory unless several processes fill it."""

    description: ClassVar[str]
    features: ClassVar[Features]

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("keep_in_memory", kwargs.get("num_process", 1) == 1)
        super().__init__(**kwargs)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.description,
            citation="Akbari et al.: VATT. NeurIPS 2021, arXiv 2104.11178.",
            features=self.features,
        )


class TopKAccuracy(VattMetric):
    """[`top_k_accuracy`] as `evaluate.Metric`.

    ```python
    >>> from modeling_vatt.evaluation import TopKAccuracy

    >>> TopKAccuracy(top_k=(1, 2)).compute(predictions=[[0.1, 0.7, 0.2], [0.5, 0.1, 0.4]], references=[1, 2])
    {'top1': 0.5, 'top2': 1.0}
    ```
    """

    description = "Share of clips whose class is among the k largest scores."
    features = Features({"predictions": List(Value("float64")), "references": Value("int64")})

    def __init__(self, top_k: Sequence[int] = (1, 5), **kwargs: Any) -> None:
        self.top_k = tuple(top_k)
        super().__init__(**kwargs)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return top_k_accuracy(np.asarray(predictions), references, self.top_k)


class TaggingMetrics(VattMetric):
    """[`tagging_metrics`] as `evaluate.Metric`."""

    description = "Mean over classes of average precision, ROC AUC and d-prime."
    features = Features({"predictions": List(Value("float64")), "references": List(Value("float64"))})

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return tagging_metrics(np.asarray(predictions), np.asarray(references))


class RetrievalMetrics(VattMetric):
    """[`retrieval_metrics`] as `evaluate.Metric`; a prediction is a query's similarity with every item, its
    reference the index of the true item."""

    description = "R@1, R@5, R@10 and median rank of the true item."
    features = Features({"predictions": List(Value("float64")), "references": Value("int64")})

    def __init__(self, prefix: str = "", **kwargs: Any) -> None:
        self.prefix = prefix
        super().__init__(**kwargs)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return retrieval_metrics(np.asarray(predictions), references, self.prefix)
