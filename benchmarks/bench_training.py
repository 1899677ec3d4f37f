# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Training steps with the same global batch, cut in different ways: time and memory. And the demo's step.

    python benchmarks/bench_training.py                       # tiny model; a few minutes on two cores
    python benchmarks/bench_training.py --preset mbs --batch_size 64 --micro_batch_sizes 0 16 --bf16   # GPU
    python benchmarks/bench_training.py --demo                # one minute

First one process with micro batches (gradient caching) of several sizes, then with recomputed activations,
then several processes (gloo, or nccl on CUDA), each on its share of the cores or a GPU of its own. Random
inputs; every measurement starts processes of its own, because memory is the peak of a process.

`--demo` runs the pretraining of `examples/run_demo.py` on clips that it renders, in one process with one
thread, and takes its steps apart: JSON with the milliseconds of processor time, medians over the steps, and
the whole step as a multiple of the model's own time (forward and backward pass).
"""

import argparse
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from modeling_vatt import VattConfig, VattForPreTraining
from modeling_vatt.training import average_gradients, cached_backward, recompute_activations


TEXTS = 5  # of a clip
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
DEMO_WARM_UP = 4  # steps


def random_part(config: VattConfig, clips: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Inputs of a part of a batch, made on the device."""
    video, audio, text = config.video_config, config.audio_config, config.text_config
    shape = (clips, video.num_frames, video.num_channels, video.image_size, video.image_size)
    words = (clips, TEXTS, text.max_position_embeddings)
    with device:
        return {
            "pixel_values_videos": torch.rand(shape) * 2 - 1,
            "input_values": torch.randn(clips, audio.num_samples) * 0.1,
            "input_ids": torch.randint(1, text.vocab_size, words),
        }


def work(rank: int, processes: int, micro: int, recompute: str, options: dict, folder: str) -> None:
    """Steps of one process; the first one leaves its times in the folder."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", rank) if cuda else torch.device("cpu")
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    if processes > 1:
        dist.init_process_group(
            "nccl" if cuda else "gloo", f"file://{folder}/meet", rank=rank, world_size=processes
        )
    torch.manual_seed(0)
    config = VattConfig.from_preset(options["preset"])
    with device:
        model = VattForPreTraining(config).train()
    recompute_activations(model, recompute)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    clips = options["batch_size"] // processes
    size = micro or clips
    parts = [random_part(config, min(size, clips - first), device) for first in range(0, clips, size)]

    def autocast() -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=options["bf16"])

    times = []
    for step in range(options["steps"] + 1):
        if cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        if micro:
            cached_backward(model, parts, range(len(parts)), autocast=autocast)
        else:
            with autocast():
                loss = model(**parts[0], return_logits=False).loss
            loss.backward()
        average_gradients(model)
        optimizer.step()
        optimizer.zero_grad()
        if cuda:
            torch.cuda.synchronize()
        if step:
            times.append(time.perf_counter() - began)
    peak = (
        torch.cuda.max_memory_allocated()
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    if rank == 0:
        result = {"seconds": statistics.median(times), "peak_gb": peak / 1e9}
        Path(folder, "result.json").write_text(json.dumps(result))
    if processes > 1:
        dist.destroy_process_group()


def measure(processes: int, micro: int, recompute: str, options: dict) -> dict[str, float]:
    """In processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            __file__,
            "--one",
            json.dumps([processes, micro, recompute, options, folder]),
        ]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        return json.loads(Path(folder, "result.json").read_text())


