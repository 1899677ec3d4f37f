# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""`vatt embed`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..repositories import require_repository
from .common import Isolate, Limits, Trust, explained, finite, media_limits_of, quiet, say, say_json


@explained("Nothing was written.")
def embed(
    videos: Annotated[list[Path] | None, typer.Argument(help="Videos, whose pictures are embedded.")] = None,
    model: Annotated[str, typer.Option(help="Folder or Hub id of the model.")] = ...,  # type: ignore[assignment]
    audio: Annotated[list[Path] | None, typer.Option(help="File of a sound. Repeatable.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="Words. Repeatable.")] = None,
    stride: Annotated[
        float | None,
        typer.Option(
            help="Seconds from window to window; by default their length.", min=0.01, callback=finite
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write, .npz; otherwise JSON is printed.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    trust_remote_code: Trust = False,
    isolate: Isolate = False,
    media_limits: Limits = "{}",
) -> None:
    """Embed videos, sounds and words.

    Writes a row for each window of a video, the middle of each sound and each text: kind, source, start, end,
    and the normalised embeddings in the spaces of sound and video (`va`) and of text and video (`vt`). A
    missing embedding is null, or zeros in an .npz file. Files that cannot be read are listed at the end, with
    exit code 1.

    Examples:

    vatt embed a.mp4 b.mp4 --model my_model --output embeddings.npz

    vatt embed --model my_model --text "a dog barks" --audio bark.wav
    """
    if not (videos or audio or text):
        raise typer.BadParameter("Nothing to embed: give videos, --audio FILE or --text WORDS.")
    if output is not None and output.suffix != ".npz":
        raise typer.BadParameter(f"{output}: choose the ending .npz.", param_hint="--output")
    require_repository(model)
    paths = [*(videos or []), *(audio or [])]
    if not text and not any(path.exists() for path in paths):
        raise FileNotFoundError(f"{', '.join(map(str, paths))}: no such file. Check the path.")
    limits = media_limits_of(media_limits, isolate)
    quiet()
    from tqdm import tqdm

    from ..retrieval import embed_query, embed_windows, unit
    from ..retrieval.video_search import load_model

    rows: list[dict[str, Any]] = []
    failed: list[Exception] = []

    def add(kind: str, source: object, start: Any = None, end: Any = None, **vectors: Any) -> None:
        row = {"kind": kind, "source": str(source), "start": start, "end": end}
        rows.append({**row, "va": None, "vt": None, **vectors})

    loaded, processor = load_model(model, device, trust_remote_code=trust_remote_code)
    files = tqdm(videos or [], unit="file", desc="Embedding", disable=None)
    for source, found in embed_windows(loaded, processor, files, stride, limits=limits):
        failed += found.errors
        spaces = [unit(found.arrays[f"video_{space}_embeds"]) for space in ("va", "vt") if found.starts]
        for start, end, *vectors in zip(found.starts, found.ends, *spaces, strict=True):
            add("video", source, start, end, va=vectors[0], vt=vectors[1])
    queries: list[tuple[str, str, Any]] = [("audio", "va", sound) for sound in audio or []]
    queries += [("text", "vt", words) for words in text or []]
    for kind, space, query in queries:
        try:  # an error costs only this one
            add(kind, query, **{space: unit(embed_query(loaded, processor, **{kind: query}, limits=limits))})
        except (OSError, ValueError) as error:
            failed.append(error)
    if output is None:
        for row in rows:
            lists = {space: None if row[space] is None else row[space].tolist() for space in ("va", "vt")}
            say_json({**row, **lists}, indent=None)
    elif rows:
        dims = {"va": loaded.config.va_projection_size, "vt": loaded.config.vt_projection_size}
        _write(rows, dims, output)
        say(f"{output}: {len(rows)} embeddings")
    for reason in dict.fromkeys(map(str, failed)):  # windows of a file may share one
        say(f"error: {reason}", err=True)
    if failed:
        raise typer.Exit(1)


def _write(rows: list[dict[str, Any]], dims: dict[str, int], output: Path) -> None:
    import numpy as np

    from ..files import whole_file

    arrays: dict[str, Any] = {key: np.array([row[key] for row in rows]) for key in ("kind", "source")}
    for key in ("start", "end"):
        arrays[key] = np.array([np.nan if row[key] is None else row[key] for row in rows])
    for space, dim in dims.items():
        empty = np.zeros(dim, np.float32)
        arrays[space] = np.stack([empty if row[space] is None else row[space] for row in rows])
    with whole_file(output) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)
