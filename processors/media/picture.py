# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Opening pictures, as the media room opens videos and sounds."""

from __future__ import annotations

import contextlib

import numpy as np
from PIL import Image, ImageOps

from .source import DEFAULT_LIMITS, MediaError, MediaLimits, MediaSource, open_source, source_name


def read_picture(source: MediaSource, limits: MediaLimits = DEFAULT_LIMITS) -> np.ndarray:
    """A picture as it is meant to be seen: uint8 (height, width, 3), RGB.

    Args:
        source: path, URL (see `MediaLimits.allowed_hosts`), bytes, or binary file object.
        limits: what the source may cost.

    Raises:
        MediaError: not a picture, or a limit exceeded.
    """
    if limits.isolated:
        from .isolation import call_isolated  # it imports this module

        return call_isolated("read_picture", source, limits)
    name = source_name(source)
    file, owned = open_source(source, limits)
    with contextlib.closing(file) if owned else contextlib.nullcontext():
        file.seek(0)
        try:
            with Image.open(file) as image:
                if image.width * image.height > limits.max_pixels:
                    raise MediaError(
                        name,
                        f"{image.width} x {image.height} is more than {limits.max_pixels} pixels",
                        "Raise MediaLimits.max_pixels if the source can be trusted.",
                    )
                return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except MediaError:
            raise
        # Plugins of Pillow raise these for damaged files of their kinds.
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            raise MediaError(name, f"no picture that can be read ({error})", "Check the file.") from error
