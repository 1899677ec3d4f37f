# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""From a path, URL, bytes or file object to a seekable binary file, within limits."""

import contextlib
import dataclasses
import io
import json
import os
import re
import select
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Self, TypeAlias


MediaSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_CHUNK = 1 << 20
_MAX_REDIRECTS = 5
_MAX_NAME = 400  # characters of a name or setting in a message


class NamedBytes(io.BytesIO):
    """Bytes that errors can name."""

    def __init__(self, content: bytes | bytearray, name: str = "") -> None:
        super().__init__(content)
        self.name = name


class MediaError(ValueError):
    """A source that cannot be used.

    Attributes:
        source: printable name of the source (a URL without its credentials and query).
        reason: what is wrong with it.
        remedy: what to do about it.
    """

    # The defaults let data loaders rebuild the error from its message in another process.
    def __init__(self, source: str, reason: str = "", remedy: str = "") -> None:
        super().__init__(source, reason, remedy)
        self.source, self.reason, self.remedy = source, reason, remedy

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}. {self.remedy}" if self.reason else self.source


@dataclass(frozen=True)
class MediaLimits:
    """What a source may cost.

    Args:
        max_bytes: largest source accepted, and largest arrays of frames and of sound decoded by one call.
        max_pixels: largest frame accepted; larger ones are refused before they are decoded.
        max_seconds: longest window decoded by one call.
        wall_seconds: seconds a call may take for a source that is there. Checked whenever the decoder reads
            or gives a frame; a decoder that hangs inside itself is ended only if `isolated`.
        timeout: seconds a remote source, or a pipe opened by name, may take to arrive.
        allowed_hosts: hosts that may be fetched from over http(s), redirections included; "*" stands for any
            host. Empty: no remote sources.
        isolated: decode in another process, so that a crash or hang of the decoder costs one file only. For
            untrusted files; takes longer.
        max_memory: bytes of memory of that process (Linux).
    """

    max_bytes: int = 2 * 1024**3
    max_pixels: int = 7680 * 4320
    max_seconds: float = 600.0
    wall_seconds: float = 300.0
    timeout: float = 30.0
    allowed_hosts: tuple[str, ...] = ()
    isolated: bool = False
    max_memory: int = 4 * 1024**3

    @classmethod
    def from_json(cls, text: str, **changes: Any) -> Self:
        """Limits from the command line: the defaults but for what a JSON object says.

        Args:
            text: e.g. `{"max_pixels": 2073600, "wall_seconds": 20}`.
            changes: fields that differ as well.

        Raises:
            ValueError: no JSON object, an unknown field, or a value of another type.
        """
        kinds = {field.name: type(field.default) for field in dataclasses.fields(cls)}
        try:
            given = json.loads(text)
        except ValueError as error:
            raise ValueError(
                f"Limits of media must be a JSON object, got {_shortened(text)!r} ({error})."
            ) from error
        if not isinstance(given, dict) or not set(given) <= set(kinds):
            raise ValueError(
                f"Limits of media are a JSON object with {', '.join(kinds)}; got {_shortened(text)}."
            )
        for name, value in given.items():
            kind = kinds[name]
            fits = isinstance(value, list) if kind is tuple else isinstance(value, kind)
            if kind is float and isinstance(value, int):
                fits = True
            if not fits or (isinstance(value, bool) and kind is not bool):
                raise ValueError(
                    f"The limit {name} must be of type {kind.__name__}, got {_shortened(repr(value))}."
                )
            given[name] = tuple(map(str, value)) if kind is tuple else kind(value)
        return cls(**{**given, **changes})


DEFAULT_LIMITS = MediaLimits()


def is_url(source: Any) -> bool:
    """Whether this is the address of a remote source."""
    return isinstance(source, str) and _URL.match(source) is not None


def source_name(source: MediaSource) -> str:
    """A printable name without secrets, of some lines at most."""
    if isinstance(source, bytes | bytearray | memoryview):
        return f"<{memoryview(source).nbytes} bytes>"
    if isinstance(source, str) and is_url(source):
        return _shortened(re.sub(r"(?<=://)[^/@]*@", "", re.split(r"[?#]", source)[0]))
    if isinstance(source, str | os.PathLike):
        return _shortened(str(os.fspath(source)))
    name = getattr(source, "name", None)
    return _shortened(str(f"<{type(source).__name__}>" if name is None else name))


def _shortened(text: str) -> str:
    if len(text) <= _MAX_NAME:
        return text
    half = _MAX_NAME // 2
    return f"{text[:half]}... ({len(text)} characters) ...{text[-half:]}"


