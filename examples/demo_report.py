# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The demo's report: one HTML file with all pictures inside, for a browser without a network."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from make_corpus import COLOURS
from PIL import Image
from sklearn.manifold import TSNE

from modeling_vatt.analysis.figures import DASHES, PALETTE
from modeling_vatt.evaluation import average_windows, retrieval_ranks
from modeling_vatt.processors import read_clip
from modeling_vatt.retrieval import Hit, unit


matplotlib.use("Agg")
import matplotlib.pyplot as plt


STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem;
  background: light-dark(#fff, #16181c); color: light-dark(#1a1a1a, #e8e8e8) }
.wide { overflow-x: auto } table { border-collapse: collapse }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #8886 }
th:first-child, td:first-child { text-align: left }
img { max-width: 100%; background: #fff; border-radius: .3rem } audio { max-width: 100% }
.hits { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: .8rem }
figure { margin: 0; font-size: .8rem; line-height: 1.4 } .hits img { width: 100% }
.right { color: light-dark(#00633f, #5fd3a2) } .wrong { color: light-dark(#a33400, #ff9b6b) }
"""


@dataclass(frozen=True)
class Search:
    """An example search among the test clips.

    Args:
        text: the query; None for the sound of `file`.
        file: the clip that the query is of.
        asked: attribute -> value, of that clip.
        hits: what was found, with its attributes.
    """

    text: str | None
    file: str
    asked: Mapping[str, str]
    hits: Sequence[tuple[Hit, Mapping[str, str]]]


def write_report(
    path: Path,
    history: Sequence[Mapping[str, float]],
    metrics: Mapping[str, float],
    embeddings: Mapping[str, npt.NDArray],
    searches: Sequence[Search],
) -> Path:
    """Write the report.

    Args:
        path: of the HTML file.
        history: lines of `metrics.jsonl`.
        metrics: retrieval among the test clips.
        embeddings: of the test clips, and their `colour`.
        searches: to look at.
    """
    clips = len(embeddings["colour"])
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
            "Both lines of the right picture should rise: the model finds more and more of clips that it "
            "does not train on. The loss falls from ln(2 &times; batch), where nothing is told apart. Where "
            "it jumps up, batches begin whose clips share colour and size: they are harder to tell apart.",
        ),
        (
            "Ranks",
            plot_ranks(embeddings),
            "The further left a line reaches the top, the earlier in the results the right clip comes; the "
            "dotted line is chance.",
        ),
        (
            "Map",
            plot_map(embeddings),
            "Texts and sounds (crosses) should lie among the videos (circles) of their own colour. Each "
            "point is a test clip in the colour of its object; near means similar (t-SNE).",
        ),
    ]
    page = f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>VATT demo</title><style>{STYLE}</style></head><body>
<h1>VATT demo</h1>
<p>A tiny modality-agnostic VATT, pretrained from the pixels, waveforms and captions of generated video
files, searches {clips} test clips. No test clip shows a combination of attributes seen in training.</p>
<div class="wide"><table><tr><th></th><th>R@1</th><th>R@5</th><th>R@10</th><th>median rank</th></tr>{rows}
<tr><td>chance</td>{chance}<td>{(clips + 1) / 2:.1f}</td></tr></table></div>
{"".join(f'<h2>{title}</h2><p>{text}</p><img alt="{title}" src="{image}">' for title, image, text in figures)}
<h2>Searches</h2>
<p>Each clip is asked for in words and by its sound. Ticks and crosses say what of it a result shows.</p>
{"".join(map(_search, searches))}
</body></html>"""
    path.write_text(page, encoding="utf-8")
    return path


def _search(search: Search) -> str:
    asked = ", ".join(html.escape(value) for value in search.asked.values())
    title = html.escape(search.text or f"By sound: {Path(search.file).name}")
    player = "" if search.text else f'<audio controls src="{sound_of(search.file)}"></audio>'
    cards = "".join(
        f'<figure><img alt="{html.escape(" ".join(found.values()))}" src="{thumbnail(hit.name)}">'
        f"<figcaption>{place}. {html.escape(Path(hit.name).name)}, similarity {hit.score:.2f}<br>"
        f"{_compared(search.asked, found)}</figcaption></figure>"
        for place, (hit, found) in enumerate(search.hits, start=1)
    )
    return f'<h3>{title}</h3><p>Asked: {asked}. {player}</p><div class="hits">{cards}</div>'


def _compared(asked: Mapping[str, str], found: Mapping[str, str]) -> str:
    """The attributes of a result, ticked where they are those that were asked for."""
    signs = {True: ("right", "\u2713"), False: ("wrong", "\u2717")}
    marked = [(*signs[value == asked[name]], html.escape(value)) for name, value in found.items()]
    return " ".join(f'<span class="{kind}">{sign}&nbsp;{value}</span>' for kind, sign, value in marked)


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def sound_of(file: str) -> str:
    """A clip whose sound a browser plays, as data URL."""
    kind = "audio/webm" if file.endswith(".webm") else "audio/mp4"
    return _data_url(kind, Path(file).read_bytes())


@cache
def thumbnail(file: str) -> str:
    """Three frames of a video side by side, as data URL."""
    frames = read_clip(file, duration=3.0, fps=1.0, audio=False, size=96).frames
    assert frames is not None
    image = Image.fromarray(np.concatenate(list(frames), axis=1))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return _data_url("image/jpeg", buffer.getvalue())


def _figure(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return _data_url("image/png", buffer.getvalue())


def plot_losses(history: Sequence[Mapping[str, float]]) -> str:
    """Loss parts, and retrieval on the validation split, over the steps."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6))
    names = {
        "loss": "total",
        "video_audio_loss": "video-sound",
        "video_text_loss": "video-text",
        "audio_text_loss": "sound-text",
    }
    for (name, label), color, dash in zip(names.items(), PALETTE, DASHES, strict=False):
        points = [(line["step"], line[name]) for line in history if name in line]
        if points:
            left.plot(*zip(*points, strict=True), label=label, color=color, linestyle=dash)
    left.set(xlabel="step", ylabel="contrastive loss (nats)", title="Training loss")
    names = {"txt2vid_R1": "text to video", "aud2vid_R1": "sound to video"}
    for (name, label), color, mark in zip(names.items(), PALETTE, "os", strict=False):
        points = [(line["step"], 100 * line[name]) for line in history if name in line]
        if points:
            right.plot(*zip(*points, strict=True), label=label, color=color, marker=mark)
    right.set(xlabel="step", ylabel="R@1 (%)", title="Retrieval, validation split", ylim=(0, 103))
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


def plot_map(embeddings: Mapping[str, npt.NDArray]) -> str:
    """Two maps, of video with text and of video with sound, in the colours of the objects."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 5))
    colours = np.array([COLOURS[name] for name in embeddings["colour"]]) / 255
    for axes, other, space in ((panels[0], "text", "vt"), (panels[1], "audio", "va")):
        second = embeddings[f"{other}_{space}_embeds"]
        second = second[:, 0] if second.ndim == 3 else second
        vectors = unit(np.concatenate([embeddings[f"video_{space}_embeds"], second]))
        perplexity = min(30, (len(vectors) - 1) / 3)
        points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(vectors)
        videos, others = np.split(points, 2)
        axes.set_facecolor("#808080")  # white and yellow are seen on it, too
        axes.scatter(*videos.T, c=colours, marker="o", s=30, edgecolors="black", linewidths=0.4)
        axes.scatter(*others.T, c=colours, marker="x", s=26)
        name = "text" if other == "text" else "sound"
        axes.set(xticks=[], yticks=[], title=f"video (o) and {name} (x)")
    return _figure(figure)
