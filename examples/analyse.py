# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Run the paper's analyses on any videos and models, and write figures, tables and one HTML report.

    python examples/analyse.py --models scratch=preset:ma_tiny agnostic=my_model --dataset my_videos \
        --label_column label

docs/analyse.md says what each analysis shows.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import pandas as pd
import torch
from common import check_output_dir, held_out, parse
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import AutoConfig, PreTrainedModel
from transformers.hf_argparser import HfArg
from transformers.utils import logging as transformers_logging

import modeling_vatt
from modeling_vatt import VattConfig, VattForPreTraining
from modeling_vatt.analysis import (
    ActivationMean,
    ClipFeatures,
    InputSize,
    activation_summary,
    activation_table,
    class_maps,
    drop_token_tradeoff,
    extract_features,
    modality_maps,
    similarity_densities,
)
from modeling_vatt.analysis.figures import (
    plot_activation_summary,
    plot_activations,
    plot_densities,
    plot_drop_token,
    plot_maps,
)
from modeling_vatt.analysis.report import Section, write_report
from modeling_vatt.data import ClipDataset, SkippedClip, all_captions, collate_clips, load_clips, skip_report
from modeling_vatt.evaluation import clip_retrieval
from modeling_vatt.models.loading import load_pretrained
from modeling_vatt.processors import VattProcessor, VattTokenizer
from modeling_vatt.repositories import require_repository
from modeling_vatt.retrieval import embed_batches


ANALYSES = ("classes", "modalities", "similarities", "activations", "drop_token")
HELP = {
    "classes": "Each point is the pooled {modality} feature of a clip, near means similar. A model that "
    "tells the classes apart shows islands of one colour; the table has the share of the ten nearest "
    "neighbours that are of the same class, and what chance would give.",
    "modalities": "Each point is one modality of one clip, before the encoder and in the common spaces. In "
    "the table, mixing is 0 where the modalities lie apart and 1 where they are mixed perfectly.",
    "similarities": "Positive pairs belong to one clip, random pairs to two. The less the curves overlap, "
    "the better one modality finds the other; the AUC is the chance that a positive pair is the more similar "
    "one.",
    "activations": "Mean output of each node of each layer's MLP, before it is added to the residual stream, "
    "by modality. Nodes that are strong in one panel only work for this modality.",
    "activation_summary": "How strongly a layer reacts to a modality on average and, for agnostic models, "
    "which modality moves most of its nodes.",
    "drop_token": "Points are labelled with the share of tokens kept; up and left is better. A line that "
    "stays flat to the left says that tokens can be dropped for free.",
}


@dataclass
class AnalysisArguments:
    """What to analyse."""

    models: list[str] = HfArg(
        help="NAME=SOURCE, shown under NAME; SOURCE is a folder or Hub name of a pretrained model or "
        "classifier with its processor, or preset:tiny for random weights."
    )
    dataset: str = HfArg(help="Folder of videos, or name of a dataset.")
    split: str | None = HfArg(
        default=None, help="Split to analyse; `test`, or else `validation`, if left out."
    )
    label_column: str | None = HfArg(
        default=None, help="Column with the class of a clip; needed for `classes`."
    )
    output_dir: str = HfArg(default="analysis", help="For figures, tables and report.html.")
    analyses: list[str] = HfArg(
        default_factory=lambda: list(ANALYSES), help=f"Some of {', '.join(ANALYSES)}."
    )
    max_clips: int = HfArg(default=500, help="Clips to use, chosen at random with the seed.")
    max_classes: int = HfArg(default=16, help="Classes to show, chosen at random; paper: 100.")
    modality: Literal["video", "audio"] = HfArg(default="video", help="Whose features are shown by class.")
    method: Literal["tsne", "umap"] = HfArg(default="tsne", help="Kind of map.")
    tokens: Literal["all", "agg"] = HfArg(
        default="all", help="Positions over which activations are averaged."
    )
    keep: list[float] = HfArg(
        default_factory=lambda: [0.25, 0.5, 0.75, 1.0], help="Kept shares for `drop_token`."
    )
    sizes: list[str] = HfArg(
        default_factory=list,
        help="Inputs for `drop_token` as FRAMESxSIZE, e.g. 32x224; the model's by default.",
    )
    batch_size: int = HfArg(default=8, help="Clips at a time.")
    num_workers: int = HfArg(default=0, help="Processes that decode.")
    device: str = HfArg(default="cpu", help="cpu, cuda, ...")
    seed: int = HfArg(default=0, help="Of every random choice.")