def open_source(source: MediaSource, limits: MediaLimits) -> tuple[BinaryIO, bool]:
    """A seekable binary file, and whether it was opened here (then the caller closes it). MediaError if it is
    missing, empty, too large, not allowed or does not answer; TypeError for other types."""
    name = source_name(source)
    too_large = MediaError(name, f"more than {limits.max_bytes} bytes", "Raise MediaLimits.max_bytes.")
    file: Any
    if isinstance(source, bytes | bytearray | memoryview):
        file = io.BytesIO(source)
    elif isinstance(source, str) and is_url(source):
        file = _fetch(source, name, limits, too_large)
    elif isinstance(source, str | os.PathLike):
        file = _open_path(source, name, limits, too_large)
    elif isinstance(source, io.TextIOBase) or not hasattr(source, "read"):
        raise TypeError(f"A source is a path, a URL, bytes or a binary file, not {type(source).__name__}.")
    else:
        file = source
    owned = file is not source
    try:
        if not getattr(file, "seekable", bool)():
            file, owned = _collect(iter(partial(file.read, _CHUNK), b""), limits, too_large), True
        size = file.seek(0, os.SEEK_END)
        if not 0 < size <= limits.max_bytes:
            raise too_large if size else MediaError(name, "empty", "Check how the file was made or copied.")
    except BaseException:
        if owned:
            file.close()
        raise
    return file, owned


def _open_path(path: Any, name: str, limits: MediaLimits, too_large: MediaError) -> BinaryIO:
    """A file by its name; a named pipe is read into memory, within the time limit."""

    def opener(path: str, flags: int) -> int:
        return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))

    try:
        file = open(path, "rb", opener=opener)  # noqa: SIM115 - handed over to the caller
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise MediaError(name, f"cannot be opened ({reason})", "Check the path.") from error
    kind = os.fstat(file.fileno()).st_mode
    if stat.S_ISREG(kind):
        return file
    with file:
        if not stat.S_ISFIFO(kind):
            raise MediaError(name, "no file but a device or socket", "Pass a file.")
        return _collect(_piped(file.fileno(), name, limits), limits, too_large)


def _piped(descriptor: int, name: str, limits: MediaLimits) -> Iterator[bytes]:
    """What comes through a pipe."""
    deadline = time.monotonic() + limits.timeout
    while True:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not ready or time.monotonic() > deadline:
            reason = f"a pipe that did not end within {limits.timeout:g} s"
            raise MediaError(name, reason, "Check who writes into it, or raise MediaLimits.timeout.")
        part = os.read(descriptor, _CHUNK)
        if not part:
            return
        yield part


def _collect(parts: Any, limits: MediaLimits, too_large: MediaError) -> io.BytesIO:
    """The parts in memory; stops as soon as there are too many."""
    file = io.BytesIO()
    for part in parts:
        _append(file, part, limits, too_large)
    return file


def _append(file: io.BytesIO, part: bytes, limits: MediaLimits, too_large: MediaError) -> None:
    if file.tell() + len(part) > limits.max_bytes:
        raise too_large
    file.write(part)


def _fetch(url: str, name: str, limits: MediaLimits, too_large: MediaError) -> io.BytesIO:
    """The body of an http(s) URL. Asynchronous, so that the time limit holds for the whole; an HTTP client's
    own timeout is for each wait, and a server may send one byte at a time."""
    try:  # the client of huggingface_hub 2, else that of huggingface_hub 1; both come with anyio
        import httpx2 as httpx
    except ImportError:
        import httpx  # type: ignore[no-redef]
    import anyio
    from anyio.from_thread import start_blocking_portal

    def failed(reason: str, remedy: str = "Check the address and the network.") -> MediaError:
        return MediaError(name, reason, remedy)

    async def body() -> io.BytesIO:
        headers = {"accept-encoding": "identity"}
        with anyio.fail_after(limits.timeout):
            async with httpx.AsyncClient(timeout=None, headers=headers) as client:
                request: Any = client.build_request("GET", url)
                for _ in range(_MAX_REDIRECTS + 1):
                    if request.url.scheme not in ("http", "https"):
                        reason = f"scheme {request.url.scheme!r} is not supported"
                        raise failed(reason, "Use http, https or a path.")
                    if not {"*", request.url.host} & set(limits.allowed_hosts):
                        reason = f"host {request.url.host!r} is not allowed"
                        raise failed(reason, "Name it in MediaLimits.allowed_hosts.")
                    async with contextlib.aclosing(await client.send(request, stream=True)) as response:
                        if response.status_code == 200:
                            file = io.BytesIO()
                            async for part in response.aiter_raw():
                                _append(file, part, limits, too_large)
                            return file
                        request = response.next_request
                        if request is None:
                            raise failed(f"the server answers {response.status_code}")
                raise failed(f"more than {_MAX_REDIRECTS} redirections")

    try:
        with start_blocking_portal() as portal:
            return portal.call(body)
    except TimeoutError as error:
        raise failed(f"not fetched within {limits.timeout:g} s", "Raise MediaLimits.timeout.") from error
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
        raise failed(f"cannot be fetched ({error or type(error).__name__})") from error
