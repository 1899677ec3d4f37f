# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""`vatt index`."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..repositories import require_repository
from .common import Isolate, Limits, Trust, explained, fail, finite, media_limits_of, quiet, say, say_json


if TYPE_CHECKING:
    from ..retrieval import IndexReport, VattIndex

_SHOWN = 5  # of a list
_BAR = "{desc}: {n:.0f} of {total_fmt} s of video |{bar}| {elapsed}, {remaining} left, {postfix}"


@explained("What was embedded is kept; the same command goes on from there.")
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
            callback=finite,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    trust_remote_code: Trust = False,
    batch_size: Annotated[int, typer.Option(help="Windows embedded at a time.", min=1)] = 16,
    workers: Annotated[int, typer.Option(help="Threads that decode ahead.", min=1)] = 2,
    wait: Annotated[bool, typer.Option(help="Wait for another process that writes to the index.")] = True,
    isolate: Isolate = False,
    media_limits: Limits = "{}",
    retry: Annotated[
        bool, typer.Option("--retry", help="Try unreadable files again, though unchanged.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove files that are gone; otherwise they are kept.")
    ] = False,
    rehash: Annotated[
        bool,
        typer.Option("--rehash", help="Read all files, to find those replaced with the same size and time."),
    ] = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            help="Pattern of files or folders to leave out, as in .gitignore. Repeatable; kept until others "
            'are given ("" for none). A file .vattignore in the folder does the same.'
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Index what changes, until Ctrl+C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON report, with all errors.")] = False,
) -> None:
    """Make a folder of videos searchable, or bring its index up to date.

    Only new and changed files are embedded. Missing files stay in the index until --prune is given, as their
    drive may be disconnected. The same command continues a stopped run where it was, even within a long file.
    Files that cannot be read are listed, and tried again when they change or with --retry.

    Examples:

    vatt index my_videos --model my_model

    vatt index my_videos                   # later: only what is new

    vatt index my_videos --watch --exclude "*_proxy.mp4" --exclude "/drafts/"

    vatt index /media/archive --model my_model --index archive.index --stride 1.6 --device cuda
    """
    if folder.is_file():
        raise NotADirectoryError(
            f"{folder}: is a file. Give the folder it lies in; all videos in there are indexed."
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder. Check the path.")
    from ..retrieval.store import DEFAULT_FOLDER, find_index

    where = folder / DEFAULT_FOLDER if index_dir is None else index_dir
    if model is not None:
        require_repository(model)
    elif find_index(where) is None:
        raise ValueError(f"{where}: no index yet. Name the model to make one: --model DIR_OR_HUB_ID.")
    limits = media_limits_of(media_limits, isolate)
    from ..retrieval.ignoring import Ignored, read_patterns

    Ignored([*read_patterns(folder), *(exclude or [])])
    quiet()
    from tqdm import tqdm

    from ..retrieval import IndexBusy, VideoSearch

    def waiting() -> None:
        say(f"{where}: another process writes to this index; waiting for it to end.", err=True)

    search = None
    if model is not None and find_index(where) is None:
        with suppress(FileExistsError):  # another process was faster
            search = VideoSearch.create(folder, model, where, stride, device, trust_remote_code)
    if search is None:
        search = VideoSearch.open(where, model, device, trust_remote_code)
        _check(search.index, folder, stride, where)
    with tqdm(
        total=0, unit="s", desc="Indexing", disable=None if not as_json else True, bar_format=_BAR
    ) as bar:

        def progress(files: int, total: int, windows: int) -> None:
            bar.set_postfix_str(f"{files} of {total} files, {windows} windows", refresh=False)

        def seconds(done: float, total: float) -> None:
            bar.total = round(total) or None
            bar.update(round(done) - bar.n)

        options: dict[str, Any] = {
            "batch_size": batch_size,
            "num_workers": workers,
            "progress": progress,
            "wait": wait,
            "waiting": waiting,
            "limits": limits,
            "retry": retry,
            "prune": prune,
            "rehash": rehash,
            "exclude": exclude,
            "seconds": seconds,
        }
        try:
            for report in search.watch(**options) if watch else [search.update(**options)]:
                bar.clear()
                facts = search.index.info()
                if as_json:
                    say_json({**asdict(report), "index": facts}, indent=None if watch else 2)
                else:
                    _tell(where, report, facts)
                bar.reset()
        except (IndexBusy, ImportError) as error:
            raise fail(error) from None


def _tell(where: Path, report: "IndexReport", facts: dict[str, Any]) -> None:
    say(
        f"{where}: {facts['windows']} windows of {facts['files']} files. "
        f"{report.embedded} embedded, {report.reused} known by their content, {report.unchanged} unchanged, "
        f"{report.removed} removed."
    )
    if report.missing:
        say(
            f"{len(report.missing)} files are gone and kept in the index, as their drive may be away; "
            "--prune removes them:"
        )
        _list(report.missing)
    if report.passed_over:
        names = {"": "without an ending", "links": "links out of the folder or to folders"}
        counts = (f"{count} {names.get(kind, kind)}" for kind, count in report.passed_over.items())
        say(f"Passed over: {', '.join(counts)}.")
    if report.errors:
        say(f"{len(report.errors)} files could not be read, or not wholly:")
        _list([f"{path}: {reason}" for path, reason in sorted(report.errors.items())])
    if facts["approximate"] is not None:
        recall = min(facts["approximate"][space]["recall@10"] for space in ("va", "vt"))
        say(f"Searched approximately; recall@10 measured: {recall:.3f}.")


def _list(lines: Sequence[str]) -> None:
    for line in lines[:_SHOWN]:
        say(f"  {line}")
    if len(lines) > _SHOWN:
        say("  ... (--json lists them all)")


def _check(index: "VattIndex", folder: Path, stride: float | None, where: Path) -> None:
    """Raise `IndexMismatch` if an index is not the one that is asked for."""
    from ..retrieval import IndexMismatch

    if index.root is None or index.root.resolve() != folder.resolve():
        raise IndexMismatch(f"{where}: this is the index of {index.root}. Choose another one with --index.")
    if stride is not None and abs(stride - index.stride) > 1e-9:
        raise IndexMismatch(
            f"{where}: made with a stride of {index.stride:g} s, not {stride:g} s. Leave --stride out, or "
            "make another index with --index."
        )