@dataclass
class LoadedModel:
    """A model under its name in the figures, with its processor."""

    name: str
    model: PreTrainedModel
    processor: VattProcessor
    is_random: bool


@dataclass
class Observed:
    """Results of a model on the clips: features, classes of the clips that were read, activations."""

    features: ClipFeatures
    labels: list[Any]
    activations: ActivationMean


@dataclass
class Clips:
    """The clips to analyse, as batches for any processor; counts what cannot be read.

    Args:
        table: of `load_clips`.
        args: batch size and workers.
    """

    table: datasets.Dataset
    args: AnalysisArguments
    skipped: dict[str, str] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)  # of the table, in the order of the last batches

    def batches(self, processor: VattProcessor, title: str) -> Iterator[dict[str, torch.Tensor]]:
        loader = DataLoader(
            ClipDataset(self.table, processor),
            batch_size=self.args.batch_size,
            num_workers=self.args.num_workers,
            collate_fn=lambda items: (collate_clips(items), [isinstance(i, SkippedClip) for i in items]),
        )
        self.rows, row = [], 0
        interval = 0.5 if sys.stderr.isatty() else 30  # a log file needs no moving bar
        for batch, missing in tqdm(loader, desc=title, unit="batch", mininterval=interval):
            self.rows += [row + i for i, lost in enumerate(missing) if not lost]
            row += len(missing)
            self.skipped |= {clip.name: clip.reason for clip in batch.skipped}
            if batch.inputs:
                yield batch.inputs

    def labels(self, column: str) -> list[Any]:
        """Classes of the clips of the last batches; names where the dataset has names."""
        values = self.table[column]
        feature = self.table.features[column]
        names = feature.names if isinstance(feature, datasets.ClassLabel) else None
        return [names[values[row]] if names else values[row] for row in self.rows]


def load_model(text: str, captions: Sequence[str], args: AnalysisArguments) -> LoadedModel:
    name, equals, source = text.partition("=")
    if not equals or not name or not source:
        sys.exit(f"--models {text}: write NAME=FOLDER, NAME=HUB/NAME or NAME=preset:tiny.")
    try:
        if source.startswith("preset:"):
            config = VattConfig.from_preset(source.removeprefix("preset:"))
            length = config.text_config.max_position_embeddings
            size = config.text_config.vocab_size
            tokenizer = VattTokenizer.train_from_iterator(captions, size, model_max_length=length)
            config.text_config.vocab_size = len(tokenizer)
            torch.manual_seed(args.seed)
            model, processor = VattForPreTraining(config), VattProcessor.from_config(config, tokenizer)
        else:
            config = AutoConfig.from_pretrained(source, local_files_only=require_repository(source))
            architecture = getattr(modeling_vatt, (config.architectures or [""])[0], VattForPreTraining)
            model, line = load_pretrained(architecture, source)
            print(line)
            processor = VattProcessor.from_pretrained(source)
    except (OSError, ValueError) as error:
        sys.exit(f"--models {text}: {error}")
    processor.num_captions = 1
    return LoadedModel(name, model.to(args.device).eval(), processor, source.startswith("preset:"))


