# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The scripts of `examples/` in processes of their own, and settings that make them short."""

import json
import os
import subprocess
import sys
from pathlib import Path


EXAMPLES = Path(__file__).parents[2] / "examples"

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


def start(script: str, cwd: Path, processes: int = 1, **options: object) -> subprocess.Popen:
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += [str(EXAMPLES / script)]
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        command += [f"--{name}", *map(str, values)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(cwd / "cache")}
    if processes > 1:
        environment.setdefault("ACCELERATE_USE_CPU", "1")
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(script: str, cwd: Path, expect: int = 0, processes: int = 1, **options: object) -> str:
    process = start(script, cwd, processes, **options)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == expect, output
    return output
