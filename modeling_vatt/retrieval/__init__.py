# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Embedding and searching clips."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names


if TYPE_CHECKING:
    from ..embedding.embedding import (
        FileEmbeddings,
        WindowEmbeddings,
        embed_batches,
        embed_files,
        embed_query,
        embed_texts,
        embed_windows,
    )
    from ..embedding.identity import ModelIdentity, hash_weights
    from ..embedding.vectors import unit
    from ..processors.windows import strided_starts
    from .calibration import Calibration
    from .comparing import Answer, compare_searches
    from .errors import IndexDamaged, IndexMismatch
    from .export import export_moments
    from .gallery import Gallery, Hit
    from .ignoring import forget_files, remember_files
    from .index import VattIndex
    from .locking import IndexBusy, writer_lock
    from .moments import STRENGTHS, Moment, merge_windows, moment_records, strength, timecode
    from .query import Query, parse_place
    from .remote import ask_server
    from .searchable import combined
    from .store import FileRecord
    from .thumbnails import thumbnail
    from .updating import IndexReport, update_index
    from .video_search import VideoSearch
else:
    __getattr__, __dir__ = lazy_names(__name__)


__all__ = [
    "STRENGTHS",
    "Answer",
    "Calibration",
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
    "Query",
    "VattIndex",
    "VideoSearch",
    "WindowEmbeddings",
    "ask_server",
    "combined",
    "compare_searches",
    "embed_batches",
    "embed_files",
    "embed_query",
    "embed_texts",
    "embed_windows",
    "export_moments",
    "forget_files",
    "hash_weights",
    "merge_windows",
    "moment_records",
    "parse_place",
    "remember_files",
    "strength",
    "strided_starts",
    "thumbnail",
    "timecode",
    "unit",
    "update_index",
    "writer_lock",
]
