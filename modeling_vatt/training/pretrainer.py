# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The pretraining loop: on Accelerate, resumable to the same losses, step for step."""

import errno
import json
import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list, gather_object
from safetensors import SafetensorError
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from ..data import (
    ChunkSampler,
    ClipBatch,
    ClipDataset,
    SkippedClip,
    StepSampler,
    clip_name,
    collate_clips,
    skip_report,
)
from ..models.adapters import merged_state_dict
from ..models.embeddings import VattPatchEmbeddings
from ..models.locking import hash_locked
from ..models.modeling_vatt import INPUT_NAMES, VattForPreTraining, VattForPreTrainingOutput
from .arguments import PretrainingArguments
from .averaging import WeightAverage
from .checkpoints import begin, commit, read_state, remove_old
from .continuing import check_unchanged, forget_others, run_fingerprint, starting_point
from .faults import TrainingError, explain, is_worker_death, quiet_worker
from .gradient_cache import average_gradients, cached_backward
from .optimizers import pretraining_optimizer
from .run import Run, SkippedClips, step_seed, sum_over_processes
from .run_record import copy_run_record, seed_everything, seed_step
from .schedules import get_pretraining_schedule, steps_before_decay, warn_of_long_warmup


logger = logging.getLogger(__name__)

LOSS_NAMES = ("loss", "video_audio_loss", "video_text_loss", "audio_text_loss")
# Deaths of worker processes at the same step before the run gives up.
_WORKER_DEATHS = 3
# Errors of reading that are not the file's fault.
_UNREADABLE = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN)
# Inputs of the model, by modality.
_INPUTS = {modality: (name, f"{modality}_pooler_output") for modality, name in INPUT_NAMES.items()}


