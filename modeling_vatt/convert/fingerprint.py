# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""A file beside a converted model that shows later damage or changes."""

import json
import os
from pathlib import Path

from ..files import hash_file, write_whole
from .errors import ConversionError


FINGERPRINT = "fingerprint.json"
_CARD = "README.md"  # for people to fill in


def write_fingerprint(folder: str | os.PathLike) -> None:
    """Write the SHA-256 of every file of a converted model but its card."""
    folder = Path(folder)
    files = {path.name: hash_file(path) for path in sorted(folder.iterdir()) if path.is_file()}
    files.pop(_CARD, None)
    write_whole(folder / FINGERPRINT, (json.dumps({"sha256": files}, indent=2) + "\n").encode())


def check_fingerprint(folder: str | os.PathLike) -> int:
    """Compare a converted model with its fingerprint; returns the number of files compared.

    Raises:
        ConversionError: names every missing or changed file; a folder without a fingerprint.
    """
    file = Path(folder) / FINGERPRINT
    try:
        noted = json.loads(file.read_bytes())["sha256"]
        wrong = [
            f"{name} ({fault})" for name in noted if (fault := _fault(file.with_name(name), noted[name]))
        ]
    except FileNotFoundError:
        raise ConversionError(
            f"{file}: no such file, so it cannot be told whether the folder is as it was converted. Convert "
            "again, to another folder."
        ) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConversionError(f"{file} is damaged ({error!r}). Convert again.") from error
    if wrong:
        raise ConversionError(
            f"{folder} is not as it was converted: {', '.join(wrong)}. If this was not you, convert again "
            "with --overwrite."
        )
    return len(noted)


def _fault(path: Path, wanted: str) -> str | None:
    if not path.is_file():
        return "missing"
    return None if hash_file(path) == wanted else "changed"
