# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""One clock for a file whose time stamps start again or jump, as in recordings joined end to end.

The stamps are cut into epochs where the clock jumps, and each epoch is moved, with pictures and sound
together, to the end of the one before. The thresholds are those of ffmpeg's command line.
"""

import math
from typing import BinaryIO


_FORWARD = 10.0  # seconds; a shorter jump ahead is a gap
_REORDERED_FRAMES = 20  # frames that may lie between one packet and the next, as they are stored out of order
_BACKWARD = 0.1
_DAMAGE = 30 * 3600.0  # seconds; a longer jump ahead is no time of a recording
_REORDERED = 2.0  # the same in seconds, for frames without a length
_OVERLAP = 3.0  # seconds a stream may go back where another stream has shown that a new epoch begins


class FileClock:
    """The epochs of a file, from all of its packets in the order of the file. Jumps ahead start an epoch in
    transport and program streams and Ogg; in other formats they are gaps, however long."""

    def __init__(self, kinds: list[str], jumps_ahead: bool) -> None:
        self._forward = _FORWARD if jumps_ahead else float("inf")
        self.offsets = [0.0]  # of each epoch, in seconds to be added to its stamps
        # Where the epochs of each stream begin: its packet, the epoch, the packet's stamp.
        self.begins: dict[str, list[tuple[int, int, float]]] = {kind: [(0, 0, 0.0)] for kind in kinds}
        self.packets = dict.fromkeys(kinds, 0)  # so far
        self._ends: dict[str, dict[int, float]] = {kind: {} for kind in kinds}
        self._last: dict[str, float | None] = dict.fromkeys(kinds)
        self._step = dict.fromkeys(kinds, math.inf)
        self._repeated = 0
        self._unstamped = dict.fromkeys(kinds, 0.0)

    @property
    def jumps(self) -> bool:
        return len(self.offsets) > 1

    @property
    def stands_still(self) -> bool:
        """Whether most packets of sound repeat the stamp of the packet before."""
        return 2 * self._repeated > self.packets.get("audio", 0)

    def add(self, kind: str, moment: float | None, length: float, is_key: bool) -> None:
        """Take in the next packet: its stamp and length in seconds, and whether it is a key frame.

        Without a new stamp it follows the packet before; without a length it has the shortest step so far.
        """
        number, ends = self.packets[kind], self._ends[kind]
        self.packets[kind] += 1
        last, self._last[kind] = self._last[kind], self._last[kind] if moment is None else moment
        if moment is None or (moment == last and kind == "audio"):
            self._repeated += moment is not None
            epoch = self.begins[kind][-1][1]
            if epoch in ends:
                ends[epoch] += length
            else:
                self._unstamped[kind] += length
            return
        if last is not None and moment != last:
            self._step[kind] = min(self._step[kind], abs(moment - last))
        if not length and math.isfinite(self._step[kind]):
            length = self._step[kind]
        epoch, newest = self.begins[kind][-1][1], len(self.offsets) - 1
        if epoch in ends:
            lag = moment - ends[epoch]  # difference from the expected stamp
            if (lag > _DAMAGE and not math.isfinite(self._forward)) or not math.isfinite(lag):
                return
            reordered = _REORDERED_FRAMES * length
            back = _BACKWARD + length if is_key else max(_REORDERED, reordered)
            jumped = lag > max(self._forward, reordered) or lag < -back
            if newest > epoch or jumped:
                expected = ends[epoch] + self.offsets[epoch]
                joins = moment + self.offsets[newest] - expected
                if newest > epoch and (jumped or abs(joins) < abs(lag)) and joins > -_OVERLAP:
                    epoch = newest
                    self.offsets[epoch] += -joins if joins < -_BACKWARD - length else 0.0
                elif jumped:
                    epoch = newest + 1
                    self.offsets.append(expected - moment)
                if epoch > self.begins[kind][-1][1]:
                    self.begins[kind].append((number, epoch, moment))
        ends[epoch] = max(ends.get(epoch, moment), moment + length)

    def end(self, kind: str) -> float | None:
        """When a stream ends, in seconds of the first epoch's clock, or from its start if it has no stamps;
        None if it has no lengths either."""
        ends = [end + self.offsets[epoch] for epoch, end in self._ends[kind].items()]
        return max(ends, default=self._unstamped[kind] or None)

    def offset(self, kind: str, number: int) -> float:
        """Seconds to be added to the stamp of a stream's packet, given its number."""
        return next(self.offsets[epoch] for first, epoch, _ in reversed(self.begins[kind]) if first <= number)


def matroska_end(file: BinaryIO) -> int | None:
    """The byte at which a Matroska file's first recording ends: its size, unless others follow or it was cut
    short; None if it does not tell."""
    before, place = file.tell(), 0
    try:
        for name in (b"\x1aE\xdf\xa3", b"\x18S\x80g"):  # header, segment
            file.seek(place)
            head = file.read(12)
            if len(head) < 12 or head[:4] != name or not head[4]:
                return None
            width = 9 - head[4].bit_length()
            unknown = (1 << 7 * width) - 1
            size = int.from_bytes(head[4 : 4 + width], "big") & unknown
            if size == unknown:
                return None
            place += 4 + width + size
        return place
    finally:
        file.seek(before)
