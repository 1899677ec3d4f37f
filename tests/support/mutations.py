# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Damage to bytes, drawn from a seeded generator: what fuzzing tests and `benchmarks/fuzz.py` share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


Mutation = Callable[[bytearray, np.random.Generator], str]

# Where arithmetic goes wrong: in 8, 16, 32 and 64 bits, with sign and without.
EDGES = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
)


def _place(data: bytearray, rng: np.random.Generator) -> int:
    """A position; headers, where the damage is greatest, are at the beginning more often than not."""
    if not data:
        return 0
    end = len(data) if rng.random() < 0.5 else min(len(data), 1 << int(rng.integers(4, 13)))
    return int(rng.integers(end))


def _span(data: bytearray, rng: np.random.Generator) -> tuple[int, int]:
    first = _place(data, rng)
    return first, min(len(data), first + (1 << int(rng.integers(0, 11))))


def truncate_tenth(data: bytearray, rng: np.random.Generator) -> str:
    tenth = int(rng.integers(10))
    del data[len(data) * tenth // 10 :]
    return f"cut to {tenth} tenths"


def cut_end(data: bytearray, rng: np.random.Generator) -> str:
    del data[_place(data, rng) :]
    return f"cut to {len(data)} bytes"


def flip_bits(data: bytearray, rng: np.random.Generator) -> str:
    count = 1 << int(rng.integers(0, 7))
    for _ in range(count if data else 0):
        data[_place(data, rng)] ^= 1 << int(rng.integers(8))
    return f"{count} bits"


def write_edge(data: bytearray, rng: np.random.Generator) -> str:
    """A number that breaks arithmetic, in place of another."""
    size = int(rng.choice([1, 2, 4, 8]))
    order = ("big", "little")[int(rng.integers(2))]
    value = EDGES[int(rng.integers(len(EDGES)))] % (1 << 8 * size)
    first = _place(data, rng)
    data[first : first + size] = value.to_bytes(size, order)  # type: ignore[arg-type]
    return f"{value} at {first}"


def swap_spans(data: bytearray, rng: np.random.Generator) -> str:
    first, end = _span(data, rng)
    other = _place(data, rng)
    data[first:end], data[other : other + end - first] = data[other : other + end - first], data[first:end]
    return f"{first}-{end} and {other} exchanged"


def repeat_span(data: bytearray, rng: np.random.Generator) -> str:
    first, end = _span(data, rng)
    times = 1 << int(rng.integers(0, 5))
    data[end:end] = bytes(data[first:end]) * times
    return f"{first}-{end} {times} times more"


def remove_span(data: bytearray, rng: np.random.Generator) -> str:
    first, end = _span(data, rng)
    del data[first:end]
    return f"{first}-{end} removed"


def fill_span(data: bytearray, rng: np.random.Generator) -> str:
    first, end = _span(data, rng)
    value = int(rng.choice([0, 0xFF, 0x20]))
    data[first:end] = bytes([value]) * (end - first)
    return f"{first}-{end} filled with {value}"


def write_noise(data: bytearray, rng: np.random.Generator) -> str:
    first, end = _span(data, rng)
    data[first:end] = rng.bytes(end - first)
    return f"{first}-{end} noise"


def insert_noise(data: bytearray, rng: np.random.Generator) -> str:
    first, end = _span(data, rng)
    data[first:first] = rng.bytes(end - first)
    return f"{end - first} bytes of noise at {first}"


MUTATIONS: tuple[Mutation, ...] = (
    truncate_tenth,
    cut_end,
    flip_bits,
    flip_bits,
    write_edge,
    write_edge,
    swap_spans,
    repeat_span,
    remove_span,
    fill_span,
    write_noise,
    insert_noise,
)


def mutate(
    content: bytes, rng: np.random.Generator, more: Sequence[Mutation] = (), others: Sequence[bytes] = ()
) -> tuple[bytes, str]:
    """Damaged content, and what was done to it.

    Args:
        content: of a good file.
        rng: decides everything.
        more: mutations that know the format; each is as likely as all general ones together.
        others: contents of other files, whose end may replace the own one.
    """
    data = bytearray(content)
    done = []
    for _ in range(int(rng.choice([1, 1, 1, 2, 3, 5]))):
        if more and rng.random() < len(more) / (len(more) + 1):
            mutation = more[int(rng.integers(len(more)))]
        else:
            mutation = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        done.append(mutation(data, rng))
    if others and rng.random() < 0.05:
        other = others[int(rng.integers(len(others)))]
        data[_place(data, rng) :] = other[int(rng.integers(len(other))) :]
        done.append("end of another file")
    return bytes(data), ", ".join(done)
