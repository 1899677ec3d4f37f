# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Arithmetic of embeddings, for searches that load no model."""

import numpy as np
import numpy.typing as npt


def unit(vectors: npt.NDArray) -> npt.NDArray[np.float32]:
    """Vectors scaled to length 1; zeros stay zeros."""
    vectors = np.asarray(vectors)
    vectors = vectors.astype(np.result_type(vectors, np.float32), copy=False)  # squares exceed float16
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):  # infinite ones become NaN, which the caller refuses
        return (vectors / np.where(norms == 0, 1, norms)).astype(np.float32)
