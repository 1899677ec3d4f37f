# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Shared by `run_video_classification.py`, `run_audio_classification.py` and `run_image_classification.py`:
fine-tune a classifier, evaluate it, and save it with its report."""

import argparse
import contextlib
import json
import logging
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import datasets
import torch
from common import MediaArguments, check_output_dir, decoded_side, fail, new_config, refuse_with_model
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, StrictDataclassError
from transformers.hf_argparser import HfArg, HfArgumentParser
from transformers.trainer_utils import PredictionOutput
from transformers.utils import logging as transformers_logging

from modeling_vatt import VattConfig
from modeling_vatt.data import (
    LabelledDataset,
    class_names,
    decode_clips,
    has_several_labels,
    load_labelled,
    match_classes,
    skip_report,
)
from modeling_vatt.data.tables import warn_of_shared_files
from modeling_vatt.evaluation import (
    classification_metrics,
    per_class_table,
    plot_confusion,
    write_per_class_table,
)
from modeling_vatt.hub.remote_code import save_remote_code
from modeling_vatt.models.classification import VattClassifier
from modeling_vatt.models.loading import load_pretrained
from modeling_vatt.processors import (
    VattAugmentation,
    VattFeatureExtractor,
    VattImageProcessor,
    VattProcessor,
    VattTokenizer,
    VattVideoProcessor,
)
from modeling_vatt.repositories import require_repository
from modeling_vatt.training import (
    CLASSIFIERS,
    RECIPES,
    FinetuningArguments,
    TrainingError,
    VattTrainer,
    explained,
    files_at_once,
    finetuning_config,
    last_checkpoint,
    read_run_record,
    seed_everything,
    table_fingerprint,
    without_secrets,
    write_model_card,
)


logger = logging.getLogger("modeling_vatt.classification_scripts")


@dataclass(kw_only=True)
class DataArguments(MediaArguments):
    """What to train and to evaluate on."""

    dataset: str = HfArg(
        help="Folder (a folder per class, or with metadata.csv/.jsonl), or name of a dataset."
    )
    train_split: str = HfArg(default="train", help="Split to train on.")
    validation_split: str = HfArg(default="validation", help="Split to evaluate on; '' for none.")
    label_column: str | None = HfArg(default=None, help="`label` or `labels` if left out.")
    label_separator: str | None = HfArg(
        default=None, help="What stands between several labels in one string, e.g. ','."
    )
    media_column: str | None = HfArg(default=None, help="Found by its type if left out.")
    decode_once: bool = HfArg(
        default=False, help="Decode all clips once into a table on disk: for few, short clips."
    )
    decode_size: int | None = HfArg(
        default=None,
        help="Shorter side at which videos are decoded. If left out: the processor's, else the stored "
        "one, or 8/7 of the frame size with --decode_once.",
    )
    crop_resize_style: Literal["Inception", "VGG", "none"] = HfArg(
        default="Inception", help="Random crop in training: Inception (paper), VGG, none."
    )
    color_augment: bool = HfArg(
        default=True, help="Change brightness, saturation, contrast, hue in training."
    )
    eval_windows: int = HfArg(default=1, help="Windows of a clip in evaluation (paper: 4).")
    eval_crops: int = HfArg(default=1, help="Crops of a window, 1 or 3 (paper: 3).")


@dataclass
class ModelArguments:
    """What to train."""

    recipe: str | None = HfArg(
        default=None, help=f"The paper's settings for a data set: {', '.join(RECIPES)}. Flags override them."
    )
    model: str | None = HfArg(
        default=None, help="Pretrained checkpoint (folder or Hub name); from scratch if left out."
    )
    preset: str | None = HfArg(default=None, help="Named config of a model from scratch; tiny if left out.")
    config_overrides: str | None = HfArg(default=None, help="JSON of config fields of a model from scratch.")
    image_size: int | None = HfArg(default=None, help="Pixels; the processor's if left out.")
    fps: float | None = HfArg(default=None, help="Frames per second; the processor's if left out.")
    sampling_rate: int | None = HfArg(default=None, help="Of sound, Hz; the processor's if left out.")
    normalize_audio: bool | None = HfArg(
        default=None, help="Bring sound to unit variance; as the processor does if left out."
    )
    drop_token_rate: float = HfArg(default=0.0, help="Share of tokens dropped in training.")
    classifier_dropout: float | None = HfArg(default=None, help="The config's if left out.")
    freeze_backbone: bool = HfArg(default=False, help="Train the classifier alone.")
    label_balancing: bool = HfArg(
        default=False, help="Several labels: weight clips by the rarity of their labels."
    )
    remote_code: bool = HfArg(
        default=True, help="Save the code too, so that the result loads without this package."
    )


# Medium -> flags without effect.
WITHOUT_EFFECT = {
    "video": ("sampling_rate", "normalize_audio"),
    "audio": ("image_size", "fps", "decode_size", "crop_resize_style", "color_augment"),
    "image": ("fps", "sampling_rate", "normalize_audio", "decode_once", "decode_size"),
}

Arguments = tuple[DataArguments, ModelArguments, FinetuningArguments]


def parse(media: str, description: str) -> Arguments:
    """The arguments of the command line, with a recipe's values for missing ones."""
    parser = HfArgumentParser(
        (DataArguments, ModelArguments, FinetuningArguments),
        description=description,
        usage="%(prog)s --dataset DATASET --output_dir OUTPUT_DIR [options; --help lists them]",
    )
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe")
    name = first.parse_known_args()[0].recipe
    if name is not None:
        if name not in RECIPES:
            parser.error(f"--recipe: {name!r} is none of {', '.join(RECIPES)}.")
        if RECIPES[name].media != media:
            parser.error(f"--recipe: {name} is for {RECIPES[name].media}, this script for {media}.")
        # Without a launcher, the Trainer divides a batch among all GPUs.
        shares = int(os.environ.get("WORLD_SIZE", 0)) or max(1, torch.cuda.device_count())
        parser.set_defaults(**RECIPES[name].options(shares))
    try:
        return parser.parse_args_into_dataclasses()
    except ValueError as error:  # unknown flags, values that do not fit together
        parser.error(str(error))


