# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""`run.json`, seeds and deterministic runs, and that tokens are written nowhere."""

import json
import os
import pickle
import signal
import subprocess
import time
from pathlib import Path

import datasets
import pytest
import torch
from clip_folders import losses, make_folder, write_rows
from scripts import CLASSIFICATION, PRETRAINING, TINY_TOWER, call, start
from training_runs import arguments

from modeling_vatt.training import (
    EXIT_STOPPED,
    read_run_record,
    run_record,
    seed_everything,
    table_fingerprint,
    without_secrets,
    write_run_record,
)


TOKEN = "hf_ThisIsNoRealTokenButLooksLikeOne"


def holding(folder: Path, text: str) -> list[str]:
    """Files in which a text stands, also inside of archives that are not compressed, as torch's are."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if text.encode() in path.read_bytes()]


# --- secrets ---


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"Bearer abc.def-123 for {TOKEN}!", "Bearer (hidden) for (hidden)!"),
        ("https://me:pass@host/a.tar", "https://(hidden)@host/a.tar"),
        ("s3://b/a?X-Amz-Signature=0af1&x=1", "s3://b/a?X-Amz-Signature=(hidden)&x=1"),
        ("https://host/a?access_token=xyz", "https://host/a?access_token=(hidden)"),
        ({"hub_token": "x", "pad_token_id": 3}, {"hub_token": "(hidden)", "pad_token_id": 3}),
        ({"API_KEY": "y", "password": None}, {"API_KEY": "(hidden)", "password": None}),
        ([{"deep": {"secret": "x"}}], [{"deep": {"secret": "(hidden)"}}]),
        ([1, 2.5, True, None, float("nan"), Path("a/b")], [1, 2.5, True, None, "nan", "a/b"]),
        *[(text, text) for text in ("tokens@home", "hf_hub", "mailto:a@b", "a/token/b?x=1")],
    ],
)
def test_secrets_are_hidden(value, expected):
    assert without_secrets(value) == expected


def test_the_token_of_the_environment_is_hidden(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "neither-prefix-nor-pattern")
    assert without_secrets("failed with neither-prefix-nor-pattern") == "failed with (hidden)"
    monkeypatch.setenv("HF_TOKEN", "")
    assert without_secrets("abc") == "abc"


def test_pickled_arguments_hold_no_token(tmp_path):
    """The Trainer writes them beside every checkpoint."""
    args = arguments(tmp_path, hub_token=TOKEN)
    assert args.hub_token == TOKEN
    data = pickle.dumps(args)
    assert TOKEN.encode() not in data and pickle.loads(data).hub_token is None


# --- the record ---


def test_a_record_tells_what_a_run_was_made_of(tmp_path):
    config = {"hidden_size": 3}
    write_run_record(tmp_path, "test", config, {"lr": 0.1, "hub_token": TOKEN}, {"clips": 4}, num_processes=2)
    write_run_record(tmp_path, "test", config, {"lr": 0.1}, {"clips": 4}, step=7, new=False, more=[1])
    record = read_run_record(tmp_path)
    assert record["kind"] == "test" and record["config"] == config and record["data"] == {"clips": 4}
    assert record["more"] == [1]
    for name in ("python", "torch", "transformers", "modeling_vatt", "av"):
        assert record["versions"][name]
    assert record["versions"]["torch"] == torch.__version__
    assert [(start["step"], start["num_processes"]) for start in record["history"]] == [(0, 2), (7, 1)]
    assert record["machine"]["cpus"] == os.cpu_count()
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    write_run_record(tmp_path, "test")
    assert len(read_run_record(tmp_path)["history"]) == 1


@pytest.mark.parametrize("content", [None, "", "{", "[1]"])
def test_records_that_cannot_be_read_are_none(tmp_path, content):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    assert read_run_record(tmp_path) == {}


def test_revision_of_the_sources(tmp_path, monkeypatch):
    """Commit and whether files were changed; None where the package is no part of the repository."""

    def git(*words: str) -> None:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words]
        subprocess.run(command, check=True, capture_output=True)

    source = tmp_path / "run_record.py"
    source.write_text("1")
    monkeypatch.setattr(run_record, "__file__", str(source))
    git("init")
    assert run_record.git_revision() is None
    git("add", ".")
    git("commit", "-m", "x")
    found = run_record.git_revision()
    assert found["changed"] is False and len(found["commit"]) == 40
    source.write_text("2")
    assert run_record.git_revision() == {**found, "changed": True}
    monkeypatch.setenv("PATH", "")
    assert run_record.git_revision() is None


def test_fingerprints_of_tables(tmp_path):
    def table(names: list[str], labels: list[int]) -> datasets.Dataset:
        rows = {"video": [{"path": name, "bytes": None} for name in names], "label": labels}
        return datasets.Dataset.from_dict(rows)

    first = table_fingerprint(table(["x/a.mp4", "x/b.mp4"], [0, 1]), "video", "label")
    assert first == table_fingerprint(table(["y/a.mp4", "y/b.mp4"], [0, 1]), "video", "label")
    assert first != table_fingerprint(table(["x/a.mp4", "x/b.mp4"], [1, 0]), "video", "label")
    assert first != table_fingerprint(table(["x/b.mp4", "x/a.mp4"], [0, 1]), "video", "label")
    assert first != table_fingerprint(table(["x/a.mp4"], [0]), "video", "label")
    files = [str(tmp_path / "a.mp4")]
    Path(files[0]).write_text("one")
    before = table_fingerprint(table(files, [0]), "video")
    assert before == table_fingerprint(table(files, [0]), "video")
    Path(files[0]).write_text("another")
    assert before != table_fingerprint(table(files, [0]), "video")
    embedded = [
        datasets.Dataset.from_dict({"video": [{"path": "a.mp4", "bytes": content}]})
        for content in (b"one", b"other", b"one")
    ]
    found = [table_fingerprint(rows, "video") for rows in embedded]
    assert found[0] == found[2] != found[1]


# --- seeds ---


def test_seeds():
    for seed in (0, 5, 2**40):
        seed_everything(seed)
        first = torch.rand(3)
        seed_everything(seed)
        assert torch.equal(torch.rand(3), first)
    with pytest.raises(ValueError, match="`seed` must not be negative, got -1"):
        seed_everything(-1)


def test_deterministic_mode_is_switched_on(monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    try:
        seed_everything(1, deterministic=True)
        assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False


# --- the scripts ---


@pytest.mark.slow
def test_pretraining_is_deterministic_resumable_and_discreet(tmp_path, monkeypatch):
    """Two runs with `--deterministic`, in processes of their own, give the same bits; one of them was stopped
    by SIGTERM, with workers, in between. The token stands in the environment."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    videos = make_folder(tmp_path / "videos", 12)
    make_folder(videos, 4, split="validation", first=12)
    options = {
        **PRETRAINING,
        "dataset": videos,
        "deterministic": True,
        "report_to": "tensorboard",
        "seed": 2**35,
    }
    whole = start("run_pretraining.py", tmp_path, output_dir="whole", **options)
    process = start("run_pretraining.py", tmp_path, output_dir="parts", num_workers=1, **options)
    metrics = tmp_path / "parts" / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while not (metrics.exists() and losses(tmp_path / "parts")):
        assert process.poll() is None and time.monotonic() < deadline, "ended before it could be stopped"
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == EXIT_STOPPED, output
    assert "Stopped by SIGTERM. Steps made: " in output and "Traceback" not in output
    rest = start("run_pretraining.py", tmp_path, output_dir="parts", num_workers=1, **options)
    outputs = [whole.communicate(timeout=200)[0], rest.communicate(timeout=200)[0]]
    assert whole.returncode == rest.returncode == 0, outputs
    for name in ("model.safetensors", "checkpoint-6/model.safetensors", "checkpoint-6/optimizer.bin"):
        first, second = ((tmp_path / folder / name).read_bytes() for folder in ("whole", "parts"))
        assert first == second, name
    for folder in (tmp_path / "parts", tmp_path / "parts" / "checkpoint-6"):
        record = read_run_record(folder)
        assert record["kind"] == "pretraining" and len(record["history"]) == 2
        assert (
            record["history"][1]["step"] > 0
            and record["arguments"]["DataArguments"]["train_split"] == "train"
        )
        assert record["data"]["clips"] == 12 and record["config"]["model_type"] == "vatt"
    assert list((tmp_path / "parts" / "logs").rglob("events*"))
    assert not holding(tmp_path, TOKEN) and not any(TOKEN in text for text in [output, *outputs])


