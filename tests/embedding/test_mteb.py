# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""mteb on local clips: its scores are those of this package's evaluation."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_folders import small_processor, write_clip
from datasets import Audio, Dataset, DatasetDict, Video
from PIL import Image
from scripts import call
from small_models import seeded, small_config

from modeling_vatt import VattForPreTraining, __version__
from modeling_vatt.embedding.embedding import embed_batches, embed_files, embed_texts, unit
from modeling_vatt.evaluation import zero_shot_retrieval


mteb = pytest.importorskip("mteb", reason="needs pip install 'modeling_vatt[mteb]'")
from mteb.abstasks import (  # noqa: E402
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskMultilabelClassification,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskZeroShotClassification,
)

from modeling_vatt.embedding.mteb import model_meta  # noqa: E402


COUNT = 12
DOCS = Path(__file__).parents[2] / "docs"


def local_task(name, queries, corpus, category, modalities):
    """A retrieval task whose query i asks for document i."""

    class Local(AbsTaskRetrieval):
        metadata = mteb.TaskMetadata(
            name=name,
            description="Local clips.",
            dataset={"path": "local", "revision": "1"},
            type="Any2AnyRetrieval",
            eval_langs=["eng-Latn"],
            eval_splits=["test"],
            main_score="recall_at_5",
            category=category,
            modalities=modalities,
            prompt={"query": "Find."},
        )

        def load_data(self, **_):
            pairs = {str(number): {str(number): 1} for number in range(COUNT)}
            split = {"queries": queries, "corpus": corpus, "relevant_docs": pairs, "top_ranked": None}
            self.dataset, self.data_loaded = {"default": {"test": split}}, True

    return Local()


def table(column, values, feature=None):
    rows = Dataset.from_dict({"id": list(map(str, range(COUNT))), column: values})
    return rows if feature is None else rows.cast_column(column, feature)


def evaluate(model, task):
    result = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    return result.task_results[0].scores["test"][0]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mteb")
    clips = [str(write_clip(folder / f"{n}.mp4", n, seconds=2.5)) for n in range(COUNT)]
    config = small_config()
    model, processor = seeded(VattForPreTraining, config).eval(), small_processor(config)
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    return folder / "model", clips, model, processor


def test_scores_are_those_of_our_evaluation(world):
    folder, clips, model, processor = world
    captions = [f"clip {number} a grey tone" for number in range(COUNT)]
    found = embed_files(model, processor, clips, ("video", "audio"), windows=4)
    ours = zero_shot_retrieval(found.arrays, embed_texts(model, processor, captions), list(range(COUNT)))
    meta = model_meta(str(folder))
    corpus = table("video", clips, Video())
    for short, queries, task in (
        ("txt2vid", table("text", captions), ("LocalT2V", "t2v", ["text", "video"])),
        ("audio2vid", table("audio", clips, Audio()), ("LocalA2V", "a2v", ["audio", "video"])),
    ):
        name, category, modalities = task
        scores = evaluate(meta, local_task(name, queries, corpus, category, modalities))
        for k in (1, 5, 10):
            assert scores[f"recall_at_{k}"] == round(ours[f"{short}_embd_R{k}"], 5)
    assert 0 < ours["txt2vid_embd_R5"] < 1


def test_the_script(world, tmp_path, monkeypatch):
    folder, clips, *_ = world
    queries = table("text", [f"clip {number}" for number in range(COUNT)])
    task = local_task("LocalT2V", queries, table("video", clips, Video()), "t2v", ["text", "video"])
    monkeypatch.setattr(mteb, "get_tasks", lambda tasks: [task])
    call("run_mteb", model=folder, tasks="LocalT2V", output_dir=tmp_path)
    expected = evaluate(model_meta(str(folder)), task)["recall_at_5"]
    assert json.loads((tmp_path / "results.json").read_text())["scores"] == {"LocalT2V": expected}


def test_text_and_sound_have_no_common_space(world):
    folder, clips, *_ = world
    queries = table("text", [f"clip {number}" for number in range(COUNT)])
    task = local_task("LocalT2A", queries, table("audio", clips, Audio()), "t2a", ["text", "audio"])
    with pytest.raises(ValueError, match="no common space"):
        evaluate(model_meta(str(folder)), task)


