# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Edit lists of MP4 and QuickTime: which part of a track is shown when.

FFmpeg follows them packet by packet. After the first joint its sound is off by a part of a packet, and its
pictures by those that are stored out of order.
"""

import os
import struct
from collections.abc import Collection, Iterator
from typing import BinaryIO, NamedTuple


class Edit(NamedTuple):
    """What is shown from `begin` to `end` is the track from `media` on, all in seconds."""

    begin: float
    end: float
    media: float


# (seconds, where in the track in its ticks; -1 for nothing) of each edit
EditList = list[tuple[float, int]]


def edit_lists(file: BinaryIO) -> dict[int, EditList | None]:
    """The lists of the tracks, by their number; None with other speeds, or parts without a length, which
    nobody follows."""
    before = file.tell()
    try:
        size = file.seek(0, os.SEEK_END)
        return next(
            (_of_movie(file, *place) for kind, *place in _boxes(file, 0, size) if kind == b"moov"), {}
        )
    finally:
        file.seek(before)


def are_joined(lists: Collection[EditList | None]) -> bool:
    """Whether a track shows several parts, and all can be followed; the others are left to FFmpeg."""
    return None not in lists and any(sum(time >= 0 for _, time in entries or ()) > 1 for entries in lists)


def timeline(entries: EditList, tick: float, end: float) -> list[Edit]:
    """A list in seconds, for a track that ends at `end`."""
    edits, moment = [], 0.0
    for seconds, time in entries:
        length = min(seconds, end - time * tick)
        if time >= 0 and length > 0:
            edits.append(Edit(moment, moment + length, time * tick))
        moment += seconds
    return edits


def _of_movie(file: BinaryIO, begin: int, end: int) -> dict[int, EditList | None]:
    scale, lists = 1, dict[int, EditList | None]()
    for kind, place, stop in _boxes(file, begin, end):
        if kind == b"mvhd":
            scale = max(1, _header_number(file, place, 12, 20))
        if kind == b"trak":
            inner = {name: (first, last) for name, first, last in _boxes(file, place, stop)}
            found = dict[bytes, int]()
            if b"edts" in inner:
                found = {name: first for name, first, _ in _boxes(file, *inner[b"edts"])}
            if b"tkhd" in inner and b"elst" in found:
                entries = _entries(file, found[b"elst"])
                followed = all(rate == 1 << 16 and length for length, _, rate in entries)
                lists[_header_number(file, inner[b"tkhd"][0], 12, 20)] = (
                    [(length / scale, time) for length, time, _ in entries] if followed else None
                )
    return lists


def _entries(file: BinaryIO, place: int) -> list[tuple[int, int, int]]:
    """(length in ticks of the film, time in those of the track, speed times 2^16) of each edit."""
    file.seek(place)
    head = file.read(8)
    entry = struct.Struct(">QqI" if head[:1] == b"\x01" else ">IiI")
    data = file.read(entry.size * int.from_bytes(head[4:], "big"))
    return list(entry.iter_unpack(data[: len(data) // entry.size * entry.size]))


def _header_number(file: BinaryIO, place: int, short: int, long: int) -> int:
    """The number of four bytes at an offset of a box, which depends on its version."""
    file.seek(place)
    data = file.read(long + 4)
    offset = long if data[:1] == b"\x01" else short
    return int.from_bytes(data[offset : offset + 4], "big")


def _boxes(file: BinaryIO, place: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(name, begin, end) of what boxes between two bytes hold."""
    while place + 8 <= end:
        file.seek(place)
        head = file.read(16)
        size, begin = int.from_bytes(head[:4], "big"), place + 8
        if size == 1:
            size, begin = int.from_bytes(head[8:], "big"), place + 16
        following = place + size if size else end
        if following < begin:
            return
        yield head[4:8], begin, min(following, end)
        place = following
