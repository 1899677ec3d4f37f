# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Decoded sound put together on one grid of samples, and resampled. Knows no decoder."""

from __future__ import annotations

import math

import numpy as np
import soxr


# Seconds of sound the resampling filter sees around a window, so that a moment sounds the same whatever
# window it is in.
RESAMPLING_MARGIN = 0.05


class SoundTrack:
    """Decoded sound on the grid of its own samples; sample 0 is at time 0."""

    def __init__(self, rate: int, grid: int | None) -> None:
        self.rate, self._grid = rate, grid
        self._pieces: list[tuple[int, np.ndarray]] = []
        self._block = 1
        self.end = 0

    def add(self, moment: float, samples: np.ndarray) -> None:
        position = round(moment * self.rate)
        self._block = max(self._block, len(samples))
        # Stamps are rounded, and jitter by less than a frame: what nearly follows, follows.
        if self._pieces and abs(position - self.end) <= min(self._block / 2, 0.01 * self.rate):
            position = self.end
        elif self._grid is not None:
            # Frames have one length, so that a rounded stamp still tells which frame this is.
            exact = self._grid + round((position - self._grid) / self._block) * self._block
            if abs(exact - position) <= 0.001 * self.rate + 1:
                position = exact
        self._pieces.append((position, samples))
        self.end = position + len(samples)

    def samples(self, first: int, last: int, rate: int) -> np.ndarray:
        """float32 (last - first,) at `rate`, from sample `first` on; zeros where there is no sound."""
        step = self.rate // math.gcd(self.rate, rate)  # the two grids meet every `step` of its own samples
        margin = 0 if self.rate == rate else RESAMPLING_MARGIN * self.rate
        low = math.floor((first * self.rate / rate - margin) / step) * step
        high = math.ceil(last * self.rate / rate + margin)
        sound = np.zeros(high - low, dtype=np.float32)
        for position, samples in self._pieces:
            left, right = max(position, low), min(position + len(samples), high)
            if left < right:
                sound[left - low : right - low] = samples[left - position : right - position]
        if self.rate != rate:
            sound = soxr.resample(sound, self.rate, rate, quality="HQ")
        skip = first - low * rate // self.rate
        return np.ascontiguousarray(sound[skip : skip + last - first], dtype=np.float32)
