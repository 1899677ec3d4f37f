# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Decoded windows back into small media files."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import av
import numpy as np

from .decoding import MediaClip


def encode_clip(clip: MediaClip, fps: float, sampling_rate: int) -> bytes:
    """A window as MP4: H.264, key frames two seconds apart, and AAC, mono.

    Args:
        clip: with frames; sides that are odd lose a row or column of pixels, as H.264 wants it.
        fps, sampling_rate: those it was read with; the latter one that AAC knows, such as 16000 or 48000.
    """
    if clip.frames is None or not len(clip.frames):
        raise ValueError("A clip without frames cannot be encoded.")
    frames = clip.frames[:, : clip.frames.shape[1] // 2 * 2, : clip.frames.shape[2] // 2 * 2]
    rate = Fraction(fps).limit_denominator(1000)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        # The same bytes each time: x264 with mbtree, and AAC's usual coder, do not give them.
        options = {"g": str(max(1, round(2 * fps))), "x264-params": "mbtree=0"}
        video: Any = container.add_stream("libx264", rate=rate, options=options)
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        video.codec_context.thread_count = 1  # several files are encoded side by side
        audio: Any = None
        if clip.waveform is not None and len(clip.waveform):
            options = {"aac_coder": "fast"}
            audio = container.add_stream("aac", rate=sampling_rate, layout="mono", options=options)
        for stream in container.streams:
            stream.codec_context.flags |= av.codec.context.Flags.bitexact
        packets = []
        for number, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
            frame.pts, frame.time_base = number, 1 / rate
            packets += video.encode(frame)
        packets += video.encode(None)
        if audio is not None:
            sound = av.AudioFrame.from_ndarray(clip.waveform[None], format="fltp", layout="mono")
            sound.sample_rate, sound.time_base, sound.pts = sampling_rate, Fraction(1, sampling_rate), 0
            blocks = av.AudioResampler(format="fltp", frame_size=audio.codec_context.frame_size or 1024)
            for block in blocks.resample(sound) + blocks.resample(None):
                packets += audio.encode(block)
            packets += audio.encode(None)
        container.start_encoding()
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return file.getvalue()
