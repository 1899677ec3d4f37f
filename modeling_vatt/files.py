# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Files that are written whole or not at all, checksums, names, CSV cells, and one writer in a folder."""

import hashlib
import json
import os
import secrets
import socket
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout


_LOCK, _WRITER = ".writer.lock", ".writer.json"
_MARK = 6  # bytes of hexadecimal digits in the names of files that are being written
_GRACE = 5.0  # seconds that the workers of a dead process have to end


class FolderBusy(RuntimeError):
    """Another process writes into a folder."""


@contextmanager
def whole_file(path: str | os.PathLike, new: bool = False) -> Iterator[Path]:
    """A temporary name to write to; renamed to `path` when the block ends without an error.

    Several processes may write the same file: the last one wins, or with `new` the first one, and others get
    a FileExistsError.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(_MARK)}.partial")
    try:
        yield partial
        # Otherwise a power failure could leave the name without the content.
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        if new:
            _link(partial, path)
        else:
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _link(source: Path, path: Path) -> None:
    """Unlike renaming, fails if another process was quicker."""
    try:
        os.link(source, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if path.exists():
            raise FileExistsError(f"{path}: there is such a file already. Choose another name.") from None
        os.replace(source, path)


def write_whole(path: str | os.PathLike, content: bytes) -> None:
    """Write a file, or leave what was there."""
    with whole_file(path) as partial:
        partial.write_bytes(content)


def composed(text: str) -> str:
    """Unicode NFC; macOS decomposes names (NFD)."""
    return unicodedata.normalize("NFC", text)


def csv_cell(value: Any) -> Any:
    """A value for a CSV file; an apostrophe keeps spreadsheets from running it as a formula."""
    begins = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "'"))
    return f"'{value}" if begins else value


def hash_file(path: str | os.PathLike) -> str:
    """SHA-256 of the content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def one_writer(folder: str | os.PathLike) -> Iterator[None]:
    """Hold the lock of a folder, which is made if necessary; FolderBusy if another process has it.

    The system releases it when this process and its forks have ended, however they end. Partial files of
    killed writers are removed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = _acquire(folder)
    try:
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": f"{datetime.now(UTC):%F %T} UTC"}
        write_whole(folder / _WRITER, json.dumps(owner).encode())
        for partial in folder.glob(f"*.{'[0-9a-f]' * 2 * _MARK}.partial"):  # not those of others
            partial.unlink(missing_ok=True)
        yield
    finally:
        (folder / _WRITER).unlink(missing_ok=True)
        lock.release()  # the file stays: otherwise two others could lock two files of that name


def is_untouched(folder: str | os.PathLike) -> bool:
    """Whether a folder does not exist, or holds only what [`one_writer`] puts there."""
    folder = Path(folder)
    return not folder.exists() or all(path.name.startswith((_LOCK, _WRITER)) for path in folder.iterdir())


def _acquire(folder: Path) -> BaseFileLock:
    deadline = time.monotonic() + _GRACE
    lock: BaseFileLock = FileLock(folder / _LOCK)
    while True:
        try:
            lock.acquire(timeout=0)
            return lock
        except NotImplementedError:  # a file system without locks
            lock = SoftFileLock(folder / _LOCK)
        except Timeout:
            owner = _owner(folder)
            if _is_alive(owner) or time.monotonic() > deadline:
                raise FolderBusy(
                    f"{folder}: process {owner.get('pid', '?')} on {owner.get('host', '?')} has been writing "
                    f"here since {owner.get('since', '?')}. Wait until it has ended, then run the same "
                    f"command again. If it is gone, remove {folder / _LOCK}."
                ) from None
            time.sleep(0.1)


def _owner(folder: Path) -> dict[str, object]:
    try:
        return dict(json.loads((folder / _WRITER).read_bytes()))
    except (OSError, ValueError, TypeError):  # it is just starting or ending
        return {}


def _is_alive(owner: dict[str, object]) -> bool:
    """Whether the owner runs, as far as one can tell from here."""
    if not owner:
        return False
    if owner.get("host") != socket.gethostname() or not isinstance(pid := owner.get("pid"), int):
        return True
    try:
        os.kill(pid, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True
