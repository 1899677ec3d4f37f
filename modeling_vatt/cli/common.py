# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""What the commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer


if TYPE_CHECKING:
    from ..processors import MediaLimits


Isolate = Annotated[
    bool,
    typer.Option(
        "--isolate",
        help="Decode in processes of their own: a file that crashes the decoder or hangs costs itself only.",
    ),
]
Limits = Annotated[
    str,
    typer.Option(
        "--media-limits",
        help='What a file may cost, as JSON, e.g. \'{"max_pixels": 2073600, "wall_seconds": 20}\'.',
    ),
]
NOTHING_FOUND = 3  # exit code


def fail(message: object) -> typer.Exit:
    """To raise: prints the message and ends with code 1."""
    typer.echo(f"error: {message}", err=True)
    return typer.Exit(1)


def media_limits_of(text: str, isolate: bool) -> "MediaLimits":
    """The value of `--media-limits`, and `--isolate`."""
    from ..processors.media.source import MediaLimits

    try:
        return MediaLimits.from_json(text, isolated=isolate)
    except ValueError as error:
        raise fail(error) from None


def check_index(folder: Path) -> None:
    """End at once where there is plainly no index, before anything large is loaded."""
    from ..retrieval.store import EXPORTED, HUB_NAME, index_folder

    if (folder / EXPORTED).is_file() or (not folder.exists() and HUB_NAME.fullmatch(str(folder))):
        return
    try:
        index_folder(folder)
    except FileNotFoundError as error:
        raise fail(error) from None


def check_model(name: str | None) -> None:
    """End at once where there is plainly no model, before anything large is loaded."""
    from ..retrieval.store import HUB_NAME

    if name is not None and not Path(name).exists() and not HUB_NAME.fullmatch(name):
        raise fail(f"{name}: no such file or folder, nor a name on the Hub (OWNER/NAME). Check the path.")


def quiet() -> None:
    """No progress bars of transformers and datasets: those of the command are enough."""
    from transformers.utils import logging

    logging.disable_progress_bar()
