# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Python programs in processes of their own that need not import torch, which takes longer than most of them.

They are forked from a server of `multiprocessing` that has imported torch and its like once, but nothing of
ours, and nothing that reads environment variables on import (transformers, datasets, huggingface_hub).
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any


TESTS = Path(__file__).parents[1]
PRELOADED = [
    *("numpy", "pandas", "pyarrow.dataset", "scipy.stats", "sklearn.metrics", "sympy", "PIL.Image"),
    *("av", "soxr", "safetensors.torch", "sentencepiece", "tokenizers", "torch", "torch._dynamo"),
    *("torch._inductor.compile_fx", "torch.distributed.tensor", "torch.distributed.fsdp"),
    *("torch.nn.attention.flex_attention", "torchao.quantization"),
]
FORKS = multiprocessing.get_context("forkserver")  # also for processes that run a function of a test
FORKS.set_forkserver_preload(PRELOADED)


def _program(words: list[str], cwd: str, environment: dict[str, str], outputs: tuple[str, str]) -> None:
    """In the new process: what `python` does with these words."""
    for number, file in enumerate(outputs, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), number)
    multiprocessing.set_start_method(None, force=True)  # as in every other process
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    import torch

    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", 1)))
    first = str(Path(words[0]).parent) if words[0][0] != "-" else ""
    ours = (str(TESTS), str(TESTS.parent / "examples"))
    installed = [path for path in sys.path if Path(path) != TESTS.parent and not path.startswith(ours)]
    sys.path[:] = [first, *filter(None, environment.get("PYTHONPATH", "").split(":")), *installed]
    try:
        if words[0] == "-c":
            sys.argv = ["-c", *words[2:]]
            sys.modules["__main__"] = module = ModuleType("__main__")
            exec(compile(words[1], "<string>", "exec"), vars(module))
        elif words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()


class Program:
    """`python *words`, begun: of `subprocess.Popen` what tests need. `merged`: errors among the output."""

    def __init__(
        self, *words: object, cwd: Any = None, env: Mapping[str, str] | None = None, merged: bool = False
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._files = [Path(self._folder.name, name) for name in ("out", "out" if merged else "err")]
        for file in self._files:
            file.touch()
        arguments = ([str(word) for word in words], str(cwd or Path.cwd()), dict(env or os.environ))
        self._process = FORKS.Process(target=_program, args=(*arguments, tuple(map(str, self._files))))
        self._process.start()
        self.kill = self._process.kill

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)  # type: ignore[arg-type]

    def wait_for(self, text: str, timeout: float = 200) -> None:
        """Return when the program has said this."""
        deadline = time.monotonic() + timeout
        while not any(text in file.read_text() for file in self._files):
            assert self.poll() is None and time.monotonic() < deadline, self.communicate(1)
            time.sleep(0.02)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Output and errors, when it has ended; if it does not, it is killed and that is an error."""
        self._process.join(timeout)
        texts = [file.read_text() for file in self._files]
        if self.returncode is None:
            self.kill()
            raise subprocess.TimeoutExpired("python", timeout or 0, *texts)
        return texts[0], texts[1]


def ranks(count: int) -> list[dict[str, str]]:
    """What a launcher such as `accelerate launch` puts into the environment of each process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def run(
    *words: object, cwd: Any = None, env: Mapping[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """`python *words`, ended."""
    program = Program(*words, cwd=cwd, env=env)
    output, errors = program.communicate(timeout)
    return subprocess.CompletedProcess(["python", *words], program.returncode or 0, output, errors)