def load_config(checkpoint: str) -> VattConfig:
    """The config of a checkpoint."""
    try:
        return VattConfig.from_pretrained(checkpoint, local_files_only=require_repository(checkpoint))
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--model {checkpoint}: no such folder here, nor on the Hub ({reason})") from error


def build(
    media: str, args: ModelArguments, names: list[str], several: bool
) -> tuple[VattClassifier, VattProcessor]:
    """Model and processor: from a checkpoint, or new ones."""
    refuse_with_model(args.model, {"preset": args.preset, "config_overrides": args.config_overrides})
    if args.model is not None:
        config = load_config(args.model)
    else:
        args.preset, args.config_overrides = args.preset or "tiny", args.config_overrides or "{}"
        config = new_config(args.preset, args.config_overrides)
    finetuning_config(
        config,
        names,
        media,
        several,
        args.drop_token_rate,
        args.classifier_dropout,
        args.freeze_backbone,
        args.label_balancing,
    )
    if args.model is None:
        # A processor needs a tokenizer, which a classifier does not use.
        tokenizer = VattTokenizer.train_from_iterator(names)
        config.text_config.vocab_size = len(tokenizer)
        return CLASSIFIERS[media](config), VattProcessor.from_config(config, tokenizer)
    # Of a classifier of other classes only the tower is taken.
    size = config.video_config.image_size
    resampled = media != "audio" and args.image_size not in (None, size)
    adapted = [f"positions, from {size} to {args.image_size} px"] if resampled else []
    model, line = load_pretrained(CLASSIFIERS[media], args.model, ("classifier",), adapted, config=config)
    print(line)
    return model, load_processor(args.model, config, names)


def load_processor(checkpoint: str, config: VattConfig, names: list[str]) -> VattProcessor:
    """The processor of a checkpoint; parts that a converted release lacks, such as the vocabulary, are
    made."""
    try:
        return VattProcessor.from_pretrained(checkpoint)
    except (OSError, ValueError):
        parts: list[Any] = list(VattProcessor.media_parts_from_config(config))
        for place, kind in enumerate((VattFeatureExtractor, VattVideoProcessor)):
            with contextlib.suppress(OSError):
                parts[place] = kind.from_pretrained(checkpoint)
        return VattProcessor(*parts, VattTokenizer.train_from_iterator(names))