def test_the_revision_of_a_folder_is_its_content(world, tmp_path):
    """mteb keeps results by name and revision."""
    folder, _, _, processor = world
    first = model_meta(str(folder))
    other = tmp_path / "model"
    seeded(VattForPreTraining, small_config(), 1).save_pretrained(other)
    processor.save_pretrained(other)
    second = model_meta(str(other))
    assert first.name == second.name == "local/model" and first.revision != second.revision
    assert first.revision == model_meta(str(folder)).revision
    (other / "tower.py").write_text("# code that came with it")
    assert model_meta(str(other)).revision != second.revision
    places = {first.experiment_name}
    for other in ({"windows": 2}, {"truncate_dim": 4}, {"model_kwargs": {"dtype": torch.float16}}):
        places.add(model_meta(str(folder), **other).experiment_name)
    assert len(places) == 4 and __version__ in first.experiment_name
    assert model_meta(str(folder), token="secret").experiment_name == first.experiment_name
    commit = "0123456789" * 4
    snapshot = tmp_path / "models--me--vatt" / "snapshots" / commit
    shutil.copytree(folder, snapshot)
    (tmp_path / "models--me--vatt" / "refs").mkdir()
    (tmp_path / "models--me--vatt" / "refs" / "main").write_text(commit)
    assert model_meta("me/vatt", cache_folder=str(tmp_path), local_files_only=True).revision == commit
    assert np.all([meta.load_model(device="cpu").model[0].windows == 4 for meta in (first, second)])
    loaded = first.load_model(device="cpu", embed_dim=6, windows=2)  # as the results will state
    assert loaded.model[0].windows == 2 and loaded.model.get_embedding_dimension() == 6


# --- every pair of modalities that mteb's tasks of sound and video have ---

SMALL = 6
LABELS = [f"clip {number}" for number in range(SMALL)]
NAMES = {"a": "audio", "i": "image", "t": "text", "v": "video"}


@pytest.fixture(scope="module")
def small_world(world):
    """A function that gives the vectors of each set of modalities, and rows with all of them, named as in
    mteb's data sets."""
    folder, clips, model, processor = world
    clips = clips[:SMALL]
    found = embed_files(model, processor, clips, ("video", "audio"), windows=2).arrays
    mean = {name: rows.mean(1) for name, rows in found.items() if name.endswith("embeds")}
    pictures = [Image.new("RGB", (16, 16), (40 * number, 10, 90)) for number in range(SMALL)]
    shown = embed_batches(model, [processor(videos=[[picture] for picture in pictures])])
    nothing = np.zeros_like(mean["audio_va_embeds"])
    halves = {
        "text": (unit(embed_texts(model, processor, LABELS)), nothing),
        "audio": (np.zeros_like(mean["video_vt_embeds"]), unit(mean["audio_va_embeds"])),
        "video": (unit(mean["video_vt_embeds"]), unit(mean["video_va_embeds"])),
        "image": (unit(shown["video_vt_embeds"]), unit(shown["video_va_embeds"])),
    }

    def vectors(modalities):
        return np.concatenate(
            [unit(sum(halves[name][half] for name in modalities)) for half in (0, 1)], axis=1
        )

    columns = {
        "id": list(map(str, range(SMALL))),
        "text": LABELS,
        "image": pictures,
        "label": [number % 2 for number in range(SMALL)],
        "labels": [[number % 2, 2] for number in range(SMALL)],
        "even": [number % 2 for number in range(SMALL)],
    }
    rows = Dataset.from_dict(columns)
    for name, feature in (("audio", Audio()), ("video", Video())):
        for ending in ("", "1", "2"):
            rows = rows.add_column(f"{name}{ending}", clips).cast_column(f"{name}{ending}", feature)
    rows = rows.add_column("recording", clips).cast_column("recording", Audio())
    meta = model_meta(str(folder), windows=2)
    return meta.load_model(device="cpu"), rows, vectors


def task_of(kind, rows, type_, category, modalities, **settings):
    """A task of mteb's class `kind` on these rows."""

    def load_data(self, **_):
        pairs = {str(number): {str(number): 1} for number in range(SMALL)}
        ranked = {key: list(pairs) for key in pairs} if "Reranking" in type_ else None
        split = {"queries": rows, "corpus": rows, "relevant_docs": pairs, "top_ranked": ranked}
        table = DatasetDict(train=rows, test=rows)
        self.dataset = {"default": {"test": split}} if kind is AbsTaskRetrieval else table
        self.data_loaded = True

    metadata = mteb.TaskMetadata(
        name=f"Local{type_}{category}",
        description="Local clips.",
        dataset={"path": "local", "revision": "1"},
        type=type_,
        eval_langs=["eng-Latn"],
        eval_splits=["test"],
        main_score=SCORES.get(kind, "accuracy"),
        category=category,
        modalities=modalities,
    )
    return type("Local", (kind,), {"metadata": metadata, "load_data": load_data, **settings})()


