# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Uploads: the body of a request becomes a temporary file, within limits."""

import re
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
from fastapi import HTTPException
from starlette.requests import ClientDisconnect, Request

from .settings import WebSettings


def size_text(count: float) -> str:
    """Bytes as text: `"200 MB"`."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} GB"


def shown_name(name: str) -> str:
    """The last part of a name that a client sent, without control characters, at most 100 characters."""
    name = re.split(r"[/\\]", name)[-1]
    return "".join(letter for letter in name if letter.isprintable())[:100].strip() or "the upload"


class Uploads:
    """Receives files, a limited number at a time."""

    def __init__(self, settings: WebSettings) -> None:
        self.settings = settings
        self.under_way = 0

    @asynccontextmanager
    async def receive(self, request: Request, sizes: Sequence[int] = ()) -> AsyncIterator[list[Path]]:
        """The body as temporary files.

        Args:
            request: its body holds one file after the other.
            sizes: bytes of each file but the last.

        Raises:
            HTTPException: too large (413), empty (400), too slow (408), or too many at a time (503).
        """
        too_large = HTTPException(
            413, f"The file is larger than {size_text(self.settings.max_upload_bytes)}. Send a part of it."
        )
        claimed = request.headers.get("content-length", "")
        if claimed.isdecimal() and int(claimed) > self.settings.max_upload_bytes:
            raise too_large
        if self.under_way >= self.settings.max_uploads:
            raise HTTPException(503, "Too many uploads at the moment. Try again.", {"Retry-After": "5"})
        self.under_way += 1
        try:
            # A separate folder, as decoders may open neighbouring files.
            with tempfile.TemporaryDirectory(prefix="vatt-upload-") as folder:
                path = Path(folder) / "upload"
                try:
                    with anyio.fail_after(self.settings.upload_seconds):
                        size = await self._write(request, path, too_large)
                except TimeoutError:
                    raise HTTPException(408, "The upload took too long. Send a shorter part.") from None
                except ClientDisconnect:
                    raise HTTPException(400, "The upload was broken off.") from None
                if not size:
                    raise HTTPException(400, "The file is empty. Choose another one.")
                yield await anyio.to_thread.run_sync(_split, path, sizes) if sizes else [path]
        finally:
            self.under_way -= 1

    async def _write(self, request: Request, path: Path, too_large: HTTPException) -> int:
        size = 0
        with path.open("wb") as file:
            async for chunk in request.stream():
                size += len(chunk)
                if size > self.settings.max_upload_bytes:
                    raise too_large
                await anyio.to_thread.run_sync(file.write, chunk)
        return size


def _split(path: Path, sizes: Sequence[int]) -> list[Path]:
    """Split concatenated files."""
    if sum(sizes) >= path.stat().st_size:
        raise HTTPException(400, "The files are shorter than `size` says.")
    parts = []
    with path.open("rb") as whole:
        for number, size in enumerate((*sizes, -1)):
            parts.append(path.with_name(f"{path.name}{number}"))
            parts[-1].write_bytes(whole.read(size))
    return parts
