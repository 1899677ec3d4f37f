# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Which clips make up which training step: a pure function of the seed, so that a run can be resumed."""

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler


class StepSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, clip index) for the steps from `start_step` to `num_steps`.

    Every epoch is a new permutation of the clips; its incomplete last batch is left out, so no batch holds
    a clip twice (a clip would be a negative of itself). The epoch travels with the index because it seeds
    the augmentation of that clip.

    Args:
        num_clips: clips in the dataset.
        batch_size: clips per step over all processes.
        num_steps: steps of the whole run.
        seed: of the permutations.
        start_step: first step to deliver (resuming).
        rank, world_size: this process takes every `world_size`-th clip of a batch.
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
    ) -> None:
        if num_clips < batch_size:
            raise ValueError(
                f"There are {num_clips} clips for batches of {batch_size}: use more clips or a smaller batch."
            )
        self.num_clips = num_clips
        self.batch_size = batch_size
        self.num_steps = num_steps
        self.seed = seed
        self.start_step = start_step
        self.rank = rank
        self.world_size = world_size

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.num_clips // self.batch_size

    def __len__(self) -> int:
        return max(0, self.num_steps - self.start_step)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = -1, np.empty(0, dtype=np.int64)
        for step in range(self.start_step, self.num_steps):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                order = np.random.default_rng((self.seed, epoch)).permutation(self.num_clips)
            first = step % self.steps_per_epoch * self.batch_size
            batch = order[first : first + self.batch_size]
            yield [(epoch, int(index)) for index in batch[self.rank :: self.world_size]]


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
