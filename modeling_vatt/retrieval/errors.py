# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Errors of indexes."""


class IndexMismatch(ValueError):
    """The index was made with another model, other settings or another format."""


class IndexDamaged(ValueError):
    """Not an index, or one with invalid content."""
