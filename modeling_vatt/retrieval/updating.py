# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Bringing an index up to date with its folder.

Each file is committed with all its windows when it is embedded; the first windows of a long one are saved
meanwhile, so a stopped run continues where it was. One process at a time writes to an index.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np

from .._version import __version__
from ..embedding.embedding import WindowEmbeddings, embed_windows
from ..files import composed, hash_file
from ..models.modeling_vatt import VattForPreTraining, VattModel
from ..processors import DEFAULT_LIMITS, MediaLimits, MediaSource, VattProcessor
from ..processors.media import VIDEO_SUFFIXES
from .ignoring import FORGOTTEN, Ignored, read_patterns, with_parents
from .index import VattIndex
from .store import SPACES, FileRecord
from .unfinished import Unfinished


UNFINISHED = "unfinished"  # folder in that of the index
CHANGED = "it, or a copy of it, changed while it was read. Index again when it is whole."
EXCLUDED = "excluded"  # note in the index: patterns


@dataclass
class IndexReport:
    """Result of [`update_index`].

    Args:
        embedded: new or changed files that were embedded.
        reused: files of known content, under another name or with another time.
        unchanged: files that were not opened.
        removed: files that were removed.
        windows: windows that were embedded.
        missing: files that are gone, whose moments are kept.
        passed_over: see [`FoundVideos`].
        errors: path -> why it could not be read, or only in part; also of earlier runs.
    """

    embedded: int = 0
    reused: int = 0
    unchanged: int = 0
    removed: int = 0
    windows: int = 0
    missing: list[str] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


@dataclass
class FoundVideos:
    """Result of [`find_videos`].

    Args:
        files: relative POSIX path -> properties, sorted.
        errors: of files and folders that cannot be used.
        passed_over: numbers of others, by ending (`".txt"`, `""` for none), or `"hidden"`, `"links"` (out of
            the folder or to folders) and `"excluded"`.
    """

    files: dict[str, os.stat_result] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    passed_over: dict[str, int] = field(default_factory=Counter)


