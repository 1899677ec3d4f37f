# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Metrics and evaluation protocols."""

from .retrieval import average_windows, clip_retrieval, retrieval_metrics, retrieval_ranks


__all__ = ["average_windows", "clip_retrieval", "retrieval_metrics", "retrieval_ranks"]
