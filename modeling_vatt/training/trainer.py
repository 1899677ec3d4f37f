# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of the classifiers: a Trainer that resumes to the same weights.

Sources: paper sections 4.1, 4.2 and A.2; official modules `VideoFinetune` and `AudioFinetune`.
"""

import logging
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import BatchFeature, Trainer, TrainerCallback, TrainerControl, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import EvalLoopOutput, EvalPrediction, TrainOutput

from ..data import EpochSampler, LabelledDataset, SkippedClip, collate_clips
from ..models.classification import VattClassifier
from .checkpoints import checkpoints, put_in_place, recover, remove_old
from .faults import is_worker_death, quiet_worker
from .run import Run, SkippedClips, step_seed, sum_over_processes
from .run_record import copy_run_record, seed_step, table_fingerprint
from .schedules import warn_of_long_warmup


logger = logging.getLogger(__name__)

# Class id of a clip that cannot be read; cross-entropy leaves it out too.
_UNREAD = -100


@dataclass
class FinetuningArguments(TrainingArguments):
    """`TrainingArguments` with further settings of the recipes.

    `max_grad_norm` clips the backbone's gradient. `label_smoothing_factor` works with mixup, but not with
    several labels per clip. `data_seed` (or `seed`) decides the order of the clips, `seed` dropout, DropToken
    and mixup of every step.

    Args:
        classifier_max_grad_norm: limit of the classifier's gradient norm; 0 for none.
        mixup_alpha: mix every clip with another one of its batch in shares from Beta(alpha, alpha).
    """

    max_grad_norm: float = field(
        default=0.75, metadata={"help": "Of the backbone's gradient; 0: none at all."}
    )
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Schedule after the warm-up."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Leave it off."})
    classifier_max_grad_norm: float = field(
        default=0.0, metadata={"help": "Of the classifier's gradient, clipped apart; 0: none."}
    )
    mixup_alpha: float = field(
        default=0.0, metadata={"help": "Mixup with shares from Beta(alpha, alpha); 0: none."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mixup_alpha < 0:
            raise ValueError(f"`mixup_alpha` must not be negative, got {self.mixup_alpha}.")
        if self.classifier_max_grad_norm and not self.max_grad_norm:
            raise ValueError(
                "`classifier_max_grad_norm` needs `max_grad_norm`: give a large one for no limit."
            )

    def __getstate__(self) -> dict[str, Any]:
        """Without tokens: the Trainer pickles its arguments into every checkpoint, and uploads them."""
        return {name: None if name.endswith("_token") else value for name, value in vars(self).items()}


def mixup(inputs: torch.Tensor, targets: torch.Tensor, alpha: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Each clip of a batch mixed with another one (by a permutation), with one share per clip from
    Beta(alpha, alpha). Draws from torch's global CPU generator.

    Args:
        inputs: (batch, ...).
        targets: (batch, classes).
    """
    share = torch.distributions.Beta(alpha, alpha).sample((len(inputs),)).to(inputs.device)
    partner = torch.randperm(len(inputs)).to(inputs.device)
    mixed = []
    for values in (inputs, targets):
        part = share.to(values.dtype).view(-1, *(1,) * (values.ndim - 1))
        mixed.append(part * values + (1 - part) * values[partner])
    return mixed[0], mixed[1]


def smooth_labels(targets: torch.Tensor, smoothing: float) -> torch.Tensor:
    """(batch, classes) shares, with `smoothing` of each spread over all classes."""
    return (1 - smoothing) * targets + smoothing / targets.shape[-1]


def collate_labelled(items: Sequence[BatchFeature | SkippedClip]) -> dict[str, Any]:
    """Items of a [`LabelledDataset`] stacked, and under `skipped` the clips that were left out; if there are
    any, `readable` (items,) bool says which were read."""
    batch = collate_clips(items)
    found = {**batch.inputs, "skipped": batch.skipped}
    if batch.skipped:
        found["readable"] = torch.tensor([not isinstance(item, SkippedClip) for item in items])
    return found


