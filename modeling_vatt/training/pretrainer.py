# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The pretraining loop: on Accelerate, resumable to the same losses, step for step."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from ..data import (
    ChunkSampler,
    ClipBatch,
    ClipDataset,
    SkippedClip,
    StepSampler,
    collate_clips,
    skip_report,
)
from ..modeling_vatt import VattForPreTraining, VattForPreTrainingOutput
from .checkpoints import begin, checkpoints, commit, read_state, remove_old
from .gradient_cache import average_gradients, cached_backward
from .schedules import get_pretraining_schedule


logger = logging.getLogger(__name__)

LOSS_NAMES = ("loss", "video_audio_loss", "video_text_loss", "audio_text_loss")


@dataclass
class PretrainingArguments:
    """Arguments of [`Pretrainer`]; the defaults of the optimisation are the release's (vatt.md 7.1).

    Args:
        output_dir: folder of checkpoints, the best model and `metrics.jsonl`.
        num_steps: updates of the whole run.
        batch_size: clips of an update, over all processes. Every clip is a negative of all others.
        micro_batch_size: clips of which a process holds activations at a time; 0 for all. Gradients are those
            of the whole batch, see [`cached_backward`].
        learning_rate: peak, reached after `warmup_steps`.
        final_learning_rate: reached at the end.
        cosine_period: `"half"` (release) or `"quarter"` (paper).
        adam_beta1, adam_beta2, adam_epsilon, weight_decay: of Adam (decoupled decay if not 0).
        max_grad_norm: clip the norm of the gradient; 0 for none (release).
        seed: decides clips, windows, augmentation, DropToken and dropout of every step.
        num_workers: worker processes that load clips.
        prefetch_factor: batches that each worker process loads ahead.
        shuffle_shards: shards of which clips are mixed at a time, for storage that is slow at random access;
            0 mixes all (see [`shuffle_shards`]).
        log_every, eval_every, save_every: in steps; 0 for never (evaluation and checkpoint at the end are
            made all the same).
        keep_checkpoints: older ones are deleted.
        metric_for_best_model: name among the evaluation's metrics; greater is better.
    """

    output_dir: str
    num_steps: int = 500_000
    batch_size: int = field(default=2048, metadata={"aliases": ["--global_batch_size"]})
    micro_batch_size: int = 0
    learning_rate: float = 1e-4
    final_learning_rate: float = 5e-5
    warmup_steps: int = 5000
    cosine_period: str = "half"
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-7
    weight_decay: float = 0.0
    max_grad_norm: float = 0.0
    seed: int = 0
    num_workers: int = 0
    prefetch_factor: int = 4
    shuffle_shards: int = 0
    log_every: int = 50
    eval_every: int = 0
    save_every: int = 1000
    keep_checkpoints: int = 2
    metric_for_best_model: str = "mean_recall"


@dataclass
class _Progress:
    """What a checkpoint remembers besides weights and optimizer."""

    step: int = 0
    best_metric: float | None = None
    best_step: int | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    unlogged: list[dict[str, float]] = field(default_factory=list)


