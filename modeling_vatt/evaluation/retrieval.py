# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Cross-modal retrieval: similarities, ranks, R@K and median rank (paper A.3.3, official evaluator)."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt


def average_windows(
    queries: npt.NDArray, gallery_windows: npt.NDArray, average: str = "embeddings"
) -> npt.NDArray[np.float64]:
    """Cosine similarities of queries with clips that are embedded as several windows.

    Args:
        queries: (queries, dim), or (queries, windows, dim) to average over their windows too; not normalised.
        gallery_windows: (clips, windows, dim), not normalised.
        average: `"embeddings"` averages the windows' vectors, then normalises (the paper's protocol);
            `"similarities"` normalises every window and averages the similarities.

    Returns:
        (queries, clips); a zero vector is similar to nothing (0).
    """
    if average not in ("embeddings", "similarities"):
        raise ValueError(f'`average` must be "embeddings" or "similarities", got {average!r}.')

    def mean(vectors: npt.NDArray) -> npt.NDArray[np.float64]:
        vectors = np.asarray(vectors, dtype=np.float64)
        windows = vectors[:, None] if vectors.ndim == 2 else vectors
        # The mean of similarities is the similarity of the means of unit vectors.
        return _unit(windows.mean(axis=1)) if average == "embeddings" else _unit(windows).mean(axis=1)

    return mean(queries) @ mean(gallery_windows).T


def _unit(vectors: npt.NDArray) -> npt.NDArray[np.float64]:
    vectors = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norms == 0, 1, norms)


def retrieval_ranks(
    similarity: npt.NDArray, targets: Sequence[int] | npt.NDArray | None = None
) -> npt.NDArray[np.int64]:
    """0-based rank of the true item of each query; of equal similarities the earlier item ranks first.

    Args:
        similarity: (queries, items).
        targets: index of the true item of every query; the query's own index by default.

    Raises:
        ValueError: NaN scores, which would rank as perfect; another number of targets; or targets that are no
            items, such as -1 for no label.
    """
    similarity = np.asarray(similarity)
    if np.isnan(similarity).any():
        raise ValueError(
            "There are NaN in `similarity`: the model has diverged, or its inputs hold NaN. Check both."
        )
    rows = np.arange(similarity.shape[0])
    truth = rows if targets is None else np.asarray(targets)
    if truth.shape != rows.shape:
        raise ValueError(
            f"`targets` must have one entry per query: {truth.shape} for {rows.shape[0]} queries."
        )
    if ((truth < 0) | (truth >= similarity.shape[1])).any():
        raise ValueError(
            f"`targets`, or class ids, must be from 0 to {similarity.shape[1] - 1}, got {truth.min()} to "
            f"{truth.max()}: leave out queries without a true item."
        )
    score = similarity[rows, truth][:, None]  # of the true item
    earlier_equal = (similarity == score) & (np.arange(similarity.shape[1])[None, :] < truth[:, None])
    return (similarity > score).sum(axis=1) + earlier_equal.sum(axis=1)


def retrieval_metrics(
    similarity: npt.NDArray, targets: Sequence[int] | None = None, prefix: str = ""
) -> dict[str, float]:
    """R@1, R@5, R@10 (shares) and the median rank, counted from 1.

    Args:
        similarity, targets: as in [`retrieval_ranks`].
        prefix: put in front of the names, e.g. `"txt2vid_"`.

    Returns:
        `{"R1", "R5", "R10", "MedianRank"}` with the prefix; names of the official evaluator.
    """
    ranks = retrieval_ranks(similarity, targets)
    metrics = {f"R{k}": float(np.mean(ranks < k)) for k in (1, 5, 10)}
    metrics["MedianRank"] = float(np.median(ranks) + 1)
    return {prefix + name: value for name, value in metrics.items()}


