# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The classification scripts, as a user runs them; most of them in this process, which saves the imports."""

import csv
import importlib
import json
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from clip_folders import save_model, write_clip, write_rows
from PIL import Image
from safetensors.torch import load_file
from scripts import CLASSIFICATION, EXAMPLES, call, flags, start
from small_models import AUDIO, TEXT, VIDEO, small_config
from transformers import AutoImageProcessor, AutoModelForVideoClassification, AutoProcessor, pipeline

from modeling_vatt import VattForAudioClassification
from modeling_vatt.data import LabelledDataset, load_labelled


pytestmark = pytest.mark.slow

SMALL = json.dumps({"video_config": VIDEO, "audio_config": AUDIO, "text_config": TEXT})


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    """Scripts run in a folder of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture
def run(capsys):
    """Runs a script with options; returns what it printed, and the message it ended with.

    On one thread, as the processes of `start`: sums of several threads differ in the last bits.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def run(script: str, **options: Any) -> str:
        message = ""
        try:
            call(script, **{**CLASSIFICATION, **options})
        except SystemExit as end:
            message = str(end)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return captured.out + captured.err * bool(message) + message

    yield run
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("pretrained"), small_config("agnostic"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Dark low ones and bright high ones, one of them broken, one silent."""
    root = tmp_path_factory.mktemp("clips")
    for split, count in (("train", 7), ("validation", 4)):
        (root / split).mkdir()
        rows = []
        for number in range(count):
            name = f"{number}.mp4"
            write_clip(root / split / name, 16 * (number % 2) + number // 2, sound=number != 4)
            tags = "low,quiet" if number % 4 == 0 else ("high", "low")[number % 2 == 0]
            rows.append({"file_name": name, "label": ("dark", "bright")[number % 2], "tags": tags})
        write_rows(root / split, rows)
    (root / "train" / "5.mp4").write_bytes(b"broken")
    return root


def test_video_from_a_pretrained_model(run, pretrained, videos):
    """Training, twelve views, everything that is saved, and evaluation of what was saved."""
    options = {"dataset": videos, "model": pretrained, "eval_windows": 2, "eval_crops": 3}
    output = run("run_video_classification", output_dir="out", **options)
    assert "Skipped 1 of 11 clips" in output and "5.mp4" in output and "Saved to out" in output
    results = json.loads(Path("out/results.json").read_text())
    assert results["clips"] == 4 and results["views"] == 6 and results["skipped_clips"] == 1
    assert set(results["metrics"]) == {"loss", "top1"}
    with open("out/per_class.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["class"], row["support"]) for row in rows] == [("bright", "2"), ("dark", "2")]
    assert Path("out/confusion.png").stat().st_size > 5000
    card = Path("out/README.md").read_text()
    assert "video-classification" in card and "top1" in card and "VattForVideoClassification" in card
    for name in ("vatt_model.py", "vatt_processing.py", "processor_config.json"):
        assert Path("out", name).is_file(), name
    model = AutoModelForVideoClassification.from_pretrained("out")
    assert (
        model.config.id2label == {0: "bright", 1: "dark"} and model.config.video_config.drop_token_rate == 0
    )
    AutoProcessor.from_pretrained("out")
    evaluated = run(
        "run_video_classification", **{**options, "model": "out"}, output_dir="again", do_eval=True
    )
    assert "Saved to again" in evaluated and not Path("again/model.safetensors").exists()
    again = json.loads(Path("again/results.json").read_text())
    assert again["metrics"] == pytest.approx(results["metrics"])
    # A new run without evaluation leaves no results of another one beside its model.
    for checkpoint in Path("out").glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    run("run_video_classification", output_dir="out", validation_split="", **options)
    assert not any(Path("out", name).exists() for name in ("results.json", "per_class.csv", "confusion.png"))


@pytest.mark.parametrize("several", [False, True])
def test_sound_of_videos_from_scratch(run, videos, several):
    """Without a vocabulary; silent videos are left out; one label or several."""
    tags = {"label_column": "tags", "label_separator": ",", "label_balancing": True, "mixup_alpha": 5}
    options = {
        **(tags if several else {"label_smoothing_factor": 0.1}),
        "dataset": videos,
        "config_overrides": SMALL,
        "normalize_audio": True,
        "drop_token_rate": 0.5,
        "decode_once": True,
        "eval_windows": 4,
        "remote_code": False,
    }
    output = run("run_audio_classification", output_dir="out", **options)
    assert "Skipped 2 of 11 clips" in output and "4.mp4" in output
    metrics = json.loads(Path("out/results.json").read_text())["metrics"]
    assert ("mAP" if several else "top1") in metrics
    assert Path("out/confusion.png").exists() != several
    config = json.loads(Path("out/config.json").read_text())
    assert len(config["id2label"]) == (3 if several else 2)
    processor = json.loads(Path("out/processor_config.json").read_text())
    assert processor["feature_extractor"]["do_normalize"] is True
    if several:  # the same loss when it is evaluated alone
        names = ("dataset", "label_column", "label_separator", "decode_once", "eval_windows")
        again = {name: options[name] for name in names}
        run("run_audio_classification", output_dir="again", model="out", do_eval=True, **again)
        assert json.loads(Path("again/results.json").read_text())["metrics"] == pytest.approx(metrics)


def test_a_model_of_the_wrong_kind_is_refused(run, videos, pretrained):
    """The tower of sound would be random."""
    options = {"dataset": videos, "remote_code": False, "max_steps": 1}
    output = run("run_video_classification", output_dir="seeing", model=pretrained, **options)
    assert "new: classifier" in output and "weights taken" in output
    output = run("run_audio_classification", output_dir="out", model="seeing", **options)
    assert "seeing lacks audio_model (" in output and "it holds VattForVideoClassification" in output
    again = run("run_video_classification", output_dir="more", model="seeing", **options)
    assert "new: nothing" in again  # the same classes
    card = Path("more/README.md").read_text()
    assert "Started from the local model `seeing`." in card and "last loss" not in card


def test_the_pipeline_takes_what_the_script_took(run, videos, pretrained):
    """A video for its sound; the same logits as in the script."""
    options = {"dataset": videos, "model": pretrained, "remote_code": False, "max_steps": 1}
    run("run_audio_classification", output_dir="listening", **options)
    file = str(videos / "validation" / "1.mp4")
    found = pipeline("audio-classification", model="listening", device="cpu")(file)
    table = load_labelled(videos, "validation", "audio")
    processor = AutoProcessor.from_pretrained("listening")
    (row,) = [i for i, value in enumerate(table["audio"]) if value["path"].endswith("/1.mp4")]
    values = LabelledDataset(table, processor, "audio")[row]["input_values"]
    model = VattForAudioClassification.from_pretrained("listening").eval()
    with torch.no_grad():
        shares = model(values).logits[0].softmax(-1)
    expected = {name: shares[index].item() for index, name in model.config.id2label.items()}
    assert {one["label"]: one["score"] for one in found} == pytest.approx(expected, abs=1e-6)
    card = Path("listening/README.md").read_text()
    assert "type: audiofolder" in card and "videofolder" not in card


def test_scripts_evaluate_on_the_split_that_is_there(videos):
    """README's layout has `train` and `validation`; a split that was asked for is never replaced."""
    held_out = importlib.import_module("common").held_out

    def load(split: str) -> datasets.Dataset:
        return load_labelled(videos, split, "video")

    assert held_out(load, None)[0] == "validation" and held_out(load, "train")[0] == "train"
    with pytest.raises(ValueError, match='Unknown split "test"'):
        held_out(load, "test")


def test_images(run, pretrained):
    """From scratch, and from a model whose pictures are scaled otherwise."""
    for split in ("train", "validation"):
        for name, value in (("dark", 20), ("light", 220)):
            folder = Path("pictures", split, name)
            folder.mkdir(parents=True)
            for number in range(2):
                Image.fromarray(np.full((12, 12, 3), value + number, np.uint8)).save(folder / f"{number}.png")
    options = {"dataset": "pictures", "config_overrides": SMALL, "image_size": 12, "remote_code": False}
    assert "Saved to out" in run("run_image_classification", output_dir="out", **options)
    classify = pipeline("image-classification", model="out", device="cpu")
    assert {found["label"] for found in classify("pictures/train/dark/0.png")} == {"dark", "light"}
    assert classify.image_processor.crop_size["height"] == 12
    shutil.copytree(pretrained, "other")
    processor = AutoProcessor.from_pretrained("other")
    processor.video_processor.image_mean = [0.25, 0.5, 0.5]
    processor.save_pretrained("other")
    options = {"dataset": "pictures", "model": "other", "remote_code": False, "max_steps": 1}
    run("run_image_classification", output_dir="further", **options)
    assert list(AutoImageProcessor.from_pretrained("further").image_mean) == [0.25, 0.5, 0.5]


def test_a_run_killed_with_sigkill_continues_to_the_same_model(run, pretrained, videos, tmp_path):
    options = {
        "dataset": videos,
        "model": pretrained,
        "drop_token_rate": 0.5,
        "max_steps": 8,
        "remote_code": False,
        "save_total_limit": 2,
    }
    run("run_video_classification", output_dir="whole", **options)
    process = start(
        "run_video_classification.py", tmp_path, output_dir="killed", **{**CLASSIFICATION, **options}
    )
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("killed/checkpoint-*/trainer_state.json")):
        assert process.poll() is None and time.monotonic() < deadline, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not Path("killed/results.json").exists()
    output = run("run_video_classification", output_dir="killed", **options)
    assert "Continuing from killed/checkpoint-" in output
    one, other = (load_file(f"{name}/model.safetensors") for name in ("whole", "killed"))
    for name, values in one.items():
        assert torch.equal(values, other[name]), name
    losses = [json.loads(Path(name, "results.json").read_text())["metrics"] for name in ("whole", "killed")]
    assert losses[0] == losses[1]
    message = run("run_video_classification", output_dir="killed", **{**options, "max_steps": 9})
    assert "killed holds a run with other settings: max_steps=8 (now 9)" in message


