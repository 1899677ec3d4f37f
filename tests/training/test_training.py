# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The pretraining loop and its checkpoints."""

import math

import pytest
import torch
from clip_folders import losses, small_processor
from training_runs import pretrainer

from modeling_vatt import VattForPreTraining
from modeling_vatt.training import PretrainingArguments, TrainingError
from modeling_vatt.training.checkpoints import begin, checkpoints, commit, read_state, remove_old


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize(("micro_batch_size", "optimizer"), [(0, "adam"), (3, "muon")])
def test_a_killed_run_continues_to_the_same_losses(clips, tmp_path, micro_batch_size, optimizer):
    options = {"micro_batch_size": micro_batch_size, "optimizer": optimizer}
    pretrainer(clips, tmp_path / "whole", **options).train()

    interrupted = pretrainer(clips, tmp_path / "parts", **options)

    def kill(step: int) -> None:
        if step == 3:  # after the checkpoint of step 2
            raise Killed

    interrupted.on_step = kill
    with pytest.raises(Killed):
        interrupted.train()
    assert [path.name for path in checkpoints(tmp_path / "parts")] == ["checkpoint-2"]
    (tmp_path / "parts" / "checkpoint-4.partial").mkdir()  # as if killed while saving
    again = pretrainer(clips, tmp_path / "parts", **options)
    again.train()
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    whole = torch.load(tmp_path / "whole" / "checkpoint-6" / "optimizer.bin", weights_only=True)
    parts = torch.load(tmp_path / "parts" / "checkpoint-6" / "optimizer.bin", weights_only=True)
    for one, other in zip(whole["state"].values(), parts["state"].values(), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert not list((tmp_path / "parts").glob("*.partial"))


def test_a_finished_run_tells_its_metrics_again(clips, tmp_path):
    """For the card of the model, which the same command writes if it could not be written."""
    options = {"evaluate": lambda model: {"mean_recall": 0.25}}
    metrics = pretrainer(clips, tmp_path, **options).train()
    assert {"loss", "mean_recall"} <= metrics.keys()
    assert pretrainer(clips, tmp_path, **options).train() == metrics


def test_order_and_groups_that_the_data_do_not_have_are_refused(clips, tmp_path):
    with pytest.raises(ValueError, match="Only shards can be shuffled a few at a time"):
        pretrainer(clips, tmp_path, shuffle_shards=2).train()
    with pytest.raises(ValueError, match=r"no column hue; take some of these: .*captions"):
        pretrainer(clips, tmp_path, group_by=["captions", "hue"]).train()


def test_gradients_are_not_accumulated(clips, tmp_path, monkeypatch):
    """`accelerate launch --gradient_accumulation_steps 2` would halve them."""
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "2")
    with pytest.raises(ValueError, match="accumulates no gradients"):
        pretrainer(clips, tmp_path)


def test_a_run_without_any_readable_clip_goes_to_its_end_and_says_so(clips, tmp_path):
    trainer = pretrainer(clips.select([5, 5]), tmp_path, num_steps=2, batch_size=2)
    with pytest.raises(TrainingError, match="no clip could be read; the first because"):
        trainer.train()
    assert trainer.progress.step == 2 and trainer.progress.skipped


def test_training_lowers_the_loss(clips, tmp_path):
    pretrainer(clips, tmp_path, num_steps=80, log_every=10, save_every=0).train()
    found = [loss for _, loss in losses(tmp_path)]
    assert found[-1] < found[0] - 0.5


def test_a_batch_in_parts_is_trained_like_the_whole(clips, tmp_path):
    """Also with a clip in it that cannot be read."""
    for name, size in (("whole", 0), ("parts", 3)):
        trainer = pretrainer(clips, tmp_path / name, drop_token_rate=0.0, dropout=0.0, micro_batch_size=size)
        trainer.train()
        assert trainer.progress.skipped
    whole, parts = losses(tmp_path / "whole"), losses(tmp_path / "parts")
    assert [step for step, _ in parts] == [step for step, _ in whole]
    assert [loss for _, loss in parts] == pytest.approx([loss for _, loss in whole], rel=1e-4)


def test_parts_are_counted_in_clips(clips, tmp_path):
    """Also where a video gives several."""
    trainer = pretrainer(clips.select([0, 3, 4, 6]), tmp_path, batch_size=8, micro_batch_size=4)
    trainer.dataset.clips_per_video = 2
    parts = next(trainer._batches())
    assert [len(part.inputs["audio_mask"]) for part in parts] == [4, 4]


def test_best_model_is_kept_with_what_belongs_to_it(clips, tmp_path):
    """NaN is not the best; and the clip that is broken is counted and named."""
    scores = iter([math.nan, 0.9, 0.5])
    processor = small_processor()
    trainer = pretrainer(
        clips,
        tmp_path,
        evaluate=lambda model: {"mean_recall": next(scores)},
        save_extra=processor.save_pretrained,
        eval_every=2,
    )
    assert trainer.train()["skipped_clips"] == 1
    report = trainer.skip_report()
    assert report.startswith("Skipped 1 of 8 clips") and "clip05.mp4" in report
    assert trainer.progress.best_step == 4
    assert read_state(tmp_path / "best") == {"step": 4, "metrics": {"mean_recall": 0.9}}
    VattForPreTraining.from_pretrained(tmp_path / "best")
    assert (tmp_path / "best" / "processor_config.json").is_file()


@pytest.mark.parametrize("name", ["txt2vid_MedianRank", "loss"])
def test_metrics_that_fall_choose_no_best_model(tmp_path, name):
    """The worst would be kept."""
    with pytest.raises(ValueError, match="is better when it is smaller"):
        PretrainingArguments(str(tmp_path), metric_for_best_model=name)


def test_unknown_metric_for_best_model_is_named(clips, tmp_path):
    trainer = pretrainer(clips, tmp_path, evaluate=lambda model: {"R1": 0.0}, num_steps=1)
    with pytest.raises(ValueError, match=r"mean_recall.* is not among the metrics"):
        trainer.train()


def test_checkpoints_are_whole_or_not_there(tmp_path):
    begin(tmp_path / "checkpoint-1").joinpath("weights").write_text("1")
    assert checkpoints(tmp_path) == []
    commit(tmp_path / "checkpoint-1", {"step": 1})
    (tmp_path / "checkpoint-11").mkdir()  # no state: not ours, or not whole
    begin(tmp_path / "checkpoint-12")
    remove_old(tmp_path, keep=1)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-1"]
    assert not (tmp_path / "checkpoint-12.partial").exists()
    assert read_state(tmp_path / "checkpoint-1") == {"step": 1}
