# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a run that survive being killed, or the power failing, at any moment.

A checkpoint is written into a folder with another name, which is renamed when all of it is on the disk. So a
folder called `checkpoint-N` is whole, and whatever else lies about is left over from a killed run.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


_NAME = re.compile(r"checkpoint-(\d+)")
# What killed runs leave; folders of others may end in the same way.
_LEFT = re.compile(r"(checkpoint-\d+|best|result|saving)\.(partial|replaced)")
STATE_FILE = "training_state.json"


def checkpoints(output_dir: str | os.PathLike, state_file: str = STATE_FILE) -> list[Path]:
    """Complete checkpoints of a run, which hold the JSON `state_file`, by their step, oldest first."""
    found = [
        path
        for path in Path(output_dir).glob("checkpoint-*")
        if _NAME.fullmatch(path.name) and is_whole(path, state_file)
    ]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def is_whole(folder: str | os.PathLike, state_file: str = STATE_FILE) -> bool:
    """Whether a folder holds the state that is written into it last."""
    try:
        return isinstance(json.loads((Path(folder) / state_file).read_text()), dict)
    except (OSError, ValueError):
        return False


def read_state(checkpoint: str | os.PathLike) -> dict[str, Any]:
    """The state that [`commit`] stored with a checkpoint."""
    return json.loads((Path(checkpoint) / STATE_FILE).read_text())


def begin(target: str | os.PathLike) -> Path:
    """An empty folder to fill with what is to become `target`; then call [`commit`]."""
    partial = _partial(target)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def commit(target: str | os.PathLike, state: dict[str, Any]) -> Path:
    """Add the state to what was filled since [`begin`], flush it all to disk and give it its name.

    Args:
        target: as given to [`begin`]; an older folder of that name is replaced.
        state: JSON-serialisable; readable with [`read_state`].
    """
    partial = _partial(target)
    (partial / STATE_FILE).write_text(json.dumps(state, indent=2))
    return put_in_place(partial, target)


def put_in_place(partial: str | os.PathLike, target: str | os.PathLike) -> Path:
    """Flush a folder to disk and give it its name; an older folder of that name is replaced."""
    target = Path(target)
    flush(partial)
    if target.exists():  # a folder cannot be replaced in one step: move the old one aside first
        replaced = Path(f"{target}.replaced")
        shutil.rmtree(replaced, ignore_errors=True)
        os.rename(target, replaced)
        os.rename(partial, target)
        _sync(target.parent)
        shutil.rmtree(replaced)
    else:
        os.rename(partial, target)
        _sync(target.parent)
    return target


def flush(folder: str | os.PathLike) -> None:
    """Wait until the files and folders in a folder, and it itself, are on the disk."""
    for path in (*Path(folder).rglob("*"), Path(folder)):
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _partial(target: str | os.PathLike) -> Path:
    return Path(f"{os.fspath(target)}.partial")


@contextmanager
def files_at_once(folder: str | os.PathLike) -> Iterator[Path]:
    """A folder to fill with files that then replace those of the same names in `folder`, each in one step.

    For the result of a run, which lies beside its checkpoints. If an exception ends the block, nothing is
    replaced and the space is given back.
    """
    folder = Path(folder)
    partial = begin(folder / "result")
    try:
        yield partial
        flush(partial)
        for path in sorted(partial.rglob("*")):
            place = folder / path.relative_to(partial)
            if path.is_dir():
                place.mkdir(exist_ok=True)
            else:
                os.replace(path, place)
        _sync(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def recover(output_dir: str | os.PathLike) -> None:
    """Put things right after a run that was killed.

    What was moved aside comes back if nothing took its place, and what is half-written goes.
    """
    for path in [path for path in Path(output_dir).glob("*.*") if _LEFT.fullmatch(path.name)]:
        if path.suffix == ".replaced" and not path.with_suffix("").exists():
            os.rename(path, path.with_suffix(""))
        else:
            shutil.rmtree(path, ignore_errors=True)


def remove_old(
    output_dir: str | os.PathLike,
    keep: int,
    state_file: str = STATE_FILE,
    also: str | os.PathLike | None = None,
) -> None:
    """Delete all but the newest `keep` checkpoints, and what killed runs left half-written.

    Args:
        output_dir: of the run.
        keep: how many stay, newest by their step; 0 for all.
        state_file: see [`checkpoints`].
        also: a checkpoint that stays in any case; it counts among the `keep`, but the newest one stays too.
    """
    recover(output_dir)
    found = checkpoints(output_dir, state_file)
    if not keep or not found:
        return
    kept = {path.name for path in found[-keep:]}
    if also is not None and Path(also).name not in kept:
        kept = {path.name for path in found[-max(1, keep - 1) :]} | {Path(also).name}
    for path in found:
        if path.name not in kept:
            shutil.rmtree(path)
