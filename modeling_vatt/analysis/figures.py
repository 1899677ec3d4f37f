# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The tables of this package as matplotlib figures (extra `analysis`), in Okabe and Ito's colours for
colour-blind readers, with different markers and dashes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure


PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = "osD^vPX*"
DASHES = ("-", "--", ":", "-.")
MODALITY_STYLES = {
    "video": (PALETTE[0], "o", "-"),
    "audio": (PALETTE[1], "^", "--"),
    "text": (PALETTE[2], "s", ":"),
}


def _panels(rows: int, columns: int, width: float, height: float, **kwargs: Any) -> tuple[Figure, Any]:
    """A figure without global state, and its axes as an array (rows, columns)."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def _point_styles(labels: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each label: 64 different pairs, neighbours differ in both."""
    if set(labels) <= set(MODALITY_STYLES):
        return {label: MODALITY_STYLES[label][:2] for label in labels}
    count = len(PALETTE)
    markers = [MARKERS[(i + i // count) % len(MARKERS)] for i in range(len(labels))]
    return {label: (PALETTE[i % count], markers[i]) for i, label in enumerate(labels)}


def plot_maps(points: pd.DataFrame, legend_title: str) -> Figure:
    """Maps of points: a row for every space, a column for every model.

    Args:
        points: columns `model`, `space`, `label`, `x`, `y`; see [`class_maps`] and [`modality_maps`].
        legend_title: what the labels are.
    """
    models, spaces = points["model"].unique(), points["space"].unique()
    labels = list(points["label"].unique())
    styles = _point_styles(labels if set(labels) <= set(MODALITY_STYLES) else sorted(labels))
    figure, panels = _panels(len(spaces), len(models), 3.8, 3.7)
    for space, row in zip(spaces, panels, strict=True):
        for model, axes in zip(models, row, strict=True):
            here = points[(points["model"] == model) & (points["space"] == space)]
            for label, (color, marker) in styles.items():
                labelled = here[here["label"] == label]
                axes.scatter(
                    labelled["x"],
                    labelled["y"],
                    c=color,
                    marker=marker,
                    s=24 if len(here) < 600 else 10,
                    alpha=0.75,
                    edgecolors="#333333",
                    linewidths=0.3,
                    label=label,
                )
            axes.set(xticks=[], yticks=[], title=f"{model}\n{space}")
            if here.empty:
                axes.text(0.5, 0.5, "not in this model", ha="center", transform=axes.transAxes)
    handles, names = panels[0, 0].get_legend_handles_labels()
    style = {"ncols": 1 if len(names) <= 16 else 2, "markerscale": 1.4}
    figure.legend(handles, names, title=legend_title, loc="outside right upper", **style)
    return figure


def plot_densities(curves: pd.DataFrame) -> Figure:
    """Densities of [`similarity_densities`]: a row for every space, a column for every model."""
    models, spaces = curves["model"].unique(), curves["space"].unique()
    figure, panels = _panels(len(spaces), len(models), 4.2, 2.6)
    styles = {"positive": (PALETTE[0], "-"), "random": (PALETTE[1], "--")}
    for space, row in zip(spaces, panels, strict=True):
        for model, axes in zip(models, row, strict=True):
            here = curves[(curves["model"] == model) & (curves["space"] == space)]
            for pair, (color, dash) in styles.items():
                curve = here[here["pair"] == pair]
                axes.plot(curve["similarity"], curve["density"], dash, color=color, label=f"{pair} pairs")
                axes.fill_between(curve["similarity"], curve["density"], color=color, alpha=0.15)
            axes.set(title=f"{model}: {space}", xlabel="cosine similarity", ylabel="density", ylim=(0, None))
            if not here.empty:
                axes.set_xlim(max(-1.0, here["similarity"].min()), min(1.0, here["similarity"].max()))
            else:
                axes.set(xticks=[], yticks=[], ylim=(0, 1))
                text = "not in this model, or vectors\nof different widths: no cosine"
                axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=2)
    return figure


def plot_activations(means: Mapping[str, npt.NDArray]) -> Figure:
    """Mean activation of every node, of [`ActivationMean.means`], as images, one for each modality."""
    figure, panels = _panels(len(means), 1, 10, 2.4)
    # A few nodes are so strong that they would hide the others.
    limit = float(np.percentile(np.abs(np.concatenate([v.ravel() for v in means.values()])), 99)) or 1.0
    for (modality, values), axes in zip(means.items(), panels[:, 0], strict=True):
        layers, nodes = values.shape
        image = axes.imshow(
            values,
            aspect="auto",
            interpolation="nearest",
            cmap="PuOr_r",
            vmin=-limit,
            vmax=limit,
            extent=(0.5, nodes + 0.5, layers + 0.5, 0.5),
        )
        axes.set(title=modality, xlabel="node", ylabel="layer")
        axes.yaxis.get_major_locator().set_params(integer=True)
    figure.colorbar(image, ax=panels.ravel().tolist(), label="mean MLP output (no unit)", extend="both")
    return figure


def plot_activation_summary(summary: pd.DataFrame) -> Figure:
    """Reaction of each layer to each modality, of [`activation_summary`]."""
    shared = "strongest_share" in summary
    figure, panels = _panels(1, 2 if shared else 1, 5.2, 3.4)
    left = panels[0, 0]
    for modality, rows in summary.groupby("modality", sort=False):
        color, marker, dash = MODALITY_STYLES[str(modality)]
        style = {"color": color, "marker": marker, "linestyle": dash, "label": modality}
        left.plot(rows["layer"], rows["mean_absolute"], **style)
        if shared:
            panels[0, 1].plot(rows["layer"], 100 * rows["strongest_share"], **style)
    left.set(xlabel="layer", ylabel="mean |mean MLP output| over nodes", title="Strength", ylim=(0, None))
    if shared:
        title = "Nodes that react most to a modality"
        panels[0, 1].set(xlabel="layer", ylabel="share of nodes (%)", title=title, ylim=(0, 100))
    for axes in panels[0]:
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    left.legend()
    return figure


def plot_drop_token(table: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    """Quality against operations, and time against kept share.

    Args:
        table: of [`drop_token_tradeoff`], with a column `model` in front.
        metrics: columns of the table to show as quality, in percent.
    """
    columns = min(3, len(metrics) + 1)
    figure, panels = _panels(-(-(len(metrics) + 1) // columns), columns, 4.4, 3.6)
    *quality, time = panels.ravel()[: len(metrics) + 1]
    for unused in panels.ravel()[len(metrics) + 1 :]:
        unused.set_axis_off()
    for index, ((model, size), rows) in enumerate(table.groupby(["model", "input"], sort=False)):
        style: dict[str, Any] = {
            "color": PALETTE[index % len(PALETTE)],
            "marker": MARKERS[index % len(MARKERS)],
            "linestyle": DASHES[index % len(DASHES)],
            "label": f"{model}, {size}",
        }
        for column, axes in zip(metrics, quality, strict=True):
            axes.plot(rows["paper_gflops"], rows[column], **style)
            for share, *place in zip(rows["kept_share"], rows["paper_gflops"], rows[column], strict=True):
                axes.annotate(f"{share:.0%}", place, (0, 6), textcoords="offset points", ha="center", size=8)
        time.plot(100 * rows["kept_share"], 1e3 * rows["seconds_per_clip"], **style)
    for column, axes in zip(metrics, quality, strict=True):
        lowest, highest = table[column].min(), table[column].max()
        margin = max(2.0, 0.15 * (highest - lowest))
        limits = (max(0.0, lowest - margin), min(104.0, highest + margin))
        axes.set(xlabel="GFLOP per clip (paper's unit)", ylabel=column, ylim=limits)
    top = 1.1e3 * table["seconds_per_clip"].max()
    time.set(xlabel="tokens kept (%)", ylabel="time per clip (ms)", ylim=(0, top))
    for axes in (*quality, time):
        axes.grid(alpha=0.3)
        axes.margins(x=0.08)
    figure.legend(*time.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


__all__ = ["plot_activation_summary", "plot_activations", "plot_densities", "plot_drop_token", "plot_maps"]