def find_videos(
    root: str | os.PathLike,
    index: str | os.PathLike | None = None,
    is_excluded: Callable[[str, bool], bool] = lambda path, is_folder: False,
) -> FoundVideos:
    """Video files below a folder, without hidden files and folders, and links out of the folder.

    Args:
        root: the folder.
        index: folder of the index, which is not counted.
        is_excluded: whether a relative path, of a folder or not, is left out.

    Raises:
        FileNotFoundError: no such folder.
        OSError: the folder itself cannot be read.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder. If it was moved, pass the new place.")
    walk = _Walk(root, None if index is None else Path(index).resolve(), is_excluded)
    for folder, folders, names in os.walk(root, onerror=walk.pass_unreadable):
        folders[:] = [name for name in folders if walk.enters(Path(folder, name))]
        for name in names:
            walk.look_at(Path(folder, name))
    found = walk.found
    found.files = dict(sorted(found.files.items()))
    found.passed_over = dict(sorted(found.passed_over.items()))
    return found


class _Walk:
    """Steps and results of [`find_videos`]."""

    def __init__(self, root: Path, index: Path | None, is_excluded: Callable[[str, bool], bool]) -> None:
        self.root, self.index, self.is_excluded = root, index, is_excluded
        self.real_root = root.resolve()
        self.found = FoundVideos()

    def pass_unreadable(self, error: OSError) -> None:
        """Note a folder that cannot be read; raise for the root."""
        folder = Path(error.filename)
        if folder == self.root:
            raise error
        self.found.errors[_printable(self._relative(folder))] = _unopened(error)

    def enters(self, folder: Path) -> bool:
        """Whether a subfolder is to be searched."""
        if self.index is not None and folder.name == self.index.name and folder.resolve() == self.index:
            return False
        if folder.name.startswith("."):
            return self._passes_over("hidden")
        if folder.is_symlink():
            return self._passes_over("links")
        if self.is_excluded(self._relative(folder), True):
            return self._passes_over("excluded")
        return True

    def look_at(self, path: Path) -> None:
        """Note a file as a video, as passed over, or with its error."""
        ending, relative = path.suffix.lower(), self._relative(path)
        if path.name.startswith(".") or ending not in VIDEO_SUFFIXES:
            self._passes_over("hidden" if path.name.startswith(".") else ending)
        elif self.is_excluded(relative, False):
            self._passes_over("excluded")
        elif relative != _printable(relative):
            self.found.errors[_printable(relative)] = "the name is not UTF-8. Rename the file."
        else:
            try:
                if path.is_symlink() and self.real_root not in path.resolve().parents:
                    self._passes_over("links")
                elif S_ISREG((stat := path.stat()).st_mode):
                    self.found.files[relative] = stat
                else:  # a pipe would block
                    self.found.errors[relative] = "a pipe or a device, not a file. Remove it."
            except OSError as error:
                self.found.errors[relative] = _unopened(error)
            except RuntimeError:  # of Python before 3.13
                self.found.errors[relative] = "a link that leads to itself. Remove it."

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _passes_over(self, kind: str) -> bool:
        self.found.passed_over[kind] += 1
        return False


def _printable(name: str) -> str:
    """A name with escapes for bytes that are no UTF-8."""
    return os.fsencode(name).decode(errors="backslashreplace")


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
    prune: bool = False,
    rehash: bool = False,
    exclude: Sequence[str] | None = None,
    seconds: Callable[[float, float], None] = lambda done, total: None,
) -> IndexReport:
    """Bring an index up to date with its folder. The caller holds [`writer_lock`].

    Files of known path, size and time are not opened; files of known content (touched, renamed, copied) are
    not embedded. Unreadable files are kept with the reason, and tried again when they change. A file that
    changes while it is read is left for the next time. Missing files stay, as their drive may be
    disconnected, and so do those in unreadable folders. Excluded files are removed.

    Args:
        index: with a root.
        model: in evaluation mode, the one the index was made with.
        processor: of the model.
        batch_size, num_workers: see [`embed_windows`].
        progress: called with files done, all files, and windows embedded so far.
        limits: what a file may cost, and whether it is decoded in another process.
        retry: try files again that could not be read, or only in part.
        prune: remove missing files.
        rehash: compare the content of all files, as one may have been replaced with equal size and time.
        exclude: patterns of files and folders to leave out from now on, see [`Ignored`], beside those of
            `.vattignore` in the root; None keeps those given before.
        seconds: called with the seconds of video embedded by this run so far, and an estimate of the total (0
            before the first file).

    Raises:
        FileNotFoundError: the root is missing, or holds no video any more.
        ValueError: the index has no root.
    """
    if index.root is None:
        raise ValueError("The index knows no folder of videos: it came without media.")
    kept = index.store.meta(EXCLUDED) or []
    patterns = kept if exclude is None else list(exclude)
    state = [__version__, index.identity.weights, index.window, index.stride, repr(limits)]
    unfinished = Unfinished(index.store.folder / UNFINISHED, state)
    update = _Update(index, index.root, patterns, retry, rehash, unfinished)
    if patterns != kept:  # once the run is not refused
        index.store.set_meta(EXCLUDED, patterns)
    todo = update.settle_moved(update.changed())
    update.settle_gone(prune)

    def count(windows: int) -> None:
        update.report.windows += windows
        progress(update.done, len(update.files), update.report.windows)
        seconds(*update.seconds())

    count(0)
    files = update.new_content(todo)
    options: dict[str, Any] = {"begin": update.begin, "keep": update.keep}
    try:
        for source, result in embed_windows(
            model, processor, files, index.stride, batch_size, num_workers, count, limits, **options
        ):
            update.add(source, result)
            count(0)
    except BaseException:
        unfinished.write()
        raise
    unfinished.clear()
    update.settle_copies()
    count(0)
    index.build()
    earlier = {file.path: file.error for file, _ in index.store.files() if file.error is not None}
    update.report.errors = earlier | update.report.errors
    return update.report


class _Update:
    """Steps and state of [`update_index`], in order."""

    def __init__(
        self,
        index: VattIndex,
        root: Path,
        patterns: Sequence[str],
        retry: bool,
        rehash: bool,
        unfinished: Unfinished,
    ) -> None:
        self.index, self.store, self.root = index, index.store, root
        self.retry, self.rehash, self.unfinished = retry, rehash, unfinished
        ignored = Ignored([*read_patterns(root), *patterns])
        forgotten = set(map(composed, self.store.meta(FORGOTTEN) or []))  # other systems spell names anew

        def is_excluded(path: str, is_folder: bool) -> bool:
            return ignored(path, is_folder) or not forgotten.isdisjoint(with_parents(composed(path)))

        found = find_videos(root, self.store.folder, is_excluded)
        self.files = found.files
        self.report = IndexReport(errors=found.errors, passed_over=found.passed_over)
        rows = self.store.files()
        self.known = {file.path: file for file, _ in rows}
        gone = [path for path in self.known if path not in self.files and not _hidden(path, found.errors)]
        self.gone = {path: self.known.pop(path) for path in gone}
        self.by_hash = {file.hash: path for path, file in self.known.items()}
        self.empty = {file.path for file, windows in rows if windows == 0}
        self.excluded = {path for path in self.gone if is_excluded(path, False)}
        if self.gone.keys() - self.excluded and not self.files and not self.known:
            raise FileNotFoundError(
                f"{root}: holds no video any more, but {len(gone)} files of it are indexed. If its drive is "
                "not mounted, mount it. If they are gone for good, delete the index "
                f"({self.store.folder})."
            )
        self.done = 0  # files that need nothing more
        # Of files that are being embedded: seconds, windows that an earlier run has embedded, and theirs.
        self._begun: dict[str, tuple[float, int, float]] = {}
        self._seconds, self._windows = 0.0, 0  # of files that this run has embedded, as far as it has
        self._length, self._known, self._bytes = 0.0, 0.0, 0  # of files that were begun: seconds, bytes
        self._left = 0  # bytes of files that were not
        self._copies: list[str] = []  # of files that are being embedded
        self._hashes: dict[str, str | None] = {}

    def _hash(self, path: str) -> str | None:
        """Hash of a file; None if it cannot be read, which is noted."""
        if path not in self._hashes:
            try:
                self._hashes[path] = hash_file(self.root / path)
            except OSError as error:
                self._hashes[path] = None
                self.report.errors[path] = _unopened(error)
        return self._hashes[path]

    def _to_retry(self, file: FileRecord) -> bool:
        return self.retry and file.error is not None

    def _was_replaced(self, file: FileRecord) -> bool:
        return self.rehash and self._hash(file.path) != file.hash

    def settle_gone(self, prune: bool) -> None:
        """Remove missing files; without `prune` only those without moments or excluded."""
        kept = [] if prune else [path for path in self.gone if path not in self.empty | self.excluded]
        self.report.missing = sorted(kept)
        if removed := self.gone.keys() - set(kept):
            self.report.removed = self.store.remove(sorted(removed))

    def changed(self) -> list[str]:
        """Files that are new or have changed."""
        todo = []
        for path, stat in self.files.items():
            old = self.known.get(path)
            same = old is not None and (old.size, old.mtime_ns) == (stat.st_size, stat.st_mtime_ns)
            if old is None or not same or self._to_retry(old) or self._was_replaced(old):
                todo.append(path)
            else:
                self.report.unchanged += 1
                self.done += 1
        self._left = sum(self.files[path].st_size for path in todo)
        return todo

    def settle_moved(self, todo: list[str]) -> list[str]:
        """Settle files with the content of a path that is missing or has changed; returns the others."""
        gone: dict[str | None, list[FileRecord]] = {}
        for file in self.gone.values():
            if not self._to_retry(file):
                gone.setdefault(file.hash, []).append(file)
        going = [self.known[path] for path in todo if path in self.known]
        sizes = {file.size for file in (*self.gone.values(), *going)}
        moved: list[tuple[FileRecord, str]] = []
        settled = set()
        # Files at new paths come first, as they may need what is at known paths now.
        for path in sorted(todo, key=lambda path: path in self.known):
            if self.files[path].st_size not in sizes:
                continue
            content = self._hash(path)
            is_touched = path in self.known and self.known[path].hash == content
            if not is_touched and (sources := gone.get(content)):
                moved.append((self.gone.pop(sources.pop(0).path), path))
            elif self._settle(path):
                settled.add(path)
        for old, path in moved:
            self._reuse(old, path)
            settled.add(path)
        return [path for path in todo if path not in settled]

    def begin(self, source: MediaSource, duration: float) -> WindowEmbeddings | None:
        """Note the length of a file, and return its saved first windows."""
        path = self._path(source)
        known = self.unfinished.begin((self._hash(path), duration), str(source), duration)
        earlier = 0 if known is None else len(known.starts) + len(known.errors)
        seconds = min(duration, earlier * self.index.stride)
        self._begun[path] = (duration, earlier, seconds)
        self._length += duration
        self._known += seconds
        self._bytes += self.files[path].st_size
        self._left -= self.files[path].st_size
        return known

    def keep(self, source: MediaSource, windows: WindowEmbeddings) -> None:
        """Save the next windows of a file that has more."""
        path = self._path(source)
        if self._is_as_found(path):
            self.unfinished.keep((self._hash(path), windows.duration), windows)

    def _is_as_found(self, path: str) -> bool:
        """Whether a file seems to have the content of its hash still."""
        try:
            stat = (self.root / path).stat()
        except OSError:
            return False
        found = self.files[path]
        return (stat.st_size, stat.st_mtime_ns) == (found.st_size, found.st_mtime_ns)

    def _path(self, source: MediaSource) -> str:
        return Path(str(source)).relative_to(self.root).as_posix()

    def seconds(self) -> tuple[float, float]:
        """Seconds of video embedded, and the total estimated from bytes."""
        done = self._seconds + max(0, self.report.windows - self._windows) * self.index.stride
        rest = self._left * self._length / self._bytes if self._bytes else 0.0
        total = self._length - self._known + rest
        return min(done, total), total

    def new_content(self, todo: list[str]) -> Iterator[Path]:
        """Files to embed; those of known content are settled here, or later if it is being embedded."""
        embedding: set[str | None] = set()
        for path in todo:
            content = self._hash(path)
            if content in embedding:
                self._copies.append(path)
            elif not self._settle(path):
                embedding.add(content)
                yield self.root / path

    def _settle(self, path: str) -> bool:
        """Settle a file of known content, or one that cannot be read; returns whether it was."""
        content = self._hash(path)
        twin = self.known.get(self.by_hash.get(content or "", ""))
        if content is None:
            self._left -= self.files[path].st_size
            self.done += 1
            return True
        # It may have been replaced meanwhile.
        if twin is None or twin.hash != content or self._to_retry(twin):
            return False
        self._reuse(twin, path)
        return True

    def settle_copies(self) -> None:
        """Settle files of the same content as files that are embedded now."""
        for path in self._copies:
            twin = self.known.get(self.by_hash.get(str(self._hash(path)), ""))
            if twin is not None:
                self._reuse(twin, path)
            else:
                self.report.errors[path] = CHANGED

    def _reuse(self, twin: FileRecord, path: str) -> None:
        stat = self.files[path]
        file = replace(twin, path=path, size=stat.st_size, mtime_ns=stat.st_mtime_ns)
        if twin.path != path and twin.path in self.known:
            self.store.copy(twin.path, file)
        else:  # touched or moved
            self.store.update(twin.path, file)
        self.known[path], self.by_hash[file.hash] = file, path
        self._left -= self.files[path].st_size
        self.report.reused += 1
        self.done += 1

    def add(self, source: MediaSource, result: WindowEmbeddings) -> None:
        """Add an embedded file, or what could be read of it, to the index."""
        path = self._path(source)
        stat, content = self.files[path], self._hash(path)
        assert content is not None  # it was read before it was embedded
        if path in self._begun:
            duration, earlier, seconds = self._begun.pop(path)
            self.unfinished.finish((content, duration))
            self._seconds += duration - seconds
            self._windows += len(result.starts) + len(result.errors) - earlier
        else:  # it cannot be read
            self._left -= stat.st_size
        self.done += 1
        if not self._is_as_found(path):
            self.report.errors[path] = CHANGED
            return
        message = None
        if result.errors:
            first = f"{result.errors[0].reason}. {result.errors[0].remedy}"
            total = len(result.errors) + len(result.starts)
            message = f"{len(result.errors)} of {total} windows: {first}" if result.starts else first
        file = FileRecord(path, stat.st_size, stat.st_mtime_ns, content, result.duration, message)
        va, vt = (
            result.arrays.get(f"video_{space}_embeds", np.zeros((0, self.index.dims[space])))
            for space in SPACES
        )
        self.index.add(file, result.starts, result.ends, va, vt)
        self.known[path] = file
        self.by_hash[content] = path
        self.report.embedded += 1


def _hidden(path: str, errors: dict[str, str]) -> bool:
    """Whether a file may still exist, as it or a folder above it could not be read."""
    return any(place in errors for place in with_parents(path))
