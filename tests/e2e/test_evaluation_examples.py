# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The scripts of the frozen evaluations on miniature data sets, in this process."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from clip_folders import save_model, write_clip
from media_factory import numbered_frames, tone, write_media
from scripts import call


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(capsys, tmp_path, model):
    """Runs a script and returns what it printed and its `results.json`, or its last words."""

    def run(script: str, **options: object) -> tuple[str, dict]:
        capsys.readouterr()
        call(script, model=model, output_dir=tmp_path / "out", **options)
        return capsys.readouterr().out, json.loads((tmp_path / "out" / "results.json").read_text())

    return run


@pytest.fixture
def ucf101(tmp_path) -> Path:
    """Dark clips and bright ones; one file is broken."""
    root = tmp_path / "ucf"
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_text("1 Dark\n2 Bright\n")
    clips = []
    for label, first in (("Dark", 0), ("Bright", 14)):
        (root / label).mkdir()
        for number in range(4):
            file = write_clip(root / label / f"v_{number}.mp4", first + number)
            clips.append(f"{label}/{file.name}")
    (root / "Dark" / "v_3.mp4").write_bytes(b"broken")
    for split in (1, 2, 3):
        test = [clip for clip in clips if f"v_{split}" in clip]
        (lists / f"testlist0{split}.txt").write_text("\n".join(test))
        (lists / f"trainlist0{split}.txt").write_text("\n".join(f"{c} 1" for c in clips if c not in test))
    return root


def test_probe_over_official_splits(run, ucf101, tmp_path):
    options = {"dataset": ucf101, "layout": "ucf101", "svm_c": 1.0, "head_steps": 20, "test_windows": 2}
    output, results = run("run_linear_probe", **options)
    assert results["summary"]["svm"]["top1"] == 1.0 and "100.0% ± 0.0" in output
    with (tmp_path / "out" / "splits.csv").open() as file:
        rows = list(csv.DictReader(file))
    counts = [(row["split"], row["train_clips"], row["test_clips"]) for row in rows]
    assert counts == [("split1", "5", "2"), ("split2", "5", "2"), ("split3", "6", "1")] * 2
    assert [row["classifier"] for row in rows] == ["svm"] * 3 + ["linear"] * 3
    assert len(results["skipped"]) == 2 and "v_3.mp4" in output  # among training and among test clips

    features = {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "features").iterdir()}
    output, again = run("run_linear_probe", **options, folds=[2], classifier="svm")
    assert [row["split"] for row in again["splits"]] == ["split2"] and "±" not in output
    assert all(file.stat().st_mtime_ns == written for file, written in features.items())


def test_probe_of_sound_with_folds(run, tmp_path):
    audio = tmp_path / "esc" / "audio"
    audio.mkdir(parents=True)
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for number in range(6):
        fold, target = 1 + number // 2, number % 2
        sound = tone(1.0, 8000, 60.0 + 900 * target)
        name = f"{number}.wav"
        write_media(audio / name, waveform=sound, sampling_rate=8000, audio_codec="pcm_s16le")
        lines.append(f"{name},{fold},{target},{'ab'[target]},False,x,A")
    (tmp_path / "esc" / "meta").mkdir()
    (tmp_path / "esc" / "meta" / "esc50.csv").write_text("\n".join(lines))
    options = {"dataset": tmp_path / "esc", "layout": "esc50", "classifier": "svm", "svm_c": 1.0}
    _, results = run("run_linear_probe", **options, media="audio")
    assert [row["split"] for row in results["splits"]] == ["fold1", "fold2", "fold3"]
    with pytest.raises(SystemExit, match="no pictures: use --media audio"):
        run("run_linear_probe", **options)
    with pytest.raises(SystemExit, match="the splits are fold1, fold2, fold3"):
        run("run_linear_probe", **options, media="audio", folds=[7])