@pytest.mark.slow
def test_scripts_do_not_repeat_tokens(tmp_path, monkeypatch, capsys):
    """Neither in files, among them the Trainer's own, nor in messages."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    videos = make_folder(tmp_path / "videos", 4)
    lines = (videos / "train" / "metadata.jsonl").read_text().splitlines()
    rows = [{**json.loads(line), "label": number % 2} for number, line in enumerate(lines)]
    write_rows(videos / "train", rows)
    options = {
        **CLASSIFICATION,
        "dataset": videos,
        "output_dir": "out",
        "validation_split": "",
        "max_steps": 1,
        "report_to": "tensorboard",
        "image_size": 16,
        "config_overrides": json.dumps({"video_config": {**TINY_TOWER, "num_frames": 8, "image_size": 16}}),
    }
    call("run_video_classification", hub_token=TOKEN, **options)
    assert (tmp_path / "out" / "checkpoint-1" / "training_args.bin").is_file()
    record = read_run_record(tmp_path / "out" / "checkpoint-1")
    assert record["settings"]["max_steps"] == 1 and record["arguments"]["FinetuningArguments"]["seed"] == 42
    with pytest.raises(SystemExit) as end:
        call("run_video_classification", dataset=f"/no/such/{TOKEN}", output_dir="out2")
    assert end.value.code == 1
    captured = capsys.readouterr()
    assert "/no/such/(hidden): no such folder" in captured.err
    assert TOKEN not in captured.err + captured.out and not holding(tmp_path, TOKEN)