RETRIEVAL = [
    *("t2v", "v2t", "a2v", "v2a", "t2va", "va2t", "at2v", "vt2a", "vt2v", "v2v", "a2a", "va2va", "i2v"),
    *("v2i", "a2i", "it2v", "at2a", "at2t"),
]
SCORES = {AbsTaskRetrieval: "ndcg_at_10", AbsTaskClustering: "v_measure", AbsTaskPairClassification: "max_ap"}
CLASSIFIERS = [
    (AbsTaskClassification, "AudioClassification", "a2c", {"input_column_name": "recording"}),
    (AbsTaskClassification, "VideoClassification", "v2c", {"input_column_name": "video"}),
    (AbsTaskClassification, "VideoClassification", "va2c", {"input_column_name": ("video", "audio")}),
    (
        AbsTaskMultilabelClassification,
        "AudioMultilabelClassification",
        "a2t",  # as mteb's have it
        {"input_column_name": "audio", "label_column_name": "labels"},
    ),
    (AbsTaskClustering, "AudioClustering", "a2a", {"input_column_name": "audio"}),
    (AbsTaskClustering, "VideoClustering", "va2c", {"input_column_name": ("video", "audio")}),
    (AbsTaskZeroShotClassification, "VideoZeroshotClassification", "v2t", {"input_column_name": "video"}),
    (
        AbsTaskZeroShotClassification,
        "VideoZeroshotClassification",
        "va2t",
        {"input_column_name": ("video", "audio")},
    ),
    (
        AbsTaskPairClassification,
        "AudioPairClassification",
        "a2a",
        {"input1_column_name": "audio1", "input2_column_name": "audio2"},
    ),
    (
        AbsTaskPairClassification,
        "VideoPairClassification",
        "va2va",
        {
            "input1_column_name": {"video1": "video", "audio1": "audio"},
            "input2_column_name": {"video2": "video", "audio2": "audio"},
        },
    ),
]


@pytest.mark.parametrize(
    ("kind", "type_", "category", "settings"),
    [
        *((AbsTaskRetrieval, "Any2AnyRetrieval", category, {}) for category in RETRIEVAL),
        (AbsTaskRetrieval, "AudioReranking", "a2a", {}),
        *CLASSIFIERS,
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_of_task(small_world, monkeypatch, kind, type_, category, settings):
    """The vectors that mteb gets are those of this package, of the media that each side has."""
    model, rows, vectors = small_world
    letters = category.replace("2", "").replace("c", "")
    if kind is AbsTaskMultilabelClassification:
        letters = "a"
    modalities = [NAMES[letter] for letter in dict.fromkeys(letters)]
    if kind in (AbsTaskClassification, AbsTaskMultilabelClassification):
        settings = {"samples_per_label": SMALL, "n_experiments": 1, **settings}
    elif kind is AbsTaskClustering:
        settings = {"max_fraction_of_documents_to_embed": None, "label_column_name": "label", **settings}
    elif kind is AbsTaskPairClassification:
        settings = {"label_column_name": "even", **settings}
    elif kind is AbsTaskZeroShotClassification:
        settings = {"get_candidate_labels": lambda self: LABELS, **settings}
    sides = []
    encode = type(model).encode

    def recorded(self, inputs, **options):
        result = encode(self, inputs, **options)
        sides.append((frozenset(inputs.dataset.column_names) & set(NAMES.values()), result))
        return result

    monkeypatch.setattr(type(model), "encode", recorded)
    evaluate(model, task_of(kind, rows, type_, category, modalities, **settings))
    first, _, second = category.partition("2")
    wanted = {frozenset(NAMES[letter] for letter in side) for side in (first, second) if side != "c"}
    if kind is AbsTaskMultilabelClassification:
        wanted = {frozenset({"audio"})}
    assert {side for side, _ in sides} == wanted
    for side, result in sides:
        expected = vectors(sorted(side))
        distances = np.abs(result[:, None] - expected[None]).max(-1)
        assert distances.min(1).max() < 1e-5 and set(distances.argmin(1)) == set(range(SMALL))
        if kind is AbsTaskRetrieval:
            np.testing.assert_allclose(result, expected, atol=1e-5)


def test_tasks_of_the_paper_are_those_of_mteb():
    """Each task that docs/evaluate.md names is there; one that is not is a KeyError."""
    page = (DOCS / "evaluate.md").read_text().partition("## Tasks of mteb")[2]
    listed = re.findall(r"`(\w+)`", "".join(re.findall(r"^\|.*\|$", page, re.M)))
    found = mteb.get_tasks(tasks=listed, exclude_superseded=False, exclude_beta=False)
    assert len(found) == len(listed) > 40
    assert all({"audio", "video"} & set(task.metadata.modalities) for task in found)