def test_retrieval_in_segments_of_long_videos(run, tmp_path):
    root = tmp_path / "youcook2"
    root.mkdir()
    sound = tone(6.0, 8000)
    write_media(root / "long.mp4", frames=numbered_frames(60), fps=10, waveform=sound, sampling_rate=8000)
    clips = [
        {"segment": [2 * n, 2 * n + 2], "id": n, "sentence": text}
        for n, text in enumerate(("clip 1", "a tone", "grey number 3"))
    ]
    database = {
        "long": {"subset": "validation", "annotations": clips},
        "gone": {"subset": "validation", "annotations": clips[:2]},
    }
    file = root / "youcookii_annotations_trainval.json"
    file.write_text(json.dumps({"database": database}))
    output, results = run("run_zero_shot_retrieval", dataset=root, layout="youcook2", windows=2)
    metrics = results["metrics"]
    assert (results["clips"], metrics["gallery_size"]) == (5, 3)
    assert metrics["txt2vid_queries"] == metrics["audio2vid_queries"] == 3
    assert "Skipped 2 of 5 clips" in output and "nothing asks for them" in output
    for name in ("txt2vid_embd_", "txt2vid_cosine_", "audio2vid_embd_", "audio2vid_cosine_"):
        assert metrics[f"{name}R5"] == 1.0 and 1 <= metrics[f"{name}MedianRank"] <= 3


def test_retrieval_with_several_captions(run, tmp_path):
    for number in range(3):
        write_clip(tmp_path / f"video{number}.mp4", number, sound=False)
    videos = [{"video_id": f"video{n}", "split": "test"} for n in range(3)]
    sentences = [{"video_id": f"video{n % 3}", "caption": f"clip {n}"} for n in range(6)]
    file = tmp_path / "videodatainfo.json"
    file.write_text(json.dumps({"videos": videos, "sentences": sentences}))
    options = {"dataset": tmp_path, "layout": "msrvtt", "annotations": file}
    _, results = run("run_zero_shot_retrieval", **options)
    assert results["metrics"]["txt2vid_queries"] == 6 and "audio2vid_queries" not in results["metrics"]
    _, results = run("run_zero_shot_retrieval", **options, captions="first", max_clips=2)
    assert (results["metrics"]["txt2vid_queries"], results["metrics"]["gallery_size"]) == (2, 2)


def test_a_row_for_every_caption(run, tmp_path):
    """Equal clips are one, which all their captions with words ask for."""
    folder = tmp_path / "rows" / "test"
    folder.mkdir(parents=True)
    for number in range(2):
        write_clip(folder / f"{number}.mp4", number)
    lines = ["file_name,caption", "0.mp4,...", *(f"{number % 2}.mp4,clip {number}" for number in range(6))]
    (folder / "metadata.csv").write_text("\n".join([*lines, "1.mp4,?!"]))
    output, results = run("run_zero_shot_retrieval", dataset=tmp_path / "rows", windows=1)
    metrics = results["metrics"]
    assert [metrics[name] for name in ("gallery_size", "txt2vid_queries", "audio2vid_queries")] == [2, 6, 2]
    assert "2 captions have no words" in output
    _, results = run("run_zero_shot_retrieval", dataset=tmp_path / "rows", windows=1, captions="first")
    assert results["metrics"]["txt2vid_queries"] == 2


def test_parts_of_one_video(run, tmp_path):
    """Its first half is dark, its second bright: `start` and `end`, one of them blank, tell clips apart."""
    frames = [np.full((16, 16, 3), value, np.uint8) for value in [20] * 40 + [220] * 40]
    for split in ("train", "test"):
        folder = tmp_path / "halves" / split
        folder.mkdir(parents=True)
        write_media(folder / "a.mp4", frames=frames, fps=10)
        lines = ["file_name,label,caption,start,end", "a.mp4,dark,clip 1,,4", "a.mp4,bright,clip 2,4,"]
        lines += ["a.mp4,dark,clip 3,1,3", "a.mp4,bright,a tone,5,7"]
        (folder / "metadata.csv").write_text("\n".join(lines))
    options = {"dataset": tmp_path / "halves", "test_windows": 2}
    _, results = run("run_linear_probe", **options, classifier="svm", svm_c=1.0)
    assert results["summary"]["svm"]["top1"] == 1.0 and not results["skipped"]
    run("run_zero_shot_retrieval", dataset=tmp_path / "halves", windows=1)
    caches = sorted((tmp_path / "out" / "features").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    rows = np.load(caches[-1])["video_va_embeds"][:, 0]
    np.testing.assert_allclose(rows[0], rows[2], atol=1e-4)  # dark ones
    assert np.abs(rows[0] - rows[1]).max() > 1e-2


def test_bad_input_ends_in_one_line(run, tmp_path):
    for script in ("run_linear_probe", "run_zero_shot_retrieval"):
        with pytest.raises(SystemExit, match="no such folder"):
            run(script, dataset=tmp_path / "nowhere")
    with pytest.raises(SystemExit, match=r"classInd\.txt: no such file"):
        run("run_linear_probe", dataset=tmp_path, layout="ucf101")