class Pretrainer:
    """Trains a [`VattForPreTraining`].

    Every random decision of a step follows from the seed and the step's number, so a run that was killed
    and started again continues from its last checkpoint to the same losses (bit for bit on CPU).

    Args:
        model: the model; trained in place.
        dataset: clips of the training split.
        args: see [`PretrainingArguments`].
        accelerator: device, precision and processes; a plain one by default.
        evaluate: called with the model in evaluation mode, returns metrics.
        save_extra: called with a folder into which the best model was saved, to add the processor.
        on_log: called on the main process with step and metrics.
        on_step: called on the main process with the number of finished steps.
    """

    def __init__(
        self,
        model: VattForPreTraining,
        dataset: ClipDataset,
        args: PretrainingArguments,
        accelerator: Accelerator | None = None,
        evaluate: Callable[[VattForPreTraining], dict[str, float]] | None = None,
        save_extra: Callable[[Path], None] | None = None,
        on_log: Callable[[int, dict[str, float]], None] | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> None:
        self.args = args
        self.dataset = dataset
        self.accelerator = accelerator or Accelerator()
        started = int(os.environ.get("WORLD_SIZE", "1"))
        if started != self.accelerator.num_processes:
            raise ValueError(
                f"{started} processes were started, but Accelerate takes each for a run of its own. Without "
                "GPUs use `accelerate launch --cpu` or set the environment variable ACCELERATE_USE_CPU=1."
            )
        self.evaluate = evaluate
        self.save_extra = save_extra
        self.on_log = on_log
        self.on_step = on_step
        self.output_dir = Path(args.output_dir)
        self.progress = _Progress()
        optimizer = torch.optim.AdamW(
            [parameter for parameter in model.parameters() if parameter.requires_grad],
            lr=args.learning_rate,
            betas=(args.adam_beta1, args.adam_beta2),
            eps=args.adam_epsilon,
            weight_decay=args.weight_decay,
            fused=True,
        )
        final_ratio = args.final_learning_rate / args.learning_rate
        scheduler = get_pretraining_schedule(
            optimizer, args.num_steps, args.warmup_steps, final_ratio, args.cosine_period
        )
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        # Not prepared: Accelerate would step it once per process, but a step here is one global batch.
        self.scheduler = scheduler
        self.accelerator.register_for_checkpointing(scheduler)

    def train(self) -> dict[str, float]:
        """Train to the last step, from the last checkpoint if there is one. Returns the last metrics."""
        self._resume()
        self.model.train()
        metrics: dict[str, float] = {}
        began, clips = time.perf_counter(), 0
        for parts in self._batches():
            step = self.progress.step
            for clip in (clip for part in parts for clip in part.skipped):
                if clip.name not in self.progress.skipped:
                    self.progress.skipped[clip.name] = clip.reason
                    logger.warning("Skipped %s", clip.reason)
            losses = self._step(parts, step)
            if losses:
                self.progress.unlogged.append(losses)
            clips += self.args.batch_size
            self.progress.step = step = step + 1
            last = step == self.args.num_steps
            losses_since = self.progress.unlogged
            if losses_since and (last or _due(step, self.args.log_every)):
                metrics = {
                    name: sum(losses[name] for losses in losses_since) / len(losses_since)
                    for name in losses_since[0]
                }
                metrics["clips_per_second"] = clips / (time.perf_counter() - began)
                metrics["skipped_clips"] = float(len(self.progress.skipped))
                self._log(step, metrics)
                self.progress.unlogged = []
                began, clips = time.perf_counter(), 0
            if self.evaluate is not None and (last or _due(step, self.args.eval_every)):
                metrics |= self._evaluate(step)
                began, clips = time.perf_counter(), 0
            if last or _due(step, self.args.save_every):
                self._save_checkpoint()
            if self.on_step is not None and self.accelerator.is_main_process:
                self.on_step(step)
        return metrics

    def _batches(self) -> Iterator[list[ClipBatch]]:
        """The clips of every step, in parts of the micro batch size."""
        sampler = StepSampler(
            len(self.dataset),
            self.args.batch_size,
            self.args.num_steps,
            self.args.seed,
            self.progress.step,
            self.accelerator.process_index,
            self.accelerator.num_processes,
            self.dataset.clips_per_video,
            self.dataset.order(self.args.shuffle_shards),
        )
        clips = self.args.micro_batch_size or self.args.batch_size
        chunks = ChunkSampler(sampler, max(1, clips // self.dataset.clips_per_video))
        workers = self.args.num_workers
        loader = iter(
            DataLoader(
                self.dataset,
                batch_sampler=chunks,
                collate_fn=collate_clips,
                num_workers=workers,
                pin_memory=self.accelerator.device.type == "cuda",
                prefetch_factor=self.args.prefetch_factor if workers else None,
            )
        )
        for batch in sampler:
            yield [next(loader) for _ in range(chunks.count(batch))]

    def _step(self, parts: list[ClipBatch], step: int) -> dict[str, float]:
        """One update; {} if no clip of the batch could be read."""
        readable = [part for part in parts if part.inputs]
        if not readable:
            if self.accelerator.num_processes > 1:
                raise ValueError(
                    f"Step {step}: no clip of this process's batch can be read, the first because "
                    f"{parts[0].skipped[0].reason}. Remove broken files or enlarge the batch."
                )
            self.scheduler.step()
            return {}
        output = self._backward(readable, step)
        if self.args.max_grad_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.args.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        losses = {name: output[name].detach() for name in LOSS_NAMES if output.get(name) is not None}
        reduced = self.accelerator.reduce(losses, reduction="mean")
        result = {name: float(value) for name, value in reduced.items()}
        result["learning_rate"] = float(self.scheduler.get_last_lr()[0])
        self.scheduler.step()
        return result

    def _backward(self, parts: list[ClipBatch], step: int) -> VattForPreTrainingOutput:
        """Losses of a step, and their gradients."""
        device = self.accelerator.device
        seeds = [
            step_seed(self.args.seed, step, self.accelerator.process_index, part)
            for part in range(len(parts))
        ]
        if not self.args.micro_batch_size:
            torch.manual_seed(seeds[0])
            with self.accelerator.autocast():
                output = self.model(**parts[0].to(device), return_logits=False)
            self.accelerator.backward(output.loss)
            return output
        wrapped = isinstance(self.model, DistributedDataParallel)
        model = self.model.module if wrapped else self.model
        inputs = [partial(part.to, device) for part in parts]
        output = cached_backward(model, inputs, seeds, self.accelerator.backward, self.accelerator.autocast)
        if wrapped:
            average_gradients(model)
        return output

    def _evaluate(self, step: int) -> dict[str, float]:
        model = self.accelerator.unwrap_model(self.model)
        model.eval()
        assert self.evaluate is not None
        metrics = self.evaluate(model)
        model.train()
        self._log(step, metrics)
        value = metrics.get(self.args.metric_for_best_model)
        if value is None:
            raise ValueError(
                f"`metric_for_best_model={self.args.metric_for_best_model!r}` is not among the metrics "
                f"{sorted(metrics)}."
            )
        best = self.progress.best_metric
        if (best is None or value > best) and self.accelerator.is_main_process:
            folder = begin(self.output_dir / "best")
            model.save_pretrained(folder)
            if self.save_extra is not None:
                self.save_extra(folder)
            commit(self.output_dir / "best", {"step": step, "metrics": metrics})
        if best is None or value > best:
            self.progress.best_metric, self.progress.best_step = value, step
        return metrics

    def _log(self, step: int, metrics: dict[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        with (self.output_dir / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
        if self.on_log is not None:
            self.on_log(step, metrics)

    def _save_checkpoint(self) -> None:
        target = self.output_dir / f"checkpoint-{self.progress.step}"
        main = self.accelerator.is_main_process
        if main:
            begin(target)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(f"{target}.partial")
        self.accelerator.wait_for_everyone()
        if main:
            commit(target, {"progress": vars(self.progress), "arguments": self._fingerprint()})
            remove_old(self.output_dir, self.args.keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def _fingerprint(self) -> dict[str, Any]:
        """What must not change between the parts of a run."""
        names = (
            "num_steps",
            "batch_size",
            "micro_batch_size",
            "learning_rate",
            "final_learning_rate",
            "warmup_steps",
            "seed",
            "shuffle_shards",
        )
        model = self.accelerator.unwrap_model(self.model)
        return {
            **{name: getattr(self.args, name) for name in names},
            "num_clips": len(self.dataset),
            "clips_per_video": self.dataset.clips_per_video,
            "data": self.dataset.fingerprint,
            "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        }

    def _resume(self) -> None:
        self.output_dir.mkdir(parents=True, exist_ok=True)
        found = checkpoints(self.output_dir)
        metrics_file = self.output_dir / "metrics.jsonl"
        if not found:
            if self.accelerator.is_main_process:
                metrics_file.unlink(missing_ok=True)
            return
        state = read_state(found[-1])
        now = self._fingerprint()
        changed = [name for name, value in state["arguments"].items() if now[name] != value]
        if changed:
            raise ValueError(
                f"{found[-1]} was written with other arguments "
                + ", ".join(f"{name}={state['arguments'][name]} (now {now[name]})" for name in changed)
                + ": use them again, or choose another output folder."
            )
        self.accelerator.load_state(str(found[-1]))
        self.progress = _Progress(**state["progress"])
        logger.info("Continuing from %s", found[-1])
        if self.accelerator.is_main_process and metrics_file.exists():
            lines = [line for line in metrics_file.read_text().splitlines() if line.endswith("}")]
            kept = [line for line in lines if json.loads(line)["step"] <= self.progress.step]
            metrics_file.write_text("".join(line + "\n" for line in kept))

    def skip_report(self, already: Sequence[SkippedClip] = ()) -> str:
        """What could not be read, for the end of a run; empty if everything could.

        Args:
            already: clips that were left out before training.
        """
        skipped = {**{clip.name: clip.reason for clip in already}, **self.progress.skipped}
        return skip_report(skipped, len(self.dataset) + len(already))


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def step_seed(seed: int, step: int, rank: int, part: int = 0) -> int:
    """Distinct streams for dropout and DropToken of every step, process and part of a batch, and of resumed
    runs the same."""
    return ((seed * 1_000_003 + step) * 4099 + rank) * 8209 + part
