# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Limits of the web page."""

from dataclasses import dataclass, replace

from ..processors import DEFAULT_LIMITS, MediaLimits


# In another process: a crash, hang or lack of memory costs one search only.
UPLOAD_LIMITS = MediaLimits(
    max_bytes=1024**3, max_pixels=4096 * 2304, wall_seconds=60.0, max_memory=2 * 1024**3, isolated=True
)

COPY_LIMITS = replace(DEFAULT_LIMITS, wall_seconds=90.0, isolated=True)


@dataclass(frozen=True)
class WebSettings:
    """Limits of the web page.

    Args:
        allow_remote: answer requests that name the server by an IP address, not only by a loopback name.
        allowed_hosts: further host names, without port. Any other name is refused (DNS rebinding).
        max_upload_bytes: largest sound or clip as a query.
        upload_seconds: longest time of an upload.
        max_uploads: uploads at the same time; more are refused (503).
        max_query_characters: longest text query.
        max_results: most moments in one answer.
        max_waiting: searches that may wait for the model; more are refused (503).
        max_map_points: moments on the map, chosen evenly from a larger index.
        thumbnail_size: pixels of the longer side.
        media_limits: what decoding an upload may cost.
        copy_seconds: length of copies for browsers that cannot show a video.
        max_copies_bytes: of all such copies; the oldest are deleted.
        copy_limits: what decoding for a copy may cost; the copy ends early if it takes longer.
    """

    allow_remote: bool = False
    allowed_hosts: tuple[str, ...] = ()
    max_upload_bytes: int = 200 * 1024**2
    upload_seconds: float = 300.0
    max_uploads: int = 4
    max_query_characters: int = 500
    max_results: int = 200
    max_waiting: int = 32
    max_map_points: int = 2000
    thumbnail_size: int = 480
    media_limits: MediaLimits = UPLOAD_LIMITS
    copy_seconds: float = 20.0
    max_copies_bytes: int = 512 * 1024**2
    copy_limits: MediaLimits = COPY_LIMITS

    @property
    def local(self) -> bool:
        """Whether only people at this machine are served."""
        return not (self.allow_remote or self.allowed_hosts)
