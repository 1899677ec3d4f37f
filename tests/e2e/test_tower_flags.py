# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Flags of towers that would have no effect, or hold no settings, are refused before anything is loaded."""

import functools
import importlib
import time
from pathlib import Path
from typing import Any

import pytest
from clip_folders import write_clip

from modeling_vatt import VattModel
from modeling_vatt.data import folder_clips, prepare_shards
from modeling_vatt.models.loading import load_pretrained
from modeling_vatt.processors import VattVideoProcessor


@pytest.fixture
def flags(monkeypatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    return importlib.import_module("towers").TowerArguments


@pytest.mark.parametrize("name", ["none/such", "no-such", "./such", "a/b/c"])
def test_a_checkpoint_that_is_not_there_is_said_at_once(flags, no_network, tmp_path, name):
    """Without a network transformers tries for half a minute."""
    model = tmp_path / "image"
    model.mkdir()
    towers = flags(video_tower=str(model), audio_tower=name)
    began = time.perf_counter()
    with pytest.raises(ValueError, match=f"^--audio_tower: {name}: no such folder"):
        towers.build("tiny", None, lambda length: [], 1)
    for load in (
        functools.partial(load_pretrained, VattModel),
        lambda given: VattModel.from_unimodal_pretrained(text=given),
    ):
        with pytest.raises(FileNotFoundError, match=f"^{name}: no such folder"):
            load(name)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    ("settings", "side"),
    [
        ({"size": 224, "crop_size": 224}, 256),
        ({"size": 346, "crop_size": 289}, 346),  # EfficientNet-B3
        ({"size": {"height": 256, "width": 455}, "crop_size": {"height": 256, "width": 455}}, 520),
    ],
)
def test_files_are_decoded_no_smaller_than_frames_are_resized_to(flags, settings, side):
    decoded = importlib.import_module("common").decoded_side(VattVideoProcessor(**settings))
    assert decoded == side


@pytest.mark.parametrize(
    "given,message",
    [
        ({"video_tower": "a", "projection": "mlp", "lock": ["text:4"]}, "--projection mlp is for locked"),
        ({"video_tower": "a", "lock": ["text"]}, "--lock text: VATT's own tower begins with random"),
        (
            {"cache_windows": 4, "lock": ["video:2"]},
            "--cache_windows and --cache_dtype are for --cache_features",
        ),
        ({"text_tower": "a", "num_frames": 8}, "--num_frames: for towers that are other models"),
        ({"frames": "{}", "tower_settings": "{}"}, "--frames, --tower_settings: for towers that are other"),
        ({"video_tower": "a", "tower_settings": "[1]"}, "--tower_settings: expected a JSON object"),
        ({"video_tower": "a", "tower_settings": '{"video": 3}'}, "give an object for each tower"),
        ({"video_tower": "a", "frames": "[8]"}, "--frames: expected a JSON object"),
        ({"video_tower": "a", "text_tower": "b"}, "--config_overrides: expected a JSON object"),
    ],
)
def test_what_is_no_setting_is_refused(flags, given, message):
    overrides = "[1]" if "text_tower" in given and "video_tower" in given else None
    with pytest.raises(ValueError, match=message):
        towers = flags(**given)
        towers.refuse_idle()
        towers.build("tiny", overrides, lambda length: range(10), 1)


@pytest.mark.parametrize(
    "given,towers,message",
    [
        ({"vocab_size": 9}, {"text_tower": "a"}, "--vocab_size: --text_tower has words of its own"),
        ({"vocabulary": "v", "tokenizer": "words"}, {}, "--tokenizer: --vocabulary lists the words"),
    ],
)
def test_words_of_another_are_not_trained(flags, given, towers, message):
    script = importlib.import_module("run_pretraining")
    with pytest.raises(ValueError, match=message):
        script.make_model(script.ModelArguments(**given), flags(**towers), [["a caption"]])


def test_flags_that_shards_do_not_know(flags, tmp_path):
    """Captions would come from another column than the one that was named, or files be stored whole."""
    (tmp_path / "clips" / "train").mkdir(parents=True)
    write_clip(tmp_path / "clips" / "train" / "a.mp4", 1)
    preparation = importlib.import_module("prepare_shards")
    places = {"dataset": str(tmp_path / "clips"), "output_dir": str(tmp_path / "shards")}
    args = preparation.PreparationArguments(**places, annotations="captions.json")
    with pytest.raises(ValueError, match="--annotations is for --layout"):
        preparation.find_clips(args, "train")
    for seconds, reencode in ((30.0, False), (0.0, True)):
        with pytest.raises(ValueError, match="must be positive, and needs `reencode`"):
            preparation.ShardSettings(reencode, seconds)
    prepare_shards(folder_clips(tmp_path / "clips", "train"), tmp_path / "shards" / "train")
    script = importlib.import_module("run_pretraining")
    data = script.DataArguments(dataset=str(tmp_path / "shards"), validation_split="", caption_column="said")
    with pytest.raises(ValueError, match="--caption_column: for videos in a folder, not in shards"):
        script.Tables.load(data, 0)
