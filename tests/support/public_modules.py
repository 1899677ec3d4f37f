# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Where the names that users import are."""

MODULES = (
    "modeling_vatt",
    "modeling_vatt.configuration",
    "modeling_vatt.processors",
    "modeling_vatt.data",
    "modeling_vatt.training",
    "modeling_vatt.evaluation",
    "modeling_vatt.retrieval",
    "modeling_vatt.retrieval.pgvector",
    "modeling_vatt.web",
    "modeling_vatt.analysis",
    "modeling_vatt.analysis.figures",
    "modeling_vatt.analysis.report",
    "modeling_vatt.pipelines",
    "modeling_vatt.convert",
    "modeling_vatt.hub.remote_code",
    "modeling_vatt.models.unimodal",
    "modeling_vatt.hub.model_card",
)
