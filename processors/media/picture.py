# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Opening pictures, and their pixels in any stored format."""

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
                return picture_pixels(image)
        except MediaError:
            raise
        # Plugins of Pillow raise these for damaged files.
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            raise MediaError(name, f"no picture that can be read ({error})", "Check the file.") from error


def picture_pixels(image: Image.Image) -> np.ndarray:
    """Pixels of a Pillow picture, upright: uint8 (height, width, 3), RGB.

    Pillow's own conversion cuts grey of more than 8 bits to 255; here it is scaled. ValueError for 32-bit
    and floating-point grey, whose range is not known.
    """
    tags = getattr(image, "tag_v2", {})  # of TIFF
    largest, white_is_zero = 2 ** tags.get(258, (16,))[0] - 1, tags.get(262) == 0
    known = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    oriented = ImageOps.exif_transpose(image)
    if not known and image.mode in ("I", "F"):
        raise ValueError(
            f"pixels of mode {image.mode!r} ({np.asarray(image).dtype}) have no known range: make them uint8"
        )
    if not known:
        return np.asarray(oriented.convert("RGB"))
    grey = np.asarray(oriented).astype(np.float64) * (255 / largest)
    grey = np.clip(np.rint(255 - grey if white_is_zero else grey), 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
