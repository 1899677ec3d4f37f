# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs that are made longer, decays that branch off, and folders that hold an earlier run."""

import json
import logging
import shutil

import pytest
from clip_folders import losses
from training_runs import pretrainer

from modeling_vatt.training import PretrainingArguments
from modeling_vatt.training.checkpoints import checkpoints, read_state
from modeling_vatt.training.schedules import stable_learning_rate


FLAT = {"schedule": "constant", "log_every": 1, "save_every": 2}
DECAY = {"schedule": "wsd", "decay_steps": 2, "final_learning_rate": 1e-3, "save_every": 0}


def rates(folder) -> list[float]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["learning_rate"] for line in lines if "learning_rate" in line]


def names(folder) -> list[str]:
    return [path.name for path in checkpoints(folder)]


def test_warmup_stable_decay():
    found = [stable_learning_rate(step, 10, 2, 4, 8.0, 4.0) for step in range(12)]
    assert found == [0, 4, 8, 8, 8, 8, 8, 7, 6, 5, 4, 4]
    assert [stable_learning_rate(step, 4, 2, 0, 8.0) for step in range(6)] == [0, 4, 8, 8, 8, 8]


def test_a_finished_run_of_constant_rate_is_extended_as_if_it_had_been_longer(clips, tmp_path):
    pretrainer(clips, tmp_path / "long", num_steps=4, **FLAT).train()
    pretrainer(clips, tmp_path / "short", num_steps=2, **FLAT).train()
    pretrainer(clips, tmp_path / "short", num_steps=4, **FLAT).train()
    assert losses(tmp_path / "short") == losses(tmp_path / "long")
    assert rates(tmp_path / "short") == pytest.approx([0, 5e-3, 1e-2, 1e-2])
    with pytest.raises(ValueError, match=r"num_steps=4 \(now 3\)"):
        pretrainer(clips, tmp_path / "short", num_steps=3, **FLAT).train()
    assert names(tmp_path / "short") == ["checkpoint-2", "checkpoint-4"]


def test_a_decayed_run_is_extended_from_before_its_decay(clips, tmp_path):
    """To the losses of a run that was as long from the beginning."""
    pretrainer(clips, tmp_path / "long", num_steps=6, **DECAY).train()
    pretrainer(clips, tmp_path / "run", num_steps=4, **DECAY).train()
    assert rates(tmp_path / "run") == pytest.approx([0, 5e-3, 1e-2, 5.5e-3])
    assert names(tmp_path / "run") == ["checkpoint-2", "checkpoint-4"]
    pretrainer(clips, tmp_path / "run", num_steps=6, **DECAY).train()
    assert losses(tmp_path / "run") == losses(tmp_path / "long")
    assert names(tmp_path / "run") == ["checkpoint-4", "checkpoint-6"]
    assert read_state(tmp_path / "run" / "checkpoint-4")["arguments"]["num_steps"] == 6


def test_a_decay_branches_off(clips, tmp_path):
    """Into a folder of its own, which continues like any run; the other run is left as it is."""
    pretrainer(clips, tmp_path / "whole", num_steps=4, **DECAY).train()
    pretrainer(clips, tmp_path / "flat", num_steps=4, **FLAT).train()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "flat").rglob("*")}
    branch = {**DECAY, "num_steps": 4, "resume_from": str(tmp_path / "flat" / "checkpoint-2")}
    for _ in range(2):  # the second time nothing is left to do
        metrics = pretrainer(clips, tmp_path / "branch", **branch).train()
        assert losses(tmp_path / "branch") == losses(tmp_path / "whole")[2:]
        assert metrics["loss"] == losses(tmp_path / "whole")[-1][1]
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "flat").rglob("*")}
    with pytest.raises(ValueError, match="lies in the output folder"):
        pretrainer(clips, tmp_path / "flat", **branch).train()
    with pytest.raises(ValueError, match="no whole checkpoint"):
        pretrainer(clips, tmp_path / "other", **{**branch, "resume_from": "nothing"}).train()
    late = {**branch, "resume_from": str(tmp_path / "flat" / "checkpoint-4"), "num_steps": 5}
    with pytest.raises(ValueError, match="the learning rate up to there would have been another"):
        pretrainer(clips, tmp_path / "late", **late).train()


def test_a_cosine_is_not_extended(clips, tmp_path):
    pretrainer(clips, tmp_path, num_steps=2).train()
    for changed in ({"num_steps": 4}, {"schedule": "constant"}, {**DECAY, "num_steps": 6}):
        with pytest.raises(ValueError, match=r"\(now .*\"constant\" or \"wsd\".*--model"):
            pretrainer(clips, tmp_path, **{"num_steps": 2, **changed}).train()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "`seed` must .*, got -1"),
        ({"keep_checkpoints": -1}, "`keep_checkpoints` must .*, got -1"),
        ({"num_steps": 0}, "`num_steps` must .*, got 0"),
        ({"batch_size": 0}, "`batch_size` must .*, got 0"),
        ({"micro_batch_size": -3}, "`micro_batch_size` must .*, got -3"),
        ({"ema_decay": 1.0}, "`ema_decay` must be"),
        ({"schedule": "linear"}, "`schedule` must be"),
        ({"decay_steps": 3}, "belongs to"),
        ({"schedule": "wsd"}, "belongs to"),
        ({"schedule": "wsd", "decay_steps": 6, "warmup_steps": 5, "num_steps": 10}, "shorten"),
    ],
)
def test_arguments_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        PretrainingArguments("out", **options)


def test_the_best_model_of_an_earlier_run_is_not_that_of_a_new_one(clips, tmp_path):
    """Its checkpoints are gone, its `best` is not. Nor is one of steps that are made again."""
    pretrainer(clips, tmp_path, evaluate=lambda _: {"mean_recall": 0.9}, num_steps=2).train()
    for path in checkpoints(tmp_path):
        shutil.rmtree(path)
    assert (tmp_path / "best").is_dir()
    pretrainer(clips, tmp_path, num_steps=2).train()
    assert not (tmp_path / "best").exists()
    scores = iter([0.5, 0.9])
    options = {"evaluate": lambda _: {"mean_recall": next(scores)}, "eval_every": 2, "num_steps": 4}
    pretrainer(clips, tmp_path / "killed", **options).train()
    shutil.rmtree(tmp_path / "killed" / "checkpoint-4")  # as if killed before it was written
    again = pretrainer(clips, tmp_path / "killed", num_steps=4)
    again.train()
    assert again.progress.best_step == 2 and not (tmp_path / "killed" / "best").exists()


def test_settings_that_are_hardly_meant_are_warned_of(clips, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    pretrainer(clips, tmp_path, num_steps=1, batch_size=1, warmup_steps=5).train()
    assert "no negatives" in caplog.text and "never reaches 0.01" in caplog.text


def test_a_modality_that_some_clips_lack_is_told(clips, tmp_path, monkeypatch):
    """Several processes would wait for each other in the loss; here two parts of a batch stand for them."""
    trainer = pretrainer(clips, tmp_path, micro_batch_size=2)
    batches = trainer._batches

    def spoiled():
        for parts in batches():
            del parts[-1].inputs["input_values"]
            yield parts

    monkeypatch.setattr(trainer, "_batches", spoiled)
    with pytest.raises(
        ValueError, match=r"Step 1: only some of the clips have audio \(process 0 lacks: audio"
    ):
        trainer.train()
