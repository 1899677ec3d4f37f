# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""mteb on local clips: its scores are those of this package's evaluation."""

import json

import numpy as np
import pytest
from clip_folders import small_processor, write_clip
from datasets import Audio, Dataset, Video
from scripts import call
from small_models import seeded, small_config

from modeling_vatt import VattForPreTraining
from modeling_vatt.embedding.embedding import embed_files, embed_texts
from modeling_vatt.evaluation import zero_shot_retrieval


mteb = pytest.importorskip("mteb", reason="needs pip install 'modeling_vatt[mteb]'")
from mteb.abstasks.retrieval import AbsTaskRetrieval  # noqa: E402

from modeling_vatt.embedding.mteb import model_meta  # noqa: E402


COUNT = 12


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


def evaluate(meta, task):
    result = mteb.evaluate(meta, task, cache=None, co2_tracker=False, show_progress_bar=False)
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
    assert np.all([meta.load_model(device="cpu").model[0].windows == 4 for meta in (first, second)])
