# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The demo's report: one HTML file with all pictures inside, for a browser without a network."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.manifold import TSNE

from modeling_vatt.evaluation import average_windows, retrieval_ranks
from modeling_vatt.processors import read_clip
from modeling_vatt.retrieval import Hit, unit


matplotlib.use("Agg")
import matplotlib.pyplot as plt


# Okabe and Ito's colours, told apart by colour-blind readers, too.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem }
table { border-collapse: collapse }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #ccc }
th:first-child, td:first-child { text-align: left } img { max-width: 100% }
.hits { display: flex; flex-wrap: wrap; gap: .8rem; padding: 0 }
.hits figure { margin: 0; width: 11rem; font-size: .8rem; line-height: 1.3 } .hits img { width: 100% }
"""


def write_report(
    path: Path,
    history: Sequence[Mapping[str, float]],
    metrics: Mapping[str, float],
    embeddings: Mapping[str, npt.NDArray],
    test: datasets.Dataset,
    truth: Mapping[str, str],
    searches: Sequence[tuple[str, str, Sequence[Hit]]],
) -> Path:
    """Write the report.

    Args:
        path: of the HTML file.
        history: lines of `metrics.jsonl`.
        metrics, embeddings: of the test clips.
        test: the test clips with their attributes.
        truth: file -> what is really seen in it.
        searches: (kind, query, hits) of the example searches.
    """
    clips = len(test)
    rows = "".join(
        f"<tr><td>{title}</td>"
        + "".join(f"<td>{100 * metrics[prefix + name]:.1f} %</td>" for name in ("R1", "R5", "R10"))
        + f"<td>{metrics[prefix + 'MedianRank']:.1f}</td></tr>"
        for title, prefix in (("text &rarr; video", "txt2vid_"), ("sound &rarr; video", "aud2vid_"))
    )
    chance = "".join(f"<td>{100 * k / clips:.1f} %</td>" for k in (1, 5, 10))
    figures = [
        (
            "Learning",
            plot_losses(history),
            "The loss falls from ln(2 &times; batch), where nothing is told apart, towards ln 2. "
            "Retrieval is measured on the validation split.",
        ),
        (
            "Ranks",
            plot_ranks(embeddings),
            "Share of test queries whose own clip is among the first K; the dotted line is chance.",
        ),
        (
            "Map",
            plot_map(embeddings, test),
            "t-SNE of test embeddings. Near means similar: texts and sounds lie among the videos they "
            "belong to. The labels are the colours of the objects.",
        ),
    ]
    page = f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>VATT demo</title><style>{STYLE}</style></head><body>
<h1>VATT demo</h1>
<p>A tiny modality-agnostic VATT, pretrained from the pixels, waveforms and captions of generated video
files, searches {clips} test clips. No test clip shows a combination of attributes seen in training.</p>
<table><tr><th></th><th>R@1</th><th>R@5</th><th>R@10</th><th>median rank</th></tr>{rows}
<tr><td>chance</td>{chance}<td>{(clips + 1) / 2:.1f}</td></tr></table>
{"".join(f'<h2>{title}</h2><p>{text}</p><img alt="{title}" src="{image}">' for title, image, text in figures)}
<h2>Searches</h2>{"".join(_search(*search, truth) for search in searches)}
</body></html>"""
    path.write_text(page, encoding="utf-8")
    return path


def _search(kind: str, query: str, hits: Sequence[Hit], truth: Mapping[str, str]) -> str:
    cards = "".join(
        f'<figure><img alt="{html.escape(truth[hit.name])}" src="{thumbnail(hit.name)}">'
        f"<figcaption>{place}. {html.escape(truth[hit.name])}<br>{html.escape(Path(hit.name).name)}, "
        f"similarity {hit.score:.2f}</figcaption></figure>"
        for place, hit in enumerate(hits, start=1)
    )
    return f'<h3>{html.escape(kind)}: {html.escape(query)}</h3><div class="hits">{cards}</div>'