class VattTrainer(Trainer):
    """transformers' Trainer for the classifiers on a [`LabelledDataset`].

    It adds:

    - All randomness of a step follows from the seeds and the step's number, so a run that was killed and
      resumed from its last checkpoint (see [`last_checkpoint`]) ends with the same weights (bit for bit on
      CPU).
    - The gradients of backbone and classifier are clipped separately. The release clips each replica's
      gradient before the sum over R replicas; here the averaged gradient is clipped, which is the same for R
      = 1 and up to R times stricter otherwise.
    - Label smoothing and mixup on soft targets. Evaluation's loss is that of the true labels, computed like
      the metrics on the predictions of all clips, each counted once in any number of processes.
    - Clips that cannot be read are left out of their batch, in training and evaluation, and collected in
      `skipped` of all processes and in the file `skipped.jsonl` of the output folder.
    - Checkpoints, signals, NaN, failures and `run.json` are handled as by [`Pretrainer`], but dead workers of
      the loader end the run.

    Args:
        model: a classifier, whose `config.problem_type` says whether clips have several labels (see
            [`finetuning_config`]).
        args: settings.
        settings: of the run beyond `args`, for `run.json`.
        kwargs: of `Trainer`.

    Attributes:
        skipped: name of a clip -> reason.
    """

    args: FinetuningArguments
    _saving: Path | None = None  # folder of the checkpoint that is being written

    def __init__(
        self,
        model: VattClassifier,
        args: FinetuningArguments,
        settings: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        problem = model.config.problem_type
        if (args.label_smoothing_factor or args.mixup_alpha) and problem is None:
            raise ValueError("Label smoothing and mixup need to know `problem_type`: set it in the config.")
        if args.label_smoothing_factor and problem == "multi_label_classification":
            raise ValueError("Label smoothing is for one label per clip: set `label_smoothing_factor=0`.")
        if args.batch_eval_metrics or not args.eval_do_concat_batches:
            raise ValueError(
                "Loss and metrics are those of all clips together: leave `batch_eval_metrics` off and "
                "`eval_do_concat_batches` on."
            )
        super().__init__(model, args, **{"data_collator": collate_labelled, **kwargs})
        folder = Path(args.output_dir or ".")
        self.skipped = SkippedClips(file=folder / "skipped.jsonl")
        self.run = Run(
            folder, lambda: (self.state.global_step, self.state.max_steps), "--save_steps", TRAINER_STATE_NAME
        )
        self._input_name = model.main_input_name
        self._num_labels = int(model.config.num_labels)
        self._micro_step = (-1, 0)
        self._stopped = False
        self._push = False
        self.settings = settings or {}
        self.add_callback(_StopOnSignal(self))

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """See `Trainer`; a resumed run remembers skipped clips, and a finished run is not trained further."""
        self.skipped.begin(continued=bool(resume_from_checkpoint))
        self._micro_step = (-1, 0)
        begun = 0
        if isinstance(resume_from_checkpoint, str):
            state = TrainerState.load_from_json(str(Path(resume_from_checkpoint) / TRAINER_STATE_NAME))
            begun = state.global_step
            if begun >= state.max_steps > 0:  # transformers would make one more step
                self._load_from_checkpoint(resume_from_checkpoint)
                self.state = state
                if self.args.load_best_model_at_end and state.best_model_checkpoint:
                    self._load_best_model()
                return TrainOutput(begun, float("nan"), {})
        advice = (
            "Let a process hold fewer clips at a time (--per_device_train_batch_size, now "
            f"{self.args.per_device_train_batch_size}, with more --gradient_accumulation_steps), keep fewer "
            "activations (--gradient_checkpointing True), or drop tokens (--drop_token_rate)."
        )
        self._stopped = False
        with self.run.guarded(advice):
            self._begin_record(begun, new=not resume_from_checkpoint)
            try:
                output = super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)
            except (RuntimeError, EOFError, OSError) as error:
                alone = self.args.world_size == 1  # else the others are in the middle of the next step
                if self.run.signals.received is None or not is_worker_death(error) or not alone:
                    raise
                # Workers are waited for only between updates, so no update is incomplete.
                target = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
                if target not in checkpoints(target.parent, TRAINER_STATE_NAME):
                    self._save_checkpoint(self.model_wrapped, trial)
                raise self.run.stopped() from error
            self.skipped.share(self.skipped)
            if self._stopped:
                raise self.run.stopped()
        return output

    def _begin_record(self, step: int, new: bool) -> None:
        self.run.prepare_folder()
        if not self.is_world_process_zero():
            return
        clips: Any = self.train_dataset
        labelled = isinstance(clips, LabelledDataset)
        fingerprint = table_fingerprint(clips.clips, clips.media, "label") if labelled else None
        self.run.record(
            "fine-tuning",
            self.accelerator.unwrap_model(self.model).config,
            {"FinetuningArguments": self.args.to_dict()},
            {"clips": len(clips), "fingerprint": fingerprint},
            step,
            new=new,
            settings=self.settings,
        )

    def _stop_wanted(self) -> bool:
        """Whether a process got a signal to stop; all must call it."""
        self._stopped = bool(sum_over_processes(self.run.signals.received is not None)[0])
        return self._stopped

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """See `Trainer`, which under `save_strategy="best"` saves if this is true; when stopped it is."""
        return super()._determine_best_metric(metrics, trial) or self._stopped

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """See `Trainer`; the checkpoint gets its name when all of it is on the disk."""
        run_dir = Path(self._get_output_dir(trial))
        target = run_dir / f"checkpoint-{self.state.global_step}"
        partial = run_dir / "saving.partial"

        def fill() -> None:
            self._saving = partial
            try:
                super(VattTrainer, self)._save_checkpoint(model, trial)
            finally:
                self._saving = None
            best = run_dir / f"checkpoint-{self.state.best_global_step}"
            if best == target or best.is_dir():
                self.state.best_model_checkpoint = str(best)

        def finish() -> None:
            written = partial / target.name
            self.state.save_to_json(str(written / TRAINER_STATE_NAME))
            copy_run_record(run_dir, written)
            put_in_place(written, target)
            best = self.state.best_model_checkpoint
            remove_old(run_dir, max(0, self.args.save_total_limit or 0), TRAINER_STATE_NAME, best)

        writes = self.args.should_save
        self.run.write_checkpoint(
            target, partial, writes, begin=lambda: recover(run_dir), fill=fill, finish=finish
        )
        if self._push:
            self._push = False
            self._push_from_checkpoint(str(target))

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._saving is None else str(self._saving)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self._saving is not None:  # uploads need the final folder
            self._push = True
        else:
            super()._push_from_checkpoint(checkpoint_folder)

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """See `Trainer`; refuses NaN just before the update, when gradients are averaged, so on all
        processes. Under fp16 an overflow only skips an update."""
        norm = super()._get_grad_norm(model, grad_norm)
        size = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if self.accelerator.scaler is None and not math.isfinite(size):
            self._refuse_non_finite(f"the gradient (norm {size})")
        return norm

    def _refuse_non_finite(self, what: str) -> None:
        advice = "lower --max_grad_norm; with --fp16 try --bf16"
        step, clips = self.state.global_step + 1, self._names_of_update()
        self.run.refuse_non_finite(step, what, clips, advice, {"what": what})

    def _names_of_update(self) -> list[str]:
        """Names of the clips of all processes in the next update."""
        clips = self.train_dataset
        if not isinstance(clips, LabelledDataset):
            return []
        size = self.args.train_batch_size * self.args.world_size
        batches = -(-len(clips) // size)
        accumulated = self.args.gradient_accumulation_steps
        updates = max(1, -(-batches // accumulated))
        epoch, update = divmod(self.state.global_step, updates)
        order = list(EpochSampler(len(clips), self._data_seed, lambda: epoch))
        chosen = order[update * accumulated * size : (update + 1) * accumulated * size]
        return [str(clips.clips[index][clips.media].get("path") or index) for _, index in chosen]

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """See `Trainer`; without readable clips no step is made."""
        self.skipped.add(inputs.pop("skipped", ()))
        inputs.pop("readable", None)
        if self.args.world_size > 1:  # all must raise together
            count = sum_over_processes(not inputs)[0]
            if count:
                self.run.refuse_unreadable(self.state.global_step + 1, count, self.skipped)
        if not inputs:
            if len(self.skipped) >= len(self.train_dataset):  # type: ignore[arg-type]
                raise ValueError(
                    f"No clip can be read, the first because {next(iter(self.skipped.values()))} "
                    "Check the files."
                )
            return torch.zeros((), device=self.args.device)
        step, part = self._micro_step
        part = part + 1 if step == self.state.global_step else 0
        self._micro_step = (self.state.global_step, part)
        number = self.state.global_step * self.args.gradient_accumulation_steps + part
        seed_step(step_seed(self.args.seed, number, self.args.process_index))
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.scaler is not None and not bool(loss.isfinite()):
            self._refuse_non_finite(f"the loss ({float(loss)})")
        return loss

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """See `Trainer`; in training on smoothed and mixed targets."""
        outputs = model(**(self._soften(inputs) if model.training else inputs))
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def _soften(self, inputs: dict[str, Any]) -> dict[str, Any]:
        smoothing, alpha = self.args.label_smoothing_factor, self.args.mixup_alpha
        if not (smoothing or alpha):
            return inputs
        name = self._input_name
        values, targets = inputs[name], inputs["labels"]
        if targets.ndim == 1:
            targets = torch.nn.functional.one_hot(targets, self._num_labels).to(values.dtype)
        if smoothing:
            targets = smooth_labels(targets, smoothing)
        if alpha:
            values, targets = mixup(values, targets, alpha)
        return {**inputs, name: values, "labels": targets}

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """See `Trainer`; unreadable clips keep their rows, marked by their labels for [`evaluation_loop`], so
        that all processes gather batches of equal size. The loss is computed there."""
        self.skipped.add(inputs.pop("skipped", ()))
        readable = inputs.pop("readable", None)
        logits = labels = None
        if inputs:
            _, logits, labels = super().prediction_step(model, inputs, False, ignore_keys)
            logits = logits[0] if isinstance(logits, tuple) else logits
        if readable is None:
            return None, logits, labels
        readable = readable.to(self.args.device)
        if logits is None or labels is None:
            kind = next(model.parameters()).dtype
            logits = torch.zeros(0, self._num_labels, dtype=kind, device=self.args.device)
            several = self.accelerator.unwrap_model(model).config.problem_type == "multi_label_classification"
            labels = logits if several else logits.new_zeros(0, dtype=torch.long)
        missing = float("nan") if labels.is_floating_point() else _UNREAD
        all_logits = logits.new_zeros(len(readable), *logits.shape[1:])
        all_labels = labels.new_full((len(readable), *labels.shape[1:]), missing)
        all_logits[readable], all_labels[readable] = logits, labels
        return None, all_logits, all_labels

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """See `Trainer`; loss and metrics are those of the gathered predictions, without the clips that are
        repeated to fill the last batch. With `label_balancing` labels are counted over all clips."""
        compute, self.compute_metrics = self.compute_metrics, None
        prepare, self.preprocess_logits_for_metrics = self.preprocess_logits_for_metrics, None
        try:
            output = super().evaluation_loop(dataloader, description, False, ignore_keys, metric_key_prefix)
        finally:
            self.compute_metrics, self.preprocess_logits_for_metrics = compute, prepare
        self.skipped.share(self.skipped)
        predictions: Any = output.predictions
        labels: Any = output.label_ids
        nothing: Any = None  # as `Trainer` returns for predictions that are not wanted
        metrics: dict[str, float] = dict(output.metrics or {})
        if labels is None or predictions is None:
            return EvalLoopOutput(predictions, labels, metrics, output.num_samples)
        read = labels != _UNREAD if labels.ndim == 1 else ~np.isnan(labels).any(1)
        predictions, labels = predictions[read], labels[read]
        if not len(labels):
            return EvalLoopOutput(nothing, None, metrics, 0)
        model = self.accelerator.unwrap_model(self.model)
        logits = torch.from_numpy(predictions).float()
        found = {"loss": float(model.classification_loss(logits, torch.from_numpy(labels)))}
        if prepare is not None:
            predictions = prepare(torch.from_numpy(predictions), torch.from_numpy(labels)).numpy()
        if compute is not None:
            found |= compute(EvalPrediction(predictions=predictions, label_ids=labels))
        metrics |= {
            f"{metric_key_prefix}_{name.removeprefix(f'{metric_key_prefix}_')}": v
            for name, v in found.items()
        }
        if prediction_loss_only:
            return EvalLoopOutput(nothing, None, metrics, len(labels))
        return EvalLoopOutput(predictions, labels, metrics, len(labels))

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        self.accelerator.unscale_gradients()
        groups: tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]] = ([], [])
        for name, parameter in model.named_parameters():
            groups["classifier" in name.split(".")].append(parameter)
        limits = (self.args.max_grad_norm, self.args.classifier_max_grad_norm or float("inf"))
        norms = [
            torch.nn.utils.clip_grad_norm_(group, limit).to(self.args.device)
            for group, limit in zip(groups, limits, strict=True)
        ]
        return torch.stack(norms).norm()

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader:
        drop_last = self.args.dataloader_drop_last
        # In evaluation, clips would be missing from the metrics.
        self.args.dataloader_drop_last = drop_last and kwargs.get("is_training", False)
        try:
            loader = super()._get_dataloader(*args, **kwargs)
        finally:
            self.args.dataloader_drop_last = drop_last
        inner = getattr(loader, "base_dataloader", loader)  # accelerate's loaders hold the one of torch
        inner.worker_init_fn = partial(_start_worker, rest=inner.worker_init_fn)
        return loader

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        clips = self.train_dataset if train_dataset is None else train_dataset
        if not isinstance(clips, LabelledDataset):
            return super()._get_train_sampler(train_dataset)
        return EpochSampler(len(clips), self._data_seed, lambda: int(self.state.epoch or 0))

    @property
    def _data_seed(self) -> int:
        return self.args.seed if self.args.data_seed is None else self.args.data_seed


def _start_worker(worker: int, rest: Callable[[int], None] | None) -> None:
    """`worker_init_fn` of the loaders: `rest`, and only the main process ends the worker by SIGTERM.
    `timeout` and SLURM send it to all processes, but the main process needs its workers to finish the
    step."""
    quiet_worker(worker)
    if rest is not None:
        rest(worker)
    main = multiprocessing.parent_process()
    if main is not None and hasattr(signal, "sigwaitinfo"):  # not on macOS and Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told, args=(main.pid,), daemon=True).start()


def _end_when_told(main: int | None) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != main:
        pass
    os._exit(0)  # as torch's own handler does


class _StopOnSignal(TrainerCallback):
    """Writes a checkpoint and ends training after the step in which a process got a signal."""

    def __init__(self, trainer: VattTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            warn_of_long_warmup(args.get_warmup_steps(state.max_steps), state.max_steps, args.learning_rate)

    def on_step_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.trainer.run.signals.keep_loader_quiet()

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step < state.max_steps and self.trainer._stop_wanted():
            control.should_save = control.should_training_stop = True

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # The Trainer treats every stop as the end of an epoch.
        if self.trainer._stopped and (state.epoch or 0) % 1:
            control.should_evaluate = control.should_save = False


def last_checkpoint(output_dir: str | Path) -> str | None:
    """The newest complete checkpoint of a Trainer's run, by its step; None if there is none. Complete ones
    hold the state, which the Trainer writes last."""
    found = checkpoints(output_dir, TRAINER_STATE_NAME)
    return str(found[-1]) if found else None
