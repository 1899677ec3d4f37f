# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Decoding pictures in this process."""

from __future__ import annotations

import contextlib

import numpy as np
from PIL import Image, ImageOps

from .source import MediaError, MediaLimits, MediaSource, open_source, source_name


def decode_picture(source: MediaSource, limits: MediaLimits) -> np.ndarray:
    """See [`read_picture`]."""
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
