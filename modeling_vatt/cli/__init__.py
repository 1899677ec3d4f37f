# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The `vatt` command: arguments, progress bars and messages, with a module for each command.

Commands import large packages inside their function, after they have checked their arguments, so that help,
wrong usage and missing files are answered without torch and transformers. Exit codes: 0 done, 1 error, 2
wrong usage, 3 nothing found, 130 Ctrl-C.
"""

import sys
from typing import Annotated

import typer

from .._version import __version__
from . import compare, convert, embed, flops, forget, index, info, search, serve


app = typer.Typer(
    name="vatt",
    help="""VATT: video, audio and text in one embedding model.

    Search your own videos:

    vatt index my_videos --model my_model

    vatt search "a dog barks" --index my_videos

    vatt serve my_videos

    `vatt COMMAND --help` explains a command, with examples. `vatt --install-completion` makes your shell
    complete commands and options.""",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for _module in (index, search, serve, forget, compare, embed, info, convert, flops):
    app.command()(getattr(_module, _module.__name__.rpartition(".")[2]))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vatt {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `vatt`."""
    app(args=arguments if arguments is not None else sys.argv[1:], prog_name="vatt")
