# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Two processes that train together, of which one gets a signal, meets NaN, finds another checkpoint, stands
still or dies: both end, together and with a message."""

import datetime
import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs
from clip_folders import RATE, losses, make_folder, small_processor
from media_factory import tone, truncate, write_media
from processes import FORKS, ranks
from scripts import EXAMPLES
from training_runs import At, arguments, classifier, pretrainer

from modeling_vatt.data import ClipDataset, LabelledDataset, load_clips, load_labelled
from modeling_vatt.training import TrainingError, VattTrainer, last_checkpoint


pytestmark = pytest.mark.slow  # every test starts processes of its own

# Seconds that the processes wait for each other, and that the test waits for them all.
PATIENCE, LIMIT = 8, 150


def outcome(trainer: Any) -> dict[str, Any]:
    """How a run ends."""
    try:
        trainer.train()
        ended = {"error": None}
    except (TrainingError, ValueError) as error:
        ended = {"error": str(error), "kind": type(error).__name__}
    return {**ended, "step": trainer.progress.step, "skipped": sorted(trainer.progress.skipped.values())}


def before_step(trainer: Any, step: int, task: Any) -> None:
    """Do something in this process when a step is about to be made."""
    make = trainer._step

    def patched(parts: Any, number: int) -> dict[str, float]:
        if number == step:
            task()
        return make(parts, number)

    trainer._step = patched


def fine_tune(clips: Path, folder: Path, rank: int, stop: bool) -> dict[str, Any]:
    """How fine-tuning ends; with `stop` the second process gets SIGTERM after the first step."""
    table = load_labelled(clips, "train", "audio")
    data = LabelledDataset(table, small_processor(), "audio")
    options = {"per_device_train_batch_size": 4, "max_steps": 4, "save_strategy": "steps", "save_steps": 4}
    trainer = VattTrainer(classifier(data), arguments(folder, **options), train_dataset=data)
    if stop and rank == 1:
        trainer.add_callback(At(1, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    try:
        trainer.train(resume_from_checkpoint=last_checkpoint(folder))
        error = None
    except TrainingError as stopped:
        error = str(stopped)
    names = sorted(Path(name).name for name in trainer.skipped)
    return {"error": error, "step": trainer.state.global_step, "skipped": names}


def spoil(trainer: Any) -> None:
    with torch.no_grad():
        for parameter in trainer.accelerator.unwrap_model(trainer.model).parameters():
            parameter.fill_(float("nan"))


def worker(rank: int, folder: Path, environment: dict[str, str], end: str) -> None:
    cache = str(folder / f"cache{rank}")
    os.environ |= {**environment, "ACCELERATE_USE_CPU": "1", "HF_DATASETS_CACHE": cache}
    torch.set_num_threads(1)
    timeout = InitProcessGroupKwargs(timeout=datetime.timedelta(seconds=PATIENCE))
    accelerator = Accelerator(kwargs_handlers=[timeout])
    clips = load_clips(folder / "clips", "train", cache_dir=cache)
    found: dict[str, Any] = {}

    def run(name: str, place: str = "shared", **options: Any) -> Any:
        trainer = pretrainer(clips, folder / place, accelerator=Accelerator(), batch_size=6, **options)
        if name:
            found[name] = outcome(trainer)
        return trainer

    stopped = run("")
    if rank == 1:
        before_step(stopped, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    found["signal"] = outcome(stopped)
    run("resumed")
    if end == "exits":
        run("other checkpoints", place="shared" if rank == 0 else "own")
        nan = run("", place="nan")
        if rank == 1:
            before_step(nan, 2, lambda: spoil(nan))
        found["nan"] = outcome(nan)
        unreadable = run("", place="unreadable", num_steps=1)
        if rank == 1:
            unreadable.dataset.clips = clips.select([5] * 8)
        found["unreadable"] = outcome(unreadable)
        sys.path.insert(0, str(EXAMPLES))
        from run_pretraining import evaluate_together

        for name in ("tuning stopped", "tuning resumed"):
            found[name] = fine_tune(folder / "labelled", folder / "tuned", rank, name == "tuning stopped")
        trainer = run("", place="evaluated")
        model = accelerator.unwrap_model(trainer.model).eval()
        dataset = ClipDataset(clips, trainer.dataset.processor)
        found["together"] = evaluate_together(model, dataset, accelerator, batch_size=2)
        everything = SimpleNamespace(process_index=1, num_processes=2, distributed_type=DistributedType.FSDP)
        found["alone"] = evaluate_together(model, dataset, everything, batch_size=2)
    last = run("", place="last")
    if rank == 1:
        (folder / "found1.json").write_text(json.dumps(found))
        number = signal.SIGKILL if end == "exits" else signal.SIGSTOP
        before_step(last, 2, lambda: os.kill(os.getpid(), number))
    found["last"] = outcome(last)
    (folder / "found0.json").write_text(json.dumps(found))
    os._exit(0)  # without waiting for the other one


def launch(folder: Path, end: str) -> list[dict[str, Any]]:
    """What both processes found, and that they ended."""
    clips = make_folder(folder / "clips", 8)
    truncate(clips / "train" / "clip05.mp4", clips / "train" / "clip05.mp4", 0.2)
    labelled = folder / "labelled" / "train"
    labelled.mkdir(parents=True)
    for number in range(8):
        place = labelled / "ab"[number % 2] / f"{number}.wav"
        place.parent.mkdir(exist_ok=True)
        write_media(place, waveform=tone(0.3, RATE), sampling_rate=RATE, audio_codec="pcm_s16le")
    for number in (1, 6):  # fewer than a process has clips in a step, which is an epoch
        (labelled / "ab"[number % 2] / f"{number}.wav").write_bytes(b"broken")
    processes = [FORKS.Process(target=worker, args=(n, folder, rank, end)) for n, rank in enumerate(ranks(2))]
    for process in processes:
        process.start()
    try:
        processes[0].join(LIMIT)
        assert processes[0].exitcode == 0, f"the first process did not end in {LIMIT} s, or failed"
    finally:
        for process in processes:
            process.kill()
            process.join()
    return [json.loads((folder / f"found{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def exits(tmp_path_factory) -> list[dict[str, Any]]:
    return launch(tmp_path_factory.mktemp("exits"), "exits")


def test_a_signal_to_one_process_stops_both_after_the_same_step(exits):
    for found, reason in zip(exits, ("a signal to another process", "SIGTERM"), strict=True):
        assert found["signal"]["step"] == 3 and found["signal"]["kind"] == "RunStopped"
        assert found["signal"]["error"].startswith(f"Stopped by {reason}. Steps made: 3 of 6.")
        assert "checkpoint-3 is whole" in found["signal"]["error"]
        assert found["resumed"]["error"] is None and found["resumed"]["step"] == 6


def test_what_one_process_could_not_read_is_known_to_both(exits):
    """Which of them meets the broken clip is the order's affair."""
    for found in exits:
        assert len(found["resumed"]["skipped"]) == 1 and "clip05.mp4" in found["resumed"]["skipped"][0]


