# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Files as answers: conditions and ranges as in RFC 9110, and errors in JSON."""

import hashlib
import os
import re
from pathlib import Path
from stat import S_ISREG

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import Receive, Scope, Send


_RANGE = re.compile(r"(\d+)-(\d*)|-(\d+)")
_DIGITS = 18  # of a place in a file; more are beyond its end


def version_of(found: os.stat_result) -> str:
    """A text that changes with a file."""
    # With the time of the entry's change, as a copy may keep size and time of what it replaces.
    properties = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return hashlib.sha256(repr(properties).encode()).hexdigest()[:16]


def not_modified(headers: Headers, tag: str) -> bool:
    """Whether the client has the content of an entity tag (with its quotes)."""
    known = [part.strip().removeprefix("W/") for part in headers.get("if-none-match", "").split(",")]
    return tag in known or known == ["*"]


def tagged(headers: Headers, content: bytes, media_type: str, version: str, cache: str) -> Response:
    """Content of a version, or 304 if the client has it."""
    tag = f'"{version}"'
    answer_headers = {"ETag": tag, "Cache-Control": cache}
    if not_modified(headers, tag):
        return Response(status_code=304, headers=answer_headers)
    return Response(content, media_type=media_type, headers=answer_headers)


class MediaFile(FileResponse):
    """A file as a whole, in ranges, or 304; HTTPException (404) if it cannot be read."""

    def __init__(self, file: Path, media_type: str) -> None:
        try:
            with file.open("rb"):
                found = file.stat()
        except OSError as error:
            raise HTTPException(404, f"{file.name} cannot be read now ({error.strerror}).") from None
        if not S_ISREG(found.st_mode):
            raise HTTPException(404, f"{file.name} is no file.")
        headers = {"ETag": f'"{version_of(found)}"', "Cache-Control": "private, no-cache"}
        super().__init__(file, headers=headers, media_type=media_type, stat_result=found)
        self.size = found.st_size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = MutableHeaders(raw=list(scope["headers"]))
        if not_modified(headers, self.headers["etag"]):
            kept = {name: self.headers[name] for name in ("etag", "cache-control", "last-modified")}
            await Response(status_code=304, headers=kept)(scope, receive, send)
            return
        wanted = headers.get("range", "")
        del headers["range"]
        # Ranges are for GET, and for an unchanged file.
        same = headers.get("if-range") in (None, self.headers["etag"], self.headers["last-modified"])
        parts = _ranges(wanted, self.size) if scope["method"] == "GET" and same else None
        if parts:
            headers["range"] = "bytes=" + ",".join(f"{first}-{last}" for first, last in parts)
        elif parts is not None:
            message = f"The file ends at {self.size} bytes, before what was asked for."
            answer = JSONResponse({"error": message}, 416, {"Content-Range": f"bytes */{self.size}"})
            await answer(scope, receive, send)
            return
        await super().__call__({**scope, "headers": headers.raw}, receive, send)


def _ranges(header: str, size: int) -> list[tuple[int, int]] | None:
    """First and last byte of the existing ranges; None if the header is to be ignored."""
    unit, _, rest = header.partition("=")
    if unit.strip().lower() != "bytes":
        return None
    parts = []
    for text in filter(None, map(str.strip, rest.split(","))):
        match = _RANGE.fullmatch(text)
        if match is None:
            return None
        first, last, suffix = (_place(digits) if digits else None for digits in match.groups())
        if first is None:
            first, last = max(0, size - (suffix or 0)), size - 1
        elif last is not None and last < first:
            return None
        if first < size and (suffix is None or suffix > 0):
            parts.append((first, size - 1 if last is None else min(last, size - 1)))
    return parts if rest.strip(", \t") else None


def _place(digits: str) -> int:
    return int(digits) if len(digits) <= _DIGITS else 10**_DIGITS