def quality(
    loaded: LoadedModel, clips: Clips, label_column: str | None
) -> Callable[[InputSize], dict[str, float]]:
    """Measure of the DropToken trade-off: retrieval, or the accuracy of a classifier, in percent."""

    def evaluate(size: InputSize) -> dict[str, float]:
        processor = VattProcessor(
            loaded.processor.feature_extractor,
            resized(loaded.processor.video_processor, size),
            loaded.processor.tokenizer,
            num_captions=1,
        )
        batches = clips.batches(processor, f"{loaded.name}: DropToken")
        if isinstance(loaded.model, VattForPreTraining):
            found = clip_retrieval(embed_batches(loaded.model, batches))
            titles = {"txt2vid_": "text to video", "aud2vid_": "sound to video"}
            return {
                f"{title} R@{k} (%)": 100 * found[f"{prefix}R{k}"]
                for prefix, title in titles.items()
                for k in (1, 10)
                if f"{prefix}R{k}" in found
            }
        assert label_column is not None
        return {"top-1 accuracy (%)": 100 * accuracy(loaded.model, batches, clips, label_column)}

    return evaluate


def resized(video_processor: Any, size: InputSize) -> Any:
    """A video processor for clips of a size; more or fewer frames cover the same time."""
    settings = video_processor.to_dict()
    if size.size:
        settings |= {"size": size.size, "crop_size": size.size, "decode_size": None}
    if size.frames:
        settings |= {"fps": settings["fps"] * size.frames / settings["num_frames"], "num_frames": size.frames}
    return type(video_processor).from_dict(settings)


@torch.no_grad()
def accuracy(model: Any, batches: Iterator[dict[str, torch.Tensor]], clips: Clips, column: str) -> float:
    found = []
    for batch in batches:
        name = "input_values" if model.modality == "audio" else "pixel_values_videos"
        found += model(batch[name].to(model.device)).logits.argmax(-1).tolist()
    names = model.config.id2label
    pairs = [
        (names[number], str(label))
        for number, label in zip(found, clips.labels(column), strict=True)
        if label is not None
    ]
    if unknown := {label for _, label in pairs} - set(names.values()):
        raise ValueError(f"The classifier has no class {min(unknown)!r} of the column {column!r}.")
    return float(np.mean([one == other for one, other in pairs]))


def parse_sizes(texts: Sequence[str]) -> list[InputSize]:
    sizes = []
    for text in texts:
        frames, _, size = text.partition("x")
        if not (frames.isdecimal() and size.isdecimal()):
            sys.exit(f"--sizes {text}: write FRAMESxSIZE, e.g. 32x224.")
        sizes.append(InputSize(int(frames), int(size)))
    return sizes or [InputSize()]


def open_clips(args: AnalysisArguments) -> Clips:
    """At most `max_clips` of the chosen split, or of the only one."""
    try:
        check_output_dir(args.output_dir)
        args.split, table = held_out(lambda split: load_clips(args.dataset, split), args.split)
    except ValueError as error:
        sys.exit(str(error))
    if args.label_column is not None and args.label_column not in table.column_names:
        sys.exit(f"--label_column {args.label_column}: no such column among {', '.join(table.column_names)}.")
    if len(table) > args.max_clips:
        chosen = np.random.default_rng(args.seed).choice(len(table), args.max_clips, replace=False)
        table = table.select(sorted(chosen.tolist()))
    return Clips(table, args)


def observe(loaded: LoadedModel, clips: Clips) -> Observed:
    """One pass of all clips through a model."""
    args, activations = clips.args, ActivationMean()
    batches = clips.batches(loaded.processor, loaded.name)
    features = extract_features(loaded.model, batches, activations, args.tokens)
    if not clips.rows:
        reason = next(iter(clips.skipped.values()))
        sys.exit(f"{args.dataset}: none of {len(clips.table)} clips could be read: {reason}")
    labels = [] if args.label_column is None else clips.labels(args.label_column)
    return Observed(features, labels, activations)


