# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Arithmetic of embeddings, for searches that load no model."""

import numpy as np
import numpy.typing as npt


def unit(vectors: npt.NDArray) -> npt.NDArray[np.float32]:
    """Vectors of length 1, in the directions of those given; zeros stay zeros."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):  # infinite ones become NaN, for the caller to refuse
        return (vectors / np.where(norms == 0, 1, norms)).astype(np.float32)
