# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint file -> a folder that `from_pretrained` reads: weights, config, processor, model card."""

import csv
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import ModelCard

from .._version import __version__
from ..hub.model_card import build_model_card
from ..models.classification import VattClassifier
from ..models.modeling_vatt import VattPreTrainedModel
from ..processors import VattProcessor, VattTokenizer
from ..processors.processing_vatt import sounds_of, videos_of
from .converter import build_model, load_variables, word_table_entry
from .errors import ConversionError
from .fingerprint import write_fingerprint
from .misc_data import MiscData, read_misc_data
from .release import Release
from .variables import Variables, open_variables


# Fine-tuning takes every second frame of 25 fps video and every second sample of 48 kHz sound.
FINETUNED_FPS = 12.5
FINETUNED_SAMPLING_RATE = 24000


@dataclass
class Conversion:
    """What `convert_checkpoint` did.

    Args:
        output: the folder.
        model_class: name of the model class.
        num_variables: variables converted.
        num_skipped: entries of the checkpoint that are no part of the model (optimizer state, object graph).
        num_values: numbers in the converted variables.
        notes: what the user should know.
    """

    output: Path
    model_class: str
    num_variables: int
    num_skipped: int
    num_values: int
    notes: list[str] = field(default_factory=list)


def convert_checkpoint(
    checkpoint: str | os.PathLike | Variables,
    output: str | os.PathLike,
    *,
    release: Release | None = None,
    misc_data: str | os.PathLike | None = None,
    vocabulary: str | os.PathLike | None = None,
    labels: str | os.PathLike | None = None,
    head_dim: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Conversion:
    """Convert an official checkpoint.

    `output` is complete or does not exist. It holds a fingerprint for [`check_fingerprint`].

    Args:
        checkpoint: see [`open_variables`].
        output: folder to make.
        release: which published checkpoint this is, for the model card and the frame size.
        misc_data: the release's `misc_data.tgz`, for the tokenizer and the word table (which the release too
            takes from there).
        vocabulary: word list instead of `misc_data`, only for the tokenizer.
        labels: file of class names, see [`read_labels`]; fine-tuned checkpoints only.
        head_dim, overrides: see [`infer_config`].
        overwrite: replace a folder that is not empty.
    """
    output = Path(output)
    with _moved_into_place(output, overwrite) as folder:
        variables = checkpoint if isinstance(checkpoint, Variables) else open_variables(checkpoint)
        notes: list[str] = []
        misc = None if misc_data is None else read_misc_data(misc_data)
        skeleton, table = build_model(variables.shapes, variables.source, head_dim, overrides)
        classifier = isinstance(skeleton, VattClassifier)
        if classifier and (misc is not None or vocabulary is not None):
            raise ConversionError("A fine-tuned checkpoint has no words: leave vocabulary and misc data out.")
        if labels is not None and not classifier:
            raise ConversionError("A pretraining checkpoint has no classes: leave the labels out.")
        names = None if labels is None else read_labels(labels, skeleton.config.num_labels)
        replacements: dict[str, np.ndarray] = {}
        if misc is not None:
            entry = word_table_entry(table)
            assert entry is not None  # pretraining models have text
            replacements[entry.variable] = misc.word_embeddings
            notes.append(_compare_word_tables(variables, entry.variable, misc))
        tokenizer = _tokenizer(misc, vocabulary)
        rows = skeleton.config.text_config.vocab_size
        if tokenizer is not None and len(tokenizer) != rows:
            words = f"The vocabulary has {len(tokenizer)} words, the word table {rows} rows"
            if len(tokenizer) > rows:
                raise ConversionError(f"{words}: give the vocabulary of this checkpoint.")
            notes.append(f"{words}: check that it is the vocabulary of this checkpoint.")
        model = load_variables(variables, head_dim, overrides, replacements)
        if names is not None:
            model.config.id2label = dict(enumerate(names))
            model.config.label2id = {name: number for number, name in enumerate(names)}
        elif classifier:
            notes.append("Classes have no names: give a list of them with labels (`--labels`).")
        model.save_pretrained(folder)
        notes += _save_processor(model, tokenizer, release, folder)
        card = _model_card(model, output.name, variables, release, notes, tokenizer is not None)
        card.save(folder / "README.md")
        write_fingerprint(folder)
    return Conversion(
        output=output,
        model_class=type(model).__name__,
        num_variables=len(table),
        num_skipped=variables.num_skipped,
        num_values=sum(int(np.prod(shape)) for shape in variables.shapes.values()),
        notes=notes,
    )


@contextmanager
def _moved_into_place(output: Path, overwrite: bool) -> Iterator[Path]:
    """A new folder beside `output`, renamed to it if all goes well and removed otherwise."""
    if output.exists() and not output.is_dir():
        raise ConversionError(f"{output} is a file: name a folder.")
    if not overwrite and output.is_dir() and any(output.iterdir()):
        raise ConversionError(f"{output} is not empty: name another folder, or overwrite (`--overwrite`).")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as scratch:
        folder = Path(scratch) / "new"  # gets the permissions of an ordinary folder, unlike `scratch`
        folder.mkdir()
        yield folder
        if output.exists():
            os.replace(output, Path(scratch) / "old")
        os.replace(folder, output)


def read_labels(path: str | os.PathLike, count: int) -> list[str]:
    """Class names in the order of their ids.

    Args:
        path: `.json` (a list, or an object from id to name), `.csv` with a header (columns `index` and
            `display_name`, as AudioSet's class list has them), or text with one name per line.
        count: number of classes.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            content = json.loads(text)
            by_id = {int(k): v for k, v in content.items()} if isinstance(content, dict) else None
            names = list(content) if by_id is None else [by_id[i] for i in range(len(by_id))]
        elif path.suffix == ".csv":
            rows = {int(row["index"]): row["display_name"] for row in csv.DictReader(text.splitlines())}
            names = [rows[i] for i in range(len(rows))]
        else:
            names = [line.strip() for line in text.splitlines() if line.strip()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConversionError(
            f"{path}: no list of class names ({type(error).__name__}: {error}). Give a JSON list."
        ) from error
    if len(names) != count or len(set(map(str, names))) != count:
        raise ConversionError(
            f"{path} names {len(set(map(str, names)))} different classes on {len(names)} places, the model "
            f"has {count}. Give the list of this checkpoint's classes."
        )
    return [str(name) for name in names]


def _compare_word_tables(variables: Variables, name: str, misc: MiscData) -> str:
    table = variables[name]
    if table.shape != misc.word_embeddings.shape:
        raise ConversionError(
            f"The word embeddings of the misc data are {misc.word_embeddings.shape}, those of "
            f"{variables.source} {table.shape}: they do not belong together. Leave the misc data out."
        )
    difference = float(np.abs(table - misc.word_embeddings).max())
    if difference == 0:
        return "The word table of the checkpoint equals that of the misc data."
    return f"The word table was taken from the misc data; the checkpoint's differs by up to {difference:.3g}."


def _tokenizer(misc: MiscData | None, vocabulary: str | os.PathLike | None) -> VattTokenizer | None:
    with tempfile.TemporaryDirectory() as scratch:
        if misc is not None and vocabulary is None:
            vocabulary = Path(scratch, "vocabulary.txt")
            vocabulary.write_text(misc.vocabulary, encoding="utf-8")
        try:
            return None if vocabulary is None else VattTokenizer.from_vocabulary(vocabulary)
        except (OSError, ValueError) as error:
            raise ConversionError(f"The vocabulary is unusable: {error} Check the file.") from error


def _save_processor(
    model: VattPreTrainedModel, tokenizer: VattTokenizer | None, release: Release | None, folder: Path
) -> list[str]:
    config = model.config
    if isinstance(model, VattClassifier) and model.modality == "video":
        size = None if release is None else release.frame_size
        videos_of(config.video_config, FINETUNED_FPS, size).save_pretrained(folder)
        return []
    if isinstance(model, VattClassifier):
        sounds_of(config.audio_config, rate=FINETUNED_SAMPLING_RATE).save_pretrained(folder)
        return []
    if tokenizer is not None:
        VattProcessor.from_config(config, tokenizer).save_pretrained(folder)
        return []
    for part in VattProcessor.media_parts_from_config(config):
        part.save_pretrained(folder)
    return [
        "Saved without a tokenizer: give the release's misc_data.tgz (`--misc-data`) or its word list "
        "(`--vocabulary`)."
    ]


def _model_card(
    model: VattPreTrainedModel,
    name: str,
    variables: Variables,
    release: Release | None,
    notes: list[str],
    has_processor: bool,
) -> ModelCard:
    kind = type(model).__name__
    converted = f"converted by modeling_vatt {__version__}; numbers are as they were."
    if release is None:
        origin = f"Weights of the TensorFlow checkpoint `{Path(variables.source).name}`, {converted}"
    else:
        origin = (
            f"{release.summary}: weights published by Google Research under Apache-2.0 as `{release.stem}`, "
            f"{converted}"
        )
        notes = [*([f"Published figures: {release.metrics}"] if release.metrics else []), *notes]
    load = f'from modeling_vatt import {kind}\n\nmodel = {kind}.from_pretrained("{name}").eval()\n'
    return build_model_card(
        model,
        name,
        license=None if release is None else "apache-2.0",
        origin="\n- ".join([f"{origin}\n", *notes]).rstrip(),
        use=None if has_processor else load,
    )
