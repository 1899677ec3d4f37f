# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""From a path, URL, bytes or file object to a seekable binary file, within limits. Knows no decoder."""

from __future__ import annotations

import contextlib
import io
import os
import re
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, TypeAlias


MediaSource: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_CHUNK = 1 << 20
_MAX_REDIRECTS = 5


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
        max_bytes: largest source accepted, and largest array of frames decoded by one call.
        max_pixels: largest frame accepted; larger ones are refused before they are decoded.
        max_seconds: longest window decoded by one call.
        timeout: seconds a remote source may take, checked whenever something arrives.
        allowed_hosts: hosts that may be fetched from over http(s), redirections included; "*" stands for any
            host. Empty: no remote sources.
    """

    max_bytes: int = 2 * 1024**3
    max_pixels: int = 7680 * 4320
    max_seconds: float = 600.0
    timeout: float = 30.0
    allowed_hosts: tuple[str, ...] = ()


DEFAULT_LIMITS = MediaLimits()


def source_name(source: MediaSource) -> str:
    """A printable name without secrets."""
    if isinstance(source, bytes):
        return f"<{len(source)} bytes>"
    if isinstance(source, str) and _URL.match(source):
        return re.sub(r"(?<=://)[^/@]*@", "", re.split(r"[?#]", source)[0])
    if isinstance(source, str | os.PathLike):
        return str(os.fspath(source))
    return str(getattr(source, "name", source))


def open_source(source: MediaSource, limits: MediaLimits) -> tuple[BinaryIO, bool]:
    """A seekable binary file and whether it was opened here (then the caller closes it).

    Raises:
        MediaError: missing, empty or too large, or a remote source that is not allowed or does not answer.
        TypeError: no kind of source.
    """
    name = source_name(source)
    too_large = MediaError(name, f"more than {limits.max_bytes} bytes", "Raise MediaLimits.max_bytes.")
    file: Any
    if isinstance(source, bytes):
        file = io.BytesIO(source)
    elif isinstance(source, str) and _URL.match(source):
        file = _fetch(source, name, limits, too_large)
    elif isinstance(source, str | os.PathLike):
        try:
            file = open(source, "rb")  # noqa: SIM115 - handed over to the caller
        except OSError as error:
            raise MediaError(name, f"cannot be opened ({error.strerror})", "Check the path.") from error
    elif isinstance(source, io.TextIOBase) or not hasattr(source, "read"):
        raise TypeError(f"A source is a path, a URL, bytes or a binary file, not {type(source).__name__}.")
    else:
        file = source
    owned = file is not source
    try:
        if not getattr(file, "seekable", bool)():
            held = _collect(iter(partial(file.read, _CHUNK), b""), limits, too_large)
            if owned:
                file.close()
            file, owned = held, True
        size = file.seek(0, os.SEEK_END)
        if not 0 < size <= limits.max_bytes:
            raise too_large if size else MediaError(name, "empty", "Check how the file was made or copied.")
    except BaseException:
        if owned:
            file.close()
        raise
    return file, owned


def _collect(parts: Any, limits: MediaLimits, too_large: MediaError) -> io.BytesIO:
    """The parts in memory; stops as soon as there are too many."""
    file = io.BytesIO()
    for part in parts:
        file.write(part)
        if file.tell() > limits.max_bytes:
            raise too_large
    return file


def _fetch(url: str, name: str, limits: MediaLimits, too_large: MediaError) -> io.BytesIO:
    """The body of an http(s) URL."""
    try:  # the client of huggingface_hub 2, else that of huggingface_hub 1
        import httpx2 as httpx
    except ImportError:
        import httpx  # type: ignore[no-redef]

    def failed(reason: str, remedy: str = "Check the address and the network.") -> MediaError:
        return MediaError(name, reason, remedy)

    def parts(response: Any) -> Any:
        for part in response.iter_raw():
            if time.monotonic() > deadline:
                raise failed(f"not fetched within {limits.timeout:g} s", "Raise MediaLimits.timeout.")
            yield part

    deadline = time.monotonic() + limits.timeout
    try:
        with httpx.Client(timeout=limits.timeout, headers={"accept-encoding": "identity"}) as client:
            request: Any = client.build_request("GET", url)
            for _ in range(_MAX_REDIRECTS + 1):
                host = request.url.host
                if request.url.scheme not in ("http", "https"):
                    raise failed(
                        f"scheme {request.url.scheme!r} is not supported", "Use http, https or a path."
                    )
                if not {"*", host} & set(limits.allowed_hosts):
                    raise failed(f"host {host!r} is not allowed", "Name it in MediaLimits.allowed_hosts.")
                with contextlib.closing(client.send(request, stream=True)) as response:
                    if response.status_code == 200:
                        return _collect(parts(response), limits, too_large)
                    request = response.next_request
                    if request is None:
                        raise failed(f"the server answers {response.status_code}")
            raise failed(f"more than {_MAX_REDIRECTS} redirections")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise failed(f"cannot be fetched ({error or type(error).__name__})") from error
