# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Tensors to embeddings and losses: the network, its parts and its heads."""
