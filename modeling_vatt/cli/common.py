# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""What the commands share."""

from typing import Annotated

import typer


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
Trust = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Run code of towers that came with the model. Read it first."),
]
NOTHING_FOUND = 3  # exit code


def fail(message: object) -> typer.Exit:
    """To raise: prints the message and ends with code 1."""
    typer.echo(f"error: {message}", err=True)
    return typer.Exit(1)


def quiet() -> None:
    """No progress bars of transformers and datasets: those of the command are enough."""
    from transformers.utils import logging

    logging.disable_progress_bar()
