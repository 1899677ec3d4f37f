# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Decoding in another process, for untrusted files: a crash, a hang or lack of memory costs one file, not the
run.

The process is started once and serves many files. It is not forked: it loads only the decoder (no torch, no
transformers), gets no environment variables that could hold secrets, writes no files, and its memory is
limited. Both sides send a JSON header and raw bytes. As a hostile file may control the process, its answers
are checked and never unpickled. It is a `subprocess`, as workers of a data loader may have no children of
`multiprocessing`.
"""

import atexit
import contextlib
import dataclasses
import json
import math
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .container import MediaInfo
from .decoding import MediaClip, decode_clips, decode_duration, decode_info
from .picture import decode_picture
from .source import MediaError, MediaLimits, MediaSource, NamedBytes, is_url, open_source, source_name


# The folder stands for a package, so that neither modeling_vatt/__init__.py nor an installation is needed.
# Loading takes a while: signals are ignored from the beginning.
_BOOTSTRAP = """
import importlib, json, signal, sys, types
folder, stem, paths, *signals = sys.argv[1:]
for name in signals:
    signal.signal(getattr(signal, name), signal.SIG_IGN)
sys.path[:] = json.loads(paths)
package = types.ModuleType("isolated_media")
package.__path__ = [folder]
sys.modules["isolated_media"] = package
importlib.import_module("isolated_media." + stem).serve_decoding()
"""
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "LC_ALL", "LC_CTYPE")
# Signals that a terminal or scheduler sends to all processes of a run: the caller handles them.
_IGNORED = tuple(name for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_CALLS = 500  # of one process, as decoders may leak memory
_GRACE = 2.0  # seconds in which the process may report itself that its time is over
_MAX_HEADER = 1 << 24
_LENGTH = struct.Struct(">I")


def _send(pipe: Any, header: dict[str, Any], *parts: Any) -> None:
    text = json.dumps(header).encode()
    for part in (_LENGTH.pack(len(text)), text, *parts):
        pipe.write(part)
    pipe.flush()


def _receive(pipe: Any) -> dict[str, Any]:
    """A header; EOFError if the other side has ended, or sends something else."""
    (length,) = _LENGTH.unpack(_fill(pipe, bytearray(_LENGTH.size)))
    if length > _MAX_HEADER:
        raise EOFError("no header")
    try:
        header = json.loads(bytes(_fill(pipe, bytearray(length))))
    except (ValueError, RecursionError) as error:
        raise EOFError("no header") from error
    if not isinstance(header, dict):
        raise EOFError("no header")
    return header


def _fill(pipe: Any, buffer: Any) -> Any:
    """The buffer, filled with what comes."""
    view = memoryview(buffer).cast("B")
    while len(view):
        count = pipe.readinto(view)
        if not count:
            raise EOFError("the other side is gone")
        view = view[count:]
    return buffer


# The side that asks


class _Decoder:
    """A process that decodes, one file at a time."""

    def __init__(self, max_memory: int) -> None:
        self.max_memory, self.calls, self._too_late = max_memory, 0, False
        file = Path(__file__)
        paths = json.dumps([os.path.abspath(path) for path in sys.path])
        arguments = (str(file.parent), file.stem, paths, *_IGNORED)
        command = [sys.executable, "-I", "-S", "-c", _BOOTSTRAP, *arguments]
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environment, **_ONE_THREAD},
            start_new_session=True,  # without signals to the caller's group
        )
        try:
            self.send({"max_memory": max_memory})
            self.receive()
        except EOFError as error:
            self.close()
            raise RuntimeError(
                f"The process for decoding does not start (exit code {self.process.returncode}); its own "
                "message is above. Files that you trust can be decoded with MediaLimits(isolated=False)."
            ) from error

    def send(self, header: dict[str, Any], *parts: Any) -> None:
        try:
            _send(self.process.stdin, header, *parts)
        except OSError as error:
            raise EOFError("the other side is gone") from error

    def receive(self) -> dict[str, Any]:
        return _receive(self.process.stdout)

    def array(self, shape: Sequence[int], dtype: type) -> np.ndarray:
        """An array that comes next."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if not all(isinstance(side, int) and side >= 0 for side in shape) or size > self.max_memory:
            raise EOFError(f"no shape of an array: {shape}")
        # No view of an empty array can be cast to bytes.
        return _fill(self.process.stdout, np.empty(shape, dtype)) if size else np.empty(shape, dtype)

    @contextlib.contextmanager
    def watched(self, name: str, limits: MediaLimits) -> Any:
        """End the process if the block takes too long; MediaError if it ended meanwhile or sent nonsense."""
        watch = threading.Timer(limits.wall_seconds + _GRACE, self._stop)
        watch.daemon = True
        watch.start()
        self.calls += 1
        try:
            yield
        except EOFError as error:
            self.close()
            if self._too_late:
                reason = f"not decoded within {limits.wall_seconds:g} s"
                remedy = "Leave it out, or raise MediaLimits.wall_seconds."
            else:
                code = -(self.process.returncode or 0)
                how = signal.Signals(code).name if code in set(signal.Signals) else f"exit code {-code}"
                reason = f"the decoder crashed ({how})"
                remedy = "Leave it out, or raise MediaLimits.max_memory if it should be good."
            raise MediaError(name, reason, remedy) from error
        finally:
            watch.cancel()
            watch.join()  # it may just be stopping the process

    @property
    def usable(self) -> bool:
        """Whether it runs and was not told to end."""
        return not self._too_late and self.process.poll() is None

    def _stop(self) -> None:
        self._too_late = True
        self.process.kill()

    def close(self, kill: bool = False) -> None:
        """End the process, unless it has ended."""
        # If it is about to end, its own exit code says more than that of a kill.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.0 if kill else 5.0)
        self.process.kill()
        self.process.wait()
        self.forget()

    def forget(self) -> None:
        """Close this side only."""
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        if self.process.returncode is None:
            self.process.returncode = 0  # the parent's process: nothing to wait for


