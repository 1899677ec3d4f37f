# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Pretrain VATT on a folder or dataset of videos, with captions if there are any.

    python examples/run_pretraining.py --dataset my_videos --output_dir out --preset ma_tiny

`my_videos` is a folder of videos in the layout of `datasets`' videofolder (`train/`, `validation/`, each with
a `metadata.jsonl` that has `file_name` and `captions`), the name of a dataset with a video column, or a
folder or URL of shards (see `prepare_shards.py`). Several processes: `accelerate launch
examples/run_pretraining.py ...`. The same command continues a stopped run. SIGTERM, SIGINT and SIGUSR1 end a
run with a checkpoint and exit code 75. The output folder gets model, processor and model card, for
`AutoModel.from_pretrained(output_dir)`.
"""

import datetime
import json
import logging
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import DistributedType, InitProcessGroupKwargs, ProjectConfiguration, gather_object
from common import (
    MediaArguments,
    check_output_dir,
    decoded_side,
    fail,
    json_object,
    naming,
    new_config,
    parse,
    refuse_with_model,
)
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, StrictDataclassError
from torch.utils.data import DataLoader, Subset
from towers import TowerArguments
from tqdm.auto import tqdm
from transformers.hf_argparser import HfArg
from transformers.utils import logging as transformers_logging

from modeling_vatt import VattForPreTraining
from modeling_vatt.data import (
    ClipDataset,
    ShardDataset,
    SkippedClip,
    all_captions,
    collate_clips,
    decode_clips,
    open_clips,
)
from modeling_vatt.data.tables import warn_of_shared_files
from modeling_vatt.embedding.fitting import fit_projections
from modeling_vatt.embedding.locked_features import FeatureDataset, LockedFeatures, compute_locked_features
from modeling_vatt.evaluation import clip_retrieval
from modeling_vatt.hub.model_card import is_training_metric
from modeling_vatt.hub.remote_code import save_remote_code
from modeling_vatt.models.loading import load_pretrained
from modeling_vatt.models.locking import hash_locked
from modeling_vatt.processors import MediaError, VattAugmentation, VattProcessor, VattTokenizer
from modeling_vatt.retrieval import embed_batches
from modeling_vatt.training import (
    Pretrainer,
    PretrainingArguments,
    TrainingError,
    explained,
    files_at_once,
    recompute_activations,
    seed_everything,
    without_secrets,
    write_model_card,
)
from modeling_vatt.training.checkpoints import checkpoints
from modeling_vatt.training.pretrainer import step_sampler


logger = logging.getLogger("modeling_vatt.run_pretraining")


@dataclass(kw_only=True)
class DataArguments(MediaArguments):
    """What to train on."""

    dataset: str = HfArg(help="Folder of videos or of shards, or name of a dataset.")
    allow_remote: bool = HfArg(
        default=False, help="Let --dataset be a URL of shards (https://, hf://, s3://, ...)."
    )
    train_split: str = HfArg(default="train", help="Split to train on.")
    validation_split: str = HfArg(
        default="validation", help="Split for retrieval during training; '' for none."
    )
    video_column: str | None = HfArg(default=None, help="Found by its type if left out.")
    caption_column: str | None = HfArg(default=None, help="Found by its name if left out.")
    clips_per_video: int = HfArg(
        default=1, help="Windows of each video in a batch, which then needs fewer videos."
    )
    decode_once: bool = HfArg(
        default=False,
        help="Decode all clips once into a table on disk, or with --cache_features what the other towers "
        "take into memory: for few, short clips and many epochs.",
    )
    decode_size: int | None = HfArg(
        default=None,
        help="Shorter side at which videos are decoded; --model's, or 8/7 of the frame size, if left out.",
    )
    crop_resize_style: Literal["VGG", "Inception", "none"] | None = HfArg(
        default=None,
        help="Random crop: VGG (release; if left out), Inception (paper), none (with cached features "
        "of video).",
    )
    color_augment: bool = HfArg(
        default=True,
        help="Change brightness, saturation, contrast, hue (not of frames whose features are cached).",
    )
    augmentation: str | None = HfArg(
        default=None, help="More of the augmentation, as JSON, e.g. '{\"scale_range\": [1, 1.25]}'."
    )
    shuffle_captions: bool = HfArg(
        default=False, help="Control experiment: give every clip the captions of another one."
    )


@dataclass
class ModelArguments:
    """What to train."""

    preset: str | None = HfArg(
        default=None,
        help="Named config of a new model: bbs, mbs, lbs, ma_base, ma_medium, ma_large, mmv, tiny, "
        "ma_tiny, mmv_tiny; ma_tiny if left out.",
    )
    model: str | None = HfArg(default=None, help="Start from this checkpoint (folder or Hub name).")
    config_overrides: str | None = HfArg(
        default=None, help='JSON, e.g. \'{"temperature": 0.05, "video_config": {"drop_token_rate": 0}}\'.'
    )
    loss: Literal["asymmetric", "symmetric", "asymmetric_learned", "symmetric_learned", "sigmoid"] | None = (
        HfArg(default=None, help="Loss between two modalities; the config's if left out.")
    )
    vocabulary: str | None = HfArg(
        default=None, help="Word list (e.g. howto100m_en.txt); trained from the captions if left out."
    )
    tokenizer: Literal["words", "sentencepiece"] | None = HfArg(
        default=None, help="What to train; words if left out."
    )
    vocab_size: int | None = HfArg(default=None, help="At most so many words or pieces; 65536 if left out.")
    num_captions: int | None = HfArg(
        default=None, help="Captions per clip and step (MIL-NCE candidates); --model's, or 5, if left out."
    )
    normalize_audio: bool = HfArg(
        default=False, help="Bring sound to unit variance: helps small models trained from scratch."
    )
    gradient_checkpointing: Literal["no", "full", "selective"] = HfArg(
        default="no", help="Compute blocks again backwards, or only what is cheap in them: less memory."
    )
    torch_compile: bool = HfArg(default=False, help="Compile the model.")

    def overrides(self) -> str | None:
        """--config_overrides with --loss."""
        if self.loss is None:
            return self.config_overrides
        return json.dumps(
            {**json_object("--config_overrides", self.config_overrides), "loss_type": self.loss}
        )


@dataclass
class RunArguments:
    """How to run and where to put the result."""

    mixed_precision: Literal["no", "bf16", "fp16"] = HfArg(default="no", help="Autocast.")
    report_to: list[str] = HfArg(
        default_factory=lambda: ["tensorboard"],
        help=f"Trackers of Accelerate ({', '.join(LOGGER_TYPE_TO_CLASS)}), which must be installed; all that "
        "are; or none.",
    )
    eval_batch_size: int = HfArg(default=32, help="Clips at a time in evaluation.")
    keep_last: bool = HfArg(default=False, help="Save the last model instead of the best.")
    remote_code: bool = HfArg(
        default=True, help="Save the code too, so that the result loads without this package."
    )
    push_to_hub: bool = HfArg(default=False, help="Upload the result.")
    hub_model_id: str | None = HfArg(default=None, help="Name on the Hub; the folder's if left out.")
    hub_private: bool = HfArg(default=False, help="Make the repository private.")
    ddp_timeout: int = HfArg(
        default=1800, help="Seconds that processes wait for each other before the run ends."
    )


@dataclass
class Arguments:
    """All of them."""

    data: DataArguments
    model: ModelArguments
    towers: TowerArguments
    training: PretrainingArguments
    run: RunArguments


def trackers(names: list[str]) -> list[str]:
    """Accelerate's names of trackers; ValueError for an unknown one, or one that is not installed."""
    names = [name.lower().replace("-", "_") for name in names]
    names = ["comet_ml" if name == "comet" else name for name in names]
    installed = [str(name) for name in get_available_trackers()]
    if "all" in names:
        return installed
    if names == ["tensorboard"] and "tensorboard" not in installed:
        logger.info("TensorBoard is not installed: metrics go to metrics.jsonl only.")
        return []
    if names == ["none"]:
        return []
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ValueError(
                f"--report_to {name}: Accelerate has no such tracker. Take some of "
                f"{', '.join(LOGGER_TYPE_TO_CLASS)}, or all, or none."
            )
        if name not in installed:
            raise ValueError(f"--report_to {name} is not installed: `pip install {name}`, or leave it out.")
    return list(dict.fromkeys(names))


