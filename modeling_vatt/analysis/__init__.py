# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The paper's analyses on any data, and the cost of a model.

Figures and reports are in `modeling_vatt.analysis.figures` and `modeling_vatt.analysis.report`, which need
the extra `analysis`.
"""

from .activations import activation_summary, activation_table
from .cost import CostCounter, InputSize, count_tokens, is_transformer, paper_comparison, paper_flops
from .drop_token import drop_token_tradeoff, dropping_tokens, measure_seconds
from .features import ActivationMean, ClipFeatures, Observation, extract_features, observe
from .projections import choose_classes, class_maps, modality_maps, neighbour_agreement, pad_width, project
from .similarity import PairSimilarities, density, pair_similarities, similarity_densities


__all__ = [
    "ActivationMean",
    "ClipFeatures",
    "CostCounter",
    "InputSize",
    "Observation",
    "PairSimilarities",
    "activation_summary",
    "activation_table",
    "choose_classes",
    "class_maps",
    "count_tokens",
    "density",
    "drop_token_tradeoff",
    "dropping_tokens",
    "extract_features",
    "is_transformer",
    "measure_seconds",
    "modality_maps",
    "neighbour_agreement",
    "observe",
    "pad_width",
    "pair_similarities",
    "paper_comparison",
    "paper_flops",
    "project",
    "similarity_densities",
]
