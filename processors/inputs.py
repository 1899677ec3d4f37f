# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Media as other libraries pass them: rows of `datasets`, objects of torchcodec (recognised by their
attributes, so it need not be installed), kinds of bytes."""

from collections.abc import Mapping
from numbers import Real
from reprlib import repr as shown
from typing import Any, NamedTuple

import numpy as np
import soxr
import torch


_SAMPLE_TYPES = ("float16", "bfloat16", "float32", "float64", "longdouble")
EXPECTED_SOUND = (
    "sound as floats in [-1, 1] (whole numbers are divided first: `x.astype('float32') / 32768` for int16)"
)


class RatedSound(NamedTuple):
    """Decoded sound that knows its rate: (channels, samples) or (samples,), Hz."""

    samples: Any
    sampling_rate: int
    resample: bool = False  # as a file is


def unwrapped(value: Any, resample: bool = False) -> Any:
    """The source, array or decoder in a row of `datasets`; other bytes as bytes; anything else unchanged.
    With `resample` the array of a row will be resampled like a file."""
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, Mapping):
        return value
    samples = value.get("array", value.get("raw"))
    if samples is not None:
        rate = value.get("sampling_rate")
        if not isinstance(rate, Real):
            raise ValueError(f"A row with `array` must have its `sampling_rate`, got {shown(dict(value))}.")
        return RatedSound(samples, int(rate), resample)
    source = value.get("path") if value.get("bytes") is None else value["bytes"]
    if source is None:
        raise ValueError(
            f"A row must hold `bytes`, `path` or `array` and `sampling_rate`, got {shown(dict(value))}."
        )
    return unwrapped(source)


def is_single(value: Any) -> bool:
    """Whether this is a single medium of another library, not a list of media."""
    forms = bytearray | memoryview | Mapping | RatedSound
    return isinstance(value, forms) or any(
        hasattr(value, name) for name in ("get_all_samples", "get_frames_played_at", "pts_seconds")
    )


def sound_of(value: Any) -> Any:
    """[`RatedSound`] of torchcodec's `AudioDecoder` or `AudioSamples`; anything else as it is."""
    if hasattr(value, "get_all_samples"):
        value = value.get_all_samples()
    if hasattr(value, "sample_rate") and hasattr(value, "data"):
        return RatedSound(value.data, int(value.sample_rate), resample=True)
    return value


def mono_at(sound: RatedSound, sampling_rate: int) -> np.ndarray:
    """float32 (samples,): mean of the channels at `sampling_rate`, as a file would be read."""
    waveform = samples_of(sound.samples)
    if waveform.ndim == 2 and waveform.shape[0] > waveform.shape[1] > 0:
        raise ValueError(
            f"Expected sound of shape (samples,) or (channels, samples), got {waveform.shape}: pass `x.T`."
        )
    waveform = waveform.mean(0) if waveform.ndim == 2 else waveform
    if sound.sampling_rate == sampling_rate:
        return waveform
    return soxr.resample(waveform, sound.sampling_rate, sampling_rate, quality="HQ")


def frames_of(value: Any, fps: float, max_bytes: int) -> Any:
    """Frames of torchcodec's `VideoDecoder` or `FrameBatch` at k / `fps` seconds from its start; the picture
    of a `Frame`; anything else unchanged. ValueError for more than `max_bytes`, or frames out of order."""
    if hasattr(value, "get_frames_played_at"):
        about = value.metadata
        begin, end = about.begin_stream_seconds, about.end_stream_seconds
        moments = _moments(end - begin, fps)
        size = len(moments) * value[0].numel() * value[0].element_size()
        if size > max_bytes:
            raise ValueError(
                f"A decoder of {end - begin:g} s makes {size} bytes of frames: pass the file itself, of "
                "which only the window is read, or raise `MediaLimits.max_bytes`."
            )
        return value.get_frames_played_at(seconds=(begin + moments).tolist()).data
    if not (hasattr(value, "pts_seconds") and hasattr(value, "duration_seconds")):
        return value
    if value.data.ndim != 4:
        return value.data
    begins = np.asarray(value.pts_seconds, dtype=np.float64)
    if not (np.diff(begins) > 0).all():
        raise ValueError(
            f"The frames of a batch must be in the order of time, got {shown(begins.tolist())} s: sort them."
        )
    moments = _moments(begins[-1] + float(value.duration_seconds[-1]) - begins[0], fps)
    return value.data[np.searchsorted(begins, begins[0] + moments, side="right") - 1]


def _moments(seconds: float, fps: float) -> np.ndarray:
    """Times at which frames are taken; the small number absorbs the rounding of time stamps."""
    return np.arange(max(1, round(seconds * fps))) / fps + 1e-6


def samples_of(array: Any) -> np.ndarray:
    """float32 samples of any shape; ValueError for whole numbers, whose range is not known."""
    samples = numbers_of(array, _SAMPLE_TYPES, EXPECTED_SOUND)
    samples = samples.float().cpu().numpy() if isinstance(samples, torch.Tensor) else samples
    return samples.astype(np.float32, copy=False)


def numbers_of(array: Any, kinds: tuple[str, ...], expected: str) -> np.ndarray | torch.Tensor:
    """The array or tensor without gradient; ValueError if its type is not one of `kinds`."""
    if isinstance(array, torch.Tensor):
        array, kind = array.detach(), str(array.dtype).removeprefix("torch.")
    else:
        array = np.asarray(array)
        kind = array.dtype.name
    if kind not in kinds:
        raise ValueError(f"Expected {expected}, got {kind}.")
    if isinstance(array, np.ndarray) and not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return array
