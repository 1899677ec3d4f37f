# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Metrics and evaluation protocols."""

from .classification import (
    classification_metrics,
    per_class_table,
    plot_confusion,
    write_per_class_table,
)
from .metrics import (
    RetrievalMetrics,
    TaggingMetrics,
    TopKAccuracy,
    pretraining_metrics,
    tagging_metrics,
    top_k_accuracy,
)
from .retrieval import average_windows, clip_retrieval, retrieval_metrics, retrieval_ranks


__all__ = [
    "RetrievalMetrics",
    "TaggingMetrics",
    "TopKAccuracy",
    "average_windows",
    "classification_metrics",
    "clip_retrieval",
    "per_class_table",
    "plot_confusion",
    "pretraining_metrics",
    "retrieval_metrics",
    "retrieval_ranks",
    "tagging_metrics",
    "top_k_accuracy",
    "write_per_class_table",
]
