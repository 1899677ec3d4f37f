# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Contrastive loss, forward and backward: time and memory against the number of clips.

    python benchmarks/bench_loss.py                       # table; a few minutes
    python benchmarks/bench_loss.py --clips 32768 --plain_up_to 4096 --repeats 1

Compares the tiled loss with the plain one, which stores the matrices of similarities, on the same embeddings.
Every measurement is a process of its own, because memory is the peak of a process; the two losses alternate.
Runs on CUDA where there is one.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch

from modeling_vatt.models.losses import contrastive_loss, normalize


def plain_loss(video: torch.Tensor, other: torch.Tensor, temperature: float = 0.07) -> torch.Tensor:
    """The asymmetric loss as a formula on whole matrices."""
    video, other = normalize(video), normalize(other)
    numerator = (torch.einsum("bd,bkd->bk", video, other) / temperature).logsumexp(1)
    to_others = (video @ other.flatten(0, 1).T / temperature).logsumexp(1)
    to_videos = (other.flatten(0, 1) @ video.T / temperature).view(len(video), -1).logsumexp(1)
    return (torch.logaddexp(to_others, to_videos) - numerator).mean()


LOSSES = {"tiled": contrastive_loss, "plain": plain_loss}


def measure(kind: str, clips: int, candidates: int, dim: int) -> dict[str, float]:
    """One step in this process: seconds, and the peak of memory in GB (all of the process on a CPU)."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    video = torch.randn(clips, dim, generator=generator).to(device).requires_grad_()
    other = torch.randn(clips, candidates, dim, generator=generator).to(device).requires_grad_()
    # Libraries and kernels for new shapes are made at the first step; of many clips they are a small part.
    for _ in range(2 if clips <= 8192 else 1):
        video.grad = other.grad = None
        began = time.perf_counter()
        loss = LOSSES[kind](video, other)
        loss.backward()
        value = loss.item()
        seconds = time.perf_counter() - began
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 1e9
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"seconds": seconds, "peak_gb": peak, "loss": value}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, nargs="+", default=[1024, 2048, 4096, 8192])
    parser.add_argument(
        "--plain_up_to", type=int, default=8192, help="Largest number of clips for the plain loss."
    )
    parser.add_argument("--candidates_and_dims", nargs="+", default=["5x256", "1x512"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        kind, *sizes = args.one.split(",")
        print(json.dumps(measure(kind, *map(int, sizes))))
        return
    print("| clips | texts x dim | tiled | plain | tiled/plain | peak tiled | peak plain |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for shape in args.candidates_and_dims:
        candidates, dim = map(int, shape.split("x"))
        for clips in args.clips:
            kinds = ["tiled", "plain"] if clips <= args.plain_up_to else ["tiled"]
            found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
            for _ in range(args.repeats):
                for kind in kinds:
                    command = [sys.executable, __file__, "--one", f"{kind},{clips},{candidates},{dim}"]
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                    found[kind].append(json.loads(done.stdout.splitlines()[-1]))
            seconds = {k: statistics.median(run["seconds"] for run in runs) for k, runs in found.items()}
            peak = {k: max(run["peak_gb"] for run in runs) for k, runs in found.items()}
            cells = [f"{clips}", shape, f"{seconds['tiled']:.2f} s"]
            cells += [f"{seconds['plain']:.2f} s" if "plain" in seconds else ""]
            cells += [f"{seconds['tiled'] / seconds['plain']:.2f}" if "plain" in seconds else ""]
            cells += [f"{peak['tiled']:.2f} GB", f"{peak['plain']:.2f} GB" if "plain" in peak else ""]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