class _DecoderPool:
    """Idle decoding processes; each serves one thread at a time."""

    def __init__(self) -> None:
        self._idle: list[_Decoder] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def decoder(self, max_memory: int) -> Any:
        found = self._take(max_memory) or _Decoder(max_memory)
        try:
            yield found
        except BaseException:  # a crash, or an interrupt within an answer: its state is unknown
            found.close(kill=True)
            raise
        if found.usable and found.calls < _CALLS:
            with self._lock:
                self._idle.append(found)
        else:
            found.close(kill=True)

    def _take(self, max_memory: int) -> _Decoder | None:
        """An idle process; those that ended meanwhile are dropped."""
        with self._lock:
            for decoder in [decoder for decoder in self._idle if decoder.max_memory == max_memory][::-1]:
                self._idle.remove(decoder)
                if decoder.usable:
                    return decoder
                decoder.close()
        return None

    def close(self) -> None:
        for decoder in self._idle:
            decoder.close(kill=True)
        self._idle = []

    def after_fork(self) -> None:
        """In the child: forget the processes, which are the parent's."""
        for decoder in self._idle:
            decoder.forget()
        self.__init__()  # type: ignore[misc]


_decoders = _DecoderPool()
atexit.register(_decoders.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_decoders.after_fork)


def call_isolated(function: str, source: MediaSource, limits: MediaLimits, **options: Any) -> Any:
    """Result (or error) of a function of `reading.py`, computed in another process. Paths are opened there,
    other sources are read here, and a function as `starts` is called here. MediaError also for a crash or too
    much time; RuntimeError if the process cannot be started."""
    name = source_name(source)
    starts = options.pop("starts", None)
    if starts is not None and not callable(starts):
        options["starts"] = [float(start) for start in starts]
    header: dict[str, Any] = {"function": function, "name": name, "options": options}
    header |= {"asks": callable(starts), "limits": dataclasses.asdict(limits)}
    content = b""
    if isinstance(source, str | os.PathLike) and not is_url(source):
        header |= {"path": os.fspath(source), "folder": os.getcwd()}
    else:
        file, owned = open_source(source, limits)
        file.seek(0)
        with contextlib.closing(file) if owned else contextlib.nullcontext():
            content = file.read()
    header["size"] = len(content)
    with _decoders.decoder(limits.max_memory) as decoder, decoder.watched(name, limits):
        decoder.send(header, content)
        answer = decoder.receive()
        if callable(starts) and "length" in answer:
            with _doubted(decoder):
                length = _number(answer["length"])
            decoder.send({"starts": [float(start) for start in starts(length)]})
            answer = decoder.receive()
        with _doubted(decoder):
            failed = _error(answer) if "error" in answer else None
            result = None if failed else _result(function, answer, decoder)
    if failed is not None:
        raise failed
    return result


@contextlib.contextmanager
def _doubted(decoder: _Decoder) -> Any:
    """Treat an invalid answer as a crash."""
    try:
        yield
    except (KeyError, TypeError, ValueError, OverflowError, MemoryError) as error:
        decoder.process.kill()
        raise EOFError("no answer") from error


