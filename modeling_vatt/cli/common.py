# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Shared by the commands: options, and printing."""

import errno
import functools
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..repositories import is_hub_name


if TYPE_CHECKING:
    from ..processors import MediaLimits
    from ..retrieval import Moment, VattIndex


IndexDir = Annotated[
    Path, typer.Option("--index", "-i", help="Folder of the index or of the videos.", envvar="VATT_INDEX")
]
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

NOTHING_FOUND, INTERRUPTED = 3, 130  # exit codes

_REMEDIES = {
    errno.ENOSPC: "Free some space, then give the same command again.",
    errno.EDQUOT: "Free some space, then give the same command again.",
    errno.EACCES: "Check the permissions, or choose another place.",
    errno.EPERM: "Check the permissions, or choose another place.",
    errno.EROFS: "Choose a place that can be written to.",
}
# Control characters steer the terminal, direction marks disguise names, halves of surrogate pairs cannot be
# printed.
_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def finite(value: Any) -> Any:
    """Callback of number options: refuses `nan`, which passes comparisons with limits."""
    for number in value if isinstance(value, list) else [value]:
        if number is not None and not math.isfinite(number):
            raise typer.BadParameter(f"must be a finite number, got {number}.")
    return value


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\u{code:04x}" if code > 0xFF else f"\\x{code:02x}"


def say(line: object, err: bool = False) -> None:
    """Print a line, with control characters (of file names) as escapes."""
    typer.echo(_CONTROLS.sub(_escaped, str(line)), err=err)


def say_json(value: Any, indent: int | None = 2) -> None:
    """Print JSON in UTF-8, with control characters as escapes."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    # JSON escapes line feeds in strings.
    lines = [_CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", line) for line in text.split("\n")]
    typer.echo("\n".join(lines))


def fail(message: object) -> typer.Exit:
    """To raise: prints the message and ends with code 1."""
    say(f"error: {message}", err=True)
    return typer.Exit(1)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        place = "" if error.filename is None else f"{error.filename}: "
        return f"{place}{error.strerror}. {_REMEDIES.get(error.errno or 0, 'Check the path.')}"
    return str(error)


def explained(kept: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator of commands: errors end with a message and code 1, Ctrl-C with code 130 and `kept`, a
    sentence on what remains."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(*args: Any, **options: Any) -> None:
            try:
                command(*args, **options)
                sys.stdout.flush()  # a full disk shows here
            except KeyboardInterrupt:
                say(f"stopped. {kept}", err=True)
                raise typer.Exit(INTERRUPTED) from None
            except BrokenPipeError:  # the reader of the output has ended
                raise
            except (OSError, ValueError) as error:
                raise fail(_sentence(error)) from None

        return run

    return decorate


def media_limits_of(text: str, isolate: bool) -> "MediaLimits":
    """The values of `--media-limits` and `--isolate`."""
    from ..processors.media.source import MediaLimits

    return MediaLimits.from_json(text, isolated=isolate)


def require_index(folder: Path) -> None:
    """Raise `FileNotFoundError` if there is no index, before anything large is loaded."""
    from ..retrieval.store import EXPORTED, index_folder

    if not (folder / EXPORTED).is_file() and (folder.exists() or not is_hub_name(str(folder))):
        index_folder(folder)


def check_folder(index: "VattIndex", folder: str | None) -> None:
    """Wrong usage, if there is no such folder: one without moments finds nothing."""
    try:
        known = index.folders(folder)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--folder") from None
    if known == [] and not (index.root is not None and (index.root / str(folder)).is_dir()):
        raise typer.BadParameter(
            f"{folder}: the index holds no such folder. Give one below that of the videos.",
            param_hint="--folder",
        )


def say_unknown(words: list[str], model: str = "the model") -> None:
    """Print the words of a query that a model ignores, if there are any."""
    if words:
        say(f"note: {model} ignores {', '.join(map(repr, words))}", err=True)


def say_moment(rank: int, moment: "Moment", *notes: str) -> None:
    """Print a found moment: rank, score, strength, time, file, and what is to be noted of it."""
    from ..retrieval.moments import STALE_NOTES, strength, timecode

    span, fit = f"{timecode(moment.start)}-{timecode(moment.end)}", strength(moment.share) or ""
    told = "; ".join(filter(None, (STALE_NOTES.get(moment.stale), *notes)))
    say(f"{rank:3d}  {moment.score:6.3f}  {fit:<6}  {span:>17}  {moment.path}{told and f' ({told})'}")


def nothing_found() -> typer.Exit:
    """To raise: says so and ends with code 3."""
    say("nothing found", err=True)
    return typer.Exit(NOTHING_FOUND)


def quiet() -> None:
    """Switch off the progress bars of transformers."""
    from transformers.utils import logging

    logging.disable_progress_bar()
