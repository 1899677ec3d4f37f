# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Models of towers from elsewhere, from checkpoints to saved folders, indexes, searches and pipelines."""

import os
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from clip_folders import write_clip
from small_models import AUDIO
from tower_folders import bert_folder, remote_folder, tower_sources, wav2vec_folder
from transformers import CLIPModel, pipeline

from modeling_vatt import VattForPreTraining, VattModel
from modeling_vatt.embedding.building import build_from_towers
from modeling_vatt.hub.remote_code import save_remote_code
from modeling_vatt.processors import VattProcessor
from modeling_vatt.retrieval import VideoSearch, embed_files, embed_query, embed_windows, unit
from modeling_vatt.retrieval.video_search import load_model


SIZES = {"va_projection_size": 12, "vt_projection_size": 6}


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, str]:
    return tower_sources(tmp_path_factory.mktemp("towers"))


@pytest.fixture(scope="module")
def saved(sources, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    model, processor = build_from_towers(**sources, processing={"seconds": 0.8}, **SIZES)
    model.lock("video", "text")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    save_remote_code(folder)
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(3):
        write_clip(folder / f"clip{number}.mp4", number)
    return folder


def test_features_of_a_file_are_those_of_the_checkpoint(sources, saved, videos):
    """The mean over the frames, each through the checkpoint's own model."""
    model, processor = VattForPreTraining.from_pretrained(saved).eval(), VattProcessor.from_pretrained(saved)
    clip = str(videos / "clip1.mp4")
    found = embed_files(model, processor, [clip], pooled=True).arrays["video_pooled"][0, 0]
    frames = processor(videos=[clip])["pixel_values_videos"][0]
    with torch.no_grad():
        right = CLIPModel.from_pretrained(sources["video"]).vision_model(frames).pooler_output.mean(0)
    np.testing.assert_allclose(found, right.numpy(), atol=1e-5)


def test_index_and_search(saved, videos, tmp_path):
    """Every clip is found, by scores that are the cosines of its window's embedding and the query's."""
    search = VideoSearch.create(videos, saved, tmp_path / "index")
    report = search.update()
    assert report.embedded == 3 and not report.errors
    search = VideoSearch.open(tmp_path / "index")
    hits = search.text("a red square", top_k=9, merge=False)
    assert {Path(hit.path).name for hit in hits} == {f"clip{n}.mp4" for n in range(3)}
    query = unit(embed_query(search.model, search.processor, text="a red square"))
    found = dict(embed_windows(search.model, search.processor, [videos / Path(hits[0].path).name]))
    (windows,) = found.values()
    best = (unit(windows.arrays["video_vt_embeds"]) @ query).max()
    assert hits[0].score == pytest.approx(float(best), abs=1e-3)
    assert search.audio(videos / "clip2.mp4", top_k=1)
    assert search.unknown_words("a zebra") == ["zebra"]


def test_pipelines(saved, videos):
    extract = pipeline("video-audio-text-feature-extraction", model=str(saved))
    row = extract({"video": str(videos / "clip1.mp4"), "text": "a red square"})
    assert row["video_features"].shape == row["audio_features"].shape == row["text_features"].shape == (16,)
    classify = pipeline("zero-shot-video-classification", model=str(saved))
    found = classify(str(videos / "clip1.mp4"), candidate_labels=["a circle", "a square"])
    assert {item["label"] for item in found} == {"a circle", "a square"}
    with pytest.raises(ValueError, match="hold no words"):
        classify(str(videos / "clip1.mp4"), candidate_labels=["a circle", ""])


def test_loads_without_the_package(saved, videos, tmp_path):
    """The code beside the model makes the same embeddings in a process that cannot import the package."""
    script = f"""
import sys
sys.modules["modeling_vatt"] = None
from transformers import AutoModel, AutoProcessor
model = AutoModel.from_pretrained({str(saved)!r}, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained({str(saved)!r}, trust_remote_code=True)
inputs = processor(videos=[{str(videos / "clip1.mp4")!r}], text=["a red square"])
inputs.pop("audio_mask"), inputs.pop("text_mask")
print(float(model(**inputs).video_vt_embeds.sum()), float(model(**inputs).text_vt_embeds.sum()))
"""
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = processes.run("-c", script, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    model, processor = VattModel.from_pretrained(saved).eval(), VattProcessor.from_pretrained(saved)
    inputs = processor(videos=[str(videos / "clip1.mp4")], text=["a red square"])
    masks = [inputs.pop("audio_mask"), inputs.pop("text_mask")]
    output = model(**inputs)
    right = [float(output.video_vt_embeds.sum()), float(output.text_vt_embeds.sum())]
    assert masks and list(map(float, done.stdout.split()[-2:])) == pytest.approx(right, abs=1e-4)


def test_bad_parts_are_named(sources, tmp_path):
    with pytest.raises(ValueError, match=r"text tower: nobody/nothing: no such folder, and HF_HUB_OFFLINE"):
        build_from_towers(text="nobody/nothing", audio_config=AUDIO)
    bare = bert_folder(tmp_path / "bare")
    for file in bare.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ValueError, match=r"text tower: .*bare has no tokenizer: none of"):
        build_from_towers(text=str(bare))
    with pytest.raises(ValueError, match=r"video tower: it does not take .* \(1, 4, 3, 12, 12\)"):
        build_from_towers(**sources, processing={"frames": {"size": 12, "crop_size": 12}})
    with pytest.raises(ValueError, match=r"`frames` has no num_frames, sizes: use size"):
        build_from_towers(**sources, processing={"frames": {"sizes": 8, "num_frames": 2}})
    with pytest.raises(ValueError, match=r"`frames` is for a video tower of another model"):
        build_from_towers(text=sources["text"], processing={"frames": {"size": 8}}, audio_config=AUDIO)
    with pytest.raises(ValueError, match=r"video tower: its features are 16 wide, the config says 9"):
        build_from_towers(**sources, towers={"video": {"output_size": 9}}, **SIZES)
    rated = wav2vec_folder(tmp_path / "rated", sampling_rate=100)
    with pytest.raises(ValueError, match=r"audio tower: it does not take what its processor makes"):
        build_from_towers(**{**sources, "audio": str(rated)}, processing={"seconds": 0.2}, **SIZES)


def test_code_of_a_tower_runs_where_it_is_trusted(sources, tmp_path):
    """Also when a search, or an evaluation of a frozen model, loads the saved model."""
    frames = {"size": 8, "crop_size": 8, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    model, processor = build_from_towers(
        **{**sources, "video": str(remote_folder(tmp_path / "remote"))},
        processing={"frames": frames},
        towers={"video": {"output_size": 6}},
        trust_remote_code=True,
        **SIZES,
    )
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    with pytest.raises(ValueError, match="code of the video tower comes with its checkpoint"):
        load_model(tmp_path / "saved")
    again, parts = load_model(tmp_path / "saved", trust_remote_code=True)
    inputs = parts(videos=[np.zeros((4, 9, 9, 3), np.uint8)])
    with torch.no_grad():
        found, right = (each.eval()(**inputs, return_loss=False).video_vt_embeds for each in (again, model))
    assert torch.equal(found, right)
