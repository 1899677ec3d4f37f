# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""An index under a folder that changes all the time, with several processes at it.

    python benchmarks/changing_files.py [--minutes 10] [--files 24] [--keep FOLDER]

Two processes bring the index up to date again and again, a third one watches the folder, and `vatt serve`
shows the page. Meanwhile files appear, are copied, renamed, touched, replaced and deleted, and the page and
this process are searched. Ends with an error if a search misses a file that was in the index before and after
it, if any content is embedded twice, if the index is not that of the folder in the end, or if the memory of a
process grows. Prints what was done, and the memory of each process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import torch
from transformers.utils import logging as transformers_logging

from modeling_vatt import VattForPreTraining
from modeling_vatt.files import hash_file
from modeling_vatt.retrieval import VattIndex, VideoSearch


sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from clip_folders import small_processor
from media_factory import write_media
from small_models import seeded, small_config


QUERIES = ("clip 1", "a grey tone", "number")
MOST = 200  # results of a search: more than there are files
GROWTH, GROWTH_MB = 0.1, 20.0  # from the second to the last quarter, of a process


def write_video(path: Path, number: int, outside: Path) -> None:
    """A second or two of noise that no other number has; it appears at once, from a folder outside."""
    generator = np.random.default_rng(number)
    frames = [generator.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(10 + number % 15)]
    partial = outside / f"{number}.mp4"
    write_media(partial, frames=frames, fps=10)
    os.replace(partial, path)


def keep_current(folder: Path, role: str) -> None:
    """Bring the index up to date until the file `stop` is there, and note the content of what is embedded."""
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    search = VideoSearch.open(folder / "index")
    add = VattIndex.add

    def noted(self: VattIndex, file, *rest) -> None:
        with (folder / "embedded.txt").open("a") as log:
            log.write(f"{file.hash} {role} {file.path}\n")
        add(self, file, *rest)

    VattIndex.add = noted
    if role == "watch":
        for _ in search.watch():
            if (folder / "stop").exists():
                return
    while not (folder / "stop").exists():
        search.update()
        time.sleep(random.uniform(0.2, 2.0))


def changes(videos: Path, files: int) -> list[str]:
    """Change one to three files at random, about so many of which there are to be; what was done."""
    done = []
    for _ in range(random.randint(1, 3)):
        there = sorted(path for path in videos.rglob("*.mp4"))
        new = videos / random.choice(("", "a", "b/c", "d")) / f"{time.time_ns()}.mp4"
        new.parent.mkdir(parents=True, exist_ok=True)
        old = random.choice(there) if there else None
        kinds = ["new"] if old is None or len(there) < files / 2 else ["copy", "rename", "touch", "replace"]
        kinds += ["delete"] if len(there) > files else ["new"]
        kind = random.choice(kinds)
        if kind == "new":
            write_video(new, time.time_ns(), videos.parent)
        elif kind == "copy":
            partial = videos.parent / new.name
            shutil.copyfile(old, partial)
            os.replace(partial, new)
        elif kind == "rename":
            old.rename(new)
        elif kind == "touch":
            os.utime(old)
        elif kind == "replace":
            write_video(old, time.time_ns(), videos.parent)
        else:
            old.unlink()
        done.append(kind)
    return done


def found_by_page(address: str, query: str) -> set[str]:
    """Files that the page finds, with their copies."""
    url = f"{address}/api/search?top_k={MOST}&per_file=1&q={urllib.request.quote(query)}"
    with urllib.request.urlopen(url, timeout=120) as answer:
        moments = json.load(answer)["moments"]
    return {path for moment in moments for path in (moment["path"], *moment["copies"])}


def found_here(search: VideoSearch, query: str) -> set[str]:
    """The same by this process."""
    moments = search.text(query, top_k=MOST, per_file=1, distinct=True)
    return {path for moment in moments for path in (moment.path, *moment.copies)}


def indexed(search: VideoSearch) -> set[str]:
    """Files with moments."""
    return {file["path"] for file in search.index.files() if file["windows"]}


