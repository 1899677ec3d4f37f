# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Small pictures of moments."""

import os
from dataclasses import replace

from PIL import Image

from ..processors import DEFAULT_LIMITS, MediaError, MediaLimits, read_clip


_FPS = 10.0  # any; one frame is read
# In another process, as indexed files may crash the decoder here too.
PICTURE_LIMITS = replace(DEFAULT_LIMITS, wall_seconds=60.0, isolated=True)


def thumbnail(
    path: str | os.PathLike, seconds: float, size: int = 320, limits: MediaLimits = PICTURE_LIMITS
) -> Image.Image:
    """The frame of a video file shown at some seconds.

    Args:
        size: longest side in pixels; smaller frames are not enlarged.
        limits: what it may cost; default: one minute, in another process.

    Raises:
        MediaError: unreadable, or no picture at that moment.
    """
    frames = read_clip(path, start=seconds, duration=1 / _FPS, fps=_FPS, audio=False, limits=limits).frames
    if frames is None or not len(frames):
        raise MediaError(str(path), f"no picture at {seconds:g} s", "Choose an earlier moment.")
    image = Image.fromarray(frames[0])
    image.thumbnail((size, size))
    return image
