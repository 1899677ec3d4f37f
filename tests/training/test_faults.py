# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""What ends a run before its last step: signals, dead workers, NaN, full disks, no memory, jumping clocks."""

import ast
import contextlib
import copy
import dataclasses
import errno
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from clip_folders import losses, make_folder, write_clip
from safetensors import SafetensorError
from safetensors.torch import load_file
from training_runs import At, arguments, best_kept, classifier, pretrainer, tones, weights

from modeling_vatt.data import LabelledDataset, load_clips
from modeling_vatt.data.reading import DECODED
from modeling_vatt.training import (
    EXIT_STOPPED,
    NonFiniteLossError,
    Pretrainer,
    RunStopped,
    StopSignals,
    TrainingError,
    VattTrainer,
    explained,
    files_at_once,
    last_checkpoint,
    read_run_record,
)
from modeling_vatt.training import checkpoints as checkpoint_files
from modeling_vatt.training import pretrainer as loop
from modeling_vatt.training.checkpoints import begin, checkpoints, commit, recover, remove_old
from modeling_vatt.training.faults import is_worker_death
from modeling_vatt.training.pretrainer import step_seed


PACKAGE = Path(loop.__file__).parents[1]


@pytest.fixture(scope="module")
def whole(clips, tmp_path_factory) -> list[tuple[int, float]]:
    """Losses of a run in which nothing happens."""
    folder = tmp_path_factory.mktemp("whole")
    pretrainer(clips, folder).train()
    return losses(folder)


def names(folder: Path) -> list[str]:
    return [path.name for path in checkpoints(folder)]


def begun(*args: Any, **options: Any) -> Pretrainer:
    """A pretrainer whose first checkpoint is written."""
    trainer = pretrainer(*args, **options)
    trainer._resume()
    trainer._save_checkpoint()
    return trainer


