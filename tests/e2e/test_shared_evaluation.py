# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a classifier by two processes: the numbers, and what could not be read, are those of one."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clip_folders import RATE, small_processor, write_rows
from media_factory import tone, write_media
from processes import FORKS, ranks
from training_runs import arguments, classifier

from modeling_vatt.data import LabelledDataset, load_labelled
from modeling_vatt.evaluation import classification_metrics
from modeling_vatt.training import VattTrainer


pytestmark = pytest.mark.slow  # starts processes of its own
BROKEN = (2, 4, 5)  # half a batch, and a whole one


def evaluate(folder: Path, cache: str, several: bool) -> dict[str, Any]:
    """Of 7 clips in batches of 2, so that those of two processes are filled up."""
    table = load_labelled(folder, "train", "audio", "tags" if several else None, cache_dir=cache)
    data = LabelledDataset(table, small_processor(), "audio")
    args = arguments(
        folder / f"out-{os.environ.get('RANK', 'one')}",
        per_device_eval_batch_size=2,
        dataloader_drop_last=True,  # of training only
    )
    trainer = VattTrainer(
        classifier(data, label_balancing=several),
        args,
        eval_dataset=data,
        compute_metrics=classification_metrics,
    )
    found = trainer.predict(data, metric_key_prefix="eval")
    metrics = {
        name: value for name, value in found.metrics.items() if "_per_" not in name and "time" not in name
    }
    bare = VattTrainer(trainer.model, args, eval_dataset=data).evaluate()["eval_loss"]
    skipped = sorted(Path(name).name for name in trainer.skipped)
    return {"metrics": metrics, "logits": found.predictions.tolist(), "skipped": skipped, "bare": bare}


def worker(rank: int, folder: Path, environment: dict[str, str]) -> None:
    os.environ |= {**environment, "ACCELERATE_USE_CPU": "1"}
    torch.set_num_threads(1)
    found = [evaluate(folder, str(folder / f"cache{rank}"), several) for several in (False, True)]
    (folder / f"found{rank}.json").write_text(json.dumps(found))


def test_two_processes_find_what_one_finds(tmp_path):
    """A padded last batch counts once; a whole batch of a process that cannot be read is no reason to end."""
    (tmp_path / "train").mkdir()
    rows = []
    for number in range(7):
        file = tmp_path / "train" / f"{number}.wav"
        sound = tone(0.3, RATE, 200.0 + 150 * number)
        write_media(file, waveform=sound, sampling_rate=RATE, audio_codec="pcm_s16le")
        if number in BROKEN:
            file.write_bytes(b"broken")
        tags = [["low"], ["high"], ["low", "high"]][number % 3]
        rows.append({"file_name": file.name, "label": "abc"[number % 3], "tags": tags})
    write_rows(tmp_path / "train", rows)
    processes = [FORKS.Process(target=worker, args=(n, tmp_path, rank)) for n, rank in enumerate(ranks(2))]
    for process in processes:
        process.start()
    one = [evaluate(tmp_path, str(tmp_path / "cache"), several) for several in (False, True)]
    try:
        for process in processes:
            process.join(150)
            assert process.exitcode == 0
    finally:
        for process in processes:
            process.kill()
    labels = [number % 3 for number in range(7) if number not in BROKEN]
    logits = np.array(one[0]["logits"], dtype=np.float64)
    shares = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -shares[np.arange(len(labels)), labels].mean()
    assert one[0]["metrics"]["eval_loss"] == pytest.approx(expected, rel=1e-5) == one[0]["bare"]
    for rank in range(2):
        for found, alone in zip(json.loads((tmp_path / f"found{rank}.json").read_text()), one, strict=True):
            assert found["skipped"] == alone["skipped"] == ["2.wav", "4.wav", "5.wav"]
            np.testing.assert_allclose(found["logits"], alone["logits"], rtol=1e-4, atol=1e-6)
            assert found["metrics"] == pytest.approx(alone["metrics"], rel=1e-5)
            assert found["bare"] == pytest.approx(alone["bare"], rel=1e-5)