def clip_retrieval(embeddings: Mapping[str, npt.NDArray]) -> dict[str, float]:
    """Text-to-video and sound-to-video retrieval among the clips of a set.

    The query of a clip is its first caption, with a mask of captions the first one with words, or its sound;
    clips without it stay in the gallery.

    Args:
        embeddings: as [`~modeling_vatt.retrieval.embed_batches`] returns them; `text_mask` is (clips,) or
            (clips, captions).

    Returns:
        [`retrieval_metrics`] under `txt2vid_` and `aud2vid_`, the gallery's size, and `mean_recall`, the
        mean of all R@K.
    """
    metrics: dict[str, float] = {}
    for prefix, query, gallery, mask in (
        ("txt2vid_", "text_vt_embeds", "video_vt_embeds", "text_mask"),
        ("aud2vid_", "audio_va_embeds", "video_va_embeds", "audio_mask"),
    ):
        if query not in embeddings:
            continue
        queries = embeddings[query]
        present = np.asarray(embeddings[mask] if mask in embeddings else np.ones(len(queries)))
        present = present[:, None] if present.ndim == 1 else present
        if queries.ndim == 3:
            queries = queries[np.arange(len(queries)), present.argmax(axis=1)]
        asking = np.flatnonzero(present.any(axis=1))
        if len(asking) == 0:
            continue
        similarity = average_windows(queries[asking], embeddings[gallery][:, None])
        metrics |= retrieval_metrics(similarity, asking.tolist(), prefix)
    if not metrics:
        raise no_queries()
    recalls = [value for name, value in metrics.items() if "_R" in name]
    return {
        **metrics,
        "mean_recall": float(np.mean(recalls)),
        "gallery_size": len(embeddings["video_va_embeds"]),
    }


def zero_shot_retrieval(
    embeddings: Mapping[str, npt.NDArray],
    text_vt_embeds: npt.NDArray | None = None,
    text_targets: Sequence[int] | None = None,
) -> dict[str, float]:
    """Text-to-video and sound-to-video retrieval among clips of several windows, averaged in both ways (paper
    A.3.3, official evaluator). Clips without sound are no queries, but stay in the gallery.

    Args:
        embeddings: `video_va_embeds`, `video_vt_embeds` and, for sound, `audio_va_embeds`, all (clips,
            windows, dim), with `audio_mask` (clips, windows), as [`~modeling_vatt.retrieval.embed_files`]
            returns them.
        text_vt_embeds: (captions, dim), the queries.
        text_targets: index of the clip of every caption; default: the caption's own index.

    Returns:
        [`retrieval_metrics`] under the names of the official evaluator, `txt2vid_embd_`, `txt2vid_cosine_`,
        `audio2vid_embd_`, `audio2vid_cosine_`; the numbers of queries, `txt2vid_queries` and
        `audio2vid_queries`; `gallery_size`.
    """
    gallery_size = len(embeddings["video_va_embeds"])
    queries: dict[str, tuple[npt.NDArray, npt.NDArray, Sequence[int] | None]] = {}
    if text_vt_embeds is not None and len(text_vt_embeds):
        queries["txt2vid"] = (text_vt_embeds, embeddings["video_vt_embeds"], text_targets)
    if "audio_va_embeds" in embeddings:
        mask = embeddings.get("audio_mask", np.ones(embeddings["audio_va_embeds"].shape[:2])).astype(bool)
        asking = np.flatnonzero(mask.any(axis=1))
        # Windows of zeros scale all similarities of a query equally.
        sounds = np.where(mask[..., None], embeddings["audio_va_embeds"], 0)[asking]
        if len(asking):
            queries["audio2vid"] = (sounds, embeddings["video_va_embeds"], asking.tolist())
    if not queries:
        raise no_queries()
    metrics: dict[str, float] = {}
    for name, (asked, gallery, targets) in queries.items():
        for short, average in (("embd", "embeddings"), ("cosine", "similarities")):
            similarity = average_windows(asked, gallery, average)
            metrics |= retrieval_metrics(similarity, targets, f"{name}_{short}_")
        metrics[f"{name}_queries"] = len(asked)
    return {**metrics, "gallery_size": gallery_size}


def no_queries() -> ValueError:
    """Metrics without queries."""
    return ValueError(
        "No clip has a caption or sound, so nothing asks in `embeddings`: add captions, or clips with sound."
    )