def set_up(args: Arguments) -> Accelerator:
    """Device, precision, processes, trackers and seeds."""
    run = args.run
    run.report_to = trackers(run.report_to)
    accelerator = Accelerator(
        mixed_precision=run.mixed_precision,
        log_with=run.report_to,
        project_config=ProjectConfiguration(args.training.output_dir, f"{args.training.output_dir}/logs"),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=datetime.timedelta(seconds=run.ddp_timeout))],
    )
    seed_everything(args.training.seed, args.training.deterministic)
    return accelerator


def make_repository(run: RunArguments, name: str) -> str:
    """The name of the result; with `push_to_hub` that of a repository made now, to fail before the
    training."""
    if not run.push_to_hub:
        return name
    name = run.hub_model_id or name
    try:
        return HfApi().create_repo(name, private=run.hub_private, exist_ok=True).repo_id
    except (HfHubHTTPError, OSError) as error:
        raise ValueError(f"Cannot create {name} on the Hub: {error}") from error


@dataclass
class Tables:
    """The clips of the splits, and those that could not be decoded."""

    train: Any
    validation: Any
    skipped: list[SkippedClip] = field(default_factory=list)

    @classmethod
    def load(cls, data: DataArguments, seed: int) -> "Tables":
        """Open the splits."""

        def load(split: str) -> datasets.Dataset | ShardDataset:
            return open_clips(data.dataset, split, data.video_column, data.caption_column, data.allow_remote)

        train = load(data.train_split)
        validation = load(data.validation_split) if data.validation_split else None
        names = ("video_column", "caption_column", "shuffle_captions", "decode_once")
        if isinstance(train, ShardDataset) and (
            given := [f"--{name}" for name in names if getattr(data, name)]
        ):
            raise ValueError(f"{', '.join(given)}: for videos in a folder, not in shards. Leave it out.")
        if validation is not None and not isinstance(train, ShardDataset):
            warn_of_shared_files(train, validation, "video")
        return cls(shuffle_captions(train, seed) if data.shuffle_captions else train, validation)

    def decode(self, processor: VattProcessor, num_workers: int, **options: Any) -> None:
        """Decode all clips once; options of [`decode_clips`]."""
        self.train, self.skipped = decode_clips(self.train, processor, num_workers, **options)
        if self.validation is not None:
            self.validation, more = decode_clips(self.validation, processor, num_workers, **options)
            self.skipped += more
        for clip in self.skipped:
            logger.warning("Skipped %s", clip.reason)