def set_processor(processor: VattProcessor, data: DataArguments, args: ModelArguments) -> None:
    """Apply the flags to the processor."""
    videos, sounds = processor.video_processor, processor.feature_extractor
    if args.image_size is not None:
        videos.size = {"shortest_edge": args.image_size}
        videos.crop_size = {"height": args.image_size, "width": args.image_size}
        videos.decode_size = None
    if args.fps is not None:
        videos.fps = args.fps
    if args.sampling_rate is not None:
        settings = {**sounds.to_dict(), "sampling_rate": args.sampling_rate}
        processor.feature_extractor = sounds = VattFeatureExtractor(**settings)  # checks it
    if args.normalize_audio is not None:
        sounds.do_normalize = args.normalize_audio
    if data.decode_size is not None:
        videos.decode_size = data.decode_size
    elif data.decode_once and videos.decode_size is None:
        videos.decode_size = decoded_side(videos)


@dataclass
class Splits:
    """The clips and their classes.

    Attributes:
        train: None for an evaluation only.
        validation: None if there is none.
        names: of the classes.
        several: whether a clip may have several labels.
        skipped: name of a clip that cannot be read -> reason.
        total: clips that were found.
    """

    train: datasets.Dataset | None
    validation: datasets.Dataset | None
    names: list[str]
    several: bool
    skipped: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.total = sum(len(split) for split in (self.train, self.validation) if split is not None)

    @classmethod
    def load(
        cls, media: str, data: DataArguments, args: ModelArguments, training: FinetuningArguments
    ) -> "Splits":
        """Open the splits; classes are those of the training split, or of the evaluated model."""

        def load(split: str) -> datasets.Dataset:
            return load_labelled(
                data.dataset, split, media, data.label_column, data.media_column, data.label_separator
            )

        train = validation = None
        if training.do_eval and not training.do_train and training.eval_strategy == "no":
            if args.model is None or not data.validation_split:
                raise ValueError("--do_eval alone needs a trained --model and a --validation_split.")
            config = load_config(args.model)
            names = [config.id2label[index] for index in range(config.num_labels)]
            several = config.problem_type == "multi_label_classification"
            args.label_balancing |= config.label_balancing  # the loss is that of its training
        else:
            train = load(data.train_split)
            names, several = class_names(train), has_several_labels(train)
        if data.validation_split:
            validation = match_classes(load(data.validation_split), names)
            if train is not None:
                warn_of_shared_files(train, validation, media)
            if has_several_labels(validation) != several:
                raise ValueError("One split has several labels per clip, the other has one.")
        return cls(train, validation, names, several)

    def decode(self, processor: VattProcessor, media: str, workers: int, **options: Any) -> None:
        """Decode all clips once, noting those that cannot be decoded; options of [`decode_clips`]."""
        for name in ("train", "validation"):
            clips = getattr(self, name)
            if clips is None:
                continue
            decoded, failed = decode_clips(clips, processor, workers, media=media, **options)
            if not len(decoded):
                raise ValueError(f"No clip can be read, the first because {failed[0].reason}")
            for clip in failed:
                logger.warning("Skipped %s", clip.reason)
                self.skipped[clip.name] = clip.reason
            setattr(self, name, decoded)


def run_settings(
    media: str,
    data: DataArguments,
    args: ModelArguments,
    training: FinetuningArguments,
    train: datasets.Dataset | None,
) -> dict[str, Any]:
    """Settings of a run: the flags with an effect, and the clips."""
    flags = {**vars(data), **vars(args)}
    unused = {"remote_code", "eval_windows", "eval_crops", *WITHOUT_EFFECT[media]}
    if train is None:
        unused |= {"train_split", "drop_token_rate", "classifier_dropout", "freeze_backbone"}
        unused |= {"crop_resize_style", "color_augment"}
    settings = {name: value for name, value in flags.items() if name not in unused}
    if train is None:
        return settings
    chosen = ("optim", "learning_rate", "warmup_steps", "max_steps", "num_train_epochs", "seed")
    chosen += ("per_device_train_batch_size", "gradient_accumulation_steps", "weight_decay")
    chosen += ("data_seed", "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon", "bf16", "fp16")
    chosen += ("label_smoothing_factor", "mixup_alpha", "max_grad_norm", "classifier_max_grad_norm")
    return {
        **settings,
        **{name: getattr(training, name) for name in chosen},
        "optim": training.optim.value,
        "lr_scheduler_type": str(getattr(training.lr_scheduler_type, "value", training.lr_scheduler_type)),
        "num_processes": training.world_size,
        "data": table_fingerprint(train, media, "label"),
    }


