# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Decoded sound joined on one grid of samples, and resampled."""

import math

import numpy as np
import soxr


# Seconds of sound around a window for the resampling filter, so that samples do not depend on the window.
RESAMPLING_MARGIN = 0.05
# A real gap moves all later stamps. Single stamps err without a gap: Vorbis before a change of block length,
# AVI and RealMedia, which round to whole packets.
_AGREEING = 4
_SETTLING = 32  # stamps that vote on where sound begins, as some err
_CERTAIN = 0.1  # seconds between stamp and count that are a gap even for the last frame


class SoundTrack:
    """Decoded sound on the grid of its samples, at `rate` Hz; sample 0 is at time 0. Stamps of frames are
    rounded to `tick` seconds. After a seek (`sought`) frames of one length begin at multiples of it from the
    sample `grid`."""

    def __init__(self, rate: int, tick: float, sought: bool = False, grid: int | None = None) -> None:
        self.rate, self._tick, self._sought, self._grid = rate, tick * rate, sought, grid
        self._parts: list[np.ndarray] = []
        self._counts: list[int] = []  # samples before each part
        self._shifts: list[float] = []  # of the stamps from these counts; NaN without a stamp
        self._stamp: float | None = None
        self._positions: list[int] = []
        self.begin = self.end = 0  # samples, once joined

    def add(self, moment: float | None, samples: np.ndarray) -> None:
        """Add the next frame and its stamp in seconds, or None. A repeated stamp counts as None: the packet
        has several frames."""
        if moment == self._stamp:
            moment = None
        self._stamp = self._stamp if moment is None else moment
        self._counts.append(self._counts[-1] + len(self._parts[-1]) if self._parts else 0)
        self._parts.append(samples)
        self._shifts.append(math.nan if moment is None else moment * self.rate - self._counts[-1])

    def join(self) -> None:
        """Place what was added: frames follow each other sample for sample unless there is a real gap."""
        block = max(map(len, self._parts), default=0)
        tolerance, certain = max(min(block / 2, 0.01 * self.rate), self._tick), _CERTAIN * self.rate
        stamped = [number for number, shift in enumerate(self._shifts) if not math.isnan(shift)]
        moved: dict[int, int] = {}
        shift = math.nan
        for place, number in enumerate(stamped):
            if abs(self._shifts[number] - shift) <= tolerance:
                continue
            coming = [self._shifts[other] for other in stamped[place : place + _AGREEING]]
            if moved and not self._is_gap(shift, coming, tolerance):
                continue
            # The first one that most agree with, as further gaps may follow.
            common = _most_common([one for one in coming if abs(one - coming[0]) <= certain], tolerance)
            coming = [self._shifts[other] for other in stamped[place : place + _SETTLING]]
            near = [other for other in coming if abs(other - common) <= tolerance]
            common = _most_common(near, max(1.0, self._tick))
            shift = self._settled(stamped[place:], common, tolerance)
            moved[number] = round(self._counts[number] + shift)
        self._positions, self.end = [], 0
        for number, samples in enumerate(self._parts):
            self._positions.append(moved.get(number, self.end))
            self.end = self._positions[-1] + len(samples)
        self.begin = min(self._positions, default=0)

    def _is_gap(self, shift: float, coming: list[float], tolerance: float) -> bool:
        """Whether all stamps from here on are later, or all earlier, than counting gives."""
        if len(coming) == 1:
            return abs(coming[0] - shift) > _CERTAIN * self.rate
        return min(coming) > shift + tolerance or max(coming) < shift - tolerance

    def _settled(self, following: list[int], common: float, tolerance: float) -> float:
        """The shift that the stamps of the following frames agree upon."""
        if self._tick <= 1.0:
            return common
        first = following[0]
        if first == 0 and not self._sought:
            return self._shifts[0]
        # Each stamp is known up to a tick; together they are known better.
        low, high = common - tolerance, common + tolerance
        for number in following:
            shift = self._shifts[number]
            narrower = max(low, shift - self._tick / 2), min(high, shift + self._tick / 2)
            if narrower[0] > narrower[1]:
                break
            low, high = narrower
        middle = (low + high) / 2
        if self._grid is None:
            return middle
        # Frames begin at multiples of the common divisor of their lengths, so one place may be left.
        block = math.gcd(*map(len, self._parts[1:-1] or self._parts))
        end = self._counts[first] + len(self._parts[first])  # the first frame may be cut
        exact = self._grid + round((end + middle - self._grid) / block) * block - end
        slack = 1.0 + (self._tick if block > 4 * self._tick else 0.0)
        return exact if low - slack <= exact <= high + slack else middle

    def samples(self, first: int, last: int, rate: int) -> np.ndarray:
        """float32 (last - first,) at `rate`, from sample `first` on; zeros where there is no sound, NaN where
        there is NaN."""
        step = self.rate // math.gcd(self.rate, rate)  # the two grids meet every `step` of its own samples
        margin = 0 if self.rate == rate else RESAMPLING_MARGIN * self.rate
        low = math.floor((first * self.rate / rate - margin) / step) * step
        high = math.ceil(last * self.rate / rate + margin)
        sound = np.zeros(high - low, dtype=np.float32)
        for position, samples in zip(self._positions, self._parts, strict=True):
            left, right = max(position, low), min(position + len(samples), high)
            if left < right:
                sound[left - low : right - low] = samples[left - position : right - position]
        if self.rate != rate:
            lost = np.flatnonzero(np.isnan(sound)) * rate // self.rate
            sound = soxr.resample(np.nan_to_num(sound, copy=False), self.rate, rate, quality="HQ")
            sound.put(lost, np.nan, mode="clip")  # resampling would spread what is NaN
        skip = first - low * rate // self.rate
        return np.ascontiguousarray(sound[skip : skip + last - first], dtype=np.float32)


def _most_common(values: list[float], tolerance: float) -> float:
    """The first of the values that have most others within the tolerance."""
    return max(values, key=lambda one: sum(abs(one - other) <= tolerance for other in values))