def test_processes_with_different_checkpoints_stop(exits):
    for found in exits:
        assert "different checkpoints" in found["other checkpoints"]["error"]
        assert "process 0: checkpoint-6, process 1: none" in found["other checkpoints"]["error"]


def test_nan_in_one_process_stops_both_before_the_update(exits):
    for found in exits:
        assert found["nan"]["kind"] == "NonFiniteLossError" and found["nan"]["step"] == 2
        assert "Step 3: " in found["nan"]["error"] and "checkpoint-2 is whole" in found["nan"]["error"]


def test_a_process_without_readable_clips_stops_both(exits):
    for found in exits:
        assert "no clip of the batch of 1 of the 2 processes can be read" in found["unreadable"]["error"]


def test_fine_tuning_stops_together_and_knows_what_both_could_not_read(exits):
    """A step holds all clips; each process has met its half of them."""
    for found in exits:
        assert found["tuning stopped"]["step"] == 2
        assert "Steps made: 2 of 4." in found["tuning stopped"]["error"]
        assert found["tuning resumed"] == {"error": None, "step": 4, "skipped": ["1.wav", "6.wav"]}


def test_evaluation_is_shared(exits):
    """Each embeds its part of the clips; the metrics are those of all."""
    assert exits[0]["together"] == exits[1]["together"] == pytest.approx(exits[0]["alone"])
    assert exits[0]["together"]["gallery_size"] == 7


def test_a_process_that_dies_ends_the_other(exits):
    error = exits[0]["last"]["error"]
    assert "Another process ended, or did not answer in time" in error and "checkpoint-2 is whole" in error


def test_a_process_that_stands_still_ends_the_other(tmp_path):
    """After the time that the processes wait for each other."""
    found, _ = launch(tmp_path, "stops")
    error = found["last"]["error"]
    assert "Another process ended, or did not answer in time" in error and "--ddp_timeout" in error
    assert "checkpoint-2 is whole" in error
    assert len(losses(tmp_path / "last")) == 2