@dataclass
class _Progress:
    """What a checkpoint remembers besides weights and optimizer."""

    step: int = 0
    best_metric: float | None = None
    best_step: int | None = None
    skipped: SkippedClips = field(default_factory=SkippedClips)
    # Sums not yet logged, and the number of steps in each.
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.skipped = SkippedClips(self.skipped)

    def add(self, values: dict[str, float]) -> None:
        """Add the values of a step."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def take_means(self) -> dict[str, float]:
        """Means since the last call."""
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means


def step_sampler(
    args: PretrainingArguments, dataset: ClipDataset, start_step: int = 0, rank: int = 0, world_size: int = 1
) -> StepSampler:
    """The clips of each step of a run, see [`StepSampler`]; ValueError if they cannot fill a batch."""
    grouped = dataset.group_order(args.group_by, args.group_size) if args.group_by else None
    return StepSampler(
        len(dataset),
        args.batch_size,
        args.num_steps,
        args.seed,
        start_step,
        rank,
        world_size,
        dataset.clips_per_video,
        grouped or dataset.order(args.shuffle_shards),
        args.group_from,
    )


class Pretrainer:
    """Trains a [`VattForPreTraining`].

    All randomness of a step follows from the seed and the step's number, so a run that was killed continues
    from its last checkpoint to the same losses (bit for bit on CPU).

    On SIGTERM, SIGINT or SIGUSR1 all processes write a checkpoint after the same step, and [`RunStopped`] is
    raised. NaN ends the run before it reaches the weights. Dead workers of the loader are replaced. A failure
    of disk, memory or a process ends the run with [`TrainingError`]; its last checkpoint stays complete.

    Args:
        model: the model; trained in place.
        dataset: clips of the training split.
        args: see [`PretrainingArguments`].
        accelerator: device, precision and processes; a plain one by default.
        evaluate: called on all processes with the model in evaluation mode; the metrics that the main process
            returns are used.
        save_extra: called with the folder of the best model, to add the processor.
        on_log: called on the main process with step and metrics.
        on_step: called on the main process with the number of finished steps.
        settings: of the run beyond `args`, for `run.json`.
        locked: result of [`hash_locked`], if it is known.
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
        settings: dict[str, Any] | None = None,
        locked: dict[str, str] | None = None,
    ) -> None:
        if args.deterministic:
            seed_everything(args.seed, deterministic=True)
        self.args = args
        self.dataset = dataset
        self.accelerator = accelerator or Accelerator()
        started = int(os.environ.get("WORLD_SIZE", "1"))
        if started != self.accelerator.num_processes:
            raise ValueError(
                f"{started} processes were started, but Accelerate takes each for a run of its own. Without "
                "GPUs use `accelerate launch --cpu` or set the environment variable ACCELERATE_USE_CPU=1."
            )
        if self.accelerator.gradient_accumulation_steps != 1:  # which would only divide the gradient
            raise ValueError(
                "Pretraining accumulates no gradients, as all clips of a batch are compared: leave "
                "`gradient_accumulation_steps` of Accelerate at 1, and let `micro_batch_size` save memory."
            )
        self.evaluate = evaluate
        self.save_extra = save_extra
        self.on_log = on_log
        self.on_step = on_step
        self.settings = settings or {}
        self.output_dir = Path(args.output_dir)
        self.progress = _Progress()
        self.run = Run(self.output_dir, lambda: (self.progress.step, args.num_steps), "--save_every")
        self._saved_step: int | None = None
        optimizer = pretraining_optimizer(
            args.optimizer,
            model,
            args.learning_rate,
            (args.adam_beta1, args.adam_beta2),
            args.adam_epsilon,
            args.weight_decay,
        )
        final_ratio = args.final_learning_rate / args.learning_rate
        scheduler = get_pretraining_schedule(
            optimizer,
            args.num_steps,
            args.warmup_steps,
            final_ratio,
            args.cosine_period,
            args.schedule,
            args.decay_steps,
        )
        if locked is None and self.accelerator.is_main_process:
            locked = hash_locked(model)
        self._locked: dict[str, str] = broadcast_object_list([locked])[0]
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        if self.accelerator.distributed_type == DistributedType.FSDP:
            if args.ema_decay:
                raise ValueError("`ema_decay` is for whole models, not for FSDP: leave it at 0.")
            if args.optimizer == "muon":
                raise ValueError(
                    '`optimizer="muon"` is for whole matrices, not for FSDP\'s parts: use "adam".'
                )
        self.average = (
            WeightAverage(self.accelerator.unwrap_model(self.model), args.ema_decay)
            if args.ema_decay
            else None
        )
        # Not prepared, as Accelerate would step it once per process; not registered, as it would unpickle
        # whatever is in the checkpoint.
        self.scheduler = scheduler

    def train(self) -> dict[str, float]:
        """Train to the last step, from the last checkpoint if there is one. Returns the last metrics.

        Raises:
            RunStopped: a signal asked for it; a checkpoint was written.
            NonFiniteLossError: loss or gradient is NaN or infinite.
            TrainingError: disk, memory or another process failed, or they see different checkpoints.
            ValueError: the checkpoint is of other arguments or data; or one of several processes can read no
                clip of its batch.
        """
        advice = (
            f"Let a process hold fewer clips at once (--micro_batch_size, now {self.args.micro_batch_size}), "
            "keep fewer activations (--gradient_checkpointing full), give clips fewer captions "
            "(--num_captions), or use a smaller --batch_size."
        )
        with self.run.guarded(advice):
            self._resume()
            return self._train()

    def _train(self) -> dict[str, float]:
        if self.accelerator.is_main_process:
            self._warn()
        self.model.train()
        metrics = self._logged()
        began, clips = time.perf_counter(), 0
        batches = self._live_batches()
        while self.progress.step < self.args.num_steps:
            step = self.progress.step
            parts = next(batches)
            if self._stop(parts):
                self._save_checkpoint()
                raise self.run.stopped()
            assert parts is not None
            self._set_drop_token(step)
            self.progress.add(self._step(parts, step))
            clips += self.args.batch_size
            self.progress.step = step = step + 1
            last = step == self.args.num_steps
            if self.progress.sums and (last or _due(step, self.args.log_every)):
                metrics = self.progress.take_means()
                metrics["clips_per_second"] = clips / (time.perf_counter() - began)
                metrics["skipped_clips"] = float(len(self.progress.skipped))
                self._log(step, metrics)
                began, clips = time.perf_counter(), 0
            if self.evaluate is not None and (last or _due(step, self.args.eval_every)):
                metrics |= self._evaluate(step)
                began, clips = time.perf_counter(), 0
            if last or _due(step, self.args.save_every) or step == self._decay_start:
                self._save_checkpoint()
            if self.on_step is not None and self.accelerator.is_main_process:
                self.on_step(step)
        if self.progress.skipped and not self.optimizer.state:
            reason = next(iter(self.progress.skipped.values()))
            raise TrainingError(
                f"Nothing was learnt, no clip could be read; the first because {reason} Check the files and "
                "the limits of media, and begin anew in another folder."
            )
        if self.average is not None:
            self.average.apply()
        return metrics

    def _logged(self) -> dict[str, float]:
        """Metrics of the last step of a finished run; {} for others."""
        file = self.output_dir / "metrics.jsonl"
        metrics: dict[str, float] = {}
        if self.progress.step == self.args.num_steps and file.is_file():
            for line in map(json.loads, file.read_text().splitlines()):
                if line.pop("step") == self.progress.step:
                    metrics |= line
        return metrics

    def _set_drop_token(self, step: int) -> None:
        """Switch DropToken off for the last steps."""
        for module in self.accelerator.unwrap_model(self.model).modules():
            if isinstance(module, VattPatchEmbeddings):
                module.drops_tokens = step < self.args.num_steps - self.args.all_token_steps

    @property
    def _decay_start(self) -> int | None:
        """The step from whose checkpoint the run can be extended."""
        start = steps_before_decay(vars(self.args))
        return start if 0 <= start < self.args.num_steps else None

    def _warn(self) -> None:
        """Warn of settings that are probably mistakes."""
        if self.args.batch_size == 1:
            logger.warning("A batch of 1 clip has no negatives, so nothing is learnt: enlarge --batch_size.")
        warn_of_long_warmup(self.args.warmup_steps, self.args.num_steps, self.args.learning_rate)

    def _stop(self, parts: list[ClipBatch] | None) -> bool:
        """Whether the run is to stop. All processes learn which clips could not be read, and raise if one of
        them has nothing to train on, or lacks a modality that another has."""
        new = self.progress.skipped.add(clip for part in parts or () for clip in part.skipped)
        readable = [part.inputs for part in parts or () if part.inputs]
        empty = parts is not None and not readable
        there_is = [
            [not inputs.keys().isdisjoint(names) for inputs in readable] for names in _INPUTS.values()
        ]
        present = [any(known) for known in there_is]
        absent = [not all(known) for known in there_is]
        wanted = self.run.signals.received is not None or parts is None
        stop, anyone_empty, anyone_new, *counts = sum_over_processes(
            wanted, empty, bool(new), *present, *absent
        )
        if anyone_new:
            self.progress.skipped.share(new)
        if anyone_empty and not stop and self.accelerator.num_processes > 1:
            self.run.refuse_unreadable(self.progress.step + 1, anyone_empty, self.progress.skipped)
        mixed = [name for place, name in enumerate(_INPUTS) if counts[place] and counts[place + len(_INPUTS)]]
        if mixed and not stop:
            lacking = [name for place, name in enumerate(_INPUTS) if absent[place]]
            raise ValueError(
                f"Step {self.progress.step + 1}: only some of the clips have {' and '.join(mixed)} "
                f"(process {self.accelerator.process_index} lacks: {', '.join(lacking) or 'nothing'}), but "
                "the loss compares the clips of all processes. Give every process the same modalities, with "
                "`audio_mask` and `text_mask` for clips without sound or text."
            )
        return bool(stop)

    def _sampler(self) -> StepSampler:
        """Clips of the steps from here on."""
        ranks = self.accelerator.process_index, self.accelerator.num_processes
        return step_sampler(self.args, self.dataset, self.progress.step, *ranks)

    def _batches(self) -> Iterator[list[ClipBatch]]:
        """The clips of every step from here on, in parts of the micro batch size."""
        sampler = self._sampler()
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
                worker_init_fn=quiet_worker,
            )
        )
        for batch in sampler:
            yield [next(loader) for _ in range(chunks.count(batch))]

    def _live_batches(self) -> Iterator[list[ClipBatch] | None]:
        """As [`_batches`], with new workers after a death; None if the run is being stopped."""
        deaths, died_at = 0, -1
        batches = self._batches()
        while True:
            try:
                parts = next(batches)
                self.run.signals.keep_loader_quiet()
                yield parts
            except StopIteration:
                return
            except (RuntimeError, EOFError, OSError) as error:
                if not is_worker_death(error):
                    raise
                if self.run.signals.received is not None:
                    yield None
                    return
                step = self.progress.step
                deaths, died_at = (deaths + 1 if step == died_at else 1), step
                if deaths >= _WORKER_DEATHS:
                    logger.error(
                        "Workers died %d times at step %d: %s", deaths, step + 1, self._names_of_step()
                    )
                    raise
                logger.warning("Step %d: a worker died (%r). Starting the workers anew.", step + 1, error)
                batches = self._batches()

    def _names_of_step(self) -> list[str]:
        """Names of the clips of this process in the next step."""
        batch = next(iter(self._sampler()))
        return [clip_name(self.dataset.clips, index) for _, index in batch]

    def _step(self, parts: list[ClipBatch], step: int) -> dict[str, float]:
        """One update; {} if no clip of the batch could be read."""
        readable = [part for part in parts if part.inputs]
        if not readable:
            with warnings.catch_warnings():  # the rate changes without a step on purpose
                warnings.simplefilter("ignore", UserWarning)
                self.scheduler.step()
            return {}
        output = self._backward(readable, step)
        norm = self._clip_gradient()
        assert output.loss is not None
        # One collective: sums of losses, how many processes have them, and whether anything is not finite.
        kind = torch.promote_types(output.loss.dtype, torch.float32)
        found = [output.get(name) for name in LOSS_NAMES]
        present = torch.tensor([loss is not None for loss in found], dtype=kind, device=output.loss.device)
        losses = torch.stack([output.loss.new_zeros(()) if loss is None else loss.detach() for loss in found])
        finite = losses.isfinite().all() & (norm is None or norm.isfinite())
        row = torch.cat([losses.to(kind), present, (~finite).to(kind)[None]])
        total = self.accelerator.reduce(row, reduction="sum").tolist()
        if total[-1]:
            self._refuse_non_finite(step, losses.tolist(), norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(step)
        if self.accelerator.optimizer_step_was_skipped:
            logger.warning(
                "Step %d: the gradient overflows in fp16; no update, the scale is lowered.", step + 1
            )
        self.optimizer.zero_grad()
        count = len(LOSS_NAMES)
        result = {
            name: total[place] / total[count + place]
            for place, name in enumerate(LOSS_NAMES)
            if total[count + place]
        }
        if norm is not None:
            result["grad_norm"] = float(norm)
        result["learning_rate"] = float(self.scheduler.get_last_lr()[0])
        self.scheduler.step()
        return result

    def _clip_gradient(self) -> torch.Tensor | None:
        """Clip the gradient if asked for; its norm, None under fp16, where overflow only skips an update."""
        if self.args.max_grad_norm:
            norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.args.max_grad_norm)
        elif self.accelerator.scaler is None:
            grads = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
            norm = torch.nn.utils.get_total_norm(grads)
        if self.accelerator.scaler is not None:
            return None
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def _refuse_non_finite(self, step: int, values: list[float], norm: torch.Tensor | None) -> None:
        """Raise on all processes; the clips of the batch are written to a file."""
        losses = dict(zip(LOSS_NAMES, values, strict=True))
        size = None if norm is None else float(norm)
        names = sorted(gather_object(self._names_of_step()))
        weights = {name for name, p in self.model.named_parameters() if not bool(p.detach().isfinite().all())}
        what = ", ".join(f"{name} {value:.3g}" for name, value in losses.items() if not math.isfinite(value))
        self.run.refuse_non_finite(
            step + 1,
            what or f"the gradient (norm {size})",
            names,
            "set --max_grad_norm; with --mixed_precision fp16 try bf16",
            {"losses": losses, "grad_norm": size, "weights": sorted(weights)},
        )

    def _backward(self, parts: list[ClipBatch], step: int) -> VattForPreTrainingOutput:
        """Losses of a step, and their gradients."""
        device = self.accelerator.device
        seeds = [
            step_seed(self.args.seed, step, self.accelerator.process_index, part)
            for part in range(len(parts))
        ]
        if not self.args.micro_batch_size:
            seed_step(seeds[0])
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
        with self.average.applied() if self.average is not None else nullcontext():
            return self._evaluate_and_keep(step)

    def _evaluate_and_keep(self, step: int) -> dict[str, float]:
        model = self.accelerator.unwrap_model(self.model)
        model.eval()
        assert self.evaluate is not None
        found = [self.evaluate(model)]
        model.train()
        metrics: dict[str, float] = broadcast_object_list(found)[0]  # so that all agree on the best
        self._log(step, metrics)
        value = metrics.get(self.args.metric_for_best_model)
        if value is None:
            raise ValueError(
                f"`metric_for_best_model={self.args.metric_for_best_model!r}` is not among the metrics "
                f"{sorted(metrics)}: choose one of them."
            )
        best = self.progress.best_metric
        if best is None or math.isnan(best) or value > best:
            weights = self.whole_weights()
            if self.accelerator.is_main_process:
                folder = begin(self.output_dir / "best")
                model.save_pretrained(folder, state_dict=weights)
                if self.save_extra is not None:
                    self.save_extra(folder)
                commit(self.output_dir / "best", {"step": step, "metrics": metrics})
            self.progress.best_metric, self.progress.best_step = value, step
        return metrics

    def whole_weights(self) -> dict[str, torch.Tensor] | None:
        """`state_dict` for `save_pretrained`, gathered under FSDP (all processes call it); otherwise that of
        [`merged_state_dict`]."""
        if self.accelerator.distributed_type != DistributedType.FSDP:
            return merged_state_dict(self.accelerator.unwrap_model(self.model))
        return self.accelerator.get_state_dict(self.model)

    def _log(self, step: int, metrics: dict[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        with (self.output_dir / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
        if self.on_log is not None:
            self.on_log(step, metrics)

    def _save_checkpoint(self) -> None:
        if self.progress.step == self._saved_step:  # already written
            return
        target = self.output_dir / f"checkpoint-{self.progress.step}"
        partial = Path(f"{target}.partial")

        def finish() -> None:
            copy_run_record(self.output_dir, partial)
            state = {"progress": vars(self.progress), "scheduler": self.scheduler.state_dict()}
            commit(target, {**state, "arguments": self._fingerprint})
            start = self.output_dir / f"checkpoint-{self._decay_start}"
            also = start if start.is_dir() else None
            remove_old(self.output_dir, self.args.keep_checkpoints, also=also)

        self.run.write_checkpoint(
            target,
            partial,
            self.accelerator.is_main_process,
            begin=lambda: begin(target),
            fill=lambda: self._fill(partial),
            finish=finish,
        )
        self._saved_step = self.progress.step

    def _fill(self, folder: Path) -> None:
        self.accelerator.save_state(str(folder))
        if self.average is not None and self.accelerator.is_main_process:
            self.average.save(folder)

    @cached_property
    def _fingerprint(self) -> dict[str, Any]:
        model = self.accelerator.unwrap_model(self.model)
        return run_fingerprint(self.args, self.dataset, model, self.accelerator.mixed_precision, self._locked)

    def _resume(self) -> None:
        self.run.prepare_folder()
        self.accelerator.wait_for_everyone()
        found = self.run.checkpoints()
        seen = gather_object([found[-1].name if found else "none"])
        if len(set(seen)) > 1:
            listed = ", ".join(f"process {rank}: {name}" for rank, name in enumerate(seen))
            raise TrainingError(
                f"The processes find different checkpoints in {self.output_dir} ({listed}): let them share "
                "one output folder, or bring its files to all machines."
            )
        start = starting_point(self.args, found)
        if start is not None:
            self._load(start)
            logger.info("Continuing from %s", start)
        if found == [] and start is not None:  # of another run: what it saved is not here
            self.progress.best_metric = self.progress.best_step = self._saved_step = None
        self.accelerator.wait_for_everyone()  # all have read the checkpoints
        if self.accelerator.is_main_process:
            forget_others(self.output_dir, found, self.progress.step, self.progress.best_step)
        self.accelerator.wait_for_everyone()
        self.run.record(
            "pretraining",
            self.accelerator.unwrap_model(self.model).config,
            {"PretrainingArguments": self.args, **self.settings},
            {"clips": len(self.dataset), "fingerprint": self._fingerprint["data"]},
            self.progress.step,
            new=not found,
        )

    def _load(self, checkpoint: Path) -> None:
        state = read_state(checkpoint)
        check_unchanged(self.args, checkpoint, state, self._fingerprint)
        try:
            self.accelerator.load_state(str(checkpoint))
            if self.average is not None:
                self.average.load(checkpoint)
            self.scheduler.load_state_dict(state["scheduler"])
            self.progress = _Progress(**state["progress"])
            self._saved_step = self.progress.step
        except (OSError, EOFError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
            if isinstance(error, OSError) and error.errno in _UNREADABLE:
                raise TrainingError(
                    f"{checkpoint} cannot be read ({error}). It may be whole: see to its rights and its "
                    "disk, then the same command continues from it."
                ) from error
            # Memory, open files, another process or the device: not the checkpoint's fault.
            if explain(error, self.output_dir, "") is not None or "CUDA error" in str(error):
                raise
            raise TrainingError(
                f"{checkpoint} cannot be read ({error}). Delete it: the run continues from the one before."
            ) from error

    def skip_report(self, already: Sequence[SkippedClip] = ()) -> str:
        """Report of clips that could not be read, with those skipped `already`; empty if there are none."""
        skipped = {**{clip.name: clip.reason for clip in already}, **self.progress.skipped}
        return skip_report(skipped, len(self.dataset) + len(already))


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