@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        ("video", {"recipe": "kinetics"}, "'kinetics' is none of kinetics400, "),
        ("video", {"recipe": "audioset"}, "audioset is for audio, this script for video"),
        ("video", {"dataset": "nothing/to/see"}, "nothing/to/see: no such folder"),
        ("video", {"label_column": "kind"}, "no column 'kind' among"),
        ("video", {"train_split": "validation", "validation_split": "test"}, 'Unknown split "test"'),
        ("image", {}, "No clip can be read, the first because"),
        ("video", {"preset": "huge"}, "Unknown VATT preset 'huge'"),
        ("video", {"model": "m", "preset": "tiny"}, "--preset, --config_overrides: for new models only"),
        ("video", {"config_overrides": "{a"}, "--config_overrides: '{a' is no JSON"),
        ("video", {"output_dir": "file"}, "--output_dir file: file is a file"),
        ("video", {"model": "missing/model"}, "--model missing/model: no such folder"),
        ("video", {"do_eval": True}, "--do_eval alone needs a trained --model"),
        ("audio", {"label_balancing": True}, "`label_balancing` is for clips with several labels"),
        (
            "audio",
            {"label_column": "tags", "label_separator": ",", "label_smoothing_factor": 0.1},
            "Label smoothing",
        ),
        ("video", {"steps": 3}, "--steps"),
        ("video", {"eval_crops": 2}, "`crops` 1 or 3"),
    ],
)
def test_mistakes_end_in_one_line(run, videos, script, options, message):
    options = {"dataset": videos, "config_overrides": SMALL, "output_dir": "out", **options}
    if "model" in options and "preset" not in options:
        del options["config_overrides"]
    Path("file").write_text("")
    output = run(f"run_{script}_classification", **options)
    assert message in output
    assert not Path("out/results.json").exists()


def test_a_recipe_gives_way_to_flags(monkeypatch):
    given = {"dataset": "d", "output_dir": "o", "recipe": "kinetics400", "eval_crops": 1}
    monkeypatch.setattr(sys, "argv", ["x", *flags(**given, max_steps=7, use_cpu=True)])
    data, model, training = importlib.import_module("classification").parse("video", "")
    assert (training.per_device_train_batch_size, training.max_steps, training.learning_rate) == (64, 7, 5e-3)
    assert (training.warmup_steps, training.label_smoothing_factor, training.max_grad_norm) == (
        2500,
        0.1,
        0.75,
    )
    assert (str(training.optim.value), training.optim_args) == ("sgd", "momentum=0.9")
    assert (data.eval_windows, data.eval_crops, model.image_size, model.fps) == (4, 1, 320, 12.5)
    assert model.drop_token_rate == 0
