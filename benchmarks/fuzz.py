# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Fuzzing: thousands of damaged files, each of which must be used or refused as promised.

    python benchmarks/fuzz.py --kind media --count 10000 --seed 0 --output fuzz_media.json

A file may be used (with results of the promised form) or refused with the one exception of its kind
(`MediaError`, `ConversionError`, `ShardError`, ValueError with a reason). Anything else is an offender and
kept under `--offenders`: another exception, a crash of the process, a call that does not end, memory beyond
the limit, an intact file that is refused ("loss"). The numbers go to stdout and `--output` as JSON. Case k of
a seed is the same on every machine: `--first k --count 1` makes it again.
"""

import argparse
import collections
import importlib
import json
import os
import platform
import queue
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
from pathlib import Path
from typing import Any


ROOT = Path(__file__).resolve().parents[1]
KINDS = ("media", "checkpoints", "shards", "index", "captions", "vocabularies")
# Address space a process may take beyond what it has when it begins.
MEMORY = {"media": 1 << 30, **dict.fromkeys(KINDS[1:], 4 << 30)}
SLACK = 20.0  # seconds for a case of any kind; the limit of media is 5 s in itself


def load(kind: str, folder: Path, isolated: bool) -> Any:
    """The samples and checks of a kind."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    if kind == "media":
        # processors/media by itself: without torch a process starts in a moment and needs little memory.
        package = types.ModuleType("modeling_vatt_media")
        package.__path__ = [str(ROOT / "processors" / "media")]
        sys.modules["modeling_vatt_media"] = package
        return importlib.import_module("fuzz_media").MediaFuzz(folder / "samples_media", isolated)
    sys.path.insert(0, str(ROOT))
    return importlib.import_module("fuzz_files").FUZZERS[kind](folder / f"samples_{kind}")


def limit_memory(size: int) -> None:
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + size
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def save(mutant: Any, folder: Path, name: str) -> None:
    """The files of a mutant."""
    parts = mutant if isinstance(mutant, dict) else {name: mutant}
    for part, content in parts.items():
        path = folder / part
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def serve(args: argparse.Namespace) -> None:
    """Do the cases whose numbers come on stdin; a line of JSON for each."""
    import numpy as np

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    folder = Path(args.work)
    fuzz = load(args.kind, folder, args.isolated)
    if args.kind in MEMORY:
        limit_memory(MEMORY[args.kind])
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        number = int(line)
        rng = np.random.default_rng((args.seed, number))
        name, content, done = fuzz.mutant(rng)
        case = {"case": number, "name": name, "mutation": done}
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            began = time.monotonic()
            try:
                result = fuzz.check(name, content, done, rng, Path(scratch))
                if done == "intact" and result.startswith("refused"):
                    case["loss"] = result
            except BaseException as error:
                result = f"{type(error).__name__}: {str(error)[:200]}"
                case["trace"] = traceback.format_exc()[-3000:]
            case |= {"result": result, "seconds": time.monotonic() - began}
        if "trace" in case or "loss" in case:
            save(content, Path(args.offenders) / f"{args.kind}-{args.seed}-{number}", name)
        print(json.dumps(case), file=answers)


class Worker:
    """A process that does cases, and the thread that watches it."""

    def __init__(self, args: argparse.Namespace, numbers: "queue.Queue[int]", results: list[dict]) -> None:
        self.args, self.numbers, self.results = args, numbers, results
        self.process: subprocess.Popen | None = None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def start(self) -> None:
        command = [sys.executable, __file__, "--serve", "--work", self.args.work, *sys.argv[1:]]
        command += ["--offenders", self.args.offenders]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            stderr=subprocess.DEVNULL if self.args.quiet else None,
        )
        if not self.process.stdout.readline():
            raise RuntimeError("a worker does not start")

    def run(self) -> None:
        while True:
            try:
                number = self.numbers.get_nowait()
            except queue.Empty:
                break
            if self.process is None:
                self.start()
            late = threading.Event()
            process = self.process

            def stop(process: Any = process, late: Any = late) -> None:
                late.set()
                process.kill()

            watch = threading.Timer(SLACK, stop)
            watch.start()
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
            line = process.stdout.readline()
            watch.cancel()
            if line:
                self.results.append(json.loads(line))
                continue
            code = process.wait()
            self.results.append({"case": number, "hang" if late.is_set() else "crash": code})
            self.process = None
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()


def keep_killers(args: argparse.Namespace, results: list[dict]) -> None:
    """Cases that ended their process could not save themselves."""
    import numpy as np

    killers = [case for case in results if "hang" in case or "crash" in case]
    if killers:
        fuzz = load(args.kind, Path(args.work), args.isolated)
        for case in killers:
            name, content, done = fuzz.mutant(np.random.default_rng((args.seed, case["case"])))
            case |= {"name": name, "mutation": done}
            save(content, Path(args.offenders) / f"{args.kind}-{args.seed}-{case['case']}", name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=KINDS, default="media")
    parser.add_argument("--count", type=int, default=1000, help="cases")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seconds", type=float, default=3600.0, help="no new cases after that")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--isolated", action="store_true", help="media: decode in yet another process")
    parser.add_argument("--output", help="file for the numbers")
    parser.add_argument("--offenders", default="build/fuzz/offenders", help="folder")
    parser.add_argument("--work", default="build/fuzz", help="folder for samples")
    parser.add_argument("--quiet", action="store_true", help="no stderr of the workers")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.work, args.offenders = (os.path.abspath(path) for path in (args.work, args.offenders))
    if args.serve:
        serve(args)
        return
    Path(args.work).mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    load(args.kind, Path(args.work), args.isolated)  # makes the samples
    numbers: queue.Queue[int] = queue.Queue()
    for number in range(args.first, args.first + args.count):
        numbers.put(number)
    results: list[dict] = []
    workers = [Worker(args, numbers, results) for _ in range(args.workers)]
    end = threading.Timer(args.seconds, lambda: numbers.queue.clear())
    end.daemon = True
    end.start()
    for worker in workers:
        worker.thread.join()
    end.cancel()
    keep_killers(args, results)
    done = [case for case in results if "result" in case and "trace" not in case]
    refused = [case for case in done if case["result"].startswith("refused")]
    report = {
        "kind": args.kind,
        "seed": args.seed,
        "isolated": args.isolated,
        "cases": len(results),
        "intact": sum(case.get("mutation") == "intact" for case in results),
        "used": len(done) - len(refused),
        "refused": len(refused),
        "other exceptions": sum("trace" in case for case in results),
        "crashes": sum("crash" in case for case in results),
        "hangs": sum("hang" in case for case in results),
        "losses": sum("loss" in case for case in results),
        "longest seconds": round(max((case.get("seconds", 0.0) for case in results), default=0.0), 2),
        "seconds": round(time.monotonic() - began, 1),
        "results": dict(collections.Counter(case["result"] for case in done).most_common(40)),
        "slowest": sorted(results, key=lambda case: -case.get("seconds", 0.0))[:3],
        "offenders": [case for case in results if {"trace", "crash", "hang", "loss"} & set(case)],
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
        "date": time.strftime("%Y-%m-%d"),
    }
    if args.output:
        Path(args.output).write_text(json.dumps(report, indent=1))
    shown = {**report, "offenders": len(report["offenders"])}
    del shown["results"], shown["slowest"]
    print(json.dumps(shown, indent=1))
    sys.exit(bool(report["offenders"]))


if __name__ == "__main__":
    main()