@contextlib.contextmanager
def quota() -> Iterator[Callable[[], None]]:
    """What is called to allow no file more than 20 kB, until the end."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# --- signals ---


def test_a_signal_stops_a_run_after_a_checkpoint(clips, whole, tmp_path):
    """A real one; handlers are those of before afterwards, and the run goes on to the same losses."""
    before = signal.getsignal(signal.SIGINT)
    trainer = pretrainer(clips, tmp_path)
    trainer.on_step = lambda step: os.kill(os.getpid(), signal.SIGINT) if step == 3 else None
    message = r"Stopped by SIGINT\. Steps made: 3 of 6.*the same command"
    with pytest.raises(RunStopped, match=message) as stop:
        trainer.train()
    assert stop.value.exit_code == EXIT_STOPPED == 75
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-3"]
    assert signal.getsignal(signal.SIGINT) is before
    pretrainer(clips, tmp_path).train()
    assert losses(tmp_path) == whole


def test_a_signal_right_after_a_checkpoint_writes_no_second_one(clips, tmp_path, monkeypatch):
    trainer = pretrainer(clips, tmp_path)
    trainer.on_step = lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 2 else None
    times: list[int] = []
    monkeypatch.setattr(loop, "begin", lambda target: (times.append(trainer.progress.step), begin(target)))
    with pytest.raises(RunStopped, match="checkpoint-2 is whole"):
        trainer.train()
    assert times == [2]


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_second_interrupt_ends_at_once(first):
    """The first one where a scheduler had asked the run to stop; what schedulers send again does not."""
    before = signal.getsignal(first)
    with pytest.raises(KeyboardInterrupt), StopSignals() as signals:
        os.kill(os.getpid(), first)
        if first != signal.SIGINT:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), first)
        assert signals.received == first.name
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(first) is before


def test_signals_are_left_alone_outside_of_the_main_thread():
    def handler() -> Any:
        with StopSignals():
            return signal.getsignal(signal.SIGTERM)

    with ThreadPoolExecutor() as pool:
        assert pool.submit(handler).result() is signal.getsignal(signal.SIGTERM)


# --- workers ---


def test_a_killed_worker_is_replaced(clips, whole, tmp_path, caplog):
    trainer = pretrainer(clips, tmp_path, num_workers=1, prefetch_factor=1)

    def kill(step: int) -> None:
        if step == 2:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGKILL)

    trainer.on_step = kill
    trainer.train()
    assert losses(tmp_path) == whole
    assert "Starting the workers anew" in caplog.text


class Crashing(torch.utils.data.Dataset):
    """Kills the process that reads it, as a decoder may."""

    def __init__(self, dataset: Any) -> None:
        self.__dict__ |= vars(dataset)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, item: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    fingerprint = "crashing"

    def order(self, shuffle: int) -> None:
        return None


def test_workers_that_always_die_end_the_run(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_WORKER_DEATHS", 1)
    trainer = pretrainer(clips, tmp_path, num_workers=1)
    trainer.dataset = Crashing(trainer.dataset)
    with pytest.raises(
        TrainingError, match=r"worker process that loads clips died.*fewer workers.*Steps made: 0"
    ):
        trainer.train()


def test_exceptions_in_workers_are_no_deaths():
    assert is_worker_death(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "))
    assert is_worker_death(RuntimeError("Pin memory thread exited unexpectedly"))
    assert not is_worker_death(RuntimeError("Caught RuntimeError in DataLoader worker process 0."))


# --- NaN ---


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_nan_ends_a_run_before_the_update(clips, tmp_path, where):
    trainer = pretrainer(clips, tmp_path)
    kept: dict[str, torch.Tensor] = {}

    def spoil(step: int) -> None:
        if step != 3:
            return
        weight = next(p for name, p in trainer.model.named_parameters() if "embeddings" in name)
        if where == "loss":
            with torch.no_grad():
                weight.fill_(float("inf"))
        else:
            weight.register_hook(lambda grad: torch.full_like(grad, float("nan")))
        kept.update(weights(trainer.model))

    trainer.on_step = spoil
    with pytest.raises(NonFiniteLossError) as error:
        trainer.train()
    message = str(error.value)
    for part in (
        "Step 4: ",
        "is not finite. No update was made",
        ".mp4",
        "--learning_rate",
        "checkpoint-2 is whole",
    ):
        assert part in message, message
    assert ("loss nan" in message) == (where == "loss")
    assert names(tmp_path) == ["checkpoint-2"]
    for name, values in weights(trainer.model).items():
        if "running" not in name:
            assert torch.equal(values, kept[name]), name
    report = json.loads((tmp_path / "non_finite_step_4.json").read_text())
    assert len(report["clips"]) == 4 and report["step"] == 4
    assert bool(report["weights"]) == (where == "loss")


# --- disk ---


def test_a_file_that_gets_too_large_keeps_the_last_checkpoint(clips, whole, tmp_path):
    """The room that the half-written checkpoint took is given back."""
    message = r"Cannot write to .*Make room.*checkpoint-2 is whole"
    trainer = pretrainer(clips, tmp_path)
    with quota() as limit, pytest.raises(TrainingError, match=message):
        trainer.on_step = lambda step: limit() if step == 3 else None
        trainer.train()
    assert names(tmp_path) == ["checkpoint-2"] and not list(tmp_path.glob("*.partial"))
    pretrainer(clips, tmp_path).train()
    assert losses(tmp_path) == whole


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of so many bytes; where that is not allowed the test is skipped."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size: int) -> Path:
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("mounting needs root")
        return folder

    yield mount
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def test_a_full_disk_keeps_the_last_checkpoint(clips, tmp_path, small_disk):
    """Room for one checkpoint and a half."""
    pretrainer(clips, tmp_path / "roomy", num_steps=2).train()
    size = sum(file.stat().st_size for file in (tmp_path / "roomy" / "checkpoint-2").iterdir())
    disk = small_disk(int(1.5 * size))
    with pytest.raises(TrainingError, match=r"Cannot write to .*MB are free.*checkpoint-2 is whole") as error:
        pretrainer(clips, disk).train()
    assert error.value.exit_code == 1
    assert names(disk) == ["checkpoint-2"] and not list(disk.glob("*.partial"))
    data = (tmp_path / "roomy" / "checkpoint-2" / "model.safetensors").read_bytes()
    assert (disk / "checkpoint-2" / "model.safetensors").read_bytes() == data
    trainer = pretrainer(clips, disk, num_steps=6)
    trainer._resume()
    assert trainer.progress.step == 2


# --- memory ---


def test_without_memory_advice_is_given(clips, tmp_path):
    """torch's own error of an allocation that cannot be made."""
    trainer = pretrainer(clips, tmp_path)
    trainer.model.register_forward_pre_hook(lambda *_: torch.empty(2**55))
    advice = (
        "Out of memory .*--micro_batch_size, now 0.*--gradient_checkpointing.*--num_captions.*There is no"
    )
    with pytest.raises(TrainingError, match=advice):
        trainer.train()


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "Out of memory"),
        (MemoryError(), "Out of memory"),
        (
            UnpicklingError("Weights only load failed. Re-run with"),
            r"more than numbers \(Weights only load failed\)",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "Make room"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "Make room"),
        (SafetensorError("Error while serializing: I/O error: No space left on device"), "Make room"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), "Make room"),
        (torch.distributed.DistBackendError("NCCL communicator was aborted"), "Another process ended"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Out of memory"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (
            RuntimeError(
                "Caught RuntimeError in DataLoader worker process 0. Original Traceback: unable to allocate "
                "shared memory(shm) for file </torch_7_1>: No space left on device (28)"
            ),
            r"shared memory, /dev/shm \(allocate shared memory.*torch_7_1.*--shm-size.*fewer workers",
        ),
        (
            RuntimeError(
                "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's "
                "workers are out of shared memory. Please try to raise your shared memory limit."
            ),
            "--shm-size",
        ),
        (
            RuntimeError("unable to open shared memory object </torch_7_1>: Too many open files (24)"),
            "ulimit -n",
        ),
    ],
)
def test_faults_are_told_with_their_remedy(tmp_path, error, part):
    with (
        pytest.raises(TrainingError, match=rf"{part}.*Go on\.") as found,
        explained(tmp_path, "X.", lambda: "Go on."),
    ):
        raise error
    assert found.value.__cause__ is error


