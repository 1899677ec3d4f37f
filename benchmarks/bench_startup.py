# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""How soon `vatt` answers what needs no model, and how soon the package is imported.

    python benchmarks/bench_startup.py [--runs 9]

Prints the least processor time, user and system, of whole processes: other work on the machine only adds to
it. What is over its limit is run up to four times as often. Ends with code 1 if one of the commands that need
no model takes more than `GOAL` seconds or loads torch or transformers, or if a search takes more than
`SEARCH_GOAL` before it loads those two for its model.
"""

import argparse
import math
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from modeling_vatt import VattConfig, VattForPreTraining
from modeling_vatt.processors import VattProcessor, VattTokenizer
from modeling_vatt.retrieval import FileRecord, VattIndex, VideoSearch


GOAL, SEARCH_GOAL = 0.4, 1.5
QUICK = {  # needs neither torch nor transformers
    "vatt --help": ["--help"],
    "vatt --version": ["--version"],
    "vatt search --help": ["search", "--help"],
    "vatt search --no-such-option": ["search", "--no-such-option"],
    "vatt search without a query": ["search"],
    "vatt search where no index is": ["search", "a dog", "--index", "missing"],
    "vatt index of no folder": ["index", "missing", "--model", "missing"],
    "vatt index with wrong limits": ["index", ".", "--model", ".", "--media-limits", "{"],
    "vatt embed of no file": ["embed", "missing.mp4", "--model", "."],
    "vatt info of nothing": ["info", "missing.mp4"],
    "vatt convert of no file": ["convert", "missing", "--output", "model"],
    "vatt serve of no index": ["serve", "missing"],
}
LARGE = {
    "import torch": "import torch",
    "import torch, transformers.modeling_utils": "import torch, transformers.modeling_utils",
    "import modeling_vatt": "import modeling_vatt",
    "from modeling_vatt import VattConfig": "from modeling_vatt import VattConfig",
    "from modeling_vatt import VattModel": "from modeling_vatt import VattModel",
}
COMMAND = """
import sys
from modeling_vatt.cli import main
try:
    main(sys.argv[1:])
finally:
    sys.exit(99 if {"torch", "transformers"} & set(sys.modules) else 0)
"""


# Ends where torch or transformers would be loaded.
BEGINNING = """
import os, sys
class End:
    def find_spec(name, path=None, target=None):
        if name in ("torch", "transformers"):
            os._exit(0)
sys.meta_path.insert(0, End)
from modeling_vatt.cli import main
try:
    main(sys.argv[1:])
finally:
    sys.exit(1)
"""
SEARCHES = {  # in the index of `make_index`
    "`vatt search WORDS`, before torch and transformers": (BEGINNING, ["search", "clip 1"]),
    "`vatt search --like` a moment of the index, whole": (COMMAND, ["search", "--like", "a.mp4@1"]),
}


def make_index(folder: Path, **sizes: int) -> VattIndex:
    """A small model with fields of its config, and an index of it, still empty."""
    config = VattConfig.from_preset("tiny", **sizes)
    VattForPreTraining(config).save_pretrained(folder / "model")
    tokenizer = VattTokenizer.train_from_iterator(["clip 1"], 40)
    VattProcessor.from_config(config, tokenizer).save_pretrained(folder / "model")
    return VideoSearch.create(folder, folder / "model").index


def fill(index: VattIndex) -> None:
    """A file whose embeddings are random."""
    generator = np.random.default_rng(0)
    va, vt = (generator.standard_normal((50, index.dims[space])) for space in ("va", "vt"))
    index.add(FileRecord("a.mp4", 1, 1, "0", 50.0), range(50), range(1, 51), va, vt)
    index.close()


def seconds(arguments: list[str], runs: int, goal: float = math.inf) -> tuple[float, int]:
    """Least processor time of a process, and its last exit code; of up to four times as many runs until one
    takes no more than `goal`."""
    times: list[float] = []
    while len(times) < runs or (min(times) > goal and len(times) < 4 * runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        code = subprocess.run([sys.executable, "-c", *arguments], capture_output=True).returncode
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return min(times), code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name, arguments in QUICK.items():
            taken, code = seconds([COMMAND, *arguments], runs, GOAL)
            failed |= code != 0 or taken > GOAL
            print(
                f"| `{name}` | {taken:.2f} s |" + (" loads torch or transformers" if code else ""), flush=True
            )
        Path("a.mp4").touch()
        fill(make_index(Path(folder)))
        for name, (program, arguments) in SEARCHES.items():
            taken, code = seconds([program, *arguments], runs, SEARCH_GOAL)
            failed |= code != 0 or taken > SEARCH_GOAL
            print(f"| {name} | {taken:.2f} s |", flush=True)
        for name, line in LARGE.items():
            print(f"| `{name}` | {seconds([line], runs)[0]:.2f} s |", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
