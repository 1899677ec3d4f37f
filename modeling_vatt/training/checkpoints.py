# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that survive a kill or a power failure at any moment.

A checkpoint is written under another name and renamed when all of it is on the disk. So a folder
`checkpoint-N` is complete, and other folders are left over from a killed run.
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
    """Whether a folder holds the state, which is written last."""
    try:
        return isinstance(json.loads((Path(folder) / state_file).read_text()), dict)
    except (OSError, ValueError):
        return False


def read_state(checkpoint: str | os.PathLike) -> dict[str, Any]:
    """The state that [`commit`] stored with a checkpoint."""
    return json.loads((Path(checkpoint) / STATE_FILE).read_text())


def begin(target: str | os.PathLike) -> Path:
    """An empty folder to fill; [`commit`] then renames it to `target`."""
    partial = _partial(target)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def commit(target: str | os.PathLike, state: dict[str, Any]) -> Path:
    """Add the `state` (JSON, for [`read_state`]) to the folder of [`begin`], flush it to disk and rename it
    to `target`, replacing an older folder."""
    partial = _partial(target)
    (partial / STATE_FILE).write_text(json.dumps(state, indent=2))
    return put_in_place(partial, target)


def put_in_place(partial: str | os.PathLike, target: str | os.PathLike) -> Path:
    """Flush a folder to disk and rename it to `target`, replacing an older folder."""
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
    """Flush a folder with its files and subfolders to disk."""
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
    """A folder to fill with files that then replace those of the same names in `folder`, each in one step;
    after an exception nothing is replaced. For the result of a run, which lies beside its checkpoints."""
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
    """Clean up after a killed run: restore folders that were moved aside if they were not replaced, and
    delete half-written ones."""
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
    """Delete all but the newest `keep` checkpoints by step (0: none), and half-written ones.

    Args:
        state_file: see [`checkpoints`].
        also: a checkpoint that always stays, as one of the `keep`; the newest one stays too.
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
