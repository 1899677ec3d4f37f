# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""What the scripts share: how they end, and arguments that are checked before the work begins."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from modeling_vatt.training import without_secrets


Table = TypeVar("Table")


def fail(error: Exception | str) -> NoReturn:
    """End the script with a message, without tokens, and the code of the error."""
    print(without_secrets(str(error)), file=sys.stderr)
    sys.exit(getattr(error, "exit_code", 1))


def read_json(flag: str, text: str) -> dict[str, Any]:
    """The object that a flag holds as JSON; ValueError with the flag's name if it is none."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{flag}: {text!r} is no JSON ({error}).") from error
    if not isinstance(found, dict):
        raise ValueError(f"{flag} must be a JSON object, such as '{{\"temperature\": 0.05}}', got {text!r}.")
    return found


def check_output_dir(folder: str | Path) -> None:
    """ValueError if no folder can be there."""
    for place in (Path(folder), *Path(folder).parents):
        if place.exists() and not place.is_dir():
            raise ValueError(f"--output_dir {folder}: {place} is a file. Name a folder.")


def refuse_with_model(model: str | None, flags: dict[str, Any]) -> None:
    """ValueError for flags of a new model beside --model, which would have no effect.

    Args:
        model: value of --model.
        flags: name -> value, None where it was left out.
    """
    given = [f"--{name}" for name, value in flags.items() if value is not None]
    if model is not None and given:
        raise ValueError(
            f"{', '.join(given)}: for new models only: --model {model} has its own. Leave one out."
        )


def held_out(load: Callable[[str], Table], split: str | None) -> tuple[str, Table]:
    """The name and the clips of the split to evaluate on.

    Args:
        load: gives the clips of a split; ValueError if there is no such one.
        split: None for `test`, or `validation` where that is all there is.
    """
    if split is not None:
        return split, load(split)
    try:
        return "test", load("test")
    except ValueError as error:
        if "Unknown split" not in str(error):
            raise
        return "validation", load("validation")
