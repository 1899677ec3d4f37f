# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Expected lengths of the data files of a TensorFlow checkpoint, from its index, without TensorFlow.

The index is a table of sorted keys as LevelDB writes it
(https://github.com/google/leveldb/blob/main/doc/table_format.md), uncompressed: under the empty key a
`BundleHeaderProto` with the number of data files, under each variable a `BundleEntryProto` with its place
(tensorflow/core/protobuf/tensor_bundle.proto). Variables are written one after the other, so a data file ends
where the last of them does.
"""

from collections.abc import Iterator
from pathlib import Path

from .errors import ConversionError


_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER = 48
_MOST_SHARDS = 100_000  # their names have five digits
# Fields of the two messages.
_NUM_SHARDS = 1
_SHARD, _OFFSET, _SIZE = 3, 4, 5


def check_sizes(prefix: Path) -> int:
    """Compare the data files of a checkpoint (`prefix` such as `ckpt-500000`) with its index; returns their
    bytes.

    Raises:
        ConversionError: an index that cannot be read; a data file that is missing, or of another length.
    """
    index = prefix.with_name(prefix.name + ".index")
    try:
        lengths = _lengths(index.read_bytes())
    except (IndexError, ValueError) as error:
        raise ConversionError(
            f"{index} is damaged or no TensorFlow index ({error}). Remove it and fetch it again."
        ) from error
    for number, length in enumerate(lengths):
        data = prefix.with_name(f"{prefix.name}.data-{number:05d}-of-{len(lengths):05d}")
        if not data.is_file():
            raise ConversionError(
                f"{data} does not exist: the checkpoint is incomplete. Fetch all its files."
            )
        found = data.stat().st_size
        if found != length:
            state = "truncated" if found < length else "too long, perhaps of another checkpoint"
            raise ConversionError(
                f"{data} is {state}: {found} bytes, its index speaks of {length}. Remove both and fetch them "
                "again."
            )
    return sum(lengths)


def _lengths(index: bytes) -> list[int]:
    """Bytes of each data file."""
    if index[-8:] != _MAGIC or len(index) < _FOOTER:
        raise ValueError("it does not end as a table")
    _, place = _handle(index, len(index) - _FOOTER)  # metadata, which is not used
    blocks, _ = _handle(index, place)
    entries = (entry for _, handle in _block(index, blocks) for entry in _block(index, _handle(handle, 0)[0]))
    lengths: list[int] | None = None
    for key, value in entries:
        fields = _fields(value)
        if lengths is None:
            if key:
                raise ValueError("it has no header")
            lengths = [0] * min(fields.get(_NUM_SHARDS, 0), _MOST_SHARDS)
            continue
        shard = fields.get(_SHARD, 0)
        lengths[shard] = max(lengths[shard], fields.get(_OFFSET, 0) + fields.get(_SIZE, 0))
    if not lengths:
        raise ValueError("it names no data")
    return lengths


def _block(table: bytes, handle: tuple[int, int]) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block, whose keys are stored as differences from the one before."""
    start, size = handle
    content = table[start : start + size]
    if len(content) != size or table[start + size] != 0:
        raise ValueError("a block is cut short or compressed")
    restarts = int.from_bytes(content[-4:], "little")
    end, place, key = size - 4 - 4 * restarts, 0, b""
    while place < end:
        shared, place = _varint(content, place)
        added, place = _varint(content, place)
        length, place = _varint(content, place)
        key = key[:shared] + content[place : place + added]
        yield key, content[place + added : place + added + length]
        place += added + length


def _handle(content: bytes, place: int) -> tuple[tuple[int, int], int]:
    """(start, size) of a block, and the next place."""
    start, place = _varint(content, place)
    size, place = _varint(content, place)
    return (start, size), place


def _fields(message: bytes) -> dict[int, int]:
    """Numbers of a protocol buffer by field; other values are skipped."""
    found: dict[int, int] = {}
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == 0:
            found[tag >> 3], place = _varint(message, place)
        elif kind == 2:
            length, place = _varint(message, place)
            place += length
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of type {kind}")
    return found


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """A number in groups of seven bits, and the next place."""
    value = shift = 0
    while True:
        byte = content[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise ValueError("a number without end")
