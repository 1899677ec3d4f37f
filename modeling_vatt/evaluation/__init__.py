# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Metrics and evaluation protocols."""

from .classification import classification_metrics, per_class_table, plot_confusion, write_per_class_table
from .metrics import (
    RetrievalMetrics,
    TaggingMetrics,
    TopKAccuracy,
    pretraining_metrics,
    tagging_metrics,
    top_k_accuracy,
)
from .probe import (
    LinearHead,
    LinearHeadClassifier,
    SplitResult,
    linear_probe,
    linear_svm,
    summarize_splits,
    window_scores,
)
from .retrieval import (
    average_windows,
    clip_retrieval,
    retrieval_metrics,
    retrieval_ranks,
    zero_shot_retrieval,
)


__all__ = [
    "LinearHead",
    "LinearHeadClassifier",
    "RetrievalMetrics",
    "SplitResult",
    "TaggingMetrics",
    "TopKAccuracy",
    "average_windows",
    "classification_metrics",
    "clip_retrieval",
    "linear_probe",
    "linear_svm",
    "per_class_table",
    "plot_confusion",
    "pretraining_metrics",
    "retrieval_metrics",
    "retrieval_ranks",
    "summarize_splits",
    "tagging_metrics",
    "top_k_accuracy",
    "window_scores",
    "write_per_class_table",
    "zero_shot_retrieval",
]
