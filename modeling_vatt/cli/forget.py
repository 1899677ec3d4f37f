# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""`vatt forget`."""

from pathlib import Path
from typing import Annotated

import typer

from .common import IndexDir, explained, fail, require_index, say


@explained("The index is as it was.")
def forget(
    paths: Annotated[
        list[str], typer.Argument(help="Files or folders, as found or as they lie on the disk.")
    ],
    index_dir: IndexDir = Path("."),
    undo: Annotated[bool, typer.Option("--undo", help="Let `vatt index` take them in again.")] = False,
) -> None:
    """Remove files or folders from an index, and leave them out when it is brought up to date.

    The videos themselves are not touched.

    Examples:

    vatt forget holidays/2019 drafts/cut3.mp4 --index my_videos

    vatt forget --undo holidays/2019 --index my_videos
    """
    require_index(index_dir)
    from ..retrieval import IndexBusy, VattIndex, forget_files, remember_files, writer_lock

    with VattIndex.open(index_dir) as index:
        names = [index.place_of(path) for path in paths]
        try:
            with writer_lock(index, wait=False):
                if undo:
                    remember_files(index, names)
                    say(f"{len(names)} no longer forgotten; `vatt index` takes in what is there.")
                else:
                    say(
                        f"{forget_files(index, names)} files removed from the index and left out from now on."
                    )
        except IndexBusy as error:
            raise fail(error) from None