def build(
    args: ModelArguments, towers: TowerArguments, captions: Iterable[list[str]]
) -> tuple[VattForPreTraining, VattProcessor]:
    """Model and processor of a checkpoint, with pretrained towers, or new; towers locked."""
    model, processor = make_model(args, towers, captions)
    towers.adapt(model)
    if args.gradient_checkpointing != "no":
        recompute_activations(model, args.gradient_checkpointing)
    if args.torch_compile:
        model.compile()
    return model, processor


def make_model(
    args: ModelArguments, towers: TowerArguments, captions: Iterable[list[str]]
) -> tuple[VattForPreTraining, VattProcessor]:
    """Model and processor before towers are locked."""
    new_only = ("preset", "config_overrides", "vocabulary", "tokenizer", "vocab_size")
    flags = {name: getattr(args, name) for name in new_only}
    refuse_with_model(args.model, {**flags, **towers.of_new_models()})
    trusted = {"trust_remote_code": True} if towers.trust_remote_code else {}
    if args.model is not None:
        chosen = {} if args.loss is None else {"loss_type": args.loss}
        parts = ("head", "loss_scales")
        model, line = load_pretrained(VattForPreTraining, args.model, may_be_new=parts, **trusted, **chosen)
        logger.info(line)
        processor = VattProcessor.from_pretrained(args.model)
        processor.num_captions = args.num_captions or processor.num_captions
        if args.normalize_audio:
            normalize_audio(model, processor)
        return model, processor
    towers.refuse_idle()
    words = ("vocabulary", "tokenizer", "vocab_size") if towers.text_tower else ("tokenizer", "vocab_size")
    idle = [f"--{name}" for name in words if flags[name] is not None]
    if idle and (towers.text_tower or args.vocabulary):
        owner = "--text_tower has words of its own" if towers.text_tower else "--vocabulary lists the words"
        raise ValueError(f"{', '.join(idle)}: {owner}. Leave it out.")

    def make_tokenizer(length: int) -> VattTokenizer:
        size = args.vocab_size or 65_536
        sentences = (caption for clip in captions for caption in clip)
        if args.vocabulary is not None:
            return VattTokenizer.from_vocabulary(args.vocabulary, model_max_length=length)
        if args.tokenizer == "sentencepiece":
            return VattTokenizer.train_sentencepiece(sentences, size, model_max_length=length)
        return VattTokenizer.train_from_iterator(sentences, size, model_max_length=length)

    captions_each = args.num_captions or 5
    if towers.sources():
        model, processor = towers.build(
            args.preset or "tiny", args.overrides(), make_tokenizer, captions_each
        )
    else:
        config = new_config(args.preset or "ma_tiny", args.overrides())
        tokenizer = make_tokenizer(config.text_config.max_position_embeddings)
        config.text_config.vocab_size = len(tokenizer)
        fps = config.video_config.num_frames / towers.window_seconds if towers.window_seconds else 10.0
        processor = VattProcessor.from_config(config, tokenizer, fps, num_captions=captions_each)
        model = VattForPreTraining(config)
    if args.normalize_audio:
        normalize_audio(model, processor)
    return model, processor