def run(folder: Path, minutes: float, files: int) -> None:
    """The whole run, in an empty folder."""
    videos, model = folder / "videos", folder / "model"
    videos.mkdir(parents=True)
    config = small_config()
    seeded(VattForPreTraining, config).save_pretrained(model)
    small_processor(config).save_pretrained(model)
    for number in range(files):
        write_video(videos / f"{number}.mp4", number, folder)
    search = VideoSearch.create(videos, model, folder / "index")
    role = [sys.executable, __file__, "--keep", folder, "--role"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    serve = [sys.executable, "-m", "modeling_vatt.cli", "serve", folder / "index", "--port", "0"]
    commands = {
        "first": [*role, "first"],
        "second": [*role, "second"],
        "watch": [*role, "watch"],
        "page": serve,
    }
    log = (folder / "page.txt").open("w+")
    processes = {
        name: psutil.Popen(command, env=environment, stdout=log if name == "page" else None)
        for name, command in commands.items()
    }
    watched = {**processes, "this one": psutil.Process()}
    memory: dict[str, list[float]] = {name: [] for name in watched}
    counts: Counter[str] = Counter()
    times: dict[str, list[float]] = {"page": [], "here": []}
    try:
        while not (page := re.search(r"http://[\w.:]+", (folder / "page.txt").read_text())):
            assert processes["page"].poll() is None, "the page did not start"
            time.sleep(0.1)
        finders = {
            "page": lambda query: found_by_page(page[0], query),
            "here": lambda query: found_here(search, query),
        }
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            counts.update(changes(videos, files))
            for name, find in finders.items():
                before, began = indexed(search), time.perf_counter()
                found = find(random.choice(QUERIES))
                times[name].append(time.perf_counter() - began)
                missed = (before & indexed(search)) - found
                assert not missed, f"{name}: missed {sorted(missed)}"
                counts["searches"] += 1
            if random.random() < 0.05:  # nothing is being renamed: what is gone is gone
                counts["removed"] += search.update(prune=True).removed
            for name, process in watched.items():
                assert process.is_running() and process.status() != psutil.STATUS_ZOMBIE, f"{name} has ended"
                memory[name].append(process.memory_info().rss / 1e6)
            time.sleep(random.uniform(0, 0.5))
        (folder / "stop").touch()
        write_video(videos / "last.mp4", time.time_ns(), folder)  # wakes the watcher
        for name in ("first", "second", "watch"):
            assert processes[name].wait(300) == 0, f"{name} ended with an error"
    finally:
        for process in processes.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    report(folder, search, counts, times, memory)


def report(
    folder: Path,
    search: VideoSearch,
    counts: Counter[str],
    times: dict[str, list[float]],
    memory: dict[str, list[float]],
) -> None:
    """Print the figures, and hold the end of the run against the folder."""
    embedded = [line.split() for line in (folder / "embedded.txt").read_text().splitlines()]
    print(", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    print(f"embedded: {len(embedded)} files, {dict(Counter(role for _, role, _ in embedded))}")
    for name, values in times.items():
        middle, most = np.median(values), max(values)
        print(f"searched by {name}: {len(values)} times, {middle:.3f} s in the middle, {most:.3f} s at most")
    print("\n| process | MB in the second quarter | in the last | growth |\n| --- | --- | --- | --- |")
    growing = []
    for name, values in memory.items():
        quarter = max(1, len(values) // 4)
        early, late = np.mean(values[quarter : 2 * quarter]), np.mean(values[-quarter:])
        print(f"| {name} | {early:.1f} | {late:.1f} | {late - early:+.1f} |")
        if late > early * (1 + GROWTH) + GROWTH_MB:
            growing.append(name)
    twice = [content for content, count in Counter(row[0] for row in embedded).items() if count > 1]
    assert not twice, f"embedded twice: {[row for row in embedded if row[0] in twice]}"
    assert not growing, f"the memory of {growing} grows"
    last = search.update(prune=True)
    assert not last.errors, last.errors
    there = {
        path.relative_to(folder / "videos").as_posix(): path for path in search.index.root.rglob("*.mp4")
    }
    records = {file.path: file.hash for file, _ in search.index.store.files()}
    assert records == {path: hash_file(file) for path, file in there.items()}
    fresh = VideoSearch.create(folder / "videos", folder / "model", folder / "fresh")
    fresh.update()
    rows = [
        {(m.path, m.start): vector for m, vector in zip(*index.vectors("va"), strict=True)}
        for index in (search.index, fresh.index)
    ]
    assert rows[0].keys() == rows[1].keys()
    difference = max(float(np.abs(rows[0][key] - rows[1][key]).max()) for key in rows[0])
    assert difference < 1e-4, difference
    print(f"\nThe index is that of its {len(there)} files; largest difference of a value: {difference:.1g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="of changes")
    parser.add_argument("--files", type=int, default=24, help="about so many are there at a time")
    parser.add_argument("--keep", type=Path, help="folder for everything, new")
    parser.add_argument("--role", choices=("first", "second", "watch"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    if arguments.role is not None:
        keep_current(arguments.keep, arguments.role)
        return
    with tempfile.TemporaryDirectory() as temporary:
        run(arguments.keep or Path(temporary) / "run", arguments.minutes, arguments.files)


if __name__ == "__main__":
    main()
