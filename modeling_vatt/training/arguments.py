# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Settings of pretraining."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class PretrainingArguments:
    """Arguments of [`Pretrainer`]; the defaults of the optimisation are the release's.

    Args:
        output_dir: folder of checkpoints, the best model, `metrics.jsonl` and `run.json`, shared by all
            machines.
        num_steps: updates of the whole run. Unless `schedule` is `"cosine"`, a run can be extended with more
            steps in the same folder; it continues from the checkpoint before the decay.
        schedule: after the warm-up `"cosine"` (release), whose rates depend on `num_steps`, `"constant"`, or
            `"wsd"`: constant, then linear down to `final_learning_rate` over `decay_steps`.
        decay_steps: of `"wsd"`.
        resume_from: checkpoint of another run to start from, with optimizer, for example to branch off a
            decay.
        batch_size: clips of an update, over all processes. Every clip is a negative of all others.
        micro_batch_size: clips whose activations a process holds at a time; 0 for all. Gradients are those of
            the whole batch, see [`cached_backward`].
        learning_rate: peak, reached after `warmup_steps`.
        final_learning_rate: reached at the end (not with `"constant"`).
        cosine_period: `"half"` (release) or `"quarter"` (paper).
        optimizer: `"adam"` (release), or `"muon"` for the matrices of linear layers and Adam for the rest
            (not with FSDP).
        adam_beta1, adam_beta2, adam_epsilon, weight_decay: of Adam (decoupled decay if not 0).
        max_grad_norm: clip the norm of the gradient; 0 for none (release).
        ema_decay: evaluate and save the moving average of the weights with this decay, such as 0.999; 0:
            none.
        all_token_steps: number of last steps without DropToken.
        seed: decides clips, windows, augmentation, DropToken and dropout of every step; not negative.
        deterministic: use only algorithms of torch that give the same bits every time.
        num_workers: worker processes that load clips.
        prefetch_factor: batches that each worker process loads ahead.
        shuffle_shards: shards whose clips are mixed at a time, for slow storage; 0 for all (see
            [`shuffle_shards`]).
        group_by, group_size: columns; clips with equal values in all of them come in groups of this size
            (see [`group_alike`]).
        group_from: step from whose epoch on there are groups.
        log_every, eval_every, save_every: in steps; 0 for the end of the run only.
        keep_checkpoints: older ones are deleted; 0 keeps all.
        metric_for_best_model: name among the evaluation's metrics; greater is better.

    Raises:
        ValueError: a value that makes no sense.
    """

    output_dir: str
    num_steps: int = 500_000
    schedule: Literal["cosine", "constant", "wsd"] = "cosine"
    decay_steps: int = 0
    resume_from: str | None = None
    batch_size: int = field(default=2048, metadata={"aliases": ["--global_batch_size"]})
    micro_batch_size: int = 0
    learning_rate: float = 1e-4
    final_learning_rate: float = 5e-5
    warmup_steps: int = 5000
    cosine_period: str = "half"
    optimizer: Literal["adam", "muon"] = "adam"
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-7
    weight_decay: float = 0.0
    max_grad_norm: float = 0.0
    ema_decay: float = 0.0
    all_token_steps: int = 0
    seed: int = 0
    deterministic: bool = False
    num_workers: int = 0
    prefetch_factor: int = 4
    shuffle_shards: int = 0
    group_by: list[str] = field(default_factory=list)
    group_size: int = 16
    group_from: int = 0
    log_every: int = 50
    eval_every: int = 0
    save_every: int = 1000
    keep_checkpoints: int = 2
    metric_for_best_model: str = "mean_recall"

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be above 0, got {getattr(self, name)}.")
        counts = (
            "seed",
            "micro_batch_size",
            "warmup_steps",
            "decay_steps",
            "all_token_steps",
            "num_workers",
            "keep_checkpoints",
        )
        for name in counts:
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}.")
        if self.group_by and self.shuffle_shards:
            raise ValueError("`group_by` and `shuffle_shards` exclude each other: leave one out.")
        if self.metric_for_best_model.endswith(("MedianRank", "loss")):
            raise ValueError(
                f"`metric_for_best_model` {self.metric_for_best_model!r} is better when it is smaller, but "
                "the largest is kept: choose a recall."
            )
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"`ema_decay` must be at least 0 and below 1, got {self.ema_decay}.")
        if self.schedule not in ("cosine", "constant", "wsd"):
            raise ValueError(f'`schedule` must be "cosine", "constant" or "wsd", got {self.schedule!r}.')
        if self.optimizer not in ("adam", "muon"):
            raise ValueError(f'`optimizer` must be "adam" or "muon", got {self.optimizer!r}.')
        if (self.schedule == "wsd") != (self.decay_steps > 0):
            raise ValueError(
                f'`decay_steps` ({self.decay_steps}) belongs to `schedule="wsd"`, which needs 1 or more; '
                f"`schedule` is {self.schedule!r}."
            )
        if self.decay_steps and self.warmup_steps + self.decay_steps > self.num_steps:
            raise ValueError(
                f"`warmup_steps` ({self.warmup_steps}) and `decay_steps` ({self.decay_steps}) are more than "
                f"`num_steps` ({self.num_steps}): shorten them."
            )
