# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Copies of parts of videos, for browsers that cannot show the originals."""

import hashlib
import math
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..processors import MediaError, MediaLimits, probe, read_clip
from ..processors.media.writing import encode_frames


MEDIA_TYPE = "video/mp4"
_GRID = 5.0  # seconds: moments near each other share a copy
_LEAD = 2.0  # seconds before a moment, at least
_SIZE = 480  # pixels of the shorter side, at most
_FPS = 30.0  # at most
_RATE = 48_000
_PIECE = 192 * 2**20  # bytes of frames decoded at a time


class Copies:
    """Makes copies (H.264 and AAC) one at a time, and keeps the latest in a temporary folder.

    Args:
        seconds: length of a copy.
        max_bytes: of all copies that are kept.
        limits: what decoding a piece may cost.
    """

    def __init__(self, seconds: float, max_bytes: int, limits: MediaLimits) -> None:
        self.seconds, self.max_bytes, self.limits = seconds, max_bytes, limits
        self._making = threading.Lock()
        self._closed = False
        self._folder: Path | None = None
        self._sizes: OrderedDict[str, int] = OrderedDict()

    def close(self) -> None:
        """Delete all copies; one that is being made ends early."""
        self._closed = True
        with self._making:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
            self._sizes.clear()

    def locate(self, name: str) -> Path | None:
        """The file of a copy, if it still exists."""
        folder = self._folder
        return folder / name if folder is not None and name in self._sizes else None

    def make(self, file: Path, version: str, moment: float) -> tuple[str, float]:
        """Name and first second of a copy around a second of a video of this `version`, made if necessary;
        MediaError if it cannot be read there."""
        start = max(0.0, (moment - _LEAD) // _GRID * _GRID)
        key = repr((str(file), version, start))
        name = f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.mp4"
        with self._making:
            if name in self._sizes:
                self._sizes.move_to_end(name)
            else:
                content = self._encode(file, start)
                if self._folder is None:
                    self._folder = Path(tempfile.mkdtemp(prefix="vatt-copies-"))
                (self._folder / name).write_bytes(content)
                self._sizes[name] = len(content)
                while sum(self._sizes.values()) > self.max_bytes and len(self._sizes) > 1:
                    oldest, _ = self._sizes.popitem(last=False)
                    (self._folder / oldest).unlink(missing_ok=True)
        return name, start

    def _encode(self, file: Path, start: float) -> bytes:
        info = probe(file, self.limits)
        length = min(self.seconds, (info.duration or math.inf) - start)
        window: dict[str, Any] = {"start": start, "duration": length, "limits": self.limits}
        fps = max(1.0, min(_FPS, info.fps or _FPS))
        sound = None
        if info.sampling_rate is not None:
            sound = read_clip(file, **window, sampling_rate=_RATE, video=False).waveform
        frames = self._frames(file, start, length, fps, min(_SIZE, info.width or _SIZE, info.height or _SIZE))
        return encode_frames(frames, fps, sound, _RATE, preset="veryfast")

    def _frames(self, file: Path, start: float, length: float, fps: float, size: int) -> Iterator[np.ndarray]:
        """Frames from a moment on, decoded in pieces; fewer if that takes too long."""
        deadline = time.monotonic() + self.limits.wall_seconds
        done, total, count, shape = 0, max(1, round(length * fps)), 1, None
        while done < total and time.monotonic() < deadline and not self._closed:
            piece = {"start": start + done / fps, "duration": min(count, total - done) / fps, "fps": fps}
            try:
                frames = read_clip(file, **piece, audio=False, size=size, limits=self.limits).frames
            except MediaError:
                if not done:
                    raise
                return  # the pictures end, or are damaged
            if frames is None or not len(frames) or shape not in (None, frames.shape[1:]):
                return
            yield from frames
            done, shape = done + len(frames), frames.shape[1:]
            count = max(1, _PIECE // frames[0].nbytes)
