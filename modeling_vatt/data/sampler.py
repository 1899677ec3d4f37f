# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Which clips make up which training step: a pure function of the seed, so that a run can be resumed."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler


# The order of all clips in an epoch, from the random numbers of that epoch.
Order: TypeAlias = Callable[[np.random.Generator], npt.NDArray[np.int64]]


def shuffle_shards(shard_sizes: Sequence[int], together: int) -> Order:
    """An order that reads few shards at a time, for disks and networks that are slow at random access.

    The shards are shuffled; then the clips of every `together` consecutive ones are shuffled.

    Args:
        shard_sizes: clips of each shard, in the order of the clips.
        together: shards that are mixed.

    Returns:
        The order function for [`StepSampler`].
    """
    if together < 1:
        raise ValueError(
            f"At least one shard is read at a time: `together` must be 1 or more, got {together}."
        )
    ends = np.cumsum(shard_sizes)

    def order(random: np.random.Generator) -> npt.NDArray[np.int64]:
        shards = random.permutation(len(ends))
        parts = []
        for first in range(0, len(shards), together):
            mixed = shards[first : first + together]
            clips = [np.arange(ends[shard] - shard_sizes[shard], ends[shard]) for shard in mixed]
            parts.append(random.permutation(np.concatenate(clips)))
        return np.concatenate(parts)

    return order


class StepSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, clip index) for the steps from `start_step` to `num_steps`.

    Every epoch is a new order of the clips; its incomplete last batch is left out, so no batch holds a clip
    twice (a clip would be a negative of itself). The epoch travels with the index because it seeds the
    augmentation of that clip.

    Args:
        num_clips: items of the dataset.
        batch_size: clips per step over all processes.
        num_steps: steps of the whole run.
        seed: of the orders.
        start_step: first step to deliver (resuming).
        rank, world_size: this process takes every `world_size`-th item of a batch.
        clips_per_video: clips that each item of the dataset holds.
        order: makes the order of an epoch from its random numbers; a permutation of all by default.
    """

    def __init__(
        self,
        num_clips: int,
        batch_size: int,
        num_steps: int,
        seed: int = 0,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
        clips_per_video: int = 1,
        order: Order | None = None,
    ) -> None:
        if batch_size % clips_per_video:
            raise ValueError(
                f"A batch of {batch_size} clips cannot be made of videos with {clips_per_video} clips each: "
                f"use a multiple of {clips_per_video}."
            )
        self.items_per_step = batch_size // clips_per_video
        if num_clips < self.items_per_step:
            raise ValueError(
                f"There are {num_clips * clips_per_video} clips for batches of {batch_size}: use more clips "
                "or a smaller batch."
            )
        if self.items_per_step < world_size:
            raise ValueError(
                f"The {self.items_per_step} videos of a step cannot be divided among {world_size} processes: "
                "use a larger batch or fewer processes."
            )
        self.num_clips = num_clips
        self.batch_size = batch_size
        self.num_steps = num_steps
        self.seed = seed
        self.start_step = start_step
        self.rank = rank
        self.world_size = world_size
        self.order: Order = order or (lambda random: random.permutation(num_clips))

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.num_clips // self.items_per_step

    def __len__(self) -> int:
        return max(0, self.num_steps - self.start_step)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = -1, np.empty(0, dtype=np.int64)
        for step in range(self.start_step, self.num_steps):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                order = self.order(np.random.default_rng((self.seed, epoch)))
            first = step % self.steps_per_epoch * self.items_per_step
            batch = order[first : first + self.items_per_step]
            yield [(epoch, int(index)) for index in batch[self.rank :: self.world_size]]


class ChunkSampler(Sampler[list[tuple[int, int]]]):
    """The batches of a sampler, one after the other, in parts of at most `size` items."""

    def __init__(self, batches: Iterable[list[tuple[int, int]]], size: int) -> None:
        self.batches = batches
        self.size = size

    def count(self, batch: list[tuple[int, int]]) -> int:
        """Parts of a batch."""
        return -(-len(batch) // self.size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self.batches:
            for first in range(0, len(batch), self.size):
                yield batch[first : first + self.size]


class EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, clip index) of all clips, every epoch in another order.

    Args:
        num_clips: clips in the dataset.
        seed: of the orders.
        epoch: tells the current epoch, so that a resumed run begins with the right one.
    """

    def __init__(self, num_clips: int, seed: int, epoch: Callable[[], int]) -> None:
        self.num_clips = num_clips
        self.seed = seed
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_clips

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch()
        order = np.random.default_rng((self.seed, epoch)).permutation(self.num_clips)
        yield from ((epoch, int(index)) for index in order)
