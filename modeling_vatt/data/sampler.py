# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The clips of each training step, as a function of the seed, so that a run can be resumed."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler


# The order of all clips in an epoch, from the random numbers of that epoch.
Order: TypeAlias = Callable[[np.random.Generator], npt.NDArray[np.int64]]


def shuffle_shards(shard_sizes: Sequence[int], together: int) -> Order:
    """An order that reads few shards at a time, for storage with slow random access.

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


def group_alike(keys: Sequence[Hashable], together: int) -> Order:
    """An order in which clips of equal keys come in groups, so that the loss has to tell them apart.

    Args:
        keys: of each clip.
        together: clips of a group; the last one of a key may be smaller.

    Returns:
        The order function for [`StepSampler`].
    """
    if together < 1:
        raise ValueError(f"A group has at least one clip: `together` must be 1 or more, got {together}.")
    places: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)

    def order(random: np.random.Generator) -> npt.NDArray[np.int64]:
        groups = []
        for clips in places.values():
            mixed = random.permutation(clips)
            groups += [mixed[first : first + together] for first in range(0, len(mixed), together)]
        return np.concatenate([groups[place] for place in random.permutation(len(groups))])

    return order


@dataclass(eq=False)
class StepSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, clip index) for the steps from `start_step` to `num_steps`.

    Every epoch is a new order of the clips; its incomplete last batch is left out, so no batch holds a clip
    twice (a clip would be a negative of itself). The epoch travels with the index because it seeds the
    augmentation of that clip.

    Args:
        num_clips: items of the dataset.
        batch_size: clips per step over all processes.
        num_steps: steps of the whole run.
        start_step: first step to deliver (resuming).
        rank, world_size: this process takes every `world_size`-th item of a batch.
        clips_per_video: clips that each item of the dataset holds.
        order: makes the order of an epoch from its random numbers; a permutation of all by default.
        order_from: the first epoch that begins at this step or later is the first one in that order.
    """

    num_clips: int
    batch_size: int
    num_steps: int
    seed: int = 0
    start_step: int = 0
    rank: int = 0
    world_size: int = 1
    clips_per_video: int = 1
    order: Order | None = None
    order_from: int = 0

    def __post_init__(self) -> None:
        if self.batch_size % self.clips_per_video:
            raise ValueError(
                f"A batch of {self.batch_size} clips cannot be made of videos with {self.clips_per_video} "
                f"clips each: use a multiple of {self.clips_per_video}."
            )
        self.items_per_step = self.batch_size // self.clips_per_video
        if self.num_clips < self.items_per_step:
            raise ValueError(
                f"There are {self.num_clips * self.clips_per_video} clips for batches of {self.batch_size}: "
                "use more clips or a smaller batch."
            )
        if self.items_per_step < self.world_size:
            raise ValueError(
                f"The {self.items_per_step} videos of a step cannot be divided among {self.world_size} "
                "processes: use a larger batch or fewer processes."
            )

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
                random = np.random.default_rng((self.seed, epoch))
                if self.order is None or epoch * self.steps_per_epoch < self.order_from:
                    order = random.permutation(self.num_clips)
                else:
                    order = self.order(random)
            first = step % self.steps_per_epoch * self.items_per_step
            batch = order[first : first + self.items_per_step]
            yield [(epoch, int(index)) for index in batch[self.rank :: self.world_size]]


@dataclass(eq=False)
class ChunkSampler(Sampler[list[tuple[int, int]]]):
    """The batches of a sampler in parts of at most `size` items."""

    batches: Iterable[list[tuple[int, int]]]
    size: int

    def count(self, batch: list[tuple[int, int]]) -> int:
        """Parts of a batch."""
        return -(-len(batch) // self.size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self.batches:
            for first in range(0, len(batch), self.size):
                yield batch[first : first + self.size]


@dataclass(eq=False)
class EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, clip index) of all clips, in another order every epoch; `epoch` tells the current one."""

    num_clips: int
    seed: int
    epoch: Callable[[], int]

    def __len__(self) -> int:
        return self.num_clips

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch()
        order = np.random.default_rng((self.seed, epoch)).permutation(self.num_clips)
        yield from ((epoch, int(index)) for index in order)