def thumbnail(file: str) -> str:
    """Three frames of a video side by side, as data URL."""
    frames = read_clip(file, duration=3.0, fps=1.0, audio=False, size=96).frames
    assert frames is not None
    image = Image.fromarray(np.concatenate(list(frames), axis=1))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _figure(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def plot_losses(history: Sequence[Mapping[str, float]]) -> str:
    """Loss parts, and retrieval on the validation split, over the steps."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6))
    names = {"loss": "total", "video_audio_loss": "video-sound", "video_text_loss": "video-text"}
    for (name, label), color, dash in zip(names.items(), PALETTE, ("-", "--", ":"), strict=False):
        points = [(line["step"], line[name]) for line in history if name in line]
        left.plot(*zip(*points, strict=True), label=label, color=color, linestyle=dash)
    left.set(xlabel="step", ylabel="contrastive loss (nats)", title="Training loss")
    names = {"txt2vid_R10": "text to video", "aud2vid_R10": "sound to video"}
    for (name, label), color, mark in zip(names.items(), PALETTE, "os", strict=False):
        points = [(line["step"], 100 * line[name]) for line in history if name in line]
        if points:
            right.plot(*zip(*points, strict=True), label=label, color=color, marker=mark)
    right.set(xlabel="step", ylabel="R@10 (%)", title="Retrieval, validation split", ylim=(0, 103))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    return _figure(figure)


def plot_ranks(embeddings: Mapping[str, npt.NDArray]) -> str:
    """Recall at every K up to 50."""
    figure, axes = plt.subplots(figsize=(6.5, 3.6))
    text = embeddings["text_vt_embeds"][:, 0]
    pairs = (
        ("text to video", text, embeddings["video_vt_embeds"], "-"),
        ("sound to video", embeddings["audio_va_embeds"], embeddings["video_va_embeds"], "--"),
    )
    count = len(text)
    places = np.arange(1, min(50, count) + 1)
    for (label, queries, gallery, dash), color in zip(pairs, PALETTE, strict=False):
        ranks = retrieval_ranks(average_windows(queries, gallery[:, None]))
        recalls = [100 * np.mean(ranks < k) for k in places]
        axes.plot(places, recalls, label=label, color=color, linestyle=dash)
    axes.plot(places, 100 * places / count, "k:", label="chance")
    axes.set(xlabel="K", ylabel="R@K (%)", title=f"Retrieval among {count} test clips", ylim=(0, 103))
    axes.grid(alpha=0.3)
    axes.legend()
    return _figure(figure)


def plot_map(embeddings: Mapping[str, npt.NDArray], test: datasets.Dataset) -> str:
    """Two maps, of video with text and of video with sound; the named clusters are the objects' colours."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 5))
    values = np.array(list(test["colour"]) * 2)
    is_video = np.arange(len(values)) < len(test)
    for axes, other, space in ((panels[0], "text", "vt"), (panels[1], "audio", "va")):
        second = embeddings[f"{other}_{space}_embeds"]
        second = second[:, 0] if second.ndim == 3 else second
        vectors = unit(np.concatenate([embeddings[f"video_{space}_embeds"], second]))
        perplexity = min(30, (len(vectors) - 1) / 3)
        points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(vectors)
        for value, color in zip(sorted(set(values)), PALETTE, strict=False):
            for mine, mark in ((is_video, "o"), (~is_video, "x")):
                axes.scatter(*points[(values == value) & mine].T, c=color, marker=mark, s=26, alpha=0.7)
            middle = np.median(points[values == value], axis=0)
            axes.annotate(value, middle, ha="center", bbox={"fc": "white", "alpha": 0.75, "lw": 0})
        name = "text" if other == "text" else "sound"
        axes.set(xticks=[], yticks=[], title=f"video (o) and {name} (x)")
    return _figure(figure)
