# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""`vatt index`."""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .common import Isolate, Limits, check_model, fail, media_limits_of, quiet


_SHOWN_ERRORS = 5


def index(
    folder: Annotated[Path, typer.Argument(help="Videos, with all subfolders.")],
    model: Annotated[
        str | None,
        typer.Option(help="Folder or Hub id of the model; not needed to bring an index up to date."),
    ] = None,
    index_dir: Annotated[
        Path | None,
        typer.Option("--index", help="Folder of the index; by default .vatt-index in that of the videos."),
    ] = None,
    stride: Annotated[
        float | None,
        typer.Option(
            help="Seconds from the start of a window to the next; by default their length. Half of it finds "
            "moments more finely and takes twice as long.",
            min=0.01,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    batch_size: Annotated[int, typer.Option(help="Windows embedded at a time.", min=1)] = 16,
    workers: Annotated[int, typer.Option(help="Threads that decode ahead.", min=1)] = 2,
    wait: Annotated[bool, typer.Option(help="Wait for another process that writes to the index.")] = True,
    isolate: Isolate = False,
    media_limits: Limits = "{}",
    retry: Annotated[
        bool, typer.Option("--retry", help="Try unreadable files again, though unchanged.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON report, with all errors.")] = False,
) -> None:
    """Make a folder of videos searchable, or bring its index up to date.

    Only what is new or has changed is embedded; files that are gone disappear. A run that was stopped,
    however it was stopped, goes on where it was when the command is given again. Files that cannot be read
    are listed and not tried again until they change, or with --retry.

    Examples:

    vatt index my_videos --model my_model

    vatt index my_videos                   # later: only what is new

    vatt index /media/archive --model my_model --index archive.index --stride 1.6 --device cuda
    """
    from ..retrieval.store import DEFAULT_FOLDER, find_index

    where = folder / DEFAULT_FOLDER if index_dir is None else index_dir
    if not folder.is_dir():
        raise fail(f"{folder}: no such folder.")
    if model is None and find_index(where) is None:
        raise fail(f"{where}: no index yet. Name the model to make one: --model DIR_OR_HUB_ID.")
    check_model(model)
    limits = media_limits_of(media_limits, isolate)
    quiet()
    from tqdm import tqdm

    from ..retrieval import IndexBusy, IndexDamaged, IndexMismatch, VideoSearch

    bar = tqdm(total=0, unit="file", desc="Indexing", disable=None if not as_json else True)

    def progress(files: int, total: int, windows: int) -> None:
        bar.total = total
        bar.set_postfix(windows=windows, refresh=False)
        bar.update(files - bar.n)

    def waiting() -> None:
        typer.echo(f"{where}: another process writes to this index; waiting for it to end.", err=True)

    try:
        search = None
        if model is not None and not VideoSearch.exists(where):
            with suppress(FileExistsError):  # another process was quicker
                search = VideoSearch.create(folder, model, where, stride, device)
        if search is None:
            search = VideoSearch.open(where, model, device)
            _check(search.index, folder, stride, where)
        report = search.update(batch_size, workers, progress, wait, waiting, limits, retry)
        facts = search.index.info()
    except (OSError, ValueError, IndexBusy, IndexDamaged, IndexMismatch) as error:
        raise fail(error) from None
    finally:
        bar.close()
    if as_json:
        typer.echo(json.dumps({**asdict(report), "index": facts}, indent=2, ensure_ascii=False))
        return
    typer.echo(
        f"{where}: {facts['windows']} windows of {facts['files']} files. "
        f"{report.embedded} embedded, {report.reused} known by their content, {report.unchanged} unchanged, "
        f"{report.removed} removed."
    )
    if report.errors:
        typer.echo(f"{len(report.errors)} files could not be read, or not wholly:")
        for path, reason in sorted(report.errors.items())[:_SHOWN_ERRORS]:
            typer.echo(f"  {path}: {reason}")
        if len(report.errors) > _SHOWN_ERRORS:
            typer.echo("  ... (--json lists them all)")
    if facts["approximate"] is not None:
        notes = facts["approximate"]
        recall = min(notes[space]["recall@10"] for space in ("va", "vt"))
        typer.echo(f"Searched approximately; recall@10 measured: {recall:.3f}.")


def _check(index: object, folder: Path, stride: float | None, where: Path) -> None:
    """Raise `IndexMismatch` if an index is not the one that is asked for."""
    from ..retrieval import IndexMismatch

    root, known = index.root, index.stride  # type: ignore[attr-defined]
    if root is None or root.resolve() != folder.resolve():
        raise IndexMismatch(f"{where}: this is the index of {root}. Choose another one with --index.")
    if stride is not None and abs(stride - known) > 1e-9:
        raise IndexMismatch(
            f"{where}: made with a stride of {known:g} s, not {stride:g} s. Leave --stride out, or make "
            "another index with --index."
        )
