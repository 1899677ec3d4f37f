# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Learned positions along the axes of a modality, and their resampling to other sizes.

Sources: paper section 3.1; official modules `SpatioTemporalEmbeddings`, `TemporalEmbeddings` and
`SpectroTemporalEmbeddings`.
"""

import operator
from functools import lru_cache

import numpy as np
import torch
from torch import nn


@lru_cache(maxsize=256)
def spline_matrix(num_source: int, num_target: int) -> np.ndarray:
    """Matrix that resamples a table of `num_source` rows to `num_target` rows.

    Order-3 polyharmonic spline with a linear term, known points at i / num_source, queries at j / num_target
    (`tfa.image.interpolate_spline` in the release; "bi-cubic" in the paper). Its system has a condition
    number of 1e12 for 1200 rows, so the release's float32 solution is noise. In one dimension it is the
    natural cubic spline, continued linearly, whose tridiagonal system is well conditioned; this is solved
    here, with a correction for the release's lower bound on the radial function.

    Returns:
        float64 array of shape (num_target, num_source).
    """
    if num_source == 1:  # the linear term has no unique solution; a single row is constant
        return np.ones((num_target, 1))
    step = 1 / num_source
    inner = np.arange(1, num_source - 1)
    system, known = np.eye(num_source), np.zeros((num_source, num_source))
    for offset, unknown_weight, known_weight in ((-1, 1, 6), (0, 4, -12), (1, 1, 6)):
        system[inner, inner + offset] = unknown_weight
        known[inner, inner + offset] = known_weight / step**2
    second = np.linalg.solve(system, known)  # second derivatives at the points, zero at the ends
    # Coefficient of |x - point|^3: a twelfth of the jump of the third derivative.
    coefficients = np.diff(np.pad(np.diff(second, axis=0) / step, ((1, 1), (0, 0))), axis=0) / 12
    # The release computes max(r^2, 1e-10)^1.5, so 1e-15 where r^3 is less: on the diagonal of the system, ...
    floor = 1e-15
    values = np.eye(num_source) - floor * coefficients
    second = second @ values

    target = np.arange(num_target)
    cell = np.minimum(target * num_source // num_target, num_source - 2)
    place = target * num_source / num_target - cell  # in cells; above 1 behind the last point
    right = np.minimum(place, 1)[:, None]
    left = 1 - right
    matrix = left * values[cell] + right * values[cell + 1]
    matrix += step**2 / 6 * ((left**3 - left) * second[cell] + (right**3 - right) * second[cell + 1])
    slope = values[-1] - values[-2] + step**2 / 6 * second[-2]
    matrix += np.maximum(place - 1, 0)[:, None] * slope
    # ... and at queries next to a point.
    nearest = np.minimum(np.rint(target * num_source / num_target).astype(int), num_source - 1)
    distance = np.abs(target / num_target - nearest / num_source)
    return matrix + np.maximum(floor - distance**3, 0)[:, None] * coefficients[nearest]


@torch.compiler.allow_in_graph
def _spline_tensor(num_source: int, num_target: int) -> torch.Tensor:
    return torch.from_numpy(spline_matrix(num_source, num_target))


def resample_positions(table: torch.Tensor, num_target: int) -> torch.Tensor:
    """Resample a position table (num_source, dim) along its axis to (num_target, dim); differentiable."""
    if table.shape[0] == num_target:
        return table
    # index(): torch.compile with dynamic shapes then specialises on the size, so the matrix is a constant.
    matrix = _spline_tensor(table.shape[0], operator.index(num_target))
    return matrix.to(table.dtype).to(table.device) @ table


@torch.compiler.allow_in_graph
def length_matrices(num_source: int, num_target: int) -> torch.Tensor:
    """Matrices that resample a table of `num_source` rows to texts of up to `num_target` words: float64 (1 +
    num_target - num_source, num_target, num_source). The first is the identity, for texts that fit into the
    table; each further one is for one word more, with zeros after the text."""
    num_source, num_target = operator.index(num_source), operator.index(num_target)
    matrices = torch.zeros(1 + num_target - num_source, num_target, num_source, dtype=torch.float64)
    matrices[0, :num_source] = torch.eye(num_source)
    for index, length in enumerate(range(num_source + 1, num_target + 1), start=1):
        matrices[index, :length] = _spline_tensor(num_source, length)
    return matrices


class VattPositionTable(nn.Embedding):
    """Positions along one axis. A separate module, as transformers initialises and accelerate loads
    (offloaded) parameters by module."""

    def forward(self, num_target: int) -> torch.Tensor:  # type: ignore[override]
        """Positions (num_target, dim)."""
        return resample_positions(self.weight, num_target)


class VattAxialPositionEmbeddings(nn.Module):
    """One learnable table per axis (name -> rows, slowest axis first); a token's position is their normalised
    sum."""

    def __init__(self, axes: dict[str, int], hidden_size: int, eps: float) -> None:
        super().__init__()
        self.tables = nn.ModuleDict(
            {name: VattPositionTable(rows, hidden_size) for name, rows in axes.items()}
        )
        self.layer_norm = nn.LayerNorm(hidden_size, eps=eps)

    def forward(self, grid: tuple[int, ...]) -> torch.Tensor:
        """Positions (prod(grid), hidden_size) of a grid given in the order of the axes."""
        total: torch.Tensor | None = None
        for axis, table in enumerate(self.tables.values()):
            rows = table(grid[axis])
            rows = rows.view(*(-1 if i == axis else 1 for i in range(len(grid))), rows.shape[-1])
            total = rows if total is None else total + rows
        assert total is not None
        return self.layer_norm(total.flatten(0, -2))
