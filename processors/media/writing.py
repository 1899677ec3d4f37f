# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Decoded windows back into small media files."""

import io
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from typing import Any

import av
import numpy as np


def encode_frames(
    frames: Iterable[np.ndarray],
    fps: float,
    waveform: np.ndarray | None,
    sampling_rate: int,
    preset: str = "medium",
) -> bytes:
    """MP4 with H.264 (a key frame every two seconds) and mono AAC. Frames are uint8 (H, W, 3); odd sides lose
    a row or column of pixels, as H.264 requires. The waveform is float32 (S,) or None, at a rate of AAC, such
    as 16000 or 48000. Faster presets of x264 make larger files."""
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError("A clip without frames cannot be encoded.")
    height, width = (side // 2 * 2 for side in first.shape[:2])
    rate = Fraction(fps).limit_denominator(1000)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        # For equal bytes each time, which x264's mbtree and AAC's default coder do not give.
        options = {"g": str(max(1, round(2 * fps))), "preset": preset, "x264-params": "mbtree=0"}
        video: Any = container.add_stream("libx264", rate=rate, options=options)
        video.height, video.width = height, width
        video.pix_fmt = "yuv420p"
        video.codec_context.thread_count = 1  # several files are encoded side by side
        audio: Any = None
        if waveform is not None and len(waveform):
            options = {"aac_coder": "fast"}
            audio = container.add_stream("aac", rate=sampling_rate, layout="mono", options=options)
        for stream in container.streams:
            stream.codec_context.flags |= av.codec.context.Flags.bitexact
        packets = []
        for number, array in enumerate(chain([first], frames)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array[:height, :width]), format="rgb24")
            frame.pts, frame.time_base = number, 1 / rate
            packets += video.encode(frame)
        packets += video.encode(None)
        if audio is not None:
            sound = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
            sound.sample_rate, sound.time_base, sound.pts = sampling_rate, Fraction(1, sampling_rate), 0
            blocks = av.AudioResampler(format="fltp", frame_size=audio.codec_context.frame_size or 1024)
            for block in blocks.resample(sound) + blocks.resample(None):
                packets += audio.encode(block)
            packets += audio.encode(None)
        container.start_encoding()
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return file.getvalue()
