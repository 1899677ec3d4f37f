# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with an index."""


class IndexMismatch(ValueError):
    """The index was made with another model, other settings or another format than are asked for."""


class IndexDamaged(ValueError):
    """Not an index, or one whose content cannot be right."""
