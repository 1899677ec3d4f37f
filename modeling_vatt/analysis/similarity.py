# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Similarities of positive and of random pairs, and their densities (paper Fig. 3, bottom)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import gaussian_kde, norm
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import normalize

from .features import ClipFeatures, Place, each_space


# Spaces in which pairs are compared: title -> place and the two modalities.
PAIRS: dict[str, tuple[Place, tuple[str, str]]] = {
    "video-text, input": ("input", ("video", "text")),
    "video-text, output": ("vt", ("video", "text")),
    "video-audio, input": ("input", ("video", "audio")),
    "video-audio, output": ("va", ("video", "audio")),
}
MIN_BANDWIDTH = 0.002  # of cosine, so that equal similarities have a density


@dataclass(frozen=True)
class PairSimilarities:
    """Cosines of pairs of two modalities.

    Args:
        positive: (clips,), the diagonal: both vectors of the same clip.
        random: pairs of different clips.
    """

    positive: npt.NDArray[np.float64]
    random: npt.NDArray[np.float64]

    @property
    def auc(self) -> float:
        """Probability that a positive pair is more similar than a random one; 0.5 means no relation."""
        truth = np.repeat([1, 0], [len(self.positive), len(self.random)])
        return float(roc_auc_score(truth, np.concatenate([self.positive, self.random])))


def pair_similarities(
    one: npt.NDArray, other: npt.NDArray, max_random: int = 20_000, seed: int = 0
) -> PairSimilarities:
    """Cosines between two modalities of the same clips.

    Args:
        one, other: (clips, width), row by row the same clip.
        max_random: most random pairs to keep, chosen with `seed`.

    Raises:
        ValueError: if the shapes differ or there are fewer than two clips.
    """
    if one.shape != other.shape or len(one) < 2:
        raise ValueError(
            f"Pairs need two arrays of one shape with at least 2 clips, got {one.shape} and {other.shape}."
        )
    one, other = normalize(one.astype(np.float64)), normalize(other.astype(np.float64))
    clips = len(one)
    pairs = np.arange(clips * (clips - 1))
    if len(pairs) > max_random:
        pairs = np.random.default_rng(seed).choice(len(pairs), max_random, replace=False)
    rows = pairs // (clips - 1)
    columns = (rows + 1 + pairs % (clips - 1)) % clips
    return PairSimilarities((one * other).sum(-1), (one[rows] * other[columns]).sum(-1))


def density(values: npt.NDArray, places: npt.NDArray) -> npt.NDArray[np.float64]:
    """Gaussian kernel density estimate, with Scott's bandwidth but at least [`MIN_BANDWIDTH`].

    Args:
        values: (n,), at least two.
        places: where to evaluate it, (m,).

    Returns:
        (m,), per unit of `values`; integrates to 1.
    """
    values = np.asarray(values, dtype=np.float64)
    spread = values.std(ddof=1)
    bandwidth = max(spread * len(values) ** -0.2, MIN_BANDWIDTH)
    if spread < 1e-6:
        return norm(values.mean(), bandwidth).pdf(places)
    return gaussian_kde(values, bw_method=bandwidth / spread)(places)


def similarity_densities(
    models: Mapping[str, ClipFeatures], seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Densities of positive and random pairs in the input and output spaces of several models.

    The input space of a model whose towers differ in width is left out, as there is no cosine.

    Args:
        models: name -> features.
        seed: see [`pair_similarities`].

    Returns:
        Curves (columns `model`, `space`, `pair`, `similarity`, `density`), and a summary (`model`, `space`,
        `clips`, `positive_mean`, `random_mean`, `auc`).

    Raises:
        ValueError: if no model has two modalities.
    """
    curves, summary = [], []
    for model, space, (one, other), _ in each_space(models, PAIRS):
        if one.shape != other.shape:
            continue
        pairs = pair_similarities(one, other, seed=seed)
        both = np.concatenate([pairs.positive, pairs.random])
        margin = 0.05 + 0.1 * np.ptp(both)
        places = np.linspace(both.min() - margin, both.max() + margin, 400)
        for name, values in (("positive", pairs.positive), ("random", pairs.random)):
            columns = {"pair": name, "similarity": places, "density": density(values, places)}
            curves.append(pd.DataFrame({"model": model, "space": space, **columns}))
        means = {"positive_mean": pairs.positive.mean(), "random_mean": pairs.random.mean()}
        summary.append(
            {"model": model, "space": space, "clips": len(pairs.positive), **means, "auc": pairs.auc}
        )
    if not curves:
        raise ValueError(f"None of the models {', '.join(models)} has two modalities to compare: add one.")
    return pd.concat(curves, ignore_index=True), pd.DataFrame(summary)
