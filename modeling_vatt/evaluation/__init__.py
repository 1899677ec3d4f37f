# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Metrics and evaluation protocols."""

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
    "clip_retrieval",
    "pretraining_metrics",
    "retrieval_metrics",
    "retrieval_ranks",
    "tagging_metrics",
    "top_k_accuracy",
]
