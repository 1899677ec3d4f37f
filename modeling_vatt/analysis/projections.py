# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Maps of feature spaces (paper Fig. 2 and the upper half of Fig. 3), with a measure of each."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from .features import ClipFeatures, Place, each_space


# Spaces of the modality maps: title -> place and modalities. FAC has no space for all three.
SPACES: dict[str, tuple[Place, tuple[str, ...]]] = {
    "input space": ("input", ("video", "audio", "text")),
    "output space, video-text": ("vt", ("video", "text")),
    "output space, video-audio": ("va", ("video", "audio")),
}


def project(
    vectors: npt.NDArray, method: Literal["tsne", "umap"] = "tsne", seed: int = 0
) -> npt.NDArray[np.float64]:
    """Two-dimensional map of vectors; near means similar by cosine.

    t-SNE (scikit-learn) starts from the principal components with a perplexity of 30, at most a third of the
    other points. UMAP (extra `umap`) uses at most 15 neighbours.

    Args:
        vectors: (points, width), compared by direction.
        method: `"tsne"` or `"umap"`.
        seed: of the method; the same seed gives the same map.

    Returns:
        (points, 2)

    Raises:
        ImportError: umap-learn is not installed.
        ValueError: fewer than four points or an unknown method.
    """
    if len(vectors) < 4:
        raise ValueError(f"A map needs at least 4 points, got {len(vectors)}: take more clips.")
    vectors = normalize(vectors.astype(np.float64))
    if method == "tsne":
        perplexity = min(30.0, (len(vectors) - 1) / 3)
        return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(vectors).astype(float)
    if method != "umap":
        raise ValueError(f'`method` must be "tsne" or "umap", got {method!r}.')
    try:
        from umap import UMAP
    except ImportError as error:
        raise ImportError("UMAP needs umap-learn: pip install 'modeling_vatt[umap]'.") from error
    neighbors = min(15, len(vectors) - 1)
    # A spectral start needs more points than dimensions + 1.
    init: Any = "spectral" if len(vectors) > 10 else "random"
    mapper = UMAP(n_neighbors=neighbors, init=init, random_state=seed, n_jobs=1)
    return np.asarray(mapper.fit_transform(vectors), dtype=float)


def neighbour_agreement(
    vectors: npt.NDArray, labels: Sequence[str] | npt.NDArray, k: int = 10
) -> tuple[float, float]:
    """Share of the nearest neighbours (by cosine, in the original space) with the same label.

    Args:
        vectors: (points, width).
        labels: one per point.
        k: neighbours of a point, at most as many as share its label. Points with a unique label are left out.

    Returns:
        The share, and chance; NaN where no two points share a label.
    """
    _, members, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    neighbours = np.minimum(k, counts[members] - 1)  # of each point
    if not neighbours.any():
        return float("nan"), float("nan")
    # Without a query the point itself is not among its neighbours.
    search = NearestNeighbors(n_neighbors=int(neighbours.max())).fit(normalize(vectors))
    same = members[search.kneighbors(return_distance=False)] == members[:, None]
    counted = neighbours > 0
    within = np.arange(same.shape[1]) < neighbours[:, None]
    shares = (same & within).sum(1)[counted] / neighbours[counted]
    chance = (counts[members] - 1)[counted] / (len(members) - 1)
    return float(shares.mean()), float(chance.mean())


def choose_classes(labels: Sequence[Any], max_classes: int, seed: int = 0) -> list[str]:
    """Classes to show, sorted: all, or a seeded random choice (the paper shows 100 of 400)."""
    classes = sorted({str(label) for label in labels if label is not None})
    if len(classes) > max_classes:
        classes = sorted(np.random.default_rng(seed).choice(classes, max_classes, replace=False).tolist())
    return classes


def pad_width(arrays: Sequence[npt.NDArray]) -> list[npt.NDArray]:
    """Arrays (n, width) padded with zeros to the largest width. Distances within an array stay exact; those
    between different widths are a convention."""
    width = max(array.shape[-1] for array in arrays)
    return [np.pad(array, ((0, 0), (0, width - array.shape[-1]))) for array in arrays]


def class_maps(
    models: Mapping[str, ClipFeatures],
    labels: Mapping[str, Sequence[Any]],
    modality: str = "video",
    method: Literal["tsne", "umap"] = "tsne",
    max_classes: int = 16,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Maps of pooled output features by class, for several models (paper Fig. 2).

    Args:
        models: name -> features.
        labels: name -> class of every clip, None where unknown.
        modality: whose pooled features.
        method, seed: as in [`project`].
        max_classes: see [`choose_classes`].

    Returns:
        Points (columns `model`, `space`, `clip`, `label`, `x`, `y`), and a summary (`model`, `points`,
        `same_class_neighbours`, `chance`).

    Raises:
        ValueError: if no model has the modality.
    """
    shown = choose_classes([label for values in labels.values() for label in values], max_classes, seed)
    maps, summary = [], []
    for model, features in models.items():
        if modality not in features.modalities("pooled"):
            continue
        (vectors,), clips = features.common("pooled", [modality])
        names = np.array([str(labels[model][clip]) for clip in clips])
        chosen = np.isin(names, shown)
        vectors, clips, names = vectors[chosen], clips[chosen], names[chosen]
        maps.append(_points(model, f"{modality} output", vectors, clips, names, method, seed))
        share, chance = neighbour_agreement(vectors, names)
        summary.append(
            {"model": model, "points": len(names), "same_class_neighbours": share, "chance": chance}
        )
    if not maps:
        raise ValueError(f"None of the models {', '.join(models)} has a {modality} tower: add one that has.")
    return pd.concat(maps, ignore_index=True), pd.DataFrame(summary)


def modality_maps(
    models: Mapping[str, ClipFeatures], method: Literal["tsne", "umap"] = "tsne", seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Maps of the encoder input and of the common spaces by modality, for several models (paper Fig. 3, top).

    Clips that have all the modalities of a space are shown, as unit vectors; narrower input vectors are
    padded (see [`pad_width`]).

    Args:
        models: name -> features.
        method, seed: as in [`project`].

    Returns:
        Points (columns `model`, `space`, `clip`, `label`, `x`, `y`; the label is the modality), and a summary
        (`model`, `space`, `points`, `mixing`: share of neighbours of other modalities relative to a perfect
        mixture, from 0 for separate to 1 for mixed).

    Raises:
        ValueError: if no model has two modalities.
    """
    maps, summary = [], []
    for model, space, arrays, clips in each_space(models, SPACES):
        vectors = np.concatenate(pad_width([normalize(array) for array in arrays]))
        names = np.repeat(SPACES[space][1], len(clips))
        maps.append(_points(model, space, vectors, np.tile(clips, len(arrays)), names, method, seed))
        share, chance = neighbour_agreement(vectors, names)
        mixing = (1 - share) / (1 - chance)
        summary.append({"model": model, "space": space, "points": len(names), "mixing": mixing})
    if not maps:
        raise ValueError(f"None of the models {', '.join(models)} has two modalities to compare: add one.")
    return pd.concat(maps, ignore_index=True), pd.DataFrame(summary)


def _points(
    model: str,
    space: str,
    vectors: npt.NDArray,
    clips: npt.NDArray,
    labels: npt.NDArray,
    method: Literal["tsne", "umap"],
    seed: int,
) -> pd.DataFrame:
    places = project(vectors, method, seed)
    columns = {"clip": clips, "label": labels, "x": places[:, 0], "y": places[:, 1]}
    return pd.DataFrame({"model": model, "space": space, **columns})