@pytest.mark.parametrize("error", [FileNotFoundError("a"), ValueError("b"), RuntimeError("shapes differ")])
def test_other_errors_stay_what_they_are(tmp_path, error):
    with pytest.raises(type(error)) as found, explained(tmp_path, "X."):
        raise error
    assert found.value is error


# --- checkpoints ---


def test_names_are_given_to_what_is_on_the_disk(tmp_path, monkeypatch):
    """Files, then their folder, then the rename, then the folder above."""
    done: list[str] = []
    sync, rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", lambda *paths: (done.append("rename"), rename(*paths)))
    begin(tmp_path / "checkpoint-1").joinpath("deep").mkdir()
    (tmp_path / "checkpoint-1.partial" / "deep" / "weights").write_text("1")
    commit(tmp_path / "checkpoint-1", {})
    at = done.index("rename")
    assert sorted(done[:at]) == ["checkpoint-1.partial", "deep", "training_state.json", "weights"]
    assert done[at + 1 :] == [tmp_path.name]


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_run_killed_while_replacing_loses_nothing(tmp_path, monkeypatch, renames):
    """`best` is there again, whichever of the two renames was the last; after both it is the new one."""
    begin(tmp_path / "best").joinpath("weights").write_text("old")
    commit(tmp_path / "best", {})
    begin(tmp_path / "best").joinpath("weights").write_text("new")
    made: list[Any] = []
    rename = os.rename

    def dies(*paths: Any) -> None:
        if len(made) == renames:
            raise KeyboardInterrupt
        made.append(paths)
        rename(*paths)

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(checkpoint_files.os, "rename", dies)
        commit(tmp_path / "best", {"step": 2})
    others = ["film.mkv.partial", "text.replaced"]
    for name in others:
        (tmp_path / name).mkdir()
    recover(tmp_path)
    assert (tmp_path / "best" / "weights").read_text() == ("new" if renames == 2 else "old")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", *others]


