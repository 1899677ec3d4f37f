# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Pretraining on towers from elsewhere as a user runs it, and the command with its result."""

import json
from pathlib import Path

import processes
import pytest
from clip_folders import losses, make_folder
from scripts import call, run
from tower_folders import tower_sources


pytestmark = pytest.mark.slow

OPTIONS = {
    "num_steps": 3,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "warmup_steps": 1,
    "log_every": 1,
    "num_captions": 1,
    "report_to": "none",
    "window_seconds": 0.4,
    "cache_windows": 2,
    "config_overrides": json.dumps({"va_projection_size": 12, "vt_projection_size": 6}),
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    root = make_folder(tmp_path_factory.mktemp("videos") / "videos", 6, silent=[3])
    return make_folder(root, 4, split="validation", first=20)


@pytest.fixture(scope="module")
def towers(tmp_path_factory) -> dict[str, str]:
    sources = tower_sources(tmp_path_factory.mktemp("towers"))
    return {f"{name}_tower": folder for name, folder in sources.items()}


def test_train_index_search(videos, towers, tmp_path):
    """A folder, three towers, a model that searches; other heads train on the same features."""
    common = {**OPTIONS, **towers, "dataset": videos, "cache_features": True, "cache_dir": tmp_path / "cache"}
    output = run("run_pretraining.py", tmp_path, output_dir="model", lock=["video", "text"], **common)
    assert "Saved model" in output and len(losses(tmp_path / "model")) == 3
    made = sorted((tmp_path / "cache").iterdir())
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["towers"]["video"]["locked"] is True
    for arguments in (
        ["index", str(videos / "train"), "--model", "model"],
        ["search", "clip 3", "--index", str(videos / "train"), "--top-k", "2"],
    ):
        done = processes.run("-m", "modeling_vatt.cli", *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "clip0" in done.stdout
    del common["audio_tower"]  # sound of another kind, and heads that are not trained
    sizes = json.dumps({"va_projection_size": 12, "vt_projection_size": 12})
    common |= {"projection": "kernel", "decode_once": True, "config_overrides": sizes}
    run("run_pretraining.py", tmp_path, output_dir="other", lock=["video", "text"], **common)
    assert sorted((tmp_path / "cache").iterdir()) == made
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    assert config["head_type"] == "joint" and config["towers"]["video"]["centres"] == 12  # 6 clips, twice


@pytest.mark.parametrize(
    "options,message,code",
    [
        ({"lock": ["video"], "crop_resize_style": "VGG"}, "--augmentation: the locked video tower", 1),
        ({"lock": ["video"], "augmentation": '{"noise": 0}'}, "--augmentation: the locked video tower", 1),
        ({}, "--cache_features needs towers that are not trained", 1),
        ({"lock": ["video:9"]}, "has 2 blocks", 1),
        ({"lock": ["picture"]}, "--lock picture: give video, audio or text", 2),
        ({"lock": ["video"], "normalize_audio": True}, "--normalize_audio is for VATT's own", 1),
        ({"lock": ["video"], "batch_size": 64}, "There are 6 clips for batches of 64: use more clips", 1),
        ({"lock": ["video"], "group_by": "hue"}, "`group_by`: the clips have no column hue", 1),
        (
            {"lock": ["video"], "audio_tower": "none/such"},
            "--audio_tower: none/such: no such folder, and HF_HUB_OFFLINE is set",
            1,
        ),
        (
            {"lock": ["video", "text:1"], "projection": "kernel"},
            "give --cache_features --lock video text",
            2,
        ),
        ({"lock": ["video"], "dataset": "."}, "no video files in this folder", 1),
    ],
)
def test_what_does_not_fit_is_said(videos, towers, tmp_path, monkeypatch, capsys, options, message, code):
    common = {**OPTIONS, **towers, "dataset": videos, "cache_features": True, "output_dir": "model"}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        call("run_pretraining", **{**common, **options})
    said = capsys.readouterr().err
    assert end.value.code == code and message in said and "Traceback" not in said
    assert not (tmp_path / "model" / "features").exists()  # said before the work