def make_trainer(
    media: str,
    model: VattClassifier,
    processor: VattProcessor,
    splits: Splits,
    data: DataArguments,
    training: FinetuningArguments,
    settings: dict[str, Any],
) -> VattTrainer:
    """The trainer with its data sets; it evaluates too."""
    limits = data.limits()
    augmentation = VattAugmentation(
        data.crop_resize_style, color_probability=0.8 if data.color_augment else 0.0, noise=0.0
    )
    train_clips = splits.train and LabelledDataset(
        splits.train,
        processor,
        media,
        random_window=True,
        augmentation=None if media == "audio" else augmentation,
        seed=training.seed,
        limits=limits,
    )
    eval_clips = splits.validation and LabelledDataset(
        splits.validation, processor, media, windows=data.eval_windows, crops=data.eval_crops, limits=limits
    )
    return VattTrainer(
        model,
        training,
        settings=settings,
        train_dataset=train_clips,
        eval_dataset=eval_clips,
        compute_metrics=classification_metrics,
        processing_class=processor,
    )


def check_same_run(output_dir: Path, settings: dict[str, Any]) -> None:
    """Raise if a run was started with other settings."""
    before = read_run_record(output_dir).get("settings", {})
    now = without_secrets(settings)
    changed = [name for name, value in before.items() if name in now and now[name] != value]
    if changed:
        raise ValueError(
            f"{output_dir} holds a run with other settings: "
            + ", ".join(f"{name}={before[name]} (now {now.get(name)})" for name in changed)
            + ". Use them again, or choose another output folder."
        )


def train(trainer: VattTrainer) -> float | None:
    """Train, or continue; returns clips per second, None for a finished run."""
    output_dir = Path(trainer.args.output_dir)
    checkpoint = trainer.args.resume_from_checkpoint or last_checkpoint(output_dir)
    if checkpoint is not None:
        check_same_run(output_dir, trainer.settings)
        print(f"Continuing from {checkpoint}")
    return trainer.train(resume_from_checkpoint=checkpoint).metrics.get("train_samples_per_second")


def evaluate(trainer: VattTrainer, split: str) -> PredictionOutput | None:
    """Predictions for the validation split, if there is one."""
    if trainer.eval_dataset is None:
        return None
    advice = "Lower --per_device_eval_batch_size, --eval_windows or --eval_crops."
    with explained(trainer.args.output_dir, advice):
        prediction = trainer.predict(trainer.eval_dataset, metric_key_prefix="eval")
    if prediction.predictions is None:
        raise ValueError(f"No clip of the split {split!r} can be read.")
    return prediction


