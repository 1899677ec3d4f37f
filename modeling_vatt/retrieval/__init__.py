# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Embedding and searching clips."""

from .embedding import (
    FileEmbeddings,
    WindowEmbeddings,
    embed_batches,
    embed_files,
    embed_query,
    embed_texts,
    embed_windows,
    strided_starts,
)
from .errors import IndexDamaged, IndexMismatch
from .gallery import Gallery, Hit
from .identity import ModelIdentity
from .index import VattIndex
from .indexing import IndexBusy, IndexReport, update_index, writer_lock
from .moments import Moment, merge_windows
from .search import VideoSearch
from .store import FileRecord
from .thumbnails import thumbnail


__all__ = [
    "FileEmbeddings",
    "FileRecord",
    "Gallery",
    "Hit",
    "IndexBusy",
    "IndexDamaged",
    "IndexMismatch",
    "IndexReport",
    "ModelIdentity",
    "Moment",
    "VattIndex",
    "VideoSearch",
    "WindowEmbeddings",
    "embed_batches",
    "embed_files",
    "embed_query",
    "embed_texts",
    "embed_windows",
    "merge_windows",
    "strided_starts",
    "thumbnail",
    "update_index",
    "writer_lock",
]
