# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Indexes of made-up vectors, without media."""

from pathlib import Path
from typing import Any

import numpy as np

from modeling_vatt.retrieval import FileRecord, ModelIdentity, VattIndex, unit


DIMS = {"va": 12, "vt": 6}


IDENTITY = ModelIdentity("synthetic", None, "0", {}, {}, "", DIMS)


def synthetic(folder: Path, files: int, windows: int = 5, dims: dict | None = None) -> VattIndex:
    """An index without media: files f0000.mp4 ... in folders of ten, windows of a second."""
    identity = ModelIdentity("synthetic", None, "0", {}, {}, "", dims or DIMS)
    index = VattIndex.create(folder, None, identity, 1.0)
    fill(index, files, windows)
    return index


def fill(index: Any, files: int, windows: int = 5) -> None:
    for number in range(files):
        add(index, number, windows)


def add(index: Any, number: int, windows: int = 5) -> None:
    generator = np.random.default_rng(number)
    centres = {
        space: np.random.default_rng(number % 20).standard_normal(dim) for space, dim in index.dims.items()
    }
    va, vt = (
        centres[space] + 0.5 * generator.standard_normal((windows, dim)) for space, dim in index.dims.items()
    )
    starts = np.arange(windows, dtype=float)
    file = FileRecord(f"d{number // 10:02d}/f{number:04d}.mp4", 1, 1, str(number), float(windows))
    index.add(file, starts, starts + 1, va, vt)


def content(index: VattIndex) -> dict[str, tuple[list, np.ndarray, np.ndarray]]:
    """Path -> spans and vectors."""
    moments, va = index.vectors("va")
    _, vt = index.vectors("vt")
    found: dict = {}
    for moment, *vectors in zip(moments, va, vt, strict=True):
        spans, *rows = found.setdefault(moment.path, ([], [], []))
        spans.append((moment.start, moment.end, moment.duration))
        for collected, vector in zip(rows, vectors, strict=True):
            collected.append(vector)
    return {path: (spans, np.array(a), np.array(b)) for path, (spans, a, b) in found.items()}


def assert_same(one: VattIndex, other: VattIndex) -> None:
    first, second = content(one), content(other)
    assert first.keys() == second.keys() and one.files() == other.files()
    for path, (spans, va, vt) in first.items():
        assert spans == second[path][0]
        # Windows that are embedded beside others differ by rounding.
        np.testing.assert_allclose(va, second[path][1], atol=1e-5)
        np.testing.assert_allclose(vt, second[path][2], atol=1e-5)


def clustered(folder: Path, topics: int, windows: int) -> tuple[VattIndex, np.ndarray]:
    """A file for each topic, each in a folder of its own: windows of a topic are alike."""
    index = VattIndex.create(folder, None, IDENTITY, 1.0)
    generator = np.random.default_rng(0)
    centres = unit(generator.standard_normal((topics, 12)))
    starts = np.arange(windows, dtype=float)
    for number, centre in enumerate(centres):
        file = FileRecord(f"t{number}/f.mp4", 1, 1, str(number), float(windows))
        va = centre + 0.02 * generator.standard_normal((windows, 12))
        index.add(file, starts, starts + 1, va, generator.standard_normal((windows, 6)))
    return index, centres