def report(
    output_dir: Path, prediction: PredictionOutput, names: list[str], results: dict[str, Any]
) -> dict[str, float]:
    """Write `results.json`, `per_class.csv` and, for one label per clip, `confusion.png`."""
    metrics = {
        name.removeprefix("eval_"): value
        for name, value in (prediction.metrics or {}).items()
        if not name.endswith(("_runtime", "_per_second", "_preparation_time"))
    }
    labels = prediction.label_ids
    finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    results |= {"metrics": finite, "clips": len(labels)}
    (output_dir / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    write_per_class_table(
        per_class_table(prediction.predictions, labels, names), output_dir / "per_class.csv"
    )
    if labels.ndim == 1:
        plot_confusion(prediction.predictions, labels, names).savefig(output_dir / "confusion.png", dpi=100)
    return metrics


def save(
    media: str,
    trainer: VattTrainer,
    data: DataArguments,
    args: ModelArguments,
    metrics: dict[str, float],
    skipped: dict[str, str],
) -> None:
    """Model, processor, code and model card; upload them if asked to."""
    training, processor = trainer.args, trainer.processing_class
    output_dir = Path(training.output_dir)
    model = trainer.accelerator.unwrap_model(trainer.model)
    with files_at_once(output_dir) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        if media == "image":
            VattImageProcessor.from_video_processor(processor.video_processor).save_pretrained(folder)
        if args.remote_code:
            save_remote_code(folder)
        write_model_card(
            folder,
            name=training.hub_model_id or output_dir.resolve().name,
            model=model,
            dataset=without_secrets(data.dataset),
            metrics=metrics,
            training={},
            settings={
                name: value
                for name, value in without_secrets(trainer.settings).items()
                if name not in ("dataset", "model", "data")
            },
            split=data.validation_split or None,
            data={
                "training split": data.train_split,
                "training clips": len(trainer.train_dataset),
                "clips that could not be read": len(skipped),
            },
            base_model=args.model,
            processor=processor,
        )
    if training.push_to_hub:
        ignored = ["checkpoint-*/*", "skipped.jsonl", "run.json", "training_args.bin"]
        HfApi().upload_folder(repo_id=trainer.hub_model_id, folder_path=output_dir, ignore_patterns=ignored)
        print(f"Uploaded to {trainer.hub_model_id}")


def set_up(training: FinetuningArguments) -> None:
    """Messages, bars and random numbers of this process."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    transformers_logging.set_verbosity_error()  # no warning that the classifier is new
    if training.disable_tqdm:
        transformers_logging.disable_progress_bar()
        datasets.disable_progress_bars()
    seed_everything(training.seed, training.full_determinism)


def finish(
    media: str,
    data: DataArguments,
    args: ModelArguments,
    splits: Splits,
    trainer: VattTrainer,
    prediction: PredictionOutput | None,
    speed: float | None,
) -> None:
    """Write the results and the trained model, and print a summary."""
    output_dir = Path(trainer.args.output_dir)
    skipped = splits.skipped | trainer.skipped
    metrics: dict[str, float] = {}
    with explained(output_dir, "The training is done: the same command saves its result."):
        output_dir.mkdir(parents=True, exist_ok=True)
        for name in ("results.json", "per_class.csv", "confusion.png"):  # of another run in this folder
            (output_dir / name).unlink(missing_ok=True)
        if prediction is not None:
            results = {
                "dataset": without_secrets(data.dataset),
                "split": data.validation_split,
                "model": args.model or args.preset,
                "classes": len(splits.names),
                "views": data.eval_windows * data.eval_crops,
                "skipped_clips": len(skipped),
                "train_samples_per_second": speed,
                "settings": without_secrets(trainer.settings),
            }
            metrics = report(output_dir, prediction, splits.names, results)
        if splits.train is not None:
            save(media, trainer, data, args, metrics, skipped)
    if skipped:
        print(skip_report(skipped, splits.total))
    for name, value in metrics.items():
        print(f"{name:>20}: {value:.4g}")
    print(f"Saved to {output_dir}")


def main(media: str, description: str) -> None:
    """Run one of the scripts."""
    data, args, training = parse(media, description)
    set_up(training)
    try:
        check_output_dir(training.output_dir)
        splits = Splits.load(media, data, args, training)
        model, processor = build(media, args, splits.names, splits.several)
        set_processor(processor, data, args)
        if data.decode_once and media != "image":
            with training.main_process_first(desc="decoding"):
                retry = training.local_process_index == 0 and last_checkpoint(training.output_dir) is None
                options = {"limits": data.limits(), "retry": retry}
                splits.decode(processor, media, max(1, training.dataloader_num_workers), **options)
        settings = run_settings(media, data, args, training, splits.train)
        trainer = make_trainer(media, model, processor, splits, data, training, settings)
        speed = None if splits.train is None else train(trainer)
        prediction = evaluate(trainer, data.validation_split)
        if training.process_index == 0:
            finish(media, data, args, splits, trainer, prediction, speed)
    except (OSError, ValueError, StrictDataclassError, HfHubHTTPError, TrainingError) as error:
        fail(error)
