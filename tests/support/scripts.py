# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The scripts of `examples/`, in this process or in others, and settings that make them short."""

import importlib
import json
import os
import sys
from pathlib import Path
from unittest.mock import patch

import processes


EXAMPLES = Path(__file__).parents[2] / "examples"
with patch.object(sys, "path", [str(EXAMPLES), *sys.path]):
    flags = importlib.import_module("common").as_flags

TINY_TOWER = {
    "num_hidden_layers": 1,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "head_dim": 16,
    "intermediate_size": 32,
}
PRETRAINING = {
    "preset": "ma_tiny",
    "config_overrides": json.dumps(
        {
            "video_config": {**TINY_TOWER, "num_frames": 8, "image_size": 32},
            "audio_config": {**TINY_TOWER, "num_samples": 12800},
            "text_config": TINY_TOWER,
        }
    ),
    "num_steps": 6,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "warmup_steps": 2,
    "log_every": 1,
    "eval_every": 3,
    "save_every": 1,
    "report_to": "none",
}
CLASSIFICATION = {
    "max_steps": 4,
    "per_device_train_batch_size": 2,
    "learning_rate": 1e-2,
    "logging_steps": 1,
    "save_steps": 1,
    "use_cpu": True,
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}


def call(script: str, **options: object) -> None:
    """The script in this process."""
    path, words = [str(EXAMPLES), *sys.path], [script, *flags(**options)]
    with patch.object(sys, "path", path), patch.object(sys, "argv", words):
        importlib.import_module(script).main()


def start(script: str, cwd: Path, more: dict[str, str] | None = None, **options: object) -> processes.Program:
    """The script begun, with more variables in its environment."""
    words = [str(EXAMPLES / script), *flags(**options)]
    return processes.Program(*words, cwd=cwd, env={**os.environ, **(more or {})}, merged=True)


def run(script: str, cwd: Path, expect: int = 0, count: int = 1, **options: object) -> str:
    """What the script, or `count` processes of it that work together, printed."""
    cpu = {"ACCELERATE_USE_CPU": os.environ.get("ACCELERATE_USE_CPU", "1")}
    environments = [{**rank, **cpu} for rank in processes.ranks(count)] if count > 1 else [{}]
    programs = [start(script, cwd, environment, **options) for environment in environments]
    outputs = [program.communicate(timeout=300)[0] for program in programs]
    assert [program.returncode for program in programs] == [expect] * count, outputs
    return "\n".join(outputs)
