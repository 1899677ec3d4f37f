# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Bringing an index up to date with its folder: what is new is embedded, what is gone is removed.

Each file is committed with all its windows as soon as it is embedded, so a run that was stopped goes on with
the file at which it stopped. One process at a time writes to an index.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from stat import S_ISREG

import numpy as np
from filelock import FileLock, Timeout

from ..embedding.embedding import embed_windows
from ..files import hash_file
from ..models.modeling_vatt import VattForPreTraining, VattModel
from ..processors import DEFAULT_LIMITS, MediaLimits, VattProcessor
from ..processors.media import VIDEO_SUFFIXES
from .index import VattIndex
from .store import SPACES, FileRecord


LOCK = "index.lock"


class IndexBusy(RuntimeError):
    """Another process writes to the index."""


@dataclass
class IndexReport:
    """What [`update_index`] did.

    Args:
        embedded: files that were read and embedded, new or changed.
        reused: files whose content was known, under another name or with another time.
        unchanged: files that were not opened.
        removed: files that are gone.
        windows: windows that were embedded.
        errors: path -> why it, or a part of it, could not be read; of this run and of earlier ones.
    """

    embedded: int = 0
    reused: int = 0
    unchanged: int = 0
    removed: int = 0
    windows: int = 0
    errors: dict[str, str] = field(default_factory=dict)