def normalize_audio(model: VattForPreTraining, processor: VattProcessor) -> None:
    """Let the processor bring sound to unit variance."""
    if model.config.is_foreign("audio"):
        raise ValueError("--normalize_audio is for VATT's own audio tower. Leave it out.")
    processor.feature_extractor.do_normalize = True


def shuffle_captions(clips: datasets.Dataset, seed: int) -> datasets.Dataset:
    """Every clip gets the captions of another one (by a rotation of a permutation)."""
    if "captions" not in clips.column_names or "sentences" in clips.column_names:
        raise ValueError("--shuffle_captions needs captions of whole clips, not sentences with times.")
    captions = clips["captions"]
    order = np.random.default_rng(seed).permutation(len(captions))
    moved = dict(zip(order, np.roll(order, 1), strict=True))
    feature = clips.features["captions"]
    clips = clips.remove_columns("captions")
    return clips.add_column("captions", [captions[moved[i]] for i in range(len(captions))], feature=feature)


def make_augmentation(data: DataArguments, cached: list[str]) -> VattAugmentation:
    """Training augmentation, without that of towers with `cached` features; ValueError if it was asked for,
    or is invalid."""
    settings: dict[str, Any] = {"noise": 0.0 if "audio" in cached else 0.01}
    if "video" not in cached:
        settings["crop_resize_style"] = data.crop_resize_style or "VGG"
        settings["color_probability"] = 0.8 if data.color_augment else 0.0
    elif data.crop_resize_style not in (None, "none") or data.augmentation:
        raise ValueError(
            "--crop_resize_style and --augmentation: the locked video tower sees every window once, so its "
            "pixels cannot be changed from epoch to epoch. Leave them out, or train without --cache_features."
        )
    else:
        settings |= {"crop_resize_style": "none", "flip_probability": 0, "color_probability": 0}
    changes = json_object("--augmentation", data.augmentation)
    with naming("--augmentation"):
        return VattAugmentation(**{**settings, **changes})


def make_data_sets(
    args: Arguments,
    tables: Tables,
    model: VattForPreTraining,
    processor: VattProcessor,
    accelerator: Accelerator,
    augment: VattAugmentation,
    cached: list[str],
    locked: dict[str, str] | None,
) -> tuple[ClipDataset, ClipDataset | None]:
    """Data sets of training and validation; features of `cached` towers are computed first. `locked`: of
    [`hash_locked`]."""
    limits = args.data.limits()
    options: dict[str, Any] = {
        "random_window": True,
        "augmentation": augment,
        "seed": args.training.seed,
        "clips_per_video": args.data.clips_per_video,
        "limits": limits,
        "late_colors": True,
        "with_ids": model.config.mask_false_negatives,
        "mask_captions": True,
    }
    asked: dict[str, Any] = {"limits": limits, "mask_captions": True}
    clips, held_out = ClipDataset(tables.train, processor, **options), None
    if not cached:
        if tables.validation is not None:
            held_out = ClipDataset(tables.validation, processor, **asked)
        return clips, held_out
    counter = tqdm(unit="clip", desc="Features of locked towers", disable=not accelerator.is_main_process)
    windows = args.towers.cache_windows

    def features(table: Any, windows: int) -> LockedFeatures:
        return compute_locked_features(
            model.to(accelerator.device),
            processor,
            table,
            cached,
            Path(args.towers.cache_dir or Path(args.training.output_dir, "features")),
            windows,
            batch_size=args.run.eval_batch_size,
            num_workers=max(1, args.training.num_workers),
            dtype=args.towers.cache_dtype,
            share=(accelerator.process_index, accelerator.num_processes),
            wait=accelerator.wait_for_everyone,
            progress=lambda clips: counter.update(clips),
            locked=locked,
            limits=limits,
        )

    with counter:
        known = features(tables.train, windows)
        if args.towers.fits:
            fit_projections(model, known, all_captions(tables.train), seed=args.training.seed)
        keep = {"keep_read": args.data.decode_once}
        clips = FeatureDataset(tables.train, processor, known, window_choices=windows, **keep, **options)
        if tables.validation is not None:
            known = features(tables.validation, 1)
            held_out = FeatureDataset(tables.validation, processor, known, **asked, **keep)
    return clips, held_out


