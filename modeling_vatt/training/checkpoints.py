# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a run that survive being killed at any moment.

A checkpoint is written into a folder with another name, which is renamed when it is complete. So a folder
called `checkpoint-N` is whole, and whatever else lies about is left over from a killed run.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any


_NAME = re.compile(r"checkpoint-(\d+)")
_STATE_FILE = "training_state.json"


def checkpoints(output_dir: str | os.PathLike) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    folder = Path(output_dir)
    found = [
        p for p in folder.glob("checkpoint-*") if _NAME.fullmatch(p.name) and (p / _STATE_FILE).is_file()
    ]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def read_state(checkpoint: str | os.PathLike) -> dict[str, Any]:
    """The state that [`commit`] stored with a checkpoint."""
    return json.loads((Path(checkpoint) / _STATE_FILE).read_text())


def begin(target: str | os.PathLike) -> Path:
    """An empty folder to fill with what is to become `target`; then call [`commit`]."""
    partial = Path(f"{os.fspath(target)}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def commit(target: str | os.PathLike, state: dict[str, Any]) -> Path:
    """Add the state to what was filled since [`begin`], flush it all to disk and give it its name.

    Args:
        target: as given to [`begin`]; an older folder of that name is replaced.
        state: JSON-serialisable; readable with [`read_state`].
    """
    target = Path(target)
    partial = Path(f"{target}.partial")
    (partial / _STATE_FILE).write_text(json.dumps(state, indent=2))
    for path in [*(p for p in partial.rglob("*") if p.is_file()), partial]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    if target.exists():  # a folder cannot be replaced in one step: move the old one aside first
        replaced = Path(f"{target}.replaced")
        shutil.rmtree(replaced, ignore_errors=True)
        os.rename(target, replaced)
        os.rename(partial, target)
        shutil.rmtree(replaced)
    else:
        os.rename(partial, target)
    return target


def remove_old(output_dir: str | os.PathLike, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, and what killed runs left half-written."""
    for path in checkpoints(output_dir)[:-keep]:
        shutil.rmtree(path)
    for pattern in ("*.partial", "*.replaced"):
        for path in Path(output_dir).glob(pattern):
            shutil.rmtree(path, ignore_errors=True)