def _number(value: Any) -> float:
    """Seconds."""
    if not 0 <= value < math.inf:
        raise ValueError
    return float(value)


def _error(answer: dict[str, Any]) -> Exception:
    kind = {"MediaError": MediaError, "ValueError": ValueError}[answer["error"]]
    arguments = answer["arguments"]
    if not isinstance(arguments, list) or not all(isinstance(part, str) for part in arguments):
        raise TypeError
    if not 1 <= len(arguments) <= 3:
        raise ValueError
    return kind(*arguments)


def _result(function: str, answer: dict[str, Any], decoder: _Decoder) -> Any:
    if function == "read_clips":
        return [_clip(described, decoder) for described in answer["clips"]]
    if function == "probe":
        return MediaInfo(**answer["info"])
    if function == "read_picture":
        return decoder.array((*answer["picture"], 3), np.uint8)
    return _number(answer["seconds"])


def _clip(described: dict[str, Any], decoder: _Decoder) -> MediaClip:
    sides, samples = described["frames"], described["samples"]
    frames = None if sides is None else decoder.array((*sides, 3), np.uint8)
    waveform = None if samples is None else decoder.array((samples,), np.float32)
    timestamps = decoder.array((described["timestamps"],), np.float64)
    start, duration = float(described["start"]), float(described["duration"])
    return MediaClip(frames, waveform, start, duration, timestamps, MediaInfo(**described["info"]))


# The side that decodes


def serve_decoding() -> None:
    """Decode for the process at the other end of stdin and stdout until it is gone."""
    # The pipes get other numbers, so that output of libraries does not mix with answers.
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    with contextlib.suppress(EOFError, OSError):
        _limit_process(_receive(requests)["max_memory"])
        _send(answers, {"ready": True})
        os.dup2(nothing, 2)
        while True:
            request = _receive(requests)
            source: Any = request.get("path")
            if source is None:
                source = NamedBytes(_fill(requests, bytearray(request["size"])), request["name"])
            _end_after(request["limits"]["wall_seconds"] + 2 * _GRACE)
            _send(answers, *_answer(request, source, requests, answers))
            _end_after(0)


def _limit_process(max_memory: int) -> None:
    """Limits of the system, where it has them."""
    try:
        import resource
    except ImportError:  # Windows
        return
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        size = pages * resource.getpagesize() + max_memory
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (0, 0))


def _end_after(seconds: float) -> None:
    """Let the system end this process after so many seconds; 0 cancels it."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _answer(request: dict[str, Any], source: Any, requests: Any, answers: Any) -> list[Any]:
    """Header and arrays of an answer."""
    name, options = request["name"], request["options"]
    limits = MediaLimits(**request["limits"])

    def ask(length: float) -> list[float]:
        _send(answers, {"length": length})
        return _receive(requests)["starts"]

    try:
        if "folder" in request:
            os.chdir(request["folder"])
        if request["function"] == "probe":
            return [{"info": dataclasses.asdict(decode_info(source, limits))}]
        if request["function"] == "read_duration":
            return [{"seconds": decode_duration(source, limits)}]
        if request["function"] == "read_picture":
            picture = np.ascontiguousarray(decode_picture(source, limits))
            return [{"picture": picture.shape[:2]}, picture]
        if request["asks"]:
            options["starts"] = ask
        described, arrays = [], []
        for clip in decode_clips(source, limits=limits, **options):
            frames, waveform = clip.frames, clip.waveform
            described.append(
                {
                    "frames": None if frames is None else frames.shape[:3],
                    "samples": None if waveform is None else len(waveform),
                    "timestamps": len(clip.timestamps),
                    "start": clip.start,
                    "duration": clip.duration,
                    "info": dataclasses.asdict(clip.info),
                }
            )
            parts = [
                part for part in (frames, waveform, clip.timestamps.astype(np.float64)) if part is not None
            ]
            arrays += [np.ascontiguousarray(part) for part in parts]
        return [{"clips": described}, *arrays]
    except (MediaError, MemoryError) as error:
        arguments = error.args
        if isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError):
            reason = f"decoding takes more than {limits.max_memory} bytes of memory"
            arguments = (name, reason, "Leave it out, or raise MediaLimits.max_memory.")
        return [{"error": "MediaError", "arguments": arguments}]
    except ValueError as error:  # an argument out of range
        return [{"error": "ValueError", "arguments": [str(error)]}]