@contextmanager
def writer_lock(index: VattIndex, wait: bool, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the right to write; the system takes it back when the process ends, however it ends.

    Args:
        index: to write to.
        wait: for another process that holds it.
        waiting: called once before waiting.

    Raises:
        IndexBusy: another process writes and `wait` is false.
    """
    lock = FileLock(index.store.folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise IndexBusy(
                f"{index.store.folder}: another process writes to this index. Wait until it has ended."
            ) from None
        if waiting is not None:
            waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def find_videos(root: str | os.PathLike) -> tuple[dict[str, os.stat_result], dict[str, str]]:
    """Video files below a folder by their relative POSIX path, sorted, and why others, or what is in folders,
    cannot be used.

    Hidden files and folders, and links that lead out of the folder, are passed over.

    Raises:
        FileNotFoundError: no such folder.
        OSError: the folder itself cannot be read.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder. If it was moved, pass the new place.")
    real = root.resolve()
    found: dict[str, os.stat_result] = {}
    errors: dict[str, str] = {}

    def unreadable(error: OSError) -> None:
        folder = Path(error.filename)
        if folder == root:
            raise error
        shown = folder.relative_to(root).as_posix().encode(errors="replace").decode()
        errors[shown] = _unopened(error)

    for folder, folders, names in os.walk(root, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith(".") or Path(name).suffix.lower() not in VIDEO_SUFFIXES:
                continue
            path = Path(folder, name)
            relative = path.relative_to(root).as_posix()
            try:
                relative.encode()
                if path.is_symlink() and real not in path.resolve().parents:
                    continue
                stat = path.stat()
                if S_ISREG(stat.st_mode):
                    found[relative] = stat
                else:  # a pipe would be waited for without end
                    errors[relative] = "a pipe or a device, not a file. Remove it."
            except UnicodeEncodeError:
                shown = relative.encode(errors="replace").decode()
                errors[shown] = "the name is not UTF-8. Rename the file."
            except OSError as error:
                errors[relative] = _unopened(error)
            except RuntimeError:  # of Python before 3.13
                errors[relative] = "a link that leads to itself. Remove it."
    return dict(sorted(found.items())), errors


def _unopened(error: OSError) -> str:
    return f"cannot be opened ({error.strerror}). Check its permissions."


def update_index(
    index: VattIndex,
    model: VattModel | VattForPreTraining,
    processor: VattProcessor,
    batch_size: int = 16,
    num_workers: int = 1,
    progress: Callable[[int, int, int], None] = lambda files, total, windows: None,
    limits: MediaLimits = DEFAULT_LIMITS,
    retry: bool = False,
) -> IndexReport:
    """Bring an index up to date with its folder. The caller holds [`writer_lock`].

    A file of known path, size and time is not opened. One of known content, touched, renamed or copied, is
    not embedded. Files that cannot be read are kept with the reason, and tried again when they change. What
    lies where nothing can be seen, because a folder cannot be opened, stays as it is.

    Args:
        index: with a root.
        model: in evaluation mode, the one the index was made with.
        processor: of the model.
        batch_size, num_workers: see [`embed_windows`].
        progress: called with files done, all files, and windows embedded so far.
        limits: what a file may cost, and whether it is decoded in a process of its own.
        retry: try files again that could not be read, or not wholly: with other limits, for instance.

    Raises:
        FileNotFoundError: the root is gone, or holds no video any more.
        ValueError: the index has no root.
    """
    if index.root is None:
        raise ValueError("The index knows no folder of videos: it came without media.")
    root, store = index.root, index.store
    found, errors = find_videos(root)
    report = IndexReport(errors=errors)
    known = {file.path: file for file, _ in store.files()}
    gone = {path: known.pop(path) for path in list(known) if path not in found and not _hidden(path, errors)}
    if gone and not found and not known:
        raise FileNotFoundError(
            f"{root}: holds no video any more, but {len(gone)} files of it are indexed. If its drive is not "
            f"mounted, mount it. If they are gone for good, delete the index ({store.folder})."
        )
    hashes: dict[str, str] = {}
    reads: dict[str, str] = {}

    def content(path: str) -> str | None:
        """Hash of a file; None if it cannot be read, which is noted."""
        if path not in hashes and path not in reads:
            try:
                hashes[path] = hash_file(root / path)
            except OSError as error:
                reads[path] = _unopened(error)
        return hashes.get(path)

    def to_retry(file: FileRecord) -> bool:
        return retry and file.error is not None

    # Renamed files first: what is gone afterwards can be removed before the long work begins.
    for path in found.keys() - known.keys():
        candidates = [
            file for file in gone.values() if file.size == found[path].st_size and not to_retry(file)
        ]
        for old in candidates:
            if old.hash == content(path):
                known[path] = _as_found(old, path, found[path])
                store.update(gone.pop(old.path).path, known[path])
                report.reused += 1
                break
    if gone:
        report.removed = store.remove(gone)
    todo: list[str] = []
    by_hash = {file.hash: path for path, file in known.items()}
    done = 0
    for path, stat in found.items():
        same = known.get(path)
        same_time = same is not None and (same.size, same.mtime_ns) == (stat.st_size, stat.st_mtime_ns)
        if same is not None and same_time and not to_retry(same):
            report.unchanged += 1
            done += 1
        else:
            todo.append(path)
    report.unchanged -= report.reused  # the renamed ones are known by now
    progress(done, len(found), 0)

    def new_content() -> Iterator[Path]:
        """Files to embed; those of known content are settled here."""
        nonlocal done
        for path in todo:
            value = content(path)
            if value is None:
                done += 1
                continue
            twin = known.get(by_hash.get(value, ""))
            # Of another hash by now if it was replaced in the meantime.
            if twin is not None and twin.hash == value and not to_retry(twin):
                file = _as_found(twin, path, found[path])
                if twin.path == path:
                    store.update(path, file)
                else:
                    store.copy(twin.path, file)
                known[path] = file
                report.reused += 1
                done += 1
                continue
            yield root / path

    def count(windows: int) -> None:
        report.windows += windows
        progress(done, len(found), report.windows)

    for source, result in embed_windows(
        model, processor, new_content(), index.stride, batch_size, num_workers, count, limits
    ):
        path = Path(str(source)).relative_to(root).as_posix()
        stat = found[path]
        message = None
        if result.errors:
            first = f"{result.errors[0].reason}. {result.errors[0].remedy}"
            total = len(result.errors) + len(result.starts)
            message = f"{len(result.errors)} of {total} windows: {first}" if result.starts else first
        file = FileRecord(path, stat.st_size, stat.st_mtime_ns, hashes[path], result.duration, message)
        va, vt = (
            result.arrays.get(f"video_{space}_embeds", np.zeros((0, index.dims[space]))) for space in SPACES
        )
        index.add(file, result.starts, result.ends, va, vt)
        known[path] = file
        by_hash[file.hash] = path
        report.embedded += 1
        done += 1
        progress(done, len(found), report.windows)
    index.build()
    earlier = {file.path: file.error for file, _ in store.files() if file.error is not None}
    report.errors = earlier | errors | reads
    return report


def _hidden(path: str, errors: dict[str, str]) -> bool:
    """Whether a file, or a folder it lies in, could not be looked at: it may still be there."""
    return path in errors or any(str(folder) in errors for folder in PurePosixPath(path).parents)


def _as_found(file: FileRecord, path: str, stat: os.stat_result) -> FileRecord:
    return replace(file, path=path, size=stat.st_size, mtime_ns=stat.st_mtime_ns)
