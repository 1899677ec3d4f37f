# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Bringing an index up to date with its folder: what is new is embedded, what is gone is said.

Each file is committed with all its windows as soon as it is embedded, and the first windows of a long one are
kept meanwhile, so a run that was stopped goes on where it stopped. One process at a time writes to an index.
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
from ..files import hash_file
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
    """What [`update_index`] did.

    Args:
        embedded: files that were read and embedded, new or changed.
        reused: files whose content was known, under another name or with another time.
        unchanged: files that were not opened.
        removed: files that are gone and were taken out.
        windows: windows that were embedded.
        missing: files that are gone, whose moments are kept.
        passed_over: what was not looked at, see [`FoundVideos`].
        errors: path -> why it, or a part of it, could not be read; of this run and of earlier ones.
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
    """What [`find_videos`] finds.

    Args:
        files: relative POSIX path -> properties, sorted.
        errors: why others, or what is in folders, cannot be used.
        passed_over: how many others are no video by their ending (`".txt"`, `""` for none), `"hidden"`,
            `"links"` that lead out of the folder or to folders, or `"excluded"` files and folders.
    """

    files: dict[str, os.stat_result] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    passed_over: dict[str, int] = field(default_factory=Counter)


def find_videos(
    root: str | os.PathLike,
    index: str | os.PathLike | None = None,
    is_excluded: Callable[[str, bool], bool] = lambda path, is_folder: False,
) -> FoundVideos:
    """Video files below a folder.

    Hidden files and folders, and links that lead out of the folder, are passed over.

    Args:
        root: the folder.
        index: folder of the index, which may lie in there; it is not counted.
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
    """What [`find_videos`] does with each folder and file, and what it has found so far."""

    def __init__(self, root: Path, index: Path | None, is_excluded: Callable[[str, bool], bool]) -> None:
        self.root, self.index, self.is_excluded = root, index, is_excluded
        self.real_root = root.resolve()
        self.found = FoundVideos()

    def pass_unreadable(self, error: OSError) -> None:
        """Note a folder that cannot be read; without the root there is nothing to find."""
        folder = Path(error.filename)
        if folder == self.root:
            raise error
        self.found.errors[_printable(self._relative(folder))] = _unopened(error)

    def enters(self, folder: Path) -> bool:
        """Whether a subfolder is to be looked through."""
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
        """Note a file as a video, as passed over, or with what is wrong with it."""
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
                else:  # a pipe would be waited for without end
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
    """A name in which `?` stands for bytes that are no UTF-8."""
    return name.encode(errors="replace").decode()


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

    A file of known path, size and time is not opened. One of known content, touched, renamed or copied, is
    not embedded. Files that cannot be read are kept with the reason, and tried again when they change. One
    that changes while it is read is left for the next time. Files that are gone stay, as they may be on a
    drive that is away; so does what lies where nothing can be seen, because a folder cannot be opened. What
    is excluded is removed.

    Args:
        index: with a root.
        model: in evaluation mode, the one the index was made with.
        processor: of the model.
        batch_size, num_workers: see [`embed_windows`].
        progress: called with files done, all files, and windows embedded so far.
        limits: what a file may cost, and whether it is decoded in a process of its own.
        retry: try files again that could not be read, or not wholly: with other limits, for instance.
        prune: remove files that are gone.
        rehash: compare the content of all files: one may have been replaced by another of its size and time.
        exclude: patterns of files and folders to leave out, see [`Ignored`], from now on, beside those of
            `.vattignore` in the root; None keeps those given before.
        seconds: called with the seconds of video embedded so far, and about how many there are to embed in
            all, 0 as long as no file is begun. What an earlier run has embedded is in neither.

    Raises:
        FileNotFoundError: the root is gone, or holds no video any more.
        ValueError: the index has no root.
    """
    if index.root is None:
        raise ValueError("The index knows no folder of videos: it came without media.")
    if exclude is not None and list(exclude) != index.store.meta(EXCLUDED):
        Ignored(exclude)
        index.store.set_meta(EXCLUDED, list(exclude))
    state = [__version__, index.identity.weights, index.window, index.stride, repr(limits)]
    unfinished = Unfinished(index.store.folder / UNFINISHED, state)
    update = _Update(index, index.root, retry, rehash, unfinished)
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
    """The steps of [`update_index`], in order, and what is known in between."""

    def __init__(
        self, index: VattIndex, root: Path, retry: bool, rehash: bool, unfinished: Unfinished
    ) -> None:
        self.index, self.store, self.root = index, index.store, root
        self.retry, self.rehash, self.unfinished = retry, rehash, unfinished
        ignored = Ignored([*read_patterns(root), *(self.store.meta(EXCLUDED) or [])])
        forgotten = set(self.store.meta(FORGOTTEN) or [])

        def is_excluded(path: str, is_folder: bool) -> bool:
            return ignored(path, is_folder) or not forgotten.isdisjoint(with_parents(path))

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
        """Remove files that are gone, or those of them that hold no moments or are excluded."""
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
        """Settle files whose content lay at a path that is gone or has changed, before it is lost; returns
        the others."""
        gone: dict[str | None, list[FileRecord]] = {}
        for file in self.gone.values():
            if not self._to_retry(file):
                gone.setdefault(file.hash, []).append(file)
        going = [self.known[path] for path in todo if path in self.known]
        sizes = {file.size for file in (*self.gone.values(), *going)}
        moved: list[tuple[FileRecord, str]] = []
        settled = set()
        # Files that take no other's place come first, as others may need what is there now.
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
        """Note the length of a file, and give what is known of its first windows."""
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
        """Keep the next windows of a file that goes on after them."""
        path = self._path(source)
        if self._is_as_found(path):
            self.unfinished.keep((self._hash(path), windows.duration), windows)

    def _is_as_found(self, path: str) -> bool:
        """Whether a file still has the content of its hash, as far as one can tell."""
        try:
            stat = (self.root / path).stat()
        except OSError:
            return False
        found = self.files[path]
        return (stat.st_size, stat.st_mtime_ns) == (found.st_size, found.st_mtime_ns)

    def _path(self, source: MediaSource) -> str:
        return Path(str(source)).relative_to(self.root).as_posix()

    def seconds(self) -> tuple[float, float]:
        """Seconds of video embedded, and about how many are to be, as the bytes have had so far."""
        done = self._seconds + max(0, self.report.windows - self._windows) * self.index.stride
        rest = self._left * self._length / self._bytes if self._bytes else 0.0
        total = self._length - self._known + rest
        return min(done, total), total

    def new_content(self, todo: list[str]) -> Iterator[Path]:
        """Files to embed; those of known content are settled here, or later if that is being embedded."""
        embedding: set[str | None] = set()
        for path in todo:
            content = self._hash(path)
            if content in embedding:
                self._copies.append(path)
            elif not self._settle(path):
                embedding.add(content)
                yield self.root / path

    def _settle(self, path: str) -> bool:
        """Whether nothing is to be embedded: a file of known content, or one that cannot be read."""
        content = self._hash(path)
        twin = self.known.get(self.by_hash.get(content or "", ""))
        if content is None:
            self._left -= self.files[path].st_size
            self.done += 1
            return True
        # Of another hash by now if it was replaced in the meantime.
        if twin is None or twin.hash != content or self._to_retry(twin):
            return False
        self._reuse(twin, path)
        return True

    def settle_copies(self) -> None:
        """Settle files of the content of others, which are embedded by now."""
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
        """Put a file that was embedded, as far as it could be, into the index."""
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
    """Whether a file, or a folder it lies in, could not be read: it may still be there."""
    return any(place in errors for place in with_parents(path))