def main() -> None:
    (args,) = parse(__doc__, AnalysisArguments)
    transformers_logging.disable_progress_bar()
    if unknown := set(args.analyses) - set(ANALYSES):
        sys.exit(f"--analyses {' '.join(sorted(unknown))}: choose from {', '.join(ANALYSES)}.")
    sizes = parse_sizes(args.sizes)
    clips = open_clips(args)
    captions = [caption for row in all_captions(clips.table) for caption in row]
    models = [load_model(text, captions, args) for text in args.models]
    observed = {loaded.name: observe(loaded, clips) for loaded in models}
    sections: list[Section] = []
    notes: list[str] = []
    for analysis in args.analyses:
        if analysis == "classes" and args.label_column is None:
            notes.append("classes: left out, it needs --label_column")
            continue
        try:
            sections += run_analysis(analysis, args, models, observed, clips, sizes)
        except ValueError as error:
            notes.append(f"{analysis}: left out. {error}")
    if not sections:
        sys.exit("Nothing to report. " + "; ".join(notes))
    facts = {
        "models": ", ".join(args.models),
        "clips": f"{len(clips.rows)} of {args.dataset}, split {args.split}",
        "unreadable files": len(clips.skipped),
        **{f"note {number}": note for number, note in enumerate(notes, start=1)},
    }
    report = write_report(Path(args.output_dir), "VATT: analyses", sections, facts)
    for note in notes:
        print(note)
    if clips.skipped:
        print(skip_report(clips.skipped, len(clips.table)))
    print(f"Report: {report}")


def run_analysis(
    analysis: str,
    args: AnalysisArguments,
    models: Sequence[LoadedModel],
    observed: Mapping[str, Observed],
    clips: Clips,
    sizes: Sequence[InputSize],
) -> list[Section]:
    """Sections of the report for one analysis."""
    features = {name: seen.features for name, seen in observed.items()}
    if analysis == "classes":
        labels = {name: seen.labels for name, seen in observed.items()}
        points, summary = class_maps(
            features, labels, args.modality, args.method, args.max_classes, args.seed
        )
        figure = plot_maps(points, args.label_column)
        title = f"Output features by {args.label_column}"
        text = HELP[analysis].format(modality=args.modality)
        return [Section(analysis, title, text, figure, points, summary)]
    if analysis == "modalities":
        points, summary = modality_maps(features, args.method, args.seed)
        figure = plot_maps(points, "modality")
        return [
            Section(analysis, "Input and output space by modality", HELP[analysis], figure, points, summary)
        ]
    if analysis == "similarities":
        curves, summary = similarity_densities(features, args.seed)
        title = "Similarities of positive and random pairs"
        return [Section(analysis, title, HELP[analysis], plot_densities(curves), curves, summary)]
    if analysis == "drop_token":
        return [drop_token_section(args, models, clips, sizes)]
    sections = []
    for loaded in models:
        means = observed[loaded.name].activations.means()
        if loaded.is_random or not means:
            continue
        name = f"activations_{''.join(c if c.isalnum() else '_' for c in loaded.name)}"
        title = f"Mean MLP activations: {loaded.name}"
        sections.append(
            Section(name, title, HELP[analysis], plot_activations(means), activation_table(means))
        )
        summary = activation_summary(means, loaded.model.config.modality_agnostic)
        figure = plot_activation_summary(summary)
        title = f"Mean MLP activations by layer: {loaded.name}"
        sections.append(Section(f"{name}_summary", title, HELP["activation_summary"], figure, summary))
    if not sections:
        raise ValueError("Activations are shown of trained models with an encoder; none was given.")
    return sections


def drop_token_section(
    args: AnalysisArguments, models: Sequence[LoadedModel], clips: Clips, sizes: Sequence[InputSize]
) -> Section:
    """The trade-off of all models for which it can be measured."""
    tables = []
    for loaded in models:
        is_classifier = not isinstance(loaded.model, VattForPreTraining)
        if loaded.is_random or (is_classifier and args.label_column is None):
            continue
        evaluate = quality(loaded, clips, args.label_column)
        rows = drop_token_tradeoff(
            loaded.model, evaluate, args.keep, sizes, batch_size=args.batch_size, seed=args.seed
        )
        rows.insert(0, "model", loaded.name)
        tables.append(rows)
    if not tables:
        raise ValueError("It needs a trained model; a classifier also needs --label_column.")
    table = pd.concat(tables, ignore_index=True)
    figure = plot_drop_token(table, [name for name in table.columns if name.endswith("(%)")])
    return Section("drop_token", "DropToken trade-off", HELP["drop_token"], figure, table, table)


if __name__ == "__main__":
    main()
