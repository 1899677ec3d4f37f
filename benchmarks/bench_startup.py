# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""How soon `vatt` answers what needs no model, and how soon the package is imported.

    python benchmarks/bench_startup.py [--runs 9]

Prints the median processor time, user and system, of whole processes. Ends with code 1 if one of the
commands that need no model takes more than `GOAL` seconds or loads torch or transformers.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile


GOAL = 0.4
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


def seconds(arguments: list[str], runs: int) -> tuple[float, int]:
    """Median processor time of a process, and its last exit code."""
    times = []
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        code = subprocess.run([sys.executable, "-c", *arguments], capture_output=True).returncode
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return statistics.median(times), code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name, arguments in QUICK.items():
            taken, code = seconds([COMMAND, *arguments], runs)
            failed |= code != 0 or taken > GOAL
            print(
                f"| `{name}` | {taken:.2f} s |" + (" loads torch or transformers" if code else ""), flush=True
            )
        for name, line in LARGE.items():
            print(f"| `{name}` | {seconds([line], runs)[0]:.2f} s |", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
