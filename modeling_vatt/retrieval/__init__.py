# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Embedding and searching clips."""

from .embedding import embed_batches
from .gallery import Gallery, Hit


__all__ = ["Gallery", "Hit", "embed_batches"]
