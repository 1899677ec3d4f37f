# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of the classifiers: the paper's recipes, and a Trainer that resumes to the same weights.

Sources: paper sections 4.1, 4.2 and A.2; official modules `VideoFinetune` and `AudioFinetune` (vatt.md 6.8,
7).
"""

import json
import logging
import math
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import BatchFeature, Trainer, TrainerCallback, TrainerControl, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import EvalLoopOutput, EvalPrediction, TrainOutput

from ..configuration import VattConfig
from ..data import EpochSampler, LabelledDataset, SkippedClip, collate_clips
from ..models.classification import (
    VattClassifier,
    VattForAudioClassification,
    VattForImageClassification,
    VattForVideoClassification,
)
from .checkpoints import checkpoints, files_at_once, put_in_place, recover, remove_old
from .faults import (
    NonFiniteLossError,
    RunStopped,
    StopSignals,
    explained,
    is_worker_death,
    quiet_worker,
    write_together,
)
from .pretrainer import step_seed
from .run_record import RUN_FILE, table_fingerprint, write_run_record


logger = logging.getLogger(__name__)

# Class id in place of that of a clip that cannot be read; cross-entropy leaves it out too.
_UNREAD = -100

CLASSIFIERS: dict[str, type[VattClassifier]] = {
    "video": VattForVideoClassification,
    "audio": VattForAudioClassification,
    "image": VattForImageClassification,
}


@dataclass(frozen=True)
class FinetuningRecipe:
    """How the paper fine-tunes on one data set; where the release's defaults differ, the paper counts.

    Dropout before the classifier is a matter of the model's config, whose defaults are the release's.

    Args:
        media: `"video"`, `"audio"` or `"image"`.
        batch_size: clips of an update, over all processes.
        learning_rate: peak, reached after `warmup_steps`, followed by half a cosine to 0.
        warmup_steps: from 0.
        max_steps: updates; -1: `num_train_epochs` counts.
        num_train_epochs: epochs.
        label_smoothing_factor: share of every label that is spread over all classes.
        mixup_alpha: of Beta(alpha, alpha); 0 for no mixup.
        label_balancing: weight clips of several labels by the rarity of their labels.
        drop_token_rate: share of tokens dropped in training.
        max_grad_norm: of the backbone.
        classifier_max_grad_norm: of the classifier; 0 for none.
        image_size: pixels of the crop; positions are resampled to the larger grid.
        fps: frames per second.
        sampling_rate: Hz.
        eval_windows, eval_crops: views of a clip in evaluation, whose logits are averaged.
    """

    media: str
    batch_size: int
    learning_rate: float
    warmup_steps: int
    max_steps: int = -1
    num_train_epochs: float = 3.0
    label_smoothing_factor: float = 0.0
    mixup_alpha: float = 0.0
    label_balancing: bool = False
    drop_token_rate: float = 0.0
    max_grad_norm: float = 0.75
    classifier_max_grad_norm: float = 0.0
    image_size: int | None = None
    fps: float | None = None
    sampling_rate: int | None = None
    eval_windows: int = 1
    eval_crops: int = 1

    def options(self, num_processes: int = 1) -> dict[str, Any]:
        """The recipe as options of the scripts and of [`FinetuningArguments`], media and batch size aside.

        Args:
            num_processes: processes, or GPUs of one process, among which the batch is divided.
        """
        fields = {name: value for name, value in vars(self).items() if name not in ("media", "batch_size")}
        return {
            **fields,
            "per_device_train_batch_size": max(1, self.batch_size // num_processes),
            "optim": "sgd",
            "optim_args": "momentum=0.9",
            "lr_scheduler_type": "cosine",
            "weight_decay": 0.0,
        }


# 32 frames, every second one of 25 per second; 12 views.
_VIDEO = FinetuningRecipe(
    media="video",
    batch_size=64,
    learning_rate=5e-3,
    warmup_steps=2500,
    max_steps=100_000,
    label_smoothing_factor=0.1,
    image_size=320,
    fps=12.5,
    eval_windows=4,
    eval_crops=3,
)
RECIPES: dict[str, FinetuningRecipe] = {
    "kinetics400": _VIDEO,
    "kinetics600": _VIDEO,
    "kinetics700": _VIDEO,
    # The published checkpoints stop at 150k steps.
    "moments_in_time": FinetuningRecipe(**{**vars(_VIDEO), "max_steps": 150_000}),
    # 153600 samples at half the rate of pretraining: 6.4 s.
    "audioset": FinetuningRecipe(
        media="audio",
        batch_size=1024,
        learning_rate=0.2,
        warmup_steps=5000,
        max_steps=50_000,
        mixup_alpha=5.0,
        label_balancing=True,
        sampling_rate=24_000,
        eval_windows=4,
    ),
    # The paper does not state the warm-up: the release's default.
    "imagenet": FinetuningRecipe(
        media="image",
        batch_size=512,
        learning_rate=8e-2,
        warmup_steps=2500,
        num_train_epochs=50.0,
        label_smoothing_factor=0.1,
        image_size=384,
    ),
}


def finetuning_config(
    config: VattConfig,
    names: Sequence[str],
    media: str,
    several_labels: bool = False,
    drop_token_rate: float = 0.0,
    classifier_dropout: float | None = None,
    freeze_backbone: bool = False,
    label_balancing: bool = False,
) -> VattConfig:
    """A pretraining config turned, in place, into that of a classifier.

    Args:
        config: of the pretrained model, or of a new one.
        names: classes; position = class id.
        media: `"video"`, `"audio"` or `"image"` (the video tower).
        several_labels: whether a clip may have several.
        drop_token_rate: share of tokens dropped in training; pretraining drops half, the paper's fine-tuning
            none.
        classifier_dropout: before the classifier; None keeps the config's.
        freeze_backbone: train the classifier alone.
        label_balancing: weight clips by the rarity of their labels (several labels only).

    Raises:
        ValueError: fewer than two classes, `label_balancing` with one label per clip, or DropToken in a
            convolutional tower.
    """
    if len(names) < 2:
        raise ValueError(f"A classifier needs two classes or more, found {list(names)}. Check the labels.")
    if label_balancing and not several_labels:
        raise ValueError("`label_balancing` is for clips with several labels: leave it out.")
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}
    config.problem_type = f"{'multi' if several_labels else 'single'}_label_classification"
    config.label_balancing = label_balancing
    tower = config.audio_config if media == "audio" else config.video_config
    if drop_token_rate and tower.is_convolutional:
        raise ValueError("A convolutional tower has no tokens to drop: leave `drop_token_rate` at 0.")
    tower.drop_token_rate = drop_token_rate
    tower.freeze_backbone = freeze_backbone
    if classifier_dropout is not None:
        tower.classifier_dropout = classifier_dropout
    return config


@dataclass
class FinetuningArguments(TrainingArguments):
    """`TrainingArguments` and what the recipes need besides.

    `max_grad_norm` clips the backbone's gradient. `label_smoothing_factor` works with mixup, but not with
    several labels per clip. `data_seed` (or `seed`) decides the order of the clips, `seed` dropout, DropToken
    and mixup of every step.

    Args:
        classifier_max_grad_norm: of the classifier's gradient, clipped apart from the backbone's; 0 for none.
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
    """Each clip of a batch mixed with another one, of a shuffle; one share per clip from Beta(alpha, alpha).

    Draws from torch's global generator of the CPU.

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
    """Items of a [`LabelledDataset`] stacked, and under `skipped` the clips that had to be left out; if there
    are any, `readable` (items,) bool says which were not."""
    batch = collate_clips(items)
    found = {**batch.inputs, "skipped": batch.skipped}
    if batch.skipped:
        found["readable"] = torch.tensor([not isinstance(item, SkippedClip) for item in items])
    return found


class VattTrainer(Trainer):
    """transformers' Trainer for the classifiers on a [`LabelledDataset`].

    What it adds:

    - Clips, windows, augmentation, dropout, DropToken and mixup of a step follow from the seeds and the
      step's number, so a run that was killed and resumed from its last checkpoint (see [`last_checkpoint`])
      ends with the same weights (bit for bit on CPU).
    - Backbone and classifier are clipped apart. The release clips the gradient of each replica before the
      sum over R replicas; here, as everywhere in PyTorch, the averaged gradient is clipped, which equals the
      release's rule for R = 1 and is up to R times stricter otherwise (vatt.md 7.1).
    - Label smoothing and mixup on soft targets. The loss of evaluation is that of the true labels, computed
      like the metrics on the predictions of all clips together: each counts once, in however many processes.
    - Clips that cannot be read are left out of their batch, in training and evaluation, and collected in
      `skipped` of all processes and in the file `skipped.jsonl` of the output folder.
    - Checkpoints appear in one step, when all of them is on the disk, and are ordered by their steps.
    - On SIGTERM, SIGINT or SIGUSR1 all processes write a checkpoint after the same step, and
      [`RunStopped`] is raised. NaN ends the run before it reaches the weights. A failure of disk, memory,
      loader or a process ends it with [`TrainingError`].
    - `run.json` in the output folder and in every checkpoint tells what the run was made of.

    Args:
        model: a classifier; its config says by `problem_type` whether clips have several labels (see
            [`finetuning_config`]).
        args: settings.
        settings: of the run beyond `args`, for `run.json`.
        kwargs: of `Trainer`.

    Attributes:
        skipped: name of a clip -> why it could not be read.
    """

    args: FinetuningArguments
    _saving: Path | None = None  # where the checkpoint that is being written lies

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
        self.skipped: dict[str, str] = {}
        self._input_name = model.main_input_name
        self._num_labels = int(model.config.num_labels)
        self._micro_step = (-1, 0)
        self._signals = StopSignals()
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
        """See `Trainer`; what was skipped before a resumed run was stopped is remembered, and a run that was
        finished is not trained on."""
        if resume_from_checkpoint and self._skip_file.is_file():
            self._read_skipped()
        elif not resume_from_checkpoint and self.is_world_process_zero():
            self._skip_file.unlink(missing_ok=True)
        self._micro_step = (-1, 0)
        if isinstance(resume_from_checkpoint, str):
            state = TrainerState.load_from_json(str(Path(resume_from_checkpoint) / TRAINER_STATE_NAME))
            if state.global_step >= state.max_steps > 0:  # transformers would make one more step
                self._load_from_checkpoint(resume_from_checkpoint)
                self.state = state
                if self.args.load_best_model_at_end and state.best_model_checkpoint:
                    self._load_best_model()
                return TrainOutput(state.global_step, float("nan"), {})
        advice = (
            "Let a process hold fewer clips at a time (--per_device_train_batch_size, now "
            f"{self.args.per_device_train_batch_size}, with more --gradient_accumulation_steps), keep fewer "
            "activations (--gradient_checkpointing True), or drop tokens (--drop_token_rate)."
        )
        self._signals, self._stopped = StopSignals(), False
        with explained(self.args.output_dir or ".", advice, self._how_to_continue), self._signals:
            self._begin_record(resume_from_checkpoint)
            try:
                output = super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)
            except (RuntimeError, EOFError, OSError) as error:
                alone = self.args.world_size == 1  # else the others are in the middle of the next step
                if self._signals.received is None or not is_worker_death(error) or not alone:
                    raise
                # Workers are waited for between updates and in evaluations: no update is half made.
                target = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
                if target not in checkpoints(target.parent, TRAINER_STATE_NAME):
                    self._save_checkpoint(self.model_wrapped, trial)
                raise RunStopped(f"Stopped by {self._signals.received}. {self._how_to_continue()}") from error
            for clips in gather_object([self.skipped]):
                self.skipped |= clips
            if self._stopped:
                reason = self._signals.received or "a signal to another process"
                raise RunStopped(f"Stopped by {reason}. {self._how_to_continue()}")
        return output

    def _begin_record(self, resume_from_checkpoint: str | bool | None) -> None:
        if not self.is_world_process_zero():
            return
        folder = Path(self.args.output_dir or ".")
        folder.mkdir(parents=True, exist_ok=True)
        recover(folder)
        step = 0
        if isinstance(resume_from_checkpoint, str):
            step = json.loads((Path(resume_from_checkpoint) / TRAINER_STATE_NAME).read_text())["global_step"]
        clips: Any = self.train_dataset
        labelled = isinstance(clips, LabelledDataset)
        write_run_record(
            folder,
            "fine-tuning",
            config=self.accelerator.unwrap_model(self.model).config.to_dict(),
            arguments={"FinetuningArguments": self.args.to_dict()},
            data={
                "clips": len(clips),
                "fingerprint": table_fingerprint(clips.clips, clips.media, "label") if labelled else None,
            },
            step=step,
            num_processes=self.args.world_size,
            new=not resume_from_checkpoint,
            settings=self.settings,
        )

    def _how_to_continue(self) -> str:
        made = f"Steps made: {self.state.global_step} of {self.state.max_steps}."
        found = last_checkpoint(self.args.output_dir or ".")
        if found is None:
            return f"{made} There is no checkpoint yet: the same command begins anew (see --save_steps)."
        return f"{made} {found} is whole: the same command continues from it."

    def _stop_wanted(self) -> bool:
        """Whether a process got a signal to stop; to be called by all of them."""
        flag = torch.tensor(
            [self._signals.received is not None], dtype=torch.float32, device=self.args.device
        )
        self._stopped = bool(self.accelerator.reduce(flag, reduction="sum").item())
        return self._stopped

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """See `Trainer`, which under `save_strategy="best"` saves if this is true; when stopped it is."""
        return super()._determine_best_metric(metrics, trial) or self._stopped

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """See `Trainer`; written elsewhere, and put in its place when all of it is on the disk."""
        run_dir = Path(self._get_output_dir(trial))
        target = run_dir / f"checkpoint-{self.state.global_step}"
        saving, writes = run_dir / "saving.partial", self.args.should_save

        def together(task: Callable[[], Any]) -> None:
            write_together(self.accelerator, task, target, saving if writes else None)

        def write() -> None:
            self._saving = saving
            try:
                super(VattTrainer, self)._save_checkpoint(model, trial)
            finally:
                self._saving = None

        def put() -> None:
            written = saving / target.name
            self.state.save_to_json(str(written / TRAINER_STATE_NAME))
            if (run_dir / RUN_FILE).is_file():
                shutil.copy(run_dir / RUN_FILE, written)
            put_in_place(written, target)
            best = self.state.best_model_checkpoint
            remove_old(run_dir, max(0, self.args.save_total_limit or 0), TRAINER_STATE_NAME, best)

        together(lambda: recover(run_dir) if writes else None)
        together(write)
        best = run_dir / f"checkpoint-{self.state.best_global_step}"
        if best == target or best.is_dir():
            self.state.best_model_checkpoint = str(best)
        together(lambda: put() if writes else None)
        if self._push:
            self._push = False
            self._push_from_checkpoint(str(target))

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._saving is None else str(self._saving)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self._saving is not None:  # what is uploaded must not move
            self._push = True
        else:
            super()._push_from_checkpoint(checkpoint_folder)

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """See `Trainer`; where NaN is refused, just before the update.

        Gradients are averaged over processes by then, so NaN in one of them has reached all. Under fp16
        overflows cost an update only.
        """
        norm = super()._get_grad_norm(model, grad_norm)
        size = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if self.accelerator.scaler is None and not math.isfinite(size):
            self._refuse_non_finite(f"the gradient (norm {size})")
        return norm

    def _refuse_non_finite(self, what: str) -> None:
        names = self._names_of_update()
        step = self.state.global_step + 1
        file = Path(self.args.output_dir or ".") / f"non_finite_step_{step}.json"
        if self.is_world_process_zero():
            file.write_text(json.dumps({"step": step, "what": what, "clips": names}, indent=2) + "\n")
        shown = ", ".join(map(os.path.basename, names[:5])) + (", ..." if len(names) > 5 else "")
        raise NonFiniteLossError(
            f"Step {step}: {what} is not finite. No update was made. Clips of the batch: {shown} (all in "
            f"{file}). Lower --learning_rate, lengthen --warmup_steps or lower --max_grad_norm; with --fp16 "
            f"try --bf16. {self._how_to_continue()}"
        )

    def _names_of_update(self) -> list[str]:
        """Of the clips of all processes in the update that is about to be made."""
        clips = self.train_dataset
        if not isinstance(clips, LabelledDataset):
            return []
        size = self.args.train_batch_size * self.args.world_size
        batches = -(-len(clips) // size)
        accumulated = self.args.gradient_accumulation_steps
        updates = max(1, -(-batches // accumulated))
        epoch, update = divmod(self.state.global_step, updates)
        order = np.random.default_rng((self._data_seed, epoch)).permutation(len(clips))
        chosen = order[update * accumulated * size : (update + 1) * accumulated * size]
        return [str(clips.clips[int(index)][clips.media].get("path") or index) for index in chosen]

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """See `Trainer`; no step is made if no clip of the batch could be read."""
        self._note(inputs.pop("skipped", ()))
        inputs.pop("readable", None)
        if self.args.world_size > 1:  # one that raised alone would leave the others waiting
            empty = torch.tensor([not inputs], dtype=torch.float32, device=self.args.device)
            count = int(self.accelerator.reduce(empty, reduction="sum").item())
            if count:
                raise ValueError(
                    f"Step {self.state.global_step}: no clip of the batch of {count} of the "
                    f"{self.args.world_size} processes can be read. Remove broken files or enlarge the batch."
                )
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
        torch.manual_seed(step_seed(self.args.seed, number, self.args.process_index))
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
        """See `Trainer`; clips that could not be read keep their rows, with labels that [`evaluation_loop`]
        knows them by, so that all processes gather batches of the same size. The loss is computed there."""
        self._note(inputs.pop("skipped", ()))
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
        """See `Trainer`; loss and metrics are those of the gathered predictions.

        The mean of the losses of batches would count the clips twice that fill up the last batch of several
        processes. With `label_balancing` the rarity of a label is that among all clips.
        """
        compute, self.compute_metrics = self.compute_metrics, None
        prepare, self.preprocess_logits_for_metrics = self.preprocess_logits_for_metrics, None
        try:
            output = super().evaluation_loop(dataloader, description, False, ignore_keys, metric_key_prefix)
        finally:
            self.compute_metrics, self.preprocess_logits_for_metrics = compute, prepare
        for clips in gather_object([self.skipped]):
            self.skipped |= clips
        predictions: Any = output.predictions
        labels: Any = output.label_ids
        nothing: Any = None  # what `Trainer` returns for predictions that nobody asked for
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
        loader = super()._get_dataloader(*args, **kwargs)
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

    @property
    def _skip_file(self) -> Path:
        return Path(self.args.output_dir or ".") / "skipped.jsonl"

    def _read_skipped(self) -> None:
        """What the run skipped before. A line that was being written when it was killed is taken out: its
        clip is noted again when it is met."""
        kept = []
        text = self._skip_file.read_text(errors="replace")
        for line in text.splitlines():
            with suppress(json.JSONDecodeError, KeyError, TypeError):
                found = json.loads(line)
                self.skipped[found["name"]] = found["reason"]
                kept.append(line + "\n")
        if "".join(kept) != text and self.is_world_process_zero():
            logger.warning("%s: left out what could not be read of it.", self._skip_file)
            with files_at_once(self._skip_file.parent) as folder:
                (folder / self._skip_file.name).write_text("".join(kept))

    def _note(self, skipped: Iterable[SkippedClip]) -> None:
        new = {clip.name: clip.reason for clip in skipped if clip.name not in self.skipped}
        if not new:
            return
        self.skipped |= new
        self._skip_file.parent.mkdir(parents=True, exist_ok=True)
        with self._skip_file.open("a") as file:
            for name, reason in new.items():
                logger.warning("Skipped %s", reason)
                file.write(json.dumps({"name": name, "reason": reason}) + "\n")


def _start_worker(worker: int, rest: Callable[[int], None] | None) -> None:
    """`worker_init_fn` of the loaders: `rest`, and signals to the whole process group do not end the worker.

    `timeout` and SLURM send SIGTERM to all processes. Without its workers the main process could finish
    neither the step nor an evaluation, and other processes would wait for it. The main process itself ends
    its workers with the same signal, so who sent it counts.
    """
    quiet_worker(worker)
    if rest is not None:
        rest(worker)
    main = multiprocessing.parent_process()
    if main is not None and hasattr(signal, "sigwaitinfo"):  # not there on macOS and Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told, args=(main.pid,), daemon=True).start()


def _end_when_told(main: int | None) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != main:
        pass
    os._exit(0)  # as torch's own handler does


class _StopOnSignal(TrainerCallback):
    """After the step in which a process got a signal, a checkpoint is written and training ends."""

    def __init__(self, trainer: VattTrainer) -> None:
        self.trainer = trainer

    def on_step_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.trainer._signals.keep_loader_quiet()

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step < state.max_steps and self.trainer._stop_wanted():
            control.should_save = control.should_training_stop = True

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # The Trainer takes every stop for the end of an epoch.
        if self.trainer._stopped and (state.epoch or 0) % 1:
            control.should_evaluate = control.should_save = False


def last_checkpoint(output_dir: str | Path) -> str | None:
    """The newest whole checkpoint of a Trainer's run, by its step; None if there is none.

    [`VattTrainer`] gives a checkpoint its name when it is whole. The Trainer of transformers writes its state
    last: a checkpoint without it was being written when the run was killed.
    """
    found = checkpoints(output_dir, TRAINER_STATE_NAME)
    return str(found[-1]) if found else None
