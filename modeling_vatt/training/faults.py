# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""What ends a run early: signals of a scheduler, and faults of machine, disk and processes.

[`explained`] turns the errors of libraries for such faults into a [`TrainingError`] that says what happened
and what to do.
"""

import errno
import os
import re
import shutil
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError


# EX_TEMPFAIL of sysexits.h tells a scheduler to start the run again.
EXIT_STOPPED = 75

_STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)
)
_CHILD_SIGNAL = getattr(signal, "SIGCHLD", None)
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
_DISK_WORDS = re.compile(
    "No space left|File too large|Disk quota|Input/output error|Read-only file|StreamWriter|write failed"
    "|unexpected pos|iostream error",
    re.IGNORECASE,
)
_MEMORY_WORDS = re.compile(r"can't allocate memory|Cannot allocate memory|out of memory", re.IGNORECASE)
_SHARED_MEMORY_WORDS = re.compile(r"allocate shared memory|out of shared memory|</torch_")
_WORKER_WORDS = re.compile(r"DataLoader worker \(pid|Pin memory thread exited")
_MORE_FILES = "Raise the limit (`ulimit -n`), or use fewer workers."
_PEER_WORDS = re.compile(
    r"Connection (closed|reset)|Broken pipe|Timed out waiting|Socket Timeout|NCCL|ProcessGroup|gloo",
    re.IGNORECASE,
)


class TrainingError(RuntimeError):
    """A run had to end; the message says why, and how to continue. `exit_code` is for scripts."""

    exit_code = 1


class NonFiniteLossError(TrainingError):
    """Loss or gradient is NaN or infinite; the weights are those before the step."""


class RunStopped(TrainingError):
    """A signal asked the run to end, and a checkpoint was written; the same command continues it."""

    exit_code = EXIT_STOPPED


class StopSignals:
    """Within `with`, SIGTERM, SIGINT and SIGUSR1 are noted instead of ending the process.

    A second SIGINT (Ctrl-C) raises KeyboardInterrupt at once. Outside of the main thread, to which Python
    hands signals, nothing changes.

    Attributes:
        received: name of the first signal, None if there was none.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._interrupts = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _STOP_SIGNALS}
            if _CHILD_SIGNAL is not None:
                self._before[_CHILD_SIGNAL] = signal.getsignal(_CHILD_SIGNAL)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if number == signal.SIGINT and self._interrupts > 1:
            raise KeyboardInterrupt
        self.received = self.received or signal.Signals(number).name

    def keep_loader_quiet(self) -> None:
        """Call it after a DataLoader has started its workers. Torch would raise the death of a worker
        anywhere, also within an update; now the loader notices it when it waits for a batch."""
        if _CHILD_SIGNAL in self._before:
            signal.signal(_CHILD_SIGNAL, signal.SIG_DFL)


def quiet_worker(_: int) -> None:
    """`worker_init_fn` of a DataLoader: ignore Ctrl-C and a scheduler's signal, which the main process
    handles."""
    for number in _STOP_SIGNALS:
        if number != signal.SIGTERM:  # by which the loader ends its workers
            signal.signal(number, signal.SIG_IGN)


def is_worker_death(error: BaseException) -> bool:
    """Whether an error means that a worker process of a DataLoader was killed."""
    if isinstance(error, EOFError | ConnectionError | FileNotFoundError):  # while it sent a tensor
        frames = traceback.extract_tb(error.__traceback__)
        return any(Path(frame.filename).match("torch/multiprocessing/reductions.py") for frame in frames)
    return isinstance(error, RuntimeError) and bool(_WORKER_WORDS.search(str(error)))


@contextmanager
def explained(
    where: str | os.PathLike, memory_advice: str, rest: Callable[[], str] | None = None
) -> Iterator[None]:
    """Raise faults of disk, memory, loader and other processes as [`TrainingError`]; others unchanged.

    Args:
        where: folder that is written to.
        memory_advice: what to do when memory runs out.
        rest: gives the end of the message.
    """
    try:
        yield
    except TrainingError:
        raise
    except Exception as error:
        found = explain(error, where, memory_advice)
        if found is None:
            raise
        raise TrainingError(found if rest is None else f"{found} {rest()}") from error


def explain(error: Exception, where: str | os.PathLike, memory_advice: str) -> str | None:
    """Message for an exception; None if it is not one of these faults. See [`explained`]."""
    text = " ".join(str(error).split())
    no_memory = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if no_memory or isinstance(error, torch.OutOfMemoryError | MemoryError):
        return f"Out of memory ({_short(text)}). {memory_advice}"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return f"Too many files are open ({_short(text)}). {_MORE_FILES}"
    full = isinstance(error, OSError) and error.errno in _DISK_ERRORS
    if full or (isinstance(error, SafetensorError) and _DISK_WORDS.search(text)):
        return _disk(text, where)
    if isinstance(error, UnpicklingError):
        return (
            "A file of the checkpoint is damaged, or holds more than numbers "
            f"({_short(str(error).split('. ')[0])})."
            " Delete that checkpoint: the run continues from the one before."
        )
    shared = _SHARED_MEMORY_WORDS.search(text) if isinstance(error, RuntimeError) else None
    if shared is not None:  # its text also mentions full disks and memory
        if os.strerror(errno.EMFILE) in text:
            return f"Too many files are open ({_short(text[shared.start() :])}). {_MORE_FILES}"
        return (
            "Processes that load clips have no room for them in shared memory, /dev/shm "
            f"({_short(text[shared.start() :])}). Enlarge it (in a container by --shm-size), use fewer "
            "workers, or let each load fewer batches ahead."
        )
    if is_worker_death(error):
        return (
            f"A worker process that loads clips died ({_short(text)}). If memory ran out (see `dmesg`), use "
            "fewer workers, or let each load fewer batches ahead; if a file crashed its decoder, take it out."
        )
    if not isinstance(error, RuntimeError):
        return None
    if _MEMORY_WORDS.search(text):
        return f"Out of memory ({_short(text)}). {memory_advice}"
    if isinstance(error, dist.DistBackendError) or (dist.is_initialized() and _PEER_WORDS.search(text)):
        return (
            f"Another process ended, or did not answer in time ({_short(text)}). What it said itself tells "
            "why; if it was only slow, give it longer with --ddp_timeout."
        )
    if _DISK_WORDS.search(text):
        return _disk(text, where)
    return None


def _disk(text: str, where: str | os.PathLike) -> str:
    folder = next(path for path in (Path(where).absolute(), *Path(where).absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free / 2**20
    return (
        f"Cannot write to {where} ({_short(text)}; {free:.0f} MB are free there). Make room, raise the "
        "quota, or choose another --output_dir."
    )


def _short(text: str) -> str:
    text = text.strip(" .") or "no more is known"
    return text if len(text) <= 200 else f"{text[:200]} ..."
