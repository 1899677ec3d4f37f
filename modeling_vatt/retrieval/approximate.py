# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Approximate search for large indexes: faiss finds candidates, whose exact scores come from the store.

Vectors are kept in lists around centres (inverted file), with 8 bits a value; a query is compared with the
lists of the nearest centres. Their number is chosen by the recall measured when the index is built. The files
are made from the store, can be rebuilt at any time, and are mapped into memory.
"""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..embedding.vectors import unit
from ..files import whole_file
from .store import SPACES, Space, Store


EXTRA = "modeling_vatt[faiss]"
META = "approximate"  # key in the store
_GOAL = 0.98  # recall@10 of the sample when building; users are promised 0.95
_PROBES = (8, 16, 32, 64, 128, 256)  # lists that are tried
_QUERIES, _TOP = 200, 10  # of the measurement
_SAMPLES_PER_LIST = 50  # vectors that the centres are computed from
_NOISE = 1.0  # length of the noise in the queries of the measurement: their cosine with a vector is 0.7


def is_available() -> bool:
    """Whether faiss is installed."""
    try:
        import faiss  # noqa: F401
    except ImportError:
        return False
    return True


def build(store: Store, dims: dict[Space, int]) -> dict[str, Any]:
    """Make the files of both spaces; returns their parameters and measured recall, also stored as notes."""
    with store.reading():
        generation = store.generation()
        ids = store.window_ids()
        notes: dict[str, Any] = {
            "generation": generation,
            "windows": len(ids),
            "last": int(ids[-1]),
            "kind": "faiss IVF, 8 bits a value, exact scores of candidates",
        }
        for space in SPACES:
            notes[space] = _build_space(store, space, dims[space], ids, _file(store, space, generation))
    store.set_meta(META, notes)
    # Files of earlier and of killed builds.
    current = {_file(store, space, generation) for space in SPACES}
    for space in SPACES:
        for file in set(store.folder.glob(f"{space}-*.*")) - current:
            file.unlink(missing_ok=True)
    return notes


def read_notes(store: Store) -> dict[str, Any] | None:
    """The notes of [`build`]; None if there are none, or they are invalid."""
    notes = store.meta(META)
    try:
        numbers = [notes[key] for key in ("generation", "windows", "last")]
        numbers += [notes[space][key] for space in SPACES for key in ("probes", "recall@10")]
    except (KeyError, TypeError):
        return None
    return notes if all(isinstance(number, int | float) for number in numbers) else None


def _file(store: Store, space: Space, generation: int) -> Path:
    return store.folder / f"{space}-{int(generation)}.faiss"


def _build_space(
    store: Store, space: Space, dim: int, ids: npt.NDArray[np.int64], file: Path
) -> dict[str, Any]:
    import faiss

    began = time.perf_counter()
    lists = 1 << max(0, round(math.log2(4 * math.sqrt(len(ids)))))
    sample = ids[np.linspace(0, len(ids) - 1, min(len(ids), _SAMPLES_PER_LIST * lists)).astype(np.int64)]
    rows, filled = np.empty((len(sample), dim), np.float32), 0
    for _, block in store.vectors(space, dim, ids=sample):  # never twice in memory
        rows[filled : filled + len(block)] = block
        filled += len(block)
    rows = rows[:filled]
    metric = faiss.METRIC_INNER_PRODUCT
    quantizer = faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFScalarQuantizer(quantizer, dim, lists, faiss.ScalarQuantizer.QT_8bit, metric)
    index.cp.niter = 10
    index.train(rows)
    # Queries like those of another modality: near the vectors, but not among them.
    generator = np.random.default_rng(0)
    chosen = rows[generator.choice(len(rows), min(_QUERIES, len(rows)), replace=False)]
    noise = generator.standard_normal(chosen.shape, dtype=np.float32) * (_NOISE / math.sqrt(dim))
    queries = unit(chosen + noise)
    del rows, sample
    best_ids = np.zeros((len(queries), 0), np.int64)
    best = np.zeros((len(queries), 0), np.float32)
    for numbers, vectors in store.vectors(space, dim):
        index.add_with_ids(vectors, numbers)
        scores = np.concatenate([best, queries @ vectors.T], axis=1)
        names = np.concatenate([best_ids, np.broadcast_to(numbers, (len(queries), len(numbers)))], axis=1)
        kept = np.argpartition(-scores, min(_TOP, scores.shape[1]) - 1, axis=1)[:, :_TOP]
        best, best_ids = np.take_along_axis(scores, kept, 1), np.take_along_axis(names, kept, 1)
    with whole_file(file) as partial:
        try:
            faiss.write_index(index, str(partial))
        except RuntimeError as error:  # its word for a full disk
            raise OSError(
                f"{file}: cannot be written ({error}). Free some space, then index again; until then, "
                "searches compare all windows."
            ) from error
    recall, probes = 0.0, 1
    for probes in [count for count in _PROBES if count < lists] or [lists]:
        index.nprobe = probes
        found = index.search(queries, 2 * _TOP)[1]
        # Exact scores reorder the candidates, so more than 10 count.
        shares = [np.isin(true, row).mean() for true, row in zip(best_ids, found, strict=True)]
        recall = float(np.mean(shares))
        if recall >= _GOAL:
            break
    return {
        "lists": lists,
        "probes": probes,
        "recall@10": round(recall, 4),
        "seconds": round(time.perf_counter() - began, 1),
        "bytes": file.stat().st_size,
    }


class ApproximateIndex:
    """The file of a space, opened; `notes` are those of [`build`].

    Raises:
        OSError: the file is missing or damaged.
    """

    def __init__(self, store: Store, space: Space, notes: dict[str, Any]) -> None:
        import faiss

        self.generation, self.last = int(notes["generation"]), int(notes["last"])
        self.probes = int(notes[space]["probes"])
        try:
            self._index: Any = faiss.read_index(str(_file(store, space, self.generation)), faiss.IO_FLAG_MMAP)
        except RuntimeError as error:
            raise OSError(f"{_file(store, space, self.generation)}: cannot be read") from error

    def candidates(
        self, query: npt.NDArray[np.float32], count: int, chosen: npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.int64]:
        """Numbers of windows that are probably among the best `count`, and more, for a normalised query
        (dim,); with `chosen` only of these."""
        import faiss

        parameters = faiss.SearchParametersIVF()
        # Where many are wanted, the nearest lists may hold too few.
        parameters.nprobe = min(self._index.nlist, max(1, self.probes * (1 + count // 512)))
        if chosen is not None:
            # Videos of a folder are often alike, in lists far from the query: all lists are searched, but
            # only for the chosen windows.
            parameters.nprobe = self._index.nlist
            parameters.sel = faiss.IDSelectorBatch(chosen)
        found = self._index.search(query[None], 2 * count + 32, params=parameters)[1][0]
        return found[found >= 0]


def can_be_read(store: Store, notes: dict[str, Any]) -> bool:
    """Whether the files exist and are complete."""
    try:
        for space in SPACES:
            ApproximateIndex(store, space, notes)
    except OSError:
        return False
    return True


def is_stale(notes: dict[str, Any], ids: npt.NDArray[np.int64]) -> bool:
    """Whether enough was added or removed to build again."""
    inside = int((ids <= notes["last"]).sum())
    return len(ids) - inside > notes["windows"] / 5 or inside < notes["windows"] * 4 / 5
