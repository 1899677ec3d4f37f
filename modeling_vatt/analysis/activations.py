# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Tables of the reaction of encoder nodes to each modality (paper Fig. 4)."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd


def activation_table(means: Mapping[str, npt.NDArray]) -> pd.DataFrame:
    """Mean activations as a long table.

    Args:
        means: modality -> (layers, nodes), see [`ActivationMean.means`].

    Returns:
        Columns `modality`, `layer`, `node` (both from 1), `mean_activation`.
    """
    tables = []
    for modality, values in means.items():
        layers, nodes = np.indices(values.shape) + 1
        columns = {"layer": layers.ravel(), "node": nodes.ravel(), "mean_activation": values.ravel()}
        tables.append(pd.DataFrame({"modality": modality, **columns}))
    return pd.concat(tables, ignore_index=True)


def activation_summary(means: Mapping[str, npt.NDArray], shared_encoder: bool) -> pd.DataFrame:
    """How strongly each layer reacts to each modality.

    Args:
        means: modality -> (layers, nodes).
        shared_encoder: whether the modalities pass through the same nodes (agnostic model); only then nodes
            can be compared between modalities.

    Returns:
        Columns `modality`, `layer` (from 1), `mean_absolute` (mean over the nodes of the absolute mean
        activation) and, with a shared encoder, `strongest_share` (share of the layer's nodes whose absolute
        mean is largest for this modality; the shares of a layer add up to 1).
    """
    rows = []
    for modality, values in means.items():
        size = np.abs(values)
        columns = {"layer": np.arange(1, len(values) + 1), "mean_absolute": size.mean(axis=1)}
        rows.append(pd.DataFrame({"modality": modality, **columns}))
        if shared_encoder:
            strongest = np.argmax([np.abs(other) for other in means.values()], axis=0)
            rows[-1]["strongest_share"] = (strongest == list(means).index(modality)).mean(axis=1)
    return pd.concat(rows, ignore_index=True)
