# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""One process at a time writes to an index."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from .index import VattIndex


LOCK = "index.lock"


class IndexBusy(RuntimeError):
    """Another process writes to the index."""


@contextmanager
def writer_lock(index: VattIndex, wait: bool, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock for writing, which the system releases when the process ends. If another process holds
    it, `wait` (and call `waiting` once before), or raise [`IndexBusy`]."""
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