def test_old_checkpoints_go_by_their_step(tmp_path):
    """Times of files say nothing: clocks jump. 0 keeps all."""
    for place, step in enumerate((30, 4, 200, 11)):
        begin(tmp_path / f"checkpoint-{step}")
        commit(tmp_path / f"checkpoint-{step}", {})
        os.utime(tmp_path / f"checkpoint-{step}", (place * 1e6, place * 1e6))
    remove_old(tmp_path, keep=0)
    assert names(tmp_path) == [f"checkpoint-{step}" for step in (4, 11, 30, 200)]
    remove_old(tmp_path, keep=3, also=tmp_path / "checkpoint-4")
    assert names(tmp_path) == [f"checkpoint-{step}" for step in (4, 30, 200)]
    remove_old(tmp_path, keep=1, also=tmp_path / "checkpoint-30")
    assert names(tmp_path) == ["checkpoint-30", "checkpoint-200"]
    remove_old(tmp_path, keep=1)
    assert names(tmp_path) == ["checkpoint-200"]


def test_results_are_replaced_at_once_or_not_at_all(tmp_path):
    (tmp_path / "config.json").write_text("old")
    with pytest.raises(OSError, match="full"), files_at_once(tmp_path) as folder:
        (folder / "config.json").write_text("new")
        raise OSError("full")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_text() == "old"
    with files_at_once(tmp_path) as folder:
        (folder / "config.json").write_text("new")
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("x")
    assert (tmp_path / "config.json").read_text() == "new" and (tmp_path / "deep" / "file").is_file()
    assert not (tmp_path / "result.partial").exists()


def test_a_damaged_checkpoint_is_named(clips, tmp_path):
    pretrainer(clips, tmp_path, num_steps=4).train()
    file = tmp_path / "checkpoint-4" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"checkpoint-4 cannot be read .* Delete it"):
        pretrainer(clips, tmp_path, num_steps=4).train()
    shutil.rmtree(tmp_path / "checkpoint-4")
    assert pretrainer(clips, tmp_path, num_steps=4).train()["skipped_clips"] == 1


def test_a_good_checkpoint_is_not_to_be_deleted(clips, tmp_path, monkeypatch):
    begun(clips, tmp_path)
    for error, message in (
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "Out of memory"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "illegal memory access"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (PermissionError(errno.EACCES, "Permission denied"), "It may be whole: see to its rights"),
        (OSError(errno.EIO, "Input/output error"), "It may be whole"),
    ):
        again = pretrainer(clips, tmp_path)
        monkeypatch.setattr(again.accelerator, "load_state", Mock(side_effect=error))
        with pytest.raises(RuntimeError, match=message) as found:
            again.train()
        assert "Delete" not in str(found.value)


def test_a_checkpoint_is_written_without_the_record_of_the_run(clips, whole, tmp_path):
    trainer = pretrainer(clips, tmp_path)
    trainer.on_step = lambda step: (tmp_path / "run.json").unlink(missing_ok=True)
    trainer.train()
    assert names(tmp_path) == ["checkpoint-4", "checkpoint-6"]
    assert losses(tmp_path) == whole