class StepClock:
    """Time of the parts of steps.

    Attributes:
        now: the clock, in seconds.
        steps: seconds of each step: parts by name, and all of it as `whole step`.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.steps: list[Counter[str]] = []
        self.parts: Counter[str] = Counter()
        self.began = now()

    def watch(self, part: str, owner: Any, name: str) -> None:
        """Let calls of a function of `owner` count for a part."""
        function: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = self.now()
            try:
                return function(*args, **kwargs)
            finally:
                self.parts[part] += self.now() - began

        setattr(owner, name, timed)

    def end_step(self, *_: Any) -> None:
        """A step is over."""
        now = self.now()
        self.parts["whole step"] = now - self.began
        self.steps.append(self.parts)
        self.parts, self.began = Counter(), self.now()


def time_demo(folder: str, steps: int, workers: int | None) -> dict[str, Any]:
    """Run the demo's pretraining in this process; milliseconds of a step: on the clock with so many workers
    and all threads, or processor time of one thread."""
    sys.path.insert(0, str(EXAMPLES))
    import run_pretraining as script
    from accelerate.optimizer import AcceleratedOptimizer
    from common import as_flags
    from run_demo import PRETRAINING

    from modeling_vatt.data import ClipBatch, ClipDataset
    from modeling_vatt.training import pretrainer

    clock = StepClock(time.process_time if workers is None else time.perf_counter)
    clock.watch("clips", ClipDataset, "__getitems__")
    clock.watch("collation", pretrainer, "collate_clips")
    clock.watch("to the device, colours", ClipBatch, "to")
    clock.watch("model", script.VattForPreTraining, "forward")
    clock.watch("model", script.Accelerator, "backward")
    clock.watch("optimizer", AcceleratedOptimizer, "step")
    script.Progress.step = clock.end_step
    options = {
        **PRETRAINING,
        "num_steps": DEMO_WARM_UP + steps,
        "num_workers": workers or 0,
        "eval_every": 0,
        "save_every": 0,
        "validation_split": "",
        "report_to": "none",
        "remote_code": False,
        "dataset": f"{folder}/corpus",
        "output_dir": f"{folder}/model",
    }
    sys.argv = [script.__file__, *as_flags(**options)]
    if workers is None:
        torch.set_num_threads(1)
    script.main()
    timed = clock.steps[DEMO_WARM_UP:]
    found = {name: 1000 * statistics.median(step[name] for step in timed) for name in timed[0]}
    whole = found.pop("whole step")
    ratio = statistics.median(step["whole step"] / step["model"] for step in timed)
    found |= {"rest": whole - sum(found.values()), "whole step": whole}
    return {name: round(value, 1) for name, value in found.items()} | {"whole step / model": round(ratio, 3)}


def measure_demo(steps: int, workers: int | None) -> dict[str, Any]:
    """[`time_demo`] in a process of its own, on clips that are rendered first."""
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if workers is None else {})
    with tempfile.TemporaryDirectory() as folder:
        corpus = f"--output_dir {folder}/corpus --train_clips 128 --validation_clips 1 --test_clips 1"
        for command in (
            [EXAMPLES / "make_corpus.py", *corpus.split()],
            [__file__, "--one_demo", json.dumps([folder, steps, workers])],
        ):
            found = subprocess.run(
                [sys.executable, *command], env=environment, capture_output=True, text=True
            )
            if found.returncode:
                sys.exit(found.stderr)
        return json.loads(Path(folder, "result.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="ma_tiny")
    parser.add_argument("--batch_size", type=int, default=128, help="Clips of a step over all processes.")
    parser.add_argument("--micro_batch_sizes", type=int, nargs="+", default=[0, 64, 32, 16, 8])
    parser.add_argument("--recompute", nargs="*", default=["full", "selective"])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--steps", type=int, help="Timed steps, after one to warm up: 3; with --demo 24 after 4."
    )
    parser.add_argument("--bf16", action="store_true", help="Autocast.")
    parser.add_argument("--demo", action="store_true", help="The demo's step in parts instead.")
    parser.add_argument(
        "--workers", type=int, help="With --demo: time on the clock with so many, instead of processor time."
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--one_demo", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.demo:
        print(json.dumps(measure_demo(args.steps or 24, args.workers), indent=1))
        return
    if args.one_demo:
        folder, *rest = json.loads(args.one_demo)
        Path(folder, "result.json").write_text(json.dumps(time_demo(folder, *rest)))
        return
    if args.one:
        processes, *rest = json.loads(args.one)
        mp.spawn(work, (processes, *rest), nprocs=processes)
        return
    options = {name: getattr(args, name) for name in ("preset", "batch_size", "bf16")}
    options["steps"] = args.steps or 3
    print(f"{args.preset}, {args.batch_size} clips a step, torch {torch.__version__}\n")
    print(
        "| processes | micro batch | recomputed | s/step | against the first | clips/s | peak of a process |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    first = None
    cases = [(1, micro, "no") for micro in args.micro_batch_sizes]
    cases += [(1, 0, recompute) for recompute in args.recompute]
    cases += [(processes, 0, "no") for processes in args.processes if processes > 1]
    for processes, micro, recompute in cases:
        found = measure(processes, micro, recompute, options)
        first = first or found["seconds"]
        cells = [str(processes), str(micro or "whole"), recompute, f"{found['seconds']:.2f}"]
        cells += [f"{found['seconds'] / first:.2f}", f"{args.batch_size / found['seconds']:.1f}"]
        print("| " + " | ".join([*cells, f"{found['peak_gb']:.2f} GB"]) + " |", flush=True)


if __name__ == "__main__":
    main()
