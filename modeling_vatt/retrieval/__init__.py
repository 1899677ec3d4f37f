# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Embedding and searching clips."""

from .embedding import FileEmbeddings, embed_batches, embed_files, embed_texts
from .gallery import Gallery, Hit


__all__ = ["FileEmbeddings", "Gallery", "Hit", "embed_batches", "embed_files", "embed_texts"]
