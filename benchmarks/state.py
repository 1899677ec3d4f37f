# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmarks whose figures stand in the table at the top of README.md, and writes them there.

    python benchmarks/state.py                       # all rows that need no GPU; hours
    python benchmarks/state.py --rows start demo     # those whose name begins so
    python benchmarks/state.py --list

A row that is not run keeps its figure and date. One whose benchmark fails keeps them too, and is named.
"""

import argparse
import datetime
import os
import platform
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path


HERE = Path(__file__).resolve().parent
README = HERE / "README.md"
HEAD = "| what | figure | against | machine, date | command |\n| --- | --- | --- | --- | --- |\n"
NUMBER = r"([\d.]+)"


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        what, against: its first and third cell.
        command: script in this folder, and arguments.
        pattern: regular expression that finds the figures in what the command prints.
        figure: the second cell, with `{}` for each figure.
    """

    what: str
    against: str
    command: str
    pattern: str
    figure: str = "{}"


ROWS = (
    Row(
        "start: `vatt --help`",
        "5.4 s before",
        "bench_startup.py",
        rf"`vatt --help` \| {NUMBER} s",
        "{} s of processor time",
    ),
    Row(
        "start: `vatt search WORDS`, before torch",
        "4.4 s before",
        "bench_startup.py",
        rf"`vatt search WORDS`, before torch and transformers \| {NUMBER} s",
        "{} s of processor time",
    ),
    Row(
        "Base video, step, float32",
        "VideoMAE of equal shape",
        "bench_model.py --sections base --dropouts 0",
        rf"step, dropout 0.0 \| ours \| \d+ \| {NUMBER}",
    ),
    Row(
        "Base audio, step, float32",
        "ViT of equal shape",
        "bench_model.py --sections audio --dropouts 0",
        rf"step, dropout 0.0 \| ours \| \d+ \| {NUMBER}",
    ),
    Row(
        "DropToken, half of the tokens",
        "all tokens",
        "bench_model.py --sections droptoken",
        rf"50% kept \| \d+ \| {NUMBER}",
    ),
    Row(
        "contrastive loss, 8192 clips, 5 captions",
        "plain",
        "bench_loss.py --clips 8192",
        rf"5x256 \| \S+ s \| \S+ s \| {NUMBER} \| {NUMBER} GB \| {NUMBER} GB",
        "{} of the time; {} instead of {} GB",
    ),
    Row(
        "gradients in two parts",
        "whole batch",
        "bench_training.py --batch_size 64 --micro_batch_sizes 0 32 --recompute --processes 1",
        rf"\| 1 \| 32 \| no \| \S+ \| {NUMBER}",
    ),
    Row(
        "demo, a step on one thread",
        "its model's forward and backward pass",
        "bench_training.py --demo",
        rf'"model": {NUMBER}[^}}]*"whole step": {NUMBER},\s+"whole step / model": {NUMBER}',
        "{2} ({1} and {0} ms of processor time)",
    ),
    Row(
        "decoding a window anywhere, 360p, CPU",
        "ms of torchcodec, exact",
        "bench_decoders.py",
        r"480 x 360 \| 256 \| anywhere \| (\d+) \(\d+\) \| (\d+)",
        "{} and {} ms",
    ),
    Row(
        "loader, two workers",
        "clips of bare decoding",
        "bench_loader.py --clips 64 --workers 2 --long 160",
        rf"\| 2 \| \S+ \| \S+ \({NUMBER}\)",
    ),
    *(
        Row(
            f"index of {name}, building",
            "faiss, of 512 and of 256 values",
            f"bench_index.py --moments {moments} --engines ours faiss --threads 1",
            r"(?s)ours \| 512 \| \S+ \| (\S+).*faiss \| 512 \| \S+ \| (\S+).*faiss \| 256 \| \S+ \| (\S+)",
            "{} against {} and {} s of processor time",
        )
        for name, moments in (("100,000", 100_000), ("a million", 1_000_000))
    ),
    Row(
        "conversion, memory",
        "size of the checkpoint",
        "bench_convert.py --work convert",
        rf'"peak_over_model": {NUMBER}',
    ),
    Row(
        "ten minutes of changing files",
        "",
        "changing_files.py --minutes 10",
        r"(?s)searched by [^:]+: (\d+) times.*searched by [^:]+: (\d+) times",
        "0 of {} and {} searches missed a file",
    ),
)


def machine() -> str:
    """Its processor, by which figures are compared."""
    known = {}
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        known = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    name = known.get("model name", platform.processor() or platform.machine())
    return f"{name} ({known.get('cpu family', '')}/{known.get('model', '')}), {os.cpu_count()} cores"


@cache
def output(command: str) -> str:
    """What a benchmark prints; it runs in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, HERE / command.split()[0], *command.split()[1:]]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"it ends with {done.returncode}: {done.stderr.strip()[-400:]}")
    return done.stdout


def line(row: Row) -> str:
    """The row, measured now.

    Raises:
        RuntimeError: the benchmark fails, or prints no such figure.
    """
    found = re.search(row.pattern, output(row.command))
    if found is None:
        raise RuntimeError(f"it prints nothing like {row.pattern}: {output(row.command)[-400:]}")
    place = f"{machine()}, {datetime.date.today()}"
    return cells(row.what, row.figure.format(*found.groups()), row.against, place, f"`{row.command}`")


def cells(*values: str) -> str:
    return "| " + " | ".join(values) + " |"


def write(row: Row, new: str) -> None:
    """Put a line into the table in place of the one it is of, or at its end."""
    text = README.read_text()
    before, head, rest = text.partition(HEAD)
    table, blank, after = rest.partition("\n\n")
    lines = table.splitlines()
    of_row = [number for number, old in enumerate(lines) if old.startswith(f"| {row.what} |")]
    if of_row:
        lines[of_row[0]] = new
    else:
        lines.append(new)
    README.write_text(before + head + "\n".join(lines) + blank + after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", nargs="+", default=[""], help="how the names of rows begin; all if left out"
    )
    parser.add_argument("--list", action="store_true", help="print the rows and their commands")
    args = parser.parse_args()
    chosen = [row for row in ROWS if row.what.startswith(tuple(args.rows))]
    failed = []
    for row in chosen:
        if args.list:
            print(f"{row.what}: {row.command}")
            continue
        try:
            new = line(row)
        except RuntimeError as error:
            failed.append(row.what)
            print(f"{row.what}: {error}", file=sys.stderr, flush=True)
        else:
            write(row, new)
            print(new, flush=True)
    if failed or not chosen:
        sys.exit(f"Not measured: {', '.join(failed) or 'there is no such row'}.")


if __name__ == "__main__":
    main()