class Spy:
    """Unpickled, it leaves a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_checkpoints_run_no_code(clips, tmp_path):
    """A run may be continued from what somebody else left there."""
    begun(clips, tmp_path / "run")
    executed = tmp_path / "executed"
    for name in ("optimizer.bin", "random_states_0.pkl", "custom_checkpoint_0.pkl"):
        folder = Path(shutil.copytree(tmp_path / "run", tmp_path / name))
        torch.save({"state": Spy(executed)}, folder / "checkpoint-0" / name)
        with contextlib.suppress(TrainingError, UnpicklingError):
            pretrainer(clips, folder)._resume()
        assert not executed.exists(), name
        torch.load(folder / "checkpoint-0" / name, weights_only=False)
        executed.unlink()  # it was there: the test can fail


def test_checkpoints_of_fine_tuning_run_no_code(sounds, tmp_path):
    """`training_args.bin`, which holds more than numbers, is not read at all."""
    finetune(sounds, tmp_path, max_steps=3).train()  # checkpoint-2 is not the end
    trainer = finetune(sounds, tmp_path, max_steps=3)
    executed = tmp_path / "executed"
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        file = tmp_path / "checkpoint-2" / name
        kept = file.read_bytes()
        torch.save({"state": Spy(executed)}, file)
        refused = pytest.raises(TrainingError, match="more than numbers")
        with contextlib.nullcontext() if name == "training_args.bin" else refused:
            trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
        assert not executed.exists(), name
        torch.load(file, weights_only=False)
        assert executed.exists()  # so that the test can fail
        executed.unlink()
        file.write_bytes(kept)


# --- clocks ---


def test_a_jumping_clock_changes_nothing(clips, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: random.uniform(0, 4e9))
    pretrainer(clips, tmp_path).train()
    assert losses(tmp_path) == whole
    speeds = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(line["clips_per_second"] > 0 for line in speeds)


def test_nothing_is_timed_by_the_clock_on_the_wall():
    """Neither durations nor the order of checkpoints; caches, shards and the index ask whether times of files
    are equal."""
    found = {
        (path.relative_to(PACKAGE).as_posix(), node.attr)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and (
            (node.attr == "time" and isinstance(node.value, ast.Name) and node.value.id == "time")
            or node.attr in ("getmtime", "st_mtime", "st_mtime_ns", "st_ctime")
        )
    }
    data, retrieval = ("folders", "preparation"), ("index", "searchable", "store", "updating")
    files = [*(f"data/{name}" for name in data), *(f"retrieval/{name}" for name in retrieval), "web/media"]
    assert found == {(f"{file}.py", "st_mtime_ns") for file in files}


# --- arguments ---


def test_what_changes_the_result_is_refused_on_resuming(clips, tmp_path):
    """Settings, data, their views, and the model."""
    begun(clips, tmp_path)
    settings = {
        "batch_size": 2,
        "micro_batch_size": 2,
        "cosine_period": "quarter",
        "adam_beta1": 0.8,
        "adam_beta2": 0.99,
        "adam_epsilon": 1e-6,
        "weight_decay": 0.1,
        "max_grad_norm": 1.0,
    }
    for name, value in settings.items():
        with pytest.raises(ValueError, match=rf"{name}=.* \(now {value}\)"):
            pretrainer(clips, tmp_path, **{name: value})._resume()
    with pytest.raises(ValueError, match="model_config="):
        pretrainer(clips, tmp_path, drop_token_rate=0.25)._resume()
    with pytest.raises(ValueError, match=r"data=\w+ \(now"):
        pretrainer(clips.select([1, 0, *range(2, 8)]), tmp_path)._resume()
    other = pretrainer(clips, tmp_path)
    other.dataset.augmentation = dataclasses.replace(other.dataset.augmentation, noise=0.5)
    with pytest.raises(ValueError, match="processing="):
        other._resume()
    for name, value in (("window_choices", 4), ("mask_captions", True)):
        other = pretrainer(clips, tmp_path)
        setattr(other.dataset, name, value)
        with pytest.raises(ValueError, match=rf"{name}=.* \(now {value}\)"):
            other._resume()
    other = pretrainer(clips, tmp_path)
    other.dataset.processor.tokenizer.add_tokens(["another"])
    with pytest.raises(ValueError, match="tokenizer="):
        other._resume()
    other = pretrainer(clips, tmp_path)
    other.dataset.clips = clips.add_column(DECODED, [[1, 1, 1, 3]] * len(clips))
    with pytest.raises(ValueError, match="decoded_once=False"):
        other._resume()


def test_a_file_of_another_size_is_refused_on_resuming(tmp_path):
    folder = make_folder(tmp_path / "clips", 4)

    def load() -> Any:
        return load_clips(folder, "train", cache_dir=str(tmp_path / "cache"))

    begun(load(), tmp_path / "run")
    pretrainer(load(), tmp_path / "run")._resume()
    write_clip(folder / "train" / "clip02.mp4", 2, seconds=3.0)
    with pytest.raises(ValueError, match=r"data=\w+ \(now \w+\): use them again"):
        pretrainer(load(), tmp_path / "run")._resume()


def test_other_locked_towers_are_refused_on_resuming(clips, tmp_path):
    """The checkpoint would bring back the towers of before, to features of those of now."""
    first = pretrainer(clips, tmp_path)
    first.model.lock("video", "audio", "text")
    runs = [Pretrainer(copy.deepcopy(first.model), first.dataset, first.args) for _ in range(2)]
    runs[0]._resume()
    runs[0]._save_checkpoint()
    runs[1]._resume()
    with torch.no_grad():
        next(first.model.vatt.encoder.parameters()).add_(0.1)
    with pytest.raises(ValueError, match="locked_towers="):
        Pretrainer(first.model, first.dataset, first.args)._resume()


def test_any_seed_makes_streams():
    seeds = {
        step_seed(seed, step, rank, part)
        for seed in (0, 1, 2**31, 2**63 + 5, 10**40, -7)
        for step in (0, 1, 500_000)
        for rank in (0, 4000)
        for part in (0, 8000)
    }
    assert len(seeds) == 6 * 3 * 2 * 2
    for seed in seeds:
        torch.manual_seed(seed)
    assert step_seed(3, 5, 1, 2) == ((3 * 1_000_003 + 5) * 4099 + 1) * 8209 + 2  # as ever


@pytest.mark.parametrize("every", [0, 4])
def test_losses_that_are_not_logged_take_no_room(clips, whole, tmp_path, every):
    """Means are made of sums, and stopping in between changes them by nothing."""
    single = [loss for _, loss in whole]
    trainer = pretrainer(clips, tmp_path / "some", log_every=every)
    trainer.on_step = lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 3 else None
    with pytest.raises(RunStopped):
        trainer.train()
    state = json.loads((tmp_path / "some" / "checkpoint-3" / "training_state.json").read_text())
    assert state["progress"]["counts"]["loss"] == 3
    pretrainer(clips, tmp_path / "some", log_every=every).train()
    parts = [(6, single)] if every == 0 else [(4, single[:4]), (6, single[4:])]
    found = losses(tmp_path / "some")
    assert [step for step, _ in found] == [step for step, _ in parts]
    assert [loss for _, loss in found] == pytest.approx([np.mean(part) for _, part in parts])


# --- fine-tuning ---


def finetune(sounds: Path, folder: Path, *callbacks: Any, **options: Any) -> VattTrainer:
    data = tones(sounds, several=False)
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "seed": 7, **options}
    args = arguments(folder, **options)
    return VattTrainer(classifier(data), args, train_dataset=data, callbacks=list(callbacks))


@pytest.fixture(scope="module")
def tuned(sounds, tmp_path_factory) -> dict[str, torch.Tensor]:
    """Weights after a run in which nothing happens."""
    trainer = finetune(sounds, tmp_path_factory.mktemp("tuned"))
    trainer.train()
    return weights(trainer.model)


def continue_to_the_same_weights(sounds: Path, folder: Path, expected: dict[str, torch.Tensor]) -> None:
    again = finetune(sounds, folder)
    again.train(resume_from_checkpoint=last_checkpoint(folder))
    for name, values in weights(again.model).items():
        assert torch.equal(values, expected[name]), name


def test_a_signal_stops_fine_tuning_after_a_checkpoint(sounds, tuned, tmp_path):
    stopped = finetune(sounds, tmp_path, At(3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    with pytest.raises(RunStopped, match=r"Stopped by SIGTERM\. Steps made: 3 of 6.*checkpoint-3 is whole"):
        stopped.train()
    continue_to_the_same_weights(sounds, tmp_path, tuned)
    record = read_run_record(tmp_path / "checkpoint-6")
    assert [start["step"] for start in record["history"]] == [0, 3]
    assert record["kind"] == "fine-tuning" and record["data"]["clips"] == 13 and record["data"]["fingerprint"]


class Signalling(LabelledDataset):
    """While the main process waits for the first clip of an epoch, SIGTERM is sent to all processes, as
    `timeout` does it (workers end if the main process itself sends it)."""

    epoch, killed = 0, False
    sent = False  # in this worker

    def __getitem__(self, item: Any) -> Any:
        if not self.sent and (0 if isinstance(item, int) else item[0]) == self.epoch:
            self.sent = True
            subprocess.run(["kill", "-TERM", str(os.getppid()), str(os.getpid())], check=True)
            if self.killed:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(item)


@pytest.mark.parametrize(
    ("where", "made"),
    [("first epoch", 1), ("second epoch", 5), ("killed at first", 0), ("killed", 4), ("evaluation", 3)],
)
def test_a_signal_to_all_processes_stops_fine_tuning_after_a_checkpoint(sounds, tuned, tmp_path, where, made):
    """Workers live on; where they are killed all the same, what has been learnt is saved."""
    data = tones(sounds, several=False)
    signalling = Signalling(data.clips, data.processor, "audio")
    signalling.epoch = 1 if where in ("second epoch", "killed") else 0
    signalling.killed = where.startswith("killed")
    options: dict[str, Any] = {"max_steps": 6, "save_strategy": "steps", "save_steps": 100, "seed": 7}
    options |= {"dataloader_num_workers": 1, "dataloader_prefetch_factor": 1}
    evaluates = where == "evaluation"  # after step 2
    if evaluates:
        options |= {"eval_strategy": "steps", "eval_steps": 2}
    trainer = VattTrainer(
        classifier(data),
        arguments(tmp_path, **options),
        train_dataset=data if evaluates else signalling,
        eval_dataset=signalling if evaluates else None,
    )
    with pytest.raises(RunStopped, match=rf"Stopped by SIGTERM\. Steps made: {made} of 6.*-{made} is whole"):
        trainer.train()
    assert not trainer.skipped
    continue_to_the_same_weights(sounds, tmp_path, tuned)


def test_workers_of_fine_tuning_end_only_for_the_main_process(sounds, tmp_path):
    data = tones(sounds, several=False)
    args = arguments(tmp_path, dataloader_num_workers=1, per_device_eval_batch_size=1)
    before = multiprocessing.active_children()
    batches = iter(VattTrainer(classifier(data), args, eval_dataset=data).get_eval_dataloader())
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - set(before)
    for name in ("TERM", "INT", "USR1"):
        subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
    for _ in range(6):  # more than lie ready
        next(batches)
    worker.terminate()
    worker.join(60)
    assert worker.exitcode == 0


def test_fine_tuning_keeps_the_last_checkpoint_of_a_full_disk(sounds, tmp_path):
    message = r"Cannot write to .*Make room.*checkpoint-2 is whole"
    with quota() as limit, pytest.raises(TrainingError, match=message):
        finetune(sounds, tmp_path, At(3, limit)).train()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    assert not list(tmp_path.glob("*.partial"))


def test_half_written_checkpoints_of_fine_tuning_have_no_name(sounds, tmp_path, monkeypatch):
    """Killed when all files are there but not yet known to be on the disk."""

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint_files, "flush", dies)
        finetune(sounds, tmp_path).train()
    assert (tmp_path / "saving.partial" / "checkpoint-2" / "trainer_state.json").is_file()
    assert last_checkpoint(tmp_path) is None
    finetune(sounds, tmp_path, save_total_limit=2).train()
    found = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert found == ["checkpoint-4", "checkpoint-6"]


def scored(
    sounds: Path, folder: Path, scores: Iterator[float], *callbacks: Any, **options: Any
) -> VattTrainer:
    """Eight steps, whose evaluations have these scores."""
    data = tones(sounds, several=False)
    return VattTrainer(
        classifier(data),
        arguments(folder, max_steps=8, greater_is_better=True, **options),
        train_dataset=data,
        eval_dataset=data,
        compute_metrics=lambda _: {"score": next(scores)},
        callbacks=list(callbacks),
    )


def test_the_best_checkpoint_is_known_by_its_place(sounds, tmp_path):
    """It is written elsewhere first, and kept with the newest."""
    scores = iter([0.2, 0.9, 0.1, 0.3])
    options = {**best_kept(2, "score"), "save_total_limit": 2}
    trainer = scored(sounds, tmp_path, scores, **options)
    trainer.train()
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-4")
    state = json.loads((tmp_path / "checkpoint-8" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(tmp_path / "checkpoint-4")
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-8"]
    again = scored(sounds, tmp_path, scores, **options)
    again.train(resume_from_checkpoint=last_checkpoint(tmp_path))  # finished: the best is loaded again
    best, last = (load_file(tmp_path / f"checkpoint-{step}" / "model.safetensors") for step in (4, 8))
    assert not torch.equal(best["classifier.weight"], last["classifier.weight"])
    for name, values in weights(again.model).items():
        assert torch.equal(values, best[name]), name


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_stopping_saves_also_where_only_the_best_is_saved(sounds, tmp_path, strategy):
    """Evaluated after every step, the second of which is worse, or after the epoch, in the middle of which
    the run is stopped: that is no reason to evaluate."""
    options = {"save_strategy": "best", "eval_strategy": strategy, "eval_steps": 1}
    stop = At(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    trainer = scored(sounds, tmp_path, iter([0.9, 0.1]), stop, metric_for_best_model="score", **options)
    with pytest.raises(RunStopped, match=r"Steps made: 2 of 8.*checkpoint-2 is whole"):
        trainer.train()
    state = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    best = str(tmp_path / "checkpoint-1") if strategy == "steps" else None
    assert state["best_model_checkpoint"] == best
    evaluated = [entry["step"] for entry in trainer.state.log_history if "eval_score" in entry]
    assert evaluated == ([1, 2] if strategy == "steps" else [])


@pytest.mark.parametrize("limit", [0.75, 0.0])
def test_nan_ends_fine_tuning_before_the_update(sounds, tmp_path, limit):
    """transformers would go on, and leave it out of the mean loss."""
    trainer = finetune(sounds, tmp_path, max_grad_norm=limit, gradient_accumulation_steps=2)

    def spoil() -> None:
        trainer.model.classifier.weight.register_hook(lambda grad: torch.full_like(grad, float("nan")))

    trainer.add_callback(At(3, spoil))
    with pytest.raises(
        NonFiniteLossError, match=r"Step 4: .* is not finite\. No update.*checkpoint-2 is whole"
    ):
        trainer.train()
    assert all(values.isfinite().all() for values in weights(trainer.model).values())
    # The fourth update is the second of the second epoch: clips 8 to 12 of its order.
    order = np.random.default_rng((7, 1)).permutation(13)[8:]
    shown = json.loads((tmp_path / "non_finite_step_4.json").read_text())["clips"]
    assert [Path(name).name for name in shown] == [f"{index}.wav" for index in order]


def test_fine_tuning_without_memory_gives_advice(sounds, tmp_path):
    trainer = finetune(sounds, tmp_path)
    trainer.model.register_forward_pre_hook(lambda *_: torch.empty(2**55))
    with pytest.raises(TrainingError, match=r"Out of memory .*--per_device_train_batch_size, now 4"):
        trainer.train()