def evaluate_together(
    model: VattForPreTraining, clips: ClipDataset, accelerator: Accelerator, batch_size: int
) -> dict[str, float]:
    """Retrieval among all clips, of which each process embeds a part; under FSDP all clips, as all processes
    must call the model equally often."""
    rank, count = accelerator.process_index, accelerator.num_processes
    if accelerator.distributed_type == DistributedType.FSDP:
        rank, count = 0, 1
    part = Subset(clips, range(len(clips) * rank // count, len(clips) * (rank + 1) // count))
    loader = DataLoader(part, batch_size=batch_size, collate_fn=collate_clips)
    found = embed_batches(model, (batch.inputs for batch in loader if batch.inputs))
    parts = [part for part in (gather_object([found]) if count > 1 else [found]) if part]
    if not parts:
        raise ValueError("No clip of the validation split can be read: check its files, or leave it out.")
    return clip_retrieval({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


class Progress:
    """A bar, and metrics for the trackers; within `with`."""

    SHOWN = {
        "loss": "loss",
        "video_audio_loss": "va",
        "video_text_loss": "vt",
        "clips_per_second": "clips/s",
        "txt2vid_R10": "t2v R@10",
        "aud2vid_R10": "a2v R@10",
    }

    def __init__(self, accelerator: Accelerator, num_steps: int) -> None:
        self.accelerator = accelerator
        self.shown: dict[str, str] = {}
        self.bar = tqdm(
            total=num_steps,
            unit="step",
            disable=not accelerator.is_main_process,
            mininterval=0.5 if sys.stderr.isatty() else 30,  # a log file needs no moving bar
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Metrics of a step."""
        self.accelerator.log(metrics, step=step)
        self.shown |= {short: f"{metrics[name]:.3g}" for name, short in self.SHOWN.items() if name in metrics}
        self.bar.set_postfix(self.shown, refresh=False)
        if "mean_recall" in metrics:
            recalls = ", ".join(f"{name} {value:.3g}" for name, value in metrics.items() if "2vid" in name)
            tqdm.write(f"step {step}: {recalls}")

    def step(self, step: int) -> None:
        """Show the number of steps made."""
        self.bar.update(step - self.bar.n)


def describe(args: Arguments, accelerator: Accelerator) -> dict[str, Any]:
    """The arguments for `run.json`, without secrets; the trackers get them too."""
    settings = {type(part).__name__: without_secrets(part) for part in vars(args).values()}
    if args.run.report_to:
        lists = (list, tuple)
        plain = {
            f"{kind}.{key}": " ".join(map(str, value)) if isinstance(value, lists) else value
            for kind, values in settings.items()
            for key, value in values.items()
            if isinstance(value, (int, float, str, bool, *lists))
        }
        accelerator.init_trackers(Path(args.training.output_dir).resolve().name, config=plain)
    return settings


def save(
    args: Arguments,
    name: str,
    trainer: Pretrainer,
    weights: dict[str, torch.Tensor] | None,
    processor: VattProcessor,
    tables: Tables,
    metrics: dict[str, float],
) -> None:
    """Model, the best one if there was an evaluation, processor, code and model card."""
    output_dir = Path(args.training.output_dir)
    trained = {key: value for key, value in metrics.items() if is_training_metric(key)}
    metrics = {key: value for key, value in metrics.items() if key not in trained}
    model = trainer.accelerator.unwrap_model(trainer.model)
    best = output_dir / "best"
    if best.is_dir() and tables.validation is not None and not args.run.keep_last:
        trusted = {"trust_remote_code": True} if args.towers.trust_remote_code else {}
        model, weights = VattForPreTraining.from_pretrained(best, **trusted), None
        metrics = json.loads((best / "training_state.json").read_text())["metrics"]
    training = {key: value for key, value in vars(args.training).items() if key != "output_dir"}
    augmentation: Any = trainer.dataset.augmentation
    with (
        explained(output_dir, "The training is done: the same command saves its result."),
        files_at_once(output_dir) as folder,
    ):
        model.save_pretrained(folder, state_dict=weights)
        processor.save_pretrained(folder)
        if args.run.remote_code:
            save_remote_code(folder)
        write_model_card(
            folder,
            name=name,
            model=model,
            dataset=without_secrets(args.data.dataset),
            metrics=metrics,
            training=trained,
            settings={
                **training,
                "mixed_precision": args.run.mixed_precision,
                "crop_resize_style": augmentation.crop_resize_style,
                "color_augment": augmentation.color_probability > 0,
            },
            split=args.data.validation_split or None,
            data={
                "training split": args.data.train_split,
                "training clips": len(trainer.dataset),
                "clips with captions": sum(bool(captions) for captions in all_captions(tables.train)),
                "clips that could not be read": len(tables.skipped) + len(trainer.progress.skipped),
            },
            base_model=args.model.model or list(args.towers.sources().values()),
            processor=processor,
        )
    if report := trainer.skip_report(already=tables.skipped):
        print(report)
    print(f"Saved model, processor and model card to {output_dir}")
    if args.run.push_to_hub:
        ignored = ["checkpoint-*", "best/*", "logs/*", "*.partial/*", "metrics.jsonl"]
        ignored += ["run.json", "non_finite_step_*.json"]  # hold paths of this machine
        HfApi().upload_folder(repo_id=name, folder_path=output_dir, ignore_patterns=ignored)
        print(f"Uploaded to {name}")


def main() -> None:
    args = Arguments(
        *parse(__doc__, DataArguments, ModelArguments, TowerArguments, PretrainingArguments, RunArguments)
    )
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("modeling_vatt").setLevel(logging.INFO)
    transformers_logging.disable_progress_bar()
    data, training = args.data, args.training
    name = Path(training.output_dir).resolve().name
    try:
        check_output_dir(training.output_dir)
        limits = data.limits()
        accelerator = set_up(args)
        if accelerator.is_main_process:
            name = make_repository(args.run, name)
        tables = Tables.load(data, training.seed)
        model, processor = build(args.model, args.towers, all_captions(tables.train))
        videos = processor.video_processor
        videos.decode_size = data.decode_size or videos.decode_size or decoded_side(videos)
        cached = args.towers.cached(model)
        locked = hash_locked(model) if cached else None
        raw = ClipDataset(tables.train, processor, clips_per_video=data.clips_per_video)
        step_sampler(training, raw, world_size=accelerator.num_processes)  # raises before work is done
        if data.decode_once and not cached:
            with accelerator.main_process_first():
                retry = accelerator.is_main_process and not checkpoints(training.output_dir)
                tables.decode(processor, max(1, training.num_workers), limits=limits, retry=retry)
        augment = make_augmentation(data, cached)
        clips, held_out = make_data_sets(args, tables, model, processor, accelerator, augment, cached, locked)
        settings = describe(args, accelerator)

        def evaluate(model: VattForPreTraining) -> dict[str, float]:
            return evaluate_together(model, held_out, accelerator, args.run.eval_batch_size)

        with Progress(accelerator, training.num_steps) as progress:
            trainer = Pretrainer(
                model,
                clips,
                training,
                accelerator,
                evaluate=None if held_out is None else evaluate,
                save_extra=processor.save_pretrained,
                on_log=progress.log,
                on_step=progress.step,
                settings=settings,
                locked=locked,
            )
            metrics = trainer.train()
        accelerator.wait_for_everyone()
        weights = trainer.whole_weights()
        if accelerator.is_main_process:
            save(args, name, trainer, weights, processor, tables, metrics)
    except (MediaError, OSError, ValueError, StrictDataclassError, HfHubHTTPError, TrainingError) as error:
        fail(error)
    accelerator.end_training()


if __name__ == "__main__":
    main()
